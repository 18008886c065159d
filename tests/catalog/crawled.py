"""Books as a crawl brings them, for tests of what people do to them afterwards."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from catalog.ingest import finish_run, ingest, start_run
from catalog.models import Book, CrawlRun
from catalog.records import ScrapedBook

START = datetime(2026, 1, 1, tzinfo=UTC)
FACTS: dict[str, Any] = {
    "title": "A Light in the Attic",
    "category": "Poetry",
    "price": "£51.77",
    "price_excl_tax": "£51.77",
    "tax": "£0.00",
    "rating": "Three",
    "availability": "In stock (22 available)",
    "review_count": "0",
    "product_type": "Books",
    "description": "Poems.",
}


def scraped(upc: str, day: int = 0, shop: str = "shop", **facts: Any) -> ScrapedBook:
    """What a page said on a day."""
    return ScrapedBook(
        shop=shop,
        upc=upc,
        source_url=facts.pop("source_url", f"https://{shop}.example/{upc}"),
        scraped_at=START + timedelta(days=day),
        image_url=facts.pop("image_url", f"https://{shop}.example/{upc}.jpg"),
        **{**FACTS, **facts},
    )


def crawl(*records: ScrapedBook, shop: str = "shop") -> CrawlRun:
    """A finished run that saw these records and nothing else."""
    run = start_run(shop, f"https://{shop}.example", filters={"limit": len(records)})
    ingest(records, run.pk)
    return finish_run(run.pk)


def crawled(upc: str, day: int = 0, shop: str = "shop", **facts: Any) -> Book:
    """The book that one crawl of one page leaves in the catalogue."""
    crawl(scraped(upc, day, shop, **facts), shop=shop)
    return Book.objects.get(shop=shop, upc=upc)
