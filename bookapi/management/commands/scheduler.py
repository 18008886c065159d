"""`manage.py scheduler`: what is due, when it is due, from one process."""

from __future__ import annotations

import signal
import threading
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand
from django.db import close_old_connections

from bookapi.ticking import Scheduler


class Command(BaseCommand):
    help = (
        "Run the schedule until Ctrl-C or SIGTERM: without a broker in this process, crawls and trainings as processes "
        "of their own; with BROKER_URL the workers do it, as with `celery -A bookapi beat`. Several may be started: "
        "one is at work. For cron: */5 * * * * cd /srv/books && .venv/bin/python manage.py scheduler --once"
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--once", action="store_true", help="do what is due now, and end")

    def handle(self, *, once: bool, **_: Any) -> None:
        ending = threading.Event()
        if not once:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: ending.set())
        scheduler = Scheduler()
        try:
            seconds = scheduler.tick()
            while not once and not ending.wait(seconds):
                close_old_connections()
                seconds = scheduler.tick()
        finally:
            scheduler.close()
