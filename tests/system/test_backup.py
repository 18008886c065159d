"""The commands of docs/operations.md, run as they stand there: a backup, a loss, a restore."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.catalog.crawled import scraped
from tests.crawler.conftest import Crawled, _crawled_once, crawled, migrated, served, template
from tests.crawler.deployment import ROOT, Deployment

__all__ = ["_crawled_once", "crawled", "migrated", "served", "template"]

pytestmark = pytest.mark.system

FILES = ("models/champion.json", "spool/7/batch.json", "secret_key")
LOGS = "SELECT (SELECT count(*) FROM catalog_change), (SELECT count(*) FROM catalog_sighting)"


def documented(name: str) -> str:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    (block,) = re.findall(rf"<!-- tested: {name} -->\n```console\n(.*?)```", text, re.DOTALL)
    return str(block)


def shell(here: Deployment, commands: str, backup: Path) -> str:
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=ROOT,
        env=here.environment() | {"BACKUP": str(backup), "LOG_LEVEL": "WARNING"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, (commands, ended.stdout, ended.stderr)
    return ended.stdout


def test_the_documented_commands_bring_everything_back(crawled: Crawled, tmp_path: Path) -> None:
    here = crawled.deployment
    kind = "postgres" if here.is_postgres else "sqlite"
    if shutil.which("sqlite3" if kind == "sqlite" else "pg_dump") is None:
        pytest.skip("the database's own program is not installed")
    if kind == "sqlite":
        shutil.move(here.url.removeprefix("sqlite:///"), here.folder / "catalogue.sqlite3")
        here.url = f"sqlite:///{here.folder / 'catalogue.sqlite3'}"
    (backup := tmp_path / "backup").mkdir()
    for name in FILES:
        (here.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (here.folder / name).write_text("as it was, and as long as a key needs")
    books, logs = here.books(), here.rows(LOGS)
    assert len(books) == 300
    shell(here, documented(f"{kind} backup"), backup)

    for loss in (
        "UPDATE catalog_book SET title = 'lost'",
        "DELETE FROM catalog_change",
        "DELETE FROM catalog_sighting",
    ):
        here.execute(loss)
    here.execute("UPDATE catalog_cataloguerevision SET number = number + 50")
    last = here.revision()
    for name in FILES:
        (here.folder / name).unlink()
    shell(here, documented(f"{kind} restore"), backup)

    assert here.books() == books
    assert here.rows(LOGS) == logs
    assert [(here.folder / name).read_text() for name in FILES] == ["as it was, and as long as a key needs"] * 3
    assert here.revision() > last, "a number that was given out means something else now"
    (file := tmp_path / "one.jsonl").write_text(json.dumps(scraped("new").raw_fields()))
    shell(here, f".venv/bin/python manage.py ingest {file} --shop shop", backup)
    assert len(here.books()) == 301, "ids go on where they were"
