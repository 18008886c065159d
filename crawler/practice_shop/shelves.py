"""Which book stands where: the category of a number and the k-th number of a category, both by formula.

Categories are dealt by a wheel: a fixed deck of slots, shuffled by the seed, that turns over the numbers again and
again. So nothing is scanned, however large the shop, and the first books do not depend on how many follow.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

from crawler.practice_shop.dice import Dice
from crawler.practice_shop.words import GENRES

PAGE_SIZE = 20  # books on a list page
_WHEEL = 1


class Wheel:
    """Deals book numbers 1, 2, 3, ... to categories 0-49."""

    def __init__(self, seed: int) -> None:
        deck = [category for category, genre in enumerate(GENRES) for _ in range(genre.weight)]
        self._slots = Dice(seed, _WHEEL).shuffled(deck)
        self._of_category: list[list[int]] = [[] for _ in GENRES]
        self._rank: list[int] = []  # how many slots of the same category stand before this one
        for slot, category in enumerate(self._slots):
            self._rank.append(len(self._of_category[category]))
            self._of_category[category].append(slot)

    def place(self, number: int) -> tuple[int, int]:
        """Category of a book number, and the index 0, 1, 2, ... of the book in that category."""
        turn, slot = divmod(number - 1, len(self._slots))
        category = self._slots[slot]
        return category, turn * len(self._of_category[category]) + self._rank[slot]

    def number(self, category: int, index: int) -> int:
        """The book number at an index of a category: the inverse of `place`."""
        slots = self._of_category[category]
        turn, rank = divmod(index, len(slots))
        return turn * len(self._slots) + slots[rank] + 1

    def count(self, category: int, last: int) -> int:
        """How many of the numbers 1..last are in a category."""
        turns, rest = divmod(last, len(self._slots))
        slots = self._of_category[category]
        return turns * len(slots) + bisect_left(slots, rest)


class Row:
    """The numbers 0..total-1 without some gaps; its n-th member costs a binary search over the gaps alone."""

    def __init__(self, total: int, gaps: Iterable[int]) -> None:
        ordered = sorted(gaps)
        self._kept_before = [gap - i for i, gap in enumerate(ordered)]
        self._length = total - len(ordered)

    def __len__(self) -> int:
        return self._length

    def nth(self, n: int) -> int:
        """The member with n members before it, n from 0 to len - 1."""
        return n + bisect_right(self._kept_before, n)
