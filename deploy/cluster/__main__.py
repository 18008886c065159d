"""`python -m deploy.cluster up|status|roll|scale|down`: the whole topology as plain local processes.

`up` stays in the foreground until Ctrl-C; the others speak with it from another terminal. `workers` is no part of it:
it becomes a worker of the configured broker.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import django
from rich.console import Console

from deploy.cluster import commands, control, screen
from deploy.cluster.cluster import Cluster, PortTaken
from deploy.cluster.site import Shop
from deploy.cluster.topology import BEHIND_GATEWAY, ROOT, WORKERS, Size
from deploy.gateway import Refused
from deploy.programs import NotInstalled, NotStarted

FOLDER = ROOT / "var" / "cluster"
ROLLED = ("workers", *BEHIND_GATEWAY, *WORKERS)


def main() -> int:
    options = _parser().parse_args()
    try:
        return int(options.run(options) or 0)
    except control.NotUp:
        trouble = f"No cluster is up in {options.folder}."
    except (control.Failed, NotStarted, Refused) as error:
        trouble = str(error)
    except NotInstalled as error:
        trouble = (
            f"{error.program} that this needs is not installed. On Debian and Ubuntu:\n\n"
            f"    sudo apt install --no-install-recommends {error.package}\n\n"
            "The servers that the packages start are not needed: ours are started here, at ports of their own."
        )
    except PortTaken:
        trouble = f"Port {options.port} is taken. Choose another one: --port {options.port + 1}"
    print(trouble, file=sys.stderr)
    return 1


# --- Up ---------------------------------------------------------------------------------------------------------------
def _up(options: argparse.Namespace) -> None:
    console = Console(highlight=False)
    try:
        control.ask(options.folder, "status")
    except control.NotUp:
        pass
    else:
        raise control.Failed(f"A cluster is up in {options.folder}. `python -m deploy.cluster status` shows it.")
    size = Size(options.api, options.workers, options.predictions, not options.no_prometheus)
    cluster = Cluster(
        options.folder, size=size, port=options.port, say=lambda text: console.print(text, style="yellow", markup=False)
    )
    # Before Django is: this process looks into the cluster's database, and the shop it is told about is the user's.
    os.environ.update(cluster.site.signing_environment(shop=False))
    os.environ.update(LOG_LEVEL="WARNING", LOG_FORMAT="console", DJANGO_SETTINGS_MODULE="bookapi.settings")
    django.setup()
    _run(cluster, options, console)


def _run(cluster: Cluster, options: argparse.Namespace, console: Console) -> None:
    """From nothing to a filled catalogue, and on until a signal. Everything has ended when this returns."""
    from bookapi.quickstart import OPERATOR, Probe, first_operator, next_steps, signals_as_interrupts  # noqa: PLC0415 - Django's
    from deploy.cluster import filling  # noqa: PLC0415

    begun = screen.stopwatch()
    with signals_as_interrupts(), ExitStack() as stack:
        try:
            why = _choose_shop(cluster, options, Probe)
            stack.callback(_end, cluster, console)
            with screen.showing(console, cluster.status):
                cluster.start_services()
                console.print(f"PostgreSQL, RabbitMQ and Redis are ready after {begun()}.")
                cluster.prepare()
                cluster.start_product()
            password = first_operator()
            console.print(screen.welcome(cluster, OPERATOR, password, why))
            console.print(f"Ready after {begun()}.")
            stack.enter_context(control.listening(options.folder, _actions(cluster)))
            with screen.showing(console, cluster.status):
                if not options.no_crawl:
                    filling.fill(cluster.url, lambda text: console.print(text, markup=False))
                    console.print(f"Crawled and answering after {begun()}.")
                console.print(next_steps(cluster.url, password), soft_wrap=True, markup=False)
                console.print("Serving. Ctrl-C ends it.")
                while True:
                    time.sleep(0.5)  # not `pause`: a signal that comes as it begins would be heard of with the next one
        except KeyboardInterrupt:
            console.print("Ending: the schedule first, then crawls, workers, servers.")
    console.print("Ended.")


def _choose_shop(cluster: Cluster, options: argparse.Namespace, probe: Callable[[str], Any]) -> str:
    """The shop that was asked for, else the live one if it answers, else the practice shop; why this one."""
    from django.conf import settings  # noqa: PLC0415 - read after the environment is complete

    if options.shop:
        same = options.shop.rstrip("/") == settings.SHOP_URL.rstrip("/")
        name = settings.SHOP_NAME if same else (urlsplit(options.shop).hostname or "shop").replace(".", "-")
        cluster.site.shop = Shop(name, options.shop)
        return "as asked for"
    if options.books or options.no_crawl:
        cluster.site.shop = Shop(books=options.books or Shop.books)
        return "as asked for"
    live = probe(settings.SHOP_URL)
    if live.answers():
        cluster.site.shop = Shop(settings.SHOP_NAME, settings.SHOP_URL)
        return "it answers; we read it politely"
    return f"instead of {live.url}: {live.trouble}"


def _end(cluster: Cluster, console: Console) -> None:
    with screen.showing(console, cluster.status):
        cluster.close()


def _actions(cluster: Cluster) -> dict[str, control.Action]:
    """What another terminal may ask for."""

    def roll(wish: Mapping[str, Any], say: Callable[[str], None]) -> None:
        cluster.roll(wish["kind"], say)

    def scale(wish: Mapping[str, Any], say: Callable[[str], None]) -> None:
        cluster.scale(int(wish["workers"]))

    def down(wish: Mapping[str, Any], say: Callable[[str], None]) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return os.getpid()

    return {
        "status": lambda wish, say: {"gateway": cluster.url, "pid": os.getpid(), "processes": cluster.status()},
        "roll": roll,
        "scale": scale,
        "down": down,
    }


# --- From another terminal --------------------------------------------------------------------------------------------
def _status(options: argparse.Namespace) -> None:
    found = control.ask(options.folder, "status")
    if options.json:
        print(json.dumps(found, indent=1))
        return
    Console(highlight=False).print(screen.table(found["processes"]))


def _roll(options: argparse.Namespace) -> None:
    control.ask(options.folder, "roll", print, kind=options.kind)


def _scale(options: argparse.Namespace) -> None:
    control.ask(options.folder, "scale", print, workers=options.workers)


def _down(options: argparse.Namespace) -> None:
    pid = control.ask(options.folder, "down")
    while _lives(pid):
        time.sleep(0.1)


def _work(options: argparse.Namespace) -> None:
    """Become a worker, so that signals reach it as they come."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bookapi.settings")
    from django.conf import settings  # noqa: PLC0415 - the environment is complete now

    if not settings.BROKER_URL:
        raise control.Failed("Workers read a queue: set BROKER_URL and DATABASE_URL, in .env or in the environment.")
    command = commands.worker("ingest", "ingest", options.count)
    sys.stdout.flush()
    os.execv(command[0], command)  # noqa: S606 - arguments of our own, no shell


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.cluster", description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="what is kept between two runs (var/cluster)")
    subparsers = parser.add_subparsers(required=True)
    up = subparsers.add_parser("up", help="start everything, crawl, train, and serve until Ctrl-C")
    up.set_defaults(run=_up)
    up.add_argument("--workers", type=int, default=Size.workers, metavar="N", help="ingest workers (default 2)")
    up.add_argument("--api", type=int, default=Size.api, metavar="N", help="replicas of the API (default 2)")
    up.add_argument("--predictions", type=int, default=Size.predictions, metavar="N", help="services (default 1)")
    up.add_argument("--port", type=int, default=8080, help="of the gateway (default 8080)")
    shop = up.add_mutually_exclusive_group()
    shop.add_argument("--books", type=int, metavar="N", help="read the practice shop, with so many books")
    shop.add_argument("--shop", metavar="URL", help="read this shop; by default the live one if it answers")
    up.add_argument("--no-crawl", action="store_true", help="serve what the catalogue holds")
    up.add_argument("--no-prometheus", action="store_true", help="without measurements")
    status = subparsers.add_parser("status", help="every process, its address and state")
    status.set_defaults(run=_status)
    status.add_argument("--json", action="store_true")
    roll = subparsers.add_parser("roll", help="replace processes one at a time, without a failed request")
    roll.set_defaults(run=_roll)
    roll.add_argument("kind", choices=ROLLED)
    scale = subparsers.add_parser("scale", help="workers=4: have so many ingest workers")
    scale.set_defaults(run=_scale)
    scale.add_argument("workers", type=_workers, metavar="workers=N")
    subparsers.add_parser("down", help="end everything, as Ctrl-C does").set_defaults(run=_down)
    workers = subparsers.add_parser("workers", help="ingest workers alone, for BROKER_URL and DATABASE_URL")
    workers.set_defaults(run=_work)
    workers.add_argument("count", type=int, help="batches at work at once")
    return parser


def _workers(text: str) -> int:
    name, _, count = text.partition("=")
    if name != "workers" or not count.isdecimal() or int(count) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: say workers=4")
    return int(count)


if __name__ == "__main__":
    sys.exit(main())
