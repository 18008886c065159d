"""Real readers of the real shop's books, where RELEVANCE_DIR and REAL_SHOP_DIR name their folders."""

from __future__ import annotations

import csv
import gzip
import json
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from recommender.engine.baselines import Rows
from recommender.engine.corpus import Corpus, Readings

FOLDERS = ("RELEVANCE_DIR", "REAL_SHOP_DIR")
needed = pytest.mark.skipif(
    any(name not in os.environ for name in FOLDERS), reason="RELEVANCE_DIR and REAL_SHOP_DIR do not both name a folder"
)


@cache
def corpus() -> Corpus:
    with (Path(os.environ["REAL_SHOP_DIR"]) / "books.jsonl").open(encoding="utf-8") as lines:
        books = sorted(map(json.loads, lines), key=lambda book: book["id"])
    return Corpus(
        np.array([book["id"] for book in books], np.int64),
        [book["upc"] for book in books],
        [book["title"] for book in books],
        [book["description_clean"] or "" for book in books],
        [book["category"] for book in books],
        [()] * len(books),
        np.array([float(book["price_gbp"]) for book in books]),
    )


@cache
def readings() -> Readings:
    with gzip.open(Path(os.environ["RELEVANCE_DIR"]) / "interactions.csv.gz", "rt", encoding="utf-8") as file:
        pairs = [(int(line["reader"]), line["upc"]) for line in csv.DictReader(file)]
    readers, upcs = zip(*pairs, strict=True)
    return Readings.of_pairs(np.array(readers, np.int64), _rows(upcs), len(corpus()))


@cache
def queries() -> Rows:
    with (Path(os.environ["RELEVANCE_DIR"]) / "queries.csv").open(encoding="utf-8") as file:
        return _rows([line["upc"] for line in csv.DictReader(file)])


def _rows(upcs: Sequence[str]) -> Rows:
    row_of = {upc: row for row, upc in enumerate(corpus().upcs)}
    return np.array([row_of[upc] for upc in upcs], np.int32)
