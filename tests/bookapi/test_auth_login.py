"""Login, refresh, logout and verify, as a client meets them; and what ends a login."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from django.utils.crypto import constant_time_compare

from bookapi import tokens
from bookapi.models import RefreshFamily
from tests.bookapi.logins import (
    PASSWORD,
    QuickHasher,
    all_at_once,
    log_in,
    make_user,
    post,
    refresh,
    tokens_of,
    verify,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def anna() -> User:
    return make_user()


@pytest.mark.parametrize("path", ["/api/v1/auth/login", "/api/v1/login"])
def test_the_right_password_gives_tokens(path: str, anna: User) -> None:
    answer = post(path, {"username": "anna", "password": PASSWORD})
    assert answer.status_code == 200
    assert answer["Cache-Control"] == "no-store"
    body = answer.json()
    assert set(body) == {"access", "refresh", "token_type", "expires_in"}
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 900)
    assert verify(body["access"]).json() == {}


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", None])
def test_a_form_is_as_good_as_json(content_type: str | None, anna: User) -> None:
    if content_type:
        answer: Any = Client().post(
            "/api/v1/auth/login", f"username=anna&password={PASSWORD.replace(' ', '+')}", content_type=content_type
        )
    else:
        answer = Client().post("/api/v1/auth/login", {"username": "anna", "password": PASSWORD})  # multipart
    assert answer.status_code == 200


def test_a_wrong_password_an_unknown_name_and_a_disabled_account_get_the_same_answer(anna: User) -> None:
    make_user("gone", is_active=False)
    answers = [log_in("anna", "wrong"), log_in("nobody"), log_in("gone")]
    bodies = [{k: v for k, v in answer.json().items() if k != "request_id"} for answer in answers]
    assert [answer.status_code for answer in answers] == [401, 401, 401]
    assert bodies[0] == bodies[1] == bodies[2]
    assert bodies[0]["detail"] == "Name or password is wrong."
    assert all(answer["WWW-Authenticate"] == "Bearer" for answer in answers)


def test_an_unknown_name_costs_a_password_hash_too(anna: User, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = []
    encode = QuickHasher.encode

    def counted(self: Any, *args: Any, **kwargs: Any) -> str:
        hashed.append(1)
        return encode(self, *args, **kwargs)

    monkeypatch.setattr(QuickHasher, "encode", counted)
    log_in("anna", "wrong")
    known = len(hashed)
    log_in("nobody", "wrong")
    assert known >= 1
    assert len(hashed) == 2 * known


def test_a_stale_header_does_not_stand_in_the_way_of_logging_in(anna: User) -> None:
    answer = post(
        "/api/v1/auth/login", {"username": "anna", "password": PASSWORD}, Authorization="Bearer long.since.stale"
    )
    assert answer.status_code == 200


def test_a_name_typed_in_another_unicode_form_is_the_same_name() -> None:
    make_user("josé")
    assert log_in("josé").status_code == 200


BAD_BODIES: dict[str, Any] = {
    "nothing": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "text": b'"anna"',
    "null": b"null",
    "no password": b'{"username": "anna"}',
    "an empty name": b'{"username": "", "password": "x"}',
    "a list for a name": b'{"username": ["anna"], "password": "x"}',
    "null for a password": b'{"username": "anna", "password": null}',
    "a NUL in the name": b'{"username": "an\\u0000na", "password": "x"}',
    "a NUL in the password": b'{"username": "anna", "password": "\\u0000"}',
    "half a surrogate pair in the name": b'{"username": "\\ud800", "password": "x"}',
    "half a surrogate pair in the password": b'{"username": "anna", "password": "\\udfff"}',
    "a long name": b'{"username": "' + b"a" * 151 + b'", "password": "x"}',
    "a long password": b'{"username": "anna", "password": "' + b"a" * 1025 + b'"}',
    "broken UTF-8": b'{"username": "\xff", "password": "x"}',
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES)
def test_a_body_is_bad_input(body: bytes) -> None:
    for path in ("login", "refresh", "logout", "verify"):
        answer = Client().post(f"/api/v1/auth/{path}", body, content_type="application/json")
        assert answer.status_code == 400, path
        assert answer["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    "form", [b"username=%00&password=x", b"username=%ED%A0%80&password=x", b"username=%FF&password=x"]
)
def test_a_form_with_bytes_that_are_no_text_is_no_login(form: bytes) -> None:
    answer = Client().post("/api/v1/auth/login", form, content_type="application/x-www-form-urlencoded")
    assert answer.status_code in {400, 401}


def test_a_password_of_a_megabyte_is_refused_unread() -> None:
    assert log_in("anna", "a" * 1_000_000).status_code == 413


def test_other_methods_and_types_are_refused_politely() -> None:
    assert Client().get("/api/v1/auth/login").status_code == 405
    assert Client().post("/api/v1/auth/login", b"<a/>", content_type="application/xml").status_code == 415


# --- Refresh families -------------------------------------------------------------------------------------------------
def test_a_refresh_token_is_exchanged_for_the_next_pair(anna: User) -> None:
    first = tokens_of()
    second = refresh(first["refresh"])
    assert second.status_code == 200
    assert set(second.json()) == set(first)
    assert second.json()["refresh"] != first["refresh"]
    assert verify(second.json()["access"]).status_code == 200
    assert refresh(second.json()["refresh"]).status_code == 200
    assert RefreshFamily.objects.count() == 1


def test_a_spent_refresh_token_is_refused_and_ends_its_family(anna: User) -> None:
    spent = tokens_of()["refresh"]
    current = refresh(spent).json()
    answer = refresh(spent)
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"] == "Bearer"
    assert refresh(current["refresh"]).status_code == 401
    assert verify(current["access"]).status_code == 401  # it writes nothing more
    family = RefreshFamily.objects.get()
    assert (family.reason, family.revoked_at is not None) == ("reuse", True)


def test_reuse_ends_one_login_and_leaves_the_others_of_the_account(anna: User) -> None:
    spent, other = tokens_of()["refresh"], tokens_of()["refresh"]
    refresh(spent)
    refresh(spent)
    assert refresh(other).status_code == 200


def test_a_token_spent_long_ago_ends_the_family_as_well(anna: User) -> None:
    first = current = tokens_of()["refresh"]
    for _ in range(3):
        current = refresh(current).json()["refresh"]
    assert refresh(first).status_code == 401
    assert refresh(current).status_code == 401


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("_round", range(3))
def test_many_refreshes_at_once_give_one_winner(_round: int) -> None:
    make_user()
    token = tokens_of()["refresh"]
    answers = all_at_once(6, lambda _i: refresh(token))
    assert sorted(answer.status_code for answer in answers) == [200, 401, 401, 401, 401, 401]
    winner = next(answer.json() for answer in answers if answer.status_code == 200)
    # Who came too late ended the family, who came at the same moment did not; the row and its tokens agree.
    family = RefreshFamily.objects.get()
    assert tokens.verify_refresh(winner["refresh"]).jti == family.jti
    assert family.reason in {"", "reuse"}
    assert refresh(winner["refresh"]).status_code == (401 if family.revoked_at else 200)
    assert refresh(token).status_code == 401
    assert RefreshFamily.objects.get().reason == "reuse"


def test_the_loser_of_a_true_race_gets_nothing_and_ends_nothing(anna: User, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tokens_of()["refresh"]
    winners: list[tokens.TokenPair] = []

    def overtaken(*args: Any) -> bool:
        """Another request spends the token after this one has found it good."""
        monkeypatch.setattr(tokens, "constant_time_compare", constant_time_compare)
        result = constant_time_compare(*args)
        winners.append(tokens.rotate(token))
        return result

    monkeypatch.setattr(tokens, "constant_time_compare", overtaken)
    assert refresh(token).status_code == 401
    assert refresh(winners[0].refresh).status_code == 200


def test_a_family_that_ends_during_a_refresh_gives_no_tokens(anna: User, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tokens_of()["refresh"]

    def ended(*args: Any) -> bool:
        tokens.end_family(RefreshFamily.objects.get().pk, RefreshFamily.Reason.LOGOUT)
        return constant_time_compare(*args)

    monkeypatch.setattr(tokens, "constant_time_compare", ended)
    assert refresh(token).status_code == 401


def test_a_refresh_token_expires_with_its_family(anna: User) -> None:
    with time_machine.travel("2027-01-01", tick=False) as clock:
        token = tokens_of()["refresh"]
        clock.shift(timedelta(days=13))
        token = refresh(token).json()["refresh"]
        clock.shift(timedelta(days=13))  # each exchange begins a new fortnight
        token = refresh(token).json()["refresh"]
        clock.shift(timedelta(days=14))
        assert refresh(token).status_code == 401


@pytest.mark.parametrize("token", ["", "a.b.c", "A" * 20_000], ids=["empty", "garbage", "20 kB"])
def test_nonsense_is_refused_by_refresh_and_logout(token: str) -> None:
    assert refresh(token).status_code == 401
    assert post("/api/v1/auth/logout", {"refresh": token}).status_code == 401


# --- What ends a login ------------------------------------------------------------------------------------------------
def test_logout_ends_the_family_and_can_be_repeated(anna: User) -> None:
    pair = tokens_of()
    answer = post("/api/v1/auth/logout", {"refresh": pair["refresh"]})
    assert (answer.status_code, answer.content) == (204, b"")
    assert refresh(pair["refresh"]).status_code == 401
    assert verify(pair["access"]).status_code == 401
    assert post("/api/v1/auth/logout", {"refresh": pair["refresh"]}).status_code == 204
    assert RefreshFamily.objects.get().reason == "logout"


def test_a_changed_password_ends_refresh_and_writes_at_once(anna: User) -> None:
    pair = tokens_of()
    anna.set_password("another, just as quiet, afternoon")
    anna.save()
    assert refresh(pair["refresh"]).status_code == 401
    assert verify(pair["access"]).status_code == 401
    assert RefreshFamily.objects.get().reason == "password"


def test_a_disabled_account_refreshes_no_more_even_when_it_is_enabled_again(anna: User) -> None:
    pair = tokens_of()
    User.objects.update(is_active=False)
    assert refresh(pair["refresh"]).status_code == 401
    assert verify(pair["access"]).status_code == 401
    User.objects.update(is_active=True)
    assert refresh(pair["refresh"]).status_code == 401


def test_a_deleted_account_refreshes_no_more(anna: User) -> None:
    pair = tokens_of()
    anna.delete()
    assert refresh(pair["refresh"]).status_code == 401
    assert verify(pair["access"]).status_code == 401
    assert post("/api/v1/auth/logout", {"refresh": pair["refresh"]}).status_code == 204


def test_verify_refuses_refresh_tokens(anna: User) -> None:
    assert verify(tokens_of()["refresh"]).status_code == 401


def test_login_clears_away_expired_families_a_few_at_a_time(anna: User) -> None:
    past = timezone.now() - timedelta(days=1)
    RefreshFamily.objects.bulk_create(
        [RefreshFamily(user=anna, jti=str(i), stamp="", expires_at=past) for i in range(150)]
    )
    live = tokens_of()["refresh"]
    assert RefreshFamily.objects.count() == 51
    tokens_of()
    assert RefreshFamily.objects.count() == 2
    assert refresh(live).status_code == 200
