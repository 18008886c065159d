"""What is remembered of logins: the families of refresh tokens, and counts of failures."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils import timezone


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
