"""Memory of the server while it streams the whole catalogue, above what it holds after a first small export.

    python -m benchmarks.exports [--books 200000]

A server of one worker on SQLite, and on PostgreSQL where one answers on 127.0.0.1; the peak is the kernel's own
account of the worker's resident memory, sampled every 20 ms while the client reads.
"""

from __future__ import annotations

import argparse
import os
import secrets
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.ingest import postgres_database
from benchmarks.serving import Server, prepared, serving

EXPORTS = {
    "JSON": "/api/v1/books?page_size=all",
    "CSV": "/api/v1/books?format=csv",
    "NDJSON": "/api/v1/books?format=ndjson",
    "Parquet": "/api/v1/books?format=parquet",
    "features, standardized": "/api/v1/ml/features?format=csv&scale=standard",
}
MB = 1024 * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--books", type=int, default=200_000)
    options = parser.parse_args()
    table = Table(title=f"Exports of {options.books:,} books")
    for column in ("database", "format", "size MB", "seconds", "books/s", "peak above the first small export, MB"):
        table.add_column(column, justify="left" if column in {"database", "format"} else "right")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        databases = {"sqlite": f"sqlite:///{Path(folder) / 'catalogue.sqlite3'}"}
        try:
            databases["postgres"] = stack.enter_context(postgres_database())
        except OSError as error:
            print(f"PostgreSQL is not measured: no server ({error}).")
        for database, url in databases.items():
            for row in measured(url, folder, options.books):
                table.add_row(database, *row)
    Console(width=120).print(table)


def measured(url: str, folder: str, books: int) -> list[tuple[str, ...]]:
    environment = {
        **os.environ,
        "ENVIRONMENT": "development",
        "SECRET_KEY": secrets.token_urlsafe(48),
        "VAR_DIR": folder,
        "DATABASE_URL": url,
        "ACCESS_TOKEN_S": "86400",
        "DJANGO_SETTINGS_MODULE": "bookapi.settings",
    }
    token = prepared(environment, books)
    rows = []
    with serving("ours", "bookapi.wsgi:application", "wsgi", environment, token) as server:
        for path in EXPORTS.values():  # a first small export of each kind loads what it needs
            server.get(f"{path}&max_price=5.50")
        held = resident(server)
        for name, path in EXPORTS.items():
            began = time.perf_counter()
            size, peak = exported(server, path)
            seconds = time.perf_counter() - began
            figures = (size / MB, seconds, books / seconds, (peak - held) / MB)
            rows.append((name, *(f"{n:,.1f}" if n < 1000 else f"{n:,.0f}" for n in figures)))
    return rows


def exported(server: Server, path: str) -> tuple[int, int]:
    """Bytes received and peak resident bytes of the server meanwhile."""
    peak, done = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, resident(server))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        server.connection.request("GET", path, headers={"Authorization": f"Bearer {server.token}"})
        response = server.connection.getresponse()
        size = 0
        while chunk := response.read(MB):
            size += len(chunk)
    finally:
        done.set()
        watcher.join()
    return size, peak


def resident(server: Server) -> int:
    return sum(p.memory_info().rss for p in [server.process, *server.process.children(recursive=True)])


if __name__ == "__main__":
    main()
