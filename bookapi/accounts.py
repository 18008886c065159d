"""Accounts: who they are, what they may do, and how they are made."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from django.apps import apps
from django.conf import settings
from django.contrib.auth.models import Group, Permission, User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef, Q, Value
from django.db.models.base import ModelBase

from bookapi.models import RefreshFamily

Role = Literal["reader", "curator", "operator"]
ROLES: tuple[Role, ...] = get_args(Role)
#: Django groups; the role *reader* is being in none of them.
CURATORS = "curators"
OPERATORS = "operators"


@dataclass(frozen=True, slots=True)
class Account:
    """What a request needs to know of the account behind it, as `request.user`. Reading it costs no query."""

    pk: int
    username: str
    stamp: str  # keyed digest of the password hash: changes with the password
    is_active: bool
    is_staff: bool
    is_superuser: bool
    permissions: frozenset[str]  # "catalog.change_book"

    is_authenticated = True
    is_anonymous = False

    @property
    def id(self) -> int:
        return self.pk

    def __str__(self) -> str:
        return self.username

    def get_username(self) -> str:
        return self.username

    def has_perm(self, permission: str, _object: object = None) -> bool:
        return self.is_active and (self.is_superuser or permission in self.permissions)

    def has_perms(self, permissions: Iterable[str], _object: object = None) -> bool:
        return all(self.has_perm(permission) for permission in permissions)

    @property
    def is_curator(self) -> bool:
        """May correct the catalogue."""
        return self.is_staff and self.has_perm("catalog.change_book")

    @property
    def is_operator(self) -> bool:
        """May start crawls and trainings."""
        return self.is_staff and self.has_perm("catalog.start_crawl")


def read_account(pk: int, family: int | None = None) -> Account | None:
    """The account as the database has it now; None if it is gone or disabled, or `family` (a login of it) has ended.

    Two queries: the account, with its login if one is asked for; the names of its permissions. One for a superuser,
    and one when the answer is None.
    """
    logged_in: Value | Exists = Value(True)
    if family is not None:
        logged_in = Exists(RefreshFamily.objects.filter(pk=family, user=OuterRef("pk"), revoked_at=None))
    user = (
        User.objects.filter(pk=pk, is_active=True)
        .annotate(logged_in=logged_in)
        .only("username", "password", "is_active", "is_staff", "is_superuser")
        .first()
    )
    if user is None or not user.logged_in:
        return None
    permissions: Iterable[tuple[str, str]] = ()
    if not user.is_superuser:
        # A union and not an "or": each half begins at the account and walks an index.
        names = Permission.objects.order_by().values_list("content_type__app_label", "codename")
        permissions = names.filter(group__user=pk).union(names.filter(user=pk))
    return Account(
        pk=user.pk,
        username=user.username,
        stamp=user.get_session_auth_hash(),
        is_active=user.is_active,
        is_staff=user.is_staff,
        is_superuser=user.is_superuser,
        permissions=frozenset(f"{app}.{codename}" for app, codename in permissions),
    )


class AccountCache:
    """Accounts as they were at most `ACCOUNT_CHECK_S` seconds ago, so that reads need not ask the database.

    One in each process. Bounded: when it is full, the account that was read longest ago gives way.
    """

    def __init__(self, size: int = 10_000, clock: Callable[[], float] = time.monotonic) -> None:
        self.size = size
        self.clock = clock
        self._known: dict[int, tuple[float, Account | None]] = {}  # in the order of reading
        self._lock = threading.Lock()

    def get(self, pk: int) -> Account | None:
        """The account, or None if it is gone or disabled. No query while what we know is fresh."""
        known = self._known.get(pk)
        if known is not None and self.clock() - known[0] < settings.ACCOUNT_CHECK_S:
            return known[1]
        return self.reread(pk)

    def reread(self, pk: int) -> Account | None:
        """The account as the database has it now, remembered for later reads."""
        at = self.clock()  # before the query: what it finds may be out of date by the time it is stored
        account = read_account(pk)
        with self._lock:
            self._known.pop(pk, None)
            while len(self._known) >= self.size:
                del self._known[next(iter(self._known))]
            self._known[pk] = (at, account)
        return account

    def forget(self, pk: int) -> None:
        with self._lock:
            self._known.pop(pk, None)

    def clear(self) -> None:
        with self._lock:
            self._known.clear()

    def __len__(self) -> int:
        return len(self._known)


cache = AccountCache()


def forget_changed(sender: type, instance: Any = None, **_: Any) -> None:
    """Signal handler: what changes an account or a group in this process counts at once in this process.

    The promise of `ACCOUNT_CHECK_S` does not rest on it; other processes and `QuerySet.update` send no signal here.
    """
    forget = cache.clear if not isinstance(instance, User) else lambda: cache.forget(instance.pk)
    forget()
    transaction.on_commit(forget)  # a reader may have read the old state again before the commit


# --- Roles ------------------------------------------------------------------------------------------------------------
def roles_after_migrate(apps: Any = apps, **_: Any) -> None:
    """Signal handler: a migrate may have brought models, and with them permissions."""
    try:
        apps.get_model("auth", "Group")
    except LookupError:  # migrated up to a point where there are no groups
        return
    ensure_roles()


def ensure_roles() -> None:
    """Make the groups of the roles, with at least the permissions that belong to them. Takes nothing away."""
    catalog: list[ModelBase] = list(apps.get_app_config("catalog").get_models())
    curating = Permission.objects.filter(
        content_type__app_label="catalog",
        codename__in=[
            f"{action}_{model._meta.model_name}"  # type: ignore[attr-defined]
            for model in catalog
            for action in ("add", "change", "view")
        ],
    )
    recommender = Permission.objects.filter(content_type__app_label="recommender")
    pinning = recommender.filter(
        Q(codename__endswith="_pin") | Q(codename__startswith="view_") | Q(codename="report_readers")
    )
    operating = Permission.objects.filter(
        Q(content_type__app_label="catalog", codename__in=["start_crawl", "settle_deadletter"])
        | Q(content_type__app_label="recommender", codename__in=["promote_modelversion", "delete_interaction"])
        | Q(content_type__app_label="auth", codename="view_user")
        | Q(content_type__app_label="django_celery_beat", codename__endswith="_periodictask")
        | Q(
            content_type__app_label="django_celery_beat",
            content_type__model__in=["intervalschedule", "crontabschedule"],
            # Whoever deletes one of these deletes the schedules that use it.
            codename__regex="^(add|change|view)_",
        )
        | Q(content_type__app_label="bookapi", codename="view_scheduledrun")
    )
    curators, _made = Group.objects.get_or_create(name=CURATORS)
    operators, _made = Group.objects.get_or_create(name=OPERATORS)
    curators.permissions.add(*curating, *pinning)
    operators.permissions.add(*curating, *pinning, *operating)


def create_account(name: str, role: Role, password: str) -> User:
    """A new account with one of the roles; never a superuser.

    Raises ValidationError, with messages for people, when the name is taken (case makes no difference: two names
    that look alike are a trap), the name is not allowed, or the password is too weak.
    """
    user = User(username=User.normalize_username(name), is_staff=role != "reader")
    user.set_unusable_password()
    if "\0" in name:
        raise ValidationError("A name cannot hold a NUL character.")
    user.clean_fields()
    if User.objects.filter(username__iexact=user.username).exists():
        raise ValidationError(f"There is an account {user.username!r} already.")
    validate_password(password, user)
    user.set_password(password)
    try:
        with transaction.atomic():
            user.save()
            if role != "reader":
                ensure_roles()
                user.groups.add(Group.objects.get(name=CURATORS if role == "curator" else OPERATORS))
    except IntegrityError:  # made by somebody else since we looked
        raise ValidationError(f"There is an account {user.username!r} already.") from None
    return user
