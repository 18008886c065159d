"""One model replaces another under load: real service, real API, clients that never pause."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import requests

from bookapi.processes import Child
from bookapi.serving import free_port, server_command
from recommender.engine.artifact import Store
from recommender.engine.corpus import Corpus
from recommender.engine.engine import Engine
from recommender.engine.recipes import recipe
from tests.crawler.deployment import copy_sqlite
from tests.recommender.trained import ROOT, corpus_of, prediction_service, until_answered

pytestmark = pytest.mark.system

#: And the answers that every kind of client gets between two of them, so that each falls into load.
PROMOTIONS, ROLLBACKS, ANSWERS = 4, 1, 10
if os.environ.get("SWAPS") == "all":
    PROMOTIONS, ROLLBACKS, ANSWERS = 20, 5, 50
BOOKS = 60
K = 10
PATIENCE_S = 60.0


# --- A catalogue, and models of it that disagree ----------------------------------------------------------------------
def command(environment: dict[str, str], *arguments: str) -> None:
    ended = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def write_catalogue(path: Path, corpus: Corpus) -> None:
    """The corpus as a file to ingest; every book in stock, so that the model's choice is the API's."""
    lines = [
        orjson.dumps(
            {
                "upc": corpus.upcs[i],
                "title": corpus.titles[i],
                "description": corpus.descriptions[i],
                "category": corpus.categories[i],
                "price": "10.00",
                "currency": "GBP",
                "rating": "3",
                "stock": "5",
            }
        )
        for i in range(len(corpus))
    ]
    path.write_bytes(b"\n".join(lines))


def disagreeing(corpus: Corpus) -> list[Engine]:
    """Two engines of the same books. The second takes each book for the next one, so that hardly an answer is alike."""
    ahead = np.roll(np.arange(len(corpus)), 1)
    mistaken = replace(
        corpus,
        titles=[corpus.titles[i] for i in ahead],
        descriptions=[corpus.descriptions[i] for i in ahead],
        categories=[corpus.categories[i] for i in ahead],
    )
    return [Engine.train(books, recipe("s")) for books in (corpus, mistaken)]


@dataclass
class Models:
    """Versions in a store, and what each has to answer."""

    store: Store
    engines: list[Engine]
    expected: dict[str, dict[int, list[int]]] = field(default_factory=dict)  # version -> book -> ids

    def __post_init__(self) -> None:
        self._answers = [
            {int(book): [n.id for n in engine.similar(int(book), K)] for book in engine.ids} for engine in self.engines
        ]
        assert all(self._answers[0][book] != self._answers[1][book] for book in self._answers[0])

    def publish(self) -> str:
        which = len(self.expected) % 2
        version = self.store.publish(self.engines[which], revision=1, metrics={})
        self.expected[version] = self._answers[which]
        return version


# --- Clients that never pause -----------------------------------------------------------------------------------------
Ask = Callable[[requests.Session, int], None]


class Load:
    """Threads that ask without a pause, and what went wrong."""

    def __init__(self, models: Models) -> None:
        self.models = models
        self.wrong: list[str] = []
        self.answers: Counter[str] = Counter()  # by kind of client
        self.versions: Counter[str] = Counter()
        self.tagged: dict[tuple[int, str], bytes] = {}  # by book and tag
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def start(self, kind: str, ask: Ask) -> None:
        thread = threading.Thread(target=self._work, args=(kind, ask), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self, kind: str, ask: Ask) -> None:
        books = list(self.models.engines[0].ids)
        with requests.Session() as session:
            for turn in range(1_000_000_000):
                if self._over.is_set():
                    return
                try:
                    ask(session, int(books[turn % len(books)]))
                except Exception as error:
                    self.wrong.append(f"{kind}: {error!r}")
                with self._lock:
                    self.answers[kind] += 1

    def is_right(self, book: int, version: str, ids: list[int]) -> None:
        """All results of an answer are those of the version that it names."""
        if ids != self.models.expected[version][book]:
            others = [other for other, answers in self.models.expected.items() if answers[book] == ids]
            raise AssertionError(f"{version} did not answer {ids} for {book}, but {others or 'nobody'} did")
        with self._lock:
            self.versions[version] += 1

    def is_same(self, book: int, tag: str, content: bytes) -> None:
        with self._lock:
            known = self.tagged.setdefault((book, tag), content)
        assert known == content, f"two answers for {book} have the tag {tag}"

    def go_on(self, answers: int) -> None:
        """Return when every kind of client has had so many more answers."""
        with self._lock:
            goal = {kind: number + answers for kind, number in self.answers.items()}
        deadline = time.monotonic() + PATIENCE_S
        while any(self.answers[kind] < number for kind, number in goal.items()):
            assert time.monotonic() < deadline, f"clients are stuck: {self.answers}, {self.wrong[:3]}"
            time.sleep(0.01)

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)


def good(response: requests.Response) -> Any:
    assert response.status_code == 200, f"{response.status_code} {response.text[:200]}"
    return response.json()


def start_predicting(load: Load, service: str) -> None:
    def one(session: requests.Session, book: int) -> None:
        body = good(session.post(f"{service}/predict", json={"book": book, "k": K}, timeout=20))
        load.is_right(book, body["model"]["version"], [result["id"] for result in body["results"]])

    def batch(session: requests.Session, _: int) -> None:
        """Of every book: long enough that most swaps come into one."""
        queries = [{"book": int(book), "k": K} for book in load.models.engines[0].ids]
        body = good(session.post(f"{service}/predict", json={"queries": queries}, timeout=20))
        for query, answer in zip(queries, body["answers"], strict=True):
            load.is_right(query["book"], body["model"]["version"], [result["id"] for result in answer["results"]])

    load.start("predict", one)
    load.start("predict", one)
    load.start("batch", batch)


def start_reading(load: Load, api: str) -> None:
    def check(book: int, body: Any) -> None:
        assert body["source"] == "model"
        load.is_right(book, body["model"]["version"], [result["book"]["id"] for result in body["results"]])

    def read(session: requests.Session, book: int) -> None:
        response = session.get(f"{api}/books/{book}/recommendations", timeout=20)
        check(book, good(response))
        load.is_same(book, response.headers["ETag"], response.content)

    def read_again(session: requests.Session, book: int) -> None:
        """With the tag of the last time: 304, or another answer with another tag."""
        address = f"{api}/books/{book}/recommendations"
        tag = session.headers.pop(f"X-{book}", "")
        response = session.get(address, headers={"If-None-Match": tag}, timeout=20)
        if response.status_code == 304:
            assert response.headers["ETag"] == tag
        else:
            check(book, good(response))
            assert response.headers["ETag"] != tag
            load.is_same(book, response.headers["ETag"], response.content)
        session.headers[f"X-{book}"] = response.headers["ETag"]

    def question(session: requests.Session, book: int) -> None:
        check(book, good(session.post(f"{api}/recommendations", json={"books": [book], "limit": K}, timeout=20)))

    load.start("recommendations", read)
    load.start("recommendations, again", read_again)
    load.start("question", question)


# --- The processes ----------------------------------------------------------------------------------------------------
@dataclass
class Product:
    models: Models
    service: str
    api: str


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the books."""
    folder = tmp_path_factory.mktemp("catalogue")
    database = folder / "catalogue.sqlite3"
    environment = {"VAR_DIR": str(folder), "DATABASE_URL": f"sqlite:///{database}"}
    write_catalogue(folder / "books.jsonl", corpus_of(BOOKS))
    command(environment, "migrate", "--verbosity=0")
    command(environment, "ingest", str(folder / "books.jsonl"), "--shop=library")
    return database


@pytest.fixture(params=["over HTTP", "in process"])
def product(request: pytest.FixtureRequest, catalogue: Path, tmp_path: Path) -> Iterator[Product]:
    """A served catalogue with a first champion; the API asks the service, or has the model itself."""
    store, database = Store(str(tmp_path / "store")), tmp_path / "catalogue.sqlite3"
    copy_sqlite(catalogue, database)
    environment = {
        "VAR_DIR": str(tmp_path / "var"),
        "DATABASE_URL": f"sqlite:///{database}",
        "PUBLIC_READ": "true",
        "RATE_LIMIT_ADDRESS": "off",
        "ARTIFACT_STORE": store.url,
        "ARTIFACT_POLL_S": "0.1",
        "RECOMMENDER_DEADLINE_S": "20",
    }
    with ExitStack() as running:
        port, log = free_port(), tmp_path / "api.log"
        api = f"http://127.0.0.1:{port}/api/v1"
        models = Models(store, disagreeing(corpus_of(BOOKS)))
        store.set_champion(models.publish())
        service = running.enter_context(prediction_service(store.url, tmp_path / "service.log"))
        if request.param == "over HTTP":
            environment["RECOMMENDER_URL"] = service
        output = running.enter_context(log.open("wb"))
        child = running.enter_context(
            Child("api", server_command("127.0.0.1", port), environment=environment, stdout=output, stderr=output)
        )
        books = until_answered(f"{api}/books?page_size=all&fields=id,upc", child, log)["results"]
        assert [(book["id"], book["upc"]) for book in books] == list(
            zip(models.engines[0].ids.tolist(), corpus_of(BOOKS).upcs, strict=True)
        )
        yield Product(models, service, api)


def test_models_are_promoted_and_rolled_back_under_load_without_one_failed_or_mixed_answer(product: Product) -> None:
    models, load = product.models, Load(product.models)
    history = [models.store.champion()]
    start_predicting(load, product.service)
    start_reading(load, product.api)
    took = []
    try:
        load.go_on(ANSWERS)
        for step in range(PROMOTIONS + ROLLBACKS):
            # The rolls-back are spread over the promotions: each serves the version of before the last one again.
            back = (step + 1) % ((PROMOTIONS + ROLLBACKS) // ROLLBACKS) == 0
            version = history[-2] if back else models.publish()
            assert version is not None
            begun = time.monotonic()
            models.store.set_champion(version)
            history.append(version)
            seen = load.versions[version]
            while load.versions[version] == seen:  # until the first answer by it
                assert time.monotonic() - begun < PATIENCE_S, f"{version} is not served: {load.wrong[:3]}"
                time.sleep(0.005)
            took.append(time.monotonic() - begun)
            load.go_on(ANSWERS)
    finally:
        load.stop()
    print(f"{len(took)} swaps, each by {np.median(took):.2f} s, the slowest by {max(took):.2f} s; {dict(load.answers)}")
    assert not load.wrong, load.wrong[:5]
    assert len(history) == 1 + PROMOTIONS + ROLLBACKS
    assert all(load.versions[version] for version in models.expected)
