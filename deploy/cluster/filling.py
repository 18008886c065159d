"""A cluster that is up is filled: a crawl through the queue, a training, and a recommendation through the gateway.

Started the way the schedule starts them: by a message to the upkeep worker. Needs Django, set up for the cluster.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any, TypeVar
from urllib.parse import urlsplit

from django.contrib.auth.models import User

from bookapi import tasks
from bookapi.quickstart import something_to_learn, sums
from bookapi.tokens import log_in, log_out
from catalog.models import Book, CrawlRun
from recommender.models import ModelVersion

#: Seconds between two looks at what goes on, and between two lines about it.
LOOK_S, REPORT_S = 0.5, 5.0
#: Seconds in which a worker that is ready takes what was sent to it.
TAKEN_S = 60.0
#: Seconds in which the prediction service finds a new model.
MODEL_S = 30.0

Say = Callable[[str], None]
Row = TypeVar("Row", CrawlRun, ModelVersion)


def fill(gateway: str, say: Say) -> None:
    """Crawl, train, and ask for a recommendation; what does not go well is told."""
    run = crawl(say)
    if run is None:
        return
    say(sums(run))
    if run.state != CrawlRun.State.FINISHED:
        say(f"The crawl is {run.state}: see the logs.")
    if something_to_learn():
        version = train(say)
        if version is None:
            return
        say(f"Recommender: {version.get_decision_display().lower()}, trained on {version.n_books} books.")
    if (book := Book.objects.listed().order_by("id").first()) is not None:
        say(_told(book, recommendation(gateway, book)))


def crawl(say: Say) -> CrawlRun | None:
    """The crawl of the configured shop, ended; None if nobody began one."""
    before = _newest(CrawlRun)
    tasks.start_crawl.apply_async(confirm_timeout=10)
    run = _began(lambda: CrawlRun.objects.filter(pk__gt=before).first())
    if run is None:
        say("Nobody began the crawl: see the log of upkeep-1.")
        return None
    told = time.monotonic()
    while run.state in {CrawlRun.State.RUNNING, CrawlRun.State.SETTLING}:
        time.sleep(LOOK_S)
        run.refresh_from_db()
        if time.monotonic() - told > REPORT_S:
            told = time.monotonic()
            say(f"Reading {run.shop}: {run.seen} of {run.announced or '?'} books")
    return run


def train(say: Say) -> ModelVersion | None:
    """The version that was trained and decided on; None if nobody trained."""
    before = _newest(ModelVersion)
    tasks.start_training.apply_async(confirm_timeout=10)
    version = _began(lambda: ModelVersion.objects.filter(pk__gt=before).first())
    if version is None:
        say("Nobody began the training: see the log of upkeep-1.")
        return None
    say("Training the recommender.")
    while not version.decision and version.state in {ModelVersion.State.TRAINING, ModelVersion.State.CANDIDATE}:
        time.sleep(LOOK_S)
        version.refresh_from_db()
    return version


def _newest(model: type[CrawlRun] | type[ModelVersion]) -> int:
    return model.objects.order_by("-pk").values_list("pk", flat=True).first() or 0


def _began(look: Callable[[], Row | None]) -> Row | None:
    deadline = time.monotonic() + TAKEN_S
    while (found := look()) is None and time.monotonic() < deadline:
        time.sleep(LOOK_S)
    return found


def recommendation(gateway: str, book: Book) -> dict[str, Any]:
    """The gateway's answer for a book, of the model if it comes in time. As whoever was here first."""
    account = User.objects.filter(is_active=True).order_by("pk").first()
    if account is None:
        return {}
    tokens = log_in(account)
    try:
        deadline = time.monotonic() + MODEL_S
        while True:
            found = _get(gateway, f"/api/v1/books/{book.pk}/recommendations?limit=3", tokens.access)
            if found.get("source") == "model" or time.monotonic() > deadline:
                return found
            time.sleep(LOOK_S)
    finally:
        log_out(tokens.refresh)


def _get(gateway: str, path: str, token: str) -> dict[str, Any]:
    """Straight to loopback, whatever proxies the environment names."""
    with closing(http.client.HTTPConnection(urlsplit(gateway).netloc, timeout=30)) as connection:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
        return answer


def _told(book: Book, found: dict[str, Any]) -> str:
    if not found.get("results"):
        return f"The gateway recommends nothing for {book.title!r}: {found}"
    titles = ", ".join(repr(each["book"]["title"]) for each in found["results"])
    by = f"model {found['model']['version']}" if found.get("model") else found["source"]
    return f"Readers of {book.title!r} may like {titles} (by {by})."
