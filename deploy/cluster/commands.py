"""How each process of the product is started: what `make cluster` runs, and what the images run."""

from __future__ import annotations

import sys

from kombu import Queue

from bookapi import queues
from bookapi.serving import server_command

#: What a worker reads, by the kind of worker.
QUEUES: dict[str, Queue] = {
    "ingest": queues.INGEST,
    "crawl": queues.CRAWLS,
    "training": queues.TRAININGS,
    "upkeep": queues.UPKEEP,
}


def api(port: int, host: str = "127.0.0.1") -> list[str]:
    """A server of ours: API, authentication and administration are one program with other settings."""
    return server_command(host, port)


def prediction(port: int, host: str = "127.0.0.1") -> list[str]:
    """The prediction service, which finds its models by ARTIFACT_STORE."""
    return [sys.executable, "-m", "recommender.service", "--host", host, "--port", str(port)]


def worker(kind: str, name: str, concurrency: int = 1) -> list[str]:
    """A worker of one queue. SIGTERM lets it finish what it has begun, and take nothing new.

    Workers need not know each other: gossip and mingle would only make their start slower.
    """
    return [
        sys.executable, "-m", "celery", "-A", "bookapi", "worker", "-Q", QUEUES[kind].name, "-n", f"{name}@%h",
        "--concurrency", str(concurrency), "--without-gossip", "--without-mingle", "--loglevel", "INFO",
    ]  # fmt: skip


def beat() -> list[str]:
    """The schedule. There is one."""
    return [sys.executable, "-m", "celery", "-A", "bookapi", "beat", "--loglevel", "INFO"]


def practice_shop(port: int, books: int) -> list[str]:
    return [sys.executable, "-m", "crawler.practice_shop", f"--books={books}", f"--port={port}"]


def manage(*arguments: str) -> list[str]:
    return [sys.executable, "manage.py", *arguments]
