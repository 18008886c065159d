"""What a person at a terminal sees of a crawl."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

from crawler.practice_shop import Shop
from tests.crawler.deployment import PATIENCE_S, ROOT, Deployment
from tests.crawler.odd_shop import odd_shop

pytestmark = pytest.mark.system

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_terminal(deployment: Deployment, columns: int, *arguments: str) -> tuple[int, str]:
    """Exit code of a crawl on a terminal of this width, and all that was written to it."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    # The terminal tells its width, unless the variable does, which parallel pytest sets.
    environment = {name: value for name, value in deployment.environment().items() if name not in {"COLUMNS", "LINES"}}
    process = subprocess.Popen(
        [sys.executable, "-m", "scrapy", "crawl", "books", *arguments],
        cwd=ROOT,
        env=environment | {"TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    written = b""
    try:
        while chunk := os.read(ours, 65536):
            written += chunk
    except OSError:  # Linux says so when the last process has closed the terminal
        pass
    finally:
        os.close(ours)
    return process.wait(PATIENCE_S), written.decode()


def test_bar_counts_to_the_end_on_a_narrow_terminal_and_gives_the_cursor_back(deployment: Deployment) -> None:
    with odd_shop(Shop(60)) as shop:
        code, written = on_terminal(deployment, 40, "-a", f"start_url={shop.address}")
    assert code == 0
    shown = CONTROL.sub("", written)
    assert "60/60" in shown
    assert "Run 1: 60 announced, 60 seen (60 created" in shown
    assert "{" not in shown  # no log line tears the bar of a sound crawl
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")
    bars = [line for line in re.split(r"[\r\n]+", shown) if line.startswith("Reading practice")]
    assert bars
    assert max(map(len, bars)) <= 40
