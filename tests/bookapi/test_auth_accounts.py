"""What an account may do, how soon a change of it counts, and how accounts are made."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth import password_validation
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Group, Permission, User
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import path
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from bookapi import accounts, tokens
from bookapi.accounts import CURATORS, OPERATORS, AccountCache, Role, create_account, read_account
from bookapi.auth import IsCurator, IsOperator
from bookapi.models import RefreshFamily
from bookapi.urls import urlpatterns as product_urls
from tests.bookapi.logins import PASSWORD, log_in, make_user, tokens_of


class Reading(APIView):
    def get(self, request: Request) -> Response:
        return Response({"name": request.user.username, "id": request.user.id})

    def post(self, request: Request) -> Response:
        return Response({"name": request.user.username})


class Curating(Reading):
    permission_classes = (IsCurator,)


class Operating(Reading):
    permission_classes = (IsOperator,)


urlpatterns = [
    *product_urls,
    path("api/v1/reading", Reading.as_view()),
    path("api/v1/curating", Curating.as_view()),
    path("api/v1/operating", Operating.as_view()),
]
pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(accounts.cache, "clock", clock)
    return clock


def ask(access: str, where: str = "reading", method: str = "get") -> int:
    headers = {"Authorization": f"Bearer {access}"}
    status: int = getattr(Client(), method)(f"/api/v1/{where}", headers=headers).status_code
    return status


def unnoticed(**changes: Any) -> None:
    """Change accounts as another process would: no signal reaches this one."""
    User.objects.update(**changes)


# --- How soon a change counts -----------------------------------------------------------------------------------------
def test_a_disabled_account_writes_no_more_at_once_and_reads_no_more_after_the_check_time(clock: Clock) -> None:
    make_user()
    access = tokens_of()["access"]
    assert ask(access) == 200
    unnoticed(is_active=False)
    assert ask(access, method="post") == 401
    assert ask(access) == 200
    clock.now += 29.9
    assert ask(access) == 200
    clock.now += 0.1
    assert ask(access) == 401


def test_a_changed_password_ends_writes_at_once_and_reads_after_the_check_time(clock: Clock) -> None:
    make_user()
    access = tokens_of()["access"]
    assert ask(access) == 200
    unnoticed(password="pbkdf2_sha256$1$other$other")
    assert ask(access, method="post") == 401
    clock.now += 30
    assert ask(access) == 401


def test_a_deleted_account_writes_no_more_at_once_and_reads_no_more_after_the_check_time(clock: Clock) -> None:
    user = make_user()
    access = tokens_of()["access"]
    assert ask(access) == 200
    RefreshFamily.objects.filter(user=user).delete()
    User.objects.filter(pk=user.pk)._raw_delete(using="default")
    assert ask(access, method="post") == 401
    clock.now += 30
    assert ask(access) == 401


def test_a_role_taken_away_counts_at_once_for_writes_and_after_the_check_time_for_reads(clock: Clock) -> None:
    user = create_account("olga", "operator", PASSWORD)
    access = tokens_of("olga")["access"]
    assert ask(access, "operating") == 200
    User.groups.through.objects.filter(user=user).delete()  # no m2m_changed: as from another process
    assert ask(access, "operating", "post") == 403
    assert ask(access, "operating") == 200
    clock.now += 30
    assert ask(access, "operating") == 403


def test_a_role_that_was_given_counts_for_a_token_that_is_older_than_it(clock: Clock) -> None:
    user = make_user(is_staff=True)
    access = tokens_of()["access"]
    assert ask(access, "curating") == 403
    user.groups.add(Group.objects.get(name=CURATORS))
    assert ask(access, "curating") == 200, "in the same process even at once"


def test_a_token_of_the_new_password_is_good_while_the_old_one_is_still_remembered() -> None:
    make_user()
    assert ask(tokens_of()["access"]) == 200
    unnoticed(password=make_password("a new afternoon, a new book"))
    fresh = log_in("anna", "a new afternoon, a new book").json()["access"]
    assert ask(fresh) == 200


def test_a_change_in_the_same_process_ends_reads_at_once() -> None:
    user = make_user()
    access = tokens_of()["access"]
    assert ask(access) == 200
    user.is_active = False
    user.save()
    assert ask(access) == 401


def test_after_a_logout_the_access_token_reads_and_does_not_write() -> None:
    make_user()
    pair = tokens_of()
    tokens.log_out(pair["refresh"])
    assert ask(pair["access"]) == 200
    assert ask(pair["access"], method="post") == 401


def test_remembered_accounts_are_bounded_and_the_longest_known_gives_way(django_assert_num_queries: Any) -> None:
    users = [make_user(f"reader{i}") for i in range(4)]
    cache = AccountCache(size=3)
    for user in users:
        cache.get(user.pk)
    assert len(cache) == 3
    with django_assert_num_queries(0):
        assert cache.get(users[3].pk) is not None
    with django_assert_num_queries(2):
        assert cache.get(users[0].pk) is not None


def test_reading_an_account_costs_the_same_for_every_role(django_assert_num_queries: Any) -> None:
    for role in accounts.ROLES:
        user = create_account(role, role, PASSWORD)
        with django_assert_num_queries(2):
            assert read_account(user.pk) is not None


# --- Roles ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("role", "may"),
    [
        ("reader", {"reading"}),
        ("curator", {"reading", "curating"}),
        ("operator", {"reading", "curating", "operating"}),
    ],
)
def test_a_role_opens_its_doors_and_no_others(role: Role, may: set[str]) -> None:
    create_account("anna", role, PASSWORD)
    access = tokens_of()["access"]
    for where in ("reading", "curating", "operating"):
        for method in ("get", "post"):
            assert ask(access, where, method) == (200 if where in may else 403)


def test_without_a_token_the_doors_of_roles_answer_401_even_where_reading_is_public(settings: Any) -> None:
    settings.PUBLIC_READ = True
    assert [Client().get(f"/api/v1/{where}").status_code for where in ("curating", "operating")] == [401, 401]


def test_curators_may_change_every_catalogue_model_and_delete_pins_alone() -> None:
    names = set(Permission.objects.filter(group__name=CURATORS).values_list("codename", flat=True))
    assert {"add_book", "change_book", "view_book", "change_category", "view_crawlrun"} <= names
    assert {"add_pin", "view_modelversion", "view_interaction", "report_readers"} <= names
    assert {name for name in names if name.startswith("delete_")} == {"delete_pin"}
    assert not names & {"start_crawl", "promote_modelversion", "change_modelversion", "add_interaction"}


def test_operators_may_do_what_curators_may_and_more() -> None:
    def names(group: str) -> set[str]:
        return set(Permission.objects.filter(group__name=group).values_list("codename", flat=True))

    more = {"start_crawl", "promote_modelversion", "delete_interaction", "view_user", "view_scheduledrun"}
    more.add("settle_deadletter")
    more |= {f"{action}_periodictask" for action in ("add", "change", "delete", "view")}
    more |= {f"{action}_{when}schedule" for action in ("add", "change", "view") for when in ("interval", "crontab")}
    assert names(OPERATORS) == names(CURATORS) | more


def test_roles_are_mended_by_the_next_migrate() -> None:
    Group.objects.all().delete()
    call_command("migrate", verbosity=0)
    assert set(Group.objects.values_list("name", flat=True)) == {CURATORS, OPERATORS}


def test_a_superuser_may_do_everything_and_a_disabled_account_nothing() -> None:
    root = read_account(make_user("root", is_superuser=True, is_staff=True).pk)
    assert root is not None
    assert root.is_operator
    assert root.has_perms(["catalog.delete_book", "auth.add_user"])
    assert read_account(make_user("off", is_active=False).pk) is None


def test_permissions_without_staff_status_make_no_curator() -> None:
    user = make_user()
    user.groups.add(Group.objects.get(name=OPERATORS))
    account = read_account(user.pk)
    assert account is not None
    assert account.has_perm("catalog.start_crawl")
    assert not account.is_curator
    assert not account.is_operator


# --- Making accounts --------------------------------------------------------------------------------------------------
def make(*arguments: str, stdin: str = "", monkeypatch: pytest.MonkeyPatch | None = None) -> str:
    if monkeypatch:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
    out = io.StringIO()
    call_command("create_account", *arguments, stdout=out)
    return out.getvalue()


@pytest.mark.parametrize("role", accounts.ROLES)
def test_the_command_makes_an_account_and_shows_a_password_that_works(role: str) -> None:
    shown = make("berta", "--role", role)
    password = shown.strip().rsplit(" ", 1)[1]
    assert len(password) >= 20
    user = User.objects.get(username="berta")
    assert user.check_password(password)
    assert not user.is_superuser
    assert user.is_staff == (role != "reader")
    assert make("carla", "--role", role).strip().rsplit(" ", 1)[1] != password


def test_the_command_takes_a_password_from_standard_input_and_does_not_show_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = make("berta", "--role", "reader", "--password-stdin", stdin=f"{PASSWORD}\n", monkeypatch=monkeypatch)
    assert PASSWORD not in shown
    assert "assword" not in shown
    assert User.objects.get(username="berta").check_password(PASSWORD)


@pytest.mark.parametrize("password", ["", "short", "password123", "berta-berta", "\0" * 3])
def test_the_command_refuses_weak_passwords(password: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["berta-berta", "--role", "reader", "--password-stdin"]
    with pytest.raises(CommandError, match="password"):
        make(*arguments, stdin=f"{password}\n", monkeypatch=monkeypatch)
    assert not User.objects.exists()


@pytest.mark.parametrize("name", ["anna", "ANNA", "ａｎｎａ"])
def test_the_command_refuses_a_name_that_is_taken_or_looks_like_it(name: str) -> None:
    make_user("anna")
    with pytest.raises(CommandError, match="already"):
        make(name, "--role", "reader")
    assert User.objects.count() == 1


@pytest.mark.parametrize("name", ["", " ", "an na", "a" * 151, "an\0na", "anna\n", "\ud800"])
def test_the_command_refuses_names_that_cannot_be_typed_or_stored(name: str) -> None:
    with pytest.raises(CommandError):
        make(name, "--role", "reader")
    assert not User.objects.exists()


def test_a_name_that_somebody_else_takes_meanwhile_is_an_error_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    validate = password_validation.validate_password

    def overtaken(*args: Any) -> None:
        validate(*args)
        make_user("anna")

    monkeypatch.setattr(accounts, "validate_password", overtaken)
    with pytest.raises(ValidationError, match="already"):
        create_account("anna", "curator", PASSWORD)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["anna", "--role", "emperor"], 2, "invalid choice"),
        (["anna"], 2, "--role"),
        (["an na", "--role", "reader"], 1, "valid username"),
        (["anna", "--role", "reader"], 1, "migrate"),
    ],
    ids=["a bad role", "no role", "a bad name", "no tables"],
)
def test_on_a_terminal_errors_are_a_sentence_and_an_exit_code(
    arguments: list[str], code: int, says: str, tmp_path: Any
) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "create_account", *arguments],
        env={**os.environ, "DATABASE_URL": f"sqlite:///{tmp_path}/empty.sqlite3"},
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr
