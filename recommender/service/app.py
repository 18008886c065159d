"""The application: `/predict`, and whether it can be asked."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST

from recommender.engine.artifact import Store
from recommender.engine.engine import Engine, Neighbor
from recommender.engine.errors import UnknownBook
from recommender.engine.serving import Serving
from recommender.service import metrics, problems, shapes
from recommender.service.logs import Requests
from recommender.service.problems import UNKNOWN_BOOK, Problem
from recommender.service.questions import answer

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": meaning, "content": {problems.MEDIA_TYPE: {"schema": shapes.Problem.model_json_schema()}}}
    for status, meaning in {
        400: "The question is not understood.",
        404: f"The model does not know the book (`{UNKNOWN_BOOK}`): send its text.",
        413: "The body is too large.",
        503: "There is no model yet.",
    }.items()
}


def create() -> FastAPI:
    """The application for the store that the environment names, for the server to call in each of its processes."""
    return application(os.environ["ARTIFACT_STORE"], float(os.environ["ARTIFACT_POLL_S"]))


def application(store: str, poll_s: float) -> FastAPI:
    """The application over a store, whose champion it looks for every `poll_s` seconds while it runs."""
    serving = Serving(Store(store), poll_s)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        serving.start()
        yield
        serving.close()

    app = FastAPI(title="Prediction service", lifespan=lifespan, docs_url=None, redoc_url=None)
    problems.install(app)

    def engine() -> Engine:
        """The engine of this moment. Asked once a request, so that no answer mixes two versions."""
        if (served := serving.engine()) is None:
            raise Problem(503, "There is no model yet.")
        return served

    # Not a coroutine: a search takes milliseconds, and those who ask for health need not wait for it.
    @app.post("/predict", response_model=None, responses={200: {"model": shapes.Answer | shapes.Answers}, **PROBLEMS})
    def predict(asked: shapes.Asked) -> Response:
        """Similar books for a book, a text or a basket; several of these in one batch, by one version."""
        served = engine()
        model = {"version": served.version}
        if isinstance(asked, shapes.Query):
            found = _answer(served, asked, "")
            if "error" in found:
                raise Problem(404, "The model does not know this book: send its text.", [found["error"]])
            return _json({"model": model, **found})
        # A book that one query names and the model does not know spoils that query alone.
        answers = [_answer(served, query, f"queries.{index}.") for index, query in enumerate(asked.queries)]
        return _json({"model": model, "answers": answers})

    @app.get("/health/live", response_model=shapes.Live)
    async def live() -> Response:
        """The process answers."""
        return _json({"status": "ok"})

    @app.get("/health/ready", response_model=shapes.Ready, responses={503: PROBLEMS[503]})
    async def ready() -> Response:
        """Which version is served."""
        served = engine()
        return _json({"status": "ok", "version": served.version, "n_books": len(served)})

    @app.get("/metrics", include_in_schema=False)
    def scrape() -> Response:
        """For Prometheus. Open, as the whole service is to the network that it is in."""
        return Response(metrics.exposition(serving.engine), media_type=CONTENT_TYPE_LATEST)

    app.add_middleware(Requests, observe=metrics.observe)
    return app


def _answer(engine: Engine, query: shapes.Query, path: str) -> dict[str, Any]:
    """The results of a query; or, where the model does not know its book, an error that names the field."""
    try:
        with metrics.question(query.about):
            return {"results": as_json(answer(engine, query.question()))}
    except UnknownBook as error:
        return {
            "error": {
                "field": path + ("upc" if query.upc is not None else "books" if query.books else "book"),
                "code": UNKNOWN_BOOK,
                "detail": str(error) or "Unknown to the model.",
            }
        }


def as_json(neighbors: Iterable[Neighbor]) -> list[dict[str, Any]]:
    return [
        {
            "id": neighbor.id,
            "upc": neighbor.upc,
            "score": round(float(neighbor.score), 4),
            "reasons": [{"kind": reason.kind, "detail": reason.detail} for reason in neighbor.reasons],
        }
        for neighbor in neighbors
    ]


def _json(body: dict[str, Any]) -> Response:
    return Response(orjson.dumps(body), media_type="application/json", headers={"Cache-Control": "no-store"})
