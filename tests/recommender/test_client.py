"""The client: in process, and over real sockets to a real service that is slow, broken, or gone."""

from __future__ import annotations

import logging
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import pytest
import structlog

from bookapi.serving import free_port
from recommender.breaker import Breaker
from recommender.client import Answer, InProcess, OverHTTP, Recommender, RecommenderUnavailable, forget, recommender
from recommender.engine.artifact import Store
from recommender.engine.errors import UnknownBook
from recommender.service.questions import Question, Text
from tests.recommender import faults
from tests.recommender.faults import FaultyProxy
from tests.recommender.trained import corpus_of, prediction_service, publish

DEADLINE_S = 0.4
#: What a machine that does much else may take on top: far less than a peer that hangs or drips would.
PATIENCE_S = 5.0


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(str(tmp_path_factory.mktemp("store")))
    publish(store, corpus_of())
    return store


@pytest.fixture(scope="module")
def service(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a prediction service."""
    folder = tmp_path_factory.mktemp("service")
    with prediction_service(store.url, folder / "log") as url:
        yield int(url.rpartition(":")[2])


@pytest.fixture
def proxy(service: int) -> Iterator[FaultyProxy]:
    with FaultyProxy(service) as proxy:
        yield proxy


def over_http(url: str, failures: int = 1000, pause_s: float = 60.0) -> OverHTTP:
    return OverHTTP(url, Breaker(failures, pause_s), DEADLINE_S, fresh_s=0.0)


@pytest.fixture
def client(proxy: FaultyProxy) -> Iterator[OverHTTP]:
    client = over_http(proxy.url)
    yield client
    client.close()


BOOK = Question(book=1)


def ask(client: Recommender, question: Question = BOOK, seconds: float = DEADLINE_S) -> Answer:
    return client.ask(question, time.monotonic() + seconds)


def patiently(client: Recommender, question: Question = BOOK) -> Answer:
    """Asked with all the time in the world, where a test is not about time."""
    return ask(client, question, 30.0)


# --- Both ways --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "question",
    [
        Question(book=1, k=5),
        Question(upc="upc000007", k=5),
        Question(books=[1, 2, 3], k=5, exclude=[4], diversity=0.5),
        Question(book=2, k=3, allow=[10, 20, 30, 40]),
        Question(text=Text(title="The Detective", description="murder, clue and alibi", authors=("Author 3",)), k=5),
    ],
)
def test_the_service_answers_what_the_engine_in_process_answers(
    store: Store, client: OverHTTP, question: Question
) -> None:
    here = InProcess(store.url, 30.0, poll_s=60.0)
    try:
        one, other = patiently(here, question), patiently(client, question)
    finally:
        here.close()
    assert one.version == other.version == store.champion()
    assert [n.id for n in one.neighbors] == [n.id for n in other.neighbors]
    assert [n.reasons for n in one.neighbors] == [n.reasons for n in other.neighbors]
    assert [n.score for n in one.neighbors] == pytest.approx([n.score for n in other.neighbors], abs=1e-4)
    assert len(one.neighbors) == question.k


def test_a_book_that_the_model_does_not_know_is_told_from_a_service_that_is_not_there(
    store: Store, client: OverHTTP
) -> None:
    with pytest.raises(UnknownBook):
        patiently(client, Question(book=999_999))
    here = InProcess(store.url, 30.0, poll_s=60.0)
    with pytest.raises(UnknownBook):
        patiently(here, Question(book=999_999))
    here.close()


def test_without_a_model_there_is_no_answer(tmp_path: Path) -> None:
    here = InProcess(str(tmp_path), 30.0, poll_s=60.0)
    assert here.version() is None
    with pytest.raises(RecommenderUnavailable, match="no model"):
        patiently(here)
    here.close()


def test_both_tell_the_version_that_is_served(store: Store, client: OverHTTP) -> None:
    here = InProcess(store.url, 30.0, poll_s=60.0)
    assert client.version() == here.version() == store.champion()
    here.close()


def test_the_settings_say_which_one_a_process_has(settings: pytest.FixtureRequest, store: Store) -> None:
    settings.ARTIFACT_STORE = store.url
    settings.RECOMMENDER_URL = ""
    assert isinstance(recommender(), InProcess)
    assert recommender() is recommender()
    settings.RECOMMENDER_URL = "http://127.0.0.1:9"
    assert isinstance(recommender(), OverHTTP)
    forget()


def test_many_threads_that_ask_first_make_one_recommender(settings: pytest.FixtureRequest, store: Store) -> None:
    settings.ARTIFACT_STORE = store.url
    settings.RECOMMENDER_URL = ""
    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(lambda _: recommender(), range(64)))) == 1
    forget()


# --- Faults -----------------------------------------------------------------------------------------------------------
def changed(pattern: bytes, replacement: bytes) -> faults.Fault:
    """The service's answer with something else in one place."""
    return faults.rewritten(lambda content: re.sub(pattern, replacement, content, count=1))


FAULTS = {
    "silent": faults.silent,
    "hangs up": faults.hang_up,
    "cut in the head": faults.cut_in_the_head,
    "cut in the body": faults.cut_in_the_body,
    "drips": faults.drip,
    "drips a head without end": faults.drip_a_head_without_end,
    "no HTTP": lambda handler, _: handler.wfile.write(b"\x00\xff garbage\r\n\r\n"),
    "error 500": faults.says(b"{}", 500),
    "error 503": faults.says(b"{}", 503, "application/problem+json"),
    "elsewhere's 404": faults.says(b"<h1>Not here</h1>", 404, "text/html"),
    "a problem that is none": faults.says(b"[]", 404, "application/problem+json"),
    "redirect": faults.says(b"", 302),
    "garbage": faults.says(b"<html>login</html>"),
    "half JSON": faults.says(b'{"model": {"version": "1"}, "results": ['),
    "another JSON": faults.says(b'{"answer": 42}'),
    "a list": faults.says(b"[1, 2]"),
    "results that are none": faults.says(b'{"model": {"version": "1"}, "results": [null]}'),
    "no version": changed(rb'"version":"[^"]*"', b'"version":""'),
    "a version that is none": changed(rb'"version":"[^"]*"', b'"version":7'),
    "a score that is none": changed(rb'"score":[0-9.]+', b'"score":"high"'),
    "a score beyond 1": changed(rb'"score":[0-9.]+', b'"score":1.5'),
    "an id that is none": changed(rb'"id":[0-9]+', b'"id":"7"'),
    "the same twice": faults.rewritten(lambda content: content.replace(b'"results":[', b'"results":[' + TWICE)),
    "what was excluded": changed(rb'"id":[0-9]+', b'"id":200'),
    "what was not allowed": changed(rb'"id":[0-9]+', b'"id":199'),
    "too much": faults.rewritten(lambda content: content + b" " * (9 * 1024 * 1024)),
}
TWICE = b'{"id":7,"upc":"upc000007","score":1.0,"reasons":[]},{"id":7,"upc":"upc000007","score":1.0,"reasons":[]},'
QUESTION = Question(book=1, k=10, exclude=[200], allow=list(range(2, 199)))


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_goes_wrong_is_told_within_the_deadline_and_over_when_the_fault_is(
    proxy: FaultyProxy, client: OverHTTP, fault: str
) -> None:
    proxy.fault = FAULTS[fault]
    begun = time.monotonic()
    with pytest.raises(RecommenderUnavailable):
        ask(client, QUESTION)
    assert time.monotonic() - begun < PATIENCE_S

    proxy.fault = faults.in_order
    assert len(patiently(client, QUESTION).neighbors) == 10


@pytest.mark.parametrize("fault", ["silent", "drips", "drips a head without end"])
def test_a_service_that_is_slow_in_any_way_takes_no_more_than_the_deadline(
    proxy: FaultyProxy, client: OverHTTP, fault: str
) -> None:
    """Of several tries the quickest: what a busy machine adds is not the client's."""
    proxy.fault = FAULTS[fault]
    took = []
    for _ in range(3):
        begun = time.monotonic()
        with pytest.raises(RecommenderUnavailable):
            ask(client)
        took.append(time.monotonic() - begun)
    assert DEADLINE_S * 0.9 < min(took) < PATIENCE_S / 2


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """Of 127.0.0.1, by an authority that this process trusts."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key, path = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=test"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, key)
    return context


def test_over_tls_answers_and_deadlines_are_the_same(service: int, certificate: ssl.SSLContext) -> None:
    with FaultyProxy(service, certificate) as proxy:
        client = over_http(proxy.url)
        assert patiently(client).neighbors
        for fault in ("drips", "drips a head without end", "silent"):
            proxy.fault = FAULTS[fault]
            begun = time.monotonic()
            with pytest.raises(RecommenderUnavailable):
                ask(client)
            assert time.monotonic() - begun < PATIENCE_S
        proxy.fault = faults.in_order
        assert patiently(client).neighbors
        client.close()


def test_a_service_that_cannot_prove_its_name_is_not_asked(
    service: int, certificate: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with FaultyProxy(service, certificate) as proxy:
        client = over_http(proxy.url)
        with pytest.raises(RecommenderUnavailable, match="certificate verify failed"):
            patiently(client)
        assert proxy.requests == 0
        client.close()


def test_nobody_listens() -> None:
    client = over_http(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(RecommenderUnavailable, match="refused"):
        ask(client)
    assert client.version() is None
    client.close()


def test_a_long_question_is_asked_in_full(client: OverHTTP) -> None:
    assert len(patiently(client, Question(book=1, allow=range(1, 1_500_000))).neighbors) == 10


def test_a_service_that_takes_no_more_of_a_long_question_takes_no_more_than_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # the kernel takes connections, and what fits its buffers
        client = over_http(f"http://127.0.0.1:{deaf.getsockname()[1]}")
        begun = time.monotonic()
        with pytest.raises(RecommenderUnavailable):
            ask(client, Question(book=1, allow=range(2_000_000)))
        assert time.monotonic() - begun < PATIENCE_S
        client.close()


@pytest.mark.parametrize("fault", ["hangs up", "cut in the body", "error 500", "garbage", "silent"])
def test_one_failure_is_tried_again_on_another_connection(proxy: FaultyProxy, client: OverHTTP, fault: str) -> None:
    patiently(client)  # a connection is kept
    proxy.fault = faults.once(FAULTS[fault])
    assert ask(client, QUESTION, seconds=2.0).neighbors
    assert proxy.requests == 3


def test_it_is_tried_again_only_once(proxy: FaultyProxy, client: OverHTTP) -> None:
    proxy.fault = FAULTS["error 500"]
    with pytest.raises(RecommenderUnavailable, match="500"):
        patiently(client)
    assert proxy.requests == 2


def test_a_question_whose_time_has_gone_is_not_asked(proxy: FaultyProxy, client: OverHTTP) -> None:
    with pytest.raises(RecommenderUnavailable, match="no time"):
        ask(client, seconds=0.0)
    assert proxy.requests == 0


def test_a_service_that_keeps_failing_is_left_alone_and_tried_again_after_a_pause(proxy: FaultyProxy) -> None:
    now = [0.0]
    client = OverHTTP(proxy.url, Breaker(3, 5.0, clock=lambda: now[0]), DEADLINE_S, fresh_s=0.0)
    proxy.fault = FAULTS["error 500"]
    for _ in range(10):
        with pytest.raises(RecommenderUnavailable):
            patiently(client)
    assert proxy.requests == 3 * 2
    with pytest.raises(RecommenderUnavailable, match="circuit"):
        patiently(client)

    proxy.fault = faults.in_order
    now[0] = 6.0
    for _ in range(3):
        assert patiently(client).neighbors
    client.close()


def test_unknown_books_do_not_open_the_circuit(proxy: FaultyProxy) -> None:
    client = over_http(proxy.url, failures=1)
    for _ in range(3):
        with pytest.raises(UnknownBook):
            patiently(client, Question(book=999_999))
    assert patiently(client).neighbors
    client.close()


@pytest.mark.parametrize("question", [Question(book=1, k=5000), Question(book=1, exclude=[0])])
def test_a_question_that_is_refused_is_not_tried_again_and_does_not_open_the_circuit(
    proxy: FaultyProxy, question: Question, caplog: pytest.LogCaptureFixture
) -> None:
    client = over_http(proxy.url, failures=1)
    with pytest.raises(RecommenderUnavailable):
        patiently(client, question)
    assert proxy.requests == 1
    assert "question refused" in caplog.text
    assert patiently(client).neighbors
    client.close()


def test_the_request_id_of_the_api_goes_on_to_the_service(proxy: FaultyProxy, client: OverHTTP) -> None:
    seen: list[str | None] = []

    def look(handler: faults.Handler, body: bytes) -> None:
        seen.append(handler.headers["X-Request-ID"])
        faults.in_order(handler, body)

    proxy.fault = look
    with structlog.contextvars.bound_contextvars(request_id="abc"):
        patiently(client)
    patiently(client)
    assert seen == ["abc", None]


def test_the_log_says_once_that_it_went_and_once_that_it_is_back(
    proxy: FaultyProxy, client: OverHTTP, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="recommender.client")
    for fault in ("garbage", "error 500", "hangs up"):
        proxy.fault = FAULTS[fault]
        with pytest.raises(RecommenderUnavailable):
            patiently(client)
    proxy.fault = faults.in_order
    for _ in range(3):
        patiently(client)
    assert [record.getMessage() for record in caplog.records] == ["recommender is unavailable", "recommender is back"]
    assert "not the answer of a prediction service" in vars(caplog.records[0])["trouble"]


def test_connections_are_kept_and_shared_by_threads(proxy: FaultyProxy, client: OverHTTP) -> None:
    barrier = threading.Barrier(8)

    def work(_: int) -> int:
        barrier.wait()
        return sum(len(patiently(client, Question(book=book, k=3)).neighbors) for book in range(1, 11))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [30] * 8
    assert proxy.requests == 80


def test_a_version_is_believed_for_a_while(proxy: FaultyProxy) -> None:
    client = OverHTTP(proxy.url, Breaker(5, 5.0), DEADLINE_S, fresh_s=60.0)
    told = patiently(client).version
    assert [client.version() for _ in range(3)] == [told] * 3
    assert proxy.requests == 1
    client.close()


def test_what_is_sent_is_what_the_service_documents(proxy: FaultyProxy, client: OverHTTP) -> None:
    seen: list[bytes] = []

    def look(handler: faults.Handler, body: bytes) -> None:
        seen.append(body)
        faults.in_order(handler, body)

    proxy.fault = look
    text = Text(title="T", description="d", category="Poetry", authors=("A",), price=9.5)
    patiently(client, Question(text=text, k=3, exclude=[1], diversity=0.25))
    assert orjson.loads(seen[0]) == {
        "text": {"title": "T", "description": "d", "category": "Poetry", "authors": ["A"], "price": 9.5},
        "k": 3,
        "exclude": [1],
        "diversity": 0.25,
    }
