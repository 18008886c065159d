"""The Celery application: settings under which kill -9 of workers, their children and the broker loses nothing.

`celery -A bookapi worker -Q bookapi.ingest.v1` is one worker; `make workers` starts several. Measured on Celery 5.7 and
RabbitMQ 3.10: its defaults lost 8,365 of 15,000 messages under the same kills. See docs/adr/0013.
"""

from __future__ import annotations

import os
from typing import Any

import structlog
from celery import Celery, Task
from celery.signals import before_task_publish, setup_logging, task_postrun, task_prerun

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bookapi.settings")

from django.conf import settings

from bookapi import queues
from bookapi.logs import request_of_process

app = Celery("bookapi", broker=settings.BROKER_URL or "memory://", set_as_current=True)
app.conf.update(
    task_queues=queues.WORK,
    task_create_missing_queues=False,
    dead_queue=queues.DEAD,  # these two are read by `catalog.deadletters`, not by Celery
    unrouted_queue=queues.UNROUTED,
    task_default_queue=queues.UPKEEP.name,
    task_default_exchange=queues.TASKS.name,
    task_default_exchange_type="topic",
    task_default_routing_key="upkeep",
    task_routes={
        "catalog.tasks.ingest_batch": {"queue": queues.INGEST.name, "routing_key": "ingest"},
        "bookapi.tasks.crawl": {"queue": queues.CRAWLS.name, "routing_key": "crawls"},
        "bookapi.tasks.drain": {"queue": queues.CRAWLS.name, "routing_key": "crawls"},  # whose host has the spool
        "bookapi.tasks.train": {"queue": queues.TRAININGS.name, "routing_key": "trainings"},
    },
    # --- Published means: written to the disks of the broker ---
    broker_transport_options={
        "confirm_publish": True,  # without it, resets of the connection lost messages and raised nothing
        "max_retries": 3,
        "interval_start": 0,
        "interval_max": 1,
        "read_timeout": 15,
        "write_timeout": 15,
    },
    broker_use_ssl=settings.BROKER_TLS,
    broker_heartbeat=10,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    # --- Taken means: done, or delivered again ---
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_acks_on_failure_or_timeout=False,  # an error sends the message to the dead ones, where a person finds it
    worker_prefetch_multiplier=1,
    worker_cancel_long_running_tasks_on_connection_loss=True,  # it is delivered to another worker as well
    worker_consumer="bookapi.consumer:SafeConsumer",
    beat_scheduler="bookapi.beat:DatabaseScheduler",
    task_time_limit=120,  # seconds; crawls and trainings have their own
    # --- What a message is ---
    task_serializer="json",
    accept_content=["json"],  # a pickle would run code of whoever reaches the broker
    task_ignore_result=True,  # what became of it stands in the database
    timezone="UTC",
    worker_send_task_events=False,
)
app.autodiscover_tasks(["catalog", "bookapi"])

#: What a log line of a task says beside its own facts, so that a book can be followed from the request that started its
#: crawl to the worker that wrote it. They travel in the headers of messages.
TRACED = ("request_id", "run_id", "batch")


def _send_context(headers: dict[str, Any], **_: Any) -> None:
    """Give the message what is bound to the log lines here, unless it says otherwise itself."""
    bound = {"request_id": request_of_process() or None, **structlog.contextvars.get_contextvars()}
    for name in TRACED:
        if bound.get(name) is not None:
            headers.setdefault(name, bound[name])


def _take_context(task: Task, task_id: str, **_: Any) -> None:
    told = {name: value for name in TRACED if (value := task.request.get(name)) is not None}
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(task_id=task_id, **told)


def _drop_context(**_: Any) -> None:
    structlog.contextvars.clear_contextvars()


def _leave_logging_alone(**_: Any) -> None:
    """Django's configuration writes the lines; without a receiver of this signal Celery would set its own."""


setup_logging.connect(_leave_logging_alone)
before_task_publish.connect(_send_context)
task_prerun.connect(_take_context)
task_postrun.connect(_drop_context)
