"""A catalogue with the books of a small corpus, and models of it."""

from __future__ import annotations

from catalog.models import Book
from recommender.engine.artifact import Store
from recommender.engine.engine import Engine
from recommender.engine.recipes import recipe
from recommender.training import corpus_from_catalogue
from tests.factories import make_category, save_books, unsaved_book
from tests.recommender.trained import corpus_of


def make_library(n: int = 120) -> list[Book]:
    """Books on four shelves, whose texts are of the words of their shelf; every sixth is out of stock."""
    corpus = corpus_of(n)
    shelves = {name: make_category(name) for name in set(corpus.categories)}
    return save_books(
        unsaved_book(
            upc=corpus.upcs[i],
            title=corpus.titles[i],
            description=corpus.descriptions[i],
            category=shelves[corpus.categories[i]],
            authors=list(corpus.authors[i]),
            price=f"{10 + i % 30}.50",
            rating=i % 5 + 1,
            stock=0 if i % 6 == 5 else 3,
        )
        for i in range(n)
    )


def train_champion(store: str) -> str:
    """A model of the catalogue as it is now, to be served from now on: its version."""
    models = Store(store)
    version = models.publish(Engine.train(corpus_from_catalogue(), recipe("s")), revision=1, metrics={})
    models.set_champion(version)
    return version
