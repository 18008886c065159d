"""Dead letters: what the queue gave up, brought into the database, where a person reads, replays or drops it.

A message is acknowledged after the commit that keeps it, and known by a digest of all that was delivered: collected
twice, because the collector died in between, it is one letter. What is in it may be anything, so a body stays bytes,
and reading it is an attempt of which nothing depends.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any
from uuid import UUID

import amqp
from amqp.exceptions import MessageNacked
from amqp.method_framing import frame_handler
from celery import current_app
from django.conf import settings
from django.db.models import QuerySet
from django.utils import timezone
from kombu import Connection, Queue
from kombu.exceptions import KombuError

from catalog.ingest.published import mark_dead, mark_pending
from catalog.ingest.raw import restored, storable
from catalog.models import CrawlRun, DeadLetter, PublishedBatch
from catalog.revision import writing
from catalog.text import printable

logger = logging.getLogger(__name__)

#: The task whose messages are batches of records, and the names of its arguments.
INGEST, ARGUMENTS = "catalog.tasks.ingest_batch", ("run", "key", "records")
#: Header of a message that was replayed, and how often: when it dies again, it is another letter.
REPLAYS = "x-replays"
#: Headers of the broker about the way to death. A message that is published again begins anew.
_OF_THE_BROKER = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count")
#: Letters of one transaction, and bytes after which it is full with fewer.
CHUNK, CHUNK_BYTES = 100, 32 * 1024 * 1024
#: Letters of one call: whoever fills the queue as fast as it is emptied does not keep us for ever.
COLLECTED_MAX = 10_000
CONFIRM_S, CONNECT_S = 10, 10
#: Levels of nested headers that are kept as they are; what lies deeper is kept as text.
HEADER_DEPTH = 8

#: Characters of a message that a person is shown.
SHOWN_MAX = 50_000
#: What a broker that is away, full or refuses makes its client raise.
BROKER_ERRORS = (amqp.AMQPError, MessageNacked, KombuError, OSError)
#: What a publisher may call the encoding of our JSON.
ENCODINGS = {None, "", "utf-8", "us-ascii", "ascii", "binary"}

Reason, State = DeadLetter.Reason, DeadLetter.State


class NoBroker(Exception):
    """There is no BROKER_URL, so no queue either."""

    def __init__(self) -> None:
        super().__init__("BROKER_URL is not set: there is no queue to collect from or to replay into.")


# --- Collecting -------------------------------------------------------------------------------------------------------
def collect(limit: int = COLLECTED_MAX) -> int:
    """How many letters are new: all that waits in the queues of the dead and the unrouted, `limit` of each at most.

    Raises:
        NoBroker: there is none.
        BROKER_ERRORS: it does not answer.
    """
    found = 0
    with _connected() as connection:
        for queue, unrouted in ((current_app.conf.dead_queue, False), (current_app.conf.unrouted_queue, True)):
            left, taken = limit, -1
            while left and taken:
                taken, new = _collect_chunk(connection, queue, unrouted, min(left, CHUNK))
                found, left = found + new, left - taken
    if found:
        logger.warning("dead letters collected", extra={"letters": found})
    return found


def _collect_chunk(connection: Connection, queue: Queue, unrouted: bool, limit: int) -> tuple[int, int]:
    """How many messages were taken from the queue, and how many of them were new."""
    with connection.channel() as channel:
        channel.auto_decode = False  # a body is bytes, whatever it claims to be
        bound = queue.bind(channel)
        bound.declare()
        dead = list(_deliveries(lambda: channel.basic_get(queue.name), limit))
        new = _keep(dead, unrouted) if dead else 0
        for message in dead:
            channel.basic_ack(message.tag)
    return len(dead), new


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message as the broker handed it over."""

    tag: int
    body: bytes
    properties: Mapping[str, Any]
    exchange: str
    routing_key: str
    redelivered: bool

    @property
    def headers(self) -> Mapping[str, Any]:
        return self.properties.get("application_headers") or {}


def _deliveries(get: Callable[[], Any], limit: int) -> Iterator[Delivery]:
    size = 0
    while limit and size < CHUNK_BYTES and (message := get()) is not None:
        info = message.delivery_info
        body = message.body if isinstance(message.body, bytes) else bytes(message.body or b"")
        yield Delivery(
            info["delivery_tag"],
            body,
            message.properties,
            _text(info.get("exchange")),
            _text(info.get("routing_key")),
            bool(info.get("redelivered")),
        )
        limit, size = limit - 1, size + len(body)


def _keep(dead: Sequence[Delivery], unrouted: bool) -> int:
    """Write down what is not known yet, and move the batches that it tells of. How many letters are new."""
    read = [_letter(message, unrouted) for message in dead]
    with writing():
        known = set(DeadLetter.objects.filter(message__in=[x.message for x in read]).values_list("message", flat=True))
        letters = []
        for letter, message in zip(read, dead, strict=True):
            if letter.message in known and (message.redelivered or _has_id(message)):
                continue
            letter.message = _unused(letter.message, known)
            known.add(letter.message)
            letters.append(letter)
        _relate(letters)
        DeadLetter.objects.bulk_create(letters, batch_size=20)
        for letter in letters:
            if letter.batch_id is not None:
                mark_dead(letter.batch_id)
    for letter in letters:
        logger.warning("message is dead", extra={"reason": letter.reason, "task": letter.task, "run_id": letter.run_id})
    return len(letters)


def _has_id(message: Delivery) -> bool:
    """Whether its publisher gave it a number, so that the same content twice is the same message twice."""
    return bool(message.properties.get("message_id") or message.properties.get("correlation_id"))


def _unused(digest: str, known: Collection[str]) -> str:
    """The digest; with a number behind it where another message without an id said exactly the same."""
    if digest not in known:
        return digest
    n = 2
    while (numbered := f"{digest}-{n}") in known or DeadLetter.objects.filter(message=numbered).exists():
        n += 1
    return numbered


def _relate(letters: Sequence[DeadLetter]) -> None:
    """Find the batches and runs that the letters name, and what a worker said of the batch. Two queries."""
    named = [(letter, _named(letter)) for letter in letters]
    keys = {name.key for _, name in named if name.key is not None}
    numbers = {name.run for _, name in named if name.run is not None}
    batches = {batch.pk: batch for batch in PublishedBatch.objects.filter(pk__in=keys)}
    runs = set(CrawlRun.objects.filter(pk__in=numbers).values_list("pk", flat=True))
    for letter, name in named:
        letter.records = name.records
        batch = batches.get(name.key) if name.key else None
        if batch is not None:
            letter.batch, letter.run_id = batch, batch.run_id
            if letter.reason in {Reason.FAILED, Reason.DELIVERIES}:
                letter.detail = batch.error or letter.detail
        elif name.run in runs:
            letter.run_id = name.run


# --- Reading a message ------------------------------------------------------------------------------------------------
def _letter(message: Delivery, unrouted: bool) -> DeadLetter:
    task = _text(message.headers.get("task"))
    reason, detail = _why(message, task, unrouted)
    queue, exchange, routing_key = _origin(message)
    properties = _plain(message.properties)
    headers = properties.pop("application_headers", None)
    properties |= {"headers": headers or {}, "exchange": exchange, "routing_key": routing_key}
    return DeadLetter(
        message=_digest(message),
        queue=printable(queue)[:100],
        task=printable(task)[:100],
        reason=reason,
        detail=printable(detail)[:500],
        body=message.body,
        properties=storable(properties),
    )


def _why(message: Delivery, task: str, unrouted: bool) -> tuple[DeadLetter.Reason, str]:
    if unrouted:
        return Reason.UNROUTABLE, f"No queue takes {message.routing_key!r} of {message.exchange!r}."
    broker_says = _text(message.headers.get("x-first-death-reason") or _first_death(message).get("reason"))
    if broker_says == "delivery_limit":
        return Reason.DELIVERIES, "Its workers ended each time before they were done with it."
    if broker_says == "expired":
        return Reason.EXPIRED, "Nobody took it in time."
    try:
        decoded(message.body, message.properties)
    except Unreadable as error:
        return Reason.UNDECODABLE, str(error)
    if task not in _known_tasks():
        return Reason.UNKNOWN_TASK, f"There is no task {task!r}." if task else "It names no task."
    return Reason.FAILED, "" if broker_says in {"", "rejected"} else f"The broker says: {broker_says}."


def _known_tasks() -> Collection[str]:
    current_app.loader.import_default_modules()  # a worker has done it, a command has not
    tasks: Collection[str] = current_app.tasks
    return tasks


class Unreadable(Exception):
    """A body that is no JSON of ours."""


def decoded(body: bytes, properties: Mapping[str, Any]) -> Any:
    """What a body says. Raises Unreadable, whatever stands in it.

    Nothing is unpacked: a small body can unpack to more than the memory, and ours are never packed.
    """
    headers = properties.get("application_headers") or properties.get("headers") or {}
    if UNREADABLE in headers:
        raise Unreadable("Its headers cannot be read.")
    if headers.get("compression"):
        raise Unreadable("It is compressed, which no message of ours is.")
    content_type = properties.get("content_type")
    if content_type != "application/json":
        raise Unreadable(f"It is {content_type or 'of no type'}, not application/json.")
    if (encoding := properties.get("content_encoding")) not in ENCODINGS:
        raise Unreadable(f"It is written in {encoding}, not in UTF-8.")
    try:
        return json.loads(body.decode())
    except (ValueError, RecursionError) as error:  # ValueError: no UTF-8, no JSON, a number without end
        raise Unreadable(f"{type(error).__name__}: {error}") from error


def readable(letter: DeadLetter) -> str:
    """The message for a person, at most `SHOWN_MAX` characters of it: its JSON in lines, or else what is text in it."""
    body = bytes(letter.body)
    try:
        text = _lines(decoded(body, restored(letter.properties)))
    except (Unreadable, RecursionError):
        text = body[: SHOWN_MAX + 1].decode("utf-8", "backslashreplace")
    text = printable(text)
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}… ({len(body):,} bytes in all)"


def _lines(value: Any) -> str:
    """JSON in lines, little more than is shown: of what is deeply nested they grow with the square of its size."""
    parts, length = [], 0
    for part in json.JSONEncoder(indent=1, ensure_ascii=False).iterencode(value):
        parts.append(part)
        length += len(part)
        if length > SHOWN_MAX:
            break
    return "".join(parts)


@dataclass(frozen=True, slots=True)
class _Named:
    """What the arguments of an ingest message name; nothing of any other message."""

    run: int | None = None
    key: UUID | None = None
    records: int = 0


def _named(letter: DeadLetter) -> _Named:
    if letter.task != INGEST:
        return _Named()
    arguments = arguments_of(letter)
    run, records = arguments.get("run"), arguments.get("records")
    try:
        key = UUID(str(arguments.get("key")))
    except ValueError:
        key = None
    return _Named(
        run if type(run) is int and 0 < run < 2**63 else None, key, len(records) if isinstance(records, list) else 0
    )


def arguments_of(letter: DeadLetter) -> dict[str, Any]:
    """The arguments of an ingest message by their names; none where they cannot be read."""
    try:
        content = decoded(bytes(letter.body), restored(letter.properties))
    except Unreadable:
        return {}
    match content:
        case [list(args), dict(kwargs), *_]:
            return dict(zip(ARGUMENTS, args, strict=False)) | kwargs
    return {}


def _first_death(message: Delivery) -> Mapping[str, Any]:
    """The oldest entry of x-death: the queue in which it died before it came to ours."""
    deaths = message.headers.get("x-death")
    oldest = deaths[-1] if isinstance(deaths, list) and deaths else {}
    return oldest if isinstance(oldest, dict) else {}


def _origin(message: Delivery) -> tuple[str, str, str]:
    """The queue in which it died, and the exchange and routing key under which it had come there."""
    death = _first_death(message)
    keys = death.get("routing-keys")
    if not death:
        return "", message.exchange, message.routing_key
    key = _text(keys[0]) if isinstance(keys, list) and keys else message.routing_key
    return _text(death.get("queue")), _text(death.get("exchange")), key


def _digest(message: Delivery) -> str:
    """Of all that was delivered, but for the count of deliveries."""
    headers = {name: value for name, value in message.headers.items() if name != "x-delivery-count"}
    properties = {**message.properties, "application_headers": headers}
    told = json.dumps([_plain(properties), message.exchange, message.routing_key], sort_keys=True)
    return blake2b(message.body, digest_size=24, key=blake2b(told.encode()).digest()).hexdigest()


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value if isinstance(value, str) else ""


def _plain(value: Any, depth: int = 0) -> Any:
    """An AMQP value in the types of JSON: bytes, times and decimals, and what lies too deep, are text."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "backslashreplace")
    if depth < HEADER_DEPTH and isinstance(value, Mapping):
        return {k if isinstance(k, str) else repr(k): _plain(v, depth + 1) for k, v in value.items()}
    if depth < HEADER_DEPTH and isinstance(value, list | tuple):
        return [_plain(v, depth + 1) for v in value]
    try:
        return str(value)
    except RecursionError:
        return "nested too deeply"


# --- Deciding ---------------------------------------------------------------------------------------------------------
def replay(ids: Collection[int], by: str = "") -> int:
    """How many open letters were published again, each in a transaction that the broker's confirmation ends.

    A task that we know goes its usual way, anything else the way that it came. The write lock is held meanwhile, some
    milliseconds: the batch must be pending before a worker can have it, and stay dead if the broker does not take it.

    Raises:
        NoBroker: there is none.
        BROKER_ERRORS: it did not take one; those before it are out.
    """
    done = 0
    with _connected() as connection, connection.channel() as channel:
        producer = connection.Producer(channel, auto_declare=False)
        for pk in sorted(ids):
            with writing():
                if not _settle(DeadLetter.objects.filter(pk=pk), State.REPLAYED, by):
                    continue
                letter = DeadLetter.objects.get(pk=pk)
                if letter.batch_id is not None:
                    mark_pending(letter.batch_id)
                _publish(producer, letter)
            done += 1
            logger.info("dead letter replayed", extra={"letter": pk, "by": by})
    return done


def drop(ids: Collection[int], by: str = "") -> int:
    """How many open letters are given up for good; their records stay dead in the sums of their runs."""
    dropped = _settle(DeadLetter.objects.filter(pk__among=ids), State.DROPPED, by)
    logger.info("dead letters dropped", extra={"letters": dropped, "by": by})
    return dropped


def _settle(letters: QuerySet[DeadLetter], state: DeadLetter.State, by: str) -> int:
    """How many of them were open, which the database decides for two who come at once."""
    return letters.filter(state=State.OPEN).update(state=state, settled_at=timezone.now(), settled_by=by)


def _publish(producer: Any, letter: DeadLetter) -> None:
    properties = restored(letter.properties)
    headers = {k: v for k, v in properties["headers"].items() if not k.startswith(_OF_THE_BROKER)}
    replays = headers.get(REPLAYS)
    headers[REPLAYS] = (replays if isinstance(replays, int) else 0) + 1
    if "expires" in headers:
        headers["expires"] = None  # a person wants it done now
    exchange, routing_key = properties["exchange"], properties["routing_key"]
    if letter.task in _known_tasks():
        route = current_app.amqp.router.route({}, letter.task)
        exchange, routing_key = route["queue"].exchange.name, route.get("routing_key") or route["queue"].routing_key
    producer.publish(
        bytes(letter.body),
        exchange=exchange,
        routing_key=routing_key,
        headers=headers,
        content_type=properties.get("content_type") or "application/octet-stream",
        content_encoding=properties.get("content_encoding") or "binary",
        delivery_mode=2,
        confirm_timeout=CONFIRM_S,
        **{n: properties[n] for n in ("correlation_id", "message_id", "reply_to", "type") if properties.get(n)},
    )


# --- The broker -------------------------------------------------------------------------------------------------------
@contextmanager
def _connected() -> Iterator[Connection]:
    if not settings.BROKER_URL:
        raise NoBroker
    options = {**current_app.conf.broker_transport_options, "frame_handler": forgiving_frame_handler}
    with current_app.connection_for_write(transport_options=options, connect_timeout=CONNECT_S) as connection:
        connection.ensure_connection(max_retries=2, interval_start=0, interval_step=0.5, timeout=CONNECT_S)
        yield connection


#: Kind of the frame that holds a message's properties (AMQP 0-9-1, 4.2.3).
CONTENT_HEADER = 2
#: Header under which headers that cannot be read are kept, as they came.
UNREADABLE = "x-unreadable"


def forgiving_frame_handler(connection: Any, callback: Callable[..., Any]) -> Callable[[Any], Any]:
    """The client's reader of frames, for messages of anybody: headers that it cannot read become bytes in one header.

    Otherwise it breaks the connection, the message goes back to the head of its queue, and nobody gets past it.
    """
    handle = frame_handler(connection, callback)

    def on_frame(frame: tuple[int, int, bytes]) -> Any:
        kind, channel, content = frame
        try:
            return handle(frame)
        except Exception as error:
            if kind != CONTENT_HEADER:
                raise
            logger.warning("headers of a dead letter cannot be read", extra={"error": str(error)[:200]})
            kept = amqp.Message(application_headers={UNREADABLE: bytes(content[12:]).hex()})._serialize_properties()
            return handle((kind, channel, bytes(content[:12]) + kept))

    return on_frame
