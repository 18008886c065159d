"""Pages that gave no record: why, and kept until they are written down."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from scrapy.exceptions import IgnoreRequest
from scrapy.http import Request
from scrapy.spidermiddlewares.httperror import HttpError

from catalog.ingest import PageFailure

_WORD_BREAK = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def reason_of(error: BaseException) -> str:
    """A stable word for what went wrong, to filter and count by: "http_404", "cut_short", "timeout_error"."""
    if isinstance(error, HttpError):
        return f"http_{error.response.status}"
    if isinstance(error, IgnoreRequest):
        # Robots, a redirect loop and a body that grows beyond the limit all arrive as this one.
        text = str(error).lower()
        return "robots_txt" if "robots" in text else "redirect_loop" if "redirect" in text else "too_large"
    return _WORD_BREAK.sub("_", type(error).__name__).lower()


def detail_of(error: BaseException) -> str:
    """What a person is told of it."""
    if isinstance(error, HttpError):
        return f"The shop answered {error.response.status}."
    return str(error) or (type(error).__doc__ or "").strip().partition("\n")[0]


class RedirectedToKnownPage(Exception):
    """The page leads to another one that this run asks for anyway, or back to itself."""


@dataclass(slots=True)
class FailedPages:
    """Failures of a run: how many there were, and those that are not written down yet."""

    books: int = 0
    listings: int = 0
    pending: list[PageFailure] = field(default_factory=list)

    def add(self, request: Request, error: BaseException) -> None:
        """Note that what was asked for gave nothing. After a redirect the page is the one that was asked for first."""
        url = request.meta.get("redirect_urls", [request.url])[0]
        kind = "book" if "known_page" in request.meta else "listing"
        if kind == "book":
            self.books += 1
        else:
            self.listings += 1
        self.pending.append(PageFailure(url, kind, reason_of(error), detail_of(error)))

    def take(self) -> list[PageFailure]:
        """The pending failures, which are the caller's now."""
        taken, self.pending = self.pending, []
        return taken
