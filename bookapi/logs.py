"""JSON log lines: one for every request, each with the request id that came in or was made here."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable
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


def _to_json(event: Any, **_: Any) -> str:
    return orjson.dumps(event, default=str).decode()


def logging_config(level: str, *, console: bool) -> dict[str, Any]:
    """Django's LOGGING: structlog renders the records of every library, so that all lines look alike."""
    before: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[Any] = (
        [structlog.dev.ConsoleRenderer()]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(_to_json)]
    )
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "structured": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": before,
                "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
            }
        },
        # The level stands at the handler, because Scrapy resets that of the root logger.
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "structured", "level": level}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            # Its lines repeat ours; a 4xx is a fact about the client.
            "django.request": {"level": "ERROR"},
            "django.server": {"level": "ERROR"},
        },
    }
