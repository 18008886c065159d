# Everything a person does with a checkout. `make` alone lists it.
.DEFAULT_GOAL := help
.PHONY: help setup run serve cluster workers scheduler crawl train test lint bench chaos schema requirements up down clean

PORT ?= 8000
ARGS ?=
N ?= 2

# Relative, because a checkout's path may hold spaces; and tools are run as modules, because the first line of a script
# in .venv/bin holds that path as well.
PY := .venv/bin/python
# The first of these that is Python 3.11 or newer. `make setup PYTHON=/path/to/python` chooses another one.
PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11,$(shell \
	$(name) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(name))))

# An unpacked archive has no .git and would be taken for a release; at this end of a Makefile it is somebody's desk.
ifeq ($(ENVIRONMENT)$(wildcard .git .env),)
export ENVIRONMENT := development
endif

help: ## List what can be made
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 20

setup: .venv/dev.stamp ## Install everything, the tools of development too, into .venv

run: .venv/base.stamp ## Serve, fill the catalogue from a shop, train the recommender: PORT=8000, ARGS="--practice", ARGS="--no-crawl"
	$(PY) manage.py quickstart --port $(PORT) $(ARGS)

serve: .venv/base.stamp ## Serve alone, log lines on the terminal: PORT=8000, ARGS="--host 0.0.0.0"
	$(PY) manage.py migrate --no-input --verbosity 0
	$(PY) manage.py serve --port $(PORT) $(ARGS)

cluster: .venv/service.stamp ## Run every service as a local process, PostgreSQL and RabbitMQ too: ARGS="--workers 4", ARGS="--books 5000"
	$(PY) -m deploy.cluster up $(ARGS)

# One process that ends at one signal; Celery keeps N children busy and replaces those that die.
workers: .venv/base.stamp ## Write what crawls publish to BROKER_URL, until Ctrl-C: N=4
	$(PY) -m deploy.cluster workers $(N)

scheduler: .venv/base.stamp ## Start crawls, trainings and upkeep when they are due, as the administration says
	$(PY) manage.py migrate --no-input --verbosity 0
	$(PY) manage.py scheduler

crawl: .venv/base.stamp ## Read the configured shop: ARGS="-a limit=20", ARGS="-a resume=7"
	$(PY) manage.py migrate --no-input --verbosity 0
	$(PY) -m scrapy crawl books $(ARGS)

train: .venv/base.stamp ## Train the recommender, and serve the new model if it is good enough: ARGS="--recipe s"
	$(PY) manage.py migrate --no-input --verbosity 0
	$(PY) manage.py retrain $(ARGS)

test: .venv/dev.stamp ## Run the tests on SQLite, then those that need a database on PostgreSQL: ARGS="-k price"
	$(PY) -m tests.run $(ARGS)

lint: .venv/dev.stamp ## Check style, types, import rules, migrations and the committed schema
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -c 'from importlinter.cli import lint_imports_command; lint_imports_command()'
	$(PY) manage.py makemigrations --check --dry-run --verbosity 0
	$(PY) manage.py spectacular --validate --fail-on-warn --file .venv/schema.yml
	@cmp -s docs/schema.yml .venv/schema.yml || { echo 'docs/schema.yml is not what the code says: make schema'; exit 1; }

bench: .venv/dev.stamp ## Measure serving, ingest, crawling and recommending: ARGS= chooses
	$(PY) -m benchmarks $(ARGS)

chaos: .venv/dev.stamp ## Crawl through the queue while its processes are killed, and count what is lost: ARGS="--plain"
	$(PY) -m benchmarks.chaos $(ARGS)

schema: .venv/dev.stamp ## Write docs/schema.yml, the committed OpenAPI description
	$(PY) manage.py spectacular --validate --fail-on-warn --file docs/schema.yml

requirements: .venv/dev.stamp ## Resolve requirements/*.in anew, with hashes, for every Python from 3.11
	cd requirements && ../$(PY) -m uv pip compile --universal --python-version 3.11 --generate-hashes --no-header \
		--no-emit-index-url --quiet --upgrade base.in --output-file base.txt
	cd requirements && ../$(PY) -m uv pip compile --universal --python-version 3.11 --generate-hashes --no-header \
		--no-emit-index-url --quiet --upgrade dev.in --output-file dev.txt
	cd requirements && ../$(PY) -m uv pip compile --universal --python-version 3.11 --generate-hashes --no-header \
		--no-emit-index-url --quiet --constraint dev.txt service.in --output-file service.txt
	cd requirements && ../$(PY) -m uv pip compile --universal --python-version 3.11 --generate-hashes --no-header \
		--no-emit-index-url --quiet --constraint base.txt s3.in --output-file s3.txt
	cd requirements && ../$(PY) -m uv pip compile --universal --python-version 3.11 --generate-hashes --no-header \
		--no-emit-index-url --quiet --constraint dev.txt embeddings.in --output-file embeddings.txt

up: ## Build the images and run everything in containers, with secrets of its own: PORT=8000; needs Docker
	@docker compose version >/dev/null 2>&1 && docker info >/dev/null 2>&1 || { \
		echo 'Docker with its compose plugin is needed, and does not answer here.'; exit 1; }
	@python3 deploy/make_secrets.py
	PORT=$(PORT) docker compose -f deploy/compose.yaml up --build --detach
	@echo 'http://localhost:$(PORT) answers. An account: docker compose -f deploy/compose.yaml exec auth' \
		'python manage.py create_account NAME --role operator'

down: ## End the containers of `make up`; what they keep stays in their volumes
	@docker compose version >/dev/null 2>&1 || { echo 'Docker with its compose plugin is needed.'; exit 1; }
	docker compose -f deploy/compose.yaml down

clean: ## Remove .venv and what tools leave behind; the catalogue in var/ stays
	rm -rf .venv static .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Where the environment forbids bytecode, every process compiles thousands of lines anew: a small crawl takes 5 s, not 2.
export PYTHONDONTWRITEBYTECODE :=

# --- How .venv is made ------------------------------------------------------------------------------------------------
# A stamp for each set, so that nothing is installed twice, and `make run` does not wait for the tools of development.
# The files name every package with its hashes, so there is nothing to resolve: --no-deps. Compiling all of it would
# double the time; Python compiles what it imports: --no-compile.
INSTALL := $(PY) -m pip install -qq --no-compile --disable-pip-version-check --no-deps --require-hashes

.venv/base.stamp: requirements/base.txt | .venv/bin/python
	@echo 'Installing what the product needs into .venv (a minute or so, once)'
	@$(INSTALL) -r requirements/base.txt
	@touch $@

.venv/service.stamp: requirements/service.txt .venv/base.stamp
	@echo 'Installing what the prediction service needs'
	@$(INSTALL) -r requirements/service.txt
	@touch $@

.venv/dev.stamp: requirements/dev.txt .venv/base.stamp
	@echo 'Installing what tests and checks need'
	@$(INSTALL) -r requirements/dev.txt
	@touch $@

.venv/bin/python:
	@test -n '$(PYTHON)' || { echo 'Python 3.11 or newer is needed; python3 here is' \
		"$$(python3 --version 2>&1). Name another one: make setup PYTHON=/path/to/python"; exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is $$('$(PYTHON)' --version 2>&1); 3.11 or newer is needed"; exit 1; }
	@'$(PYTHON)' -c 'import venv, ensurepip' 2>/dev/null || { \
		echo '$(PYTHON) has no venv module (on Debian and Ubuntu: apt install python3-venv)'; exit 1; }
	@'$(PYTHON)' -m venv .venv
