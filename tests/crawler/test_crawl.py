"""Whole crawls of the practice shop by real processes, judged by what the database holds afterwards."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from crawler.practice_shop import ENDS, End, Shop, ShopBook, serving
from tests.crawler.conftest import Crawled
from tests.crawler.deployment import Deployment

pytestmark = pytest.mark.system


def expected(book: ShopBook, address: str) -> dict[str, Any]:
    """What the catalogue should hold of a book."""
    return {
        "upc": book.upc,
        "title": book.title,
        "authors": [],  # the product page names them within its description alone
        "description": book.description,
        "category": book.category,
        "price": f"{book.price:.2f}",
        "price_excl_tax": f"{book.price_excl_tax:.2f}",
        "tax": f"{book.tax:.2f}",
        "currency": "GBP",
        "rating": book.rating,
        "stock": book.stock,
        "availability": "In stock" if book.stock else "Out of stock",
        "in_stock": book.stock > 0,
        "review_count": book.review_count,
        "product_type": "Books",
        "image_url": f"{address}/{book.image}",
        "source_url": f"{address}/{book.path}",
        "listed": True,
    }


def truth(shop: Shop, address: str) -> dict[str, dict[str, Any]]:
    return {book.upc: expected(book, address) for book in shop.truth()}


def test_whole_crawl_fills_the_catalogue_with_every_field_of_every_book(crawled: Crawled) -> None:
    assert crawled.first.code == 0
    assert crawled.deployment.books() == truth(crawled.shop, crawled.address)
    run = crawled.deployment.run()
    assert run == {
        "id": 1,
        "state": "finished",
        "complete": True,
        "announced": 300,
        "seen": 300,
        "created": 300,
        "updated": 0,
        "unchanged": 0,
        "stale": 0,
        "rejected": 0,
        "failed_pages": 0,
        "delisted": 0,
        "warnings": [],
    }
    assert crawled.deployment.value("SELECT count(*) FROM catalog_sighting") == 300


def test_second_crawl_reads_no_page_again_and_leaves_the_revision(crawled: Crawled) -> None:
    revision = crawled.deployment.revision()
    again = crawled.deployment.crawl(crawled.address)
    assert again.code == 0
    assert again.status_count(304) == 300
    assert again.status_count(200) == 15  # the list pages
    assert crawled.deployment.revision() == revision
    run = crawled.deployment.run()
    assert (run["seen"], run["unchanged"], run["complete"]) == (300, 300, True)
    assert crawled.deployment.value("SELECT count(*) FROM catalog_priceobservation") == 300


def test_pages_that_an_older_parser_read_are_read_again(crawled: Crawled) -> None:
    crawled.deployment.execute("UPDATE catalog_booksource SET parser_version = 0 WHERE book_id <= 30")
    again = crawled.deployment.crawl(crawled.address)
    assert (again.code, again.status_count(304), again.status_count(200)) == (0, 270, 15 + 30)
    assert crawled.deployment.run()["unchanged"] == 300


def test_feeds_are_whole_although_every_page_is_known(crawled: Crawled, tmp_path: Path) -> None:
    lines, table = tmp_path / "books.jsonl", tmp_path / "books.csv"
    assert crawled.deployment.crawl(crawled.address, "-O", str(lines), "-O", str(table)).code == 0
    upcs = {book.upc for book in crawled.shop.truth()}
    from_lines = {record["upc"]: record for record in map(json.loads, lines.read_text().splitlines())}
    assert from_lines.keys() == upcs
    with table.open(newline="") as file:
        from_table = {record["upc"]: record for record in csv.DictReader(file)}
    assert from_table.keys() == upcs
    book = crawled.shop.book(42)
    assert from_lines[book.upc]["price"] == from_table[book.upc]["price"] == f"£{book.price}"
    assert crawled.deployment.run()["unchanged"] == 300


def test_crawl_of_a_changed_shop_changes_exactly_what_changed(deployment: Deployment) -> None:
    before, after = Shop(300), Shop(300, changes=60)
    with serving(before) as address:
        assert deployment.crawl(address).code == 0
    revision = deployment.revision()
    with serving(after, port=int(address.rpartition(":")[2])):
        assert deployment.crawl(address).code == 0

    old, new = truth(before, address), truth(after, address)
    gone = {upc: book | {"listed": False} for upc, book in old.items() if upc not in new}
    assert deployment.books() == new | gone
    run = deployment.run()
    assert (run["created"], run["delisted"], run["complete"]) == (len(new.keys() - old.keys()), len(gone), True)
    assert run["updated"] == sum(old[upc] != new[upc] for upc in old.keys() & new.keys())
    assert min(run["created"], run["delisted"], run["updated"]) > 0

    # The change log names exactly these books and fields, and the price history grows by those alone.
    logged: dict[str, set[str]] = {}
    for upc, kind, fields in deployment.rows(
        "SELECT b.upc, c.kind, c.fields FROM catalog_change c JOIN catalog_book b ON b.id = c.book_id "
        f"WHERE c.revision > {revision}"
    ):
        changes = json.loads(fields) if isinstance(fields, str) else fields
        logged.setdefault(upc, set()).update(changes or {kind})
    stayed = old.keys() & new.keys()
    differing = {upc: names for upc in stayed if (names := {n for n, v in old[upc].items() if v != new[upc][n]})}
    assert logged == (
        differing | {upc: {"created"} for upc in new.keys() - old.keys()} | {upc: {"delisted"} for upc in gone}
    )
    observed = dict(
        deployment.rows(
            "SELECT b.upc, count(*) FROM catalog_priceobservation o JOIN catalog_book b ON b.id = o.book_id "
            "GROUP BY b.upc"
        )
    )
    assert {upc for upc, n in observed.items() if n == 2} == differing.keys()
    assert set(observed.values()) == {1, 2}


def test_every_fault_ends_as_it_should_and_nothing_is_lost(deployment: Deployment) -> None:
    shop = Shop(650, faults=True)
    with serving(shop) as address:
        crawl = deployment.crawl(address)
    assert crawl.code == 0

    failed, recorded = deployment.failures(), deployment.books()
    rejected = {url for (url,) in deployment.rows("SELECT reference FROM catalog_rejecteditem")}
    ends: Counter[End] = Counter()
    met = set()
    for book in shop.truth():
        url, fault = f"{address}/{book.path}", shop.fault(book.id)
        end = End.FAILED if url in failed else End.REJECTED if url in rejected else End.FINE
        assert end in (ENDS[fault] if fault else (End.FINE,)), fault
        assert (book.upc in recorded) == (end is End.FINE)
        if end is End.FINE:
            assert recorded[book.upc] == expected(book, address)
        ends[end] += 1
        met.add(fault)
    assert met == {None, *ENDS}

    run = deployment.run()
    assert (run["created"], run["rejected"], run["failed_pages"]) == (ends[End.FINE], ends[End.REJECTED], len(failed))
    assert run["announced"] == run["seen"] + run["failed_pages"] == 650
    assert run["complete"]
    assert {"http_404", "http_500", "cut_short", "too_large", "wrong_charset", "not_a_book_page"} < set(failed.values())
    assert all(
        json.loads(e) if isinstance(e, str) else e
        for (e,) in deployment.rows("SELECT errors FROM catalog_rejecteditem")
    )


def test_category_by_name_or_slug_reads_that_category_alone(deployment: Deployment, served: tuple[Shop, str]) -> None:
    shop, address = served
    biggest = max(range(50), key=lambda category: len(shop.category_ids(category)))
    books = [shop.book(number) for number in shop.category_ids(biggest)]
    name = books[0].category
    slug = name.lower().replace(" ", "-")
    for category in (name.upper(), slug):
        crawl = deployment.crawl(address, "-a", f"category={category}")
        assert crawl.code == 0
        assert deployment.books().keys() == {book.upc for book in books}
        run = deployment.run()
        assert (run["announced"], run["seen"], run["complete"]) == (len(books), len(books), False)


def test_unknown_category_is_an_error_that_names_it(deployment: Deployment, served: tuple[Shop, str]) -> None:
    crawl = deployment.crawl(served[1], "-a", "category=[bold]Alchemy")
    assert crawl.code == 1
    assert "The shop has no category '[bold]Alchemy'." in crawl.log
    assert deployment.run()["state"] == "failed"


def test_limit_reads_the_first_books_and_delists_none(crawled: Crawled) -> None:
    crawl = crawled.deployment.crawl(crawled.address, "-a", "limit=25")
    assert crawl.code == 0
    run = crawled.deployment.run()
    assert (run["seen"], run["unchanged"], run["complete"], run["delisted"]) == (25, 25, False, 0)
    pages = crawled.deployment.rows(
        f"SELECT b.upc FROM catalog_sighting s JOIN catalog_book b ON b.id = s.book_id WHERE s.run_id = {run['id']}"
    )
    newest = [crawled.shop.book(number).upc for number in crawled.shop.ids().page(1) + crawled.shop.ids().page(2)]
    assert sorted(upc for (upc,) in pages) == sorted(newest[:25])


def test_books_that_return_are_listed_again_although_their_pages_did_not_change(crawled: Crawled) -> None:
    crawled.deployment.execute(
        f"UPDATE catalog_book SET listed = {'false' if crawled.deployment.is_postgres else 0} WHERE id <= 3"
    )
    again = crawled.deployment.crawl(crawled.address)
    assert again.status_count(304) == 300
    assert all(book["listed"] for book in crawled.deployment.books().values())
    kinds = crawled.deployment.rows("SELECT kind, count(*) FROM catalog_change WHERE revision > 1 GROUP BY kind")
    assert dict(kinds).get("relisted") == 3
