"""Who is asking, and may they: tokens checked against accounts, and the permissions of the API."""

from __future__ import annotations

from django.conf import settings
from django.utils.crypto import constant_time_compare
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from bookapi import accounts, tokens
from bookapi.accounts import Account
from bookapi.tokens import Claims, InvalidToken


def account_for_reading(token: str) -> Account:
    """The account of a good access token, as it was at most `ACCOUNT_CHECK_S` ago. Raises InvalidToken.

    No query while the account is known. The login (refresh family) is not asked: after a logout, or when a family
    ends by reuse, its access token still reads until it expires.
    """
    claims = tokens.verify_access(token)
    account = accounts.cache.get(claims.account)
    if account is None:
        raise InvalidToken
    if not _stamped(claims, account):
        # The password changed: after what we know, and the token is new; or before, and the token is old.
        account = accounts.cache.reread(claims.account)
        if account is None or not _stamped(claims, account):
            raise InvalidToken
    return account


def account_for_writing(token: str) -> Account:
    """The account of a good access token, as the database has it now. Raises InvalidToken. Two queries.

    A disabled or deleted account, a changed password, a logout or the reuse of a refresh token end writing at once.
    """
    claims = tokens.verify_access(token)
    account = accounts.read_account(claims.account, claims.family)
    if account is None or not _stamped(claims, account):
        raise InvalidToken
    return account


def _stamped(claims: Claims, account: Account) -> bool:
    return constant_time_compare(claims.stamp, account.stamp[: tokens.STAMP_LENGTH])


class TokenAuthentication(BaseAuthentication):
    """`Authorization: Bearer` with an access token; `request.user` is an Account, or None where there is no token."""

    def authenticate(self, request: Request) -> tuple[Account, str] | None:
        header = request.META.get("HTTP_AUTHORIZATION", "")
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer":
            return None
        account_of = account_for_reading if request.method in SAFE_METHODS else account_for_writing
        try:
            return account_of(token.strip()), token
        except InvalidToken as error:
            raise AuthenticationFailed(str(error), code="invalid_token") from error

    def authenticate_header(self, _request: Request) -> str:
        return "Bearer"


class MayRead(BasePermission):
    """Any account; and anybody for reading where `PUBLIC_READ` is on."""

    def has_permission(self, request: Request, _view: object) -> bool:
        return isinstance(request.user, Account) or (settings.PUBLIC_READ and request.method in SAFE_METHODS)


class IsAccount(BasePermission):
    """Any account, also where everybody may read: for what belongs to accounts."""

    def has_permission(self, request: Request, _view: object) -> bool:
        return isinstance(request.user, Account)


def account_of(request: Request) -> int:
    """The account that asks, where a permission has seen to it that there is one."""
    assert isinstance(request.user, Account)  # noqa: S101 - see above
    return request.user.pk


class IsCurator(BasePermission):
    """Accounts that may correct the catalogue."""

    message = "This needs the role of a curator."

    def has_permission(self, request: Request, _view: object) -> bool:
        return isinstance(request.user, Account) and request.user.is_curator


class IsOperator(BasePermission):
    """Accounts that may start crawls and trainings."""

    message = "This needs the role of an operator."

    def has_permission(self, request: Request, _view: object) -> bool:
        return isinstance(request.user, Account) and request.user.is_operator
