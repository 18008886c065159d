"""A PostgreSQL for tests: one that is there, or one of our own until the tests have ended."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg2
from psycopg2 import sql

from deploy import services
from deploy.services import NotInstalled, NotStarted, trouble

LOCAL = "postgres://postgres@127.0.0.1:5432/postgres"


class NoPostgres(Exception):
    """There is none, and none can be started; the message says why."""


@contextmanager
def postgres() -> Iterator[str]:
    """The DATABASE_URL of a database of our own on `TEST_POSTGRES_URL`, else on this machine, else on a server
    started for the purpose.

    The database itself is Django's to make, as test_NAME. The name holds our process number, so that checkouts side
    by side do not meet; what tests leave behind is dropped.

    Raises:
        NoPostgres: there is none.
    """
    given = os.environ.get("TEST_POSTGRES_URL")
    if given or trouble(LOCAL) is None:
        server = given or LOCAL
        if reason := trouble(server):
            raise NoPostgres(f"TEST_POSTGRES_URL does not answer: {reason}")
        with _own_database(server) as url:
            yield url
        return
    with _own_server() as server, _own_database(server) as url:
        yield url


@contextmanager
def _own_database(server: str) -> Iterator[str]:
    name = f"bookapi_{os.getpid()}"
    try:
        yield urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    finally:
        with closing(psycopg2.connect(server)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            # test_NAME, and test_NAME_gw0 of the parallel processes
            cursor.execute("SELECT datname FROM pg_database WHERE datname ~ %s", [f"^test_{name}(_gw[0-9]+)?$"])
            for (left,) in cursor.fetchall():
                cursor.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(left)))


@contextmanager
def _own_server() -> Iterator[str]:
    """The address of a server that lives in a temporary folder, on loopback, until the block ends."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        # What is thrown away need not survive a power cut.
        with services.postgres(folder, durable=False) as server:
            yield server.url
    except (NotInstalled, NotStarted) as error:
        raise NoPostgres(
            f"TEST_POSTGRES_URL is not set, 127.0.0.1:5432 does not let us in, and a server cannot be started: {error}"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
