"""The practice shop: its pages say what it knows, its lists add up, and its bad pages are bad as promised."""

from __future__ import annotations

import gzip
import http.client
import io
import os
import re
import signal
import socket
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from decimal import Decimal
from unicodedata import is_normalized
from urllib.parse import urljoin, urlsplit

import pytest
from parsel import Selector

from crawler.practice_shop import ENDS, End, Fault, Shop, ShopBook, serving
from crawler.practice_shop.faults import BOMB_MIB
from crawler.practice_shop.site import Answer, Site
from crawler.practice_shop.words import GENRES

RATINGS = {"One": 1, "Two": 2, "Three": 3, "Four": 4, "Five": 5}


@pytest.fixture(scope="module")
def shop() -> Shop:
    return Shop(300, seed=7)


def read(site: Site, path: str) -> Selector:
    answer = site.answer("/" + path)
    assert answer.status == 200, path
    return Selector(answer.body.decode())


def walk(site: Site, path: str) -> Iterator[tuple[str, Selector]]:
    """A list from its first page to its last."""
    while path:
        page = read(site, path)
        yield path, page
        following = page.css("li.next a::attr(href)").get()
        path = urljoin(path, following) if following else ""


def listed(site: Site, path: str) -> list[str]:
    """Paths of the books of a list, in its order."""
    return [urljoin(at, href) for at, page in walk(site, path) for href in page.css("ol.row h3 a::attr(href)").getall()]


def as_read(page: Selector) -> dict[str, object]:
    """The facts of a product page, read with the selectors that suit the real shop."""
    main = page.css("article.product_page .product_main")
    table = {row.css("th::text").get(): row.css("td::text").get("") for row in page.css("table.table-striped tr")}
    return {
        "upc": table["UPC"],
        "title": main.css("h1::text").get(),
        "category": page.css("ul.breadcrumb li:nth-child(3) a::text").get(),
        "price": Decimal(main.css("p.price_color::text").get("").removeprefix("£")),
        "price_incl": Decimal(table["Price (incl. tax)"].removeprefix("£")),
        "price_excl_tax": Decimal(table["Price (excl. tax)"].removeprefix("£")),
        "tax": Decimal(table["Tax"].removeprefix("£")),
        "rating": RATINGS[main.css("p.star-rating::attr(class)").get("").split()[-1]],
        "availability": "".join(main.css("p.availability::text").getall()).strip(),
        "table_availability": table["Availability"],
        "product_type": table["Product Type"],
        "review_count": int(table["Number of reviews"]),
        "description": page.css("#product_description + p::text").get(""),
        "image": page.css("#product_gallery img::attr(src)").get("").removeprefix("../../"),
    }


def known(book: ShopBook) -> dict[str, object]:
    return {
        "upc": book.upc,
        "title": book.title,
        "category": book.category,
        "price": book.price,
        "price_incl": book.price_excl_tax + book.tax,
        "price_excl_tax": book.price_excl_tax,
        "tax": book.tax,
        "rating": book.rating,
        "availability": book.availability,
        "table_availability": book.availability,
        "product_type": "Books",
        "review_count": book.review_count,
        "description": book.description_raw,
        "image": book.image,
    }


def test_every_product_page_says_what_the_shop_knows(shop: Shop) -> None:
    site = Site(shop)
    for book in shop.truth():
        assert as_read(read(site, book.path)) == known(book)


def test_product_page_has_the_traps_of_the_real_one(shop: Shop) -> None:
    body = Site(shop).answer("/" + shop.book(100).path)
    text = body.body.decode()
    assert text.startswith("\n\n<!DOCTYPE html>")
    assert body.content_type == "text/html"
    assert 'content="text/html; charset=UTF-8"' in text
    page = Selector(text)
    assert page.css("ul.row article.product_pod h3 a::attr(title)").getall() == [
        shop.book(n).title for n in range(101, 107)
    ]
    assert len(page.css("article.product_page p.price_color")) == 7
    assert not [href for href in page.css("a::attr(href)").getall() if href.startswith(("/", "http"))]


def test_all_products_list_shows_every_book_once_and_newest_first(shop: Shop) -> None:
    site = Site(shop)
    expected = [book.path for book in shop.truth()]
    assert listed(site, "index.html") == expected
    assert listed(site, "catalogue/page-1.html") == expected
    assert listed(site, "catalogue/category/books_1/index.html") == expected
    assert [book.id for book in shop.truth()] == list(range(300, 0, -1))


def test_list_pages_count_their_books_and_pages(shop: Shop) -> None:
    for number, (path, page) in enumerate(walk(Site(shop), "catalogue/page-1.html"), start=1):
        counts = [int(text) for text in page.css("form.form-horizontal strong::text").getall()]
        assert counts == [300, number * 20 - 19, number * 20]
        assert page.css("li.current::text").get("").strip() == f"Page {number} of 15"
        assert bool(page.css("li.previous")) == (number > 1), path
    assert number == 15


def test_categories_share_the_books_without_remainder(shop: Shop) -> None:
    site = Site(shop)
    home = read(site, "index.html")
    categories = home.css(".side_categories ul ul a::attr(href)").getall()
    assert len(categories) == 50
    found: list[str] = []
    for path in categories:
        page = read(site, path)
        paths = listed(site, path)
        assert int(page.css("form.form-horizontal strong::text").get("")) == len(paths)
        name = page.css("h1::text").get()
        assert page.css(".side_categories a strong::text").getall() == [name]
        assert {shop.book(int(p.split("_")[-1].split("/")[0])).category for p in paths} <= {name}
        found += paths
    assert sorted(found) == sorted(book.path for book in shop.truth())


def test_category_of_one_page_has_no_pager_and_no_page_1(shop: Shop) -> None:
    site = Site(shop)
    small = next(n for n in range(50) if 0 < len(shop.category_ids(n)) <= 20)
    large = next(n for n in range(50) if len(shop.category_ids(n)) > 20)
    base = "/catalogue/category/books/{}_{}/{}"
    assert site.answer(base.format(GENRES[small].slug, small + 2, "page-1.html")).status == 404
    assert not read(site, base.format(GENRES[small].slug, small + 2, "index.html")[1:]).css("ul.pager")
    assert site.answer(base.format(GENRES[large].slug, large + 2, "page-1.html")).status == 200
    assert site.answer(base.format(GENRES[large].slug, large + 2, "page-99.html")).status == 404


def test_pods_show_title_price_rating_and_stock_in_short(shop: Shop) -> None:
    page = read(Site(shop), "catalogue/page-2.html")
    for pod, number in zip(page.css("article.product_pod"), range(280, 260, -1), strict=True):
        book = shop.book(number)
        assert pod.css("h3 a::attr(title)").get() == pod.css("img::attr(alt)").get() == book.title
        short = pod.css("h3 a::text").get("")
        assert short == book.title or (short == " ".join(book.title.split()[:4]) + " ...")
        assert pod.css("p.price_color::text").get() == f"£{book.price}"
        assert RATINGS[pod.css("p.star-rating::attr(class)").get("").split()[-1]] == book.rating
        words = "In stock" if book.in_stock else "Out of stock"
        assert "".join(pod.css("p.availability::text").getall()).strip() == words


def test_shop_shows_what_the_real_one_cannot() -> None:
    books = list(Shop(1000).truth())
    assert {book.rating for book in books} == {1, 2, 3, 4, 5}
    assert min(book.stock for book in books) == 0
    assert max(book.stock for book in books) == 30
    assert all(Decimal(5) <= book.price <= Decimal("99.99") for book in books)
    assert all(book.price == book.price_excl_tax + book.tax for book in books)
    shares = Counter[str]()
    for book in books:
        shares["no stock"] += not book.in_stock
        shares["tax"] += book.tax > 0
        shares["reviews"] += book.review_count > 0
        shares["series"] += f"({book.series} #{book.series_number})" in book.title
        shares["author"] += bool(book.authors) and book.description.startswith(f"By {book.authors[0]}.")
        shares["no description"] += not book.description
        shares["nbsp"] += "\u00a0" in book.description_raw
        shares["teaser"] += book.description_raw.endswith(" ...more")
        shares["plain"] += book.description_raw == book.description != ""
        for mark in ("’", "“", '"', "&", "'", "é"):
            shares[mark] += mark in book.title
    assert min(shares.values()) >= 5, shares
    assert len({book.upc for book in books}) == len({book.image for book in books}) == 1000
    assert len({book.title for book in books}) > 850
    assert all(len(book.upc) == 16 and int(book.upc, 16) >= 0 for book in books)


def test_clean_description_is_normal_and_ends_the_raw_one() -> None:
    def letters(text: str) -> str:
        return "".join(c for c in text.casefold() if c.isalnum())

    for book in Shop(500).truth():
        assert is_normalized("NFC", book.description)
        assert book.description == " ".join(book.description.split())
        raw = book.description_raw.removesuffix(" ...more")
        assert letters(raw).endswith(letters(book.description))
        teaser = letters(raw)[: len(letters(raw)) - len(letters(book.description))]
        assert letters(book.description).startswith(teaser)
        assert not teaser or len(teaser) >= 30


def test_books_of_a_category_and_of_a_series_share_words() -> None:
    books = [book for book in Shop(600).truth() if book.description]
    words = {book.id: set(book.description.lower().split()) for book in books}

    def likeness(pairs: list[tuple[ShopBook, ShopBook]]) -> float:
        scores = [len(words[a.id] & words[b.id]) / len(words[a.id] | words[b.id]) for a, b in pairs]
        return sum(scores) / len(scores)

    pairs = [(a, b) for a in books[:200] for b in books if a.id < b.id]
    strangers = likeness([(a, b) for a, b in pairs if a.category != b.category])
    neighbors = likeness([(a, b) for a, b in pairs if a.category == b.category and not a.series == b.series != ""])
    series = [(a, b) for a, b in pairs if a.series == b.series != "" and a.category == b.category]
    assert strangers < neighbors < likeness(series)


def test_same_arguments_give_the_same_shop_in_another_process() -> None:
    code = (
        "from crawler.practice_shop import Shop; import hashlib;"
        "print(hashlib.sha256(repr(list(Shop(200, 5, 50, True).truth())).encode()).hexdigest())"
    )
    results = {
        subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(results) == 1


def test_another_seed_is_another_shop() -> None:
    one, other = ({book.upc for book in Shop(200, seed).truth()} for seed in (1, 2))
    assert not one & other


def test_first_books_do_not_depend_on_how_many_follow() -> None:
    large = Shop(5000)
    assert [large.book(n) for n in range(200, 0, -1)] == list(Shop(200).truth())


def test_changes_are_nested_and_tell_exactly_what_differs() -> None:
    before = {book.id: book for book in Shop(200, 3).truth()}
    half, whole = Shop(200, 3, changes=60), Shop(200, 3, changes=120)
    assert list(whole.log)[:60] == list(half.log)
    assert {change.kind for change in whole.log} == {"price", "stock", "new", "gone"}
    after = {book.id: book for book in whole.truth()}
    new = {change.book for change in whole.log if change.kind == "new"}
    gone = {change.book for change in whole.log if change.kind == "gone"}
    assert set(after) == (set(before) | new) - gone
    assert whole.announced == len(after)
    touched = {change.book for change in whole.log}
    for number in set(before) & set(after):
        old, now = asdict(before[number]), asdict(after[number])
        fields = {name for name in old if old[name] != now[name]}
        assert fields <= {"price", "price_excl_tax", "tax", "stock"}
        assert not fields or number in touched


def test_single_change_always_makes_a_difference() -> None:
    previous = list(Shop(30, 4).truth())
    for count in range(1, 80):
        books = list(Shop(30, 4, changes=count).truth())
        assert books != previous, count
        previous = books


def test_lists_follow_the_changes() -> None:
    shop = Shop(250, 3, changes=200)
    site = Site(shop)
    paths = [book.path for book in shop.truth()]
    assert listed(site, "index.html") == paths
    categories = read(site, "index.html").css(".side_categories ul ul a::attr(href)").getall()
    assert sorted(path for category in categories for path in listed(site, category)) == sorted(paths)
    assert int(read(site, "index.html").css("form strong::text").get("")) == shop.announced == len(paths)
    gone = next(change.book for change in shop.log if change.kind == "gone")
    assert site.answer("/" + Shop(gone, 3).book(gone).path).status == 404
    with pytest.raises(KeyError):
        shop.book(gone)


def test_shop_of_a_million_books_keeps_none_of_them() -> None:
    tracemalloc.start()
    try:
        site = Site(Shop(1_000_000, changes=1000))
        last = read(site, "catalogue/page-50000.html")
        middle = read(site, "catalogue/category/books_1/page-25000.html")
        deep = read(site, "catalogue/category/books/graphic-novels_5/page-3000.html")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(last.css("ol.row li")) == len(middle.css("ol.row li")) == len(deep.css("ol.row li")) == 20
    assert peak < 8_000_000


@pytest.mark.parametrize(("books", "changes"), [(0, 0), (1_000_001, 0), (5, -1)])
def test_impossible_shop_is_refused(books: int, changes: int) -> None:
    with pytest.raises(ValueError, match="must be between"):
        Shop(books, changes=changes)


@pytest.mark.parametrize(
    "path",
    [
        "robots.txt",
        "catalogue/page-0.html",
        "catalogue/page-16.html",
        "catalogue/page-01.html",
        "catalogue/wrong-slug_12/index.html",
        "catalogue/category/books/travel_3/index.html",
        "catalogue/category/books/travel_99/index.html",
        "catalogue/../index.html",
        "media/cache/aa/bb/ffffffffffffffffffffffffffffffff.jpg",
        "%00",
    ],
)
def test_unknown_address_is_404(shop: Shop, path: str) -> None:
    assert Site(shop).answer("/" + path).status == 404


def test_known_etag_gets_304_until_the_book_changes(shop: Shop) -> None:
    change = next(c for c in Shop(300, 7, changes=200).log if c.kind == "price")
    path = "/" + shop.book(change.book).path
    first = Site(shop).answer(path)
    etag = dict(first.headers)["ETag"]
    again = Site(shop).answer(path, f'"other", W/{etag}')
    assert (again.status, again.body, dict(again.headers)["ETag"]) == (304, b"", etag)
    assert Site(shop).answer(path, '"other"').status == 200
    count = next(k for k in range(1, 201) if Shop(300, 7, changes=k).log[-1] == change)
    changed = Shop(300, 7, changes=count)
    assert Site(changed).answer(path, etag).status == 200


@pytest.fixture(scope="module")
def bad() -> dict[Fault, ShopBook]:
    """One book of each fault, from a shop of 700 books with faults."""
    shop = Shop(700, faults=True)
    return {fault: book for book in shop.truth() if (fault := shop.fault(book.id))}


@pytest.fixture(scope="module")
def bad_site() -> Site:
    return Site(Shop(700, faults=True))


def answer_of(site: Site, book: ShopBook) -> Answer:
    return site.answer("/" + book.path)


def test_every_fault_occurs_and_has_an_expected_end(bad: dict[Fault, ShopBook]) -> None:
    assert set(bad) == set(Fault) == set(ENDS)
    shop = Shop(3200, faults=True)
    assert sum(shop.fault(n) is not None for n in shop.ids()) == 100
    assert not any(Shop(700).fault(n) for n in range(1, 701))


def test_faulty_page_is_listed_like_any_other(bad: dict[Fault, ShopBook], bad_site: Site) -> None:
    assert {book.path for book in bad.values()} <= set(listed(bad_site, "index.html"))


@pytest.mark.parametrize(
    ("fault", "status", "beginning"),
    [
        (Fault.NOT_FOUND, 404, b"<html>"),
        (Fault.SERVER_ERROR, 500, b"<html>"),
        (Fault.BINARY, 200, b"\x00\x01\x02"),
        (Fault.JSON, 200, b'{"'),
        (Fault.PDF, 200, b"%PDF"),
    ],
)
def test_bad_answer_is_as_named(
    bad: dict[Fault, ShopBook], bad_site: Site, fault: Fault, status: int, beginning: bytes
) -> None:
    answer = answer_of(bad_site, bad[fault])
    assert answer.status == status
    assert answer.content_type == ("application/octet-stream" if fault is Fault.BINARY else "text/html")
    assert answer.body.startswith(beginning)


def test_empty_page_is_200_without_a_body(bad: dict[Fault, ShopBook], bad_site: Site) -> None:
    answer = answer_of(bad_site, bad[Fault.EMPTY])
    assert (answer.status, answer.body) == (200, b"")


def test_flaky_page_is_fine_at_the_third_request(bad: dict[Fault, ShopBook]) -> None:
    site = Site(Shop(700, faults=True))
    book = bad[Fault.FLAKY]
    assert [answer_of(site, book).status for _ in range(4)] == [503, 503, 200, 200]
    assert as_read(read(site, book.path)) == known(book)


def test_redirect_loop_never_arrives(bad: dict[Fault, ShopBook], bad_site: Site) -> None:
    url = "/" + bad[Fault.REDIRECT_LOOP].path
    seen = [url]
    for _ in range(4):
        answer = bad_site.answer(url)
        assert answer.status == 302
        url = urljoin(url, dict(answer.headers)["Location"])
        seen.append(url)
    assert len(set(seen)) == 2


def test_gzip_bomb_is_small_on_the_wire_and_huge_behind_it(bad: dict[Fault, ShopBook], bad_site: Site) -> None:
    answer = answer_of(bad_site, bad[Fault.GZIP_BOMB])
    assert dict(answer.headers)["Content-Encoding"] == "gzip"
    assert 100_000 < len(answer.body) < 400_000
    size = 0
    with closing(gzip.GzipFile(fileobj=io.BytesIO(answer.body))) as unpacked:
        while chunk := unpacked.read(1 << 20):
            size += len(chunk)
    assert size == BOMB_MIB << 20


def test_wrong_charset_cannot_be_decoded(bad: dict[Fault, ShopBook], bad_site: Site) -> None:
    answer = answer_of(bad_site, bad[Fault.WRONG_CHARSET])
    with pytest.raises(UnicodeDecodeError):
        answer.body.decode()
    assert b"charset=UTF-8" in answer.body


@pytest.mark.parametrize(
    ("fault", "absent"),
    [
        (Fault.NO_UPC, "th:contains('UPC')"),
        (Fault.NO_PRICE, ".product_main .price_color, th:contains('Price'), th:contains('Tax')"),
        (Fault.NO_TITLE, "h1"),
        (Fault.NO_MAIN, ".product_main"),
    ],
)
def test_missing_field_is_missing(bad: dict[Fault, ShopBook], bad_site: Site, fault: Fault, absent: str) -> None:
    page = read(bad_site, bad[fault].path)
    assert not page.css(absent)
    assert page.css("table.table-striped tr")
    assert (bad[fault].title not in page.get()) == (fault is Fault.NO_TITLE)


@pytest.mark.parametrize(
    ("fault", "selector", "value"),
    [
        (Fault.RATING_ELEVEN, ".product_main .star-rating::attr(class)", "star-rating Eleven"),
        (Fault.PRICE_NEGATIVE, ".product_main .price_color::text", "£-1.00"),
        (Fault.PRICE_HUGE, ".product_main .price_color::text", "£999999999999.00"),
        (Fault.STOCK_HUGE, "th:contains('Availability') + td::text", "In stock (99999999999999999999 available)"),
    ],
)
def test_absurd_field_is_absurd(
    bad: dict[Fault, ShopBook], bad_site: Site, fault: Fault, selector: str, value: str
) -> None:
    assert read(bad_site, bad[fault].path).css(selector).getall() == [value]


def test_fine_ends_are_those_whose_page_becomes_right() -> None:
    assert {fault for fault, ends in ENDS.items() if End.FINE in ends} == {Fault.FLAKY, Fault.SLOW}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving(Shop(700, faults=True)) as url:
        yield url


@pytest.fixture
def connection(address: str) -> Iterator[http.client.HTTPConnection]:
    with closing(http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)) as client:
        yield client


def raw(address: str, request: bytes) -> bytes:
    """Everything that the server says to these bytes until it closes."""
    parts = urlsplit(address)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=20) as client:
        client.sendall(request)
        return b"".join(iter(lambda: client.recv(65536), b""))


@pytest.mark.system
def test_server_answers_get_head_and_conditional_get_on_one_connection(
    connection: http.client.HTTPConnection,
) -> None:
    connection.request("GET", "/")
    got = connection.getresponse()
    body = got.read()
    assert (got.status, got.headers["Content-Type"]) == (200, "text/html")
    assert body.startswith(b"<!DOCTYPE html>")
    sock = connection.sock
    connection.request("HEAD", "/index.html")
    head = connection.getresponse()
    assert (head.read(), head.headers["Content-Length"], head.headers["ETag"]) == (
        b"",
        str(len(body)),
        got.headers["ETag"],
    )
    connection.request("GET", "/", headers={"If-None-Match": got.headers["ETag"]})
    unchanged = connection.getresponse()
    assert (unchanged.status, unchanged.read()) == (304, b"")
    connection.request("GET", "/robots.txt")
    assert connection.getresponse().status == 404
    assert connection.sock is sock


@pytest.mark.system
def test_server_keeps_the_order_of_pipelined_requests_behind_a_slow_one(
    address: str, bad: dict[Fault, ShopBook]
) -> None:
    slow = bad[Fault.SLOW]
    answer = raw(
        address,
        f"GET /{slow.path} HTTP/1.1\r\nHost: x\r\n\r\nGET /robots.txt HTTP/1.1\r\nHost: x\r\n\r\n"
        "HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode(),
    )
    assert re.findall(rb"HTTP/1\.1 ([0-9]+) ", answer) == [b"200", b"404", b"200"]
    assert answer.index(slow.upc.encode()) < answer.index(b"404 Not Found")


@pytest.mark.system
def test_server_closes_a_page_that_is_cut_short(
    connection: http.client.HTTPConnection, bad: dict[Fault, ShopBook]
) -> None:
    connection.request("GET", "/" + bad[Fault.CUT_SHORT].path)
    with pytest.raises(http.client.IncompleteRead):
        connection.getresponse().read()


@pytest.mark.system
@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET index.html HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 400),
        (b"\x16\x03\x01\xff\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nConnection: close\r\n\r\n", 405),
        (b"GET /" + b"a" * 20_000, 431),
        (b"GET / HTTP/1.0\r\n\r\n", 200),
        (b"GET http://elsewhere.example/ HTTP/1.1\r\nHost: <script>\r\nConnection: close\r\n\r\n", 200),
    ],
)
def test_server_answers_odd_requests_and_lives_on(address: str, request_bytes: bytes, status: int) -> None:
    answer = raw(address, request_bytes)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"elsewhere" not in answer
    assert b"Host" not in answer
    assert raw(address, b"HEAD / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")


@pytest.mark.system
def test_changed_shop_serves_at_the_address_of_the_one_before() -> None:
    with serving(Shop(50)) as before:
        pass
    with serving(Shop(50, changes=30), port=urlsplit(before).port or 0) as after:
        assert after == before
        assert f"<strong>{Shop(50, changes=30).announced}</strong>".encode() in raw(after, b"GET / HTTP/1.0\r\n\r\n")


@pytest.mark.system
def test_command_prints_its_address_first_and_ends_cleanly_on_sigterm() -> None:
    command = [sys.executable, "-m", "crawler.practice_shop", "--books", "40", "--port", "0", "--seed", "9"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        page = raw(url, b"GET / HTTP/1.0\r\n\r\n")
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
    assert b"<strong>40</strong>" in page
    assert (process.returncode, out, err) == (0, "", "")


@pytest.mark.system
@pytest.mark.parametrize("options", [["--books", "0"], ["--changes", "-1"], ["--books", "many"]])
def test_command_refuses_what_it_cannot_serve(options: list[str]) -> None:
    command = [sys.executable, "-m", "crawler.practice_shop", *options]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "usage:" in done.stderr


@pytest.mark.system
def test_serving_raises_when_the_server_cannot_start(address: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="before it served"), serving(Shop(5), port=urlsplit(address).port or 0):
        pass
    assert "cannot serve on port" in capfd.readouterr().err


@pytest.mark.system
def test_command_says_so_when_its_port_is_taken(address: str) -> None:
    command = [sys.executable, "-m", "crawler.practice_shop", "--port", str(urlsplit(address).port)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "cannot serve on port" in done.stderr
