"""Passwords cannot be guessed by trying, and nobody can lock an owner out from elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.admin.forms import AdminAuthenticationForm
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.test import Client, RequestFactory
from django.utils import timezone

from bookapi import guard
from bookapi.guard import Attempt, LoginLocked
from bookapi.models import LoginCounter
from tests.bookapi.logins import PASSWORD, all_at_once, log_in, make_user

pytestmark = pytest.mark.django_db

HOME, AWAY = "192.0.2.1", "198.51.100.7"


@pytest.fixture(autouse=True)
def _few_attempts(settings: Any) -> None:
    settings.LOGIN_ATTEMPTS = 3
    settings.LOGIN_LOCKOUT_S = 600


@pytest.fixture
def anna() -> User:
    return make_user()


def fail(times: int, name: str = "anna", address: str = HOME) -> list[int]:
    return [log_in(name, "wrong", address).status_code for _ in range(times)]


def test_after_some_failures_even_the_right_password_is_refused(anna: User) -> None:
    assert fail(3) == [401, 401, 401]
    answer = log_in()
    assert answer.status_code == 429
    assert 590 <= int(answer["Retry-After"]) <= 600
    assert answer["Content-Type"] == "application/problem+json"


def test_an_unknown_name_is_locked_like_a_known_one() -> None:
    assert fail(4, "nobody") == [401, 401, 401, 429]


def test_the_lock_ends_after_its_time_even_under_knocking(anna: User) -> None:
    with time_machine.travel("2027-01-01", tick=False) as clock:
        fail(3)
        clock.shift(599)
        assert log_in().status_code == 429
        clock.shift(1)
        assert log_in().status_code == 200


def test_failures_spread_over_a_long_time_do_not_lock(anna: User) -> None:
    with time_machine.travel("2027-01-01", tick=False) as clock:
        for _ in range(5):
            assert fail(2) == [401, 401]
            clock.shift(600)
        assert log_in().status_code == 200


def test_a_success_forgets_the_failures_before_it(anna: User) -> None:
    for _ in range(3):
        fail(2)
        assert log_in().status_code == 200


def test_a_stranger_elsewhere_does_not_lock_the_owner_out(anna: User) -> None:
    fail(4, address=AWAY)
    assert log_in(address=HOME).status_code == 200


def test_a_neighbour_at_the_same_address_does_not_lock_the_owner_out(anna: User) -> None:
    make_user("berta")
    fail(4, "berta")
    assert log_in("anna").status_code == 200


@pytest.mark.parametrize("name", ["ANNA", "Anna", "ａｎｎａ"])
def test_other_spellings_of_a_name_are_counted_as_the_same_name(name: str, anna: User) -> None:
    fail(3, name)
    assert log_in("anna").status_code == 429


def test_one_password_tried_on_many_names_locks_the_address(anna: User) -> None:
    attempts = [log_in(f"reader{i}", "wrong").status_code for i in range(61)]
    assert attempts == [401] * 60 + [429]
    assert log_in("anna").status_code == 429
    assert log_in("anna", address=AWAY).status_code == 200


def test_an_own_account_does_not_wash_the_address_clean(anna: User) -> None:
    for i in range(60):
        assert log_in(f"reader{i}", "wrong").status_code == 401
        if i % 10 == 0:
            assert log_in("anna").status_code == 200
    assert log_in("anna").status_code == 429


def test_many_passwords_from_many_addresses_lock_the_name_but_not_where_its_owner_works(anna: User) -> None:
    assert log_in(address=HOME).status_code == 200
    attempts = [log_in("anna", "wrong", f"198.51.100.{i}").status_code for i in range(61)]
    assert attempts == [401] * 60 + [429]
    assert log_in(address="203.0.113.5").status_code == 429, "the right password, but a new address"
    assert log_in(address=HOME).status_code == 200


def test_addresses_of_one_ipv6_network_count_as_one(anna: User) -> None:
    for i in range(3):
        fail(1, address=f"2001:db8:1:2::{i}")
    assert log_in(address="2001:db8:1:2:ffff::1").status_code == 429
    assert log_in(address="2001:db8:1:3::1").status_code == 200


def test_a_refused_attempt_counts_nowhere(anna: User) -> None:
    fail(3)
    before = sorted(LoginCounter.objects.values_list("key", "count", "expires_at"))
    assert fail(20) == [429] * 20
    assert sorted(LoginCounter.objects.values_list("key", "count", "expires_at")) == before


def test_the_forwarded_address_counts_only_behind_a_trusted_proxy(anna: User, settings: Any) -> None:
    def attempt(seen: str) -> int:
        body = {"username": "anna", "password": "wrong"}
        headers = {"X-Forwarded-For": f"203.0.113.200, {seen}"}
        return Client().post("/api/v1/login", body, "application/json", headers=headers).status_code

    assert [attempt(f"203.0.113.{i}") for i in range(4)] == [401, 401, 401, 429]
    settings.TRUSTED_PROXIES = 1
    assert [attempt(f"203.0.113.{i}") for i in range(4)] == [401] * 4


def test_the_admin_has_the_same_lock_on_its_door() -> None:
    make_user("curator", is_staff=True)

    def sign_in(password: str, address: str = HOME) -> bool:
        request = RequestFactory().post("/admin/login/", REMOTE_ADDR=address)
        return AdminAuthenticationForm(request, data={"username": "curator", "password": password}).is_valid()

    assert sign_in(PASSWORD)
    assert [sign_in("wrong") for _ in range(3)] == [False] * 3
    assert not sign_in(PASSWORD)
    assert log_in("curator").status_code == 429, "one lock for both doors"
    assert sign_in(PASSWORD, AWAY)


@pytest.mark.django_db(transaction=True)
def test_guesses_at_the_same_moment_get_no_more_tries_than_one_after_the_other() -> None:
    make_user()
    answers = all_at_once(12, lambda i: log_in("anna", "wrong").status_code)
    assert sorted(answers) == [401] * 3 + [429] * 9


@pytest.mark.django_db(transaction=True)
def test_logins_of_many_people_at_one_address_at_once_all_succeed() -> None:
    for i in range(8):
        make_user(f"reader{i}")
    assert all_at_once(8, lambda i: log_in(f"reader{i}").status_code) == [200] * 8
    assert all_at_once(8, lambda i: log_in("reader0").status_code).count(200) >= 3


@pytest.mark.django_db(transaction=True)
def test_counting_and_pruning_at_once_lock_nobody_out_by_mistake(settings: Any) -> None:
    past = timezone.now() - timedelta(seconds=1)
    attempts = [Attempt.of(f"reader{i}", HOME) for i in range(6)]

    def act(i: int) -> None:
        for _ in range(10):
            keys = [count.key for count in (attempts[i].by_address, attempts[i].by_name, attempts[i].by_pair)]
            LoginCounter.objects.filter(key__in=sorted(keys)[:1]).update(expires_at=past)
            guard.prune_counters()
            attempts[i].count()
            attempts[i].succeeded()

    all_at_once(6, act)


def test_a_counter_that_vanishes_while_it_is_counted_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = Attempt.of("anna", HOME)
    make = guard.make_counters
    calls: list[int] = []

    def vanishing(*args: Any) -> None:
        make(*args)
        calls.append(1)
        if len(calls) == 1:
            LoginCounter.objects.all().delete()

    monkeypatch.setattr(guard, "make_counters", vanishing)
    attempt.count()
    assert len(calls) == 4
    assert sorted(LoginCounter.objects.values_list("count", flat=True)) == [1, 1, 1]


def test_a_counter_that_another_attempt_makes_again_locks_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is gone when it is to be counted up, and there when it is looked at."""
    counter = Attempt.of("anna", HOME).by_name
    count_up = QuerySet.update
    calls: list[int] = []

    def update(rows: QuerySet[Any], **values: Any) -> int:
        calls.append(1)
        if len(calls) == 1:
            guard.make_counters([counter], timezone.now())
            return 0
        return count_up(rows, **values)

    monkeypatch.setattr(QuerySet, "update", update)
    counter.add(timezone.now())
    assert list(LoginCounter.objects.values_list("count", flat=True)) == [1]


def test_the_counters_hold_no_names_and_no_addresses(anna: User) -> None:
    fail(1)
    keys = list(LoginCounter.objects.values_list("key", flat=True))
    assert len(keys) == 3
    assert all(len(key) == 64 and "anna" not in key and HOME not in key for key in keys)


def test_old_counters_are_cleared_away_a_few_at_a_time(anna: User) -> None:
    past = timezone.now() - timedelta(seconds=1)
    LoginCounter.objects.bulk_create([LoginCounter(key=str(i), expires_at=past) for i in range(150)])
    fail(1)
    assert LoginCounter.objects.filter(expires_at__lte=past).count() == 50


def test_any_name_at_all_can_be_counted() -> None:
    for name in ("", "\0", "\ud800", "a" * 10_000, "ß", "İ"):
        Attempt.of(name, HOME).count()
    for _ in range(2):
        Attempt.of("\ud800", HOME).count()
    with pytest.raises(LoginLocked):
        Attempt.of("\ud800", HOME).count()


# --- Several processes ------------------------------------------------------------------------------------------------
GUESS = """
import django; django.setup()
from django.test import Client
body = {"username": "anna", "password": "wrong"}
print(*[Client().post("/api/v1/auth/login", body, REMOTE_ADDR="192.0.2.1").status_code for _ in range(6)])
"""


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("jobs_here")
def test_processes_count_failures_together(anna: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas of the authentication service are no help to who guesses: the count is in the database."""
    monkeypatch.setenv("LOGIN_ATTEMPTS", "3")
    children = [
        subprocess.Popen(
            [sys.executable, "-c", GUESS], env={**os.environ, "ALLOWED_HOSTS": "testserver"}, stdout=subprocess.PIPE
        )
        for _ in range(2)
    ]
    answers = [status for child in children for status in child.communicate(timeout=120)[0].split()]
    assert sorted(answers) == [b"401"] * 3 + [b"429"] * 9
    assert log_in().status_code == 429
