"""Which series a title says it belongs to."""

from __future__ import annotations

import re
import unicodedata

# "Shadow and Bone (The Grisha, #1)", "March: Book One (March #1)": what is in brackets before a number.
_IN_BRACKETS = re.compile(r"\((?P<series>[^()]*?)[\s,:;]*#\s*\d[^()]*\)")


def series_of(title: str) -> str:
    """The series in a form that is equal for its other volumes, like "the grisha"; "" when the title names none."""
    found = _IN_BRACKETS.search(title)
    return _normalized(found["series"]) if found else ""


def _normalized(name: str) -> str:
    decomposed = unicodedata.normalize("NFKD", name.casefold())
    letters = "".join(c for c in decomposed if not unicodedata.combining(c))
    return " ".join(re.findall(r"\w+", letters))
