"""How scraped facts get into the catalogue: the only writers of them.

`start_run` opens a run, `ingest` takes batches of what was read, `record_failed_pages` what could not be read, and
`finish_run` does the sums and delists what a complete run did not see. With a queue a batch is written down by
`register`, published, and taken by `ingest_published`; `settle` closes a run once all of them have arrived.
"""

from catalog.ingest.batches import ingest
from catalog.ingest.closing import finish_run, pending_records, settle, unsettled_pages
from catalog.ingest.errors import IngestError, NotResumable, RunUnderWay, UnknownRun
from catalog.ingest.pages import KnownPage, PageFailure, known_pages, record_failed_pages, record_rejected_line
from catalog.ingest.published import ingest_published, note_error, register
from catalog.ingest.retry import retry_rejected
from catalog.ingest.runs import adopt_run, announce, close_dead_runs, heartbeat, start_run
from catalog.models import CrawlRun

__all__ = [
    "CrawlRun",
    "IngestError",
    "KnownPage",
    "NotResumable",
    "PageFailure",
    "RunUnderWay",
    "UnknownRun",
    "adopt_run",
    "announce",
    "close_dead_runs",
    "finish_run",
    "heartbeat",
    "ingest",
    "ingest_published",
    "known_pages",
    "note_error",
    "pending_records",
    "record_failed_pages",
    "record_rejected_line",
    "register",
    "retry_rejected",
    "settle",
    "start_run",
    "unsettled_pages",
]
