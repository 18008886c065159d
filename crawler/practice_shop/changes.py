"""What happened to the shop since it opened: a log of K changes and the state after them, in O(K) memory.

The log of K changes is the beginning of the log of K + 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from crawler.practice_shop.books import HIGHEST_PRICE, LOWEST_PRICE, MOST_STOCK, price_pence, stock_copies
from crawler.practice_shop.dice import Dice

Kind = Literal["price", "stock", "new", "gone"]
_CHANGE = 2
_KINDS: tuple[Kind, ...] = ("price",) * 4 + ("stock",) * 4 + ("new", "gone")


@dataclass(frozen=True, slots=True)
class Change:
    """One event: a price or a stock differs, a book came or left."""

    kind: Kind
    book: int  # its id


@dataclass(slots=True)
class Ledger:
    """The shop after its changes, as differences from the day it opened."""

    seed: int
    last: int  # the highest id that was ever given
    prices: dict[int, int] = field(default_factory=dict)  # id -> pence
    stocks: dict[int, int] = field(default_factory=dict)  # id -> copies
    gone: set[int] = field(default_factory=set)
    log: list[Change] = field(default_factory=list)

    @property
    def announced(self) -> int:
        return self.last - len(self.gone)

    def has(self, number: int) -> bool:
        return 1 <= number <= self.last and number not in self.gone

    def price(self, number: int) -> int:
        """Pence."""
        return self.prices[number] if number in self.prices else price_pence(self.seed, number)

    def stock(self, number: int) -> int:
        return self.stocks[number] if number in self.stocks else stock_copies(self.seed, number)


def replay(seed: int, books: int, count: int) -> Ledger:
    """The ledger of a shop that opened with that many books, after its first `count` changes."""
    ledger = Ledger(seed=seed, last=books)
    for i in range(count):
        dice = Dice(seed, i, _CHANGE)
        kind = dice.pick(_KINDS)
        if kind == "gone" and ledger.announced == 1:
            kind = "new"  # a shop keeps at least one book
        if kind == "new":
            ledger.last += 1
        book = ledger.last if kind == "new" else _listed(ledger, dice)
        _apply(ledger, kind, book, dice)
        ledger.log.append(Change(kind, book))
    return ledger


def _listed(ledger: Ledger, dice: Dice) -> int:
    book = dice.roll(ledger.last) + 1
    while book in ledger.gone:
        book = book % ledger.last + 1
    return book


def _apply(ledger: Ledger, kind: Kind, book: int, dice: Dice) -> None:
    if kind == "gone":
        ledger.gone.add(book)
    elif kind == "price":  # a step of at least one penny around the circle of prices: never the same again
        span = HIGHEST_PRICE - LOWEST_PRICE + 1
        old = ledger.price(book) - LOWEST_PRICE
        ledger.prices[book] = LOWEST_PRICE + (old + 1 + dice.roll(span - 1)) % span
    elif kind == "stock":
        ledger.stocks[book] = (ledger.stock(book) + 1 + dice.roll(MOST_STOCK)) % (MOST_STOCK + 1)
