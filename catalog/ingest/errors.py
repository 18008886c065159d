"""What can be wrong with a run. The first line of each docstring is its message."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from catalog.models import CrawlRun


class IngestError(Exception):
    """The catalogue cannot take this."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").splitlines()[0])


class RunUnderWay(IngestError):
    """A crawl of this shop is under way already."""

    def __init__(self, run: CrawlRun | None) -> None:
        super().__init__(f"Run {run.pk} of {run.shop} is under way." if run else None)
        self.run = run


class UnknownRun(IngestError):
    """There is no run with this number."""


class NotResumable(IngestError):
    """Only a crawl that was interrupted or failed can be resumed."""
