"""Pages that gave no record: why, and kept until they are written down."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from scrapy.exceptions import IgnoreRequest
from scrapy.spidermiddlewares.httperror import HttpError

from catalog.ingest import PageFailure


def reason_of(error: BaseException) -> str:
    """A stable word for what went wrong, to filter and count by: "http_404", "cut_short", "timeout_error"."""
    if isinstance(error, HttpError):
        return f"http_{error.response.status}"
    if isinstance(error, IgnoreRequest):
        # Robots, a redirect loop and a body that grows beyond the limit all arrive as this one.
        text = str(error).lower()
        return "robots_txt" if "robots" in text else "redirect_loop" if "redirect" in text else "too_large"
    name = type(error).__name__
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


@dataclass(slots=True)
class FailedPages:
    """Failures of a run: how many there were, and those that are not written down yet."""

    books: int = 0
    listings: int = 0
    pending: list[PageFailure] = field(default_factory=list)

    def add(self, url: str, kind: str, reason: str, detail: str) -> None:
        if kind == "book":
            self.books += 1
        else:
            self.listings += 1
        self.pending.append(PageFailure(url, kind, reason, detail))

    def take(self) -> list[PageFailure]:
        """The pending failures, which are the caller's now."""
        taken, self.pending = self.pending, []
        return taken
