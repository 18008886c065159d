"""Similar books: for a book of the catalogue, for a text that is not in it, for a basket."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django import forms
from django.conf import settings
from django.core.exceptions import ValidationError as FieldInvalid
from django.http import HttpResponse, HttpResponseNotModified
from django.http.response import HttpResponseBase
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from bookapi.accounts import Account
from bookapi.api.book_filters import FILTERS, REPEATABLE, filter_schema, narrowed
from bookapi.api.books import MAX_ID, MOVED, BookSerializer, find, moved, no_such_book
from bookapi.api.checks import Errors, Fields, an_object
from bookapi.api.conditional import UNCHANGED, etag, offered_tags, tagged
from bookapi.api.formats import dumps
from bookapi.api.params import Listing, OneOf, Parameter, Parameters, WholeNumber, clean, query_of
from bookapi.api.views import ReadingViewSet
from bookapi.errors import problems
from catalog.cleaning import AUTHOR_MAX, AUTHORS_MAX, CATEGORY_MAX, DESCRIPTION_MAX, TITLE_MAX
from catalog.models import Book
from catalog.revision import current_revision
from catalog.rows import book_shape, compiled, run
from recommender.client import recommender
from recommender.recommending import SHAPE, Recommendations, Subject, Wanted, curated_for, recommend, shelf
from recommender.service.questions import Text

LIMIT_MAX = 100
BASKET_MAX = 100
EXCLUDE_MAX = 1000


# --- Schema -----------------------------------------------------------------------------------------------------------
class ReasonSerializer(serializers.Serializer[Any]):
    kind = serializers.ChoiceField(["series", "author", "category", "words", "readers", "pin"])
    detail = serializers.CharField(allow_blank=True, help_text="Which series, author, category or words.")


class RecommendationSerializer(serializers.Serializer[Any]):
    book = BookSerializer()
    score = serializers.FloatField(
        min_value=0, max_value=1, help_text="Likeness. 1 for a curator's pin, 0 for a book that was not compared."
    )
    reasons = ReasonSerializer(many=True)


class ServedModelSerializer(serializers.Serializer[Any]):
    version = serializers.CharField()


class RecommendationsSerializer(serializers.Serializer[Any]):
    book = serializers.IntegerField(allow_null=True, help_text="The id that was asked for; null for texts and baskets.")
    source = serializers.ChoiceField(  # type: ignore[assignment]  # only its schema is used
        ["model", "fallback"], help_text="`fallback`: no model could be asked; the best rated of the same category."
    )
    model = ServedModelSerializer(allow_null=True)
    results = RecommendationSerializer(many=True)


# --- Options ----------------------------------------------------------------------------------------------------------
class Share(forms.Field):
    """A number from 0 to 1."""

    def __init__(self) -> None:
        super().__init__(required=False)

    def to_python(self, value: Any) -> float | None:
        if value in self.empty_values:
            return None
        try:
            number = float(value) if value.isascii() and not value.isspace() and "_" not in value else -1.0
        except ValueError:
            number = -1.0
        if not 0 <= number <= 1:
            raise FieldInvalid("A number from 0 to 1 is needed.", code="invalid")
        return number


IN_STOCK = {"true": True, "false": False, "any": None}
OPTIONS = (
    Parameter(
        "limit",
        WholeNumber(min_value=1, max_value=LIMIT_MAX),
        "How many: exactly so many, unless fewer books pass the filters.",
        type={"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": 10},
        default=10,
    ),
    Parameter(
        "in_stock",
        OneOf(*IN_STOCK),
        "Books out of stock are left out; `any` shows them too, `false` shows them alone.",
        type={"type": "string", "enum": list(IN_STOCK), "default": "true"},
        default="true",
    ),
    Parameter(
        "exclude",
        Listing(WholeNumber(min_value=1), at_most=EXCLUDE_MAX),
        f"Ids of books that are not wanted, up to {EXCLUDE_MAX}: `1,2,3`.",
        type={"type": "string"},
        default=(),
    ),
    Parameter(
        "diversity",
        Share(),
        "0 the nearest books, to 1 the most different from each other.",
        type={"type": "number", "minimum": 0, "maximum": 1, "default": 0},
        default=0.0,
    ),
)
#: The filters of lists of books, but for the two that are understood differently here.
NARROWING = {name: FILTERS[name] for name in FILTERS if name not in {"listed", "in_stock"}}
PARAMETERS = Parameters(*OPTIONS, others=NARROWING, repeatable=REPEATABLE)
NOTHING = Parameters()


def wanted_by(values: Mapping[str, Any], filters: Mapping[str, Sequence[str]]) -> Wanted:
    """Raises ValidationError for filters that are not understood."""
    on_shelf = shelf(IN_STOCK[values["in_stock"]])
    return Wanted(
        books=narrowed(on_shelf, filters)[0] if filters else on_shelf,
        is_narrowed=bool(filters),
        limit=values["limit"],
        exclude=frozenset(values["exclude"]),
        diversity=values["diversity"],
    )


def read_query(request: Request) -> Wanted:
    """Raises ValidationError."""
    values = PARAMETERS.read(request)
    query = query_of(request)
    sent = {name: [value for value in query.get(name, ()) if value] for name in NARROWING}
    return wanted_by(values, {name: texts for name, texts in sent.items() if texts})


# --- Bodies -----------------------------------------------------------------------------------------------------------
#: Options that are lists in a body, and what they are lists of.
LISTS = {"exclude": "integer", "ids": "integer", "category": "string"}
TYPES = {"integer": (int,), "number": (int, float), "string": (str,)}


def _body_schema(name: str, schema: Mapping[str, Any], description: str) -> dict[str, Any]:
    shown: dict[str, Any] = {"nullable": True, "description": description.replace(": `1,2,3`", "")}
    if name in LISTS:
        return {"type": "array", "items": {"type": LISTS[name]}, **shown}
    if name == "in_stock":
        return {"oneOf": [{"type": "boolean"}, {"type": "string", "enum": list(IN_STOCK)}], **shown}
    return {**schema, **shown}


_OPTIONS_BODY = {
    **{option.name: _body_schema(option.name, option.type, option.description) for option in OPTIONS},
    **{name: _body_schema(name, declared.schema, declared.label) for name, declared in NARROWING.items()},
}
_ID = {"type": "integer", "minimum": 1, "maximum": MAX_ID}
_TEXT = {
    "type": "object",
    "additionalProperties": False,
    "description": "A book that is not in the catalogue: one of title, description, category and authors at least.",
    "properties": {
        "title": {"type": "string", "maxLength": TITLE_MAX},
        "description": {"type": "string", "maxLength": DESCRIPTION_MAX},
        "category": {"type": "string", "maxLength": CATEGORY_MAX, "description": "Its name."},
        "authors": {
            "type": "array",
            "maxItems": AUTHORS_MAX,
            "items": {"type": "string", "maxLength": AUTHOR_MAX},
        },
        "price": {"type": "number", "nullable": True, "minimum": 0, "description": "Most models do not ask for it."},
    },
}
#: By hand: `text` or `books`, and the options of the query string.
BODY = {
    "type": "object",
    "additionalProperties": False,
    "description": "Exactly one of `text` and `books` is needed.",
    "properties": {
        "text": _TEXT,
        "books": {
            "type": "array",
            "minItems": 1,
            "maxItems": BASKET_MAX,
            "items": _ID,
            "description": "A basket: books that are like all of them together.",
        },
        **_OPTIONS_BODY,
    },
    "example": {
        "text": {"title": "The Time Machine", "description": "A traveller goes to the far future."},
        "limit": 5,
        "max_price": 30,
    },
}


def read_body(body: Any) -> tuple[Text | None, list[int], Wanted]:
    """The text or the basket, and the options.

    Raises:
        ValidationError: naming what is wrong.
    """
    errors = Errors()
    fields = Fields(errors, an_object(body))
    fields.only(BODY["properties"])  # type: ignore[arg-type]
    text, books = None, []
    if ("text" in fields.sent) == ("books" in fields.sent):
        fields.refuse("text", "Send either text or books.", "contradiction" if "text" in fields.sent else "required")
    elif "text" in fields.sent:
        text = _text(errors, fields.sent["text"])
    else:
        books = _basket(fields)
    sent = {
        name: _as_sent(errors, name, fields.sent[name])
        for name in _OPTIONS_BODY
        if fields.sent.get(name) not in (None, "", [])
    }
    errors.check()
    values = {
        option.name: clean(option.name, option.field, sent[option.name][0]) if option.name in sent else option.default
        for option in OPTIONS
    }
    return text, books, wanted_by(values, {name: texts for name, texts in sent.items() if name in NARROWING})


def _as_sent(errors: Errors, name: str, value: Any) -> list[str]:
    """A value of a body as the query string would carry it, so that both are understood alike."""
    if name == "in_stock" and isinstance(value, bool):
        return [str(value).lower()]
    kind = LISTS.get(name) or _OPTIONS_BODY[name].get("type", "string")
    values = value if name in LISTS and isinstance(value, list) else [value]
    if any(isinstance(each, bool) or not isinstance(each, TYPES[kind]) for each in values):
        errors.add(name, f"Of another type: {'a list of ' if name in LISTS else ''}{kind} is needed.")
        return []
    texts = [each if isinstance(each, str) else repr(each) for each in values]
    return texts if name in REPEATABLE or name not in LISTS else [",".join(texts)]


def _basket(fields: Fields) -> list[int]:
    books = fields.entries("books", BASKET_MAX)
    for index, book in enumerate(books):
        if type(book) is not int or not 1 <= book <= MAX_ID:
            fields.refuse(f"books.{index}", "The id of a book is needed.", "invalid")
    return books


def _text(errors: Errors, sent: Any) -> Text | None:
    if not isinstance(sent, dict):
        errors.add("text", "An object is needed.")
        return None
    fields = Fields(errors, sent, "text")
    fields.only(_TEXT["properties"])  # type: ignore[arg-type]
    title, description, category = (
        _words(fields, name, most)
        for name, most in (("title", TITLE_MAX), ("description", DESCRIPTION_MAX), ("category", CATEGORY_MAX))
    )
    authors = sent.get("authors") or []
    if not isinstance(authors, list) or len(authors) > AUTHORS_MAX or not all(map(_is_author, authors)):
        fields.refuse("authors", f"A list of up to {AUTHORS_MAX} names is needed.", "invalid")
        authors = []
    price = fields.number("price") if sent.get("price") is not None else None
    if price is not None and price < 0:
        fields.refuse("price", "Not below 0.", "invalid")
    if not errors.found and not any(text.strip() for text in (title, description, category, *authors)):
        errors.add("text", "Say at least one of title, description, category and authors.", "required")
    return Text(title=title, description=description, category=category, authors=tuple(authors), price=price)


def _is_author(name: Any) -> bool:
    return isinstance(name, str) and len(name) <= AUTHOR_MAX


def _words(fields: Fields, name: str, max_length: int) -> str:
    value = fields.sent.get(name) or ""
    if isinstance(value, str) and len(value) <= max_length:
        return value
    fields.refuse(name, f"Text of at most {max_length} characters is needed.", "invalid")
    return ""


# --- What the books are wanted for ------------------------------------------------------------------------------------
_SAID = ("title", "description", "authors", "category")
_SAID_SHAPE = book_shape(_SAID)


@dataclass(frozen=True, slots=True)
class Said:
    """What the catalogue says about one or several books, for models that do not know them."""

    text: Text
    categories: tuple[str, ...]  # slugs

    @classmethod
    def of(cls, rows: Sequence[Sequence[Any]]) -> Said:
        books = _SAID_SHAPE.objects(rows)
        authors = dict.fromkeys(author for book in books for author in book["authors"])
        text = Text(
            title=" ".join(book["title"] for book in books)[: 2 * TITLE_MAX],
            description="\n".join(book["description"] for book in books)[:DESCRIPTION_MAX],
            category=books[0]["category"]["name"],
            authors=tuple(authors)[:AUTHORS_MAX],
        )
        return cls(text, tuple(dict.fromkeys(book["category"]["slug"] for book in books)))


def basket_of(ids: Sequence[int]) -> Subject:
    """The basket, where survivors stand for the books that were merged into them. Two queries.

    Raises:
        ValidationError: naming the books, or survivors, that there are not or that a person has hidden.
    """
    columns = ("id", "hidden", "merged_into", "merged_into__hidden", *_SAID_SHAPE.columns)
    found = {
        book: (survivor or book, said)
        for book, hidden, survivor, survivor_hidden, *said in run(
            *compiled(Book.objects.filter(pk__among=ids).values_list(*columns))
        )
        if not (survivor_hidden if survivor else hidden)
    }
    errors = Errors()
    for index, book in enumerate(ids):
        if book not in found:
            errors.add(f"books.{index}", f"There is no book {book}.", "unknown")
    errors.check()
    books = list(dict.fromkeys(found[book][0] for book in ids))
    said = Said.of([found[book][1] for book in ids])
    return Subject(text=said.text, books=books, categories=said.categories, curated=curated_for(books))


# --- Views ------------------------------------------------------------------------------------------------------------
def _json(book: int | None, found: Recommendations) -> HttpResponse:
    books = SHAPE.objects([result.row for result in found.results])
    body = {
        "book": book,
        "source": "fallback" if found.version is None else "model",
        "model": None if found.version is None else {"version": found.version},
        "results": [
            {
                "book": shown,
                "score": round(float(result.score), 4),
                "reasons": [{"kind": reason.kind, "detail": reason.detail} for reason in result.reasons],
            }
            for shown, result in zip(books, found.results, strict=True)
        ],
    }
    return HttpResponse(dumps(body), content_type="application/json")


class MayAsk(BasePermission):
    """Whoever may read: a question that does not fit an address is sent by POST, and changes nothing."""

    def has_permission(self, request: Request, _view: object) -> bool:
        return isinstance(request.user, Account) or bool(settings.PUBLIC_READ)


_ABOUT = (
    "The likest first; pins of curators before them. Books that are delisted, hidden or blocked by curators are never "
    "among them, and books out of stock only with `in_stock=any` or `false`. Every result says why it is there. While "
    "no model can be asked, the best rated books of the same category are given, with `source: fallback`."
)
_SHOWN = {
    "id": 7,
    "shop": "books-toscrape",
    "upc": "a897fe39b1053632",
    "title": "The War of the Worlds",
    "authors": ["H. G. Wells"],
    "description": "They come from Mars.",
    "category": {"name": "Science Fiction", "slug": "science-fiction"},
    "price": 51.5,
    "price_excl_tax": 51.5,
    "tax": 0,
    "currency": "GBP",
    "rating": 4,
    "stock": 3,
    "availability": "In stock (3 available)",
    "in_stock": True,
    "review_count": 0,
    "product_type": "Books",
    "image_url": "https://shop.example/7.jpg",
    "source_url": "https://shop.example/7.html",
    "listed": True,
    "first_seen_at": "2026-01-02T03:04:05Z",
    "updated_at": "2026-01-02T03:04:05Z",
}
_SHELF = {"kind": "category", "detail": "Science Fiction"}
_EXAMPLES = [
    OpenApiExample(
        "by the model",
        value={
            "book": 1,
            "source": "model",
            "model": {"version": "20260102T030405-ab12cd"},
            "results": [
                {"book": _SHOWN, "score": 0.4127, "reasons": [{"kind": "author", "detail": "H. G. Wells"}, _SHELF]}
            ],
        },
        response_only=True,
        status_codes=["200"],
    ),
    OpenApiExample(
        "without a model",
        value={
            "book": 1,
            "source": "fallback",
            "model": None,
            "results": [{"book": _SHOWN, "score": 0, "reasons": [_SHELF]}],
        },
        response_only=True,
        status_codes=["200"],
    ),
]


class RecommendationViewSet(ReadingViewSet):
    """Books that readers of these may like."""

    permission_classes = [MayAsk]

    @extend_schema(
        operation_id="books_recommendations",
        summary="Books similar to a book",
        description=_ABOUT,
        parameters=[*PARAMETERS.schema(), *filter_schema("listed", "in_stock")],
        responses={200: RecommendationsSerializer, 301: MOVED, **UNCHANGED, **problems(400, 404)},
        examples=_EXAMPLES,
        tags=["recommendations"],
    )
    def of_book(self, request: Request, book_id: int) -> HttpResponseBase:
        if book_id > MAX_ID:
            raise no_such_book()
        revision = current_revision()  # before the data, as in `conditional`
        curated = curated_for([book_id])

        def tag(version: str | None) -> str:
            return etag(request, revision, f"{version}|{curated.pinned}|{sorted(curated.blocked)}")

        tags = offered_tags(request)
        if tags and (version := recommender().version()) and tag(version) in tags:
            return tagged(HttpResponseNotModified(), tag(version))
        wanted = read_query(request)
        row = find(book_id, _SAID)
        if isinstance(row, int):
            return moved(request, row, "/recommendations")
        said = Said.of([row])
        subject = Subject(text=said.text, books=[book_id], categories=said.categories, curated=curated)
        found = recommend(subject, wanted)
        # The version that answered, which need not be the one that was served a moment ago.
        made = tag(found.version)
        unchanged = made in tags or tags == ["*"]
        return tagged(HttpResponseNotModified() if unchanged else _json(book_id, found), made)

    @extend_schema(
        operation_id="recommendations",
        summary="Books similar to a text, or to a basket of books",
        description=f"{_ABOUT} The options are those of `/books/{{id}}/recommendations`, with JSON's own types.",
        request={"application/json": BODY},
        responses={
            (200, "application/json"): OpenApiResponse(RecommendationsSerializer, "The recommendations."),
            **problems(400, 413, 415),
        },
        examples=_EXAMPLES,
        tags=["recommendations"],
    )
    def of_question(self, request: Request) -> HttpResponse:
        NOTHING.read(request)
        text, books, wanted = read_body(request.data)
        if text is None:
            subject = basket_of(books)
        else:
            subject = Subject(text=text, categories=[text.category] if text.category else [])
        response = _json(None, recommend(subject, wanted))
        response.headers["Cache-Control"] = "no-store"
        return response
