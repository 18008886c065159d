"""What the database itself refuses of the registry, of interactions and of pins."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import IntegrityError, transaction

from recommender.models import Interaction, ModelVersion, Pin
from tests.bookapi.logins import make_user
from tests.factories import make_book

pytestmark = pytest.mark.django_db


def refused(model: Any, **fields: Any) -> bool:
    try:
        with transaction.atomic():
            model.objects.create(**fields)
    except IntegrityError:
        return True
    return False


@pytest.mark.parametrize("state", ["champion", "training"])
def test_one_version_is_champion_and_one_is_in_training(state: str) -> None:
    ModelVersion.objects.create(version="a" if state == "champion" else "", recipe="s", state=state)
    assert refused(ModelVersion, version="b" if state == "champion" else "", recipe="s", state=state)


def test_many_versions_may_be_retired_or_failed() -> None:
    for number in range(2):
        ModelVersion.objects.create(version=f"v{number}", recipe="s", state="retired")
        ModelVersion.objects.create(recipe="s", state="failed")
    assert ModelVersion.objects.count() == 4


def test_a_version_is_one_row() -> None:
    ModelVersion.objects.create(version="a", recipe="s", state="retired")
    assert refused(ModelVersion, version="a", recipe="s", state="refused")


@pytest.mark.parametrize("state", ["champion", "candidate", "retired", "refused"])
def test_what_was_never_published_cannot_be_judged(state: str) -> None:
    assert refused(ModelVersion, recipe="s", state=state)


@pytest.mark.parametrize(
    ("kind", "value", "allowed"),
    [
        *(("rate", 1, True), ("rate", 5, True), ("rate", 0, False), ("rate", 6, False), ("rate", None, False)),
        *(("like", None, True), ("view", None, True), ("like", 5, False), ("dislike", 1, False)),
    ],
)
def test_rates_and_nothing_else_have_a_value_of_1_to_5(kind: str, value: int | None, allowed: bool) -> None:
    fields = {"account": make_user(), "reader": "r1", "book": make_book(), "kind": kind, "value": value, "key": "k"}
    assert refused(Interaction, **fields) is not allowed


def test_a_key_is_one_interaction_of_its_account() -> None:
    anna, ben, book = make_user("anna"), make_user("ben"), make_book()
    fields = {"reader": "r1", "book": book, "kind": "view", "key": "k"}
    Interaction.objects.create(account=anna, **fields)
    assert not refused(Interaction, account=ben, **fields)
    assert refused(Interaction, account=anna, **fields)


def test_a_pair_of_books_is_pinned_once_and_a_book_never_to_itself() -> None:
    book, other = make_book(), make_book()
    Pin.objects.create(book=book, other=other)
    Pin.objects.create(book=other, other=book, kind="block")
    assert refused(Pin, book=book, other=other, kind="block")
    assert refused(Pin, book=book, other=book)
