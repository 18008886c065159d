"""A spider that dies by kill -9 at one exact point: `python -m tests.queue.killed POINT N ARGUMENTS` of `scrapy crawl`.

POINT is a name in POINTS, N the call of it that ends the process.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from itertools import count
from typing import Any

import crawler.settings  # noqa: F401 - starts Django
from catalog import tasks
from crawler import pipelines, spool

pipelines.BATCH_SIZE = 20  # many batches in a small shop

#: Before the call, or after it; of what; by which name.
POINTS: dict[str, tuple[str, Any, str]] = {
    "while the batch is being written": ("before", os, "fsync"),
    "before the batch is written down": ("before", spool, "register"),
    "before the batch is published": ("before", tasks.ingest_batch, "apply_async"),
    "before the file is deleted": ("after", tasks.ingest_batch, "apply_async"),
}


def dying(function: Callable[..., Any], when: str, at: int) -> Callable[..., Any]:
    calls = count(1)

    def call(*args: Any, **kwargs: Any) -> Any:
        last = next(calls) == at
        if last and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args, **kwargs)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return call


if __name__ == "__main__":
    when, owner, name = POINTS[sys.argv[1]]
    setattr(owner, name, dying(getattr(owner, name), when, int(sys.argv[2])))
    from scrapy.cmdline import execute

    execute(["scrapy", "crawl", "books", *sys.argv[3:]])
