"""What every test shares."""

import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import pytest
from django.db import connection
from kombu import Connection
from xdist.scheduler import LoadScopeScheduling

from bookapi import queues
from bookapi.api import paging
from catalog import memo
from deploy.services import NotInstalled, Server, rabbitmq

#: What shares processes or engines that take seconds to make: folders of which all is run by one of the parallel
#: processes, and folders of which each module is.
TOGETHER = ("tests/gateway", "tests/queue")
BY_MODULE = ("tests/crawler", "tests/deploy", "tests/recommender", "tests/system")


def pytest_configure() -> None:
    """A shell ignores Ctrl-C for what it starts in the background; the processes that tests interrupt would as well."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class Spread(LoadScopeScheduling):
    """Gives the parallel processes what belongs together as a whole, and everything else one by one."""

    def add_node_collection(self, node: Any, collection: Sequence[str]) -> None:
        """Tests are known by their ids here, and all that schemathesis makes of the schema have the same one."""
        numbers = {nodeid: count(1) for nodeid, times in Counter(collection).items() if times > 1}
        own = [f"{nodeid}#{next(numbers[nodeid])}" if nodeid in numbers else nodeid for nodeid in collection]
        super().add_node_collection(node, own)

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        folder = module.rpartition("/")[0]
        return folder if folder in TOGETHER else module if folder in BY_MODULE else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Spread:
    config.option.loadscopereorder = False  # in the order that is made below
    return Spread(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What belongs together comes first, in random order as before: at the end there are short tests to share out."""
    items.sort(key=lambda item: not item.nodeid.startswith(TOGETHER + BY_MODULE))


@pytest.fixture(autouse=True)
def _nothing_remembered() -> None:
    """A test's catalogue begins at revisions that another one's had, so what is kept by revision must go."""
    memo.forget_all()
    paging.forget_counts()


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None) -> None:
    """What a test has committed is deleted after it: with TRUNCATE, PostgreSQL makes each table's files anew."""
    if connection.vendor == "postgresql":
        connection.ops.sql_flush = _deletes


def _deletes(_style: Any, tables: list[str], **_: bool) -> list[str]:
    """In one transaction, at whose end the keys between them are checked; sequences go on, as with Django's own."""
    return [f"DELETE FROM {connection.ops.quote_name(table)}" for table in tables]


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
