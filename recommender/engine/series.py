"""Which series a title says it belongs to."""

from __future__ import annotations

import re

from recommender.engine.accents import unaccented

_LONGEST = 500  # characters of a title that are looked at: the patterns take time by the square of it
_NUMBER = r"(?:\d[\d.,–-]*|one|two|three|four|five|six|seven|eight|nine|ten|[ivx]+)"
_VOLUME = rf"(?:vol|volume|volumes|book|part|tome|tomo|band|livro|parte)\b\.?\s*#?{_NUMBER}\b"

# "Starving Hearts (Triangular Trade Trilogy, #1)", "Origins (Alphas 0.5)", "Saga 6 (Saga (Collected Editions) #6)".
_IN_BRACKETS = re.compile(
    rf"\((?P<series>(?:[^()]|\([^()]*\))*?[^\W\d](?:[^()]|\([^()]*\))*?)[\s,:;-]*(?:#\s*\d|\b{_VOLUME}|[\s,]\d)[^()]*\)",
    re.IGNORECASE,
)
# "Fables, Vol. 1: Legends in Exile", "Danganronpa Volume 1".
_BEFORE_VOLUME = re.compile(rf"^(?P<series>.*?[^\W\d].*?)[\s,:;(-]+{_VOLUME}", re.IGNORECASE)
# "Batman: The Long Halloween (Batman)": brackets at the end that say again how the title begins.
_AGAIN = re.compile(r"^(?P<series>[^():]+\w)\W.*\((?P=series)\)\s*$", re.IGNORECASE)


def series_of(title: str) -> str:
    """The series in a form that is equal for its other volumes, like "the raven cycle"; "" when the title names none.

    >>> series_of("The Raven Boys (The Raven Cycle #1)")
    'the raven cycle'
    >>> series_of("Fables, Vol. 1: Legends in Exile")
    'fables'
    """
    for pattern in (_IN_BRACKETS, _BEFORE_VOLUME, _AGAIN):
        found = pattern.search(title[:_LONGEST])
        if found:
            return _normalized(found["series"])
    return ""


def _normalized(name: str) -> str:
    """Without what is in brackets within, like the "(Collected Editions)" of a series that is also told without."""
    return " ".join(re.findall(r"\w+", unaccented(re.sub(r"\([^()]*\)", " ", name).casefold())))
