"""The services of others that the product stands on, as plain local processes from the distribution's packages.

Each is a context manager: a server of our own on loopback, in a folder of its own, until the block ends. The tests use
them one by one, `make cluster` all together.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import amqp

from bookapi.processes import Child
from bookapi.serving import free_port

START_S = 60.0


class NotInstalled(Exception):
    """A program is not on this machine; the message says which package brings it."""


class NotStarted(Exception):
    """A server ended, or did not answer in time; the message holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: where it answers, and the process, to be killed by those who want to see what happens."""

    url: str
    process: Child
    log: Path


def find_program(name: str, package: str, *places: str) -> str:
    """The path of a program: where the distribution hides it, or on PATH. Raises NotInstalled."""
    for place in (*places, ""):
        if found := shutil.which(name, path=place or None):
            return found
    raise NotInstalled(f"{name} is not installed (on Debian and Ubuntu: apt install {package})")


@contextmanager
def rabbitmq(folder: Path, port: int | None = None) -> Iterator[Server]:
    """A broker whose messages survive kill -9: started again in the same folder, it goes on.

    Raises NotInstalled, NotStarted.
    """
    # The script on PATH changes to another user where root calls it, and that one cannot write here.
    program = find_program(
        "rabbitmq-server", "rabbitmq-server", *map(str, Path("/usr/lib/rabbitmq/lib").glob("*/sbin"))
    )
    real = sorted(Path("/usr/lib/rabbitmq/lib").glob("*/sbin/rabbitmq-server"))
    program = str(real[-1]) if real else program
    port = port or free_port()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plugins").write_text("[].")
    configuration = (f"listeners.tcp.1 = 127.0.0.1:{port}", "disk_free_limit.absolute = 50MB", "")
    (folder / "rabbitmq.conf").write_text("\n".join(configuration))
    environment = {
        "HOME": str(folder),
        "RABBITMQ_NODENAME": f"books{port}@localhost",
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 -kernel inet_dist_use_interface {127,0,0,1}",
    }
    url = f"amqp://guest:guest@127.0.0.1:{port}/"
    with _server(
        "rabbitmq", [program], url, lambda: _amqp_answers(port), folder=folder, environment=environment
    ) as server:
        yield server


@contextmanager
def redis(folder: Path, port: int | None = None) -> Iterator[Server]:
    """A cache that keeps nothing on disk. Raises NotInstalled, NotStarted."""
    program = find_program("redis-server", "redis-server")
    port = port or free_port()
    command = [program, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    with _server("redis", command, f"redis://127.0.0.1:{port}/0", lambda: answers(port), folder=folder) as server:
        yield server


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    with closing(socket.socket()) as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _amqp_answers(port: int) -> bool:
    try:
        with amqp.Connection(f"127.0.0.1:{port}", connect_timeout=2):
            return True
    except (OSError, amqp.AMQPError):
        return False


@contextmanager
def _server(
    name: str,
    command: Sequence[str],
    url: str,
    is_ready: Callable[[], bool],
    *,
    folder: Path,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{name}.log"
    with (
        log.open("ab") as output,
        Child(name, command, environment=environment, stdout=output, stderr=output, cwd=folder) as process,
    ):
        wait_until(is_ready, process, log)
        yield Server(url, process, log)


def wait_until(is_ready: Callable[[], bool], process: Child, log: Path, seconds: float = START_S) -> None:
    """Return once it is ready. Raises NotStarted."""
    deadline = time.monotonic() + seconds
    while not is_ready():
        if process.code is not None or time.monotonic() > deadline:
            why = (
                f"ended with code {process.code}" if process.code is not None else f"did not answer in {seconds:.0f} s"
            )
            raise NotStarted(f"{process.name} {why}: {_end_of(log)}")
        time.sleep(0.1)


def _end_of(log: Path) -> str:
    with log.open("rb") as lines:
        lines.seek(max(0, os.fstat(lines.fileno()).st_size - 2000))
        return lines.read().decode(errors="replace")
