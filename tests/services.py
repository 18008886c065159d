"""A PostgreSQL for tests: one that is there, or one of our own until the tests have ended."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg2
from psycopg2 import sql

from bookapi.serving import free_port

LOCAL = "postgres://postgres@127.0.0.1:5432/postgres"
START_S = 30.0


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


def trouble(url: str) -> str | None:
    """Why the server cannot be used; None if it can, which means logging in and making databases."""
    try:
        with closing(psycopg2.connect(url, connect_timeout=3)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user")
            row = cursor.fetchone()
            return None if row and row[0] else "its user may not make databases"
    except psycopg2.Error as error:
        return " ".join(str(error).split())


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
    binaries = _binaries()
    user = _unprivileged_user()
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # short: a socket's path has 107 characters at most
    if user is not None:
        shutil.chown(folder, user)
    try:
        port = free_port()
        data = folder / "data"
        _initialise(binaries, data, user)
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": folder,
            "fsync": "off",  # what is thrown away need not survive a power cut
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "max_connections": 200,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [binaries / "postgres", "-D", data, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                user=user,
                extra_groups=[] if user else None,
                process_group=0,  # Ctrl-C is for the tests; they still need a server to clean up on
            )
        try:
            url = f"postgres://postgres@127.0.0.1:{port}/postgres"
            _wait(url, process, folder / "log")
            yield url
        finally:
            process.send_signal(signal.SIGINT)  # "fast": it does not wait for sessions
            process.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _binaries() -> Path:
    """The folder with `initdb` and `postgres`, the newest one: on PATH, or where Debian keeps them."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = Path("/usr/lib/postgresql")
    folders = sorted((path.parent for path in versions.glob("*/bin/initdb")), key=lambda path: float(path.parent.name))
    if not folders:
        raise NoPostgres("TEST_POSTGRES_URL is not set, 127.0.0.1:5432 does not let us in, and initdb is not installed")
    return folders[-1]


def _unprivileged_user() -> str | None:
    """PostgreSQL refuses to run as root: somebody else then; None for whoever we are."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in known), None)


def _initialise(binaries: Path, data: Path, user: str | None) -> None:
    command = [binaries / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
    command += ["--locale", "C.UTF-8"]
    made = subprocess.run(
        command, cwd=data.parent, user=user, extra_groups=[] if user else None, capture_output=True, check=False
    )
    if made.returncode:
        raise NoPostgres(f"initdb failed: {made.stderr.decode(errors='replace').strip()}")


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while (reason := trouble(url)) is not None:
        if process.poll() is not None or time.monotonic() > deadline:
            raise NoPostgres(f"the server did not start: {reason}\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.1)
