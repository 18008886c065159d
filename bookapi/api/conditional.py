"""Strong ETags and 304 from the catalogue's revision: an unchanged answer costs one small query.

class StatsViewSet(ViewSet):
    @conditional
    def overview(self, request): ...

@conditional(also=lambda request: str(last_run_id()))    # the answer depends on more than the revision
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from hashlib import blake2b
from typing import Any, Concatenate, ParamSpec, cast, overload

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseNotModified
from django.http.response import HttpResponseBase
from django.utils.http import parse_etags
from drf_spectacular.utils import OpenApiResponse
from rest_framework.request import Request

from catalog.revision import current_revision

P = ParamSpec("P")
Handler = Callable[Concatenate[Any, Request, P], HttpResponseBase]

#: For `extend_schema(responses={200: ..., **UNCHANGED})`.
UNCHANGED = {304: OpenApiResponse(description="As it was when the ETag in `If-None-Match` was given.")}
VARY = "Authorization, Accept, Accept-Encoding"
#: Kept by the one who asked and never used without asking: a token may lose its rights, a book may be hidden.
CACHE_CONTROL = "private, no-cache"


def base_url(request: HttpRequest | Request) -> str:
    """Scheme and host of the links we give out.

    Raises:
        DisallowedHost: there is no PUBLIC_URL, and the request names a host that is not ours.
    """
    if settings.PUBLIC_URL:
        return str(settings.PUBLIC_URL)
    plain: Any = request._request if isinstance(request, Request) else request
    base: str | None = getattr(plain, "_base_url", None)  # asked by the tag and by every link
    if base is None:
        base = plain._base_url = f"{plain.scheme}://{plain.get_host()}"
    return base


def revision_of(request: Request) -> int:
    """The catalogue's revision that a `conditional` handler was entered with."""
    revision: int = request._request.revision  # type: ignore[attr-defined]  # set below
    return revision


@overload
def conditional(handler: Handler[P], /) -> Handler[P]: ...
@overload
def conditional(*, also: Callable[[Request], str]) -> Callable[[Handler[P]], Handler[P]]: ...
def conditional(
    handler: Handler[P] | None = None, /, *, also: Callable[[Request], str] | None = None
) -> Handler[P] | Callable[[Handler[P]], Handler[P]]:
    """The handler with an ETag on every 200, and with 304 before it is even entered.

    The revision is read before the data, never after. A writer who commits in between then makes an answer that is
    newer than its tag: the next request with that tag finds the revision moved and is answered in full, once too
    often. Read the other way round, old data would carry the new tag and be confirmed as fresh until the next change.
    """

    def decorate(handler: Handler[P]) -> Handler[P]:
        @wraps(handler)
        def conditionally(self: Any, request: Request, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
            revision = current_revision()
            request._request.revision = revision  # type: ignore[attr-defined]
            tag = etag(request, revision, also(request) if also else "")
            tags = offered_tags(request)
            if tag in tags:
                return tagged(HttpResponseNotModified(), tag)
            response = handler(self, request, *args, **kwargs)
            if response.status_code != 200:
                return response
            if tags == ["*"]:  # any representation will do, but only the handler knows whether there is one
                response = _instead_of(response)
            return tagged(response, tag)

        return cast(Handler[P], conditionally)

    return decorate if handler is None else decorate(handler)


def offered_tags(request: Request) -> list[str]:
    """The tags of `If-None-Match`, or `["*"]`; without the mark of weak ones (RFC 9110, 13.1.2: compared weakly)."""
    offered = request.META.get("HTTP_IF_NONE_MATCH")
    return [tag.removeprefix("W/") for tag in parse_etags(offered)] if offered else []


def _instead_of(response: HttpResponseBase) -> HttpResponseNotModified:
    """A 304 that closes what the response had opened. Closing the response itself would end the request right here."""
    not_modified = HttpResponseNotModified()
    not_modified._resource_closers.extend(response._resource_closers)  # type: ignore[attr-defined]
    return not_modified


def tagged(response: HttpResponse | HttpResponseBase, tag: str) -> HttpResponseBase:
    response.headers["ETag"] = tag
    response.headers["Cache-Control"] = CACHE_CONTROL
    response.headers["Vary"] = VARY
    return response


def etag(request: Request, revision: int, also: str = "") -> str:
    """Names the bytes of one answer: same tag, same bytes. What an account may read does not depend on the account.

    Keyed with the secret, so that another catalogue which happens to have the same revision has other tags.
    """
    parts = (
        settings.VERSION,
        str(revision),
        request.accepted_media_type or "",
        "identity",  # the content coding: whoever compresses an answer has to rename it
        base_url(request),  # it stands in links
        request.META.get("PATH_INFO", ""),
        request.META.get("QUERY_STRING", ""),
        also,
    )
    digest = blake2b("\0".join(parts).encode("utf-8", "replace"), digest_size=16, key=_key())
    return f'"{digest.hexdigest()}"'


@cache
def _key() -> bytes:
    return blake2b(settings.SECRET_KEY.encode(), digest_size=32, person=b"etag").digest()
