"""What readers did: kept once, erased on demand, and made into readings that an engine learns from."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from django.contrib.auth import get_user_model
from django.db import transaction
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


class UnknownBooks(Exception):
    """There are no such books."""

    def __init__(self, ids: Collection[int]) -> None:
        super().__init__(f"There are no such books: {', '.join(map(str, sorted(ids)))}.")
        self.ids = frozenset(ids)


class UnknownAccount(Exception):
    """There is no such account any more."""


@dataclass(frozen=True, slots=True)
class Recorded:
    accepted: int
    duplicates: int  # known by their key: a request that was sent again


# --- Keeping and erasing ----------------------------------------------------------------------------------------------
@transaction.atomic
def record(account: int, interactions: Sequence[Interaction]) -> Recorded:
    """Keep the interactions of an account, all or none; those of a merged book go to its survivor.

    A key that the account has used stands for the interaction that it was first sent with. Four queries: the account,
    which is locked so that the same keys sent twice at once are counted once; books, keys, insert. On SQLite, which
    takes 999 values at once, an insert for every 142 interactions.

    Raises:
        UnknownBooks: some of the books are not there, or hidden.
        UnknownAccount: it was deleted meanwhile.
    """
    if not get_user_model().objects.select_for_update(no_key=True).filter(pk=account).values_list("pk").first():
        raise UnknownAccount
    survivors = _survivors({interaction.book_id for interaction in interactions})
    by_key: dict[str, Interaction] = {}
    for interaction in interactions:
        interaction.account_id, interaction.book_id = account, survivors[interaction.book_id]
        by_key.setdefault(interaction.key, interaction)
    known = (
        Interaction.objects.filter(account=account, key__among=list(by_key)).order_by().values_list("key", flat=True)
    )
    for key in list(known):
        del by_key[key]
    Interaction.objects.bulk_create(by_key.values())
    return Recorded(accepted=len(by_key), duplicates=len(interactions) - len(by_key))


def _survivors(ids: Collection[int]) -> dict[int, int]:
    """Each book and the one that it is merged into, or itself. One query. Raises UnknownBooks."""
    rows = (
        Book.objects.filter(pk__among=ids).order_by().values_list("pk", "merged_into", "hidden", "merged_into__hidden")
    )
    found = {pk: into or pk for pk, into, hidden, into_hidden in rows if not (into_hidden if into else hidden)}
    if unknown := set(ids) - found.keys():
        raise UnknownBooks(unknown)
    return found


def erase(account: int, reader: str) -> int:
    """How many interactions of the account's reader are gone now. One query."""
    deleted, _ = Interaction.objects.filter(account=account, reader=reader).delete()
    return deleted


# --- Learning ---------------------------------------------------------------------------------------------------------
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
