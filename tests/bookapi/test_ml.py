"""Features, training data and predictions over HTTP."""

from __future__ import annotations

import csv
import io
import json
import threading
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import DjangoAssertNumQueries, Settings
from sklearn.preprocessing import StandardScaler

from bookapi.api.ml import PREDICTIONS_MAX
from bookapi.api.paging import forget_counts
from catalog.features import NUMBERS
from catalog.memo import forget_all
from catalog.models import Prediction
from tests.bookapi.clients import reader
from tests.factories import change_book, make_book, make_books

FEATURES, TRAINING, PREDICTIONS = "/api/v1/ml/features", "/api/v1/ml/training-data", "/api/v1/ml/predictions"
COLUMNS = [column.name for column in NUMBERS]
pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _forgetful() -> Iterator[None]:
    forget_all()
    forget_counts()
    yield
    forget_all()
    forget_counts()


@pytest.fixture
def client() -> Client:
    return reader()


def body_of(response: Any) -> bytes:
    return b"".join(response) if response.streaming else response.content


def read(client: Client, path: str, **query: Any) -> Any:
    response = client.get(path, query)
    body = body_of(response)
    assert response.status_code == 200, body
    return json.loads(body)


# --- Features and training data ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", [FEATURES, TRAINING, PREDICTIONS])
def test_reading_needs_an_account(path: str) -> None:
    assert Client().get(path).status_code == 401


def test_everything_loads_into_pandas_in_one_line(client: Client) -> None:
    books = make_books(30)
    frame = pd.DataFrame(read(client, FEATURES, page_size="all")["results"])
    assert list(frame["id"]) == [book.pk for book in books]
    assert list(frame["price"]) == [float(book.price) for book in books]
    assert set(frame["in_stock"]) == {0, 1}
    assert all(frame[column].dtype.kind in "if" for column in COLUMNS)


def test_standardized_features_are_those_of_scikit_learn(client: Client) -> None:
    make_books(60)
    raw = pd.DataFrame(read(client, FEATURES, page_size="all")["results"])[COLUMNS]
    ours = pd.DataFrame(read(client, FEATURES, page_size="all", scale="standard")["results"])[COLUMNS]
    np.testing.assert_allclose(ours, StandardScaler().fit_transform(raw.astype(float)), atol=1e-9)


def test_every_page_is_scaled_by_the_whole_filtered_set(client: Client) -> None:
    make_books(40)
    whole = read(client, FEATURES, page_size="all", scale="standard", min_rating="2")
    first = read(client, FEATURES, page_size="10", scale="standard", min_rating="2")
    assert first["count"] == whole["count"] == 32
    second = json.loads(body_of(client.get(first["next"])))
    assert [*first["results"], *second["results"]] == whole["results"][:20]


def test_scaling_follows_the_catalogue(client: Client) -> None:
    make_book(price="10.00")
    book = make_book(price="20.00")
    before = client.get(FEATURES, {"scale": "standard"})
    assert [row["price"] for row in before.json()["results"]] == [-1.0, 1.0]
    change_book(book, price=Decimal("10.00"))
    after = client.get(FEATURES, {"scale": "standard"}, headers={"If-None-Match": before["ETag"]})
    assert [row["price"] for row in after.json()["results"]] == [0.0, 0.0]


def test_training_data_are_flat_rows_of_text_and_numbers(client: Client) -> None:
    book = make_book(title="Être", authors=["A. B", "C"], category="Poésie", description="Ça.")
    assert read(client, TRAINING)["results"] == [
        {
            "id": book.pk,
            "shop": "test-shop",
            "upc": book.upc,
            "title": "Être",
            "authors": ["A. B", "C"],
            "description": "Ça.",
            "category": "Poésie",
            "category_slug": "poésie",
            "price": 51.5,
            "price_excl_tax": 51.5,
            "tax": 0.0,
            "currency": "GBP",
            "rating": 3,
            "stock": 7,
            "in_stock": True,
            "review_count": 0,
            "product_type": "Books",
        }
    ]
    assert b'"price":51.50,' in client.get(TRAINING).content


@pytest.mark.parametrize("path", [FEATURES, TRAINING])
def test_the_filters_of_books_apply(client: Client, path: str) -> None:
    make_books(20)
    found = read(client, path, min_price="15", in_stock="true", ordering="-price", page_size="all")["results"]
    prices = [row["price"] for row in found]
    assert prices == sorted(prices, reverse=True)
    assert min(prices) >= 15
    assert all(row["in_stock"] for row in found)
    wanted = make_book(title="A needle", description="in hay")
    assert [row["id"] for row in read(client, path, q="needle")["results"]] == [wanted.pk]


@pytest.mark.parametrize("path", [FEATURES, TRAINING])
@pytest.mark.parametrize(
    "query",
    [
        *("rating=4.5", "scal=standard", "ids=123456789012345678901234567890", "title=%ff", "min_price=9&max_price=8"),
        *(
            "format=csv&page=1",
            "format=parquet&page_size=all",
            "format=ndjson&page_size=5",
            "format=xls",
            "page_size=0",
        ),
    ],
)
def test_what_is_not_understood_is_refused(client: Client, path: str, query: str) -> None:
    assert client.get(f"{path}?{query}").status_code == 400


def test_an_unknown_scale_is_refused_and_the_known_ones_are_named(client: Client) -> None:
    response = client.get(FEATURES, {"scale": "minmax"})
    assert response.status_code == 400
    assert "standard" in response.json()["detail"]


@pytest.mark.parametrize(("path", "scale"), [(FEATURES, {}), (FEATURES, {"scale": "standard"}), (TRAINING, {})])
def test_files_hold_what_json_holds(client: Client, path: str, scale: dict[str, str]) -> None:
    make_books(25, authors=["One", "Two"])
    expected = read(client, path, page_size="all", **scale)["results"]
    lines = body_of(client.get(path, {"format": "ndjson", **scale})).splitlines()
    assert [json.loads(line) for line in lines] == expected
    parquet = pyarrow.parquet.read_table(io.BytesIO(body_of(client.get(path, {"format": "parquet", **scale}))))
    assert [
        {key: float(value) if isinstance(value, Decimal) else value for key, value in row.items()}
        for row in parquet.to_pylist()
    ] == expected
    text = body_of(client.get(path, {"format": "csv", **scale})).decode()
    cells = [*csv.DictReader(io.StringIO(text))]
    assert [float(row["price"]) for row in cells] == [row["price"] for row in expected]
    assert list(cells[0]) == list(expected[0])


@pytest.mark.parametrize("path", [FEATURES, TRAINING])
def test_csv_cells_that_a_spreadsheet_would_run_are_defused(client: Client, path: str) -> None:
    make_book(upc="=1+1", title="=cmd()")
    assert "'=1+1" in body_of(client.get(path, {"format": "csv"})).decode()


@pytest.mark.parametrize("path", [FEATURES, TRAINING])
def test_an_unchanged_catalogue_answers_304(client: Client, path: str) -> None:
    make_book()
    tag = client.get(path)["ETag"]
    assert client.get(path, headers={"If-None-Match": tag}).status_code == 304


@pytest.mark.parametrize("scale", ["raw", "standard"])
def test_an_empty_catalogue_has_no_features(client: Client, scale: str) -> None:
    assert read(client, FEATURES, scale=scale)["results"] == []
    assert read(client, FEATURES, scale=scale, page_size="all")["count"] == 0


@pytest.mark.parametrize("books", [2, 200])
def test_queries_are_the_same_for_any_number_of_books(
    client: Client, django_assert_num_queries: DjangoAssertNumQueries, books: int
) -> None:
    make_books(books)
    client.get("/api/v1/categories")  # the account is known now
    with django_assert_num_queries(3):  # revision, count, books
        read(client, FEATURES, page_size="1000")
    with django_assert_num_queries(2):  # revision, books: the count is known, by the filters, which are the same
        read(client, TRAINING, page_size="1000")
    with django_assert_num_queries(3):  # revision, what the scaler learns from, books
        read(client, FEATURES, page_size="1000", scale="standard")
    with django_assert_num_queries(2):  # revision, books
        body_of(client.get(FEATURES, {"format": "csv", "scale": "standard"}))


# --- Predictions ------------------------------------------------------------------------------------------------------
def send(client: Client, body: Any) -> Any:
    content = body if isinstance(body, (bytes, str)) else json.dumps(body)
    return client.post(PREDICTIONS, content, content_type="application/json")


def predictions(*entries: dict[str, Any], model: str = "tf-idf", version: str = "1") -> dict[str, Any]:
    return {"model": model, "model_version": version, "predictions": list(entries)}


def errors(response: Any) -> dict[str, str]:
    assert response.status_code == 400, response.content
    assert response["Content-Type"] == "application/problem+json"
    return {error["field"]: error["code"] for error in response.json()["errors"]}


def test_predictions_are_stored_and_read_back(client: Client) -> None:
    one, two = make_books(2)
    body = predictions({"book": one.pk, "score": 0.25, "why": {"words": ["sea"]}}, {"book": two.pk, "score": -3})
    response = send(client, body)
    assert response.status_code == 201
    assert response.json() == {"stored": 2}
    found = read(client, PREDICTIONS)
    assert found["count"] == 2
    first, second = found["results"]
    assert first.pop("created_at").endswith("Z")
    assert first.pop("id") < second["id"]
    assert first == {
        "model": "tf-idf",
        "model_version": "1",
        "book": one.pk,
        "score": 0.25,
        "extra": {"why": {"words": ["sea"]}},
    }
    assert second["score"] == -3.0
    assert second["extra"] == {}


def test_a_request_that_is_repeated_replaces_what_it_stored(client: Client) -> None:
    book = make_book()
    for score in (0.1, 0.9):
        assert send(client, predictions({"book": book.pk, "score": score})).status_code == 201
    assert send(client, predictions({"book": book.pk, "score": 0.5}, version="2")).status_code == 201
    assert [(row["model_version"], row["score"]) for row in read(client, PREDICTIONS)["results"]] == [
        ("1", 0.9),
        ("2", 0.5),
    ]


def test_accounts_neither_see_nor_replace_each_others_predictions(client: Client) -> None:
    book = make_book()
    other = reader("olga")
    send(client, predictions({"book": book.pk, "score": 0.1}))
    send(other, predictions({"book": book.pk, "score": 0.9}))
    assert [row["score"] for row in read(client, PREDICTIONS)["results"]] == [0.1]
    assert [row["score"] for row in read(other, PREDICTIONS)["results"]] == [0.9]


def test_without_an_account_there_are_no_predictions_even_where_reading_is_public(settings: Settings) -> None:
    settings.PUBLIC_READ = True
    assert Client().get(PREDICTIONS).status_code == 401
    assert Client().post(PREDICTIONS, "{}", content_type="application/json").status_code == 401


def test_predictions_are_filtered_and_paged(client: Client) -> None:
    books = make_books(5)
    for model in ("a", "b"):
        send(client, predictions(*({"book": book.pk, "score": 1} for book in books), model=model))
    first = read(client, PREDICTIONS, model="a", page_size="2")
    assert first["count"] == 5
    second = json.loads(client.get(first["next"]).content)
    assert [row["book"] for row in first["results"] + second["results"]] == [book.pk for book in books[:4]]
    assert read(client, PREDICTIONS, book=books[0].pk)["count"] == 2
    assert read(client, PREDICTIONS, model="a", model_version="9")["results"] == []
    assert read(client, PREDICTIONS, page_size="all")["count"] == 10
    lines = body_of(client.get(PREDICTIONS, {"format": "ndjson", "model": "b"})).splitlines()
    assert [json.loads(line)["model"] for line in lines] == ["b"] * 5
    table = pyarrow.parquet.read_table(io.BytesIO(body_of(client.get(PREDICTIONS, {"format": "parquet"}))))
    assert table.num_rows == 10


def test_one_bad_prediction_and_none_is_stored_and_each_error_is_named(client: Client) -> None:
    book, hidden = make_book(), make_book(hidden=True)
    response = send(
        client,
        predictions(
            {"book": book.pk, "score": 1},
            {"book": hidden.pk, "score": 1},
            {"book": 2**62, "score": 1},
        ),
    )
    assert errors(response) == {"predictions.1.book": "unknown", "predictions.2.book": "unknown"}
    assert str(2**62) in response.json()["detail"]
    assert not Prediction.objects.exists()


def test_a_book_that_left_the_shop_can_still_be_predicted(client: Client) -> None:
    assert send(client, predictions({"book": make_book(listed=False).pk, "score": 1})).status_code == 201


BAD_ENTRIES: list[tuple[Any, dict[str, str]]] = [
    (7, {"predictions.0": "invalid"}),
    ({}, {"predictions.0.book": "required", "predictions.0.score": "required"}),
    ({"book": "1", "score": 1}, {"predictions.0.book": "invalid"}),
    ({"book": True, "score": 1}, {"predictions.0.book": "invalid"}),
    ({"book": 1.0, "score": 1}, {"predictions.0.book": "invalid"}),
    ({"book": 0, "score": 1}, {"predictions.0.book": "invalid"}),
    ({"book": -1, "score": 1}, {"predictions.0.book": "invalid"}),
    ({"book": 2**63, "score": 1}, {"predictions.0.book": "invalid"}),
    ({"book": 10**30, "score": 1}, {"predictions.0.book": "invalid"}),
    ({"book": None, "score": 1}, {"predictions.0.book": "invalid"}),
    ({"book": 1, "score": "0.5"}, {"predictions.0.score": "invalid"}),
    ({"book": 1, "score": None}, {"predictions.0.score": "invalid"}),
    ({"book": 1, "score": False}, {"predictions.0.score": "invalid"}),
    ({"book": 1, "score": [1]}, {"predictions.0.score": "invalid"}),
    ({"book": 1, "score": 1, "x": "y" * 4001}, {"predictions.0": "too_large"}),
]


@pytest.mark.parametrize(("entry", "expected"), BAD_ENTRIES)
def test_a_bad_prediction_is_refused_with_its_reasons(client: Client, entry: Any, expected: dict[str, str]) -> None:
    assert errors(send(client, predictions(entry))) == expected


@pytest.mark.parametrize("deep", ["[" * 20 + "]" * 20, '{"a":' * 20 + "1" + "}" * 20, "[" * 900 + "]" * 900])
def test_fields_that_are_nested_too_deep_are_refused(client: Client, deep: str) -> None:
    text = f'{{"model":"m","model_version":"1","predictions":[{{"book":{make_book().pk},"score":1,"x":{deep}}}]}}'
    assert errors(send(client, text)) == {"predictions.0": "too_large"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"model": ""}, {"model": "invalid"}),
        ({"model": "  "}, {"model": "invalid"}),
        ({"model": "m" * 101}, {"model": "invalid"}),
        ({"model": "a\nb"}, {"model": "invalid"}),
        ({"model": 3}, {"model": "invalid"}),
        ({"model_version": None}, {"model_version": "invalid"}),
        ({"predictions": []}, {"predictions": "invalid"}),
        ({"predictions": {}}, {"predictions": "invalid"}),
        ({"modle": "x"}, {"modle": "unknown"}),
    ],
)
def test_a_bad_body_is_refused_with_its_reasons(
    client: Client, change: dict[str, Any], expected: dict[str, str]
) -> None:
    assert errors(send(client, {**predictions({"book": make_book().pk, "score": 1}), **change})) == expected


@pytest.mark.parametrize("name", ["model", "model_version", "predictions"])
def test_a_missing_field_is_required(client: Client, name: str) -> None:
    body = predictions({"book": make_book().pk, "score": 1})
    del body[name]
    assert errors(send(client, body)) == {name: "required"}


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "null", "[]", "7", '"x"', b"\xff\xfe", b'{"model":"\xff"}'),
        '{"model":"\\u0000","model_version":"1","predictions":[{"book":1,"score":1}]}',
        '{"model":"\\ud800","model_version":"1","predictions":[{"book":1,"score":1}]}',
        '{"model":"m","model_version":"1","predictions":[{"book":1,"score":NaN}]}',
        '{"model":"m","model_version":"1","predictions":[{"book":1,"score":Infinity}]}',
        '{"model":"m","model_version":"1","predictions":[{"book":1,"score":1e999}]}',
        '{"model":"m","model_version":"1","predictions":[{"book":1,"score":1,"x":"\\u0000"}]}',
        '{"model":"m","model_version":"1","predictions":[{"book":1,"score":1,"x\\u0000":1}]}',
        '{"model":"m","model_version":"1","predictions":[{"book":1,"score":1,"x":"\\udfff"}]}',
        "[" * 5000,
    ],
)
def test_a_body_that_is_not_right_json_is_refused(client: Client, text: bytes | str) -> None:
    errors(send(client, text))


@pytest.mark.parametrize("score", ["5e-324", "1.7976931348623157e308", "-1e-300", "123456789012345678901234567890"])
def test_any_finite_score_is_kept(client: Client, score: str) -> None:
    book = make_book()
    text = f'{{"model":"m","model_version":"1","predictions":[{{"book":{book.pk},"score":{score},"x":{score}}}]}}'
    assert send(client, text).status_code == 201
    (row,) = read(client, PREDICTIONS)["results"]
    assert row["score"] == float(score)
    assert row["extra"]["x"] == float(score)


def test_names_may_be_of_any_script(client: Client) -> None:
    book = make_book()
    assert send(client, predictions({"book": book.pk, "score": 1}, model="modèle 模型 😀" * 5)).status_code == 201
    assert read(client, PREDICTIONS, model="modèle 模型 😀" * 5)["count"] == 1


def test_two_predictions_for_one_book_contradict_each_other(client: Client) -> None:
    book = make_book()
    response = send(client, predictions({"book": book.pk, "score": 1}, {"book": book.pk, "score": 2}))
    assert errors(response) == {"predictions.1.book": "repeated"}


def test_more_than_ten_thousand_are_refused_and_errors_are_not_endless(client: Client) -> None:
    entry = {"book": 1, "score": 1}
    assert errors(send(client, predictions(*[entry] * (PREDICTIONS_MAX + 1)))) == {"predictions": "invalid"}
    assert len(errors(send(client, predictions(*[{"book": 0, "score": 1}] * PREDICTIONS_MAX)))) == 100


def test_a_body_of_more_than_ten_megabytes_is_413_and_a_form_is_415(client: Client) -> None:
    response = send(client, b'{"model":"' + b"x" * (10 * 1024 * 1024) + b'"}')
    assert response.status_code == 413
    assert response["Content-Type"] == "application/problem+json"
    assert client.post(PREDICTIONS, {"model": "x"}).status_code == 415


@pytest.mark.parametrize("books", [2, 100])
def test_storing_takes_the_same_queries_for_any_number_of_books(client: Client, books: int) -> None:
    made = make_books(books)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        send(client, predictions(*({"book": book.pk, "score": 1} for book in made)))
    # account, its permissions, books, savepoint, insert, release; on SQLite one insert for every 142 predictions
    assert len(queries) <= 8
    assert sum("INSERT" in query["sql"] for query in queries) == 1
    assert sum('FROM "catalog_book"' in query["sql"] for query in queries) == 1


@pytest.mark.django_db(transaction=True)
def test_two_requests_at_once_for_the_same_books_both_succeed(client: Client) -> None:
    books = make_books(300)
    statuses: list[int] = []

    def work(entries: list[dict[str, Any]]) -> None:
        try:
            statuses.extend(send(client, predictions(*entries)).status_code for _ in range(3))
        finally:
            connection.close()

    forwards = [{"book": book.pk, "score": 1} for book in books]
    threads = [threading.Thread(target=work, args=(entries,)) for entries in (forwards, forwards[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert statuses == [201] * 6
    assert Prediction.objects.count() == 300
