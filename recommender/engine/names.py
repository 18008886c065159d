"""Who is named in a description: its author more often than not, or who it is about."""

from __future__ import annotations

import re
from collections.abc import Container

from recommender.engine.accents import unaccented

# Two capitalised words, with initials between them; found at every place, so that three words give two pairs.
_PAIR = re.compile(r"(?=\b([A-Z][a-zA-Z]+) (?:[A-Z]\.? )*([A-Z][a-zA-Z]+)\b)")


def names_in(text: str, common: Container[str]) -> tuple[str, ...]:
    """Pairs of capitalised words, none of them in `common`, in the order of the alphabet and in lower case.

    Only Latin letters are looked at. Where nouns are capitalised, as in German, most pairs are no names, but few books
    share one by chance.

    >>> names_in("From the author of Carrie: Stephen King's classic", common={"the", "from"})
    ('stephen king',)
    """
    pairs = {(first.lower(), second.lower()) for first, second in _PAIR.findall(unaccented(text))}
    return tuple(sorted(f"{a} {b}" for a, b in pairs if a not in common and b not in common))
