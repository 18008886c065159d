"""What the broker holds: one exchange, a queue for each kind of work, and two where nothing gets lost.

Quorum queues, because a classic queue lost 4,851 of 6,000 messages under three kills of the broker. Their arguments
cannot be changed once they exist (RabbitMQ answers 406): a change needs a new `VERSION`, and the old queues run dry.
"""

from __future__ import annotations

from kombu import Connection, Exchange, Queue

VERSION = "v1"
#: Deliveries of a message after which it is taken for the reason why its workers die. RabbitMQ counts from 0.
DELIVERIES_MAX = 5
#: Messages of a queue that wait at most, and their bytes; then the broker refuses, and the spool of the publisher takes
#: over. A batch of 250 books has some 400 kB: five thousand fill a queue, and the disk of the broker has to hold them.
WAITING_MAX, WAITING_BYTES = 100_000, 2 * 1024**3


def _name(kind: str) -> str:
    return f"bookapi.{kind}.{VERSION}"


#: No queue wants it: the exchange hands it to this one, since the broker confirms what it cannot route, and drops it.
UNROUTED = Queue(
    _name("unrouted"), Exchange(_name("unrouted"), "fanout"), queue_arguments={"x-queue-type": "quorum"}, durable=True
)
#: What was rejected, could not be read, or was delivered too often. See `catalog.deadletters`.
DEAD = Queue(
    _name("dead"),
    Exchange(_name("dead"), "direct"),
    routing_key="dead",
    queue_arguments={"x-queue-type": "quorum"},
    durable=True,
)
#: A topic exchange: with another one, a retry that waits would keep its worker from all other work.
TASKS = Exchange(_name("tasks"), "topic", durable=True, arguments={"alternate-exchange": UNROUTED.exchange.name})


def _work(kind: str) -> Queue:
    return Queue(
        _name(kind),
        TASKS,
        routing_key=kind,
        durable=True,
        queue_arguments={
            "x-queue-type": "quorum",
            "x-delivery-limit": DELIVERIES_MAX,
            "x-max-length": WAITING_MAX,
            "x-max-length-bytes": WAITING_BYTES,
            "x-overflow": "reject-publish",
            "x-dead-letter-exchange": DEAD.exchange.name,
            "x-dead-letter-routing-key": "dead",
            "x-dead-letter-strategy": "at-least-once",
        },
    )


INGEST = _work("ingest")  # batches of what a spider read: short, many, none may be lost
CRAWLS = _work("crawls")  # one message a crawl: hours
TRAININGS = _work("trainings")  # one message a training: minutes, and memory
UPKEEP = _work("upkeep")  # what the schedule starts: seconds
WORK = (INGEST, CRAWLS, TRAININGS, UPKEEP)


def declare(connection: Connection) -> None:
    """Make sure that all of it exists: Celery declares the queues that it reads, and nothing else."""
    with connection.channel() as channel:
        for queue in (UNROUTED, DEAD, *WORK):
            queue.bind(channel).declare()
