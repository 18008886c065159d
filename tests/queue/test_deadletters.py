"""Dead letters of a real broker: how messages die, and what is kept of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import amqp
import pytest
from amqp.serialization import dumps
from celery import current_app
from kombu import Connection, Queue
from kombu.exceptions import OperationalError

from bookapi import queues
from bookapi.celery import app
from bookapi.serving import free_port
from catalog import deadletters
from catalog.deadletters import NoBroker, collect, drop, replay
from catalog.ingest import start_run
from catalog.ingest.published import ingest_published, note_error, register
from catalog.models import Book, CrawlRun, DeadLetter, PublishedBatch
from catalog.records import read_from_json
from deploy.services import Server
from tests.catalog.crawled import scraped

pytestmark = pytest.mark.django_db(transaction=True)

INGEST = "catalog.tasks.ingest_batch"


@pytest.fixture
def link(broker: Server, settings: Any) -> Iterator[Connection]:
    """A connection to a broker with empty queues, which the application uses as well."""
    settings.BROKER_URL = app.conf.broker_url = broker.url
    with Connection(broker.url) as opened, opened.channel() as channel:
        for queue in (queues.DEAD, queues.UNROUTED, *queues.WORK):
            queue.bind(channel).purge()
        yield opened
    app.conf.broker_url = "memory://"


@pytest.fixture
def run() -> CrawlRun:
    return start_run("shop", "https://shop.example")


def publish(link: Connection, body: bytes, routing_key: str = "ingest", **properties: Any) -> None:
    message = {"content_type": "application/json", "content_encoding": "utf-8", "headers": {}} | properties
    link.Producer(auto_declare=False).publish(body, exchange=queues.TASKS.name, routing_key=routing_key, **message)


def publish_batch(link: Connection, run: CrawlRun, *upcs: str, routing_key: str = "ingest") -> UUID:
    """A batch as a spider publishes it: written down, then sent."""
    key, records = uuid4(), [scraped(upc) for upc in upcs]
    register(run.pk, key, records)
    kwargs = {"run": run.pk, "key": str(key), "records": [record.to_json() for record in records]}
    body = json.dumps([[], kwargs, {}]).encode()
    headers = {"task": INGEST, "id": str(key), "lang": "py"}
    publish(link, body, routing_key, headers=headers, correlation_id=str(key))
    return key


def take(link: Connection, queue: Queue = queues.INGEST) -> amqp.Message:
    """The next message of a queue, as soon as there is one, and as it came."""
    channel = link.default_channel
    channel.auto_decode = False
    for _ in range(5000):
        if message := channel.basic_get(queue.name):
            return message
    raise AssertionError(f"nothing came to {queue.name}")


def headers_of(message: amqp.Message) -> dict[str, Any]:
    return dict(message.properties["application_headers"])


def kill(link: Connection, n: int = 1) -> None:
    """What a worker does with a message that it cannot take; then wait until it is among the dead."""
    before = waiting(link, queues.DEAD)
    for _ in range(n):
        link.default_channel.basic_reject(take(link).delivery_tag, requeue=False)
    wait_for(lambda: waiting(link, queues.DEAD) == before + n)


def waiting(link: Connection, queue: Queue) -> int:
    return int(queue.bind(link.default_channel).queue_declare(passive=True).message_count)


def wait_for(true: Callable[[], bool]) -> None:
    for _ in range(5000):
        if true():
            return
    raise AssertionError("never true")


def test_a_batch_that_failed_is_a_letter_with_what_the_worker_said_and_counts_as_dead(
    link: Connection, run: CrawlRun
) -> None:
    key = publish_batch(link, run, "a", "b")
    note_error(key, ValueError("no such shelf"))
    kill(link)
    assert collect() == 1
    letter = DeadLetter.objects.get()
    assert (letter.reason, letter.task, letter.queue) == ("failed", INGEST, queues.INGEST.name)
    assert letter.detail == "ValueError: no such shelf"
    assert (letter.batch_id, letter.run_id, letter.records) == (key, run.pk, 2)
    assert [r["upc"] for r in deadletters.arguments_of(letter)["records"]] == ["a", "b"]
    run.refresh_from_db()
    assert (run.dead, run.seen, run.published) == (2, 2, 2)
    assert PublishedBatch.objects.get().state == "dead"
    assert waiting(link, queues.DEAD) == 0
    assert collect() == 0


def test_what_kills_its_worker_each_time_dies_of_its_deliveries(link: Connection, run: CrawlRun) -> None:
    publish_batch(link, run, "a")
    for _ in range(queues.DELIVERIES_MAX + 1):
        link.default_channel.basic_reject(take(link).delivery_tag, requeue=True)
    wait_for(lambda: waiting(link, queues.DEAD) == 1)
    assert collect() == 1
    letter = DeadLetter.objects.get()
    assert letter.reason == "deliveries"
    assert letter.batch is not None
    assert letter.batch.state == "dead"


def test_what_no_queue_wants_is_a_letter_and_its_batch_is_dead(link: Connection, run: CrawlRun) -> None:
    publish_batch(link, run, "a", routing_key="nowhere")
    wait_for(lambda: waiting(link, queues.UNROUTED) == 1)
    assert collect() == 1
    letter = DeadLetter.objects.get()
    assert (letter.reason, letter.batch is not None and letter.batch.state) == ("unroutable", "dead")
    assert "'nowhere'" in letter.detail


DEEP = b"[" * 200_000 + b"]" * 200_000
HOSTILE: dict[str, tuple[bytes, dict[str, Any], str]] = {
    "no UTF-8": (b"\xff\xfe[[], {}, {}]", {}, "undecodable"),
    "no JSON": (b"[[], {", {}, "undecodable"),
    "nothing": (b"", {}, "undecodable"),
    "nested": (DEEP, {}, "undecodable"),
    "an endless number": (b"[[" + b"9" * 10_000 + b"], {}, {}]", {}, "undecodable"),
    "a pickle": (
        b"\x80\x04.",
        {"content_type": "application/x-python-serialize", "content_encoding": "binary"},
        "undecodable",
    ),
    "no type": (b"[[], {}, {}]", {"content_type": "", "content_encoding": ""}, "undecodable"),
    "an encoding of its own": (b"[[], {}, {}]", {"content_encoding": "utf-16"}, "undecodable"),
    "packed": (b"x", {"headers": {"task": INGEST, "compression": "application/x-gzip"}}, "undecodable"),
    "NUL": (
        b'["\\u0000", {"\\u0000": "\\ud800"}, {}]',
        {"headers": {"task": "a\0b\ud83d\ude00", "x\0": "\0"}},
        "unknown_task",
    ),
    "no task": (b"[[], {}, {}]", {}, "unknown_task"),
    "a task that is a table": (b"[[], {}, {}]", {"headers": {"task": {"a": 1}}}, "unknown_task"),
    "another task": (b"[[], {}, {}]", {"headers": {"task": "of.somebody.else" * 20}}, "unknown_task"),
    "arguments of no batch": (b'[[-1, "x", {}], {}, {}]', {"headers": {"task": INGEST}}, "failed"),
    "no arguments at all": (b"null", {"headers": {"task": INGEST}}, "failed"),
    "a run beyond all numbers": (
        b'[[], {"run": 1e400, "key": [], "records": 7}, {}]',
        {"headers": {"task": INGEST}},
        "failed",
    ),
    "forged deaths": (b"[[], {}, {}]", {"headers": {"x-replays": "many", "x-delivery-count": 9}}, "unknown_task"),
    "long headers": (b"[[], {}, {}]", {"headers": {f"h{n}": "x" * 1000 for n in range(100)}}, "unknown_task"),
    "deep headers": (b"[[], {}, {}]", {"headers": {"a": json.loads('{"a":' * 100 + "1" + "}" * 100)}}, "unknown_task"),
    "bytes in headers": (b"[[], {}, {}]", {"headers": {"a": b"\xff\x00"}}, "unknown_task"),
    "large": (b'["' + b"x" * 10_000_000 + b'"]', {}, "unknown_task"),
}


def test_whatever_a_message_holds_is_kept_whole(link: Connection) -> None:
    for name, (body, properties, reason) in HOSTILE.items():
        publish(link, body, **properties)
        kill(link)
        assert collect() == 1, name
        letter = DeadLetter.objects.get(state="open")
        assert letter.reason == reason, (name, letter.detail)
        assert bytes(letter.body) == body, name
        assert replay([letter.pk]) == 1, name
        back = take(link)
        assert (back.body or b"") == body, name
        link.default_channel.basic_ack(back.delivery_tag)


def test_headers_that_the_client_cannot_read_hold_up_nobody(
    link: Connection, run: CrawlRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes of a header table that a broker passes on and the client's library refuses: a time beyond all calendars."""
    table = b"\x04whenT" + (2**62).to_bytes(8, "big")

    def raw(_message: amqp.Message) -> bytes:
        flags = (1 << 15 | 1 << 13).to_bytes(2, "big")  # content type, headers
        return flags + dumps("s", ["application/json"]) + len(table).to_bytes(4, "big") + table

    with monkeypatch.context() as patch:
        patch.setattr(amqp.Message, "_serialize_properties", raw)
        link.default_channel.basic_publish(
            amqp.Message(b"[[], {}, {}]"), exchange=queues.DEAD.exchange.name, routing_key="dead"
        )
    publish_batch(link, run, "a")
    link.default_channel.basic_reject(take(link).delivery_tag, requeue=False)
    wait_for(lambda: waiting(link, queues.DEAD) == 2)
    assert collect() == 2
    assert {x.reason for x in DeadLetter.objects.all()} == {"undecodable", "failed"}
    assert (2**62).to_bytes(8, "big").hex() in DeadLetter.objects.get(reason="undecodable").properties["headers"][
        "x-unreadable"
    ]
    assert waiting(link, queues.DEAD) == 0


def test_a_letter_is_collected_once_though_its_collector_dies_before_the_acknowledgment(
    link: Connection, run: CrawlRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = publish_batch(link, run, "a")
    publish(link, b"no id, said twice")
    publish(link, b"no id, said twice")
    kill(link, 3)

    class Killed(BaseException):
        pass

    def die(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(amqp.Channel, "basic_ack", die)
        with pytest.raises(Killed):
            collect()
    assert DeadLetter.objects.count() == 3
    wait_for(lambda: waiting(link, queues.DEAD) == 3)
    letter = DeadLetter.objects.get(batch=key)
    assert replay([letter.pk]) == 1
    assert collect() == 0, "delivered again, it is known"
    assert PublishedBatch.objects.get(pk=key).state == "pending", "and does not undo what was decided meanwhile"
    assert waiting(link, queues.DEAD) == 0
    publish(link, b"no id, said twice")
    kill_other(link)
    assert collect() == 1, "the same words of another message are another letter"


def kill_other(link: Connection) -> None:
    """Kill the message behind the replayed batch."""
    kept = take(link)
    kill(link)
    link.default_channel.basic_reject(kept.delivery_tag, requeue=True)


def test_a_replayed_batch_is_pending_until_a_worker_settles_it(link: Connection, run: CrawlRun) -> None:
    key = publish_batch(link, run, "a", "b")
    kill(link)
    collect()
    letter = DeadLetter.objects.get()
    assert replay([letter.pk], by="olga") == 1
    letter.refresh_from_db()
    run.refresh_from_db()
    assert (letter.state, letter.settled_by) == ("replayed", "olga")
    assert (run.dead, run.seen) == (0, 0)
    assert PublishedBatch.objects.get().state == "pending"
    message = take(link)
    headers = headers_of(message)
    assert (headers["task"], headers["id"], headers["x-replays"]) == (INGEST, str(key), 1)
    assert not [name for name in headers if name.startswith(("x-death", "x-first-death"))]
    assert message.properties["correlation_id"] == str(key)
    _, kwargs, _ = json.loads(message.body)
    ingest_published(key, kwargs["run"], [read_from_json(record) for record in kwargs["records"]])
    assert set(Book.objects.values_list("upc", flat=True)) == {"a", "b"}
    assert replay([letter.pk]) == 0
    assert drop([letter.pk]) == 0


def test_dying_again_after_a_replay_is_another_letter(link: Connection, run: CrawlRun) -> None:
    publish_batch(link, run, "a")
    for died in (1, 2, 3):
        kill(link)
        assert collect() == 1
        assert DeadLetter.objects.count() == died
        replay(list(DeadLetter.objects.values_list("pk", flat=True)))
    assert headers_of(take(link))["x-replays"] == 3
    run.refresh_from_db()
    assert (run.dead, run.seen) == (0, 0)


def test_what_could_not_be_routed_goes_the_way_of_its_task_when_it_is_replayed(link: Connection, run: CrawlRun) -> None:
    publish_batch(link, run, "a", routing_key="nowhere")
    wait_for(lambda: waiting(link, queues.UNROUTED) == 1)
    collect()
    assert replay(DeadLetter.objects.values_list("pk", flat=True)) == 1
    assert headers_of(take(link))["task"] == INGEST


def test_a_dropped_letter_stays_dead_in_the_sums(link: Connection, run: CrawlRun) -> None:
    publish_batch(link, run, "a")
    kill(link)
    collect()
    assert drop([DeadLetter.objects.get().pk], by="olga") == 1
    run.refresh_from_db()
    assert (run.dead, run.seen) == (1, 1)
    assert PublishedBatch.objects.get().state == "dead"
    assert replay([DeadLetter.objects.get().pk]) == 0
    assert waiting(link, queues.INGEST) == 0


def test_what_the_broker_refuses_stays_open_and_its_batch_dead(
    link: Connection, run: CrawlRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_batch(link, run, "a")
    kill(link)
    collect()
    app.conf.broker_url = f"amqp://guest:guest@127.0.0.1:{free_port()}/"
    with pytest.raises(OperationalError):
        replay([DeadLetter.objects.get().pk])
    with pytest.raises(OperationalError):
        collect()
    assert DeadLetter.objects.get().state == "open"
    run.refresh_from_db()
    assert (run.dead, run.seen) == (1, 1)


def test_more_letters_than_fit_a_transaction_are_all_collected(
    link: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadletters, "CHUNK", 10)
    for n in range(25):
        publish(link, json.dumps(n).encode(), "nowhere")
    wait_for(lambda: waiting(link, queues.UNROUTED) == 25)
    assert collect() == 25
    assert sorted(json.loads(bytes(x.body)) for x in DeadLetter.objects.all()) == list(range(25))


def test_without_a_broker_it_says_so(settings: Any) -> None:
    settings.BROKER_URL = ""
    for work in (collect, lambda: replay([1])):
        with pytest.raises(NoBroker, match="BROKER_URL"):
            work()
    assert current_app.conf.dead_queue is queues.DEAD
