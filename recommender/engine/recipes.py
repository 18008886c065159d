"""How much each sign of likeness counts: the named ways of making an engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any

from recommender.engine.errors import UnknownRecipe


@dataclass(frozen=True, slots=True)
class Recipe:
    """The weights of the blocks of `Features`, of which only the ratios matter, and how the blocks are made.

    The weight of a block that a corpus does not have, like authors where no book tells them, goes to the others.
    """

    name: str
    version: int  # raised when a figure below changes, so that two engines of one name can be told apart
    text: float = 0.0  # words of title and description, TF-IDF
    topics: float = 0.0  # the same words through latent semantic analysis
    category: float = 0.0
    series: float = 0.0
    authors: float = 0.0
    names: float = 0.0  # pairs of capitalised words that few descriptions share
    price: float = 0.0  # for `title_category_price` alone: where the shop draws prices at random they tell nothing
    embedding: float = 0.0  # of sentences, by a model that training alone needs
    title_boost: int = 2  # how often a title's words count for one of the description's
    with_description: bool = True
    word_length: int = 0  # letters of a word that are looked at, 0 for all: a stemmer for many languages
    lsa_dimensions: int = 128
    category_guess: float = 0.0  # share of the category block that the text tells, 0..1; the rest is the category told
    readers_weight: float = 5.0  # what readers read together counts so many times what content does

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Recipe:
        """Raises TypeError for a field that is not known."""
        return cls(**fields)


_CONTENT = Recipe(
    "content",
    2,
    text=0.60,
    topics=0.15,
    category=0.20,
    series=0.15,
    authors=0.25,
    names=0.10,
    word_length=6,
    lsa_dimensions=96,
    category_guess=0.5,
)
# The same where a model can be had when training. What it knows of a text, topics know less well.
_SENTENCES = replace(_CONTENT, name="sentences", version=1, topics=0.0, embedding=0.30)
_S = Recipe("s", 1, text=0.60, topics=0.15, category=0.10, series=0.15)
_TITLE_CATEGORY_PRICE = Recipe(
    "title_category_price", 1, text=0.60, category=0.30, price=0.10, title_boost=1, with_description=False
)
_TITLE_TFIDF = Recipe("title_tfidf", 1, text=1.0, title_boost=1, with_description=False)

_ALL = (_CONTENT, _SENTENCES, _S, _TITLE_CATEGORY_PRICE, _TITLE_TFIDF)
RECIPES: Mapping[str, Recipe] = MappingProxyType({each.name: each for each in _ALL})
DEFAULT = _CONTENT.name


def recipe(name: str) -> Recipe:
    """Raises UnknownRecipe."""
    try:
        return RECIPES[name]
    except KeyError:
        raise UnknownRecipe(f"There is no recipe {name!r}, only {', '.join(RECIPES)}.") from None
