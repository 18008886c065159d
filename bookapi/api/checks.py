"""Bodies that are checked by hand: serializers take four seconds for ten thousand entries."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from rest_framework import exceptions

ERRORS_MAX = 100


class Errors:
    """What is wrong with a body: a field and a reason each, the first hundred of them."""

    def __init__(self) -> None:
        self.found: dict[str, list[exceptions.ErrorDetail]] = {}

    def add(self, field: str, detail: str, code: str = "invalid") -> None:
        if len(self.found) < ERRORS_MAX:
            self.found.setdefault(field, []).append(exceptions.ErrorDetail(detail, code))

    def check(self) -> None:
        """Raises ValidationError if there were any."""
        if self.found:
            raise exceptions.ValidationError(self.found)


class Fields:
    """The fields of one object of a body; what is wrong with them goes to `errors`, under `path`: `predictions.3`."""

    def __init__(self, errors: Errors, sent: Mapping[str, Any], path: str = "") -> None:
        self.errors = errors
        self.sent = sent
        self.path = path

    def refuse(self, name: str, detail: str, code: str | None = None) -> None:
        """A field that is wrong, or is not there though it has to be."""
        path = f"{self.path}.{name}" if self.path else name
        self.errors.add(path, detail, code or ("invalid" if name in self.sent else "required"))

    def only(self, known: Collection[str]) -> None:
        """Refuse all other fields."""
        for name in self.sent:
            if name not in known:
                self.refuse(name, f"Unknown. Known: {', '.join(known)}.", "unknown")

    def printable(self, name: str, max_length: int) -> str:
        """Text of printable characters, not blank; "" where it is refused."""
        value = self.sent.get(name)
        if isinstance(value, str) and 1 <= len(value.strip()) <= len(value) <= max_length and value.isprintable():
            return value
        self.refuse(name, f"1 to {max_length} printable characters are needed.")
        return ""

    def whole_number(self, name: str, detail: str, minimum: int, maximum: int) -> int:
        """A whole number, written as one; 0 where it is refused."""
        value = self.sent.get(name)
        if type(value) is int and minimum <= value <= maximum:
            return value
        self.refuse(name, detail)
        return 0

    def number(self, name: str) -> float | None:
        """Any finite number; None where it is refused."""
        value = self.sent.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
        self.refuse(name, "A number is needed.")
        return None

    def entries(self, name: str, max_length: int) -> list[Any]:
        """A list with something in it; empty where it is refused."""
        value = self.sent.get(name)
        if isinstance(value, list) and 1 <= len(value) <= max_length:
            return value
        self.refuse(name, f"A list of 1 to {max_length} {name} is needed.")
        return []


def an_object(body: Any) -> Mapping[str, Any]:
    """The body. Raises ValidationError if it is a list, a number or the like."""
    if not isinstance(body, dict):
        raise exceptions.ValidationError("An object is needed.")
    return body
