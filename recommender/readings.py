"""What an engine learns from interactions: who read which book, and how much that says."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
from django.contrib.auth import get_user_model
from numpy.typing import NDArray
from scipy.sparse import csr_array

from catalog.models import Book
from catalog.rows import Row, batches, snapshot
from recommender.engine.corpus import Corpus, Readings
from recommender.models import Interaction

REPORT_READERS = "recommender.report_readers"
#: What an interaction says of having read and liked a book, 0-1. A view may be an accident; a dislike says: not this.
WEIGHTS: Mapping[str, float] = {"view": 0.1, "click": 0.2, "like": 1.0, "dislike": 0.0}
STARS: Mapping[int, float] = {1: 0.0, 2: 0.0, 3: 0.5, 4: 1.0, 5: 1.0}
#: Of these the latest counts and nothing else; without one of them, the most telling of the others.
OPINIONS = frozenset({"like", "dislike", "rate"})
#: Books of one reader, the latest. Every pair of them is looked at, and whoever read everything says nothing.
BOOKS_PER_READER = 500


def readings_from_interactions(corpus: Corpus) -> Readings:
    """What readers read, one weight per reader and book, above 0 and at most 1.

    Nobody can sway it: a reader counts with the latest `BOOKS_PER_READER` books, and whatever an account that may not
    report for many readers calls them, to us it is one reader. Disabled accounts count no more. Three queries, the
    last one read as a stream.
    """
    identity = _Identities(_trusted_accounts(), _merged_books())
    parts = [identity.columns(rows) for rows in _interactions()]
    if not parts or not len(corpus):
        return Readings(csr_array((0, len(corpus)), dtype=np.float32))
    readers, books, weights, opinions = map(np.concatenate, zip(*parts, strict=True))
    positions = np.minimum(np.searchsorted(corpus.ids, books), len(corpus) - 1)
    known = corpus.ids[positions] == books
    return _readings(readers[known], positions[known], weights[known], opinions[known], len(corpus))


class _Identities:
    """Who is one reader, and which is one book."""

    def __init__(self, trusted: Collection[int], merged: Mapping[int, int]) -> None:
        self.trusted = trusted  # accounts whose readers are counted one by one
        self.merged = merged  # book -> survivor
        self.numbers: dict[tuple[int, str], int] = {}  # of (account, reader)

    def columns(
        self, rows: Sequence[Row]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]:
        """Number of the reader, id of the book, weight, whether it is an opinion: of each row of `_interactions`."""
        readers = (self._number(account, reader) for account, reader, *_ in rows)
        books = (self.merged.get(book, book) for _, _, book, *_ in rows)
        weights = (STARS[value] if value else WEIGHTS[kind] for *_, kind, value in rows)
        opinions = (kind in OPINIONS for *_, kind, _ in rows)
        n = len(rows)
        return (
            np.fromiter(readers, np.int64, n),
            np.fromiter(books, np.int64, n),
            np.fromiter(weights, np.float32, n),
            np.fromiter(opinions, np.bool_, n),
        )

    def _number(self, account: int, reader: str) -> int:
        who = (account, reader if account in self.trusted else "")
        return self.numbers.setdefault(who, len(self.numbers))


def _trusted_accounts() -> set[int]:
    """Accounts that may report for many readers. One query."""
    users = get_user_model().objects.with_perm(REPORT_READERS, backend="django.contrib.auth.backends.ModelBackend")
    return set(users.order_by().values_list("pk", flat=True))


def _merged_books() -> dict[int, int]:
    """Each book that was merged away and its survivor. One query."""
    rows = Book.objects.filter(merged_into__isnull=False).order_by().values_list("pk", "merged_into")
    return {pk: into for pk, into in rows if into is not None}


def _interactions() -> Iterator[Sequence[Row]]:
    """Rows of account, reader, book, kind and value, the oldest first, in batches."""
    rows = (
        Interaction.objects.filter(account__is_active=True)
        .order_by("at", "id")
        .values_list("account", "reader", "book", "kind", "value")
    )
    with snapshot() as own:
        yield from batches(rows, own, size=10_000)


def _readings(
    readers: NDArray[np.int64],
    books: NDArray[np.int64],
    weights: NDArray[np.float32],
    opinions: NDArray[np.bool_],
    n_books: int,
) -> Readings:
    """From interactions, the oldest first: columns of equal length, books as rows of the corpus."""
    # Opinions after the others, of those the later after the earlier, of the others the weightier after the lighter:
    # then the last of each pair is the one that counts.
    age = np.arange(len(readers))
    order = np.lexsort((np.where(opinions, age, weights), opinions, books, readers))
    readers, books, weights, age = readers[order], books[order], weights[order], age[order]
    last = np.ones(len(readers), np.bool_)
    last[:-1] = (np.diff(readers) != 0) | (np.diff(books) != 0)
    counts = last & (weights > 0)
    readers, books, weights, age = readers[counts], books[counts], weights[counts], age[counts]
    latest = np.lexsort((-age, readers))
    rank = np.arange(len(latest)) - np.searchsorted(readers[latest], readers[latest])
    kept = latest[rank < BOOKS_PER_READER]
    names, rows = np.unique(readers[kept], return_inverse=True)
    matrix = csr_array((weights[kept], (rows, books[kept])), shape=(len(names), n_books), dtype=np.float32)
    return Readings(matrix)
