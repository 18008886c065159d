"""Tokens are checked by the gateway, and once more by the API."""

from __future__ import annotations

import http.client
from typing import Any

import jwt
import pytest
import requests

from bookapi import key_rotation
from tests.bookapi.forged_tokens import API_ALONE, CLAIMS, STRINGS, Mint, forged
from tests.gateway.estate import Door, Estate

#: Bytes of a request's head.
HEADERS_MAX = 16_000
#: What one gets for a token that is wrong: the same words, whoever refuses it.
INVALID = "The token is not valid, has expired or has been revoked."


@pytest.fixture
def mint(behind: Estate, tokens: dict[str, str]) -> Mint:
    """The real signer, in the hands of somebody who lies."""
    current = behind.keys.public / "current.pem"
    return Mint(
        key=(behind.keys.private / "current.pem").read_bytes(),
        **claims_of(tokens["anna"]),
        public_pem=current.read_bytes(),
        public_path=str(current),
        secret=behind.environment["SECRET_KEY"],
    )


def claims_of(token: str) -> dict[str, Any]:
    claims = jwt.decode(token, options={"verify_signature": False})
    return {name: claims[name] for name in ("sub", "fam", "pwd")}


def is_problem(answer: requests.Response, status: int, detail: str) -> None:
    body = answer.json()
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert list(body) == ["type", "title", "status", "detail", "request_id", "errors"]
    assert (body["status"], body["detail"], body["errors"]) == (status, detail, [])
    assert body["request_id"] == answer.headers["X-Request-ID"]


def test_what_the_signer_makes_is_good(front: Door, mint: Mint) -> None:
    assert front.ask("/api/v1/books", mint.token()).status_code == 200
    assert front.ask("/api/v1/books", mint.token(mint.claims(nbf=mint.now))).status_code == 200


@pytest.mark.parametrize("name", [*CLAIMS, *STRINGS])
def test_a_forged_token_is_refused_at_the_gateway_and_again_at_the_api(
    front: Door, behind: Estate, mint: Mint, name: str
) -> None:
    token = forged(mint, name)
    header = {"Authorization": f"Bearer {token}".encode()}
    at_the_gateway = front.ask("/api/v1/books", headers=header)
    if len(token) > HEADERS_MAX:  # HAProxy reads no further, and nobody can tell what it is
        assert at_the_gateway.status_code == 400
        return
    assert at_the_gateway.status_code == 401
    assert requests.get(f"{behind.api[0].url}/api/v1/books", headers=header, timeout=20).status_code == 401
    line = front.line_of(at_the_gateway.headers["X-Request-ID"])
    if name not in API_ALONE:
        assert (line["server"], line["account"]) == ("<NOSRV>", "-")
        assert line["refused"] not in {"", "-"}


def test_gateway_and_api_refuse_in_the_same_words(front: Door, behind: Estate) -> None:
    for header, detail in (
        ({}, "Authentication credentials were not provided."),
        ({"Authorization": "Basic YTpi"}, "Authentication credentials were not provided."),
        ({"Authorization": "Bearer"}, INVALID),
        ({"Authorization": "bearer a.b.c"}, INVALID),
    ):
        refused = front.ask("/api/v1/books", headers=header)
        directly = requests.get(f"{behind.api[0].url}/api/v1/books", headers=header, timeout=20)
        for answer in (refused, directly):
            is_problem(answer, 401, detail)
            assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_two_tokens_are_a_request_that_cannot_be_understood(front: Door, tokens: dict[str, str]) -> None:
    """One could be counted, and the other one be served."""
    connection = http.client.HTTPConnection("127.0.0.1", front.gateway.port, timeout=20)
    connection.putrequest("GET", "/api/v1/books")
    for token in tokens.values():
        connection.putheader("Authorization", f"Bearer {token}")
    connection.endheaders()
    assert connection.getresponse().status == 400
    connection.close()


def test_open_paths_do_not_look_at_tokens(front: Door) -> None:
    """Clients send stale ones along."""
    for path in ("/api/v1/health", "/api/v1/health/live", "/api/v1/health/ready", "/api/v1/docs", "/api/v1/redoc"):
        assert front.ask(path).status_code == 200
        assert front.ask(path, "stale").status_code == 200
    assert front.ask("/", "stale").headers["Location"] == "/api/v1/docs"


def is_known(answer: requests.Response) -> bool:
    """Whether the gateway found the token good; the API looks at its files every few seconds only."""
    return answer.headers["RateLimit-Policy"].startswith('"account"')


def test_tokens_outlive_a_rotation(another: Any, behind: Estate, token: str) -> None:
    """A gateway that has read the keys before knows the next one; one that is reloaded knows the previous one."""
    with another() as gateway:
        before = {path: path.read_bytes() for path in behind.keys.public_files + behind.keys.private_files}
        try:
            key_rotation.rotate(behind.keys, keep_s=0, force=True)
            signed_with_next = Mint(key=(behind.keys.private / "current.pem").read_bytes(), **claims_of(token)).token()
            assert is_known(gateway.ask("/api/v1/books", signed_with_next))
            gateway.gateway.reload(gateway.process)
            assert is_known(gateway.ask("/api/v1/books", signed_with_next))
            assert is_known(gateway.ask("/api/v1/books", token))
        finally:
            for path, content in before.items():
                path.write_bytes(content)
