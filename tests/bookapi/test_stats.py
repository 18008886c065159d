"""Statistics over HTTP: shapes, tags, formats and queries."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from catalog.memo import forget_all
from catalog.models import CrawlRun
from tests.bookapi.clients import reader
from tests.factories import change_book, make_book, make_books

OVERVIEW, CATEGORIES = "/api/v1/stats/overview", "/api/v1/stats/categories"
pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _forgetful() -> Iterator[None]:
    forget_all()
    yield
    forget_all()


@pytest.fixture
def client() -> Client:
    return reader()


def read(client: Client, path: str, **query: str) -> Any:
    response = client.get(path, query)
    assert response.status_code == 200, response.content
    return response.json()


@pytest.mark.parametrize("path", [OVERVIEW, CATEGORIES])
def test_statistics_need_an_account(path: str) -> None:
    assert Client().get(path).status_code == 401


def test_the_overview_has_exactly_the_promised_shape(client: Client) -> None:
    make_books(12)
    run = CrawlRun.objects.create(
        shop="a", source="-", state="finished", complete=True, finished_at=datetime(2026, 1, 2, tzinfo=UTC)
    )
    body = read(client, OVERVIEW)
    assert set(body) == {
        *("total", "in_stock", "categories", "stock_units", "price", "rating"),
        *("price_rating_correlation", "last_crawl", "revision"),
    }
    assert set(body["price"]) == {
        *("currency", "min", "max", "mean", "median", "stddev", "q1", "q3", "histogram"),
    }
    assert len(body["price"]["histogram"]) == 10
    assert set(body["price"]["histogram"][0]) == {"from", "to", "count"}
    assert set(body["rating"]) == {"mean", "distribution"}
    assert list(body["rating"]["distribution"]) == ["1", "2", "3", "4", "5"]
    assert set(body["price_rating_correlation"]) == {"pearson", "spearman", "n"}
    assert body["last_crawl"] == {"run": run.pk, "finished_at": "2026-01-02T00:00:00Z", "outcome": "complete"}
    assert body["revision"] == 1


def test_the_overview_is_right_and_its_money_has_two_places(client: Client) -> None:
    prices, ratings = [10.5, 20, 30.25, 40], [1, 2, 4, 4]
    for price, rating in zip(prices, ratings, strict=True):
        make_book(price=price, rating=rating, stock=2)
    response = client.get(OVERVIEW)
    body = response.json()
    assert b'"min":10.50,"max":40.00' in response.content
    assert body["total"] == body["in_stock"] == 4
    assert body["stock_units"] == 8
    assert body["price"]["mean"] == 25.19
    assert body["price"]["median"] == float(np.median(prices).round(2))
    assert body["price"]["stddev"] == float(np.std(prices, ddof=1).round(2))
    assert body["rating"]["mean"] == 2.75
    assert body["rating"]["distribution"] == {"1": 1, "2": 1, "3": 0, "4": 2, "5": 0}
    assert body["price_rating_correlation"]["n"] == 4
    assert body["price_rating_correlation"]["pearson"] == pytest.approx(np.corrcoef(prices, ratings)[0, 1], abs=1e-6)


def test_an_empty_catalogue_answers_with_nulls_and_zeros(client: Client) -> None:
    body = read(client, OVERVIEW)
    assert body["total"] == body["categories"] == 0
    assert body["price"] == {
        **dict.fromkeys(("currency", "min", "max", "mean", "median", "stddev", "q1", "q3")),
        "histogram": [],
    }
    assert body["rating"]["mean"] is None
    assert body["last_crawl"] is None
    assert read(client, CATEGORIES) == {"count": 0, "results": []}


def test_categories_have_exactly_the_promised_shape(client: Client) -> None:
    make_book(category="Poésie", price="10.00", rating=2, stock=3)
    make_book(category="Poésie", price="20.00", rating=5, stock=0)
    make_book(category="Art", price="7.00", rating=1, stock=1)
    body = read(client, CATEGORIES)
    assert body["count"] == 2
    assert [entry["category"]["name"] for entry in body["results"]] == ["Art", "Poésie"]
    assert body["results"][1] == {
        "category": {"name": "Poésie", "slug": "poésie"},
        "count": 2,
        "in_stock": 1,
        "stock_units": 3,
        "price": {"min": 10.0, "mean": 15.0, "median": 15.0, "max": 20.0},
        "rating_mean": 3.5,
    }


def test_a_shop_can_be_looked_at_by_itself(client: Client) -> None:
    make_book(shop="here")
    make_book(shop="there")
    assert read(client, OVERVIEW, shop="here")["total"] == 1
    assert read(client, CATEGORIES, shop="there")["results"][0]["count"] == 1
    assert read(client, OVERVIEW, shop="nowhere")["total"] == 0


@pytest.mark.parametrize("path", [OVERVIEW, CATEGORIES])
@pytest.mark.parametrize("query", ["shp=x", "shop=a&shop=b", "min_price=3", "shop=%00", "shop=%ff", "format=xml"])
def test_what_is_not_understood_is_refused(client: Client, path: str, query: str) -> None:
    response = client.get(f"{path}?{query}")
    assert response.status_code == 400
    assert response["Content-Type"] == "application/problem+json"


def test_an_unknown_parameter_names_the_nearest_known_one(client: Client) -> None:
    assert "'shop'" in client.get(f"{OVERVIEW}?shp=x").json()["detail"]


@pytest.mark.parametrize("path", [OVERVIEW, CATEGORIES])
def test_an_unchanged_catalogue_answers_304_and_a_changed_one_in_full(client: Client, path: str) -> None:
    book = make_book(price="10.00")
    tag = client.get(path)["ETag"]
    assert client.get(path, headers={"If-None-Match": tag}).status_code == 304
    change_book(book, price=Decimal("11.00"))
    changed = client.get(path, headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert b"11.00" in changed.content


def test_a_run_that_changed_nothing_is_news_to_the_overview_all_the_same(client: Client) -> None:
    make_book()
    tag = client.get(OVERVIEW)["ETag"]
    CrawlRun.objects.create(shop="a", source="-", state="failed", finished_at=datetime(2026, 1, 2, tzinfo=UTC))
    changed = client.get(OVERVIEW, headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.json()["last_crawl"]["outcome"] == "failed"


def test_categories_come_as_csv_ndjson_and_parquet(client: Client) -> None:
    make_books(9)
    entries = read(client, CATEGORIES)["results"]
    lines = [*csv.DictReader(io.StringIO(streamed(client, "csv").decode()))]
    assert [line["category_slug"] for line in lines] == [entry["category"]["slug"] for entry in entries]
    assert [float(line["price_median"]) for line in lines] == [entry["price"]["median"] for entry in entries]
    assert [json.loads(line) for line in streamed(client, "ndjson").splitlines()] == entries
    table = pyarrow.parquet.read_table(io.BytesIO(streamed(client, "parquet"))).to_pylist()
    assert [float(row["price_mean"]) for row in table] == [entry["price"]["mean"] for entry in entries]


def streamed(client: Client, kind: str) -> bytes:
    response = client.get(CATEGORIES, {"format": kind})
    assert response.status_code == 200
    return b"".join(response)


def test_an_empty_catalogue_is_a_file_without_rows(client: Client) -> None:
    assert streamed(client, "csv").startswith(b"category_name,category_slug,count,")
    assert streamed(client, "csv").count(b"\n") == 1
    assert streamed(client, "ndjson") == b""
    assert pyarrow.parquet.read_table(io.BytesIO(streamed(client, "parquet"))).num_rows == 0


@pytest.mark.parametrize("books", [2, 200])
def test_queries_are_the_same_for_any_number_of_books(
    client: Client, django_assert_num_queries: DjangoAssertNumQueries, books: int
) -> None:
    make_books(books)
    client.get("/api/v1/stats/overview?shop=other")  # the account is known now
    with django_assert_num_queries(5):  # revision, last run; then, once a revision: books, categories, revision again
        read(client, OVERVIEW)
    with django_assert_num_queries(2):  # revision, last run
        read(client, OVERVIEW)
    with django_assert_num_queries(1):  # revision
        read(client, CATEGORIES)
