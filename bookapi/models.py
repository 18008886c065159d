"""What is remembered of logins, and of the schedule: when its tasks ran, and what came of it."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django_celery_beat.models import PeriodicTask

from catalog.models import CrawlRun
from recommender.models import ModelVersion

DETAIL_MAX = 500  # characters


class RefreshFamily(models.Model):
    """One login and all refresh tokens that came of it, of which exactly one is good at any time.

    A refresh token is a bearer's secret that lives for weeks. Spending it exchanges it for the next one, so a stolen
    copy shows itself when the second of the two holders comes, and the family ends for both.
    """

    class Reason(models.TextChoices):
        LOGOUT = "logout"
        REUSE = "reuse"  # a spent token was presented: somebody has a copy
        PASSWORD = "password"  # noqa: S105 - the reason, not a password
        DISABLED = "disabled"

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="refresh_families")
    jti = models.CharField(max_length=32)  # of the one token that is good
    stamp = models.CharField(max_length=64)  # keyed digest of the password hash at login
    created_at = models.DateTimeField(default=timezone.now)
    rotated_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField(db_index=True)  # with its current token
    revoked_at = models.DateTimeField(null=True, blank=True)
    reason = models.CharField(max_length=10, choices=Reason.choices, blank=True)

    class Meta:
        verbose_name_plural = "refresh families"

    def __str__(self) -> str:
        return f"login {self.pk} of account {self.user_id}"


class LoginCounter(models.Model):
    """How often something about logins happened lately. See `bookapi.guard` for what is counted."""

    key = models.CharField(max_length=64, primary_key=True)  # keyed digest: names and addresses are not kept
    count = models.PositiveIntegerField(default=0)
    expires_at = models.DateTimeField(db_index=True)  # from then on the count is zero

    def __str__(self) -> str:
        return f"{self.count} until {self.expires_at:%H:%M:%S}"


class ScheduledRun(models.Model):
    """One time that a task of the schedule was due, or asked for by a person, and what came of it.

    Written in the transaction that moves the task's time of last run, before anything is done: a scheduler that dies
    right after leaves a row that its successor hands over.
    """

    class Outcome(models.TextChoices):
        WAITING = "waiting"  # for whoever performs it
        OK = "ok"
        UNDER_WAY = "under_way", "already under way"  # nothing was done, since it is being done
        FAILED = "failed"

    schedule = models.ForeignKey(PeriodicTask, on_delete=models.CASCADE, related_name="runs", db_index=False)
    task = models.CharField(max_length=200)  # its name, "bookapi.tasks.start_crawl"
    due_at = models.DateTimeField()  # long ago, where nobody was there to see
    started_at = models.DateTimeField(default=timezone.now)
    sent_at = models.DateTimeField(null=True, blank=True)  # the broker has it; none without a broker
    taken_at = models.DateTimeField(null=True, blank=True)  # somebody performs it
    finished_at = models.DateTimeField(null=True, blank=True)
    outcome = models.CharField(max_length=10, choices=Outcome.choices, default=Outcome.WAITING)
    detail = models.CharField(max_length=DETAIL_MAX, blank=True)
    crawl = models.ForeignKey(CrawlRun, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    training = models.ForeignKey(ModelVersion, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    resumed_at = models.DateTimeField(null=True, blank=True)  # its crawl was interrupted, and is resumed once
    requested_by = models.CharField(max_length=150, blank=True)  # user name; empty when it was due

    class Meta:
        ordering = ["-id"]
        constraints = [
            # A task whose last run is not over does not begin another one, whoever asks.
            models.UniqueConstraint(
                fields=["schedule"], condition=Q(finished_at=None), name="one_open_run_per_scheduled_task"
            )
        ]
        indexes = [models.Index(fields=["schedule", "id"])]

    def __str__(self) -> str:
        return f"{self.task} at {self.due_at:%Y-%m-%d %H:%M:%S}"


class Lease(models.Model):
    """Who alone may do something, for a while. A holder that lives renews it; one that died lets it run out."""

    name = models.CharField(max_length=50, primary_key=True)
    holder = models.CharField(max_length=300)
    expires_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.name}: {self.holder} until {self.expires_at:%H:%M:%S}"
