"""The prediction service: a real process over a store."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from recommender.engine.artifact import Store
from recommender.service.__main__ import main
from tests.recommender.trained import ROOT, corpus_of, prediction_service, publish


class Service:
    """A running service, and what it logs."""

    def __init__(self, url: str, store: Store, log: Path) -> None:
        self.url = url
        self.store = store
        self.log = log
        self.session = requests.Session()

    def predict(self, **body: Any) -> requests.Response:
        return self.session.post(f"{self.url}/predict", json=body, timeout=20)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    store = Store(str(folder / "store"))
    publish(store, corpus_of())
    with prediction_service(store.url, folder / "log") as url:
        service = Service(url, store, folder / "log")
        yield service
        service.session.close()


def results(response: requests.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["results"]
    return found


# --- Answers ----------------------------------------------------------------------------------------------------------
def test_an_answer_has_the_documented_shape(service: Service) -> None:
    answer = service.predict(book=1, k=3)
    assert answer.headers["Content-Type"] == "application/json"
    body = answer.json()
    assert set(body) == {"model", "results"}
    assert body["model"] == {"version": service.store.champion()}
    assert len(body["results"]) == 3
    for result in body["results"]:
        assert set(result) == {"id", "upc", "score", "reasons"}
        assert result["upc"] == f"upc{result['id']:06}"
        assert 0 <= result["score"] <= 1
        assert all(set(reason) == {"kind", "detail"} for reason in result["reasons"])
    scores = [result["score"] for result in body["results"]]
    assert scores == sorted(scores, reverse=True)
    assert body["results"][0]["reasons"]


def test_a_book_is_found_by_its_code_as_by_its_id(service: Service) -> None:
    assert results(service.predict(upc="upc000005")) == results(service.predict(book=5))


def test_a_text_finds_the_books_that_speak_of_it(service: Service) -> None:
    shelves = corpus_of().categories
    found = results(service.predict(text={"title": "The Suspect", "description": "murder, alibi and clue"}, k=10))
    assert [shelves[result["id"] - 1] for result in found] == ["Crime"] * 10


def test_a_basket_finds_others_than_itself(service: Service) -> None:
    found = results(service.predict(books=[1, 5, 9], k=20))
    assert len(found) == 20
    assert not {1, 5, 9} & {result["id"] for result in found}


def test_only_allowed_books_and_no_excluded_ones_and_as_many_as_there_are(service: Service) -> None:
    found = results(service.predict(book=1, k=10, allow=[2, 3, 50, 51, 9999], exclude=[3]))
    assert sorted(result["id"] for result in found) == [2, 50, 51]
    assert results(service.predict(book=1, allow=[])) == []
    assert len(results(service.predict(book=1, k=1000))) == 199


def test_the_answers_of_a_batch_are_those_of_its_queries_by_one_version(service: Service) -> None:
    queries = [{"book": 1, "k": 2}, {"upc": "upc000007"}, {"text": {"category": "Poetry"}, "k": 1}, {"books": [3, 4]}]
    body = service.predict(queries=queries).json()
    assert body["model"] == {"version": service.store.champion()}
    assert [answer["results"] for answer in body["answers"]] == [results(service.predict(**query)) for query in queries]


def test_a_book_that_the_model_does_not_know_spoils_its_own_question_alone(service: Service) -> None:
    queries = [{"book": 1, "k": 2}, {"book": 9999}, {"upc": "nowhere"}, {"books": [9998]}, {"book": 2, "k": 3}]
    answers = service.predict(queries=queries).json()["answers"]
    assert answers[0] == {"results": results(service.predict(**queries[0]))}
    assert answers[4] == {"results": results(service.predict(**queries[4]))}
    assert [(list(answer), answer["error"]["field"], answer["error"]["code"]) for answer in answers[1:4]] == [
        (["error"], "queries.1.book", "unknown_book"),
        (["error"], "queries.2.upc", "unknown_book"),
        (["error"], "queries.3.books", "unknown_book"),
    ]


# --- Refusals ---------------------------------------------------------------------------------------------------------
def is_problem(response: requests.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert set(body) == {"type", "title", "status", "detail", "request_id", "errors"}
    assert body["status"] == status
    assert body["request_id"] == response.headers["X-Request-ID"]
    return body


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, ""),
        ({"book": 1, "upc": "upc000001"}, ""),
        ({"book": 1, "text": {"title": "T"}}, ""),
        ({"book": 0}, "book"),
        ({"book": "1"}, "book"),
        ({"book": 1.0}, "book"),
        ({"book": True}, "book"),
        ({"book": 10**30}, "book"),
        ({"upc": ""}, "upc"),
        ({"text": {}}, "text"),
        ({"text": {"title": " "}}, "text"),
        ({"text": {"titel": "T"}}, "text.titel"),
        ({"text": {"authors": "One"}}, "text.authors"),
        ({"text": {"title": "T", "price": -1}}, "text.price"),
        ({"books": []}, "books"),
        ({"books": [1, "2"]}, "books.1"),
        ({"book": 1, "k": 0}, "k"),
        ({"book": 1, "k": 1001}, "k"),
        ({"book": 1, "k": "5"}, "k"),
        ({"book": 1, "diversity": 1.01}, "diversity"),
        ({"book": 1, "allow": [1, None]}, "allow.1"),
        ({"book": 1, "allow": 5}, "allow"),
        ({"book": 1, "exclude": [-1]}, "exclude.0"),
        ({"book": 1, "limit": 5}, "limit"),
        ({"queries": []}, "queries"),
        ({"queries": [{"book": 1}] * 101}, "queries"),
        ({"queries": [{"book": 1}, {"book": 1, "k": 0}]}, "queries.1.k"),
        ({"queries": [{"book": 1}], "k": 3}, "k"),
        ({"queries": [{"book": 1, "k": 1000}] * 10 + [{"book": 1, "k": 1}]}, "queries"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(service: Service, body: dict[str, Any], field: str) -> None:
    problem = is_problem(service.predict(**body), 400)
    assert [error["field"] for error in problem["errors"]] == [field]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"book"', b'{"book": NaN}', b"\xff\xfe", b'{"book": 1}x'])
def test_what_is_no_object_of_json_is_refused(service: Service, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    is_problem(service.session.post(f"{service.url}/predict", data=body, headers=headers, timeout=20), 400)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"book": 9999}, "book"),
        ({"upc": "nowhere"}, "upc"),
        ({"books": [9998, 9999]}, "books"),
    ],
)
def test_a_book_that_the_model_does_not_know_is_404_of_a_kind_of_its_own(
    service: Service, body: dict[str, Any], field: str
) -> None:
    problem = is_problem(service.predict(**body), 404)
    assert [(error["field"], error["code"]) for error in problem["errors"]] == [(field, "unknown_book")]


def test_a_body_that_is_too_large_is_refused_however_it_is_sent(service: Service) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(30):
            yield b" " * 1024 * 1024

    for body in (b"".join(pieces()), pieces()):
        try:
            is_problem(service.session.post(f"{service.url}/predict", data=body, timeout=20), 413)
        except requests.ConnectionError:  # it was still sending when the answer came
            refused = [line for line in service.lines() if line.get("status") == 413]
            assert refused


def test_other_addresses_and_methods_are_problems_too(service: Service) -> None:
    is_problem(service.session.get(f"{service.url}/nowhere", timeout=20), 404)
    answer = service.session.get(f"{service.url}/predict", timeout=20)
    is_problem(answer, 405)
    assert answer.headers["Allow"] == "POST"


# --- Health, logs, life -----------------------------------------------------------------------------------------------
def test_ready_tells_the_version_and_the_number_of_books(service: Service) -> None:
    ready = service.session.get(f"{service.url}/health/ready", timeout=20)
    assert ready.json() == {"status": "ok", "version": service.store.champion(), "n_books": 200}
    assert service.session.get(f"{service.url}/health/live", timeout=20).json() == {"status": "ok"}


def test_a_request_id_passes_through_into_the_log_and_a_harmful_one_does_not(service: Service) -> None:
    for given in ("abc-1.2_3", "", "a b", 'x"}\t{', "x" * 65):
        answer = service.session.get(f"{service.url}/health/live", headers={"X-Request-ID": given}, timeout=20)
        assert (answer.headers["X-Request-ID"] == given) == (given == "abc-1.2_3")
    said = [line for line in service.lines() if line.get("request_id") == "abc-1.2_3"]
    assert [(line["event"], line["path"], line["status"]) for line in said] == [("request", "/health/live", 200)]


def test_the_documentation_describes_both_bodies(service: Service) -> None:
    schema = service.session.get(f"{service.url}/openapi.json", timeout=20).json()
    body = schema["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert [option["$ref"] for option in body["oneOf"]] == ["#/components/schemas/Query", "#/components/schemas/Batch"]
    assert "#/$defs" not in json.dumps(schema)


#: What runs before the service in a process that has only what its requirements install.
ALONE = """
import sys
from importlib.metadata import packages_distributions

owners, installed = packages_distributions(), set(sys.argv[2:])

class Installed:
    def find_spec(self, name, path=None, target=None):
        names = {owner.lower().replace("_", "-") for owner in owners.get(name.partition(".")[0], ())}
        if names and not names & installed:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Installed())
import recommender.service.__main__
import recommender.service.app
from recommender.engine.artifact import Store
from recommender.service.__main__ import main
from recommender.service.questions import Question, Text, answer

store = Store(sys.argv[1])
engine = store.load(store.champion())
assert len(answer(engine, Question(text=Text(title="murder")))) == 10
print(*sys.modules)
"""


def test_it_needs_only_what_its_requirements_install_and_holds_nothing_else_of_the_project(service: Service) -> None:
    lines = (ROOT / "requirements" / "service.txt").read_text().splitlines()
    installed = {line.partition("==")[0].lower().replace("_", "-") for line in lines if line[:1].isalnum()}
    assert "fastapi" in installed
    assert "django" not in installed
    command = [sys.executable, "-c", ALONE, service.store.url, *installed]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stderr
    loaded = ended.stdout.split()
    others = {"django", "rest_framework", "scrapy", "twisted", "catalog", "bookapi", "crawler", "structlog"}
    assert not others & {name.partition(".")[0] for name in loaded}
    assert {name.split(".")[1] for name in loaded if name.startswith("recommender.")} == {"engine", "service"}


@pytest.mark.parametrize(
    ("store", "level", "told"),
    [
        ("models", "nonsense", "LOG_LEVEL is 'nonsense': choose from DEBUG, INFO, WARNING, ERROR"),
        ("foo://bar", "INFO", "--store: "),
    ],
)
def test_what_it_cannot_start_with_is_told_in_one_line(
    store: str, level: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOG_LEVEL", level)
    monkeypatch.setattr(sys, "argv", ["python -m recommender.service", "--store", store])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert told in lines[-1]
    assert "Traceback" not in "".join(lines)


@pytest.mark.parametrize(
    "option", ["--port=0", "--port=99999", "--port=x", "--workers=0", "--poll-s=0", "--poll-s=nan", "--poll-s=-1"]
)
def test_a_number_that_it_cannot_work_with_is_refused_by_the_name_of_its_option(
    option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["recommender.service", "--store=models", option])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert f"argument {option.partition('=')[0]}: " in capsys.readouterr().err


def test_before_there_is_a_model_it_lives_but_is_not_ready_and_a_promotion_makes_it_so(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    with prediction_service(store.url, tmp_path / "log", poll_s=0.05, wait=False) as url:
        is_problem(requests.get(f"{url}/health/ready", timeout=20), 503)
        is_problem(requests.post(f"{url}/predict", json={"book": 1}, timeout=20), 503)
        first = publish(store, corpus_of(60))
        assert served(url, first)["n_books"] == 60
        second = publish(store, corpus_of(80))
        assert served(url, second)["n_books"] == 80
        store.set_champion(first)
        assert served(url, first)["n_books"] == 60


def served(url: str, version: str) -> dict[str, Any]:
    """Readiness, as soon as it tells of this version."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        response = requests.get(f"{url}/health/ready", timeout=20)
        if response.status_code == 200 and response.json()["version"] == version:
            ready: dict[str, Any] = response.json()
            return ready
        time.sleep(0.02)
    raise AssertionError(f"{version} was not taken over")


def test_told_to_end_it_answers_what_it_has_begun(tmp_path: Path) -> None:
    """Clients ask without a pause while the signal comes: as many answers are logged as have arrived, and no other."""
    store = Store(str(tmp_path / "store"))
    publish(store, corpus_of())
    body = {"queries": [{"text": {"title": "murder"}, "k": 100}] * 20}
    arrived, refused = threading.Semaphore(0), []

    def work(url: str) -> int:
        """How many answers came until nobody was there any more."""
        with requests.Session() as session:
            for number in range(1_000_000):
                try:
                    response = session.post(f"{url}/predict", json=body, timeout=20)
                except requests.ConnectionError:
                    return number
                if response.status_code != 200 or len(response.json()["answers"]) != 20:
                    refused.append(response.text)
                arrived.release()
        raise AssertionError("it did not end")

    log = tmp_path / "log"
    with ThreadPoolExecutor(4) as pool:
        with prediction_service(store.url, log) as url:
            counts = [pool.submit(work, url) for _ in range(4)]
            for _ in range(8):
                assert arrived.acquire(timeout=60)
        answered = sum(count.result(60) for count in counts)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    statuses = [line["status"] for line in lines if line["event"] == "request" and line["path"] == "/predict"]
    assert statuses == [200] * answered
    assert not refused
    assert "shutdown completed" in lines[-1]["event"]


# --- Metrics ----------------------------------------------------------------------------------------------------------
def scraped(url: str) -> dict[str, float]:
    """Samples as they are written, labels and all."""
    text = requests.get(f"{url}/metrics", timeout=20).text
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[:1] != "#"}


def test_questions_are_counted_by_what_became_of_them_and_the_version_is_told(service: Service) -> None:
    before = scraped(service.url)
    service.predict(queries=[{"book": 1}, {"book": 2}, {"text": {"title": "murder"}}])
    service.predict(book=999_999)
    service.session.get(f"{service.url}/no/such/4711", timeout=20)
    after = scraped(service.url)

    def grown(sample: str) -> float:
        return after[sample] - before.get(sample, 0)

    assert grown('prediction_questions_total{about="book",outcome="answered"}') == 2
    assert grown('prediction_questions_total{about="text",outcome="answered"}') == 1
    assert grown('prediction_questions_total{about="book",outcome="unknown"}') == 1
    assert grown('prediction_question_duration_seconds_count{about="book"}') == 3
    assert grown('prediction_requests_total{route="/predict",status="404"}') == 1
    assert grown('prediction_requests_total{route="unmatched",status="404"}') == 1
    assert grown('prediction_request_duration_seconds_count{route="/predict"}') == 2
    assert after[f'prediction_model_info{{version="{service.store.champion()}"}}'] == 1
    assert after["prediction_model_loaded"] == 1
    assert after["prediction_model_books"] == 200
    assert not any("4711" in sample for sample in after)


def test_processes_of_the_service_are_counted_together(tmp_path: Path) -> None:
    """Each connection may meet another one of the two; both lists of numbers would be half of the truth."""
    with prediction_service(str(tmp_path / "store"), tmp_path / "log", wait=False, workers=2) as url:
        for _ in range(20):
            requests.get(f"{url}/health/ready", timeout=20)
        found = {scraped(url)['prediction_requests_total{route="/health/ready",status="503"}'] for _ in range(5)}
        assert found == {20}
        assert scraped(url)["prediction_model_loaded"] == 0
