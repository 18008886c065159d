"""A catalogue that comes as a file: one JSON object a line, through the same `ingest` as a crawl.

Keys are the raw fields of a ScrapedBook, and `scraped_at`; values are texts or numbers. Nothing is guessed: a key that
is not one of these is counted and reported, a line that cannot be read is kept as a rejected item with its number.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from catalog.ingest.batches import take
from catalog.ingest.closing import finish_run
from catalog.ingest.pages import record_rejected_line
from catalog.ingest.runs import announce
from catalog.models import CrawlRun
from catalog.records import RAW_FIELDS, ScrapedBook, fingerprint, page_key

#: Lines a transaction: what an interruption can undo, and what a progress bar moves by.
BATCH = 500
#: Keys that are told by name when they are not known.
UNKNOWN_TOLD = 20


class UnreadableLine(Exception):
    """A line that is no record: in which field, and why."""

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(f"{name}: {detail}")
        self.upc = ""  # of the book on the line, where that much can be read


@dataclass(slots=True)
class FileIngest:
    """The lines of one file on their way into one run.

    Lines that a record does not date carry the time of the run. So a line that is read again, after an interruption,
    is the same visit and counted once.
    """

    run: CrawlRun
    name: str  # of the file, as messages show it
    tell: Callable[[str], None]  # takes a message for a person, FILE:LINE: field: detail
    visits: int = 0  # different books and times in the file
    repeated: int = 0  # lines that say an earlier one again
    unreadable: int = 0  # lines that do not even tell of which book they are
    contradicted: int = 0  # lines that say something else than an earlier one of the same book and time
    unknown_keys: Counter[str] = field(default_factory=Counter)
    _first: dict[tuple[int, datetime], tuple[int, int]] = field(default_factory=dict)  # line number and fingerprint

    def read(self, lines: Iterable[bytes]) -> None:
        """Ingest the lines, some hundred a transaction. May be interrupted anywhere."""
        records = self._records(lines)
        while batch := list(islice(records, BATCH)):
            references = [f"{self.name}:{number}" for number, _ in batch]
            for visit in take([record for _, record in batch], self.run.pk, references):
                for error in visit.errors:
                    self.tell(f"{visit.reference}: {error.field}: {error.detail}")

    def finish(self) -> CrawlRun:
        """The run, closed: every line of the file was read. What a whole catalogue does not hold is delisted.

        A file with a line that cannot be read at all is not taken for whole: nobody knows which book is on that line.
        """
        if not self.unreadable:
            announce(self.run.pk, self.visits)
        return finish_run(self.run.pk, warnings=self._warnings())

    def _records(self, lines: Iterable[bytes]) -> Iterator[tuple[int, ScrapedBook]]:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                record = self._record(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
            except UnreadableLine as error:
                self._reject(number, line, error)
                continue
            if self._is_first(number, record):
                self.visits += 1
                yield number, record

    def _record(self, line: bytes) -> ScrapedBook:
        values = parsed(line)
        for key in values.keys() - _KEYS:
            self.unknown_keys[key] += 1
        try:
            raw: dict[str, Any] = {
                name: _raw(name, values[name]) for name in RAW_FIELDS if values.get(name) is not None
            }
            told = values.get("scraped_at")
            at = self.run.started_at if told is None else _time(told)
        except UnreadableLine as error:
            upc = values.get("upc")
            error.upc = upc.strip() if isinstance(upc, str) else ""
            raise
        return ScrapedBook(**{"shop": self.run.shop, "source_url": "", "scraped_at": at, **raw})

    def _is_first(self, number: int, record: ScrapedBook) -> bool:
        visit = page_key(record.shop, record.source_url, record.upc), record.scraped_at
        content = fingerprint(record)
        first, said = self._first.setdefault(visit, (number, content))
        if first == number:
            return True
        if said == content:
            self.repeated += 1
            self.tell(f"{self.name}:{number}: upc: Repeats line {first}.")
        else:
            self.contradicted += 1
            self.tell(f"{self.name}:{number}: upc: Contradicts line {first}, which was taken.")
        return False

    def _reject(self, number: int, line: bytes, error: UnreadableLine) -> None:
        reference = f"{self.name}:{number}"
        self.visits += 1
        self.unreadable += not error.upc
        self.tell(f"{reference}: {error}")
        text = line.decode("utf-8", "backslashreplace").rstrip("\r\n")
        record_rejected_line(self.run.pk, reference, text, str(error), upc=error.upc)

    def _warnings(self) -> list[dict[str, str]]:
        found = []
        for key, n in self.unknown_keys.most_common(UNKNOWN_TOLD):
            found.append({"code": "unknown_key", "detail": f"{key!r} in {n} lines was not used."})
        if len(self.unknown_keys) > UNKNOWN_TOLD:
            more = len(self.unknown_keys) - UNKNOWN_TOLD
            found.append({"code": "unknown_key", "detail": f"{more} more keys were not used."})
        if self.unreadable:
            detail = f"{self.unreadable} lines do not tell of which book they are: the file is not taken for whole."
            found.append({"code": "unreadable_lines", "detail": detail})
        if self.repeated:
            found.append({"code": "repeated_lines", "detail": f"{self.repeated} lines say an earlier one again."})
        if self.contradicted:
            detail = f"{self.contradicted} lines contradict an earlier one of the same book and were not taken."
            found.append({"code": "contradicting_lines", "detail": detail})
        return found


_KEYS = {*RAW_FIELDS, "scraped_at"}


def parsed(line: bytes) -> dict[str, Any]:
    """The object of a line; numbers as the texts that they are written in, so that 51.50 stays 51.50.

    Raises:
        UnreadableLine: not UTF-8, not JSON, not an object, or one that names a key twice.
    """
    try:
        values = json.loads(
            line.decode(), parse_float=str, parse_int=str, parse_constant=_no_number, object_pairs_hook=_each_key_once
        )
    except UnicodeDecodeError as error:
        raise UnreadableLine("line", f"Is not UTF-8 at byte {error.start + 1}.") from error
    except json.JSONDecodeError as error:
        raise UnreadableLine("line", f"Is not JSON at character {error.colno}: {error.msg}.") from error
    except RecursionError as error:
        raise UnreadableLine("line", "Is nested too deeply.") from error
    if not isinstance(values, dict):
        raise UnreadableLine("line", "Is not a JSON object.")
    return values


def _no_number(name: str) -> None:
    raise UnreadableLine("line", f"{name} is not a number of JSON.")


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = next(key for key, n in Counter(key for key, _ in pairs).items() if n > 1)
        raise UnreadableLine(twice if twice in _KEYS else "line", f"The key {twice[:80]!r} is there twice.")
    return values


def _raw(name: str, value: Any) -> str | tuple[str, ...]:
    if name == "authors":
        names = [value] if isinstance(value, str) else value
        if isinstance(names, list) and all(isinstance(n, str) for n in names):
            return tuple(n for n in names if n)
        raise UnreadableLine(name, "Is neither a text nor a list of texts.")
    if not isinstance(value, str):
        raise UnreadableLine(name, "Is neither a text nor a number.")
    return value.strip() if name == "source_url" else value


def _time(told: Any) -> datetime:
    """A time of ISO 8601; one without an offset is UTC."""
    try:
        at = datetime.fromisoformat(told)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError) as error:
        raise UnreadableLine("scraped_at", "Is not a time of ISO 8601.") from error
