"""A broker with empty queues, a database of the test's own, and workers between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from kombu import Connection

from bookapi import queues
from deploy.services import Server
from tests.crawler.conftest import deployment, migrated, served, template
from tests.crawler.deployment import Deployment
from tests.queue.workers import Worker, worker

__all__ = ["deployment", "migrated", "served", "template"]


@pytest.fixture
def queued(broker: Server, deployment: Deployment) -> Deployment:
    """A deployment whose crawls go through the queue, which holds nothing yet."""
    with Connection(broker.url) as link, link.channel() as channel:
        for queue in (*queues.WORK, queues.DEAD, queues.UNROUTED):
            queue(channel).purge()
    deployment.settings |= {"BROKER_URL": broker.url, "SPOOL_DIR": str(deployment.folder / "spool")}
    return deployment


@pytest.fixture
def start_worker(queued: Deployment) -> Iterator[Callable[[], Worker]]:
    """Starts workers, which end with the test."""
    with ExitStack() as workers:
        yield lambda: workers.enter_context(worker(queued))
