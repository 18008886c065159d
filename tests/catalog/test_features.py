"""Features against scikit-learn, and against the books they come from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler

from catalog.features import NUMBERS, FeatureShape, Scaler, TrainingShape, with_lengths
from catalog.models import Book
from catalog.rows import compiled, run
from tests.factories import make_book, make_books

money = st.decimals(0, "99999999.99", places=2)
rows = st.tuples(
    *[money] * 3,
    st.integers(1, 5),
    st.integers(0, 1_000_000),
    st.booleans(),
    st.integers(0, 1_000_000_000),
    st.integers(1, 500),
    st.integers(0, 50_000),
)


@given(st.lists(rows, min_size=1, max_size=30), st.integers(1, 10))
def test_z_scores_are_those_of_scikit_learn(books: list[Any], size: int) -> None:
    scaler = Scaler.of(books[start : start + size] for start in range(0, len(books), size))
    ours = np.array([scaler(book) for book in books])
    table = np.array([[float(value) for value in book] for book in books])
    theirs = StandardScaler().fit_transform(table)
    changing = table.std(axis=0) > 1e-6 * (1 + np.abs(table).max(axis=0))  # scikit-learn cannot tell less apart
    np.testing.assert_allclose(ours[:, changing], theirs[:, changing], rtol=1e-5, atol=1e-7)


def test_a_number_that_is_the_same_for_all_books_becomes_zero() -> None:
    book = (10.1, 10.1, 0, 3, 7, True, 0, 5, 20)
    scaler = Scaler.of([[book] * 7])
    assert scaler(book) == [0.0] * len(NUMBERS)


def test_no_books_have_a_scaler() -> None:
    assert Scaler.of([]).deviations == (0.0,) * len(NUMBERS)


def features_of(shape: FeatureShape) -> list[dict[str, Any]]:
    found = with_lengths(Book.objects.listed()).order_by("id").values_list(*shape.columns)
    cells = shape.flat(run(*compiled(found)))
    return [dict(zip([column.name for column in shape.flat_columns], row, strict=True)) for row in cells]


@pytest.mark.django_db
def test_raw_features_are_the_books_own_numbers() -> None:
    book = make_book(title="Être", description="Ça va?", price="0.10", stock=0, rating=5, review_count=4)
    (row,) = features_of(FeatureShape())
    assert row == {
        "id": book.pk,
        "upc": book.upc,
        "price": book.price,
        "price_excl_tax": book.price_excl_tax,
        "tax": book.tax,
        "rating": 5,
        "stock": 0,
        "in_stock": 0,
        "review_count": 4,
        "title_length": 4,
        "description_length": 6,
        "category_id": book.category_id,
        "category_slug": "travel",
    }
    assert [type(row[column.name]).__name__ for column in NUMBERS[:6]] == ["Decimal"] * 3 + ["int"] * 3


@pytest.mark.django_db
def test_standardized_features_have_mean_zero_and_deviation_one() -> None:
    make_books(40)
    learned = with_lengths(Book.objects.listed()).values_list(*Scaler.COLUMNS)
    table = features_of(FeatureShape(Scaler.of([run(*compiled(learned))])))
    for column in ("price", "rating", "stock", "in_stock"):
        values = np.array([row[column] for row in table])
        assert abs(values.mean()) < 1e-9
        assert abs(values.std() - 1) < 1e-9
    assert {row["category_id"] for row in table} == set(Book.objects.values_list("category", flat=True))


@pytest.mark.django_db
def test_training_rows_carry_text_category_and_numbers() -> None:
    book = make_book(title="Être", authors=["A", "B"], category="Poésie")
    shape = TrainingShape()
    (cells,) = shape.flat(run(*compiled(Book.objects.listed().values_list(*shape.columns))))
    row = dict(zip([column.name for column in shape.flat_columns], cells, strict=True))
    assert row["title"] == "Être"
    assert row["authors"] == ["A", "B"]
    assert row["category"] == "Poésie"
    assert row["category_slug"] == "poésie"
    assert row["price"] == book.price
    assert row["in_stock"] is True
