"""What an answer looks like: negotiation, files of whole sets, and conditional reads."""

from __future__ import annotations

import csv
import io
from datetime import UTC
from decimal import Decimal
from typing import Any

import orjson
import pyarrow as pa
import pytest
from django.test import Client
from pyarrow import parquet
from pytest_django import DjangoAssertNumQueries

from catalog.models import Book
from catalog.rows import BOOK_FIELDS
from tests.factories import change_book, make_book, make_books

BOOKS = "/api/v1/books"
CSV, NDJSON, PARQUET = "text/csv", "application/x-ndjson", "application/vnd.apache.parquet"


def body(answer: Any) -> bytes:
    assert answer.status_code == 200, answer.content
    return b"".join(answer.streaming_content)


# --- Negotiation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("application/*", "application/json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "application/json"),
        ("text/csv", CSV),
        ("text/*", CSV),
        ("TEXT/CSV", CSV),
        ("application/json;q=0.1, text/csv;q=0.9", CSV),
        ("application/x-ndjson", NDJSON),
        ("application/vnd.apache.parquet, */*;q=0.1", PARQUET),
        ("application/json;q=0, */*;q=0.5", CSV),
        ("nonsense, text/csv", CSV),
    ],
)
def test_accept_chooses_the_format(reader: Client, accept: str, media_type: str) -> None:
    make_book()
    answer = reader.get(BOOKS, headers={"Accept": accept})
    assert answer.headers["Content-Type"].split(";")[0] == media_type
    assert b"".join(answer)


@pytest.mark.parametrize("accept", ["image/png", "application/xml, text/html", "text/csv;q=0", "application/json;q=x"])
def test_an_accept_that_cannot_be_met_is_406(reader: Client, accept: str) -> None:
    answer = reader.get(BOOKS, headers={"Accept": accept})
    assert answer.status_code == 406
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert "text/csv" in answer.json()["detail"]


def test_format_is_stronger_than_accept(reader: Client) -> None:
    make_book()
    answer = reader.get(f"{BOOKS}?format=ndjson", headers={"Accept": "text/csv"})
    assert answer.headers["Content-Type"] == NDJSON
    assert body(answer)
    assert reader.get(f"{BOOKS}?format=json", headers={"Accept": "text/csv"}).json()["count"] == 1
    assert reader.get(f"{BOOKS}?format=", headers={"Accept": "*/*"}).json()["count"] == 1


def test_an_address_without_files_offers_json_alone(reader: Client) -> None:
    book = make_book()
    for path in (f"{BOOKS}/{book.pk}", f"{BOOKS}/search", "/api/v1/categories"):
        assert reader.get(path, headers={"Accept": "text/csv"}).status_code == 406
        assert reader.get(f"{path}?format=csv").status_code == 400


@pytest.mark.parametrize("query", ["page=1", "page_size=20", "page_size=all"])
def test_a_file_has_no_pages(reader: Client, query: str) -> None:
    answer = reader.get(f"{BOOKS}?format=csv&{query}")
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["code"] == "contradiction"


# --- Files ------------------------------------------------------------------------------------------------------------


def test_csv_carries_the_whole_filtered_set(reader: Client) -> None:
    make_books(30, rating=5)
    make_books(30, rating=1)
    answer = reader.get(BOOKS, {"format": "csv", "rating": 5, "ordering": "-price"})
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="books.csv"'
    rows = list(csv.DictReader(io.StringIO(body(answer).decode(), newline="")))
    assert len(rows) == 30
    assert [Decimal(row["price"]) for row in rows] == list(
        Book.objects.filter(rating=5).order_by("-price", "-id").values_list("price", flat=True)
    )


def test_csv_cells_are_flat_and_typed(reader: Client) -> None:
    make_book(
        title='=cmd|" /C calc"!A0',
        authors=["Zoë", "-B"],
        description="two\r\nlines, and\ttabs",
        category="Food and Drink",
        price="5",
        tax=Decimal("-0.00"),
    )
    text = body(reader.get(BOOKS, {"format": "csv"})).decode()
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert list(row) == [*BOOK_FIELDS, "category_slug"]
    assert row["title"] == """'=cmd|" /C calc"!A0"""
    assert row["authors"] == "Zoë; -B"
    assert row["description"] == "two\r\nlines, and\ttabs"
    assert (row["category"], row["category_slug"]) == ("Food and Drink", "food-and-drink")
    assert row["price"] == "5.00"
    assert row["in_stock"] == "true"
    assert row["updated_at"].endswith("Z")


def test_ndjson_has_the_books_of_json(reader: Client) -> None:
    make_books(5, authors=["É"])
    raw = body(reader.get(BOOKS, {"format": "ndjson"}))
    lines = raw.splitlines()
    assert [orjson.loads(line) for line in lines] == reader.get(BOOKS).json()["results"]
    assert b'"price":10.00' in raw


def test_parquet_has_exact_types(reader: Client) -> None:
    books = make_books(5, authors=["A", "B"])
    table = parquet.read_table(io.BytesIO(body(reader.get(BOOKS, {"format": "parquet"}))))
    assert table.schema.field("price").type == pa.decimal128(10, 2)
    assert table.schema.field("updated_at").type == pa.timestamp("us", tz="UTC")
    assert table.schema.field("category").type == pa.dictionary(pa.int32(), pa.string())
    assert table.schema.field("authors").type == pa.list_(pa.field("element", pa.string()))
    assert table.schema.field("in_stock").type == pa.bool_()
    first = table.to_pylist()[0]
    assert first["id"] == books[0].pk
    assert first["price"] == books[0].price
    assert first["authors"] == ["A", "B"]
    assert first["updated_at"] == books[0].updated_at.astimezone(UTC)
    assert first["category_slug"] == "travel"


@pytest.mark.parametrize("chosen", ["csv", "ndjson", "parquet"])
def test_a_file_of_nothing_is_a_file(reader: Client, chosen: str) -> None:
    raw = body(reader.get(BOOKS, {"format": chosen, "fields": "id,price,authors"}))
    if chosen == "csv":
        assert raw == b"id,authors,price\r\n"
    elif chosen == "ndjson":
        assert raw == b""
    else:
        table = parquet.read_table(io.BytesIO(raw))
        assert (table.num_rows, table.column_names) == (0, ["id", "authors", "price"])


def test_fields_are_the_columns_of_a_file(reader: Client) -> None:
    make_book(title="T", price="1")
    assert body(reader.get(BOOKS, {"format": "csv", "fields": "price,title"})) == b"title,price\r\nT,1.00\r\n"
    assert body(reader.get(BOOKS, {"format": "ndjson", "fields": "price"})) == b'{"price":1.00}\n'


def test_a_search_can_be_had_as_a_file_best_first(reader: Client) -> None:
    make_book(title="other", description="sea")
    make_book(title="sea")
    assert body(reader.get(BOOKS, {"format": "csv", "q": "sea", "fields": "title"})) == b"title\r\nsea\r\nother\r\n"


def test_changes_can_be_had_as_files(reader: Client) -> None:
    book = make_book(price="5")
    change_book(book, price=Decimal("6.50"))
    whole = reader.get("/api/v1/changes").json()["results"]

    lines = body(reader.get("/api/v1/changes?format=ndjson")).splitlines()
    assert [orjson.loads(line) for line in lines] == whole
    rows = list(csv.DictReader(io.StringIO(body(reader.get("/api/v1/changes?format=csv")).decode())))
    assert list(rows[1]) == ["revision", "id", "book_id", "shop", "upc", "kind", "fields", "at"]
    assert orjson.loads(rows[1]["fields"]) == {"price": {"old": "5", "new": "6.50"}}
    table = parquet.read_table(io.BytesIO(body(reader.get("/api/v1/changes?format=parquet"))))
    assert table.column("kind").to_pylist() == ["created", "updated"]
    since = f"{whole[0]['revision']}.{whole[0]['id']}"
    assert len(body(reader.get("/api/v1/changes", {"format": "ndjson", "since": since})).splitlines()) == 1


# --- Conditional reads ------------------------------------------------------------------------------------------------


def conditional_paths() -> list[str]:
    book = make_book()
    return [
        BOOKS,
        f"{BOOKS}?page_size=all",
        f"{BOOKS}?format=csv",
        f"{BOOKS}/search?q=book",
        f"{BOOKS}/top-rated",
        f"{BOOKS}/price-range?min=1",
        f"{BOOKS}/{book.pk}",
        f"{BOOKS}/{book.pk}/history",
        "/api/v1/categories",
        "/api/v1/categories/travel",
        "/api/v1/changes",
    ]


def test_an_unchanged_answer_is_304_after_one_query(
    reader: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    for path in conditional_paths():
        answer = reader.get(path)
        b"".join(answer)
        tag = answer.headers["ETag"]
        assert tag.startswith('"')
        assert answer.headers["Cache-Control"] == "private, no-cache"
        assert answer.headers["Vary"] == "Authorization, Accept, Accept-Encoding"
        for offered in (tag, f"W/{tag}", f'"x", {tag}', f'W/"x", W/{tag}'):
            with django_assert_num_queries(1):
                # 1. the revision
                again = reader.get(path, headers={"If-None-Match": offered})
            assert again.status_code == 304, path
            assert again.content == b""
            assert again.headers["ETag"] == tag
            assert again.headers["Vary"] == "Authorization, Accept, Accept-Encoding"


def test_a_change_makes_the_tag_another(reader: Client) -> None:
    paths = conditional_paths()
    answers = [reader.get(path) for path in paths]
    for answer in answers:
        b"".join(answer)  # a stream that nobody reads is closed at any time, in another test as well
    tags = [answer.headers["ETag"] for answer in answers]
    make_book()
    for path, tag in zip(paths, tags, strict=True):
        answer = reader.get(path, headers={"If-None-Match": tag})
        b"".join(answer)
        assert answer.status_code == 200, path
        assert answer.headers["ETag"] != tag


def test_a_star_matches_what_there_is(reader: Client) -> None:
    book = make_book()
    assert reader.get(f"{BOOKS}/{book.pk}", headers={"If-None-Match": "*"}).status_code == 304
    assert reader.get(f"{BOOKS}/{book.pk + 1}", headers={"If-None-Match": "*"}).status_code == 404
    assert reader.get(f"{BOOKS}?page_size=all", headers={"If-None-Match": "*"}).status_code == 304


@pytest.mark.parametrize("offered", ['"x"', "x", "", "W/", '"', "*, *", "\xff"])
def test_other_tags_do_not_match(reader: Client, offered: str) -> None:
    make_book()
    assert reader.get(BOOKS, headers={"If-None-Match": offered}).status_code == 200


def test_a_tag_knows_everything_that_the_bytes_depend_on(reader: Client, settings: Any) -> None:
    make_books(2)

    def tag(path: str = BOOKS, **headers: str) -> str:
        answer = reader.get(path, headers=headers)
        b"".join(answer)
        return str(answer.headers["ETag"])

    first = tag()
    others = {tag(f"{BOOKS}?page_size=1"), tag(Accept=CSV), tag(f"{BOOKS}/search"), tag(Host="localhost")}
    settings.PUBLIC_URL = "https://books.example"
    others.add(tag())
    settings.PUBLIC_URL = ""
    settings.VERSION = "9.9.9"
    others.add(tag())
    settings.VERSION = "0.1.0"
    assert len(others) == 6
    assert first not in others
    assert tag() == first


def test_errors_and_redirects_have_no_tag(reader: Client) -> None:
    survivor = make_book()
    merged = make_book(merged_into=survivor)
    for path in (f"{BOOKS}/{merged.pk}", f"{BOOKS}/999999", f"{BOOKS}?rating=x"):
        assert "ETag" not in reader.get(path).headers
