"""What `make run` does: serve the API on this machine, fill the catalogue behind it, and train the recommender."""

from __future__ import annotations

import http.client
import secrets
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from bookapi.accounts import create_account
from bookapi.processes import Child
from bookapi.serving import free_port, is_free, server_command
from catalog.models import Book, CrawlRun
from catalog.revision import current_revision
from recommender.models import ModelVersion
from recommender.registry import champion

HOST = "127.0.0.1"
OPERATOR = "operator"
PRACTICE_SHOP = "practice-shop"
#: One port for every start: the addresses of the books stay the same, and a second start finds its pages again.
PRACTICE_PORT = 8765
PRACTICE_BOOKS = 1000
#: Seconds that the live shop has to answer, and the server to start.
PROBE_S, SERVER_S = 4.0, 120.0
#: Seconds between two lines of progress where there is no terminal for a bar.
REPORT_EVERY_S = 5.0
#: A server log larger than this is set aside at the next start.
LOG_BYTES = 20 * 1024 * 1024


class CannotRun(Exception):
    """Something this needs is not there; the message tells what to do."""


@dataclass(frozen=True, slots=True)
class Options:
    port: int = 8000
    crawl: bool = True
    train: bool = True  # after a crawl that changed what is recommended
    practice: bool = False  # do not ask the live shop
    practice_port: int = PRACTICE_PORT
    practice_books: int = PRACTICE_BOOKS


@dataclass(frozen=True, slots=True)
class Source:
    """The shop to read: its slug, its address, and why this one."""

    shop: str
    url: str
    why: str

    @property
    def environment(self) -> dict[str, str]:
        """For the server, so that a crawl started through the API reads the same shop."""
        return {"SHOP_NAME": self.shop, "SHOP_URL": self.url}


def run(options: Options, console: Console) -> None:
    """Serve until a signal ends it (KeyboardInterrupt). Every child has ended when this returns or raises.

    Raises:
        CannotRun: the port is taken, or a part does not start.
    """
    if not is_free(HOST, options.port):
        raise CannotRun(f"Port {options.port} is taken. Choose another one: make run PORT={options.port + 1}")
    base = f"http://{HOST}:{options.port}"
    with signals_as_interrupts(), ExitStack() as children:
        probe = None if options.practice or not options.crawl else Probe(settings.SHOP_URL)
        with console.status("Preparing the database"):
            call_command("migrate", interactive=False, verbosity=0)
        source = _choose_source(options, probe, children) if options.crawl else None
        server = children.enter_context(start_server(options.port, source))
        with console.status("Starting the server"):
            _wait_until_live(base, server)
        # Not before it can be printed: a start that fails would take the only copy of the password with it.
        password = first_operator()
        console.print(_welcome(base, password, source))
        if source is not None:
            _fill(source, console, children)
            if options.train:
                _train(console, children)
        console.print(next_steps(base, password), soft_wrap=True, markup=False)
        console.print("Serving. Ctrl-C ends it.")
        # Not in `wait`: a signal that comes as it begins to wait is heard of when it ends, which is never.
        while (code := server.code) is None:
            time.sleep(0.2)
        raise CannotRun(f"The server ended with code {code}. Its log is {server_log()}.")


# --- Accounts ---------------------------------------------------------------------------------------------------------
def first_operator() -> str:
    """The password of the operator made now, or nothing where there are accounts already. One query, or a few."""
    if User.objects.exists():
        return ""
    password = secrets.token_urlsafe(18)
    create_account(OPERATOR, "operator", password)
    return password


# --- Which shop -------------------------------------------------------------------------------------------------------
class Probe:
    """Asks the live shop for its first page while the database is being prepared."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.trouble = f"it did not answer within {PROBE_S:.0f} seconds"
        self._deadline = time.monotonic() + PROBE_S
        # A daemon: a name server that hangs must hold up neither the start nor the end.
        self._thread = threading.Thread(target=self._ask, name="probe", daemon=True)
        self._thread.start()

    def answers(self) -> bool:
        """Whether the shop answered; if not, `trouble` says why. Waits until the time is over."""
        self._thread.join(max(0.0, self._deadline - time.monotonic()))
        return not self.trouble

    def _ask(self) -> None:
        request = urllib.request.Request(self.url, headers={"User-Agent": settings.CRAWL_USER_AGENT})  # noqa: S310 - http(s) by its reader
        try:
            # Through the ordinary proxy settings, as the spider will go.
            with urllib.request.urlopen(request, timeout=PROBE_S) as answer:  # noqa: S310
                place = urlsplit(answer.url).hostname
        except urllib.error.HTTPError as error:
            self.trouble = f"it answers {error.code}"
        except (OSError, http.client.HTTPException) as error:
            self.trouble = f"it cannot be reached: {getattr(error, 'reason', error)}"
        else:
            # The login page of a hotel's network answers for everybody.
            self.trouble = "" if place == urlsplit(self.url).hostname else f"{place} answers in its place"


def _choose_source(options: Options, probe: Probe | None, children: ExitStack) -> Source:
    """The live shop if it answers, else the practice shop, started here."""
    if probe is not None and probe.answers():
        return Source(settings.SHOP_NAME, settings.SHOP_URL, "it answers; we read it politely")
    why = "as asked for" if probe is None else f"instead of {probe.url}: {probe.trouble}"
    port = options.practice_port
    if not is_free(HOST, port):
        port = free_port()
        why += f". Port {options.practice_port} is taken, so its pages have new addresses and are all read again"
    return Source(PRACTICE_SHOP, _start_practice_shop(options.practice_books, port, children), why)


def _start_practice_shop(books: int, port: int, children: ExitStack) -> str:
    """Its address, once it serves. It stays until we end, so that crawls started through the API can read it."""
    command = [sys.executable, "-m", "crawler.practice_shop", f"--books={books}", f"--port={port}"]
    child = children.enter_context(
        Child("practice shop", command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=settings.BASE_DIR)
    )
    assert child.process.stdout is not None  # noqa: S101 - asked for above
    address: str = child.process.stdout.readline().decode().strip()
    if not address.startswith("http://"):
        raise CannotRun(f"The practice shop did not start: {address or 'it said nothing'}")
    return address


# --- The server -------------------------------------------------------------------------------------------------------
def server_log() -> Path:
    return Path(settings.VAR_DIR) / "log" / "server.log"


def crawl_log() -> Path:
    return Path(settings.VAR_DIR) / "log" / "crawl.log"


def start_server(port: int, source: Source | None) -> Child:
    """The server, its JSON lines in a file: on the terminal they would bury the progress."""
    environment = source.environment if source else {}
    with _open_log(server_log()) as log:
        return Child(
            "server",
            server_command(HOST, port),
            environment=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=settings.BASE_DIR,
        )


def _open_log(path: Path) -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > LOG_BYTES:
        path.replace(path.with_suffix(".old.log"))
    return path.open("ab")


def _wait_until_live(base: str, server: Child) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback is never behind a proxy
    deadline = time.monotonic() + SERVER_S
    while time.monotonic() < deadline:
        if server.code is not None:
            raise CannotRun(f"The server ended with code {server.code}:\n{_tail(server_log())}")
        try:
            with direct.open(f"{base}/api/v1/health/live", timeout=2):
                return
        except urllib.error.HTTPError as error:
            raise CannotRun(f"The server answers {error.code}:\n{_tail(server_log())}") from None
        except OSError:
            time.sleep(0.05)
    raise CannotRun(f"The server does not answer after {SERVER_S:.0f} seconds:\n{_tail(server_log())}")


def _tail(path: Path, lines: int = 15) -> str:
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


# --- Filling the catalogue --------------------------------------------------------------------------------------------
def crawl_command(source: Source) -> list[str]:
    """The spider's arguments. A run that was interrupted goes on instead of beginning anew."""
    command = [sys.executable, "-m", "scrapy", "crawl", "books", "-a", f"shop={source.shop}"]
    command += ["-a", f"start_url={source.url}/"]
    last = CrawlRun.objects.filter(shop=source.shop).order_by("-pk").first()
    if last is not None and last.state == CrawlRun.State.INTERRUPTED and not last.filters:
        command += ["-a", f"resume={last.pk}"]
    return command


def _fill(source: Source, console: Console, children: ExitStack) -> None:
    """Read the shop. A crawl that does not end well is told, and what is there is served all the same."""
    if console.is_terminal and sys.stderr.isatty():
        # The spider draws its own bar and prints its own sums. Lines that only inform would tear the bar.
        quiet = {"LOG_LEVEL": "WARNING", "LOG_FORMAT": "console"}
        crawl = Child("crawl", crawl_command(source), environment=quiet, cwd=settings.BASE_DIR)
        code = children.enter_context(crawl).process.wait()
        where = "the lines above"
    else:
        with _open_log(crawl_log()) as log:
            crawl = Child("crawl", crawl_command(source), cwd=settings.BASE_DIR, stdout=log, stderr=log)
        code = _report(children.enter_context(crawl), source, console)
        where = str(crawl_log())
    if code:
        console.print(f"The crawl ended with code {code}: see {where}.", style="yellow")


def _report(crawl: Child, source: Source, console: Console) -> int:
    """Plain lines about the run until it ends, and its sums; the exit code."""
    runs = CrawlRun.objects.filter(shop=source.shop).order_by("-pk")
    while True:
        try:
            code = crawl.process.wait(REPORT_EVERY_S)
            break
        except subprocess.TimeoutExpired:
            run = runs.under_way().first()
            if run is not None:
                console.print(f"Reading {run.shop}: {run.seen} of {run.announced or '?'} books")
    if (run := runs.first()) is not None:
        console.print(sums(run))
    return code


# --- Training the recommender -----------------------------------------------------------------------------------------
def train_log() -> Path:
    return Path(settings.VAR_DIR) / "log" / "train.log"


def something_to_learn() -> bool:
    """Whether there are books, and the recommender does not know all of them as they are now. Three queries."""
    served = champion()
    return Book.objects.listed().exists() and not (served and served.revision == current_revision())


def _train(console: Console, children: ExitStack) -> None:
    """Let the recommender learn what is there, unless it knows already. Without it there are answers all the same."""
    if not something_to_learn():
        return
    command = [sys.executable, "manage.py", "retrain"]
    with console.status("Training the recommender"), _open_log(train_log()) as log:
        training = Child("training", command, stdout=log, stderr=log, cwd=settings.BASE_DIR)
        code = children.enter_context(training).process.wait()
    last = ModelVersion.objects.first()
    if code or last is None:
        console.print(f"The training ended with code {code}: see {train_log()}.", style="yellow")
    else:
        console.print(f"Recommender: {last.get_decision_display().lower()}, trained on {last.n_books} books.")


# --- What is said -----------------------------------------------------------------------------------------------------
def _welcome(base: str, password: str, source: Source | None) -> Panel:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("API", f"{base}/api/v1")
    table.add_row("Documentation", f"{base}/api/v1/docs")
    table.add_row("Administration", f"{base}/admin/")
    if password:
        table.add_row("Account", f"{OPERATOR}, password {password}  (shown this once)")
    else:
        table.add_row(
            "Accounts",
            f"as before. Another one: {_manage()} create_account NAME --role operator. "
            f"A new password: {_manage()} changepassword NAME",
        )
    if source is not None:
        table.add_row("Shop", f"{source.shop} at {source.url}, {source.why}")
    table.add_row("Logs", str(server_log()))
    return Panel(table, title="Book catalogue", border_style="green", expand=False)


def sums(run: CrawlRun) -> str:
    took = f" in {(run.finished_at - run.started_at).total_seconds():.0f} s" if run.finished_at else ""
    return (
        f"Run {run.pk}: {run.seen} of {run.announced or 0} books read{took}: {run.created} new, {run.updated} changed, "
        f"{run.unchanged} unchanged, {run.rejected} rejected, {run.failed_pages} failed pages."
    )


def next_steps(base: str, password: str) -> str:
    """Lines to copy, in the order in which one would try them. No frame around them: it would be copied too."""
    api = f"{base}/api/v1"
    login = f'{{"username": "{OPERATOR}", "password": "{password or "PASSWORD"}"}}'
    access = "import json, sys; print(json.load(sys.stdin)['access'])"
    frame = (
        f"import os, pandas; print(pandas.read_csv('{api}/books?format=csv', "
        "storage_options={'Authorization': 'Bearer ' + os.environ['TOKEN']}).describe())"
    )
    return "\n".join(
        [
            "",
            "Try it (the last line where pandas is installed):",
            "",
            f"export TOKEN=$(curl -s {api}/login -H 'Content-Type: application/json' -d '{login}'"
            f' | python3 -c "{access}")',
            f"curl -s '{api}/books?ordering=-rating,price&page_size=3' -H \"Authorization: Bearer $TOKEN\"",
            f"curl -s '{api}/books/{_some_book()}/recommendations?limit=3' -H \"Authorization: Bearer $TOKEN\"",
            f'python3 -c "{frame}"',
            "",
        ]
    )


def _some_book() -> int:
    """The id of a book to ask about; 1 where there is none yet."""
    return Book.objects.listed().order_by("id").values_list("id", flat=True).first() or 1


def _manage() -> str:
    return ".venv/bin/python manage.py"


# --- Ending -----------------------------------------------------------------------------------------------------------
@contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """SIGTERM and a closed terminal end us like Ctrl-C: through the `finally` blocks, with the children.

    A second signal while they end is ignored: it would leave the rest of them behind.
    """

    def interrupt(number: int, frame: object) -> NoReturn:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    before: dict[signal.Signals, Any] = {}
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        before[each] = signal.signal(each, interrupt)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
