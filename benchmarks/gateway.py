"""What the gateway costs: the same reads of one replica, asked directly and through HAProxy, in turns.

    python -m benchmarks.gateway [--books 1000] [--rounds 5] [--seconds 2.0] [--clients 3]

Both ways carry an RS256 token that is checked, and both count and log every request as in production. Clients, replica
and gateway share the machine, so what a client gets a second is less than what a gateway with cores of its own gives;
the CPU time of each process tells which part is whose.
"""

from __future__ import annotations

import argparse
import http.client
import os
import secrets
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.serving import prepared
from bookapi import key_rotation
from bookapi.key_rotation import Folders
from bookapi.serving import free_port, server_command
from deploy.gateway import Gateway, render_backends, running
from deploy.programs import Program, says_ok

ROOT = Path(__file__).resolve().parent.parent
READS = {
    "detail": "/api/v1/books/7",
    "page of 20": "/api/v1/books",
    "page of 100": "/api/v1/books?page_size=100",
    "whole set": "/api/v1/books?page_size=all",
    "refused token": "/api/v1/books",
}
UNLIMITED = {"GATEWAY_LIMIT_ACCOUNT": "1000000000", "GATEWAY_LIMIT_ADDRESS": "1000000000", "GATEWAY_FLOOD": "100000000"}


@dataclass(frozen=True)
class Figures:
    """Of one way, one read and one round."""

    rate: float  # answers a second
    p50_ms: float
    p99_ms: float
    api_us: float  # CPU time of the replica for an answer
    gateway_us: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--books", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each way, a read and round")
    parser.add_argument("--clients", type=int, default=3, help="connections that stay open, each asked without a pause")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        keys = Folders(public=folder / "public", private=folder / "private")
        key_rotation.make(keys)
        environment = {
            **os.environ,
            "ENVIRONMENT": "development",
            "SECRET_KEY": secrets.token_urlsafe(48),
            "VAR_DIR": name,
            "DATABASE_URL": f"sqlite:///{folder / 'catalogue.sqlite3'}",
            "RATE_LIMIT_ACCOUNT": "off",
            "RATE_LIMIT_ADDRESS": "off",
            "TRUSTED_PROXIES": "1",
            "JWT_PUBLIC_KEYS": str(keys.public),
            "DJANGO_SETTINGS_MODULE": "bookapi.settings",
        }
        token = prepared({**environment, "JWT_PRIVATE_KEYS": str(keys.private)}, options.books)
        port = free_port()
        replica = Program(
            "api",
            server_command("127.0.0.1", port),
            ROOT,
            folder / "api.log",
            lambda: says_ok(port, "/api/v1/health/ready"),
            environment=environment,
        )
        gateway = Gateway(folder / "gateway", keys.public, settings=UNLIMITED)
        address = f"127.0.0.1:{port}"
        with replica.start() as api:
            replica.wait(api)
            with running(gateway, render_backends(auth=[address], api=[address], admin=[address])) as proxy:
                ways = {"directly": port, "through the gateway": gateway.port}
                bench = Bench(ways, token, api.process.pid, proxy.process.pid, options.clients)
                report(bench.measure(options.rounds, options.seconds), options.clients)


@dataclass(frozen=True)
class Bench:
    ways: dict[str, int]  # name -> port
    token: str
    api: int
    gateway: int
    clients: int

    def measure(self, rounds: int, seconds: float) -> dict[str, dict[str, list[Figures]]]:
        """{read: {way: figures, one a round}}."""
        for read in READS:
            for way in self.ways:
                self._ask(way, read, 0.2)  # connections and caches are made before the clock runs
        figures: dict[str, dict[str, list[Figures]]] = {read: {way: [] for way in self.ways} for read in READS}
        for _ in range(rounds):
            for read in READS:
                for way in self.ways:
                    figures[read][way].append(self._ask(way, read, seconds))
        return figures

    def _ask(self, way: str, read: str, seconds: float) -> Figures:
        took: list[list[float]] = [[] for _ in range(self.clients)]
        before = cpu_s(self.api), cpu_s(self.gateway)
        began = time.perf_counter()
        threads = [
            threading.Thread(target=self._client, args=(self.ways[way], read, began + seconds, durations))
            for durations in took
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        lasted = time.perf_counter() - began
        durations = sorted(duration for client in took for duration in client)
        n = len(durations)
        spent = [after - earlier for after, earlier in zip((cpu_s(self.api), cpu_s(self.gateway)), before, strict=True)]
        return Figures(
            n / lasted, durations[n // 2] * 1e3, durations[n * 99 // 100] * 1e3, *(s / n * 1e6 for s in spent)
        )

    def _client(self, port: int, read: str, until: float, durations: list[float]) -> None:
        refused = read == "refused token"
        token = f"{self.token[:-6]}AAAAAA" if refused else self.token
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while (began := time.perf_counter()) < until or not durations:
            connection.request("GET", READS[read], headers={"Authorization": f"Bearer {token}"})
            answer = connection.getresponse()
            answer.read()
            if answer.status != (401 if refused else 200):
                raise RuntimeError(f"{port} {read}: {answer.status}")
            durations.append(time.perf_counter() - began)
        connection.close()


def cpu_s(pid: int) -> float:
    """CPU time of a process and its descendants."""
    process = psutil.Process(pid)
    return sum(sum(p.cpu_times()[:2]) for p in (process, *process.children(recursive=True)))


def report(figures: dict[str, dict[str, list[Figures]]], clients: int) -> None:
    table = Table(title=f"Directly → through the gateway, {clients} clients; medians of the rounds")
    for column in (
        "read",
        "answers/s",
        "p50 ms",
        "p99 ms",
        "CPU of the API, µs",
        "CPU of HAProxy, µs",
        "rate (minimum)",
    ):
        table.add_column(column, justify="left" if column == "read" else "right")
    for read, by_way in figures.items():
        bare, gated = by_way.values()
        ratios = [b.rate / a.rate for a, b in zip(bare, gated, strict=True)]

        def both(name: str, form: str, ways: tuple[list[Figures], ...] = (bare, gated)) -> str:
            return " → ".join(format(statistics.median(getattr(f, name) for f in way), form) for way in ways)

        table.add_row(
            read,
            both("rate", ",.0f"),
            both("p50_ms", ".1f"),
            both("p99_ms", ".1f"),
            both("api_us", ",.0f"),
            format(statistics.median(f.gateway_us for f in gated), ",.0f"),
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f})",
        )
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
