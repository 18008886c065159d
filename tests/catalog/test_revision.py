"""The lock and the number of the catalogue."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from catalog.models import CatalogueRevision, Change
from catalog.revision import current_revision, skip_ahead, writing
from tests.catalog.crawled import crawl, crawled, scraped
from tests.factories import unsaved_book

pytestmark = pytest.mark.django_db


@pytest.fixture
def book_id() -> int:
    book = unsaved_book()
    book.save()
    return book.pk


def test_a_turn_without_changes_leaves_the_number(book_id: int) -> None:
    with writing():
        pass
    before = current_revision()
    with CaptureQueriesContext(connection) as queries, writing():
        pass
    assert current_revision() == before
    assert len([q for q in queries if "SAVEPOINT" not in q["sql"]]) == 1


def test_a_turn_with_changes_moves_the_number_by_one_and_publishes_in_order(book_id: int) -> None:
    before = current_revision()
    with writing() as turn:
        turn.change(book_id, Change.Kind.UPDATED, {"price": {"old": "1.00", "new": "2.00"}})
        turn.change(book_id, Change.Kind.DELISTED)
    assert current_revision() == before + 1
    first, second = Change.objects.filter(revision=before + 1)
    assert (first.kind, first.fields, first.at) == ("updated", {"price": {"old": "1.00", "new": "2.00"}}, turn.at)
    assert (second.kind, second.fields) == ("delisted", {})


def test_changes_written_before_the_end_of_a_turn_carry_its_number_and_move_it(book_id: int) -> None:
    before = current_revision()
    with writing() as turn:
        turn.change(book_id, Change.Kind.UPDATED)
        turn.write_changes()
        assert Change.objects.filter(revision=before + 1).count() == 1
    assert current_revision() == before + 1
    assert Change.objects.filter(revision=before + 1).count() == 1


def test_a_turn_that_fails_publishes_nothing(book_id: int) -> None:
    before = current_revision()
    with pytest.raises(ZeroDivisionError):
        _change_and_fail(book_id)
    assert current_revision() == before
    assert not Change.objects.filter(revision=before + 1).exists()


def _change_and_fail(book_id: int) -> None:
    with writing() as turn:
        turn.change(book_id, Change.Kind.DELISTED)
        print(1 / 0)


def test_turns_within_a_turn_publish_with_one_number(book_id: int) -> None:
    before = current_revision()
    with writing() as outer:
        outer.change(book_id, Change.Kind.UPDATED)
        with writing() as inner:
            inner.change(book_id, Change.Kind.DELISTED)
    assert current_revision() == before + 1
    assert Change.objects.filter(revision=before + 1).count() == 2


def test_a_database_emptied_by_hand_starts_at_nought(book_id: int) -> None:
    CatalogueRevision.objects.all().delete()
    assert current_revision() == 0
    with writing() as turn:
        turn.change(book_id, Change.Kind.UPDATED)
    assert current_revision() == 1


def test_after_a_restore_no_number_and_no_tag_means_what_it_meant_before(settings: Any) -> None:
    settings.PUBLIC_READ = True
    crawled("a")
    client, read = Client(), current_revision() + 5  # of changes that the backup knows nothing of
    tag = client.get("/api/v1/books")["ETag"]
    after = skip_ahead()
    assert after > read
    assert client.get("/api/v1/books", headers={"If-None-Match": tag}).status_code == 200
    crawl(scraped("b"))
    changes = client.get("/api/v1/changes", {"since": str(read)}).json()
    assert [change["revision"] for change in changes["results"]] == [after + 1], "nothing new is missed"
    assert skip_ahead() > changes["revision"]
