"""Fills the configured, empty database with books of the practice shop, makes an account, and prints its token.

python -m benchmarks.filling BOOKS
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import django


def records(shop: str, books: int) -> Iterator[Any]:
    """What a spider would have read of so many books of the practice shop."""
    from catalog.records import ScrapedBook
    from crawler.practice_shop import Shop

    now = datetime.now(UTC)
    for book in Shop(books).truth():
        yield ScrapedBook(
            shop=shop,
            source_url=f"http://127.0.0.1/{book.path}",
            scraped_at=now,
            upc=book.upc,
            title=book.title,
            authors=book.authors,
            description=book.description_raw,
            category=book.category,
            price=f"£{book.price}",
            price_excl_tax=f"£{book.price_excl_tax}",
            tax=f"£{book.tax}",
            rating=str(book.rating),
            availability=book.availability,
            review_count=str(book.review_count),
            product_type="Books",
            image_url=f"http://127.0.0.1/{book.image}",
        )


def fill(books: int) -> None:
    """So many books of the practice shop, through the same ingest as a crawl's."""
    from catalog.ingest import finish_run, ingest, start_run

    run = start_run("practice-shop", "benchmark", filters={"limit": str(books)})
    ingest(records("practice-shop", books), run.pk)
    finish_run(run.pk)


def token() -> str:
    from django.contrib.auth.models import User

    from bookapi import tokens

    user = User.objects.create_user("bench", password=None)
    return tokens.log_in(user).access


if __name__ == "__main__":
    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    fill(int(sys.argv[1]))
    print(token())
