"""Passwords cannot be guessed by trying: failures are counted before the password is looked at.

Counted in the database, since several server processes are one door. Three counts, each good for `LOGIN_LOCKOUT_S`:

- name and address together, `LOGIN_ATTEMPTS` failures: then even the right password is refused from there until
  `LOGIN_LOCKOUT_S` after the last failure. A stranger at another address does not lock the owner out.
- address alone, 20 times as many, whatever the name: trying one password on many names.
- name alone, 20 times as many, from anywhere: trying many passwords from many addresses. Addresses from which the
  account has logged in during the last 90 days are exempt, so the owner still gets in where she usually works.

Attempts that are refused here count nowhere, so a lock ends even if somebody keeps knocking.
"""

from __future__ import annotations

import logging
import math
import unicodedata
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Case, F, Q, Value, When
from django.http import HttpRequest
from django.utils import timezone
from django.utils.crypto import salted_hmac

from bookapi.addresses import client_address
from bookapi.models import LoginCounter

logger = logging.getLogger(__name__)

WIDE = 20
KNOWN_FOR = timedelta(days=90)


class LoginLocked(Exception):
    """Too many failed logins; `wait_s` whole seconds until it makes sense to try again."""

    def __init__(self, wait_s: int) -> None:
        super().__init__(f"Too many failed logins. Try again in {wait_s} seconds.")
        self.wait_s = wait_s


def sign_in(request: HttpRequest, name: str, password: str) -> User | None:
    """The account with this name and password, None if there is none. Raises LoginLocked.

    An unknown name, a wrong password and a disabled account look alike and take the same time: Django computes a
    password hash in each case. Must not run inside a transaction that could be rolled back.
    """
    attempt = Attempt.of(name, client_address(request.META))
    attempt.count()
    user = ModelBackend().authenticate(request, username=User.normalize_username(name), password=password)
    if user is None:
        logger.info("login failed", extra={"address": attempt.address})
        return None
    attempt.succeeded()
    assert isinstance(user, User)  # noqa: S101 - for the type checker: AUTH_USER_MODEL is Django's own
    return user


class GuardedBackend(ModelBackend):
    """Django's password check behind the guard, for every door that uses it: the admin's login form is one."""

    def authenticate(
        self, request: HttpRequest | None, username: str | None = None, password: str | None = None, **kwargs: Any
    ) -> User | None:
        if username is None or password is None:
            return None
        if request is None:  # not from the network: a command, a test
            return super().authenticate(request, username=username, password=password, **kwargs)
        try:
            return sign_in(request, username, password)
        except LoginLocked as error:
            raise PermissionDenied(str(error)) from error


@dataclass(frozen=True, slots=True)
class Count:
    """One of the counters of an attempt."""

    key: str
    limit: int
    from_last: bool  # the time runs from the last failure; else from the first

    def add(self, now: datetime) -> None:
        """Count one, or raise LoginLocked. One UPDATE, so that no two attempts take the same place."""
        later = now + timedelta(seconds=settings.LOGIN_LOCKOUT_S)
        over = Q(expires_at__lte=now)
        rows = LoginCounter.objects.filter(key=self.key)
        while not rows.filter(over | Q(count__lt=self.limit)).update(
            count=Case(When(over, then=1), default=F("count") + 1),
            expires_at=later if self.from_last else Case(When(over, then=Value(later)), default=F("expires_at")),
        ):
            found = rows.values_list("count", "expires_at").first()
            if found is None:
                make_counters([self], now)  # it was over and has just been pruned
            elif found[0] >= self.limit and found[1] > now:  # or another attempt has just made it again
                raise LoginLocked(math.ceil((found[1] - now).total_seconds()))

    def take_back(self) -> None:
        LoginCounter.objects.filter(key=self.key, count__gt=0).update(count=F("count") - 1)


def make_counters(counts: list[Count], now: datetime) -> None:
    expires_at = now + timedelta(seconds=settings.LOGIN_LOCKOUT_S)
    rows = [LoginCounter(key=count.key, expires_at=expires_at) for count in counts]
    LoginCounter.objects.bulk_create(rows, ignore_conflicts=True)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One login, counted as a failure until it has succeeded."""

    address: str
    by_address: Count
    by_name: Count
    by_pair: Count
    known: str  # key of the mark that this account has logged in from here

    @classmethod
    def of(cls, name: str, address: str) -> Attempt:
        # Names that people and Django take for the same are counted as the same.
        name = unicodedata.normalize("NFKC", name).casefold()
        wide = WIDE * settings.LOGIN_ATTEMPTS
        return cls(
            address=address,
            by_address=Count(_key("address", address), wide, from_last=False),
            by_name=Count(_key("name", name), wide, from_last=False),
            by_pair=Count(_key("pair", address, name), settings.LOGIN_ATTEMPTS, from_last=True),
            known=_key("known", address, name),
        )

    def count(self) -> None:
        """Count the attempt everywhere, or raise LoginLocked and count it nowhere. Six queries at most."""
        now = timezone.now()
        known = LoginCounter.objects.filter(key=self.known, expires_at__gt=now).exists()
        counts = [self.by_address, self.by_pair] if known else [self.by_address, self.by_name, self.by_pair]
        # Outside of the transaction: a new row would be locked out of the order in which the others are, and every
        # transaction takes them in the same order, so that two never wait for each other.
        make_counters(counts, now)
        with transaction.atomic():  # raising takes back what was counted
            for count in counts:
                count.add(now)

    def succeeded(self) -> None:
        """Take the attempt out of the counts, and remember that this address is the account's. Four queries."""
        with transaction.atomic():
            self.by_address.take_back()
            self.by_name.take_back()
            LoginCounter.objects.filter(key=self.by_pair.key).update(count=0)
            LoginCounter.objects.bulk_create(
                [LoginCounter(key=self.known, expires_at=timezone.now() + KNOWN_FOR)],
                update_conflicts=True,
                unique_fields=["key"],
                update_fields=["expires_at"],
            )


def prune_counters(limit: int = 100) -> None:
    """Delete counters whose time is over, at most `limit` of them. One or two queries."""
    with transaction.atomic():
        # Rows that an attempt holds are left to it: waiting for several at once could be a deadlock.
        over = LoginCounter.objects.filter(expires_at__lt=timezone.now()).order_by("expires_at")
        if keys := list(over.select_for_update(skip_locked=True).values_list("key", flat=True)[:limit]):
            LoginCounter.objects.filter(key__in=keys).delete()


def _key(*parts: str) -> str:
    # `surrogatepass`: a name may be any str at all by the time it gets here.
    text = "\0".join(parts).encode("utf-8", "surrogatepass")
    return salted_hmac("bookapi.guard", text, algorithm="sha256").hexdigest()
