"""Reads a CPU-second of the server: ours, hello world on the same server, and FastAPI + SQLAlchemy + pydantic.

    python -m benchmarks.serving [--books 1000] [--rounds 5] [--seconds 1.0]

Every server is granian with one worker, on the same SQLite file, and every request carries a JWT. The servers take
turns in every round, so that a machine that changes its speed changes it for all. What counts is the server's own CPU
time, which a noisy neighbour disturbs less than the clock.
"""

from __future__ import annotations

import argparse
import http.client
import os
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

#: What is read, by our path and FastAPI's.
READS = {
    "page of 20": ("/api/v1/books", "/books"),
    "page of 100": ("/api/v1/books?page_size=100", "/books?page_size=100"),
    "detail": ("/api/v1/books/7", "/books/7"),
    "whole set": ("/api/v1/books?page_size=all", "/books?page_size=all"),
    "stats": ("/api/v1/stats/overview", "/stats"),
}


@dataclass
class Server:
    """A running server and the connection over which it is asked."""

    name: str
    process: psutil.Process
    connection: http.client.HTTPConnection
    token: str

    def get(self, path: str) -> bytes:
        self.connection.request("GET", path, headers={"Authorization": f"Bearer {self.token}"})
        response = self.connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise RuntimeError(f"{self.name} {path}: {response.status} {body[:200]!r}")
        return body

    def cpu_s(self) -> float:
        processes = [self.process, *self.process.children(recursive=True)]
        return sum(sum(p.cpu_times()[:2]) for p in processes)

    def rate(self, path: str, seconds: float) -> float:
        """Requests a CPU-second of the server, over about `seconds` of its CPU time."""
        began, n = self.cpu_s(), 0
        while (spent := self.cpu_s() - began) < seconds:
            for _ in range(10):
                self.get(path)
            n += 10
        return n / spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--books", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="CPU seconds of each server, a read and round")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        database = Path(folder) / "catalogue.sqlite3"
        environment = {
            **os.environ,
            "ENVIRONMENT": "development",
            "SECRET_KEY": secrets.token_urlsafe(48),
            "VAR_DIR": folder,
            "DATABASE_URL": f"sqlite:///{database}",
            "BENCH_DATABASE": str(database),
            "RATE_LIMIT_ACCOUNT": "off",
            "RATE_LIMIT_ADDRESS": "off",
            "DJANGO_SETTINGS_MODULE": "bookapi.settings",
        }
        environment["BENCH_SECRET"] = environment["SECRET_KEY"]
        token = prepared(environment, options.books)
        servers = [
            stack.enter_context(serving(name, target, interface, environment, token))
            for name, target, interface in (
                ("hello", "benchmarks.peers.hello:application", "wsgi"),
                ("FastAPI", "benchmarks.peers.fastapi_app:app", "asgi"),
                ("ours", "bookapi.wsgi:application", "wsgi"),
            )
        ]
        report(measure(servers, options.rounds, options.seconds))


def measure(servers: list[Server], rounds: int, seconds: float) -> dict[str, dict[str, list[float]]]:
    """{read: {server: requests a CPU-second, one figure a round}}."""
    rates: dict[str, dict[str, list[float]]] = {read: {s.name: [] for s in servers} for read in READS}
    for server in servers:  # connections, caches and compiled queries are made before the clock runs
        for ours, theirs in READS.values():
            for _ in range(5):
                server.get(ours if server.name == "ours" else theirs)
    for _ in range(rounds):
        for read, (ours, theirs) in READS.items():
            for server in servers:
                rates[read][server.name].append(server.rate(ours if server.name == "ours" else theirs, seconds))
    return rates


def report(rates: dict[str, dict[str, list[float]]]) -> None:
    table = Table(title="Requests a CPU-second of the server; ratios are medians of the rounds (minimum)")
    for column in ("read", "hello", "FastAPI", "ours", "ours / hello", "ours / FastAPI"):
        table.add_column(column, justify="left" if column == "read" else "right")
    for read, by_server in rates.items():
        hello, fastapi, ours = (by_server[name] for name in ("hello", "FastAPI", "ours"))
        table.add_row(
            read,
            *(f"{statistics.median(figures):,.0f}" for figures in (hello, fastapi, ours)),
            ratio(ours, hello, 3),
            ratio(ours, fastapi, 2),
        )
    Console(width=120).print(table)


def ratio(ours: list[float], theirs: list[float], places: int) -> str:
    """Round by round, since what is compared ran side by side."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return f"{statistics.median(ratios):.{places}f} ({min(ratios):.{places}f})"


def prepared(environment: dict[str, str], books: int) -> str:
    """A token for the catalogue, which is made and filled in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.filling", str(books)],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.splitlines()[-1]


@contextmanager
def serving(name: str, target: str, interface: str, environment: dict[str, str], token: str) -> Iterator[Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "granian", "--interface", interface, "--port", str(port), "--workers", "1", target]
    command += ["--blocking-threads", "1"] if interface == "wsgi" else []
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for _ in range(200):
            try:
                connection.connect()
                break
            except OSError:
                time.sleep(0.1)
        yield Server(name, psutil.Process(process.pid), connection, token)
    finally:
        process.terminate()
        process.wait(timeout=20)


if __name__ == "__main__":
    main()
