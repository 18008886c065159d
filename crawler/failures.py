"""Pages that gave no record: why, and kept until they are written down."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from scrapy.exceptions import (
    CannotResolveHostError,
    DownloadCancelledError,
    DownloadConnectionRefusedError,
    DownloadFailedError,
    DownloadTimeoutError,
    IgnoreRequest,
    ResponseDataLossError,
)
from scrapy.http import Request
from scrapy.spidermiddlewares.httperror import HttpError

from catalog.ingest import PageFailure


class RedirectedToKnownPage(Exception):
    """The page leads to another one that this run asks for anyway, or back to itself."""


class ForeignHost(IgnoreRequest):
    """The address is not one of this shop's."""


#: Scrapy's exceptions in our words: the reason, which people filter and count by, and what they are told.
_KNOWN: dict[type[BaseException], tuple[str, str]] = {
    ResponseDataLossError: ("cut_short", "The connection ended before the page did."),
    DownloadCancelledError: ("too_large", "The page is larger than any page of a book shop."),
    DownloadTimeoutError: ("timeout", "The shop did not answer in time."),
    DownloadConnectionRefusedError: ("connection_refused", "The shop refused the connection."),
    CannotResolveHostError: ("unknown_host", "The shop's host name is not known."),
    DownloadFailedError: ("connection_failed", "The connection failed."),
}
#: Several things arrive as a bare IgnoreRequest and differ by a word of its text alone.
_IGNORED: dict[str, tuple[str, str]] = {
    "robots.txt": ("robots_txt", "The shop's robots.txt asks us not to read this page."),
    "redirections": ("redirect_loop", "The page leads from one address to the next without an end."),
    "DOWNLOAD_MAXSIZE": _KNOWN[DownloadCancelledError],
}
_WORD_BREAK = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def explain(error: BaseException) -> tuple[str, str]:
    """A stable word for what went wrong ("http_404", "cut_short", "not_a_book_page"), and a sentence about it."""
    if isinstance(error, HttpError):
        return f"http_{error.response.status}", f"The shop answered {error.response.status}."
    if type(error) is IgnoreRequest:
        for word, explanation in _IGNORED.items():
            if word in str(error):
                return explanation
    if known := _KNOWN.get(type(error)):
        return known
    detail = str(error) or (type(error).__doc__ or "").strip().partition("\n")[0]
    return _WORD_BREAK.sub("_", type(error).__name__).lower(), detail


def asked_for(request: Request) -> str:
    """The address that a list showed, wherever redirects have led from there: by it the page is known."""
    redirected: list[str] = request.meta.get("redirect_urls") or [request.url]
    return redirected[0]


@dataclass(slots=True)
class FailedPages:
    """Failures of a run: how many there were, and those that are not written down yet."""

    books: int = 0
    listings: int = 0
    pending: list[PageFailure] = field(default_factory=list)

    def add(self, request: Request, error: BaseException) -> PageFailure:
        """Note that what was asked for gave nothing."""
        return self.add_page(asked_for(request), "book" if "known_page" in request.meta else "listing", error)

    def add_page(self, url: str, kind: str, error: BaseException) -> PageFailure:
        if kind == "book":
            self.books += 1
        else:
            self.listings += 1
        reason, detail = explain(error)
        failure = PageFailure(_storable(url), kind, reason, _storable(detail))
        self.pending.append(failure)
        return failure

    def take(self) -> list[PageFailure]:
        """The pending failures, which are the caller's now."""
        taken, self.pending = self.pending, []
        return taken


def _storable(text: str) -> str:
    """The text without what a database refuses: NUL, and halves of surrogate pairs."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")
