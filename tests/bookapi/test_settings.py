"""Settings: documented, typed, and loud about what they do not understand."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from bookapi import environment as env
from bookapi.rates import parse_rate

ROOT = Path(__file__).parents[2]
SECRET = "a-secret-of-this-test-and-of-nothing-else-in-the-world"
PRODUCTION = {"ENVIRONMENT": "production", "SECRET_KEY": SECRET, "ALLOWED_HOSTS": "books.example.org"}


def python(code: str, environment: dict[str, str], var: Path) -> subprocess.CompletedProcess[str]:
    """`code` in a process that knows nothing of our environment."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**kept, "VAR_DIR": str(var), "DJANGO_SETTINGS_MODULE": "bookapi.settings", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def settings(environment: dict[str, str], var: Path, *names: str) -> dict[str, Any]:
    """The settings of these names, as a process with this environment has them."""
    ended = python(
        f"import json; from bookapi import settings; print(json.dumps({{n: getattr(settings, n) for n in {names}}}))",
        environment,
        var,
    )
    assert ended.returncode == 0, ended.stderr
    values: dict[str, Any] = json.loads(ended.stdout)
    return values


def refusal(environment: dict[str, str], var: Path) -> str:
    """Why the settings do not load."""
    ended = python("import bookapi.settings", environment, var)
    assert ended.returncode != 0
    last = ended.stderr.strip().splitlines()[-1]
    assert "ImproperlyConfigured" in last, ended.stderr
    return last


# --- .env.example -----------------------------------------------------------------------------------------------------
def variables_read() -> set[str]:
    """Names that settings.py asks for: the first argument of every env.something(...)."""
    tree = ast.parse((ROOT / "bookapi" / "settings.py").read_text(encoding="utf-8"))
    return {
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "env"
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    }


def variables_documented() -> dict[str, str]:
    """Name and comment of every variable of .env.example; a comment covers the lines up to the next empty one."""
    found = {}
    for block in (ROOT / ".env.example").read_text(encoding="utf-8").split("\n\n"):
        lines = block.splitlines()
        names = [match[1] for line in lines if (match := re.match(r"#?([A-Z][A-Z_]+)=", line))]
        comment = " ".join(line.lstrip("# ") for line in lines if line.startswith("# "))
        found.update(dict.fromkeys(names, comment))
    return found


def test_every_variable_that_is_read_is_documented() -> None:
    assert variables_read() - set(variables_documented()) == set()
    assert len(variables_read()) > 15  # or the search itself is broken


def test_every_documented_variable_is_read() -> None:
    assert set(variables_documented()) - variables_read() == set()


def test_every_documented_variable_has_a_comment() -> None:
    assert [name for name, comment in variables_documented().items() if len(comment.split()) < 3] == []


def test_documented_defaults_are_the_defaults(tmp_path: Path) -> None:
    examples = {"ENVIRONMENT", "ALLOWED_HOSTS", "PUBLIC_URL", "DATABASE_URL", "VAR_DIR", "SECRET_KEY", "ARTIFACT_STORE"}
    examples |= {"BROKER_URL", "CACHE_URL", "SPOOL_DIR", "JWT_PUBLIC_KEYS", "JWT_PRIVATE_KEYS"}
    told = dict(re.findall(r"^#([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE))
    names = sorted(told.keys() - examples)
    actual = settings(PRODUCTION, tmp_path, *names)
    assert {name: str(actual[name]) for name in names} == {
        name: told[name].capitalize() if told[name] in {"true", "false"} else told[name] for name in names
    }


def test_nothing_reads_the_environment_past_the_settings() -> None:
    """Scattered reads cannot be documented or checked. PROMETHEUS_MULTIPROC_DIR is prometheus-client's own; REQUEST_ID
    is what one of our processes tells another one; the engine and its service, which know no Django, read by themselves
    what the settings read as well."""
    allowed = {"DJANGO_SETTINGS_MODULE", "PROMETHEUS_MULTIPROC_DIR"}
    without_django = ("recommender/engine/", "recommender/service/")
    found = {
        (str(path.relative_to(ROOT)), name)
        for package in ("bookapi", "catalog", "crawler", "recommender")
        for path in (ROOT / package).rglob("*.py")
        for name in re.findall(
            r"(?:os\.environ(?:\.get|\.setdefault)?|getenv)[\[(]\"([A-Z_]+)\"", path.read_text(encoding="utf-8")
        )
    }
    assert {name for _, name in found} >= {"DJANGO_SETTINGS_MODULE"}
    documented = variables_documented()
    assert {
        (path, name)
        for path, name in found
        if name not in allowed and not (path.startswith(without_django) and name in documented)
    } == {("bookapi/logs.py", "REQUEST_ID")}


# --- Bad values -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ENVIRONMENT", "prod"),
        ("DEBUG", "yes"),
        ("DEBUG", "1"),
        ("SECRET_KEY", "short"),
        ("PUBLIC_URL", "books.example.org"),
        ("PUBLIC_URL", "ftp://books.example.org"),
        ("TRUSTED_PROXIES", "-1"),
        ("TRUSTED_PROXIES", "11"),
        ("TRUSTED_PROXIES", "one"),
        ("DATABASE_URL", "mysql://localhost/books"),
        ("DATABASE_URL", "nonsense"),
        ("DATABASE_URL", "postgres://localhost"),
        ("DATABASE_URL", "postgres://localhost:99999/books"),
        ("DATABASE_URL", "sqlite://:memory:"),
        ("PUBLIC_READ", "ja"),
        ("ACCOUNT_CHECK_S", "3601"),
        ("ACCESS_TOKEN_S", "0"),
        ("REFRESH_TOKEN_S", "1.5"),
        ("LOGIN_ATTEMPTS", "0"),
        ("LOGIN_LOCKOUT_S", "forever"),
        ("SHOP_URL", "//books.toscrape.com"),
        ("DELIST_MIN_SHARE", "80"),
        ("DELIST_MIN_SHARE", "nan"),
        ("DELIST_MIN_SHARE", "most"),
        ("LOG_LEVEL", "verbose"),
        ("LOG_FORMAT", "xml"),
    ],
)
def test_bad_value_stops_the_start_and_names_the_variable(name: str, value: str, tmp_path: Path) -> None:
    assert name in refusal({name: value}, tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "postgres://u:hunter2@h:99999/books"),
        ("DATABASE_URL", "postgres://u:hunter2/3@h:5432/books"),
        ("DATABASE_URL", "postgress://u:hunter2@h:5432/books"),
        ("BROKER_URL", "amqp://u:hunter2/3@h:5672/"),
        ("BROKER_URL", "http://u:hunter2@h:5672/"),
        ("CACHE_URL", "redis://u:hunter2?3@h:6379/0"),
        ("CACHE_URL", "redis://u:hunter2[3@h:6379/0"),
    ],
)
def test_refusal_of_an_address_does_not_repeat_its_password(tmp_path: Path, name: str, value: str) -> None:
    told = python("import bookapi.settings", {name: value}, tmp_path)
    assert f"ImproperlyConfigured: {name}" in told.stderr
    assert "hunter2" not in told.stderr + told.stdout


@pytest.mark.parametrize("value", ["600", "600/fortnight", "0/min", "-1/min", "many/min", "1.5/sec"])
def test_bad_rate_is_refused(value: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=re.escape(value)):
        parse_rate(value)


def test_who_signs_must_also_verify(tmp_path: Path) -> None:
    assert "JWT_PUBLIC_KEYS" in refusal({**PRODUCTION, "JWT_PRIVATE_KEYS": str(tmp_path)}, tmp_path)


@pytest.mark.parametrize("name", ["SECRET_KEY", "ALLOWED_HOSTS"])
def test_production_without_secret_or_hosts_does_not_start(name: str, tmp_path: Path) -> None:
    assert name in refusal({key: value for key, value in PRODUCTION.items() if key != name}, tmp_path)
    assert not (tmp_path / "secret_key").exists()


def test_production_does_not_debug(tmp_path: Path) -> None:
    assert "DEBUG" in refusal({**PRODUCTION, "DEBUG": "true"}, tmp_path)


# --- Values -----------------------------------------------------------------------------------------------------------
def test_empty_value_is_the_default(tmp_path: Path) -> None:
    blank = dict.fromkeys(("DEBUG", "TRUSTED_PROXIES", "ACCOUNT_CHECK_S", "SHOP_NAME", "DATABASE_URL"), "")
    values = settings(blank, tmp_path, "DEBUG", "TRUSTED_PROXIES", "ACCOUNT_CHECK_S", "SHOP_NAME")
    assert values == {"DEBUG": False, "TRUSTED_PROXIES": 0, "ACCOUNT_CHECK_S": 30, "SHOP_NAME": "books-toscrape"}


def test_secret_comes_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\n")
    environment = {**PRODUCTION, "SECRET_KEY": "", "SECRET_KEY_FILE": str(path)}
    assert settings(environment, tmp_path, "SECRET_KEY") == {"SECRET_KEY": SECRET}


def test_missing_secret_file_stops_the_start(tmp_path: Path) -> None:
    told = refusal({**PRODUCTION, "SECRET_KEY_FILE": str(tmp_path / "gone")}, tmp_path)
    assert "SECRET_KEY_FILE" in told


def test_folder_with_any_name_holds_the_database(tmp_path: Path) -> None:
    var = tmp_path / "50% of #1 & more?"
    ended = python(
        "import django; django.setup(); from django.core.management import call_command\n"
        "call_command('migrate', 'contenttypes', verbosity=0)",
        {"SECRET_KEY": SECRET},
        var,
    )
    assert ended.returncode == 0, ended.stderr
    assert (var / "catalogue.sqlite3").exists()


def test_postgres_address_is_taken_apart(tmp_path: Path) -> None:
    url = "postgres://u:p%40ss@db.example.org:6432/books?sslmode=require"
    database = settings({"DATABASE_URL": url}, tmp_path, "DATABASES")["DATABASES"]["default"]
    expected = {"USER": "u", "PASSWORD": "p@ss", "HOST": "db.example.org", "PORT": 6432, "NAME": "books"}
    assert expected.items() <= database.items()
    assert database["OPTIONS"] == {"sslmode": "require"}
    assert database["CONN_HEALTH_CHECKS"] is True


def test_https_address_makes_cookies_secure_and_is_a_trusted_origin(tmp_path: Path) -> None:
    names = ("SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE", "SECURE_HSTS_SECONDS", "CSRF_TRUSTED_ORIGINS")
    assert settings({**PRODUCTION, "PUBLIC_URL": "https://example.org/books/"}, tmp_path, *names) == {
        "SESSION_COOKIE_SECURE": True,
        "CSRF_COOKIE_SECURE": True,
        "SECURE_HSTS_SECONDS": 31_536_000,
        "CSRF_TRUSTED_ORIGINS": ["https://example.org"],
    }


def test_forwarded_scheme_is_believed_only_behind_a_proxy_of_ours(tmp_path: Path) -> None:
    code = "from django.conf import settings; print(settings.SECURE_PROXY_SSL_HEADER)"
    assert python(code, PRODUCTION, tmp_path).stdout.strip() == "None"
    behind = python(code, {**PRODUCTION, "TRUSTED_PROXIES": "1"}, tmp_path)
    assert "HTTP_X_FORWARDED_PROTO" in behind.stdout


def test_deployment_check_finds_nothing_in_production(tmp_path: Path) -> None:
    code = (
        "import django; django.setup(); from django.core.management import call_command\n"
        "call_command('check', deploy=True, fail_level='WARNING')"
    )
    ended = python(code, {**PRODUCTION, "PUBLIC_URL": "https://books.example.org", "TRUSTED_PROXIES": "1"}, tmp_path)
    assert ended.returncode == 0, ended.stderr


# --- The kept secret --------------------------------------------------------------------------------------------------
def test_development_keeps_one_secret_for_its_owner_alone(tmp_path: Path) -> None:
    first = settings({"ENVIRONMENT": "development"}, tmp_path, "SECRET_KEY")
    assert settings({"ENVIRONMENT": "development"}, tmp_path, "SECRET_KEY") == first
    assert len(first["SECRET_KEY"]) >= 64
    assert (tmp_path / "secret_key").stat().st_mode & 0o777 == 0o600


def test_processes_that_start_at_once_agree_on_the_secret(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from bookapi.environment import kept_secret\n"
        "time.sleep(max(0, float(sys.stdin.readline()) - time.time())); print(kept_secret(Path(sys.argv[1])))"
    )
    path = tmp_path / "deep" / "secret_key"

    def ask(at: float) -> str:
        ended = subprocess.run(
            [sys.executable, "-c", code, str(path)],
            cwd=ROOT, input=f"{at}\n", capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        return ended.stdout.strip()

    with ThreadPoolExecutor(4) as pool:
        secrets = set(pool.map(ask, [time.time() + 1.5] * 4))
    assert len(secrets) == 1
    assert len(secrets.pop()) >= 64
    assert [entry.name for entry in path.parent.iterdir()] == ["secret_key"]


def test_secret_that_was_just_made_elsewhere_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The race itself: another process links its secret while we write ours."""
    path = tmp_path / "secret_key"
    link = os.link

    def beaten(draft: Path, target: Path) -> None:
        Path(target).write_text("the secret of the other process")
        link(draft, target)

    monkeypatch.setattr(os, "link", beaten)
    assert env.kept_secret(path) == "the secret of the other process"
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret_key"]


# --- Readers ----------------------------------------------------------------------------------------------------------
def test_words_are_split_and_stripped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_WORDS", " a.example.org ,b.example.org,, ")
    assert env.words("SOME_WORDS") == ["a.example.org", "b.example.org"]


def test_address_loses_its_last_slash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_URL", "https://example.org/")
    assert env.web_address("SOME_URL") == "https://example.org"
