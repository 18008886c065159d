"""For machine learning: features and training data of the books, and what outside models predicted for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from django.db import IntegrityError, transaction
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.utils import timezone
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request

from bookapi.api.book_filters import BEST_MATCH, FILTERS, ORDERING, ORDERINGS, filter_schema, filtered
from bookapi.api.books import EXPORT_ROWS, EXPORTS
from bookapi.api.checks import Errors, Fields, an_object
from bookapi.api.conditional import UNCHANGED, conditional, revision_of
from bookapi.api.formats import EXPORTABLE, dumps, export_response
from bookapi.api.paging import (
    PAGE_PARAMETERS,
    Filtered,
    Ordering,
    PageRequest,
    Prepared,
    answer,
    ordering_by,
    page_of,
)
from bookapi.api.params import INT64_MAX, OneOf, Parameter, Parameters, WholeNumber, Words, invalid, query_of
from bookapi.api.views import ReadingViewSet
from bookapi.auth import IsAccount, account_of
from bookapi.errors import problems
from catalog.export import Column
from catalog.features import FeatureShape, Scaler, TrainingShape, with_lengths
from catalog.memo import Memo
from catalog.models import Book, Prediction
from catalog.rows import Row, Rows, batches, python_rows, snapshot

PREDICTIONS_MAX = 10_000
EXTRA_BYTES_MAX = 4_000  # of one prediction, as JSON
EXTRA_DEPTH_MAX = 16  # the databases and json stop at different depths, all of them deeper
NAME_MAX = 100  # characters


# --- Schema -----------------------------------------------------------------------------------------------------------
class FeaturesSerializer(serializers.Serializer[Any]):
    """The numbers of a book; z-scores with `scale=standard`."""

    id = serializers.IntegerField()
    upc = serializers.CharField()
    price = serializers.FloatField()
    price_excl_tax = serializers.FloatField()
    tax = serializers.FloatField()
    rating = serializers.FloatField(help_text="Stars, 1 to 5.")
    stock = serializers.FloatField(help_text="Copies.")
    in_stock = serializers.FloatField(help_text="0 or 1.")
    review_count = serializers.FloatField()
    title_length = serializers.FloatField(help_text="Characters.")
    description_length = serializers.FloatField(help_text="Characters.")
    category_id = serializers.IntegerField(help_text="A code, not a quantity: never standardized.")
    category_slug = serializers.CharField()


class TrainingSerializer(serializers.Serializer[Any]):
    """A book as one flat row."""

    id = serializers.IntegerField()
    shop = serializers.CharField()
    upc = serializers.CharField()
    title = serializers.CharField()
    authors = serializers.ListField(child=serializers.CharField())
    description = serializers.CharField(allow_blank=True)
    category = serializers.CharField(help_text="Its name.")
    category_slug = serializers.CharField()
    price = serializers.FloatField()
    price_excl_tax = serializers.FloatField()
    tax = serializers.FloatField()
    currency = serializers.CharField(help_text="ISO 4217.")
    rating = serializers.IntegerField(help_text="Stars, 1 to 5.")
    stock = serializers.IntegerField(help_text="Copies.")
    in_stock = serializers.BooleanField()
    review_count = serializers.IntegerField()
    product_type = serializers.CharField(allow_blank=True)


class StoredPredictionSerializer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    model = serializers.CharField()
    model_version = serializers.CharField()
    book = serializers.IntegerField(help_text="Id of the book.")
    score = serializers.FloatField()
    extra = serializers.DictField(help_text="What else was sent with it.")
    created_at = serializers.DateTimeField(help_text="When it was sent last.")


class StoredSerializer(serializers.Serializer[Any]):
    stored = serializers.IntegerField(help_text="Predictions, new and replaced.")


_NAME = {"type": "string", "minLength": 1, "maxLength": NAME_MAX}
#: By hand: predictions have fields that we do not know.
PREDICTIONS_BODY = {
    "type": "object",
    "required": ["model", "model_version", "predictions"],
    "additionalProperties": False,
    "properties": {
        "model": _NAME,
        "model_version": _NAME,
        "predictions": {
            "type": "array",
            "minItems": 1,
            "maxItems": PREDICTIONS_MAX,
            "items": {
                "type": "object",
                "required": ["book", "score"],
                "properties": {
                    "book": {"type": "integer", "minimum": 1, "maximum": INT64_MAX, "description": "Id of the book."},
                    "score": {"type": "number", "description": "Any finite number."},
                },
                "additionalProperties": True,
            },
        },
    },
    "example": {
        "model": "tf-idf",
        "model_version": "2026-01-02",
        "predictions": [{"book": 1, "score": 0.93, "because": ["poetry"]}],
    },
}


# --- Features and training data ---------------------------------------------------------------------------------------
SCALE = Parameter(
    "scale",
    OneOf("raw", "standard"),
    "`standard`: z-scores over the whole filtered set, as scikit-learn's StandardScaler makes them.",
    enum=("raw", "standard"),
    default="raw",
)
FEATURES = Parameters(SCALE, *PAGE_PARAMETERS, ORDERING, others=("format", *FILTERS))
TRAINING = Parameters(*PAGE_PARAMETERS, ORDERING, others=("format", *FILTERS))

#: By (revision, filters): every page of a standardized list is scaled alike, and reads the set once.
_scalers: Memo[Scaler] = Memo(size=64)


def scaler_of(source: Filtered, revision: int) -> Scaler:
    """The scaler of all books of the source. No query where the revision's is known, else one over all of them."""
    key = (revision, source.signature)
    if (known := _scalers.get(key)) is None:
        with snapshot() as own:
            known = Scaler.of(batches(source.queryset().order_by().values_list(*Scaler.COLUMNS), own))
        _scalers.keep(key, known)
    return known


def _answer(
    request: Request,
    name: str,
    source: Filtered | Prepared,
    shape: FeatureShape | TrainingShape | PredictionShape,
    *,
    ordering: Ordering,
    values: Mapping[str, Any],
    revision: int | None,
) -> HttpResponseBase:
    """The list in the negotiated format: a page, or the whole set as a file."""
    if request.accepted_renderer.format == "json":
        wanted = PageRequest.of(values["page_size"], values["page"], values["cursor"])
        return answer(request, source, shape, ordering=ordering, wanted=wanted, revision=revision)
    for parameter in ("page", "page_size", "cursor"):
        if values[parameter] is not None:
            raise invalid(parameter, "A file is the whole filtered set and has no pages.", "contradiction")
    rows = source.queryset().order_by(*ordering.columns(backwards=False)).values_list(*shape.columns)
    # CSV takes training data as they come from the driver; numbers of features have to be made.
    raw = request.accepted_renderer.format == "csv" and isinstance(shape, TrainingShape)
    flat, objects = _converted(rows, list if raw else shape.flat), _converted(rows, shape.objects)
    return export_response(request, name, shape.flat_columns, flat, objects)


def _converted(rows: Rows, convert: Callable[[Iterable[Row]], list[Any]]) -> Iterator[list[Any]]:
    with snapshot() as own:
        for batch in batches(rows, own, size=EXPORT_ROWS):
            yield convert(batch)


class MachineLearning(ReadingViewSet):
    """One row a book, numbers or text; the filters of `/books` apply."""

    renderer_classes = EXPORTABLE

    @extend_schema(
        operation_id="ml_features",
        tags=["machine learning"],
        summary="Numeric features, one row a book",
        parameters=[*FEATURES.schema(), *filter_schema()],
        responses={
            (200, "application/json"): page_of(FeaturesSerializer, "FeaturesPage"),
            **EXPORTS,
            **UNCHANGED,
            **problems(400, 404),
        },
    )
    @conditional
    def features(self, request: Request) -> HttpResponseBase:
        values = FEATURES.read(request)
        books = filtered(request)
        source = Filtered(with_lengths(books.queryset()), books.signature)
        revision = revision_of(request)
        shape = FeatureShape(scaler_of(source, revision) if values["scale"] == "standard" else None)
        ordering = _ordering(request, values)
        return _answer(request, "features", source, shape, ordering=ordering, values=values, revision=revision)

    @extend_schema(
        operation_id="ml_training_data",
        tags=["machine learning"],
        summary="Text, category and numbers, one row a book",
        parameters=[*TRAINING.schema(), *filter_schema()],
        responses={
            (200, "application/json"): page_of(TrainingSerializer, "TrainingPage"),
            **EXPORTS,
            **UNCHANGED,
            **problems(400, 404),
        },
    )
    @conditional
    def training_data(self, request: Request) -> HttpResponseBase:
        values = TRAINING.read(request)
        source, shape = filtered(request), TrainingShape()
        ordering, revision = _ordering(request, values), revision_of(request)
        return _answer(request, "training-data", source, shape, ordering=ordering, values=values, revision=revision)


def _ordering(request: Request, values: Mapping[str, Any]) -> Ordering:
    if values["ordering"]:
        return ORDERINGS[values["ordering"]]
    return BEST_MATCH if any(query_of(request).get("q", ())) else ORDERINGS["id"]


# --- Predictions ------------------------------------------------------------------------------------------------------
PREDICTIONS = Parameters(
    Parameter("model", Words(max_length=NAME_MAX), "Only of this model."),
    Parameter("model_version", Words(max_length=NAME_MAX), "Only of this version."),
    Parameter("book", WholeNumber(min_value=1), "Only for this book.", type={"type": "integer", "minimum": 1}),
    *PAGE_PARAMETERS,
    others={"format"},
)
NOTHING = Parameters(others={"format"})
BY_ID = ordering_by("id")[0]


class PredictionShape:
    """A stored prediction, as JSON and as a flat row."""

    flat_columns = (
        Column("id", "integer"),
        Column("model", "word"),
        Column("model_version", "word"),
        Column("book", "integer"),
        Column("score", "number"),
        Column("extra", "json"),
        Column("created_at", "time"),
    )
    columns = tuple(column.name for column in flat_columns)

    def objects(self, rows: Iterable[Row]) -> list[dict[str, Any]]:
        return [dict(zip(self.columns, cells, strict=True)) for cells in self.flat(rows)]

    def flat(self, rows: Iterable[Row]) -> list[list[Any]]:
        return python_rows(self.flat_columns, rows)


def read_predictions(body: Any, account: int) -> list[Prediction]:
    """The predictions of a request, not yet compared with the catalogue.

    Raises:
        ValidationError: with a reason for each field that is wrong, `predictions.3.score`.
    """
    errors = Errors()
    fields = Fields(errors, an_object(body))
    fields.only(("model", "model_version", "predictions"))
    model, version = fields.printable("model", NAME_MAX), fields.printable("model_version", NAME_MAX)
    entries = fields.entries("predictions", PREDICTIONS_MAX)
    now = timezone.now()
    found = []
    seen: set[int] = set()
    for index, entry in enumerate(entries):
        if (read := _prediction(errors, f"predictions.{index}", entry, seen)) is not None:
            book, score, extra = read
            found.append(
                Prediction(
                    model=model,
                    model_version=version,
                    book_id=book,
                    score=score,
                    extra=extra,
                    account_id=account,
                    created_at=now,
                )
            )
    errors.check()
    return found


def _prediction(errors: Errors, path: str, entry: Any, seen: set[int]) -> tuple[int, float, dict[str, Any]] | None:
    if not isinstance(entry, dict):
        errors.add(path, "An object with book and score is needed.")
        return None
    fields = Fields(errors, entry, path)
    book, score = fields.whole_number("book", "The id of a book is needed.", 1, INT64_MAX), fields.number("score")
    if book in seen:
        fields.refuse("book", f"There are two predictions for book {book}.", "repeated")
    elif book:
        seen.add(book)
    if score is None:
        return None
    extra = {name: value for name, value in entry.items() if name not in {"book", "score"}}
    if extra and (_is_deep(extra, EXTRA_DEPTH_MAX) or len(dumps(extra)) > EXTRA_BYTES_MAX):
        errors.add(path, f"Other fields: at most {EXTRA_BYTES_MAX} bytes and {EXTRA_DEPTH_MAX} levels.", "too_large")
    return book, score, extra


def _is_deep(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels == 0 or any(_is_deep(item, levels - 1) for item in inner if isinstance(item, (dict, list)))


def store(predictions: list[Prediction]) -> int:
    """All of the predictions, or none. Those that the account sent before for the same model and version are replaced.

    One query for the books, and one insert; on SQLite, which takes 999 values at once, one for every 142 predictions.

    Raises:
        ValidationError: naming the books that there are not.
    """
    ids = [prediction.book_id for prediction in predictions]
    known = set(Book.objects.visible().filter(pk__in=ids).order_by().values_list("pk", flat=True))
    errors = Errors()
    for index, book in enumerate(ids):
        if book not in known:
            errors.add(f"predictions.{index}.book", f"There is no book {book}.", "unknown")
    errors.check()
    with transaction.atomic():
        Prediction.objects.bulk_create(
            sorted(predictions, key=lambda prediction: prediction.book_id),  # two requests at once lock in one order
            update_conflicts=True,
            unique_fields=["account", "model", "model_version", "book"],
            update_fields=["score", "extra", "created_at"],
        )
    return len(predictions)


class Predictions(ReadingViewSet):
    """Predictions of outside models. Every account sees its own."""

    permission_classes = [IsAccount]

    @extend_schema(
        operation_id="ml_predictions_list",
        tags=["machine learning"],
        summary="Predictions that this account stored",
        parameters=PREDICTIONS.schema(),
        responses={
            (200, "application/json"): page_of(StoredPredictionSerializer, "PredictionPage"),
            **EXPORTS,
            **problems(400, 404),
        },
    )
    def list(self, request: Request) -> HttpResponseBase:
        values = PREDICTIONS.read(request)
        account = account_of(request)
        found = Prediction.objects.filter(account=account)
        names = [name for name in ("model", "model_version", "book") if values[name] is not None]
        for name in names:
            found = found.filter(**{name: values[name]})
        signature = f"predictions of {account}&" + "&".join(f"{name}={values[name]!r}" for name in names)
        source = Filtered(found, signature)
        shape = PredictionShape()
        response = _answer(request, "predictions", source, shape, ordering=BY_ID, values=values, revision=None)
        response.headers["Cache-Control"] = "no-store"
        return response

    @extend_schema(
        operation_id="ml_predictions_store",
        tags=["machine learning"],
        summary="Store predictions of an outside model",
        description=(
            "All or none. Sent again by the same account, a prediction for the same model, version and book replaces "
            "the one before, so a request can be repeated. Fields beside `book` and `score` are kept in `extra`."
        ),
        request={"application/json": PREDICTIONS_BODY},
        responses={
            (201, "application/json"): OpenApiResponse(StoredSerializer, "Stored."),
            **problems(400, 413, 415),
        },
    )
    def create(self, request: Request) -> HttpResponse:
        NOTHING.read(request)
        predictions = read_predictions(request.data, account_of(request))
        try:
            stored = store(predictions)
        except IntegrityError:  # a book went away between our look and the insert
            stored = store(predictions)
        return HttpResponse(dumps({"stored": stored}), status=201, content_type="application/json")
