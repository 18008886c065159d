"""What the containers promise: read from the files that describe them, and by their linters where these are."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from bookapi import queues
from deploy import make_secrets
from deploy.cluster import commands

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose.yaml"
DOCKERFILES = (DEPLOY / "Dockerfile", DEPLOY / "Dockerfile.prediction")
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ONCE = {"migrate", "keys"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """compose.yaml, with its anchors followed. YAML knows these; its variables are left as they are."""
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return found


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose["services"]
    assert len(found) > 15
    return found


def mounts(service: dict[str, Any]) -> dict[str, str]:
    """Volume or folder to how it is mounted: "" or "ro"."""
    parts = [(*volume.split(":"), "")[:3] for volume in service.get("volumes", ())]
    return {source: mode for source, _, mode in parts}


# --- compose.yaml -----------------------------------------------------------------------------------------------------
def test_no_service_is_root_or_may_become_it_or_writes_where_it_should_not(services: dict[str, Any]) -> None:
    for name, service in services.items():
        user, _, _ = service["user"].partition(":")
        assert int(user) > 0, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"] is True, name
        assert not service.get("privileged"), name


def test_images_are_of_a_named_version(services: dict[str, Any]) -> None:
    for name, service in services.items():
        _, _, tag = service["image"].partition(":")
        assert tag, name
        assert "latest" not in tag, name


def test_the_gateway_alone_has_a_port_that_the_world_sees(services: dict[str, Any]) -> None:
    assert {name for name, service in services.items() if "ports" in service} == {"gateway"}
    assert services["gateway"]["ports"] == ["${PORT:-8000}:8080"]
    outside = {name for name, service in services.items() if "outside" in service["networks"]}
    assert outside == {"gateway", "crawl", "training"}


def test_who_does_not_sign_does_not_see_the_keys_that_do(services: dict[str, Any]) -> None:
    assert {name for name, service in services.items() if "keys-private" in mounts(service)} == {"auth", "keys"}
    assert {name for name, service in services.items() if "JWT_PRIVATE_KEYS" in service.get("environment", {})} == {
        "auth"
    }
    writers = {name for name, service in services.items() if mounts(service).get("keys-public") == ""}
    assert writers == {"auth", "keys"}


def test_no_secret_has_a_default(compose: dict[str, Any]) -> None:
    text = COMPOSE.read_text()
    asked = re.findall(r"\$\{(\w*(?:SECRET|PASSWORD|TOKEN)\w*)(:?[-?])", text)
    assert {name for name, _ in asked} == set(make_secrets.NAMES)
    assert {how for _, how in asked} == {":?"}
    assert compose["secrets"] == {"metrics_token": {"file": "./secrets/metrics_token"}}


def test_every_service_has_its_limits_and_starts_when_what_it_needs_is_there(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert {"cpus", "memory", "pids"} == set(service["deploy"]["resources"]["limits"]), name
        assert service["restart"] == ("on-failure" if name in ONCE else "unless-stopped"), name
        assert "healthcheck" in service, name
        for other, how in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if other in ONCE else "service_healthy"
            assert how == {"condition": wanted}, f"{name} needs {other}"
            assert other in ONCE or not services[other]["healthcheck"].get("disable"), (
                f"{name} waits for {other} for ever"
            )


def test_processes_are_started_as_the_cluster_starts_them(services: dict[str, Any]) -> None:
    def in_image(command: list[str]) -> list[str]:
        return ["python" if part == sys.executable else part for part in command]

    for kind in commands.QUEUES:
        assert services[kind]["command"] == in_image(commands.worker(kind, kind)), kind
    assert services["beat"]["command"] == in_image(commands.beat())
    assert services["migrate"]["command"][:3] == in_image(commands.manage("migrate"))
    for name in ("api", "auth", "admin", "prediction"):
        assert "command" not in services[name], "the image's own"
    assert f'"{" ".join(in_image(commands.prediction(8001, "0.0.0.0")))}"' == f'"{_command(DOCKERFILES[1])}"'  # noqa: S104
    assert _command(DOCKERFILES[0]) == "python manage.py serve --host 0.0.0.0 --port 8000"


def _command(dockerfile: Path) -> str:
    (line,) = re.findall(r"^CMD (\[.*\])$", dockerfile.read_text(), re.MULTILINE)
    words: list[str] = yaml.safe_load(line)
    return " ".join(words)


def test_every_queue_has_its_worker(services: dict[str, Any]) -> None:
    read = {
        part for service in services.values() for part in service.get("command", ()) if str(part).startswith("bookapi.")
    }
    assert {queue.name for queue in queues.WORK} <= read


def test_services_are_told_only_what_the_settings_know(services: dict[str, Any]) -> None:
    known = set(re.findall(r"^#([A-Z][A-Z0-9_]*)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    for name in ("api", "auth", "admin", "ingest", "beat", "migrate"):
        told = {variable.removesuffix("_FILE") for variable in services[name]["environment"]}
        assert told <= known, name


# --- Secrets ----------------------------------------------------------------------------------------------------------
def test_secrets_are_made_once_and_are_for_their_owner(tmp_path: Path) -> None:
    assert make_secrets.make(tmp_path)
    first = (tmp_path / ".env").read_text()
    values = dict(line.split("=") for line in first.splitlines() if not line.startswith("#"))
    assert set(values) == set(make_secrets.NAMES)
    assert len(set(values.values())) == len(values)
    assert all(len(value) >= 64 for value in values.values())
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    assert not make_secrets.make(tmp_path)
    assert (tmp_path / ".env").read_text() == first


def test_secrets_are_not_committed_and_not_built_into_images() -> None:
    for name in ("deploy/.env", "deploy/secrets/metrics_token"):
        done = subprocess.run(["git", "check-ignore", "--no-index", "-q", name], cwd=ROOT, check=False)
        assert done.returncode == 0, name
    # Everything is left out but what is named.
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    named = {line[1:].partition("/")[0] for line in lines if line.startswith("!")}
    assert named == {"requirements", "manage.py", "scrapy.cfg", "bookapi", "catalog", "crawler", "recommender"}


# --- Dockerfiles ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_images_run_as_nobody_in_particular_and_install_only_what_has_a_hash(file: Path) -> None:
    text = file.read_text()
    last = text.rpartition("\nFROM ")[2]
    assert re.search(r"^USER 10001:10001$", last, re.MULTILINE)
    assert "HEALTHCHECK" in last
    assert text.count("pip --python") == text.count("--require-hashes") == 1
    assert not re.search(r"^(ADD|ENTRYPOINT) ", text, re.MULTILINE)
    # Not by a shell, which would keep SIGTERM for itself.
    assert _command(file).startswith("python ")


def test_the_prediction_image_holds_nothing_of_django() -> None:
    copied = re.findall(r"^COPY (?!--from)(\S+)", DOCKERFILES[1].read_text(), re.MULTILINE)
    assert copied == ["requirements/*.txt", "recommender/__init__.py", "recommender/engine", "recommender/service"]


# --- Linters ----------------------------------------------------------------------------------------------------------
def linted(program: str, *arguments: str) -> str:
    """What a linter says that finds nothing wrong. They are not among the requirements; CI installs them."""
    beside = Path(sys.executable).with_name(program)
    found = str(beside) if beside.exists() else shutil.which(program)
    if not found:
        pytest.skip(f"{program} is not installed")
    done = subprocess.run([found, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_dockerfiles_please_hadolint() -> None:
    linted("hadolint", *map(str, DOCKERFILES))


def test_compose_understands_its_file_once_there_are_secrets(tmp_path: Path) -> None:
    make_secrets.make(tmp_path)
    arguments = ("-f", str(COMPOSE), "--env-file", str(tmp_path / ".env"), "config", "--format", "json")
    said = linted("docker-compose", *arguments)
    assert set(yaml.safe_load(said)["services"]) == set(yaml.safe_load(COMPOSE.read_text())["services"])


def test_workflows_please_zizmor() -> None:
    linted("zizmor", "--offline", "--quiet", *map(str, WORKFLOWS))
