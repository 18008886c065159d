"""A crawl through the queue: real broker, real workers, a real spider, and the shop to compare with."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from crawler.practice_shop import Shop
from tests.crawler.deployment import Deployment
from tests.queue.workers import Worker

pytestmark = pytest.mark.system


def test_books_come_through_the_queue_and_the_run_is_complete(
    queued: Deployment, start_worker: Callable[[], Worker], served: tuple[Shop, str]
) -> None:
    shop, address = served
    worker = start_worker()
    crawl = queued.crawl(address)
    assert crawl.code == 0, crawl.log + worker.log.read_text()
    assert queued.run()["complete"]
    assert len(queued.books()) == shop.announced
    assert queued.rows("SELECT published, seen, created FROM catalog_crawlrun") == [(300, 300, 300)]
    assert queued.rows("SELECT DISTINCT state FROM catalog_publishedbatch") == [("settled",)]
