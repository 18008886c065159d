"""Bodies of `/predict`, understood or refused: a field that we do not know, or of another type, is an error."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from recommender.service.questions import K_MAX, Question
from recommender.service.questions import Text as AskedText

#: Queries of one batch. Each may be a search over all vectors.
QUERIES_MAX = 100
#: Results of one batch, which are all in memory before the first is sent.
RESULTS_MAX = 10_000

Id = Annotated[int, Field(ge=1, le=2**63 - 1)]
Author = Annotated[str, Field(max_length=500)]


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Text(Strict):
    """A book that the catalogue does not have; one of its texts at least."""

    title: str = Field("", max_length=2000)
    description: str = Field("", max_length=100_000)
    category: str = Field("", max_length=500, description="Its name.")
    authors: list[Author] = Field([], max_length=100)
    price: float | None = Field(None, ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def says_something(self) -> Text:
        if not any(text.strip() for text in (self.title, self.description, self.category, *self.authors)):
            raise ValueError("title, description, category or authors is needed")
        return self

    def asked(self) -> AskedText:
        return AskedText(**self.model_dump())


class Query(Strict):
    """Which books are like this one? Exactly one of book, upc, text and books is needed."""

    book: Id | None = Field(None, description="The catalogue's id.")
    upc: str | None = Field(None, min_length=1, max_length=500)
    text: Text | None = None
    books: list[Id] | None = Field(None, min_length=1, max_length=1000, description="A basket.")
    k: int = Field(10, ge=1, le=K_MAX, description="How many results.")
    allow: list[Id] | None = Field(None, max_length=2_000_000, description="Ids that may be results; all by default.")
    exclude: list[Id] = Field([], max_length=100_000, description="Ids that may not.")
    diversity: float = Field(0.0, ge=0, le=1, description="0 the nearest, to 1 the most different from each other.")

    @model_validator(mode="after")
    def asks_for_one_thing(self) -> Query:
        if sum(value is not None for value in (self.book, self.upc, self.text, self.books)) != 1:
            raise ValueError("exactly one of book, upc, text and books is needed")
        return self

    @property
    def about(self) -> str:
        """Which one: for those who count."""
        return next(name for name in ("book", "upc", "text", "books") if getattr(self, name) is not None)

    def question(self) -> Question:
        return Question(
            book=self.book,
            upc=self.upc,
            text=None if self.text is None else self.text.asked(),
            books=self.books or (),
            k=self.k,
            allow=self.allow,
            exclude=self.exclude,
            diversity=self.diversity,
        )


class Batch(Strict):
    """Several queries, answered in their order and by one version."""

    queries: list[Query] = Field(
        min_length=1, max_length=QUERIES_MAX, description=f"Together they ask for at most {RESULTS_MAX} results."
    )

    @field_validator("queries")
    @classmethod
    def ask_for_what_fits(cls, queries: list[Query]) -> list[Query]:
        if sum(query.k for query in queries) > RESULTS_MAX:
            raise ValueError(f"the queries ask for more than {RESULTS_MAX} results together")
        return queries


ONE, MANY = "one", "many"


def _which(body: Any) -> str:
    return MANY if isinstance(body, dict) and "queries" in body else ONE


Asked = Annotated[Annotated[Query, Tag(ONE)] | Annotated[Batch, Tag(MANY)], Discriminator(_which)]


# --- Answers, for the documentation -----------------------------------------------------------------------------------


class Model(BaseModel):
    version: str


class Reason(BaseModel):
    kind: Literal["series", "author", "category", "words", "readers"]
    detail: str


class Result(BaseModel):
    id: int
    upc: str
    score: float = Field(ge=0, le=1)
    reasons: list[Reason]


class Results(BaseModel):
    results: list[Result]


class FieldProblem(BaseModel):
    field: str = Field(description="Its path in the body, `queries.1.book`.")
    code: str = Field(description="For programs: `unknown_book`.")
    detail: str


class Answer(Results):
    model: Model


class Unanswered(BaseModel):
    """In place of the results of a query whose book the model does not know: send its text."""

    error: FieldProblem


class Answers(BaseModel):
    model: Model
    answers: list[Results | Unanswered]


class Ready(BaseModel):
    status: Literal["ok"]
    version: str = Field(description="Of the model that is served.")
    n_books: int = Field(description="That the model knows.")


class Live(BaseModel):
    status: Literal["ok"]


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str | None
    errors: list[dict[str, str]] = Field(description="{field, code, detail} of each.")
