"""Asks the recommender: in this process, or over HTTP where RECOMMENDER_URL is set."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import orjson
import structlog
from django.conf import settings
from prometheus_client import Gauge
from urllib3.exceptions import HTTPError

from recommender.breaker import Breaker, CircuitOpen
from recommender.connections import Connections
from recommender.engine.artifact import Store
from recommender.engine.engine import Engine, Neighbor, Reason
from recommender.engine.errors import UnknownBook
from recommender.engine.serving import Serving
from recommender.service.questions import Question, answer

logger = logging.getLogger(__name__)

T = TypeVar("T")

ANSWER_MAX = 8 * 1024 * 1024  # bytes; a thousand results have half a megabyte
VERSION_MAX = 100  # characters
UNKNOWN_BOOK = "unknown_book"  # the service's code for it
PROBLEM = "application/problem+json"
#: What is left of the time is divided by this at each try: a replica that hangs leaves half of it for another one.
SHARES = (2, 1)


#: Each process has a circuit of its own, and takes it with it when it dies.
CIRCUITS_OPEN = Gauge(
    "recommender_circuits_open",
    "Server processes that leave the prediction service alone for now.",
    multiprocess_mode="livesum",
)


class RecommenderUnavailable(Exception):
    """There is no recommender to ask; the message says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Neighbors, best first, all by one version of the model."""

    version: str
    neighbors: list[Neighbor]


class Recommender(Protocol):
    def ask(self, question: Question, by: float) -> Answer:
        """The answer, or an error, by the moment `by` of `time.monotonic()`.

        Raises:
            UnknownBook: the model does not know the book: send its text.
            RecommenderUnavailable: everything else that can go wrong.
        """

    def version(self) -> str | None:
        """Of the model that is served; None where there is none, or nobody to ask."""

    def close(self) -> None: ...


# --- The recommender of this process ----------------------------------------------------------------------------------
_made: dict[tuple[Any, ...], Recommender] = {}
_making = threading.Lock()


def recommender() -> Recommender:
    """As the settings say; made on first use, since a server may fork after it has read them."""
    key = (settings.RECOMMENDER_URL, settings.ARTIFACT_STORE)
    if (made := _made.get(key)) is None:
        with _making:
            if (made := _made.get(key)) is None:
                made = _made[key] = _new()
    return made


def _new() -> Recommender:
    if not settings.RECOMMENDER_URL:
        return InProcess(settings.ARTIFACT_STORE, settings.RECOMMENDER_DEADLINE_S, settings.ARTIFACT_POLL_S)
    breaker = Breaker(settings.RECOMMENDER_FAILURES, settings.RECOMMENDER_PAUSE_S)
    return OverHTTP(settings.RECOMMENDER_URL, breaker, settings.RECOMMENDER_DEADLINE_S, settings.ARTIFACT_POLL_S)


def forget() -> None:
    """Close what was made: for tests, each of which has settings of its own."""
    with _making:
        while _made:
            _made.popitem()[1].close()


# --- In process -------------------------------------------------------------------------------------------------------
class InProcess:
    """The champion of the artifact store, in memory here."""

    def __init__(self, store: str, deadline_s: float, poll_s: float) -> None:
        self._deadline_s = deadline_s
        self._serving: Serving | None = None
        self._looked = threading.Event()  # whether a model that was there at the start has been loaded
        threading.Thread(target=self._begin, args=(store, poll_s), name="recommender-start", daemon=True).start()

    def _begin(self, store: str, poll_s: float) -> None:
        try:
            self._serving = Serving(Store(store), poll_s)
            self._serving.refresh()
            self._serving.start()
        except Exception:  # an address that no library understands
            logger.exception("artifact store is unusable")
        finally:
            self._looked.set()

    def ask(self, question: Question, by: float) -> Answer:
        engine = self._engine(by - time.monotonic())
        if engine is None:
            raise RecommenderUnavailable("There is no model yet.")
        try:
            return Answer(engine.version, answer(engine, question))
        except UnknownBook:
            raise
        except Exception as error:
            # Whatever it is, the reader of the API gets other books, and we get the traceback.
            logger.exception("recommender failed", extra={"version": engine.version})
            raise RecommenderUnavailable(f"The model failed: {type(error).__name__}.") from error

    def _engine(self, seconds: float) -> Engine | None:
        self._looked.wait(max(0.0, seconds))
        return self._serving.engine() if self._serving else None

    def version(self) -> str | None:
        engine = self._engine(self._deadline_s)
        return engine.version if engine else None

    def close(self) -> None:
        self._looked.wait()
        if self._serving:
            self._serving.close()


# --- Over HTTP --------------------------------------------------------------------------------------------------------
class Unusable(Exception):
    """What came back is not an answer of a prediction service; the message says what it is."""


class Refused(Exception):
    """The service does not take this question, and would not take it again; others it may."""


class OverHTTP:
    """A prediction service, which may be slow, broken or gone: its callers never wait longer than they said."""

    def __init__(self, url: str, breaker: Breaker, deadline_s: float, fresh_s: float) -> None:
        self._connections = Connections(url)
        self._breaker = breaker
        self._deadline_s = deadline_s
        self._fresh_s = fresh_s  # for how long a version that was told is believed to be served
        self._lock = threading.Lock()
        self._told: tuple[float, str] = (-math.inf, "")  # when, and which version
        self._available = True

    def ask(self, question: Question, by: float) -> Answer:
        body = orjson.dumps(as_json(question))
        found = self._call("POST", "/predict", body, by, lambda *response: read_answer(question, *response))
        self._told = (time.monotonic(), found.version)
        return found

    def version(self) -> str | None:
        told_at, version = self._told
        if time.monotonic() - told_at < self._fresh_s:
            return version
        try:
            version = self._call("GET", "/health/ready", None, time.monotonic() + self._deadline_s, read_version)
        except RecommenderUnavailable:
            return None
        self._told = (time.monotonic(), version)
        return version

    def close(self) -> None:
        self._connections.close()

    def _call(self, method: str, path: str, body: bytes | None, by: float, read: Callable[[int, str, bytes], T]) -> T:
        """What `read` makes of the response. One retry, on another connection: a replica may have gone away.

        Raises:
            RecommenderUnavailable: no usable response by `by`, or not asked because the circuit is open.
        """
        if by <= time.monotonic():
            raise RecommenderUnavailable("There is no time left.")
        try:
            self._breaker.admit()
        except CircuitOpen:
            raise RecommenderUnavailable("The circuit is open: it failed too often a moment ago.") from None
        trouble = ""
        for share in SHARES:
            if (left := by - time.monotonic()) <= 0:
                break
            try:
                response = self._connections.request(
                    method, path, body=body, headers=_headers(), seconds=left / share, at_most=ANSWER_MAX
                )
                found = read(*response)
            except UnknownBook:
                self._succeeded()
                raise
            except Refused as error:  # a defect of ours, but no reason to leave the service alone
                self._succeeded()
                logger.error("question refused", extra={"trouble": str(error)})
                raise RecommenderUnavailable(str(error)) from error
            except (HTTPError, OSError, Unusable) as error:
                trouble = f"{type(error).__name__}: {error}"
                continue
            self._succeeded()
            return found
        self._failed(trouble)
        raise RecommenderUnavailable(trouble)

    def _succeeded(self) -> None:
        self._breaker.succeeded()
        if not self._available and self._turned(available=True):
            CIRCUITS_OPEN.set(0)
            logger.info("recommender is back")

    def _failed(self, trouble: str) -> None:
        opened = self._breaker.failed()
        if self._turned(available=False):
            logger.warning("recommender is unavailable", extra={"trouble": trouble})
        if opened:
            CIRCUITS_OPEN.set(1)
            logger.warning("recommender is left alone for a while", extra={"trouble": trouble})

    def _turned(self, *, available: bool) -> bool:
        """Whether that is news."""
        with self._lock:
            before, self._available = self._available, available
        return before != available


def _headers() -> dict[str, str]:
    headers = {"Content-Type": "application/json"}
    if request_id := structlog.contextvars.get_contextvars().get("request_id"):
        headers["X-Request-ID"] = request_id
    return headers


def as_json(question: Question) -> dict[str, Any]:
    """The body of `/predict`."""
    body: dict[str, Any] = {"k": question.k, "exclude": list(question.exclude), "diversity": question.diversity}
    if question.book is not None:
        body["book"] = question.book
    if question.upc is not None:
        body["upc"] = question.upc
    if question.text is not None:
        body["text"] = question.text
    if question.books:
        body["books"] = list(question.books)
    if question.allow is not None:
        body["allow"] = list(question.allow)
    return body


def read_version(status: int, _media_type: str, content: bytes) -> str:
    """Of `/health/ready`. Raises Unusable."""
    if status != 200:
        raise Unusable(f"The service answered {status}.")
    try:
        return _version(orjson.loads(content)["version"])
    except (ValueError, KeyError, TypeError) as error:
        raise Unusable("This is not the readiness of a prediction service.") from error


def read_answer(question: Question, status: int, media_type: str, content: bytes) -> Answer:
    """The answer to the question, checked: it goes on to our own clients.

    Raises:
        UnknownBook: the service says so.
        Refused: it does not understand the question, or finds it too long.
        Unusable: the response is anything but an answer to this question.
    """
    try:
        if status == 404 and media_type == PROBLEM and orjson.loads(content)["errors"][0]["code"] == UNKNOWN_BOOK:
            raise UnknownBook
        if status in {400, 413} and media_type == PROBLEM:
            raise Refused(orjson.loads(content)["detail"])
        if status != 200:
            raise Unusable(f"The service answered {status}.")
        body = orjson.loads(content)
        version = _version(body["model"]["version"])
        neighbors = [_neighbor(result) for result in body["results"]]
    except (ValueError, LookupError, TypeError) as error:
        raise Unusable("This is not the answer of a prediction service.") from error
    ids = {neighbor.id for neighbor in neighbors}
    if not len(ids) == len(neighbors) <= question.k or not ids.isdisjoint(question.exclude):
        raise Unusable("The service answered another question.")
    if question.allow is not None and not ids <= set(question.allow):
        raise Unusable("The service answered another question.")
    return Answer(version, neighbors)


def _version(value: Any) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= VERSION_MAX or not value.isascii():
        raise ValueError(value)
    return value


def _neighbor(result: Any) -> Neighbor:
    number, upc, score = result["id"], result["upc"], result["score"]
    reasons = tuple(Reason(reason["kind"], reason["detail"]) for reason in result["reasons"])
    texts = [upc, *(reason.kind for reason in reasons), *(reason.detail for reason in reasons)]
    if type(number) is not int or type(score) not in {int, float} or not 0 <= score <= 1:
        raise ValueError(result)
    if not all(isinstance(text, str) for text in texts):
        raise TypeError(result)
    return Neighbor(number, upc, score, reasons)
