"""JSON log lines, one for every request, and the request id that comes in or is made here."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recommender.service.problems import MEDIA_TYPE, problem_body

logger = logging.getLogger(__name__)

#: An id from outside goes into log lines and headers, so only harmless ones are taken over.
REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}", re.ASCII)
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

#: Of a request: two million allowed ids.
BODY_MAX = 24 * 1024 * 1024  # bytes


class JSONLines(logging.Formatter):
    """A record as one line of JSON: event, request id, level, logger, its facts, time, traceback."""

    #: What every record has; the rest is the facts of its `extra`.
    RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {"event": record.getMessage()}
        if (bound := request_id.get()) is not None:
            line["request_id"] = bound
        line |= {"level": record.levelname.lower(), "logger": record.name}
        line |= {name: value for name, value in vars(record).items() if name not in self.RECORD}
        line["timestamp"] = datetime.now(UTC)
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str, option=orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS).decode()


def logging_config(level: str = "INFO") -> dict[str, Any]:
    """For `logging.config.dictConfig`: the server's own lines look like ours."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JSONLines}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json", "level": level}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {"_granian": {"level": level, "propagate": True, "handlers": []}},
    }


class Requests:
    """Around the application: request ids, a log line a request, and an end to bodies that have none.

    `observe` is told of each request's scope, status and seconds. This module does not import the metrics: the server
    imports it before the folder of its processes is known.
    """

    def __init__(self, app: ASGIApp, observe: Callable[[Scope, int, float], None]) -> None:
        self.app = app
        self.observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        offered = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        bound = offered.decode() if REQUEST_ID.fullmatch(offered) else uuid.uuid4().hex
        scope["request_id"] = bound
        token = request_id.set(bound)
        status = 0
        received = 0

        async def read() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > BODY_MAX:
                raise HTTPException(413, "The body is too large.")
            return message

        async def write(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", bound.encode())]
            await send(message)

        try:
            await self.app(scope, read, write)
        except Exception:
            logger.exception("request failed")
            if status == 0:
                await _sorry(write, bound)
        finally:
            seconds = time.perf_counter() - started
            self.observe(scope, status, seconds)
            facts = {"method": scope["method"], "path": scope["path"], "status": status}
            logger.info("request", extra={**facts, "duration_ms": round(seconds * 1000, 2)})
            request_id.reset(token)


async def _sorry(send: Send, bound: str) -> None:
    """500 without internals: the request id finds the traceback."""
    body = problem_body(500, "Something went wrong on our side. The request id helps to find it.", bound)
    headers = [(b"content-type", MEDIA_TYPE.encode())]
    await send({"type": "http.response.start", "status": 500, "headers": headers})
    await send({"type": "http.response.body", "body": body})
