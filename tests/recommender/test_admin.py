"""The recommender's pages of the administration, as curators and operators use them."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from bookapi.accounts import CURATORS, OPERATORS
from recommender.engine.artifact import Store
from recommender.models import DecisionRecord, Interaction, ModelVersion, Pin
from tests.bookapi.logins import make_user
from tests.catalog.test_admin import act, get, text_of
from tests.factories import make_book, make_books
from tests.recommender.trainings import damage, make_shelves, promoted, trained

pytestmark = pytest.mark.django_db

VERSIONS, PINS, INTERACTIONS = (f"/admin/recommender/{name}/" for name in ("modelversion", "pin", "interaction"))


def logged_in(name: str, group: str | None) -> Client:
    user = User.objects.create_user(name, is_staff=True)
    if group:
        user.groups.add(Group.objects.get(name=group))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def curator() -> Client:
    return logged_in("ada", CURATORS)


@pytest.fixture
def operator() -> Client:
    return logged_in("oskar", OPERATORS)


def page_of(row: Any) -> str:
    return reverse(f"admin:recommender_{row._meta.model_name}_change", args=[row.pk])


# --- Models -----------------------------------------------------------------------------------------------------------
def test_staff_without_permissions_see_nothing_of_it() -> None:
    stranger = logged_in("sam", None)
    for path in (VERSIONS, PINS, INTERACTIONS):
        assert stranger.get(path).status_code == 403
    assert {ModelVersion, Pin, Interaction} <= set(admin.site._registry)


def test_a_version_is_shown_with_its_decisions_and_figures_and_nobody_edits_it(
    store: str, operator: Client, curator: Client
) -> None:
    make_shelves()
    row = promoted()
    for client in (operator, curator):
        assert row.version in text_of(get(client, VERSIONS))
        page = text_of(get(client, page_of(row)))
        for said in (row.version, "champion", "There is no champion to compare it with", "coverage@10", "publish"):
            assert said in page
        assert client.post(page_of(row), {"recipe": "s"}).status_code == 403
        assert client.get(f"{VERSIONS}add/").status_code == 403


def test_an_operator_promotes_and_rolls_back_and_the_history_says_who(store: str, operator: Client) -> None:
    make_shelves()
    first, second = promoted(), trained().row
    said = act(operator, "promote", second, path=VERSIONS, reason="Read by eye.")
    assert f"{second.version} was promoted" in text_of(said)
    assert Store(store).champion() == second.version
    assert second.decisions.get().by == "oskar"
    assert "Read by eye." in text_of(get(operator, page_of(second)))
    act(operator, "roll_back", second, path=VERSIONS)
    assert Store(store).champion() == first.version
    record = DecisionRecord.objects.first()
    assert record is not None
    assert (record.decision, record.by) == ("rolled_back", "oskar")
    told = [(entry.user.username, entry.get_change_message()) for entry in LogEntry.objects.order_by("pk")]
    assert told == [("oskar", "promoted"), ("oskar", "rolled back")]


def test_an_operator_refuses_a_candidate(store: str, operator: Client) -> None:
    make_shelves()
    row = trained().row
    act(operator, "refuse", row, path=VERSIONS)
    row.refresh_from_db()
    assert (row.state, row.reason, row.decided_by) == ("refused", "By hand.", "oskar")


def test_a_curator_promotes_nothing_and_sees_no_buttons(store: str, curator: Client, operator: Client) -> None:
    make_shelves()
    row = trained().row
    act(curator, "promote", row, path=VERSIONS)
    row.refresh_from_db()
    assert row.state == "candidate"
    assert Store(store).champion() is None
    buttons = 'button[name="action"]::attr(value)'
    assert get(curator, page_of(row)).css(buttons).getall() == []
    assert {"promote", "refuse"} <= set(get(operator, page_of(row)).css(buttons).getall())


def test_what_cannot_be_served_is_said_and_the_champion_stays(store: str, operator: Client) -> None:
    make_shelves()
    first, second = promoted(), trained().row
    assert "Choose one version" in text_of(act(operator, "promote", first, second, path=VERSIONS))
    assert "not the champion" in text_of(act(operator, "roll_back", second, path=VERSIONS))
    assert "no version to go back to" in text_of(act(operator, "roll_back", first, path=VERSIONS))
    path = damage(store, second.version)
    assert "The champion stays" in text_of(act(operator, "promote", second, path=VERSIONS))
    assert path.name in text_of(get(operator, page_of(second)))
    assert Store(store).champion() == first.version
    assert not LogEntry.objects.exists()


# --- Pins -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("forged", ["x", "9" * 30, "-1", "1.5", "\0", "", "٣"])
@pytest.mark.parametrize("field", ["book", "other"])
def test_a_forged_pin_is_an_error_of_its_form(field: str, forged: str, curator: Client) -> None:
    data = {"book": make_book().pk, "other": make_book().pk, "kind": "pin", "position": 1, field: forged}
    answer = curator.post(f"{PINS}add/", data)
    assert answer.status_code in {200, 400}
    assert not Pin.objects.exists()


@pytest.mark.parametrize("forged", ["x", "9" * 30, "\0", ""])
@pytest.mark.parametrize("path", [VERSIONS, PINS, INTERACTIONS])
def test_a_forged_choice_of_an_action_is_a_bad_request(path: str, forged: str) -> None:
    client = logged_in("root", CURATORS)
    User.objects.update(is_superuser=True)
    make_book()
    answer = client.post(path, {"action": "delete_selected", "_selected_action": forged, "index": 0})
    assert answer.status_code in {302, 400, 403}


def test_a_curator_pins_blocks_and_removes_and_it_is_known_who(curator: Client) -> None:
    book, other = make_books(2)
    data = {"book": book.pk, "other": other.pk, "kind": "pin", "position": 1}
    assert curator.post(f"{PINS}add/", data).status_code == 302
    pin = Pin.objects.get()
    assert (pin.book, pin.other, pin.kind, pin.by) == (book, other, "pin", "ada")
    assert book.title in text_of(get(curator, PINS))
    assert curator.post(page_of(pin), {**data, "kind": "block"}).status_code == 302
    pin.refresh_from_db()
    assert pin.kind == "block"
    assert curator.post(f"{PINS}{pin.pk}/delete/", {"post": "yes"}).status_code == 302
    assert not Pin.objects.exists()
    assert [entry.action_flag for entry in LogEntry.objects.order_by("pk")] == [1, 2, 3]


@pytest.mark.parametrize("again", [True, False])
def test_a_pin_that_makes_no_sense_is_refused_with_its_reason(curator: Client, again: bool) -> None:
    book, other = make_books(2)
    Pin.objects.create(book=book, other=other)
    data = {"book": book.pk, "other": (other if again else book).pk, "kind": "block", "position": 1}
    answer = curator.post(f"{PINS}add/", data)
    assert answer.status_code == 200
    said = "already" if again else "A book cannot be pinned to itself."
    assert said in answer.content.decode()
    assert Pin.objects.count() == 1


def test_books_of_a_pin_are_found_by_title(curator: Client) -> None:
    book = make_book(title="The Tale of Genji")
    query = {"term": "genji", "app_label": "recommender", "model_name": "pin", "field_name": "other"}
    found = curator.get("/admin/autocomplete/", query).json()["results"]
    assert [row["id"] for row in found] == [str(book.pk)]


# --- Interactions -----------------------------------------------------------------------------------------------------
def test_an_operator_erases_a_reader_and_no_trace_of_the_name_is_kept(operator: Client, curator: Client) -> None:
    account, other = make_user("shop"), make_user("other")
    for number, book in enumerate(make_books(3)):
        Interaction.objects.create(account=account, reader="r-secret", book=book, kind="view", key=str(number))
        Interaction.objects.create(account=other, reader="r-secret", book=book, kind="view", key=str(number))
    row = Interaction.objects.filter(account=account).first()
    act(curator, "erase", row, path=INTERACTIONS)
    assert Interaction.objects.count() == 6
    said = text_of(act(operator, "erase", row, path=INTERACTIONS))
    assert "1 reader was erased: 3 interactions." in said
    assert set(Interaction.objects.values_list("account__username", flat=True)) == {"other"}
    entry = LogEntry.objects.get()
    assert (entry.user.username, entry.get_change_message()) == ("oskar", "the reader was erased")
    assert "r-secret" not in f"{entry.object_repr} {entry.change_message}"


def test_interactions_are_read_and_never_edited(operator: Client) -> None:
    row = Interaction.objects.create(account=make_user(), reader="r1", book=make_book(), kind="like", key="k")
    assert "r1" in text_of(get(operator, page_of(row)))
    assert operator.post(page_of(row), {"kind": "dislike"}).status_code == 403
    assert operator.get(f"{INTERACTIONS}add/").status_code == 403
    assert "r1" in text_of(get(operator, INTERACTIONS, q="r1"))


@pytest.mark.parametrize("path", [VERSIONS, PINS, INTERACTIONS])
def test_a_list_takes_as_many_queries_for_two_rows_as_for_twenty(path: str, operator: Client) -> None:
    account, books = make_user(), make_books(21)

    def make(numbers: range) -> None:
        for n in numbers:
            ModelVersion.objects.create(version=f"v{n}", recipe="s", state="retired")
            Pin.objects.create(book=books[n], other=books[n + 1])
            Interaction.objects.create(account=account, reader=f"r{n}", book=books[n], kind="view", key=str(n))

    counts = []
    for numbers in (range(2), range(2, 20)):
        make(numbers)
        get(operator, path)
        with CaptureQueriesContext(connection) as queries:
            get(operator, path)
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 10
