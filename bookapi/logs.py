"""JSON log lines: one for every request, each with the request id that came in or was made here."""

from __future__ import annotations

import json
import logging
import os
import re
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson
import structlog
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

logger = logging.getLogger("bookapi.request")

#: An id from outside goes into log lines and headers, so only harmless ones are taken over.
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


class RequestLog:
    """Gives every answer its `X-Request-ID` and every request its log line."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        # Not at the top: the settings import this module for every process, and models come after settings.
        from bookapi.metrics import observe  # noqa: PLC0415

        self.get_response = get_response
        self.observe = observe

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        started = time.perf_counter()
        offered = request.META.get("HTTP_X_REQUEST_ID", "")
        request_id = offered if REQUEST_ID.fullmatch(offered) else uuid.uuid4().hex
        request.request_id = request_id  # type: ignore[attr-defined]
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            response = self.get_response(request)
            response["X-Request-ID"] = request_id
            seconds = time.perf_counter() - started
            self.observe(request, response.status_code, seconds)
            logger.info(
                "request",
                extra={
                    "method": request.method,
                    "path": request.path,
                    "status": response.status_code,
                    "duration_ms": round(seconds * 1000, 2),
                    "account": getattr(getattr(request, "user", None), "pk", None),
                },
            )
        return response


#: What every record has; the rest is the facts of its `extra`.
RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def request_of_process() -> str:
    """The id of the request that this process was started for, which `bookapi.processes.traced` has told it; or ""."""
    given = os.environ.get("REQUEST_ID", "")
    return given if REQUEST_ID.fullmatch(given) else ""


class JSONLines(logging.Formatter):
    """A record as one line of JSON: event, what is bound to the context, level, logger, its facts, time, traceback.

    By hand, because structlog's way to a line took a fifth of the time of reading a book. A job that was started for a
    request has the request's id in its environment: its lines bear it from the first one on, whatever thread writes.
    """

    def __init__(self) -> None:
        super().__init__()
        given = request_of_process()
        self.given = {"request_id": given} if given else {}

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "event": record.getMessage(),
            **self.given,
            **structlog.contextvars.get_contextvars(),
            "level": record.levelname.lower(),
            "logger": record.name,
            **{name: value for name, value in vars(record).items() if name not in RECORD},
            "timestamp": datetime.now(UTC),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        try:
            return orjson.dumps(line, default=str, option=orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS).decode()
        except TypeError:  # half a surrogate pair, a number beyond 64 bits: a line that is lost tells nothing
            return json.dumps({name: str(value) for name, value in line.items()})


def logging_config(level: str, *, console: bool) -> dict[str, Any]:
    """Django's LOGGING: the records of every library go one way, so that all lines look alike."""
    for_people = {
        "()": structlog.stdlib.ProcessorFormatter,
        "foreign_pre_chain": [
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
        ],
        "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, structlog.dev.ConsoleRenderer()],
    }
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"structured": for_people if console else {"()": JSONLines}},
        # The level stands at the handler, because Scrapy resets that of the root logger.
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "structured", "level": level}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            # Its lines repeat ours; a 4xx is a fact about the client.
            "django.request": {"level": "ERROR"},
            "django.server": {"level": "ERROR"},
        },
    }
