"""The registry of models: what was trained, how good it is, what was decided, and how to start another training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.http import HttpResponse, QueryDict
from django.http.response import HttpResponseBase
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request

from bookapi.api.checks import Errors, Fields, an_object
from bookapi.api.formats import dumps
from bookapi.api.paging import PAGE_PARAMETERS, Filtered, Key, Ordering, PageRequest, answer, page_of
from bookapi.api.params import OneOf, Parameter, Parameters
from bookapi.api.views import ReadingViewSet
from bookapi.auth import IsOperator
from bookapi.errors import problem_response, problems
from bookapi.trainings import CannotStart, start_retraining
from catalog.export import Column
from catalog.rows import Row, compiled, python_rows, run
from recommender.engine.recipes import RECIPES
from recommender.models import ModelVersion
from recommender.registry import TrainingUnderWay

STATES = tuple(str(state) for state in ModelVersion.State)


# --- Shapes -----------------------------------------------------------------------------------------------------------
class ModelDecisionSerializer(serializers.Serializer[Any]):
    decision = serializers.CharField(help_text="`promoted`, `refused`, `waiting` (for a person) or `rolled_back`.")
    reason = serializers.CharField(help_text="For people, with the figures that it rests on.")
    at = serializers.DateTimeField()


class ModelVersionSerializer(serializers.Serializer[Any]):
    """A training and what became of it."""

    id = serializers.IntegerField()
    version = serializers.CharField(allow_null=True, help_text="Null until it is published.")
    champion = serializers.BooleanField(help_text="It is the one that is served.")
    state = serializers.CharField(
        help_text="`training`, `candidate`, `champion`, `retired`, `refused` or `failed` (see the server's log)."
    )
    kind = serializers.CharField(
        allow_null=True, help_text="Against the champion of its time: `first`, `refresh` or `new_recipe`."
    )
    recipe = serializers.CharField()
    recipe_version = serializers.IntegerField()
    started_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)
    durations = serializers.DictField(child=serializers.FloatField(), help_text="Step to seconds.")
    revision = serializers.IntegerField(allow_null=True, help_text="Of the catalogue that it was trained on.")
    data_fingerprint = serializers.CharField(allow_null=True, help_text="Equal for equal books.")
    n_books = serializers.IntegerField()
    n_readers = serializers.IntegerField(help_text="0: it was trained on content alone.")
    metrics = serializers.DictField(help_text="Figures with 95 % intervals, of simpler rankings too; guards; proxies.")
    decision = ModelDecisionSerializer(allow_null=True, help_text="The last one.")


MODEL_PAGE = page_of(ModelVersionSerializer, "ModelVersionPage")

COLUMNS = (
    Column("id", "integer"),
    Column("version", "word"),
    Column("state", "word"),
    Column("kind", "word"),
    Column("recipe", "word"),
    Column("recipe_version", "integer"),
    Column("started_at", "time"),
    Column("finished_at", "time"),
    Column("durations", "json"),
    Column("revision", "integer"),
    Column("data_fingerprint", "word"),
    Column("n_books", "integer"),
    Column("n_readers", "integer"),
    Column("metrics", "json"),
    Column("decision", "word"),
    Column("reason", "text"),
    Column("decided_at", "time"),
)


class ModelShape:
    """A version as the API shows it. Why a training failed may name folders of the server: it stays in the admin."""

    columns = tuple(column.name for column in COLUMNS)

    def objects(self, rows: Iterable[Row]) -> list[dict[str, Any]]:
        return [_shown(dict(zip(self.columns, cells, strict=True))) for cells in python_rows(COLUMNS, rows)]


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    decision, reason, at = (row.pop(name) for name in ("decision", "reason", "decided_at"))
    row["champion"] = row["state"] == ModelVersion.State.CHAMPION
    for name in ("version", "kind", "data_fingerprint"):
        row[name] = row[name] or None
    row["decision"] = {"decision": decision, "reason": reason, "at": at} if decision else None
    return row


# --- Requests ---------------------------------------------------------------------------------------------------------
LIST = Parameters(Parameter("state", OneOf(*STATES), "Only in this state.", enum=STATES), *PAGE_PARAMETERS)
NOTHING = Parameters()
NEWEST_FIRST = Ordering("-id", (Key("id", descending=True),))


class RetrainSerializer(serializers.Serializer[Any]):
    recipe = serializers.ChoiceField(
        list(RECIPES), required=False, allow_null=True, help_text="By default the champion's: the same on newer data."
    )


def read_recipe(body: Any) -> str | None:
    """The recipe that is asked for, if one is. Raises ValidationError."""
    errors = Errors()
    fields = Fields(errors, an_object({} if isinstance(body, QueryDict) and not body else body))
    fields.only(("recipe",))
    name = fields.sent.get("recipe")
    if name is not None and not (isinstance(name, str) and name in RECIPES):
        fields.refuse("recipe", f"Choose from {', '.join(RECIPES)}.")
    errors.check()
    return name


class ModelVersions(ReadingViewSet):
    @extend_schema(
        operation_id="ml_models",
        tags=["machine learning"],
        summary="Models of the recommender, the newest first, with figures and decisions",
        parameters=LIST.schema(),
        responses={200: MODEL_PAGE, **problems(400, 404)},
    )
    def list(self, request: Request) -> HttpResponseBase:
        values = LIST.read(request)
        found = ModelVersion.objects.all()
        if values["state"]:
            found = found.filter(state=values["state"])
        source = Filtered(found, f"models&state={values['state']!r}")
        wanted = PageRequest.of(values["page_size"], values["page"], values["cursor"])
        response = answer(request, source, ModelShape(), ordering=NEWEST_FIRST, wanted=wanted, revision=None)
        response.headers["Cache-Control"] = "no-store"
        return response


class Retrain(ReadingViewSet):
    permission_classes = [IsOperator]

    @extend_schema(
        operation_id="ml_retrain",
        tags=["machine learning"],
        summary="Train a model, and serve it if it is good enough",
        description=(
            "It runs as a process of its own; follow it by its `id` in `/ml/models`. One training at a time. What is "
            "served changes only if the new model is judged to be good enough, and without a pause."
        ),
        request={"application/json": RetrainSerializer},
        responses={
            (202, "application/json"): OpenApiResponse(ModelVersionSerializer, "The training, which has just begun."),
            **problems(400, 409, 415, 503),
        },
    )
    def create(self, request: Request) -> HttpResponse:
        NOTHING.read(request)
        wanted = read_recipe(request.data)
        try:
            training = start_retraining(wanted, requested_by=str(request.user))
        except TrainingUnderWay as error:
            return problem_response(409, str(error), request=request)
        except CannotStart:
            return problem_response(503, "The training could not be started: see the registry.", request=request)
        (row,) = run(*compiled(ModelVersion.objects.filter(pk=training.pk).values_list(*ModelShape.columns)))
        (body,) = ModelShape().objects([row])
        headers = {"Cache-Control": "no-store"}
        return HttpResponse(dumps(body), status=202, content_type="application/json", headers=headers)
