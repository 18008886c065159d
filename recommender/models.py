"""What was trained and what became of it; what readers did; what curators want shown."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from catalog.models import Book
from recommender.querysets import ModelVersionQuerySet

NAME_MAX = 150  # characters: Django's user names
REASON_MAX = 2_000  # characters
READER_MAX = 64  # characters
KEY_MAX = 100  # characters


class ModelVersion(models.Model):
    """A training, the artifact that it published, and what was decided about it: the registry.

    The row says which version is served; the pointer file in the artifact store follows it.
    """

    class State(models.TextChoices):
        TRAINING = "training"
        CANDIDATE = "candidate"  # published, and waits for a decision
        CHAMPION = "champion"  # served
        RETIRED = "retired"  # was served
        REFUSED = "refused"  # not good enough
        FAILED = "failed"  # there is no artifact of it, or a damaged one

    class Kind(models.TextChoices):
        FIRST = "first"  # there was no champion
        REFRESH = "refresh"  # the champion's recipe on newer data
        NEW_RECIPE = "new_recipe"

    class Decision(models.TextChoices):
        PROMOTED = "promoted"
        REFUSED = "refused"
        WAITING = "waiting"  # nothing to judge it by: a person decides
        ROLLED_BACK = "rolled_back"  # served again after its successor

    version = models.CharField(max_length=64, blank=True)  # of the artifact; empty until it is published
    recipe = models.CharField(max_length=50)
    recipe_version = models.PositiveSmallIntegerField(default=1)
    kind = models.CharField(max_length=10, choices=Kind.choices, blank=True)  # against the champion of its start
    state = models.CharField(max_length=10, choices=State.choices, default=State.TRAINING)

    started_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(null=True, blank=True)
    heartbeat_at = models.DateTimeField(default=timezone.now)
    host = models.CharField(max_length=255, blank=True)
    pid = models.PositiveIntegerField(null=True, blank=True)
    requested_by = models.CharField(max_length=NAME_MAX, blank=True)  # user name; empty for the command line

    revision = models.BigIntegerField(null=True, blank=True)  # of the catalogue it was trained on
    data_fingerprint = models.CharField(max_length=32, blank=True)  # see `Corpus.fingerprint`
    n_books = models.PositiveIntegerField(default=0)
    n_readers = models.PositiveIntegerField(default=0)
    durations = models.JSONField(default=dict, blank=True)  # step -> seconds
    metrics = models.JSONField(default=dict, blank=True)  # as evaluated after training

    # The last decision; `DecisionRecord` keeps all of them.
    decision = models.CharField(max_length=12, choices=Decision.choices, blank=True)
    reason = models.CharField(max_length=REASON_MAX, blank=True)  # of the decision, or of the failure
    decided_at = models.DateTimeField(null=True, blank=True)
    decided_by = models.CharField(max_length=NAME_MAX, blank=True)  # user name; empty for the schedule

    objects = ModelVersionQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        permissions = [("promote_modelversion", "May promote models and roll back")]
        constraints = [
            models.UniqueConstraint(fields=["version"], condition=~Q(version=""), name="one_row_per_model_version"),
            models.UniqueConstraint(fields=["state"], condition=Q(state="champion"), name="one_champion"),
            # The lock of a training: a second one cannot even be written down.
            models.UniqueConstraint(fields=["state"], condition=Q(state="training"), name="one_training"),
            models.CheckConstraint(
                condition=Q(state__in=["training", "failed"]) | ~Q(version=""), name="judged_versions_are_published"
            ),
        ]

    def __str__(self) -> str:
        return self.version or f"training {self.pk}"

    def log_context(self) -> dict[str, Any]:
        """The version as a log line tells it."""
        names = ("version", "recipe", "kind", "state", "decision", "reason", "n_books", "n_readers", "durations")
        return {"training": self.pk, **{name: getattr(self, name) for name in names}}


class DecisionRecord(models.Model):
    """One decision about a version: what, why, by whom, and the figures that it rests on. Only ever added."""

    model_version = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, related_name="decisions")
    decision = models.CharField(max_length=12, choices=ModelVersion.Decision.choices)
    reason = models.CharField(max_length=REASON_MAX)
    figures = models.JSONField(default=dict, blank=True)
    replaced = models.ForeignKey(  # the champion until then
        ModelVersion, on_delete=models.SET_NULL, null=True, blank=True, related_name="+", db_index=False
    )
    by = models.CharField(max_length=NAME_MAX, blank=True)  # user name; empty for the schedule
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.model_version} {self.decision}"


class Interaction(models.Model):
    """What a reader did with a book, as an account reported it. The reader is the account's own opaque id."""

    class Kind(models.TextChoices):
        VIEW = "view"
        CLICK = "click"  # on a recommendation or a search result
        LIKE = "like"
        DISLIKE = "dislike"
        RATE = "rate"

    account = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", db_index=False
    )  # the two indexes below begin with it
    reader = models.CharField(max_length=READER_MAX)
    book = models.ForeignKey(Book, on_delete=models.CASCADE, related_name="interactions")
    kind = models.CharField(max_length=7, choices=Kind.choices)
    value = models.PositiveSmallIntegerField(null=True, blank=True)  # stars of a rate, 1-5
    at = models.DateTimeField(default=timezone.now)
    key = models.CharField(max_length=KEY_MAX)  # the account's own; sent again, it is the same interaction

    class Meta:
        ordering = ["-id"]
        permissions = [("report_readers", "May report for many readers")]
        constraints = [
            models.UniqueConstraint(fields=["account", "key"], name="one_interaction_per_account_and_key"),
            models.CheckConstraint(
                condition=Q(kind="rate", value__isnull=False, value__range=(1, 5))
                | (~Q(kind="rate") & Q(value__isnull=True)),
                name="rates_alone_have_a_value_1_to_5",
            ),
        ]
        indexes = [models.Index(fields=["account", "reader"], name="interactions_of_a_reader")]

    def __str__(self) -> str:
        return f"{self.kind} book {self.book_id}"


class Pin(models.Model):
    """A curator's word about two books: `other` comes first beside `book`, or never."""

    class Kind(models.TextChoices):
        PIN = "pin"
        BLOCK = "block"

    book = models.ForeignKey(Book, on_delete=models.CASCADE, related_name="pins", db_index=False)
    other = models.ForeignKey(Book, on_delete=models.CASCADE, related_name="+")
    kind = models.CharField(max_length=5, choices=Kind.choices, default=Kind.PIN)
    position = models.PositiveSmallIntegerField(
        default=1,
        validators=[MinValueValidator(1), MaxValueValidator(100)],
        help_text="Order of several pins, 1 first.",
    )
    by = models.CharField(max_length=NAME_MAX, blank=True, editable=False)  # user name
    at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["book", "position", "id"]
        constraints = [
            models.UniqueConstraint(
                fields=["book", "other"],
                name="one_pin_per_pair_of_books",
                violation_error_message="There is a pin or a block of these two books already.",
            ),
            models.CheckConstraint(
                condition=~Q(book=F("other")),
                name="book_is_not_pinned_to_itself",
                violation_error_message="A book cannot be pinned to itself.",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.other_id} beside {self.book_id}"
