"""Tokens that must be refused, each with 401 and a challenge; and what an accepted one costs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.test import Client
from django.urls import path
from hypothesis import given
from hypothesis import strategies as st
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from bookapi import tokens
from bookapi.key_rotation import Folders
from bookapi.keys import verifying_keys
from bookapi.models import RefreshFamily
from bookapi.urls import urlpatterns as product_urls
from tests.bookapi.forged_tokens import CLAIMS, STRINGS, Mint, forged, mint_of
from tests.bookapi.logins import make_user, refresh, tokens_of, verify


class WhoAmI(APIView):
    """A view with the product's defaults and nothing else."""

    def get(self, request: Request) -> Response:
        return Response({"name": str(request.user)})

    def post(self, request: Request) -> Response:
        return Response({"name": str(request.user)})


urlpatterns = [*product_urls, path("api/v1/whoami", WhoAmI.as_view())]
pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]


@pytest.fixture
def anna() -> User:
    return make_user()


def ask(token: str | None, method: str = "get", **headers: str) -> Any:
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    return getattr(Client(), method)("/api/v1/whoami", headers=headers)


def assert_refused(answer: Any) -> None:
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"] == "Bearer"
    assert answer["Content-Type"] == "application/problem+json"


def family_of(user: User) -> int:
    return RefreshFamily.objects.create(
        user=user, jti="0" * 32, stamp=user.get_session_auth_hash(), expires_at="2100-01-01T00:00Z"
    ).pk


# --- The list ---------------------------------------------------------------------------------------------------------
NOW = 1_800_000_000


@pytest.fixture(params=["HS256", "RS256"])
def mint(request: pytest.FixtureRequest, anna: User, settings: Any, key_folders: Folders) -> Mint:
    """The signer of a process that has a secret, and of one that has keys."""
    known: dict[str, Any] = {
        "sub": str(anna.pk),
        "fam": family_of(anna),
        "pwd": anna.get_session_auth_hash()[:16],
    }
    if request.param == "HS256":
        return Mint(settings.SECRET_KEY, "HS256", **known)
    settings.JWT_PUBLIC_KEYS, settings.JWT_PRIVATE_KEYS = str(key_folders.public), str(key_folders.private)
    return mint_of(key_folders, secret=settings.SECRET_KEY, **known)


@pytest.mark.parametrize("method", ["get", "post", "verify"])
def test_every_forged_or_stale_token_is_refused(method: str, mint: Mint) -> None:
    """One test for the whole table: a test for each would take half a minute."""

    def answer(token: str) -> Any:
        return verify(token) if method == "verify" else ask(token, method)

    with time_machine.travel(NOW, tick=False):
        mint = replace(mint, now=NOW)
        assert answer(mint.token()).status_code == 200, "the unchanged token must be good"
        answers = {name: answer(forged(mint, name)) for name in (*CLAIMS, *STRINGS)}
        assert {name: said.status_code for name, said in answers.items() if said.status_code != 401} == {}
        for said in answers.values():
            assert_refused(said)
        assert answer(mint.token()).status_code == 200


@given(st.text(max_size=200))
def test_no_text_in_place_of_a_token_is_more_than_refused(text: str) -> None:
    with pytest.raises(tokens.InvalidToken):
        tokens.verify_access(text)
    with pytest.raises(tokens.InvalidToken):
        tokens.verify_refresh(text)


def test_half_a_surrogate_pair_is_refused_by_verify() -> None:
    answer = Client().post("/api/v1/auth/verify", b'{"token": "\\ud800"}', content_type="application/json")
    assert answer.status_code == 400


# --- Around them ------------------------------------------------------------------------------------------------------
def test_an_access_token_lives_fifteen_minutes_even_when_its_signature_is_remembered(anna: User) -> None:
    with time_machine.travel(NOW, tick=False) as clock:
        pair = tokens_of()
        assert pair["expires_in"] == 900
        clock.shift(899)
        assert ask(pair["access"]).status_code == 200
        clock.shift(1)
        assert_refused(ask(pair["access"]))


def test_a_refresh_token_does_not_read(anna: User) -> None:
    assert_refused(ask(tokens_of()["refresh"]))


def test_an_access_token_does_not_refresh(anna: User) -> None:
    assert_refused(refresh(tokens_of()["access"]))


def test_without_a_token_reading_is_refused_with_a_challenge() -> None:
    assert_refused(ask(None))


def test_another_scheme_is_no_token() -> None:
    assert_refused(Client().get("/api/v1/whoami", headers={"Authorization": "Basic YTpi"}))


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer "])
def test_the_scheme_is_read_in_any_case(scheme: str, anna: User) -> None:
    answer = Client().get("/api/v1/whoami", headers={"Authorization": f"{scheme} {tokens_of()['access']}"})
    assert answer.json() == {"name": "anna"}


def test_where_reading_is_public_no_token_is_needed_for_reading_alone(settings: Any) -> None:
    settings.PUBLIC_READ = True
    assert ask(None).status_code == 200
    assert_refused(ask(None, "post"))


def test_where_reading_is_public_a_bad_token_is_still_refused(settings: Any, anna: User) -> None:
    settings.PUBLIC_READ = True
    assert_refused(ask("nonsense"))


@pytest.mark.parametrize("header", ["X-User-Id", "X-Auth-User", "X-Gateway-User", "X-Forwarded-User", "Remote-User"])
def test_a_header_that_names_a_user_means_nothing(header: str, anna: User) -> None:
    berta = make_user("berta")
    for name in (str(berta.pk), berta.username):
        assert_refused(ask(None, **{header: name}))
        assert ask(tokens_of()["access"], **{header: name}).json() == {"name": "anna"}


@pytest.mark.parametrize("name", ["token", "access", "access_token", "jwt", "Authorization"])
def test_a_token_is_read_from_its_header_alone(name: str, anna: User) -> None:
    access = tokens_of()["access"]
    client = Client()
    client.cookies[name] = access
    assert_refused(client.get("/api/v1/whoami", {name: access}))
    assert_refused(client.post("/api/v1/whoami", {name: access}, content_type="application/json"))


def test_reading_costs_no_query_once_the_account_is_known(anna: User, django_assert_num_queries: Any) -> None:
    access = tokens_of()["access"]
    with django_assert_num_queries(2):  # the account, the names of its permissions
        assert ask(access).status_code == 200
    with django_assert_num_queries(0):
        assert ask(access).status_code == 200


def test_writing_asks_the_database_every_time(anna: User, django_assert_num_queries: Any) -> None:
    access = tokens_of()["access"]
    for _ in range(2):
        with django_assert_num_queries(2):  # the account with its login, the names of its permissions
            assert ask(access, "post").status_code == 200


def test_remembered_signatures_are_bounded() -> None:
    verified, keys = tokens.VerifiedTokens(size=3), verifying_keys()
    for i in range(10):
        verified.add(str(i), tokens.Claims(account=i, family=1, jti="", stamp="", expires_at=0), keys)
    assert len(verified) == 3
    assert verified.get("9", keys) is not None
    assert verified.get("6", keys) is None
