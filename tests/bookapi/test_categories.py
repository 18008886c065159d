"""Categories with the number of their listed books."""

from __future__ import annotations

import pytest
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from tests.factories import make_book, make_books, make_category

CATEGORIES = "/api/v1/categories"


def test_categories_are_listed_by_name_without_regard_to_case_and_accents(reader: Client) -> None:
    for name in ("Zen", "éclairs", "Eagles", "art"):
        make_category(name)
    make_book(category="Zen")
    answer = reader.get(CATEGORIES).json()
    assert answer == {
        "count": 4,
        "next": None,
        "previous": None,
        "results": [
            {"name": "art", "slug": "art", "count": 0},
            {"name": "Eagles", "slug": "eagles", "count": 0},
            {"name": "éclairs", "slug": "éclairs", "count": 0},
            {"name": "Zen", "slug": "zen", "count": 1},
        ],
    }


def test_only_books_that_are_listed_count(reader: Client) -> None:
    survivor = make_book(category="Travel")
    make_book(category="Travel", listed=False)
    make_book(category="Travel", hidden=True)
    make_book(category="Travel", merged_into=survivor)
    assert reader.get(f"{CATEGORIES}/travel").json() == {"name": "Travel", "slug": "travel", "count": 1}
    assert reader.get("/api/v1/books?category=travel").json()["count"] == 1


def test_a_category_is_read_by_its_slug(reader: Client) -> None:
    make_category("Poésie")
    assert reader.get(f"{CATEGORIES}/poésie").json()["name"] == "Poésie"
    assert reader.get("/api/v1/books?category=Poésie").json()["count"] == 0


@pytest.mark.parametrize("slug", ["nothing", "%00", "%FF", "x" * 3000, "travel/", "1%00"])
def test_an_unknown_slug_is_404(reader: Client, slug: str) -> None:
    make_category("Travel")
    answer = reader.get(f"{CATEGORIES}/{slug}")
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["", "/travel"])
def test_parameters_are_refused(reader: Client, path: str) -> None:
    make_category("Travel")
    assert reader.get(f"{CATEGORIES}{path}?page=1").status_code == 400


@pytest.mark.parametrize("n", [2, 200])
def test_queries_do_not_grow_with_the_books(
    reader: Client, django_assert_num_queries: DjangoAssertNumQueries, n: int
) -> None:
    make_books(n)
    with django_assert_num_queries(2):
        # 1. the revision  2. the categories with their counts
        reader.get(CATEGORIES)
    with django_assert_num_queries(2):
        # 1. the revision  2. the category with its count
        reader.get(f"{CATEGORIES}/travel")
