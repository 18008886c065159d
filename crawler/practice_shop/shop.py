"""The shop as a whole: what is on its shelves now, in the order in which its lists show it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

from crawler.practice_shop.books import ShopBook, tell
from crawler.practice_shop.changes import Change, replay
from crawler.practice_shop.faults import Fault, fault_of
from crawler.practice_shop.shelves import PAGE_SIZE, Row, Wheel
from crawler.practice_shop.words import GENRES

MOST_BOOKS = 1_000_000
MOST_CHANGES = 1_000_000
# A page shows its neighbors, and a list the books whose pages are read next.
_REMEMBERED = 2048


class Listing:
    """Ids of the books of a category or of the whole shop, newest first; any page is found by formula."""

    def __init__(self, wheel: Wheel, category: int | None, row: Row) -> None:
        self._wheel, self._category, self._row = wheel, category, row

    def __len__(self) -> int:
        return len(self._row)

    def __iter__(self) -> Iterator[int]:
        return map(self.nth, range(len(self)))

    def nth(self, n: int) -> int:
        """The id with n others before it, n from 0 to len - 1."""
        index = self._row.nth(len(self) - 1 - n)
        return index + 1 if self._category is None else self._wheel.number(self._category, index)

    @property
    def page_count(self) -> int:
        return max(1, -(-len(self) // PAGE_SIZE))

    def page(self, number: int) -> list[int]:
        """The ids on a page; pages count from 1."""
        first = (number - 1) * PAGE_SIZE
        return [self.nth(n) for n in range(first, min(first + PAGE_SIZE, len(self)))]


class Shop:
    """A bookshop of `books` books after `changes` changes; the same arguments give the same shop everywhere.

    Raises:
        ValueError: fewer than 1 or more than 1,000,000 books; changes below 0 or above 1,000,000.
    """

    def __init__(self, books: int, seed: int = 1, changes: int = 0, faults: bool = False) -> None:
        if not 1 <= books <= MOST_BOOKS:
            raise ValueError(f"books must be between 1 and {MOST_BOOKS:,}, not {books:,}")
        if not 0 <= changes <= MOST_CHANGES:
            raise ValueError(f"changes must be between 0 and {MOST_CHANGES:,}, not {changes:,}")
        self.books, self.seed, self.changes, self.faults = books, seed, changes, faults
        self._wheel = Wheel(seed)
        self._ledger = replay(seed, books, changes)
        self._tell = lru_cache(_REMEMBERED)(self._tell_anew)
        gone_of_category: list[list[int]] = [[] for _ in GENRES]
        for number in self._ledger.gone:
            category, index = self._wheel.place(number)
            gone_of_category[category].append(index)
        self._all = Listing(self._wheel, None, Row(self._ledger.last, (n - 1 for n in self._ledger.gone)))
        self._shelves = [
            Listing(self._wheel, category, Row(self._wheel.count(category, self._ledger.last), gone))
            for category, gone in enumerate(gone_of_category)
        ]

    @property
    def announced(self) -> int:
        """How many books the shop says it has."""
        return self._ledger.announced

    @property
    def log(self) -> Sequence[Change]:
        """What happened since the shop opened, in order."""
        return self._ledger.log

    def __contains__(self, book_id: int) -> bool:
        return self._ledger.has(book_id)

    def ids(self) -> Listing:
        """Every listed id, in the order of the lists: the highest first."""
        return self._all

    def category_ids(self, category: int) -> Listing:
        """The listed ids of category 0-49."""
        return self._shelves[category]

    def book(self, book_id: int) -> ShopBook:
        """A listed book. Raises KeyError when there is none of that id, or it is gone."""
        if book_id not in self:
            raise KeyError(book_id)
        return self._tell(book_id)

    def truth(self) -> Iterator[ShopBook]:
        """Every listed book as it really is, whatever its page makes of it, in the order of the lists."""
        return map(self.book, self.ids())

    def fault(self, book_id: int) -> Fault | None:
        """How the page of a listed book misbehaves; None when it does not."""
        return fault_of(self.seed, book_id) if self.faults and book_id in self else None

    def _tell_anew(self, book_id: int) -> ShopBook:
        return tell(self.seed, self._wheel, book_id, self._ledger.price(book_id), self._ledger.stock(book_id))
