"""Engines trained on small corpora, the stores they are published in, and prediction services over these."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import requests

from bookapi.processes import Child
from bookapi.serving import free_port
from recommender.engine.artifact import Store
from recommender.engine.corpus import Corpus
from recommender.engine.engine import Engine
from recommender.engine.recipes import recipe

ROOT = Path(__file__).parents[2]
START_S = 60.0  # of a machine that does much else

SHELVES = {
    "Poetry": "verse rhyme sonnet stanza lyric metre ode ballad",
    "Crime": "murder detective alibi corpse clue suspect verdict motive",
    "Travel": "harbour island mountain caravan desert passport voyage train",
    "Science": "planet atom theory quantum gene fossil orbit telescope",
}


def corpus_of(n: int = 200, *, first: int = 1) -> Corpus:
    """`n` books on four shelves, whose texts are made of the words of their shelf; ids from `first` on."""
    dice = np.random.default_rng(7)
    names = [list(SHELVES)[i % len(SHELVES)] for i in range(n)]
    ids = np.arange(first, first + n, dtype=np.int64)
    words = [dice.choice(SHELVES[name].split(), 12) for name in names]
    return Corpus(
        ids=ids,
        upcs=[f"upc{number:06}" for number in ids],
        titles=[f"The {w[0].title()} and the {w[1].title()}" for w in words],
        descriptions=[" ".join(w) for w in words],
        categories=names,
        authors=[(f"Author {i % 20}",) for i in range(n)],
        prices=np.full(n, 10.0),
    )


def publish(store: Store, corpus: Corpus, name: str = "s") -> str:
    """Train, publish, promote: the version that is the champion from now on."""
    version = store.publish(Engine.train(corpus, recipe(name)), revision=1, metrics={})
    store.set_champion(version)
    return version


@contextmanager
def prediction_service(
    store: str | Path, log: Path, *, poll_s: float = 0.1, wait: bool = True, port: int = 0, workers: int = 1
) -> Iterator[str]:
    """The address of a prediction service: a real process, over the store."""
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "recommender.service", f"--store={store}", f"--port={port}", f"--poll-s={poll_s}"]
    command.append(f"--workers={workers}")
    with log.open("wb") as output, Child("service", command, stdout=output, stderr=output, cwd=ROOT) as child:
        until_answered(f"{url}/health/{'ready' if wait else 'live'}", child, log)
        yield url


def until_answered(url: str, child: Child, log: Path) -> Any:
    """The first good answer of a process that is starting."""
    deadline = time.monotonic() + START_S
    while True:
        try:
            response = requests.get(url, timeout=5)
            if response.status_code == 200:
                return response.json()
        except requests.ConnectionError:
            pass
        assert child.code is None, f"it ended with {child.code}:\n{log.read_text()}"
        assert time.monotonic() < deadline, f"it does not answer:\n{log.read_text()}"
        time.sleep(0.05)
