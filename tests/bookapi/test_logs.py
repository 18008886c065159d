"""Log lines: one JSON object each, whatever was logged."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
import structlog

from bookapi.jobs import run_job
from bookapi.logs import JSONLines
from bookapi.processes import start_detached


def line_of(message: str, *args: Any, **record: Any) -> str:
    made = logging.getLogger("a.library").makeRecord(
        "a.library", logging.WARNING, "file.py", 1, message, args, record.pop("exc_info", None), extra=record
    )
    return JSONLines().format(made)


def test_a_line_tells_the_event_its_context_and_its_facts_in_this_order() -> None:
    with structlog.contextvars.bound_contextvars(request_id="r-1"):
        line = orjson.loads(line_of("%d books", 7, run_id=3, counts={1: 2}))

    assert list(line) == ["event", "request_id", "level", "logger", "run_id", "counts", "timestamp"]
    assert line["event"] == "7 books"
    assert (line["level"], line["logger"], line["run_id"], line["counts"]) == ("warning", "a.library", 3, {"1": 2})
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z", line["timestamp"])


def test_a_line_holds_the_traceback_and_stays_one_line() -> None:
    try:
        raise RuntimeError("hunter2")
    except RuntimeError:
        text = line_of("failed\nbadly", exc_info=sys.exc_info())

    assert "\n" not in text
    assert orjson.loads(text)["exception"].endswith("RuntimeError: hunter2")


def test_what_no_json_can_carry_is_still_told() -> None:
    line = line_of("odd", half="\ud800", huge=10**30)

    assert "\\ud800" in line
    assert str(10**30) in line


def test_facts_of_any_type_are_told() -> None:
    assert orjson.loads(line_of("x", spider=int))["spider"] == "<class 'int'>"


# --- Jobs -------------------------------------------------------------------------------------------------------------
#: A line of a thread, which does not know what its process was told by other means than its environment.
SPEAKS = """
import django; django.setup()
import logging, threading
threading.Thread(target=logging.getLogger("job").warning, args=["at work"]).start()
"""


@pytest.mark.parametrize("request_id", ["from-the-gateway.1", None])
def test_a_job_that_was_started_for_a_request_says_so_in_its_lines(
    request_id: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOG_FORMAT", "json")
    command, log = [sys.executable, "-c", SPEAKS], tmp_path / "log"
    with structlog.contextvars.bound_contextvars(**({"request_id": request_id} if request_id else {})):
        assert start_detached(command, log).wait(60) == 0
        assert run_job("job", command, log, limit_s=60).code == 0
    lines = [orjson.loads(line) for line in log.read_text().splitlines() if '"job"' in line]
    assert [line.get("request_id") for line in lines] == [request_id, request_id]
