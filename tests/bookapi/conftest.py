"""A reader with a real token, and caches as a fresh process has them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from bookapi import accounts, key_rotation, tokens
from bookapi.key_rotation import Folders
from tests.bookapi.jobs import Jobs
from tests.bookapi.logins import QUICK_HASHERS, make_user


@pytest.fixture(autouse=True)
def _fresh_process(settings: Any) -> None:
    settings.PASSWORD_HASHERS = QUICK_HASHERS
    settings.RATE_LIMIT_ACCOUNT = settings.RATE_LIMIT_ADDRESS = "off"
    accounts.cache.clear()
    tokens.verified.clear()


@pytest.fixture(scope="session")
def key_folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Keys as `rotate_keys --make` makes them, once, because a pair takes a tenth of a second. Not to be rotated."""
    folder = tmp_path_factory.mktemp("keys")
    folders = Folders(public=folder / "public", private=folder / "private")
    key_rotation.make(folders)
    return folders


@pytest.fixture
def reader(db: None) -> Client:
    """A client that is logged in, and whose account is known: its requests cost no query for that."""
    user = make_user("reader")
    pair = tokens.log_in(user)
    accounts.cache.get(user.pk)
    return Client(headers={"Authorization": f"Bearer {pair.access}"})


@pytest.fixture
def jobs_here(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs in a folder of the test, and the child in the test's database."""
    database = settings.DATABASES["default"]
    settings.VAR_DIR = tmp_path
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "bookapi.settings")
    monkeypatch.setenv("PYTHONPATH", str(settings.BASE_DIR))
    if database["ENGINE"].endswith("sqlite3"):
        monkeypatch.setenv("DATABASE_URL", f"sqlite:///{database['NAME']}")
    else:
        login = f"{database['USER']}:{database['PASSWORD']}@{database['HOST']}:{database['PORT']}"
        monkeypatch.setenv("DATABASE_URL", f"postgres://{login}/{database['NAME']}")


@pytest.fixture
def crawl_jobs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Jobs]:
    jobs = Jobs(monkeypatch)
    yield jobs
    jobs.kill()
