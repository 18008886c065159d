"""What every test shares."""

import signal
from collections.abc import Iterator

import pytest
from django.db import connection
from kombu import Connection

from bookapi import queues
from bookapi.api import paging
from catalog import memo
from deploy.services import NotInstalled, Server, rabbitmq


def pytest_configure() -> None:
    """A shell ignores Ctrl-C for what it starts in the background; the processes that tests interrupt would as well."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _nothing_remembered() -> None:
    """A test's catalogue begins at revisions that another one's had, so what is kept by revision must go."""
    memo.forget_all()
    paging.forget_counts()


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A RabbitMQ of our own, with the product's queues; only beside PostgreSQL, which is what a queue writes into."""
    if connection.vendor != "postgresql":
        pytest.skip("the queue is tested with PostgreSQL")
    try:
        with rabbitmq(tmp_path_factory.mktemp("rabbitmq")) as server:
            with Connection(server.url) as link:
                queues.declare(link)
            yield server
    except NotInstalled as error:
        pytest.skip(str(error))
