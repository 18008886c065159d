"""What is told of a real broker to Prometheus."""

from __future__ import annotations

import pytest
from django.test import Client
from kombu import Connection
from pytest_django import Settings

from bookapi import queues
from deploy.services import Server
from tests.bookapi.test_metrics import _no_model, _token, scrape

__all__ = ["_no_model", "_token"]


@pytest.mark.usefixtures("_token")
@pytest.mark.django_db(transaction=True)
def test_queues_of_the_broker_are_told_with_who_reads_them(client: Client, settings: Settings, broker: Server) -> None:
    settings.BROKER_URL = broker.url
    with Connection(broker.url) as link:
        queues.UPKEEP.bind(link.default_channel).purge()
        link.Producer().publish({}, exchange=queues.TASKS.name, routing_key="upkeep")
        for _ in range(100):
            found = scrape(client)
            if found["bookapi_queue_messages", (("queue", queues.UPKEEP.name),)] == 1:
                break
        else:
            pytest.fail("the message was not counted")
        queues.UPKEEP.bind(link.default_channel).purge()
    assert found["bookapi_broker_up", ()] == 1
    assert found["bookapi_queue_consumers", (("queue", queues.UPKEEP.name),)] == 0
    told = {dict(labels)["queue"] for name, labels in found if name == "bookapi_queue_messages"}
    assert told == {queue.name for queue in (*queues.WORK, queues.DEAD, queues.UNROUTED)}
