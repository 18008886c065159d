"""One clean record meets one book: what changes, what a person has locked, what the shop says of it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.db.models.base import ModelState

from catalog.models import Book, Category, PriceObservation
from catalog.records import BookRecord

#: {field: {"old": ..., "new": ...}} in JSON types, as `/changes` shows it.
Differences = dict[str, dict[str, Any]]

_BLANK = {f.attname: f.get_default() for f in Book._meta.concrete_fields}


class Shelves:
    """Categories by the shop's name for them, looked up once and made where they are missing."""

    def __init__(self) -> None:
        self._found: dict[str, Category] = {}

    def find(self, shop_names: Iterable[str]) -> None:
        """Look up many at once. One query."""
        self._found |= {c.shop_name: c for c in Category.objects.filter(shop_name__in=set(shop_names))}

    def __getitem__(self, shop_name: str) -> Category:
        """Queries only for a name that was not found before."""
        if shop_name not in self._found:
            category = Category.objects.filter(shop_name=shop_name).first()
            self._found[shop_name] = category or Category.objects.create(shop_name=shop_name, name=shop_name)
        return self._found[shop_name]


def values_of(record: BookRecord, shelves: Shelves) -> dict[str, Any]:
    """The record as attributes of a Book."""
    return {
        "title": record.title,
        "authors": list(record.authors),
        "description": record.description,
        "category": shelves[record.category],
        "price": record.price,
        "price_excl_tax": record.price_excl_tax,
        "tax": record.tax,
        "currency": record.currency,
        "rating": record.rating,
        "stock": record.stock,
        "availability": record.availability,
        "review_count": record.review_count,
        "product_type": record.product_type,
        "image_url": record.image_url,
        "source_url": record.source_url,
    }


def new_book(record: BookRecord, shop: str, shelves: Shelves, at: datetime) -> Book:
    """A Book that is not saved yet, made without `__init__`: that looks at every field, for seven times as long."""
    values = _BLANK | values_of(record, shelves) | {"locked_fields": [], "shop_values": {}}
    values |= {"shop": shop, "upc": record.upc, "first_seen_at": at, "updated_at": at}
    values["category_id"] = values.pop("category").pk
    book = Book.__new__(Book)
    book._state = ModelState()
    vars(book).update(values)
    book.derive()
    return book


def apply_record(book: Book, record: BookRecord, shelves: Shelves) -> tuple[Differences, bool]:
    """Set on `book` what the record says, except locked fields, whose values are kept aside for the curator.

    Returns the visible differences, and whether a value kept aside has changed. Saves nothing.
    """
    differences: Differences = {}
    said = dict(book.shop_values)
    was_in_stock = book.in_stock
    for name, new in values_of(record, shelves).items():
        if name in book.locked_fields:
            said[name] = as_json(new)
            continue
        old = getattr(book, name)
        if old != new:
            setattr(book, name, new)
            differences[name] = {"old": as_json(old), "new": as_json(new)}
    kept_aside = said != book.shop_values
    book.shop_values = said
    if differences:
        book.derive()
    if book.in_stock != was_in_stock:
        differences["in_stock"] = {"old": was_in_stock, "new": book.in_stock}
    return differences, kept_aside


def observation(book: Book, at: datetime) -> PriceObservation:
    """Price, stock and rating as they are from `at` on."""
    return PriceObservation(book=book, at=at, price=book.price, stock=book.stock, rating=book.rating)


def as_json(value: Any) -> Any:
    """A field's value in JSON types: money as text with two places, a category by name and slug."""
    if isinstance(value, Category):
        return {"name": value.name, "slug": value.slug}
    return value if isinstance(value, str | int | list) or value is None else str(value)
