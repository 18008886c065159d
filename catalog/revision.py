"""The catalogue's revision, and the one door through which its writers go.

Every writer locks the revision row before it reads or writes anything else. A writer that locked books first
deadlocked against one that locked the row first; a sequence instead of the row let a reader who followed the changes
miss most of them, because numbers became visible out of order. See docs/adr/0002.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from catalog.bulk import Row, write_rows
from catalog.models import CatalogueRevision, Change

_CHANGE = ("revision", "book_id", "kind", "fields", "at")


@dataclass(slots=True)
class Writing:
    """One writer's turn. The changes that it notes are published with the next revision when its turn ends."""

    revision: int  # the number that its changes will carry
    at: datetime  # the time that its changes will carry
    changes: list[Row] = field(default_factory=list)  # noted, not yet written
    changed: bool = False  # whether any were ever noted

    def change(self, book_id: int, kind: Change.Kind, fields: dict[str, dict[str, Any]] | None = None) -> None:
        """Note a change of what the API shows: `fields` is {name: {"old": ..., "new": ...}} in JSON types."""
        self.changed = True
        self.changes.append((self.revision, book_id, str(kind), fields or {}, self.at))

    def write_changes(self) -> None:
        """Write the changes noted so far: for a turn with more of them than fit the memory. One query."""
        write_rows(Change, _CHANGE, self.changes)
        self.changes.clear()


@contextmanager
def writing() -> Iterator[Writing]:
    """A transaction that holds the catalogue's write lock from its first statement.

    The revision moves by one if changes were noted, in the same transaction; otherwise it stays. Three queries when
    something changed, one when nothing did.
    """
    with transaction.atomic():
        row = _locked_row()
        turn = Writing(revision=row.number + 1, at=timezone.now())
        yield turn
        if turn.changed:
            turn.write_changes()
            CatalogueRevision.objects.filter(pk=1).update(number=turn.revision)


def _locked_row() -> CatalogueRevision:
    rows = CatalogueRevision.objects.select_for_update()
    row = rows.filter(pk=1).first()
    if row is None:  # a database that was emptied by hand
        CatalogueRevision.objects.bulk_create([CatalogueRevision(pk=1)], ignore_conflicts=True)
        row = rows.get(pk=1)
    return row


def skip_ahead() -> int:
    """The revision, now beyond every number that was ever given out: what a database that was restored needs.

    What was committed after the backup is gone, and its numbers would be given to other changes: a client that follows
    them would miss those, and an ETag from before would call old bytes fresh. The clock in milliseconds is beyond them
    all, since nobody commits a thousand changes a second for long.
    """
    with transaction.atomic():
        row = _locked_row()
        number = max(row.number, int(timezone.now().timestamp() * 1000)) + 1
        CatalogueRevision.objects.filter(pk=1).update(number=number)
    return number


def current_revision() -> int:
    """The revision that readers see now. One query, by hand because every request asks it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT number FROM catalog_cataloguerevision WHERE id = 1")
        row = cursor.fetchone()
    return int(row[0]) if row else 0
