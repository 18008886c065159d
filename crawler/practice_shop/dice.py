"""Chance that can be repeated: numbers drawn from a seed, the same on every machine and in every process."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

T = TypeVar("T")

_MASK = (1 << 64) - 1
_STEP = 0x9E3779B97F4A7C15


def mix(number: int) -> int:
    """A 64-bit number for a 64-bit number, one to one: different numbers never give the same.

    The finalizer of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
    """
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & _MASK
    return number ^ (number >> 31)


def key(*parts: int) -> int:
    """One 64-bit number for several, to start dice from or to offset `mix` by."""
    state = 0
    for part in parts:
        state = mix((state + _STEP + part) & _MASK)
    return state


@lru_cache(maxsize=256)
def offset(*parts: int) -> int:
    """The key of a few parts that come again and again, remembered."""
    return key(*parts)


def unique(start: int, number: int) -> int:
    """64 bits that no other number below 2**64 has from the same start."""
    return mix((start + number * _STEP) & _MASK)  # the step is odd, so that the product is one to one too


class Dice:
    """Draws in an order that the parts alone decide."""

    __slots__ = ("_state",)

    def __init__(self, *parts: int) -> None:
        self._state = key(*parts)

    def roll(self, sides: int) -> int:
        """A number from 0 to sides - 1."""
        self._state = number = (self._state + _STEP) & _MASK
        # `mix`, written out: a book takes some forty rolls, and the call would be a third of their cost.
        number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & _MASK
        return (number ^ (number >> 31)) * sides >> 64

    def pick(self, options: Sequence[T]) -> T:
        return options[self.roll(len(options))]

    def chance(self, percent: int) -> bool:
        return self.roll(100) < percent

    def shuffled(self, options: Sequence[T]) -> list[T]:
        """The options in another order (Fisher and Yates)."""
        deck = list(options)
        for last in range(len(deck) - 1, 0, -1):
            other = self.roll(last + 1)
            deck[last], deck[other] = deck[other], deck[last]
        return deck
