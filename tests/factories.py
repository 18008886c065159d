"""Books for tests, written as the catalogue itself writes: under the locked revision row, with changes and history."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from itertools import count
from typing import Any

from django.utils import timezone

from catalog.models import Book, Category, Change, PriceObservation
from catalog.revision import writing

_numbers = count(1)


def make_category(name: str = "Travel") -> Category:
    """The category of this name, made where there is none."""
    category = Category.objects.filter(shop_name=name).first()
    return category or Category.objects.create(shop_name=name, name=name)


def unsaved_book(**fields: Any) -> Book:
    """A valid book with the given fields, ready to be saved. `category` may be a name."""
    number = next(_numbers)
    now: datetime = timezone.now()
    category = fields.pop("category", "Travel")
    price = Decimal(str(fields.pop("price", "51.50")))
    values = {
        "shop": "test-shop",
        "upc": f"upc{number:06}",
        "title": f"Book {number}",
        "authors": ["A. Author"],
        "description": f"What happens in book {number}.",
        "category": make_category(category) if isinstance(category, str) else category,
        "price": price,
        "price_excl_tax": price,
        "tax": Decimal("0.00"),
        "currency": "GBP",
        "rating": 3,
        "stock": 7,
        "availability": "In stock",
        "review_count": 0,
        "product_type": "Books",
        "image_url": f"https://shop.example/{number}.jpg",
        "source_url": f"https://shop.example/{number}.html",
        "first_seen_at": now,
        "updated_at": now,
    }
    book = Book(**{**values, **fields})
    book.derive()
    return book


def save_books(books: Iterable[Book]) -> list[Book]:
    """The books in the database, with the changes that say so and their first observations: one revision."""
    with writing() as turn:
        saved = Book.objects.bulk_create(books, batch_size=500)
        PriceObservation.objects.bulk_create(
            [
                PriceObservation(book=book, at=turn.at, price=book.price, stock=book.stock, rating=book.rating)
                for book in saved
            ],
            batch_size=500,
        )
        for book in saved:
            turn.change(book.pk, Change.Kind.CREATED)
    return saved


def make_book(**fields: Any) -> Book:
    """One book of the catalogue."""
    return save_books([unsaved_book(**fields)])[0]


def make_books(n: int, **fields: Any) -> list[Book]:
    """`n` books whose prices, ratings, stocks and categories differ, and repeat."""
    shelves = [make_category(name) for name in ("Travel", "Mystery", "Poésie")]
    return save_books(
        unsaved_book(
            **{
                "price": f"{10 + i % 50}.{i % 4 * 25:02}",
                "rating": i % 5 + 1,
                "stock": i % 7,
                "category": shelves[i % 3],
                **fields,
            }
        )
        for i in range(n)
    )


def change_book(book: Book, **fields: Any) -> Book:
    """The book with new values, published like any correction."""
    with writing() as turn:
        differences = {}
        for name, value in fields.items():
            old = getattr(book, name)
            setattr(book, name, value)
            differences[name] = {"old": _plain(old), "new": _plain(value)}
        book.updated_at = turn.at
        book.save()
        PriceObservation.objects.create(book=book, at=turn.at, price=book.price, stock=book.stock, rating=book.rating)
        turn.change(book.pk, Change.Kind.UPDATED, differences)
    return book


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Decimal) else value
