"""What every test shares."""

import signal

import pytest

from bookapi.api import paging
from catalog import memo


def pytest_configure() -> None:
    """A shell ignores Ctrl-C for what it starts in the background; the processes that tests interrupt would as well."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _nothing_remembered() -> None:
    """A test's catalogue begins at revisions that another one's had, so what is kept by revision must go."""
    memo.forget_all()
    paging.forget_counts()
