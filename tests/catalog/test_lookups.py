"""The questions that Django's ORM has no word for."""

from __future__ import annotations

import pytest

from catalog.models import Book
from tests.factories import unsaved_book

pytestmark = pytest.mark.django_db

UPCS = ("plain", "a,b", "{a}", "'single'", '"double"', "back\\slash", "100%s", "Œuvre", "漢字", "🙂", "null")


def test_a_text_is_found_among_others_however_it_is_written() -> None:
    Book.objects.bulk_create(unsaved_book(upc=upc) for upc in (*UPCS, "another", "PLAIN"))
    found = Book.objects.filter(upc__among=[*UPCS, "missing"])
    assert sorted(found.values_list("upc", flat=True)) == sorted(UPCS)


def test_a_number_is_found_among_more_than_sqlite_takes_as_parameters() -> None:
    book = unsaved_book()
    book.save()
    assert list(Book.objects.filter(pk__among=range(book.pk, book.pk + 2000))) == [book]


def test_nothing_is_among_none() -> None:
    unsaved_book().save()
    assert not Book.objects.filter(upc__among=[]).exists()
    assert not Book.objects.filter(pk__among=set()).exists()
