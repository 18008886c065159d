"""Changes: in order, resumable, and complete for a reader who follows them while writers write."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from bookapi import accounts, tokens
from catalog.models import Change
from catalog.revision import current_revision, writing
from tests.bookapi.logins import make_user
from tests.factories import change_book, make_book, make_books

CHANGES = "/api/v1/changes"


def test_a_change_tells_book_kind_and_fields(reader: Client) -> None:
    book = make_book(price="51.50")
    change_book(book, price=Decimal("49.90"), stock=0)

    answer = reader.get(CHANGES)

    created, updated = answer.json()["results"]
    assert list(updated) == ["revision", "id", "book", "kind", "fields", "at"]
    assert created["kind"] == "created"
    assert created["fields"] == {}
    assert updated["kind"] == "updated"
    assert updated["book"] == {"id": book.pk, "shop": book.shop, "upc": book.upc}
    assert updated["fields"] == {"price": {"old": 51.5, "new": 49.9}, "stock": {"old": 7, "new": 0}}
    assert b'"price":{"old":51.50,"new":49.90}' in answer.content
    assert updated["revision"] == created["revision"] + 1 == answer.json()["revision"] == current_revision()
    assert updated["at"].endswith("Z")


def test_following_next_gives_every_change_once_in_order(reader: Client) -> None:
    make_books(7)
    for book in make_books(3):
        change_book(book, stock=1)
    expected = list(Change.objects.order_by("revision", "id").values_list("revision", "id"))

    seen, since = [], ""
    while page := (body := reader.get(CHANGES, {"since": since, "limit": 4}).json())["results"]:
        seen += [(change["revision"], change["id"]) for change in page]
        since = body["next"]

    assert seen == expected
    assert since == f"{expected[-1][0]}.{expected[-1][1]}"
    assert reader.get(CHANGES, {"since": since}).json()["next"] == since, "an empty page is a place to wait at"


def test_since_a_revision_is_what_came_after_it(reader: Client) -> None:
    make_books(2)
    revision = reader.get(CHANGES).json()["revision"]
    assert reader.get(CHANGES, {"since": revision}).json()["results"] == []
    book = make_book()
    results = reader.get(CHANGES, {"since": revision}).json()["results"]
    assert [change["book"]["id"] for change in results] == [book.pk]
    assert len(reader.get(CHANGES, {"since": 0}).json()["results"]) == 3


def test_since_a_time_begins_some_minutes_before_it(reader: Client) -> None:
    noon = datetime(2026, 5, 1, 12, tzinfo=UTC)
    book = make_book()
    Change.objects.all().delete()
    for revision, minutes in ((11, -60), (12, -10), (13, -4), (14, 1)):
        at = noon + timedelta(minutes=minutes)
        Change.objects.create(revision=revision, book=book, kind="updated", fields={}, at=at)

    def revisions(since: str) -> list[int]:
        return [change["revision"] for change in reader.get(CHANGES, {"since": since}).json()["results"]]

    assert revisions("2026-05-01T12:00:00Z") == [13, 14]
    assert revisions("2026-05-01T14:00:00+02:00") == [13, 14]
    assert revisions("2026-05-01") == [11, 12, 13, 14]
    assert revisions("0001-01-01") == [11, 12, 13, 14]
    assert revisions("9999-12-31T23:59:59Z") == []


def test_hidden_delisted_and_merged_books_keep_their_changes(reader: Client) -> None:
    survivor, hidden, merged = make_books(3)
    with writing() as turn:
        turn.change(hidden.pk, Change.Kind.DELISTED)
        turn.change(merged.pk, Change.Kind.MERGED, {"merged_into": {"old": None, "new": survivor.pk}})
        type(hidden).objects.filter(pk=hidden.pk).update(hidden=True)
        type(merged).objects.filter(pk=merged.pk).update(merged_into=survivor)
    results = reader.get(CHANGES).json()["results"]
    assert [(c["kind"], c["book"]["id"]) for c in results[3:]] == [("delisted", hidden.pk), ("merged", merged.pk)]


@pytest.mark.parametrize(
    "since", ["9" * 20, "1.", ".1", "1.2.3", "-1", "x", "1e3", "9223372036854775807", "2026-13-01", "%00", "1%00"]
)
def test_since_something_else_is_refused(reader: Client, since: str) -> None:
    answer = reader.get(f"{CHANGES}?since={since}")
    assert answer.status_code == 400, answer.content
    assert answer.json()["errors"][0]["field"] == "since"


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "page=1", "sinse=1", "limit=5&format=csv"])
def test_other_parameters_are_refused(reader: Client, query: str) -> None:
    assert reader.get(f"{CHANGES}?{query}").status_code == 400


@pytest.mark.parametrize("n", [2, 200])
def test_queries_do_not_grow_with_the_changes(
    reader: Client, django_assert_num_queries: DjangoAssertNumQueries, n: int
) -> None:
    make_books(n)
    with django_assert_num_queries(2):
        # 1. the revision  2. the changes with their books
        reader.get(CHANGES, {"limit": 1000})
    with django_assert_num_queries(3):
        # 1. the revision  2. the revision before that time  3. the changes with their books
        reader.get(CHANGES, {"since": "2026-01-01"})


@pytest.mark.django_db(transaction=True)
def test_a_reader_who_follows_while_writers_write_misses_nothing() -> None:
    user = make_user("follower")
    headers = {"Authorization": f"Bearer {tokens.log_in(user).access}"}
    accounts.cache.get(user.pk)
    book = make_book()
    writers, turns = 3, 15
    done = threading.Event()
    seen: list[tuple[int, int]] = []
    failures: list[Any] = []

    def write() -> None:
        try:
            for _ in range(turns):
                with writing() as turn:
                    turn.change(book.pk, Change.Kind.UPDATED)
                    turn.change(book.pk, Change.Kind.UPDATED)
        except Exception as error:  # the main thread has to see it
            failures.append(error)
        finally:
            connection.close()

    def follow() -> None:
        client, since = Client(headers=headers), "0.0"
        try:
            while True:
                last_round = done.is_set()
                body = client.get(CHANGES, {"since": since, "limit": 7}).json()
                seen.extend((change["revision"], change["id"]) for change in body["results"])
                since = body["next"]
                if last_round and not body["results"]:
                    return
        except Exception as error:
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=write) for _ in range(writers)]
    follower = threading.Thread(target=follow)
    follower.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    done.set()
    follower.join(60)

    assert not failures
    assert seen == list(Change.objects.order_by("revision", "id").values_list("revision", "id"))
    assert len(seen) == 1 + writers * turns * 2
