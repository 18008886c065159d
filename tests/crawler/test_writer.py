"""The writing process: what it answers, how it ends, and who hears of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from crawler.writer import Writer, WriterDied

pytestmark = pytest.mark.system


@pytest.fixture
def writer() -> Iterator[Writer]:
    writer = Writer()
    yield writer
    writer.close()


def test_writer_returns_and_raises_what_its_process_does(writer: Writer) -> None:
    assert writer.call(os.getpid) == writer.pid != os.getpid()
    with pytest.raises(ValueError, match="invalid literal"):
        writer.call(int, "seven")
    assert writer.call(sorted, [2, 1], reverse=True) == [2, 1]


def test_writer_leaves_signals_to_the_spider_and_ends_with_its_socket() -> None:
    writer = Writer()
    assert writer.call(abs, -1) == 1  # it has started, and set its signals
    os.kill(writer.pid, signal.SIGINT)
    os.kill(writer.pid, signal.SIGTERM)
    assert writer.call(abs, -2) == 2
    writer.close()
    assert writer.process.returncode == 0


def test_writer_that_was_killed_is_told_of(writer: Writer) -> None:
    assert writer.call(abs, -1) == 1
    writer.process.kill()
    with pytest.raises(WriterDied):
        writer.call(abs, -2)
