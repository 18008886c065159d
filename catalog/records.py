"""The records that cross borders: what the crawler hands over, and what cleaning makes of it.

Plain Python, so that parsing, queues and workers can carry them without Django.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from decimal import Decimal
from hashlib import blake2b
from operator import attrgetter
from typing import Any, Self

import orjson


@dataclass(frozen=True, slots=True)
class ScrapedBook:
    """One product page as the shop wrote it: raw text, nothing interpreted.

    An empty string means that the page does not tell.
    """

    shop: str  # slug of the shop, "books-toscrape"; identity is (shop, upc)
    source_url: str  # absolute address of the product page
    scraped_at: datetime  # when the page was read; aware, UTC
    upc: str = ""
    title: str = ""
    authors: tuple[str, ...] = ()  # in the order of the title page; the first shop does not tell them
    description: str = ""
    category: str = ""  # its name as the breadcrumb shows it
    price: str = ""  # what the buyer pays, "£51.77"
    price_excl_tax: str = ""
    tax: str = ""
    currency: str = ""  # ISO 4217 where the source names it apart from the price
    rating: str = ""  # "Three" or "3"
    availability: str = ""  # "In stock (22 available)"
    stock: str = ""  # copies, where the source names them apart from the availability
    review_count: str = ""
    product_type: str = ""
    image_url: str = ""  # absolute
    etag: str = ""  # of the page, for the next conditional visit
    parser_version: int = 0  # of the parser that read the page

    def raw_fields(self) -> dict[str, Any]:
        """What the page says, without when and how it was read: the part that is compared and kept."""
        return dict(zip(RAW_FIELDS, _raw_values(self), strict=True))

    def to_json(self) -> dict[str, Any]:
        """A dictionary of JSON types; `from_json` is its inverse."""
        return {**asdict(self), "authors": list(self.authors), "scraped_at": self.scraped_at.isoformat()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The record that `to_json` wrote.

        Raises:
            TypeError: a field that a ScrapedBook does not have, or one that is missing.
            ValueError: a time that is not ISO 8601.
        """
        return cls(
            **{
                **data,
                "authors": tuple(data.get("authors", ())),
                "scraped_at": datetime.fromisoformat(data["scraped_at"]),
            }
        )


#: Fields of a ScrapedBook that tell about the book; the others tell about the visit.
RAW_FIELDS: tuple[str, ...] = tuple(
    f.name for f in fields(ScrapedBook) if f.name not in {"shop", "scraped_at", "etag", "parser_version"}
)
_raw_values = attrgetter(*RAW_FIELDS)


def _hash64(content: bytes) -> int:
    """A signed 64-bit hash, which fits a BIGINT and is the same in every process."""
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "big", signed=True)


def fingerprint(scraped: ScrapedBook) -> int:
    """The identity of what a page says: equal for equal raw fields, whenever and however they were read."""
    values = _raw_values(scraped)
    try:
        return _hash64(orjson.dumps(values))
    except TypeError:  # half of a surrogate pair, or what is not a text at all: cleaning will refuse it
        return _hash64(json.dumps(values, default=repr).encode())


def page_key(shop: str, source_url: str, upc: str) -> int:
    """The identity of a page within a run: its address, or the UPC where a catalogue from a file has no address."""
    return _hash64((source_url or f"{shop}\n{upc}").encode("utf-8", "surrogatepass"))


@dataclass(frozen=True, slots=True)
class RevisitedBook:
    """A product page that answered 304: seen, and the same as at the last visit."""

    shop: str
    upc: str
    source_url: str
    scraped_at: datetime

    def to_json(self) -> dict[str, Any]:
        """A dictionary of JSON types, which no ScrapedBook has; `from_json` is its inverse."""
        return {"revisited": {**asdict(self), "scraped_at": self.scraped_at.isoformat()}}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The record that `to_json` wrote. Raises TypeError, ValueError, as that of a ScrapedBook does."""
        told = data["revisited"]
        return cls(**{**told, "scraped_at": datetime.fromisoformat(told["scraped_at"])})


#: What a spider reads of a page.
Read = ScrapedBook | RevisitedBook


def read_from_json(data: dict[str, Any]) -> Read:
    """The record of either kind that `to_json` wrote. Raises KeyError, TypeError, ValueError for anything else."""
    return (RevisitedBook if "revisited" in data else ScrapedBook).from_json(data)


@dataclass(frozen=True, slots=True)
class BookRecord:
    """A clean book: typed, normalized, and valid on every database."""

    upc: str
    title: str
    authors: tuple[str, ...]
    description: str  # "" when the shop has none
    category: str
    price: Decimal  # two places, >= 0
    price_excl_tax: Decimal
    tax: Decimal
    currency: str  # ISO 4217
    rating: int  # stars, 1-5
    stock: int  # copies, >= 0
    availability: str  # the shop's words without the count: "In stock"
    in_stock: bool
    review_count: int
    product_type: str
    image_url: str
    source_url: str


@dataclass(frozen=True, slots=True)
class FieldError:
    """Why one field of a scraped record was refused."""

    field: str  # name of the ScrapedBook field
    code: str  # "missing", "invalid", "out_of_range", "too_long"
    detail: str  # a sentence for a person, with the offending value cut to 80 characters


class RejectedRecord(Exception):
    """A scraped record that cannot become a book."""

    def __init__(self, errors: list[FieldError]) -> None:
        super().__init__("; ".join(f"{e.field}: {e.detail}" for e in errors))
        self.errors = errors


@dataclass(slots=True)
class IngestCounts:
    """What became of a batch.

    `seen` is the sum of the others; duplicates were counted before and are not seen again.
    """

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    stale: int = 0
    rejected: int = 0
    duplicates: int = 0

    @property
    def seen(self) -> int:
        return self.created + self.updated + self.unchanged + self.stale + self.rejected

    def __iadd__(self, other: IngestCounts) -> Self:
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self
