"""Interactions over HTTP: reported once, refused with reasons, erased on demand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from bookapi import rates
from bookapi.api import interactions
from bookapi.api.interactions import INTERACTIONS_MAX, read_interactions
from recommender.models import Interaction
from tests.bookapi.clients import reader
from tests.bookapi.logins import all_at_once
from tests.factories import make_book, make_books

PATH = "/api/v1/interactions"
pytestmark = pytest.mark.django_db


@pytest.fixture
def client() -> Client:
    return reader()


def send(client: Client, body: Any) -> Any:
    return client.post(PATH, body, content_type="application/json")


def entry(book: int, number: int = 0, **fields: Any) -> dict[str, Any]:
    return {"reader": f"r{number}", "book": book, "kind": "view", "key": f"k{number}", **fields}


def errors_of(response: Any) -> dict[str, str]:
    assert response.status_code == 400, response.content
    return {error["field"]: error["code"] for error in response.json()["errors"]}


# --- Reporting --------------------------------------------------------------------------------------------------------
def test_one_interaction_is_kept_as_it_was_sent(client: Client) -> None:
    book = make_book()
    sent = {
        "reader": "81f2",
        "book": book.pk,
        "kind": "rate",
        "value": 5,
        "at": "2026-01-02T04:04:05+01:00",
        "key": "a",
    }
    response = send(client, sent)
    assert response.status_code == 201, response.content
    assert response.json() == {"accepted": 1, "duplicates": 0}
    kept = Interaction.objects.get()
    assert (kept.reader, kept.book_id, kept.kind, kept.value, kept.key) == ("81f2", book.pk, "rate", 5, "a")
    assert kept.at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert kept.account.username == "rita"


def test_a_time_that_is_not_said_is_now(client: Client) -> None:
    before = timezone.now()
    send(client, entry(make_book().pk, at=None, value=None))
    assert before <= Interaction.objects.get().at <= timezone.now()


def test_a_batch_that_is_sent_again_is_counted_as_duplicates_and_kept_once(client: Client) -> None:
    books = make_books(3)
    batch = {"interactions": [entry(book.pk, number) for number, book in enumerate(books)]}
    assert send(client, batch).json() == {"accepted": 3, "duplicates": 0}
    batch["interactions"].append(entry(books[0].pk, 3, kind="like"))
    assert send(client, batch).json() == {"accepted": 1, "duplicates": 3}
    assert Interaction.objects.count() == 4


def test_a_key_stands_for_what_was_first_sent_with_it(client: Client) -> None:
    book = make_book()
    first, second = entry(book.pk, kind="like"), entry(book.pk, kind="dislike")
    assert send(client, {"interactions": [first, second]}).json() == {"accepted": 1, "duplicates": 1}
    assert send(client, second).json() == {"accepted": 0, "duplicates": 1}
    assert Interaction.objects.get().kind == "like"


def test_keys_of_two_accounts_do_not_meet(client: Client) -> None:
    book = make_book()
    assert send(client, entry(book.pk)).json()["accepted"] == 1
    assert send(reader("ben"), entry(book.pk)).json()["accepted"] == 1


def test_a_merged_book_stands_for_its_survivor_and_a_delisted_one_for_itself(client: Client) -> None:
    survivor, gone = make_book(), make_book(listed=False)
    merged = make_book(merged_into=survivor, hidden=True)
    send(client, {"interactions": [entry(merged.pk, 1), entry(gone.pk, 2)]})
    assert set(Interaction.objects.values_list("book", flat=True)) == {survivor.pk, gone.pk}


def test_books_that_are_unknown_or_hidden_are_named_and_nothing_is_kept(client: Client) -> None:
    known, hidden = make_book(), make_book(hidden=True)
    merged = make_book(merged_into=hidden)
    books = [known.pk, 4711, hidden.pk, merged.pk]
    response = send(client, {"interactions": [entry(book, number) for number, book in enumerate(books)]})
    assert errors_of(response) == {f"interactions.{index}.book": "unknown" for index in (1, 2, 3)}
    assert "There is no book 4711." in response.json()["detail"]
    assert errors_of(send(client, entry(4711))) == {"book": "unknown"}
    assert not Interaction.objects.exists()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        *(({"reader": name}, {"reader": "invalid"}) for name in ("", "Anna K", "anna@shop.org", "a\tb", "\u200b", 7)),
        *(({"reader": name}, {"reader": "invalid"}) for name in ("x" * 65, "a\u00a0b", None, ["r"])),
        *(({"book": book}, {"book": "invalid"}) for book in (0, -1, "1", 1.0, True, None, 2**63)),
        *(({"kind": kind}, {"kind": "invalid"}) for kind in ("buy", "", "LIKE", None, 1, ["like"])),
        *(({"kind": "rate", "value": value}, {"value": "invalid"}) for value in (0, 6, 4.5, 5.0, "5", True, None)),
        ({"kind": "rate"}, {"value": "required"}),
        *(({"kind": kind, "value": 5}, {"value": "invalid"}) for kind in ("view", "click", "like", "dislike")),
        *(({"key": key}, {"key": "invalid"}) for key in ("", " ", "x" * 101, "a\nb", 5, None)),
        *(({"at": at}, {"at": "invalid"}) for at in ("yesterday", 1767322984, "1969-12-31", "", "9999-12-31", {})),
        ({"at": "0001-01-01T00:00:00+14:00"}, {"at": "invalid"}),
        ({"weight": 9}, {"weight": "unknown"}),
    ],
)
def test_a_field_that_is_wrong_is_named(client: Client, fields: dict[str, Any], expected: dict[str, str]) -> None:
    sent = {**entry(make_book().pk), **fields}
    assert errors_of(send(client, sent)) == expected
    in_batch = {f"interactions.0.{name}": code for name, code in expected.items()}
    assert errors_of(send(client, {"interactions": [sent]})) == in_batch
    assert not Interaction.objects.exists()


@pytest.mark.parametrize("name", ["reader", "book", "kind", "key"])
def test_a_field_that_is_missing_is_required(client: Client, name: str) -> None:
    sent = entry(make_book().pk)
    del sent[name]
    assert errors_of(send(client, sent)) == {name: "required"}


@pytest.mark.parametrize("opaque", ["42", "b9c7-é", "r" * 64, "@x", "読者"])
def test_opaque_ids_of_any_script_are_taken(client: Client, opaque: str) -> None:
    assert send(client, entry(make_book().pk, reader=opaque)).status_code == 201


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("[]", {"": "invalid"}),
        ("null", {"": "invalid"}),
        ('{"interactions": []}', {"interactions": "invalid"}),
        ('{"interactions": {}}', {"interactions": "invalid"}),
        ('{"interactions": [7]}', {"interactions.0": "invalid"}),
        (
            '{"interactions": [{"reader": "r", "book": 1, "kind": "view", "key": "k"}], "reader": "r"}',
            {"reader": "unknown"},
        ),
    ],
)
def test_a_body_of_another_shape_is_refused(client: Client, body: str, expected: dict[str, str]) -> None:
    assert errors_of(send(client, body)) == expected


def test_a_thousand_are_taken_and_one_more_is_refused(client: Client) -> None:
    book = make_book().pk
    batch = [entry(book, number) for number in range(INTERACTIONS_MAX + 1)]
    assert errors_of(send(client, {"interactions": batch})) == {"interactions": "invalid"}
    assert send(client, {"interactions": batch[:-1]}).json() == {"accepted": INTERACTIONS_MAX, "duplicates": 0}


def test_a_query_parameter_is_refused(client: Client) -> None:
    assert client.post(f"{PATH}?dry=1", entry(1), content_type="application/json").status_code == 400


def test_without_an_account_nothing_is_taken_or_erased_even_where_reading_is_public(settings: Settings) -> None:
    settings.PUBLIC_READ = True
    assert send(Client(), entry(make_book().pk)).status_code == 401
    assert Client().delete(f"{PATH}?reader=r0").status_code == 401


def test_of_an_account_that_is_deleted_meanwhile_nothing_is_taken(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = make_book().pk

    def read_and_delete(body: Any) -> Any:
        User.objects.all().delete()
        return read_interactions(body)

    monkeypatch.setattr(interactions, "read_interactions", read_and_delete)
    assert send(client, entry(book)).status_code == 401
    assert not Interaction.objects.exists()


def test_an_account_is_limited_like_everywhere(client: Client, settings: Settings) -> None:
    settings.RATE_LIMIT_ACCOUNT = "1/min"
    rates.AccountRate.windows.clear()
    book = make_book().pk
    assert send(client, entry(book)).status_code == 201
    refused = send(client, entry(book))
    assert refused.status_code == 429
    assert int(refused["Retry-After"]) > 0


@pytest.mark.parametrize("number", [1, 100])
def test_queries_are_the_same_for_any_number_of_interactions(
    client: Client, number: int, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    books = make_books(number)
    batch = {"interactions": [entry(book.pk, number) for number, book in enumerate(books)]}
    with django_assert_num_queries(8):  # account, permissions, savepoint; account, books, keys, insert; release
        assert send(client, batch).status_code == 201
    with django_assert_num_queries(7):  # nothing to insert
        assert send(client, batch).status_code == 201
    with django_assert_num_queries(3):  # account, permissions, delete
        assert client.delete(f"{PATH}?reader=r0").status_code == 200


@pytest.mark.django_db(transaction=True)
def test_the_same_batch_sent_at_once_is_kept_once_and_counted_once(client: Client) -> None:
    books = make_books(20)
    batch = {"interactions": [entry(book.pk, number) for number, book in enumerate(books)]}
    answers = all_at_once(4, lambda _: send(client, batch).json())
    assert sorted(answer["accepted"] for answer in answers) == [0, 0, 0, 20]
    assert Interaction.objects.count() == 20


# --- Erasing ----------------------------------------------------------------------------------------------------------
def test_a_reader_is_erased_and_no_other(client: Client) -> None:
    books, ben = make_books(3), reader("ben")
    send(client, {"interactions": [entry(book.pk, number, reader="r") for number, book in enumerate(books)]})
    send(client, entry(books[0].pk, 9, reader="r2"))
    send(ben, entry(books[0].pk, reader="r"))
    response = client.delete(f"{PATH}?reader=r")
    assert response.status_code == 200
    assert response.json() == {"deleted": 3}
    assert set(Interaction.objects.values_list("account__username", "reader")) == {("rita", "r2"), ("ben", "r")}
    assert client.delete(f"{PATH}?reader=r").json() == {"deleted": 0}


@pytest.mark.parametrize(
    "query", ["", "?reader=", "?reader=%00", "?reader=r&book=1", "?readr=r", "?reader=" + "x" * 65]
)
def test_erasing_needs_to_be_told_whom(client: Client, query: str) -> None:
    send(client, entry(make_book().pk))
    assert client.delete(PATH + query).status_code == 400
    assert Interaction.objects.count() == 1


def test_an_interaction_a_little_ahead_of_our_clock_is_taken(client: Client) -> None:
    ahead = (timezone.now() + timedelta(hours=1)).isoformat()
    assert send(client, entry(make_book().pk, at=ahead)).status_code == 201
