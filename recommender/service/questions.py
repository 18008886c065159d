"""What a recommender can be asked, and an engine's answer: the same in process and over HTTP."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from recommender.engine.corpus import Corpus
from recommender.engine.engine import Engine, Neighbor

#: The most results of one question.
K_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A book by what is said about it. What is not known is "" or None."""

    title: str = ""
    description: str = ""
    category: str = ""  # its name
    authors: Sequence[str] = ()
    price: float | None = None

    def corpus(self) -> Corpus:
        return Corpus.of_text(self.title, self.description, self.category, self.authors, self.price)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which books are like this one? Exactly one of `book`, `upc`, `text` and `books` is set."""

    book: int | None = None  # the catalogue's id
    upc: str | None = None
    text: Text | None = None  # of a book that the model does not know
    books: Sequence[int] = ()  # a basket: books that are like all of them together
    k: int = 10  # results, 1 to K_MAX
    allow: Collection[int] | None = None  # ids that may be results; None is all of them
    exclude: Collection[int] = ()  # ids that may not
    diversity: float = 0.0  # 0 the nearest, to 1 the most different from each other


def answer(engine: Engine, question: Question) -> list[Neighbor]:
    """The nearest books, best first: `k` of them wherever the model knows so many that are allowed.

    Raises:
        UnknownBook: the model knows neither the book, nor any of the basket.
    """
    allow, exclude, diversity = question.allow, question.exclude, question.diversity
    if question.text is not None:
        corpus = question.text.corpus()
        return engine.similar_to_text(corpus, question.k, allow=allow, exclude=exclude, diversity=diversity)
    if question.books:
        return engine.similar_to_basket(question.books, question.k, allow=allow, exclude=exclude, diversity=diversity)
    book = engine.id_of(question.upc) if question.upc is not None else question.book
    assert book is not None  # noqa: S101 - a question asks for something
    return engine.similar(book, question.k, allow=allow, exclude=exclude, diversity=diversity)
