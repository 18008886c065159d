"""Training an engine on practice books, and asking it: seconds of each stage, memory, recall and latency.

    python -m benchmarks.recommender [--books 1000 100000] [--questions 2000]

Each size has a process of its own, whose peak resident memory is the kernel's account. Stages are told in seconds by
the clock and of CPU: on a machine that does other work as well, the CPU's say more. Recall@10 is of 1,000 books against
looking at all books with the same vectors; a neighbor as near as the tenth counts. Latencies are of one thread on the
engine as it is loaded from the store, after a first question of each kind. A million books take ten minutes:
--books 1000000.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.sparse import csr_array

SAMPLE = 1_000  # books of which the exact neighbors are found
CHUNK = 50_000  # books looked at together for them
BARS = {"recall@10": 0.95, "lookup": 5.0, "text": 20.0}  # the latter two: milliseconds, 99 of 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--books", type=int, nargs="+", default=[1_000, 100_000])
    parser.add_argument("--questions", type=int, default=2_000, help="of each kind")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measured(options.books[0], options.questions)))
        return
    for books in options.books:
        command = [sys.executable, "-m", "benchmarks.recommender", "--measure", "--books", str(books)]
        done = subprocess.run(
            [*command, "--questions", str(options.questions)], stdout=subprocess.PIPE, text=True, check=True
        )
        report(books, json.loads(done.stdout.splitlines()[-1]))


def report(books: int, figures: dict[str, Any]) -> None:
    console = Console(width=120)
    stages = Table(title=f"{books:,} practice books", title_justify="left")
    for column in ("stage", "seconds", "CPU seconds"):
        stages.add_column(column, justify="left" if column == "stage" else "right")
    for stage, (wall, cpu) in figures["stages"].items():
        stages.add_row(stage, f"{wall:,.1f}", f"{cpu:,.1f}")
    console.print(stages)
    asked = Table()
    for column in ("question", "p50 ms", "p99 ms"):
        asked.add_column(column, justify="left" if column == "question" else "right")
    for question, (middle, most) in figures["latency"].items():
        asked.add_row(question, f"{middle:.2f}", f"{most:.2f}")
    console.print(asked)
    console.print(
        f"recall@10 {figures['recall']:.4f}, peak memory {figures['peak_mb']:,.0f} MB,"
        f" artifact {figures['artifact_mb']:,.0f} MB; bars {BARS}\n"
    )


# -- what is measured, in a process of its own ------------------------------------------------------------------------


class Stages:
    """Seconds by the clock and of CPU between one call and the next, under the name of the latter."""

    def __init__(self) -> None:
        self.spent: dict[str, tuple[float, float]] = {}
        self._last = (time.perf_counter(), time.process_time())

    def ended(self, stage: str, *_: int) -> None:
        now = (time.perf_counter(), time.process_time())
        wall, cpu = self.spent.get(stage, (0.0, 0.0))
        self.spent[stage] = (wall + now[0] - self._last[0], cpu + now[1] - self._last[1])
        self._last = now


def measured(books: int, questions: int) -> dict[str, Any]:
    from recommender.engine.artifact import Store
    from recommender.engine.engine import Engine
    from recommender.engine.recipes import DEFAULT, recipe

    stages = Stages()
    corpus = practice_books(books)
    stages.ended("make the books")
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        engine = Engine.train(corpus, recipe(DEFAULT), progress=stages.ended)
        stages.ended("the rest of training")
        version = store.publish(engine, revision=1)
        stages.ended("write")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        del engine
        size = sum(path.stat().st_size for path in Path(folder).rglob("*")) / 1024**2
        served = store.load(version)
        stages.ended("verify and load")
        found = latency(served, corpus, questions)
        return {
            "stages": stages.spent,
            "peak_mb": peak,
            "artifact_mb": size,
            "latency": found,
            "recall": recall(served),
        }


def practice_books(books: int) -> Any:
    from crawler.practice_shop import Shop
    from recommender.engine.corpus import Corpus

    shop = Shop(books)
    books_told = (shop.book(number) for number in range(1, books + 1))  # one at a time: whole, they would fill memory
    rows = ((b.upc, b.title, b.description, b.category, b.authors, float(b.price)) for b in books_told)
    columns: tuple[list[Any], ...] = ([], [], [], [], [], [])
    for row in rows:
        for column, value in zip(columns, row, strict=True):
            column.append(value)
    upcs, titles, descriptions, categories, authors, prices = columns
    ids = np.arange(1, books + 1, dtype=np.int64)
    return Corpus(ids, upcs, titles, descriptions, categories, authors, np.array(prices))


def latency(engine: Any, corpus: Any, questions: int) -> dict[str, tuple[float, float]]:
    from recommender.engine.corpus import Corpus

    chance = np.random.default_rng(1)
    n = len(engine)
    half = np.sort(chance.choice(engine.ids, n // 2, replace=False))
    few = np.sort(chance.choice(engine.ids, min(200, n // 2), replace=False))

    def book() -> int:
        return int(chance.integers(1, n + 1))

    def text() -> Any:
        title, description = corpus.titles[book() - 1], corpus.descriptions[book() - 1]
        return Corpus.of_text(title, description, corpus.categories[book() - 1], corpus.authors[book() - 1])

    kinds: dict[str, Callable[[], Any]] = {
        "lookup": lambda: engine.similar(book(), 10),
        "lookup, 5 excluded": lambda: engine.similar(book(), 10, exclude=[book() for _ in range(5)]),
        "lookup, half allowed": lambda: engine.similar(book(), 10, allow=half),
        "search, 200 allowed": lambda: engine.similar(book(), 10, allow=few),
        "lookup, diversity .3": lambda: engine.similar(book(), 10, diversity=0.3),
        "basket of 5": lambda: engine.similar_to_basket([book() for _ in range(5)], 10),
        "text": lambda: engine.similar_to_text(text(), 10),
        "text, half allowed": lambda: engine.similar_to_text(text(), 10, allow=half),
    }
    found = {}
    for kind, ask in kinds.items():
        ask()
        spent = []
        for _ in range(questions):
            began = time.perf_counter()
            ask()
            spent.append((time.perf_counter() - began) * 1000)
        found[kind] = (float(np.percentile(spent, 50)), float(np.percentile(spent, 99)))
    return found


def recall(engine: Any) -> float:
    """Share of the ten nearest by exact search that are as near among the ten kept; a mean over sampled books."""
    n = len(engine)
    rows = np.sort(np.random.default_rng(2).choice(n, min(SAMPLE, n), replace=False))
    k = min(10, n - 1)
    query = engine.vectors.features(rows)
    nearest = np.full((len(rows), k), -np.inf, np.float32)
    for start in range(0, n, CHUNK):
        part = engine.vectors.features(slice(start, start + CHUNK))
        scores = query.dense @ part.dense.T + csr_array(query.sparse @ part.sparse.T).toarray()
        own = np.flatnonzero((rows >= start) & (rows < start + CHUNK))
        scores[own, rows[own] - start] = -np.inf
        nearest = np.partition(np.hstack([nearest, np.partition(scores, -k, axis=1)[:, -k:]]), -k, axis=1)[:, -k:]
    ours = engine.neighbors[rows, :k]
    pairs = (np.repeat(rows, k), ours.ravel())
    scores = engine.vectors.dense_of_pairs(*pairs) + engine.vectors.sparse_of_pairs(*pairs)
    return float(np.mean(scores.reshape(ours.shape) >= nearest.min(axis=1, keepdims=True) - 1e-5))


if __name__ == "__main__":
    main()
