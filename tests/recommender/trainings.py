"""A small catalogue whose books resemble each other, readers who agree with it, and trainings on both."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from django.contrib.auth.models import Permission

from catalog.models import Book
from recommender.models import Interaction, ModelVersion
from recommender.promotion import conclude
from recommender.registry import adopt_training, start_training
from recommender.training import Trained, train
from tests.bookapi.logins import make_user
from tests.factories import save_books, unsaved_book
from tests.recommender.trained import SHELVES

TITLES = "garden window river letter summer shadow winter silence glass bridge"


def make_shelves(n: int = 60) -> list[Book]:
    """Books on four shelves: their descriptions are made of the words of their shelf, their titles of any words."""
    dice = np.random.default_rng(7)
    shelves = [list(SHELVES)[i % len(SHELVES)] for i in range(n)]
    return save_books(
        unsaved_book(
            title=" ".join(dice.choice(TITLES.split(), 3)).title(),
            description=" ".join(dice.choice(SHELVES[shelf].split(), 12)),
            category=shelf,
            authors=[],
        )
        for shelf in shelves
    )


def make_readers(books: Sequence[Book], n: int = 120, name: str = "shop") -> None:
    """Readers who read eight books of one shelf each, as a trusted account reports them."""
    dice = np.random.default_rng(8)
    account = make_user(name)
    account.user_permissions.add(Permission.objects.get(codename="report_readers"))
    for reader in range(n):
        own = books[reader % len(SHELVES) :: len(SHELVES)]
        Interaction.objects.bulk_create(
            Interaction(
                account=account,
                reader=f"r{reader}",
                book=own[place],
                kind="like",
                at=datetime(2026, 1, 2, tzinfo=UTC),
                key=f"{reader}/{place}",
            )
            for place in dice.choice(len(own), min(8, len(own)), replace=False)
        )


def trained(recipe: str | None = None, **options: Any) -> Trained:
    """A published candidate."""
    return train(adopt_training(start_training(recipe).pk), **options)


def promoted(recipe: str | None = None, **options: Any) -> ModelVersion:
    """A champion, by the protocol."""
    candidate = trained(recipe, **options)
    conclude(candidate)
    assert candidate.row.state == "champion", candidate.row.reason
    return candidate.row


def damage(store: str, version: str) -> Path:
    """A file of the artifact, one byte of which has flipped."""
    path = Path(store) / version / "ids.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    return path
