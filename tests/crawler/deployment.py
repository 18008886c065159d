"""A database of one's own and real crawls on it: `scrapy crawl books` as a process, on SQLite or PostgreSQL.

The kind of database is the suite's: with DATABASE_URL=postgres://... each test gets a new database on that server,
copied from a migrated one, as it gets a copied file with SQLite.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import psycopg2

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120
SHOP = "practice"
#: Columns of a book that a crawl writes, by how databases tell them.
PLAIN_FIELDS = (
    *("upc", "title", "description", "currency", "rating", "stock", "availability", "review_count"),
    *("product_type", "image_url", "source_url"),
)
MONEY = ("price", "price_excl_tax", "tax")
FLAGS = ("in_stock", "listed")
_names = count()


@dataclass
class Crawl:
    """A crawl's process that has ended."""

    code: int
    log: str  # stderr: JSON lines, and what is said to a person

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]

    def status_count(self, status: int) -> int:
        """Answers of this status, as Scrapy counted them."""
        stats = next(line["event"] for line in self.lines if line["event"].startswith("Dumping Scrapy stats"))
        _, _, rest = stats.partition(f"response_status_count/{status}': ")
        return int(rest.split(",")[0]) if rest else 0


@dataclass
class Deployment:
    """A migrated database, and a folder for what processes leave behind."""

    url: str
    folder: Path
    settings: dict[str, str] = field(default_factory=dict)  # environment variables

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """`scrapy crawl books` under way; its stderr goes to a file, so that no pipe can fill."""
        with (self.folder / "log").open("w") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "scrapy", "crawl", "books", *arguments],
                cwd=ROOT,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                text=True,
            )

    def environment(self) -> dict[str, str]:
        ours = {"DATABASE_URL": self.url, "VAR_DIR": str(self.folder), "SHOP_NAME": SHOP, "LOG_LEVEL": "INFO"}
        return os.environ | {"ENVIRONMENT": "development", "LOG_FORMAT": "json"} | ours | self.settings

    def wait(self, process: subprocess.Popen[str]) -> Crawl:
        """The crawl when it has ended. One that hangs is killed, and its code tells."""
        try:
            code = process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        return Crawl(code, (self.folder / "log").read_text())

    def crawl(self, shop_url: str, *arguments: str) -> Crawl:
        return self.wait(self.start("-a", f"start_url={shop_url}", *arguments))

    @property
    def is_postgres(self) -> bool:
        return not self.url.startswith("sqlite")

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(self.connect()) as connection, closing(connection.cursor()) as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    def execute(self, sql: str) -> None:
        with closing(self.connect()) as connection, closing(connection.cursor()) as cursor:
            cursor.execute(sql)
            connection.commit()

    def connect(self) -> Any:
        if not self.is_postgres:
            return sqlite3.connect(self.url.removeprefix("sqlite:///"), timeout=PATIENCE_S, check_same_thread=False)
        return psycopg2.connect(self.url)

    def value(self, sql: str) -> Any:
        return self.rows(sql)[0][0]

    def run(self, number: int | None = None) -> dict[str, Any]:
        """A run's row, the latest by default."""
        names = (
            "id state complete announced seen created updated unchanged stale rejected failed_pages delisted warnings"
        )
        where = f"WHERE id = {number}" if number else "ORDER BY id DESC LIMIT 1"
        (row,) = self.rows(f"SELECT {names.replace(' ', ', ')} FROM catalog_crawlrun {where}")
        run = dict(zip(names.split(), row, strict=True))
        run["complete"] = bool(run["complete"])
        run["warnings"] = [w["code"] for w in _json(run["warnings"])]
        return run

    def books(self) -> dict[str, dict[str, Any]]:
        """Every book by its UPC: all that a crawl writes, in types that do not depend on the database."""
        names = [*PLAIN_FIELDS, *MONEY, *FLAGS, "authors"]
        columns = ", ".join(f"b.{name}" for name in names)
        rows = self.rows(
            f"SELECT {columns}, c.name FROM catalog_book b JOIN catalog_category c ON c.id = b.category_id"
        )
        return {row[0]: _plain(dict(zip([*names, "category"], row, strict=True))) for row in rows}

    def revision(self) -> int:
        return int(self.value("SELECT number FROM catalog_cataloguerevision"))

    def failures(self) -> dict[str, str]:
        """Reason by address, of the latest run."""
        return dict(
            self.rows(
                "SELECT url, reason FROM catalog_failedpage WHERE run_id = (SELECT max(id) FROM catalog_crawlrun)"
            )
        )


def _json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _plain(book: dict[str, Any]) -> dict[str, Any]:
    money = {name: f"{float(book[name]):.2f}" for name in MONEY}
    flags = {name: bool(book[name]) for name in FLAGS}
    return book | money | flags | {"authors": _json(book["authors"])}


def wait_until(condition: Callable[[], Any], what: str) -> None:
    """Poll until `condition()` holds.

    Raises:
        TimeoutError: it never does.
    """
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.01)


class Template:
    """A database from which new ones are copied."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = os.environ.get("DATABASE_URL", "")

    @property
    def is_postgres(self) -> bool:
        return self.server.startswith("postgres")

    @contextmanager
    def copy(self, source: str = "", folder: Path | None = None) -> Iterator[Deployment]:
        """A new deployment, empty and not migrated, or a copy of the database at the address `source`."""
        name = f"crawl_test_{os.getpid()}_{next(_names)}"
        folder = folder or self.folder
        if not self.is_postgres:
            path = folder / f"{name}.sqlite3"
            if source:
                copy_sqlite(source.removeprefix("sqlite:///"), path)
            yield Deployment(f"sqlite:///{path}", folder)
            return
        template = f" TEMPLATE {source.rpartition('/')[2]}" if source else ""
        self._on_server(f"CREATE DATABASE {name}{template}")
        try:
            yield Deployment(f"{self.server.rpartition('/')[0]}/{name}", folder)
        finally:
            self._on_server(f"DROP DATABASE {name} WITH (FORCE)")

    def _on_server(self, sql: str) -> None:
        with closing(psycopg2.connect(f"{self.server.rpartition('/')[0]}/postgres")) as connection:
            connection.autocommit = True
            with closing(connection.cursor()) as cursor:
                cursor.execute(sql)


def copy_sqlite(source: str | Path, target: Path) -> None:
    """Copy a database that nobody writes to, with all that was committed."""
    with closing(sqlite3.connect(source)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copyfile(source, target)
