"""How the server is started: the same way for `make run`, `make serve` and a container."""

from __future__ import annotations

import socket
import sys
from contextlib import closing
from pathlib import Path

from django.conf import settings

#: Requests at work in one process at once. They share one running thread, so a request costs the same with 1 or 16;
#: but beside four readers of the whole set, the median of a page of 20 was 263 ms with 1, 40 with 8 and 52 with 16.
#: Half of them for bodies, less than half for streams: see bookapi/bodies.py and bookapi/streams.py.
BLOCKING_THREADS = 10
#: Requests accepted beyond those; the rest wait in the kernel's queue, where they cost nothing.
BACKPRESSURE = 64


def server_command(host: str, port: int, workers: int = 1) -> list[str]:
    """The arguments of granian. Its access log is off: `bookapi.logs` writes a line for every request.

    Rate limits and the account cache belong to a process, so with `workers` the limits multiply.
    """
    return [
        sys.executable, "-m", "granian", "--interface", "wsgi", "--host", host, "--port", str(port),
        "--workers", str(workers), "--blocking-threads", str(BLOCKING_THREADS), "--backpressure", str(BACKPRESSURE),
        "--http", "1", "--no-ws", "--no-access-log", "--respawn-failed-workers", "--workers-kill-timeout", "5",
        "bookapi.wsgi:application",
    ]  # fmt: skip


def new_counters(port: int) -> Path:
    """An empty folder for PROMETHEUS_MULTIPROC_DIR, where the processes of the server at this port count together.

    What those of an earlier server have counted is gone: their numbers may be those of our own processes.
    """
    folder = Path(settings.VAR_DIR) / f"metrics-{port}"
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("*.db"):
        file.unlink()
    return folder


def is_free(host: str, port: int) -> bool:
    """Whether nobody listens there. Asked before the server starts, which would share the port without a word."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with closing(socket.socket(family, kind, protocol)) as probe:
            # A port whose last connections are still closing is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return True
    except OSError:
        return False


def free_port(host: str = "127.0.0.1") -> int:
    """A port that was free a moment ago."""
    with closing(socket.socket()) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
