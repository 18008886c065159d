"""Tokens that must be refused, each with 401 and a challenge; and what an accepted one costs."""

from __future__ import annotations

from collections.abc import Callable
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
from bookapi.models import RefreshFamily
from bookapi.urls import urlpatterns as product_urls
from tests.bookapi.logins import claims, make_user, refresh, segment, sign, sign_bytes, tokens_of, verify


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
CLAIMS: dict[str, dict[str, Any]] = {
    "that expired": {"exp": NOW - 1},
    "that expires this second": {"exp": NOW},
    "whose exp is missing": {"exp": None},
    "whose exp is text": {"exp": str(NOW + 600)},
    "whose exp is huge": {"exp": 10**30},
    "whose exp is next century": {"exp": NOW + 100 * 365 * 86400},
    "whose exp is beyond a lifetime": {"exp": NOW + 15 * 60 + 61},
    "whose exp is negative": {"exp": -1},
    "whose exp is zero": {"exp": 0},
    "whose exp is true": {"exp": True},
    "whose exp is a fraction": {"exp": NOW + 600.5},
    "whose exp is infinite": {"exp": float("inf")},
    "whose nbf is ahead": {"nbf": NOW + 30},
    "whose nbf is text": {"nbf": "0"},
    "whose iat is ahead": {"iat": NOW + 300},
    "whose iat is missing": {"iat": None},
    "whose iat is true": {"iat": True},
    "whose aud is wrong": {"aud": "somebody-else"},
    "whose aud is missing": {"aud": None},
    "whose aud is a list": {"aud": ["bookapi"]},
    "whose iss is wrong": {"iss": "somebody-else"},
    "whose iss is missing": {"iss": None},
    "whose iss is a list": {"iss": ["bookapi"]},
    "of the refresh type": {"token_type": "refresh"},
    "of no type": {"token_type": None},
    "whose sub is missing": {"sub": None},
    "whose sub is a number": {"sub": 1},
    "whose sub is not a number": {"sub": "anna"},
    "whose sub is huge": {"sub": "9" * 30},
    "whose sub is in other digits": {"sub": "١"},
    "whose sub is negative": {"sub": "-1"},
    "whose jti is missing": {"jti": None},
    "whose family is missing": {"fam": None},
    "whose family is text": {"fam": "1"},
    "whose family is huge": {"fam": 2**70},
    "whose stamp is missing": {"pwd": None},
    "whose stamp is of another password": {"pwd": "0" * 16},
    "whose stamp is not ASCII": {"pwd": "é" * 16},
    "of nobody": {"sub": "999999"},
}


@pytest.mark.parametrize("changes", CLAIMS.values(), ids=CLAIMS)
@pytest.mark.parametrize("method", ["get", "post"])
def test_a_well_signed_token_is_refused(changes: dict[str, Any], method: str, anna: User) -> None:
    with time_machine.travel(NOW, tick=False):
        family = family_of(anna)
        assert ask(sign(claims(anna, family)), method).status_code == 200, "the unchanged token must be good"
        assert_refused(ask(sign(claims(anna, **({"fam": family} | changes))), method))


def _tampered(anna: User) -> str:
    header, _, signature = sign(claims(anna)).split(".")
    return f"{header}.{segment(claims(anna, sub='1'))}.{signature}"


def _unsigned(alg: str) -> Callable[[User], str]:
    return lambda anna: f"{segment({'alg': alg, 'typ': 'JWT'})}.{segment(claims(anna))}."


def _none_with_signature(anna: User) -> str:
    _, payload, signature = sign(claims(anna)).split(".")
    return f"{segment({'alg': 'none'})}.{payload}.{signature}"


def _respelled(token: str) -> str:
    """The token with the next last character, whose spare bits alone differ: the bytes of its signature are the same.

    32 bytes leave two bits of the 43rd character to spare, and encoders leave them 0.
    """
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + alphabet[alphabet.index(token[-1]) + 1]


STRINGS: dict[str, Callable[[User], str]] = {
    "signed with another key": lambda anna: sign(claims(anna), key="another key of at least 32 bytes, no less"),
    "signed with blanks": lambda anna: sign(claims(anna), key=" " * 32),
    "whose payload was tampered with": _tampered,
    "whose alg is none": _unsigned("none"),
    "whose alg is None": _unsigned("None"),
    "whose alg is NONE": _unsigned("NONE"),
    "whose alg is nOnE": _unsigned("nOnE"),
    "whose alg is empty": _unsigned(""),
    "whose alg is none beside a signature": _none_with_signature,
    "whose alg is HS512 with our key": lambda anna: sign(claims(anna), algorithm="HS512"),
    "whose alg is hs256": lambda anna: f"{segment({'alg': 'hs256'})}.{sign(claims(anna)).split('.', 1)[1]}",
    "whose alg is a list": lambda anna: f"{segment({'alg': ['HS256']})}.{sign(claims(anna)).split('.', 1)[1]}",
    "whose header is a list": lambda anna: f"{segment(['HS256'])}.{sign(claims(anna)).split('.', 1)[1]}",
    "with a critical extension": lambda anna: sign(claims(anna), crit=["b64"], b64=True),
    "with a fourth part": lambda anna: sign(claims(anna)) + ".AAAA",
    "with two parts": lambda anna: sign(claims(anna)).rsplit(".", 1)[0],
    "without its signature": lambda anna: sign(claims(anna)).rsplit(".", 1)[0] + ".",
    "with a broken signature": lambda anna: sign(claims(anna))[:-4] + "AAAA",
    "whose signature is spelled in another way": lambda anna: _respelled(sign(claims(anna))),
    "with padding": lambda anna: f"{sign(claims(anna))}=",
    "whose payload is a list": lambda _: sign_bytes(b"[]"),
    "whose payload is not JSON": lambda _: sign_bytes(b"\xff{"),
    "that is nested deeply": lambda _: sign_bytes(b"[" * 2500),
    "that is empty": lambda _: "",
    "that is dots": lambda _: "..",
    "that is 20 kB of garbage": lambda _: "A" * 20_000,
    "that is 20 kB of dots": lambda _: "." * 20_000,
    "that is two tokens": lambda anna: f"{sign(claims(anna))} {sign(claims(anna))}",
    "that is not ASCII": lambda _: "tökén.ø.ß",
    "padded beyond the limit": lambda anna: sign(claims(anna, note="x" * 5000)),
}


@pytest.mark.parametrize("forge", STRINGS.values(), ids=STRINGS)
@pytest.mark.parametrize("method", ["get", "post"])
def test_a_token_is_refused(forge: Callable[[User], str], method: str, anna: User) -> None:
    assert_refused(ask(forge(anna), method))


@pytest.mark.parametrize("forge", STRINGS.values(), ids=STRINGS)
def test_verify_refuses_a_token(forge: Callable[[User], str], anna: User) -> None:
    assert_refused(verify(forge(anna)))


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
    assert_refused(ask(sign(claims(anna, exp=1))))


def test_a_user_id_header_from_outside_means_nothing(anna: User) -> None:
    assert_refused(ask(None, **{"X-User-Id": str(anna.pk)}))


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
    known = tokens.VerifiedTokens(size=3)
    for i in range(10):
        known.add(str(i), tokens.Claims(account=i, family=1, jti="", stamp="", expires_at=0))
    assert len(known) == 3
    assert known.get("9") is not None
    assert known.get("6") is None
