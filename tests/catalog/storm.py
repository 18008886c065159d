"""One process of a storm over the catalogue: `python -m tests.catalog.storm ROLE ...` with DATABASE_URL set.

write I N BOOKS   ingests part I of N of all versions of the books, shuffled; prints the counts
edit BOOKS        edits books as a curator does, until its input ends; prints {upc: product type}
follow            reads the changes by cursor, until its input ends and nothing is left; prints their ids
"""

from __future__ import annotations

import json
import os
import random
import select
import sys
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

from catalog.records import IngestCounts, ScrapedBook

SHOP = "storm"
VERSIONS = 5
BATCH = 250


def version(book: int, number: int) -> ScrapedBook:
    """Versions 1 and 2 say the same, so that a book can be unchanged too."""
    price = f"£{10 + max(number, 2)}.00"
    return ScrapedBook(
        shop=SHOP,
        source_url=f"https://storm.example/{book}",
        scraped_at=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number),
        upc=f"u{book}",
        title=f"Book {book}",
        category=f"Shelf {book % 7}",
        price=price,
        price_excl_tax=price,
        tax="£0.00",
        rating="Three",
        availability=f"In stock ({number + 1} available)" if number > 2 else "In stock (1 available)",
        product_type="Books",
    )


def write(part: int, parts: int, books: int) -> object:
    from catalog.ingest import ingest
    from catalog.models import CrawlRun

    keys = [(book, number) for book in range(books) for number in range(VERSIONS)]
    random.Random(1).shuffle(keys)
    mine = [version(*key) for key in keys[part::parts]]
    run_id = CrawlRun.objects.get(shop=SHOP).pk
    total = IngestCounts()
    for start in range(0, len(mine), BATCH):
        total += ingest(mine[start : start + BATCH], run_id)
    return asdict(total)


def edit(books: int) -> object:
    from catalog.models import Book, Change
    from catalog.revision import writing

    chance, edited = random.Random(2), {}
    while not told_to_end(0.002):
        upc = f"u{chance.randrange(books)}"
        with writing() as turn:
            book = Book.objects.filter(shop=SHOP, upc=upc).first()
            if book is None:
                continue
            old, book.product_type = book.product_type, f"Curated {len(edited)}"
            book.locked_fields, book.updated_at = ["product_type"], turn.at
            book.save()
            turn.change(book.pk, Change.Kind.UPDATED, {"product_type": {"old": old, "new": book.product_type}})
        edited[upc] = book.product_type
    return edited


def follow() -> object:
    from django.db.models import Q

    from catalog.models import Change

    revision, last, found, ending = 0, 0, [], False
    while True:
        after = Q(revision__gt=revision) | Q(revision=revision, id__gt=last)
        rows = list(Change.objects.filter(after).order_by("revision", "id").values_list("revision", "id")[:500])
        if rows:
            revision, last = rows[-1]
            found += [pk for _, pk in rows]
        elif ending:
            return found
        else:
            ending = told_to_end(0.005)


def told_to_end(wait_s: float) -> bool:
    return bool(select.select([sys.stdin], [], [], wait_s)[0])


if __name__ == "__main__":
    import django

    os.environ["DJANGO_SETTINGS_MODULE"] = "bookapi.settings"
    django.setup()
    role, *numbers = sys.argv[1:]
    print(json.dumps({"write": write, "edit": edit, "follow": follow}[role](*map(int, numbers))))
