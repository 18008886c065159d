"""Pages by cursor: every book exactly once, in order, forwards and backwards."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest
from django.db import connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import Client
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bookapi import tokens
from bookapi.api import paging
from bookapi.api.book_filters import ORDERINGS
from catalog.models import Book
from tests.bookapi.logins import make_user
from tests.factories import change_book, make_book, make_books, save_books, unsaved_book

BOOKS = "/api/v1/books"
START = datetime(2026, 1, 1, tzinfo=UTC)

#: Of every plane and case, with spaces and accents; NUL cannot be stored.
LETTERS = st.characters(codec="utf-8", exclude_characters="\0", categories=["L", "N", "P", "Z"])
rows = st.lists(
    st.fixed_dictionaries(
        {
            "title": st.text(LETTERS, max_size=3),
            "price": st.sampled_from(["0.00", "0.10", "0.30", "10.00", "10.01", "99999999.99"]),
            "rating": st.integers(1, 5),
            "stock": st.integers(0, 3),
            "updated_at": st.integers(0, 3).map(lambda n: START + timedelta(microseconds=n)),
        }
    ),
    max_size=12,
)


def walk(reader: Client, address: str, direction: str) -> list[list[int]]:
    """Ids of the pages from an address on, following `next` or `previous`."""
    pages = []
    while address:
        answer = reader.get(address)
        assert answer.status_code == 200, answer.content
        body = answer.json()
        pages.append([book["id"] for book in body["results"]])
        address = body[direction]
        assert len(pages) < 100, "the walk does not end"
    return pages


def in_order(ordering: str) -> list[int]:
    """Ids as Python sorts the books: by the keys of the ordering from the last to the first, each in its direction."""
    books = list(Book.objects.all())
    for key in reversed(ORDERINGS[ordering].keys):
        books.sort(key=attrgetter(key.column), reverse=key.descending)
    return [book.pk for book in books]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=rows, ordering=st.sampled_from(sorted(ORDERINGS)), size=st.integers(1, 5))
def test_following_next_gives_every_book_once_and_previous_leads_back(
    reader: Client, data: list[dict[str, Any]], ordering: str, size: int
) -> None:
    Book.objects.all().delete()
    save_books(unsaved_book(**fields) for fields in data)
    paging.forget_counts()
    expected = in_order(ordering)

    start = f"{BOOKS}?ordering={ordering}&page_size={size}"
    pages = walk(reader, start, "next")
    assert [pk for page in pages for pk in page] == expected
    assert all(len(page) == size for page in pages[:-1])

    last = start
    while following := reader.get(last).json()["next"]:
        last = following
    back = walk(reader, last, "previous")
    assert [pk for page in reversed(back) for pk in page] == expected


@pytest.mark.parametrize("query", ["q=book", "min_price=10&category=travel", "listed=any&ordering=-rating,price"])
def test_filtered_lists_are_walked_as_well(reader: Client, query: str) -> None:
    make_books(23)
    whole = [book["id"] for book in reader.get(f"{BOOKS}?{query}&page_size=1000").json()["results"]]
    assert len(whole) > 4
    pages = walk(reader, f"{BOOKS}?{query}&page_size=4", "next")
    assert [pk for page in pages for pk in page] == whole


def test_a_search_is_walked_through_all_its_ranks(reader: Client) -> None:
    for title in ("sea", "sea side", "the sea", "overseas", "land"):
        for _ in range(3):
            make_book(title=title, description="by the sea")
    whole = [book["title"] for book in reader.get(f"{BOOKS}?q=SEA").json()["results"]]
    assert whole == [title for title in ("sea", "sea side", "the sea", "overseas", "land") for _ in range(3)]
    pages = walk(reader, f"{BOOKS}?q=SEA&page_size=2", "next")
    ids = [pk for page in pages for pk in page]
    assert len(set(ids)) == len(ids) == 15
    assert [Book.objects.get(pk=pk).title for pk in ids] == whole


@pytest.mark.skipif(connection.vendor != "sqlite", reason="PostgreSQL's plans depend on statistics of the rows")
@pytest.mark.parametrize("ordering", sorted(ORDERINGS))
def test_every_order_is_read_from_an_index_from_where_the_cursor_points(reader: Client, ordering: str) -> None:
    make_books(50)
    with CaptureQueriesContext(connection) as queries:
        following = reader.get(f"{BOOKS}?ordering={ordering}&page_size=5").json()["next"]
        reader.get(following)
    pages = [query["sql"] for query in queries if "ORDER BY" in query["sql"]]
    assert len(pages) == 2
    for sql in pages:
        with connection.cursor() as cursor:
            cursor.execute("EXPLAIN QUERY PLAN " + sql.replace("%", "%%"))
            plan = "; ".join(str(row[3]) for row in cursor.fetchall())
        assert "TEMP B-TREE" not in plan, plan
    assert "SEARCH catalog_book USING" in plan, plan


def test_prepared_and_filtered_queries_agree(reader: Client) -> None:
    make_books(30)
    for ordering in ORDERINGS:
        query = f"ordering={ordering}&page_size=7"
        prepared = walk(reader, f"{BOOKS}?{query}", "next")
        assert prepared == walk(reader, f"{BOOKS}?{query}&listed=true", "next"), ordering


def test_page_numbers_work_and_their_links_lead_on(reader: Client) -> None:
    ids = [book.pk for book in make_books(5)]
    second = reader.get(BOOKS, {"page": 2, "page_size": 2}).json()
    assert [book["id"] for book in second["results"]] == ids[2:4]
    assert [book["id"] for book in reader.get(second["next"]).json()["results"]] == ids[4:]
    assert [book["id"] for book in reader.get(second["previous"]).json()["results"]] == ids[:2]
    assert reader.get(second["previous"]).json()["previous"] is None
    assert reader.get(BOOKS, {"page": 3, "page_size": 2}).json()["next"] is None


def test_a_page_after_the_last_is_404_but_an_empty_list_has_a_first(reader: Client) -> None:
    assert reader.get(BOOKS, {"page": 1}).json() == {"count": 0, "next": None, "previous": None, "results": []}
    make_books(2)
    assert reader.get(BOOKS, {"page": 2}).status_code == 404
    assert reader.get(BOOKS, {"page": 10**9, "page_size": 1000}).status_code == 404


def test_links_keep_the_query(reader: Client) -> None:
    make_books(3, category="Café & Bar")
    link = reader.get(BOOKS, {"category": ["Café & Bar", "x"], "page_size": 1, "page": 2, "fields": "id"}).json()[
        "next"
    ]
    parts = urlsplit(link)
    query = parse_qs(parts.query)
    assert (parts.scheme, parts.netloc, parts.path) == ("http", "testserver", BOOKS)
    assert query.pop("cursor")
    assert query == {"category": ["Café & Bar", "x"], "page_size": ["1"], "fields": ["id"]}


def test_links_begin_with_the_public_url(reader: Client, settings: Any) -> None:
    settings.PUBLIC_URL = "https://books.example/shop"
    make_books(2)
    link = reader.get(BOOKS, {"page_size": 1}).json()["next"]
    assert link.startswith("https://books.example/shop/api/v1/books?page_size=1&cursor=")


def cursor_of(reader: Client, query: str) -> str:
    return parse_qs(urlsplit(reader.get(f"{BOOKS}?{query}").json()["next"]).query)["cursor"][0]


def test_a_cursor_that_was_changed_is_refused(reader: Client) -> None:
    make_books(3)
    cursor = cursor_of(reader, "page_size=1")
    assert reader.get(BOOKS, {"cursor": cursor, "page_size": 1}).status_code == 200
    changed = {cursor[:i] + ("B" if c != "B" else "C") + cursor[i + 1 :] for i, c in enumerate(cursor)}
    for bad in {*changed, cursor[:-1], cursor + "A", cursor + "=", "", "x", "é", "A" * 4000, "A" * 4001} - {""}:
        answer = reader.get(BOOKS, {"cursor": bad, "page_size": 1})
        assert answer.status_code == 400, bad
        assert answer.json()["errors"][0]["field"] == "cursor"


@pytest.mark.parametrize("other", ["ordering=price", "category=travel", "min_price=1", "q=book"])
def test_a_cursor_belongs_to_its_filters_and_order(reader: Client, other: str) -> None:
    make_books(3)
    cursor = cursor_of(reader, "page_size=1")
    assert reader.get(f"{BOOKS}?page_size=1&{other}&cursor={cursor}").status_code == 400
    assert reader.get(f"{BOOKS}?page_size=2&fields=id&cursor={cursor}").status_code == 200


@pytest.mark.parametrize("query", ["page=1", "page_size=all"])
def test_a_cursor_stands_alone(reader: Client, query: str) -> None:
    make_books(3)
    cursor = cursor_of(reader, "page_size=1")
    assert reader.get(f"{BOOKS}?{query}&cursor={cursor}").status_code == 400


def test_books_that_come_and_go_neither_repeat_nor_skip_others(reader: Client) -> None:
    books = make_books(6)
    first = reader.get(BOOKS, {"page_size": 3}).json()
    change_book(books[0], listed=False)
    change_book(books[2], listed=False)  # the one where the page ended
    make_book(title="new")
    rest = [book["id"] for book in reader.get(first["next"]).json()["results"]]
    assert rest == [book.pk for book in books[3:6]]


def test_everything_is_one_answer_of_the_same_shape(reader: Client) -> None:
    ids = [book.pk for book in make_books(paging.STREAM_ROWS * 2 + 1)]
    answer = reader.get(BOOKS, {"page_size": "all"})
    assert answer.streaming
    body = orjson.loads(b"".join(answer))
    assert list(body) == ["count", "next", "previous", "results"]
    assert body["count"] == len(ids)
    assert body["next"] is body["previous"] is None
    assert [book["id"] for book in body["results"]] == ids
    assert body["results"][0] == reader.get(f"{BOOKS}/{ids[0]}").json()


def test_everything_of_nothing_is_an_empty_list(reader: Client) -> None:
    answer = reader.get(BOOKS, {"page_size": "all"})
    assert b"".join(answer) == b'{"count":0,"next":null,"previous":null,"results":[]}'


# --- Under concurrent writers -----------------------------------------------------------------------------------------


@pytest.fixture
def committed_reader(transactional_db: None) -> Client:
    """A reader whose books are committed, so that other connections see them."""
    pair = tokens.log_in(make_user("reader"))
    return Client(headers={"Authorization": f"Bearer {pair.access}"})


@pytest.mark.parametrize("query", ["page_size=all", "page_size=all&min_price=1&ordering=price", "format=ndjson"])
def test_a_stream_is_of_one_moment_whatever_is_committed_meanwhile(committed_reader: Client, query: str) -> None:
    n = paging.STREAM_ROWS * 5
    make_books(n)
    answer = committed_reader.get(f"{BOOKS}?{query}")
    chunks = iter(answer.streaming_content)
    received = next(chunks)

    make_books(50, price="3")
    Book.objects.filter(pk__in=Book.objects.order_by("-pk").values("pk")[100:200]).update(listed=False)
    received += b"".join(chunks)
    answer.close()

    if query == "format=ndjson":
        assert len(received.splitlines()) == n
    else:
        body = orjson.loads(received)
        assert body["count"] == len(body["results"]) == n
        assert committed_reader.get(BOOKS).json()["count"] == n - 50


def test_a_stream_does_not_make_writers_wait(committed_reader: Client) -> None:
    make_books(paging.STREAM_ROWS * 3)
    answer = committed_reader.get(f"{BOOKS}?page_size=all")
    begun = time.monotonic()
    make_book(title="written meanwhile")
    assert time.monotonic() - begun < 5
    answer.close()


@pytest.mark.parametrize("query", ["page_size=all", "format=csv", "format=parquet", "format=ndjson"])
@pytest.mark.parametrize("chunks_read", [0, 1])
def test_a_client_who_goes_away_leaves_no_connection_behind(
    committed_reader: Client, monkeypatch: pytest.MonkeyPatch, query: str, chunks_read: int
) -> None:
    opened = []
    copy = BaseDatabaseWrapper.copy

    def remembered(self: BaseDatabaseWrapper, alias: str | None = None) -> BaseDatabaseWrapper:
        opened.append(copy(self, alias))
        return opened[-1]

    monkeypatch.setattr(BaseDatabaseWrapper, "copy", remembered)
    make_books(paging.STREAM_ROWS * 5)
    answer = committed_reader.get(f"{BOOKS}?{query}")
    for _, _chunk in zip(range(chunks_read), answer.streaming_content, strict=False):
        assert opened[0].connection is not None
    answer.close()
    assert [own.connection for own in opened] == [None]


def test_counts_hold_while_a_writer_writes(committed_reader: Client) -> None:
    """Each answer of everything has as many results as it says."""
    make_books(600)
    stop = threading.Event()
    failures: list[BaseException] = []

    def write() -> None:
        try:
            while not stop.is_set():
                make_books(7)
        except BaseException as error:  # the main thread has to see it
            failures.append(error)
        finally:
            connection.close()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        counts = []
        for _ in range(8):
            body = orjson.loads(b"".join(committed_reader.get(f"{BOOKS}?page_size=all")))
            assert body["count"] == len(body["results"])
            counts.append(body["count"])
    finally:
        stop.set()
        writer.join(60)
    assert not failures
    assert counts == sorted(counts)
    assert counts[-1] > counts[0], "the writer wrote meanwhile"
