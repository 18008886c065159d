"""A crawl that writes to the catalogue against the same crawl that throws its records away.

    python -m benchmarks.crawl [--books 3000] [--rounds 3] [DATABASE_URL ...]

Without addresses: a temporary SQLite file, and a temporary PostgreSQL database where a server answers on 127.0.0.1.
Both crawls read the practice shop on this machine, open a run, ask for the known pages of each list and close the run.
The second has no item pipeline (`-s ITEM_PIPELINES={}`), so that no record is cleaned, compared or written. The two
take turns, each on an emptied database, and the time is Scrapy's own from the opening of the spider to its close. The
shop, the spider and PostgreSQL share the cores of one machine, which is harder on the writing than a real crawl is.
Rates mean something on an idle machine alone; the CPU time of the crawl's process (start-up included, PostgreSQL's not)
is printed beside them because it does on a busy one too.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.ingest import DEFAULT_SERVER, postgres_database, sqlite_file
from crawler.practice_shop import Shop, serving

BAR = 0.95
ROOT = Path(__file__).parents[1]
WAYS = {"no pipeline": ["-s", "ITEM_PIPELINES={}"], "catalogue": []}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--books", type=int, default=3000, help="books in the practice shop")
    parser.add_argument("--rounds", type=int, default=3, help="crawls of each kind")
    parser.add_argument("--revisit", action="store_true", help="crawl a catalogue that knows the pages: 304")
    parser.add_argument("databases", nargs="*", metavar="DATABASE_URL", help="databases that may be filled")
    options = parser.parse_args()
    print(f"{options.books} books, {options.rounds} rounds; both crawls do everything but the writing.")
    met = True
    with ExitStack() as stack:
        address = stack.enter_context(serving(Shop(options.books)))
        databases = options.databases or [stack.enter_context(sqlite_file())]
        if not options.databases:
            try:
                databases.append(stack.enter_context(postgres_database()))
            except OSError as error:
                print(f"PostgreSQL is not measured: no server at {DEFAULT_SERVER} ({error}).")
        for url in databases:
            met = measure(url, address, options) and met
    return 0 if met else 1


def measure(url: str, address: str, options: argparse.Namespace) -> bool:
    """Print the rates on one database. True when the bar is met."""
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    cpu: dict[str, list[float]] = {way: [] for way in WAYS}
    with deployment(url) as env:
        run([sys.executable, "manage.py", "migrate", "--verbosity=0"], env)
        crawl(address, WAYS["catalogue"], env, options.books)  # warms the shop and the files
        for n in range(options.rounds):
            ways = list(WAYS.items())
            for way, arguments in ways if n % 2 else reversed(ways):
                if not options.revisit:
                    empty(env)
                before = cpu_s()
                rates[way].append(crawl(address, arguments, env, options.books))
                cpu[way].append(cpu_s() - before)
    print(f"\n{url.partition(':')[0]:16}{'min':>10}{'median':>10}{'max':>10}  pages/s{'CPU s':>10}  (median)")
    for way, values in rates.items():
        told = f"{min(values):10.0f}{statistics.median(values):10.0f}{max(values):10.0f}"
        print(f"  {way:14}{told}{statistics.median(cpu[way]):19.2f}")
    ratio = statistics.median(rates["catalogue"]) / statistics.median(rates["no pipeline"])
    of_rounds = [ours / none for ours, none in zip(rates["catalogue"], rates["no pipeline"], strict=True)]
    told = ", ".join(f"{value:.3f}" for value in of_rounds)
    print(f"  ratio of medians {ratio:.3f}, bar {BAR}: {'met' if ratio >= BAR else 'MISSED'} (rounds: {told})")
    return ratio >= BAR


def crawl(address: str, arguments: list[str], env: dict[str, str], books: int) -> float:
    """Pages a second of one crawl, lists included."""
    command = [sys.executable, "-m", "scrapy", "crawl", "books", "-a", f"start_url={address}", *arguments]
    log = run(command, env)
    stats = next(event for event in map(event_of, log.splitlines()) if event.startswith("Dumping Scrapy stats"))
    scraped = int(figure("item_scraped_count", stats))
    assert scraped == books, f"{scraped} of {books} books were read"
    return figure("response_received_count", stats) / figure("elapsed_time_seconds", stats)


def cpu_s() -> float:
    """CPU seconds of all processes that this one has waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def event_of(line: str) -> str:
    return str(json.loads(line)["event"]) if line.startswith("{") else ""


def figure(name: str, stats: str) -> float:
    found = re.search(rf"'{name}': ([0-9.]+)", stats)
    assert found, f"Scrapy counted no {name}"
    return float(found[1])


def empty(env: dict[str, str]) -> None:
    run([sys.executable, "manage.py", "flush", "--no-input", "--verbosity=0"], env)


@contextmanager
def deployment(url: str) -> Iterator[dict[str, str]]:
    with tempfile.TemporaryDirectory() as folder:
        ours = {"DATABASE_URL": url, "VAR_DIR": folder, "SHOP_NAME": "benchmark", "LOG_LEVEL": "INFO"}
        yield os.environ | {"ENVIRONMENT": "development", "LOG_FORMAT": "json"} | ours


def run(command: list[str], env: dict[str, str]) -> str:
    """What a process said on stderr. A crawl without a pipeline is incomplete, and ends with 2."""
    done = subprocess.run(
        command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode in {0, 2}, done.stderr
    return done.stderr


if __name__ == "__main__":
    sys.exit(main())
