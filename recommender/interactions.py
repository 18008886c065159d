"""What readers did: kept once, and erased on demand. What an engine learns from it stands in `readings`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from django.contrib.auth import get_user_model
from django.db import transaction

from catalog.models import Book
from recommender.models import Interaction


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
