"""Logging in and out: a password for tokens, a refresh token for the next pair, and the end of both."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, cast

from django.contrib.auth.models import User
from django.http import HttpResponse
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiResponse, extend_schema, extend_schema_view
from rest_framework import serializers, status
from rest_framework.exceptions import APIException, AuthenticationFailed, Throttled
from rest_framework.parsers import FormParser, MultiPartParser
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from bookapi import guard, keys, tokens
from bookapi.api.formats import JSONParser
from bookapi.auth import account_for_writing
from bookapi.errors import problem_response, problems
from bookapi.keys import CannotSign
from bookapi.tokens import InvalidToken, TokenPair

#: Names, passwords and tokens are short; nothing larger is read.
BODY_MAX = 64 * 1024
PASSWORD_MAX = 1024


class BearerScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """Names our tokens in the schema."""

    target_class = "bookapi.auth.TokenAuthentication"
    name = "bearer"

    def get_security_definition(self, _auto_schema: AutoSchema) -> dict[str, Any]:
        return {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}


class CredentialsSerializer(serializers.Serializer[Any]):
    username = serializers.CharField(max_length=User._meta.get_field("username").max_length)
    password = serializers.CharField(max_length=PASSWORD_MAX, trim_whitespace=False, style={"input_type": "password"})


class RefreshSerializer(serializers.Serializer[Any]):
    refresh = serializers.CharField(allow_blank=True, help_text="The refresh token that came last.")


class AccessSerializer(serializers.Serializer[Any]):
    token = serializers.CharField(allow_blank=True, help_text="An access token.")


class TokensSerializer(serializers.Serializer[Any]):
    access = serializers.CharField(help_text="For `Authorization: Bearer`.")
    refresh = serializers.CharField(help_text="For the next pair; good once.")
    token_type = serializers.ChoiceField(choices=["Bearer"])
    expires_in = serializers.IntegerField(help_text="Seconds that the access token is good for.")


class NothingSerializer(serializers.Serializer[Any]):
    """An empty object."""


def _cannot_sign(error: CannotSign, request: Request) -> HttpResponse:
    problem = {"field": "", "code": "not_the_authentication_service", "detail": str(error)}
    return problem_response(503, str(error), request=request, errors=[problem])


class BodyTooLarge(APIException):
    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_detail = "The body is too large."
    default_code = "too_large"


class TokenView(APIView):
    """Open to everyone. An `Authorization` header is not looked at: clients send stale ones along."""

    authentication_classes = ()
    permission_classes = (AllowAny,)
    parser_classes = (JSONParser, FormParser, MultiPartParser)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if int(request.META.get("CONTENT_LENGTH") or 0) > BODY_MAX:
            raise BodyTooLarge

    def handle_exception(self, exc: Exception) -> Response:
        if isinstance(exc, CannotSign):
            return cast(Response, _cannot_sign(exc, self.request))
        return super().handle_exception(exc)

    def get_authenticate_header(self, _request: Request) -> str:
        return "Bearer"  # without one, DRF would answer 403 for 401

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().finalize_response(request, response, *args, **kwargs)
        response["Cache-Control"] = "no-store"
        return response


def _valid(serializer: serializers.Serializer[Any]) -> dict[str, str]:
    serializer.is_valid(raise_exception=True)
    data: dict[str, str] = serializer.validated_data
    return data


def _answer(pair: TokenPair) -> Response:
    return Response({**asdict(pair), "token_type": "Bearer"})


def _refused(error: InvalidToken) -> AuthenticationFailed:
    return AuthenticationFailed(str(error), code="invalid_token")


class LoginView(TokenView):
    @extend_schema(
        operation_id="login",
        summary="Tokens for a name and a password",
        tags=["auth"],
        request=CredentialsSerializer,
        responses={200: TokensSerializer, **problems(400, 413, 415, 503)},
    )
    def post(self, request: Request) -> Response:
        """After too many failures even the right password is refused for a while: 429 with `Retry-After`."""
        keys.signing_key()  # before a password is looked at: where nobody can log in, nobody can guess
        data = _valid(CredentialsSerializer(data=request.data))
        try:
            user = guard.sign_in(request._request, data["username"], data["password"])
        except guard.LoginLocked as error:
            raise Throttled(wait=error.wait_s, detail="Too many failed logins.") from error
        guard.prune_counters()
        if user is None:
            raise AuthenticationFailed("Name or password is wrong.", code="wrong_credentials")
        tokens.prune_families()
        return _answer(tokens.log_in(user))


@extend_schema_view(post=extend_schema(operation_id="login_alias"))
@extend_schema_view(post=extend_schema(operation_id="login_alias"))
class LoginAliasView(LoginView):
    """The same at its short address."""


class RefreshView(TokenView):
    @extend_schema(
        operation_id="refresh",
        summary="The next pair of tokens",
        tags=["auth"],
        request=RefreshSerializer,
        responses={200: TokensSerializer, **problems(400, 413, 415, 503)},
    )
    def post(self, request: Request) -> Response:
        """A refresh token is good once. Using it again answers 401 and ends the login that it came from."""
        data = _valid(RefreshSerializer(data=request.data))
        try:
            return _answer(tokens.rotate(data["refresh"]))
        except InvalidToken as error:
            raise _refused(error) from error


class LogoutView(TokenView):
    @extend_schema(
        operation_id="logout",
        summary="End a login",
        tags=["auth"],
        request=RefreshSerializer,
        responses={204: OpenApiResponse(description="The login has ended."), **problems(400, 413, 415)},
    )
    def post(self, request: Request) -> Response:
        """Its refresh token is spent, its access token writes nothing more, and reads until it expires."""
        data = _valid(RefreshSerializer(data=request.data))
        try:
            tokens.log_out(data["refresh"])
        except InvalidToken as error:
            raise _refused(error) from error
        return Response(status=status.HTTP_204_NO_CONTENT)


class VerifyView(TokenView):
    @extend_schema(
        operation_id="verify",
        summary="Is this access token good?",
        tags=["auth"],
        request=AccessSerializer,
        responses={200: NothingSerializer, **problems(400, 413, 415)},
    )
    def post(self, request: Request) -> Response:
        """200 for an access token that may write now: account enabled, password unchanged, not logged out."""
        data = _valid(AccessSerializer(data=request.data))
        try:
            account_for_writing(data["token"])
        except InvalidToken as error:
            raise _refused(error) from error
        return Response({})
