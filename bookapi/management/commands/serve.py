"""`manage.py serve`: the API in the foreground, its JSON log lines on the terminal."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from bookapi import keys
from bookapi.serving import is_free, new_counters, server_command


class Command(BaseCommand):
    help = "Serve the API. The process becomes the server, so that signals reach it as they come."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
        parser.add_argument("--port", type=int, default=8000, help="(default 8000)")
        parser.add_argument("--workers", type=int, default=1, help="processes (default 1); rate limits are for each")

    def handle(self, *, host: str, port: int, workers: int, **_: Any) -> None:
        try:
            keys.check()
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from error
        if not is_free(host, port):
            raise CommandError(f"Port {port} of {host} is taken or not ours. Choose another one: make serve PORT=8001")
        if workers > 1:  # each scrape meets one of them
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(new_counters(port))
        command = server_command(host, port, workers)
        self.stdout.flush()
        os.execv(command[0], command)  # noqa: S606 - arguments of our own, no shell
