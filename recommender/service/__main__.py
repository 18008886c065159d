"""`python -m recommender.service --store URL --host HOST --port PORT`: serve the champion of a store."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import TypeVar

from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels

from recommender.engine.artifact import Store
from recommender.engine.errors import ArtifactError
from recommender.service.logs import logging_config

N = TypeVar("N", int, float)

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
#: Seconds that requests at work have to end after SIGTERM.
GRACE_S = 10


def main() -> None:
    parser = _parser()
    options = parser.parse_args()
    level = os.environ.get("LOG_LEVEL", "INFO")
    if level not in LEVELS:
        parser.error(f"LOG_LEVEL is {level!r}: choose from {', '.join(LEVELS)}")
    try:
        Store(options.store)
    except ArtifactError as error:  # now, in a line, and not in each of the processes
        parser.error(f"--store: {error}")
    # The server makes the application in each of its processes, where the environment is all that it finds.
    os.environ["ARTIFACT_STORE"] = options.store
    os.environ["ARTIFACT_POLL_S"] = str(options.poll_s)
    # A folder of this server alone: what processes of an earlier one have counted there would be told again.
    with TemporaryDirectory(prefix="prediction-metrics-") as counters:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = counters
        Granian(
            "recommender.service.app:create",
            factory=True,
            interface=Interfaces.ASGI,
            address=options.host,
            port=options.port,
            workers=options.workers,
            http=HTTPModes.http1,
            websockets=False,
            log_level=LogLevels(level.lower()),
            log_dictconfig=logging_config(level),
            respawn_failed_workers=True,
            workers_kill_timeout=GRACE_S,
        ).serve()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m recommender.service", description="The prediction service.")
    store = os.environ.get("ARTIFACT_STORE", "")
    parser.add_argument(
        "--store", default=store, required=not store, help="folder or fsspec address of the models (ARTIFACT_STORE)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; the service asks for no token")
    parser.add_argument("--port", type=_within(int, 1, 65_535), default=8001)
    workers = "processes, each with the arrays mapped, not copied"
    parser.add_argument("--workers", type=_within(int, 1, 256), default=1, help=workers)
    poll_s = "seconds between looks for a new champion"
    parser.add_argument("--poll-s", type=_within(float, 0.01, 3600), default=2.0, help=poll_s)
    return parser


def _within(kind: type[N], least: float, most: float) -> Callable[[str], N]:
    """Reads a number of a range, for argparse."""

    def number(text: str) -> N:
        value = kind(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is not between {least} and {most}")
        return value

    number.__name__ = kind.__name__  # what argparse calls it when it is no number at all
    return number


if __name__ == "__main__":
    main()
