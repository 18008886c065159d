"""The services of others that the product stands on, as plain local processes from the distribution's packages.

Each is a program on loopback, in a folder of its own, which keeps what it holds: started again there, it goes on. The
tests use them one by one, `make cluster` all together.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import amqp
import psycopg2
from psycopg2 import sql

from bookapi.serving import free_port
from deploy.programs import NotInstalled, NotStarted, Program, Server, answers, find_program, running, says_ok

__all__ = [
    "NotInstalled",
    "NotStarted",
    "Server",
    "epmd_program",
    "find_postgres",
    "make_database",
    "postgres",
    "postgres_program",
    "prometheus_program",
    "rabbitmq",
    "rabbitmq_program",
    "redis",
    "redis_program",
    "trouble",
]


# --- PostgreSQL -------------------------------------------------------------------------------------------------------
@contextmanager
def postgres(folder: Path, port: int | None = None, *, durable: bool = True) -> Iterator[Server]:
    """A database server; its address is that of the database `postgres`. Raises NotInstalled, NotStarted."""
    with running(postgres_program(folder, port or free_port(), durable=durable)) as server:
        yield server


def postgres_program(folder: Path, port: int, *, durable: bool = True) -> Program:
    """The server, its cluster of databases made if there is none. What is not durable does not survive a power cut.

    Raises NotInstalled, NotStarted.
    """
    binaries = find_postgres()
    user = _unprivileged_user()
    data = folder / "data"
    folder.mkdir(parents=True, exist_ok=True)
    if user is not None:
        shutil.chown(folder, user)
    if not (data / "PG_VERSION").exists():
        _initialise(binaries, data, user)
    settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "max_connections": 200}
    if not durable:
        settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
    url = f"postgres://postgres@127.0.0.1:{port}/postgres"
    return Program(
        "postgres",
        [str(binaries / "postgres"), "-D", str(data), *(f"--{name}={value}" for name, value in settings.items())],
        folder,
        folder / "postgres.log",
        lambda: trouble(url) is None,
        url,
        user=user,
        stop_signal=signal.SIGINT,  # "fast": it does not wait for sessions
        grace_s=30,
    )


def trouble(url: str) -> str | None:
    """Why the server cannot be used; None if it can, which means logging in and making databases."""
    try:
        with closing(psycopg2.connect(url, connect_timeout=3)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user")
            row = cursor.fetchone()
            return None if row and row[0] else "its user may not make databases"
    except psycopg2.Error as error:
        return " ".join(str(error).split())


def make_database(server: str, name: str) -> None:
    """Make sure that the server has it."""
    with closing(psycopg2.connect(server)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
        if cursor.fetchone() is None:
            cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))


def find_postgres() -> Path:
    """The folder with `initdb` and `postgres`, the newest one: on PATH, or where Debian keeps them."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = Path("/usr/lib/postgresql")
    folders = sorted((path.parent for path in versions.glob("*/bin/initdb")), key=lambda path: float(path.parent.name))
    if not folders:
        raise NotInstalled("initdb", "postgresql")
    return folders[-1]


def _unprivileged_user() -> str | None:
    """PostgreSQL refuses to run as root: somebody else then; None for whoever we are."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in known), None)


def _initialise(binaries: Path, data: Path, user: str | None) -> None:
    command = [str(binaries / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
    command += ["--locale", "C.UTF-8"]
    try:
        made = subprocess.run(
            command, cwd=data.parent, user=user, extra_groups=[] if user else None, capture_output=True, check=False
        )
    except PermissionError:
        raise NotStarted(f"PostgreSQL runs as the user {user}, who cannot enter {data.parent}") from None
    if made.returncode:
        raise NotStarted(f"initdb failed: {made.stderr.decode(errors='replace').strip()}")


# --- RabbitMQ ---------------------------------------------------------------------------------------------------------
@contextmanager
def rabbitmq(folder: Path, port: int | None = None) -> Iterator[Server]:
    """A broker whose messages survive kill -9: started again in the same folder, it goes on.

    Raises NotInstalled, NotStarted.
    """
    names = free_port()
    with running(epmd_program(folder, names)), running(rabbitmq_program(folder, port or free_port(), names)) as server:
        yield server


def epmd_program(folder: Path, port: int) -> Program:
    """Erlang's name server. The broker would start one that stays behind. Raises NotInstalled."""
    command = [find_program("epmd", "rabbitmq-server"), "-port", str(port), "-address", "127.0.0.1"]
    folder.mkdir(parents=True, exist_ok=True)
    return Program("epmd", command, folder, folder / "epmd.log", lambda: answers(port))


def rabbitmq_program(folder: Path, port: int, names: int, metrics: int | None = None) -> Program:
    """The broker, which finds its `epmd_program` at the port `names`, measured at `metrics`. Raises NotInstalled."""
    # The script on PATH changes to another user where root calls it, and that one cannot write here.
    places = sorted(map(str, Path("/usr/lib/rabbitmq/lib").glob("*/sbin")), reverse=True)
    program = find_program("rabbitmq-server", "rabbitmq-server", *places)
    folder.mkdir(parents=True, exist_ok=True)
    configuration = [f"listeners.tcp.1 = 127.0.0.1:{port}", "disk_free_limit.absolute = 50MB"]
    if metrics is not None:
        configuration += ["prometheus.tcp.ip = 127.0.0.1", f"prometheus.tcp.port = {metrics}"]
    (folder / "plugins").write_text("[]." if metrics is None else "[rabbitmq_prometheus].")
    (folder / "rabbitmq.conf").write_text("\n".join([*configuration, ""]))
    environment = {
        "HOME": str(folder),
        # By the folder and not by the port: its data belong to the name, and the port may be another one next time.
        "RABBITMQ_NODENAME": f"books{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]}@localhost",
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        # The script then becomes the broker, instead of a parent that kill -9 would separate from it.
        "RABBITMQ_ALLOW_INPUT": "true",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-noinput +S 2:2 -kernel inet_dist_use_interface {127,0,0,1}",
        "ERL_EPMD_PORT": str(names),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
    }
    return Program(
        "rabbitmq",
        [program],
        folder,
        folder / "rabbitmq.log",
        lambda: _amqp_answers(port),
        f"amqp://guest:guest@127.0.0.1:{port}/",
        environment,
        grace_s=30,
    )


def _amqp_answers(port: int) -> bool:
    try:
        with amqp.Connection(f"127.0.0.1:{port}", connect_timeout=2):
            return True
    except (OSError, amqp.AMQPError):
        return False


# --- Redis ------------------------------------------------------------------------------------------------------------
@contextmanager
def redis(folder: Path, port: int | None = None) -> Iterator[Server]:
    """A cache that keeps nothing on disk. Raises NotInstalled, NotStarted."""
    with running(redis_program(folder, port or free_port())) as server:
        yield server


def redis_program(folder: Path, port: int) -> Program:
    """A cache that keeps nothing on disk. Raises NotInstalled."""
    program = find_program("redis-server", "redis-server")
    command = [program, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    folder.mkdir(parents=True, exist_ok=True)
    url = f"redis://127.0.0.1:{port}/0"
    return Program("redis", command, folder, folder / "redis.log", lambda: answers(port), url)


# --- Prometheus -------------------------------------------------------------------------------------------------------
def prometheus_program(folder: Path, port: int, configuration: Path) -> Program:
    """Measurements, kept for two weeks. Raises NotInstalled."""
    command = [
        find_program("prometheus", "prometheus"),
        f"--config.file={configuration}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--storage.tsdb.retention.time=15d",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    folder.mkdir(parents=True, exist_ok=True)
    url = f"http://127.0.0.1:{port}"
    return Program(
        "prometheus", command, folder, folder / "prometheus.log", lambda: says_ok(port, "/-/ready"), url, grace_s=20
    )
