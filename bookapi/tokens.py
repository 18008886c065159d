"""Access and refresh tokens: made, verified, exchanged, ended.

`SIMPLE_JWT` in the settings names issuer, audience and lifetimes, `bookapi.keys` has algorithm and keys. Reads are
answered on the word of an access token; a refresh token is good only with its `RefreshFamily` row.
"""

from __future__ import annotations

import logging
import re
import threading
import time
import uuid
from base64 import urlsafe_b64decode, urlsafe_b64encode
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import jwt
import orjson
from django.contrib.auth.models import User
from django.utils import timezone
from django.utils.crypto import constant_time_compare
from rest_framework_simplejwt.settings import api_settings
from rest_framework_simplejwt.tokens import AccessToken, RefreshToken, Token

from bookapi import keys
from bookapi.keys import SigningKey, VerifyingKeys
from bookapi.models import RefreshFamily

logger = logging.getLogger(__name__)

#: Ours have about 350 characters; one signed with RSA has about 700. Nothing longer is looked at.
TOKEN_MAX = 4096
#: How far the clock of another machine that makes tokens may be ahead of ours.
SKEW_S = 60
#: As much of the password's stamp as an access token carries.
STAMP_LENGTH = 16
INT64_MAX = 2**63 - 1
_DIGITS = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)


class InvalidToken(Exception):
    """The token is not valid, has expired or has been revoked."""

    def __str__(self) -> str:
        return self.__class__.__doc__ or ""


class Kind(StrEnum):
    ACCESS = "access"
    REFRESH = "refresh"


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified token says."""

    account: int
    family: int
    jti: str
    stamp: str  # first characters of the password's stamp; empty in a refresh token
    expires_at: int  # seconds since 1970


@dataclass(frozen=True, slots=True)
class TokenPair:
    access: str
    refresh: str
    expires_in: int  # seconds, of the access token


# --- Verifying --------------------------------------------------------------------------------------------------------
class VerifiedTokens:
    """Access tokens whose signature was found good, so that it is computed once a token and not once a request.

    The whole token is the key, and expiry is looked at every time. Other keys than the last time empty it: a dropped
    one may have signed any of them. Bounded: the oldest give way.
    """

    def __init__(self, size: int = 5_000) -> None:
        self.size = size
        self._claims: dict[str, Claims] = {}
        self._keys: VerifyingKeys | None = None
        self._lock = threading.Lock()

    def get(self, token: str, known: VerifyingKeys) -> Claims | None:
        return self._claims.get(token) if self._keys is known else None

    def add(self, token: str, claims: Claims, known: VerifyingKeys) -> None:
        with self._lock:
            if self._keys is not known:
                self._claims = {}
                self._keys = known
            while len(self._claims) >= self.size:
                del self._claims[next(iter(self._claims))]
            self._claims[token] = claims

    def clear(self) -> None:
        with self._lock:
            self._claims.clear()

    def __len__(self) -> int:
        return len(self._claims)


verified = VerifiedTokens()
_jws = jwt.PyJWS(algorithms=["HS256", "RS256"])


def verify_access(token: str) -> Claims:
    """The claims of a good access token. Raises InvalidToken. No query; says nothing about the account."""
    known = keys.verifying_keys()
    claims = verified.get(token, known)
    if claims is not None:
        if claims.expires_at <= time.time():
            raise InvalidToken
        return claims
    claims = _verify(token, Kind.ACCESS, known)
    verified.add(token, claims, known)
    return claims


def verify_refresh(token: str) -> Claims:
    """The claims of a refresh token that was good when it was made. Raises InvalidToken. Its family decides."""
    return _verify(token, Kind.REFRESH, keys.verifying_keys())


def _verify(token: str, kind: Kind, known: VerifyingKeys) -> Claims:
    if len(token) > TOKEN_MAX:
        raise InvalidToken
    try:
        raw = _signed(token, known)
        if not all(map(_is_exact, token.split("."))):
            raise InvalidToken
        payload = orjson.loads(raw)
    except (jwt.PyJWTError, ValueError) as error:  # ValueError: not JSON, or text that no encoding can carry
        raise InvalidToken from error
    return _checked(payload, kind, time.time())


def _signed(token: str, known: VerifyingKeys) -> bytes:
    """The payload, if one of the keys signed it. Raises jwt.PyJWTError."""
    for key in known.for_token(_jws.get_unverified_header(token).get("kid")):
        with suppress(jwt.InvalidSignatureError):
            payload: bytes = _jws.decode(token, key, algorithms=[known.algorithm])
            return payload
    raise jwt.InvalidSignatureError


def _is_exact(part: str) -> bool:
    """Whether this is the one spelling of its bytes.

    Decoders pass over padding and the spare bits of the last character: a token with another last character would be
    as good as the one that was given out.
    """
    data = urlsafe_b64decode(part + "=" * (-len(part) % 4))
    return urlsafe_b64encode(data).rstrip(b"=").decode() == part


def _checked(payload: Any, kind: Kind, now: float) -> Claims:
    """The claims, if each is there, of its exact type and within its bounds.

    PyJWT's own checks are lenient where it hurts: `exp: "123"` counts as a number, one audience in a list is enough.
    """
    if not isinstance(payload, dict):
        raise InvalidToken
    lifetime = api_settings.ACCESS_TOKEN_LIFETIME if kind is Kind.ACCESS else api_settings.REFRESH_TOKEN_LIFETIME
    good = (
        payload.get("token_type") == kind.value
        and payload.get("iss") == api_settings.ISSUER
        and payload.get("aud") == api_settings.AUDIENCE
        and _is_time(payload.get("exp"), now, now + lifetime.total_seconds() + SKEW_S)
        and _is_time(payload.get("iat"), 0, now + SKEW_S)
        and _is_time(payload.get("nbf", 1), 0, now)
    )
    match payload:
        case {"sub": str(subject), "fam": int(family), "jti": str(jti)} if good and _DIGITS.fullmatch(subject):
            account, stamp = int(subject), payload.get("pwd", "")
            if account <= INT64_MAX and 0 < family <= INT64_MAX and isinstance(stamp, str):
                return Claims(account=account, family=family, jti=jti, stamp=stamp, expires_at=payload["exp"])
    raise InvalidToken


def _is_time(value: Any, after: float, until: float) -> bool:
    return type(value) is int and after < value <= until  # `type`: True is an int as well


# --- Making and exchanging --------------------------------------------------------------------------------------------
def log_in(user: User) -> TokenPair:
    """Tokens of a new family for an account whose password was just found right. One query. Raises CannotSign."""
    key = keys.signing_key()
    family = RefreshFamily(user=user, jti=uuid.uuid4().hex, stamp=user.get_session_auth_hash())
    family.expires_at = timezone.now() + api_settings.REFRESH_TOKEN_LIFETIME
    family.save()
    return _tokens(family, key)


def rotate(token: str) -> TokenPair:
    """The next pair of tokens for a refresh token, which is spent by this. Two or three queries.

    A token that was spent before this began ends its family, and with it the tokens of whoever spent it: one of the
    two has a copy. Of several requests that found the token good at the same time (a double click) one wins; the
    others get nothing and end nothing.

    Must not run inside a transaction that an exception rolls back: it would undo the end of the family.

    Raises InvalidToken; and CannotSign, before anything is looked at.
    """
    key = keys.signing_key()
    claims = verify_refresh(token)
    family = (
        RefreshFamily.objects.select_related("user").filter(pk=claims.family, user=claims.account, revoked_at=None)
    ).first()
    if family is None:
        raise InvalidToken
    if not constant_time_compare(family.jti, claims.jti):
        end_family(family.pk, RefreshFamily.Reason.REUSE)
        raise InvalidToken
    if not family.user.is_active:
        end_family(family.pk, RefreshFamily.Reason.DISABLED)
        raise InvalidToken
    if not constant_time_compare(family.stamp, family.user.get_session_auth_hash()):
        end_family(family.pk, RefreshFamily.Reason.PASSWORD)
        raise InvalidToken
    family.jti = uuid.uuid4().hex
    family.rotated_at = timezone.now()
    family.expires_at = family.rotated_at + api_settings.REFRESH_TOKEN_LIFETIME
    # The condition is what makes one winner: whoever comes second finds another jti, or the family ended.
    won = RefreshFamily.objects.filter(pk=family.pk, jti=claims.jti, revoked_at=None).update(
        jti=family.jti, rotated_at=family.rotated_at, expires_at=family.expires_at
    )
    if not won:
        raise InvalidToken
    return _tokens(family, key)


def log_out(token: str) -> None:
    """End the family of a refresh token, spent or not. Again is no error. Raises InvalidToken. One query."""
    end_family(verify_refresh(token).family, RefreshFamily.Reason.LOGOUT)


def end_family(pk: int, reason: RefreshFamily.Reason) -> None:
    """From now on no token of the family is exchanged, and its access tokens write nothing. One query."""
    ended = RefreshFamily.objects.filter(pk=pk, revoked_at=None).update(revoked_at=timezone.now(), reason=reason)
    if ended:
        log = logger.warning if reason == RefreshFamily.Reason.REUSE else logger.info
        log("login ended", extra={"family": pk, "reason": reason.value})


def prune_families(limit: int = 100) -> None:
    """Delete families whose last token has expired, at most `limit` of them. One or two queries."""
    expired = RefreshFamily.objects.filter(expires_at__lt=timezone.now()).order_by("expires_at")
    if pks := list(expired.values_list("pk", flat=True)[:limit]):
        RefreshFamily.objects.filter(pk__in=pks).delete()


def _tokens(family: RefreshFamily, key: SigningKey) -> TokenPair:
    access, refresh = AccessToken(), RefreshToken()
    for token in (access, refresh):
        token["sub"] = str(family.user_id)
        token["fam"] = family.pk
    access["pwd"] = family.stamp[:STAMP_LENGTH]
    refresh["jti"] = family.jti
    lifetime = int(api_settings.ACCESS_TOKEN_LIFETIME.total_seconds())
    return TokenPair(_encoded(access, key), _encoded(refresh, key), lifetime)


def _encoded(token: Token, key: SigningKey) -> str:
    payload = {**token.payload, "iss": api_settings.ISSUER, "aud": api_settings.AUDIENCE}
    return jwt.encode(payload, key.key, algorithm=key.algorithm, headers={"kid": key.kid} if key.kid else None)
