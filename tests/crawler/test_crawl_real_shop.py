"""Crawls of the copy of the real shop against what is known of its thousand books.

The copy and the truth are not part of this repository: REAL_SHOP_DIR names their folder.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.crawler import real_shop
from tests.crawler.deployment import Deployment, wait_until

FOLDER = Path(os.environ.get("REAL_SHOP_DIR", "nowhere"))

pytestmark = [
    pytest.mark.system,
    pytest.mark.realshop,
    pytest.mark.skipif("REAL_SHOP_DIR" not in os.environ, reason="REAL_SHOP_DIR does not name the copy of the shop"),
]


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address at which the shop's own server, as the copy brings it, serves a folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(FOLDER / "serve.py"), str(port), str(folder)])
    try:
        wait_until(lambda: _answers(port), "the shop's server answers")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return real_shop.unpacked(tmp_path / "unpacked")


def truth() -> dict[str, dict[str, Any]]:
    with (FOLDER / "books.jsonl").open(encoding="utf-8") as lines:
        return {book["upc"]: book for book in map(json.loads, lines)}


def letters(text: str) -> str:
    return re.sub(r"[\W_]", "", text)


def reprice(site: Path, paths: list[str]) -> None:
    """Ten times each price: another length, since the server's ETag knows the size of a page alone."""
    for path in paths:
        page = site / path
        html = page.read_text(encoding="utf-8")
        price = re.search(r'<p class="price_color">£([0-9.]+)</p>', html)  # the first is the book's own
        assert price is not None
        new = f"£{Decimal(price[1]) * 10:.2f}"
        changed = html.replace(price[0], f'<p class="price_color">{new}</p>', 1)
        changed, n = re.subn(r"(<th>Price \([^)]*\)</th>\s*<td>)£[0-9.]+", rf"\g<1>{new}", changed)
        assert n == 2
        page.write_text(changed, encoding="utf-8")


def test_thousand_books_are_read_true_read_again_untouched_and_sixty_new_prices_found(
    deployment: Deployment, site: Path
) -> None:
    known = truth()
    with served(site) as address:
        first = deployment.crawl(address)
        assert first.code == 0
        assert_true(deployment, known, address)

        revision = deployment.revision()
        again = deployment.crawl(address)
        assert (again.code, again.status_count(304), again.status_count(200)) == (0, 1000, 50)
        assert deployment.revision() == revision
        assert deployment.run()["unchanged"] == 1000

        before = deployment.books()
        chosen = list(known)[::16][:60]
        reprice(site, [before[upc]["source_url"].removeprefix(address + "/") for upc in chosen])
        third = deployment.crawl(address)
        assert (third.code, third.status_count(304), third.status_count(200)) == (0, 940, 50 + 60)
        run = deployment.run()
        assert (run["updated"], run["unchanged"], run["complete"]) == (60, 940, True)
        after = deployment.books()
        assert {upc for upc in after if after[upc] != before[upc]} == set(chosen)
        for upc in chosen:
            price = f"{Decimal(before[upc]['price']) * 10:.2f}"
            assert after[upc] == before[upc] | {"price": price, "price_excl_tax": price}
        histories = deployment.rows(
            "SELECT b.upc, count(*) FROM catalog_priceobservation o JOIN catalog_book b ON b.id = o.book_id "
            "GROUP BY b.upc"
        )
        assert {upc for upc, n in histories if n == 2} == set(chosen)
        assert Counter(n for _, n in histories) == {1: 940, 2: 60}


def assert_true(deployment: Deployment, known: dict[str, dict[str, Any]], address: str) -> None:
    books = deployment.books()
    assert books.keys() == known.keys()
    for upc, book in books.items():
        told = known[upc]
        told_description = told["description_clean"] or ""
        if told["id"] == 270:
            # By its own rule the truth should begin "Introduction" here; see the test of the parser.
            told_description = f"In{told_description}"
        assert letters(book["description"]) == letters(told_description)
        assert {name: book[name] for name in book if name != "description"} == {
            "upc": upc,
            "title": told["title"],
            "authors": [],
            "category": told["category"],
            "price": told["price_incl_tax"],
            "price_excl_tax": told["price_excl_tax"],
            "tax": told["tax"],
            "currency": "GBP",
            "rating": told["rating"],
            "stock": told["stock"],
            "availability": "In stock",
            "in_stock": True,
            "review_count": told["num_reviews"],
            "product_type": told["product_type"],
            "image_url": f"{address}/{told['image']}",
            "source_url": f"{address}/{told['url']}",
            "listed": True,
        }

    # What is known of the shop as a whole.
    prices = [Decimal(book["price"]) for book in books.values()]
    assert (min(prices), max(prices), sum(prices)) == (Decimal("10.00"), Decimal("59.99"), Decimal("35070.35"))
    assert sum(Decimal(10) <= price <= Decimal(11) for price in prices) == 23
    assert sum(book["stock"] for book in books.values()) == 8585
    assert Counter(book["rating"] for book in books.values()) == {1: 226, 2: 196, 3: 203, 4: 179, 5: 196}
    assert len({book["title"] for book in books.values()}) == 999
    assert len({book["category"] for book in books.values()}) == 50
    assert sum(book["category"] == "Travel" for book in books.values()) == 11
    assert sum(not book["description"] for book in books.values()) == 2
