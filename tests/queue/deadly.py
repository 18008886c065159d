"""Tasks that do to a worker what must not happen: loaded with `celery worker -I tests.queue.deadly`."""

from __future__ import annotations

import os
import signal

from celery import shared_task


@shared_task(name="tests.die")  # type: ignore[untyped-decorator]
def die() -> None:
    """As the kernel does when the memory is full."""
    os.kill(os.getpid(), signal.SIGKILL)
