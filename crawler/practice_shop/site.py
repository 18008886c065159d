"""What the shop answers to a request: addresses, conditional reads and misbehaving pages, without a network."""

from __future__ import annotations

import re
from base64 import b64decode
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from http import HTTPStatus

from crawler.practice_shop import pages
from crawler.practice_shop.faults import Fault, gzip_bomb, spoil
from crawler.practice_shop.shop import Listing, Shop
from crawler.practice_shop.words import GENRES

# The address of a book ends in its number; categories count from 2, because 1 is "Books".
_PRODUCT = re.compile(r"catalogue/[a-z0-9-]*_([1-9][0-9]{0,6})/index\.html")
_ALL = re.compile(r"catalogue/page-([1-9][0-9]{0,6})\.html")
_BOOKS = re.compile(r"catalogue/category/books_1/(?:index|page-([1-9][0-9]{0,6}))\.html")
_CATEGORY = re.compile(r"catalogue/category/books/([a-z0-9-]+)_([1-9][0-9]?)/(?:index|page-([1-9][0-9]{0,6}))\.html")
_IMAGE = re.compile(r"media/cache/([0-9a-f]{2})/([0-9a-f]{2})/\1\2[0-9a-f]{28}\.jpg")

# No charset, like the real shop: it stands in the page's meta tag alone.
_HTML = "text/html"
_COVER = b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDACgcHiMeGSgjISMtKygwPGRBPDc3PHtYXUlkkYCZlo+AjIqgtObDoKrarYqMyP/L2u71////m8H/"
    "///6/+b9//j/wAALCAAwACABAREA/8QAFgABAQEAAAAAAAAAAAAAAAAAAAME/8QAIRAAAQIEBwAAAAAAAAAAAAAAAAIDEkSDwRETIiQyY6H/"
    "2gAIAQEAAD8A0rW5nQNw8cdQ3HV6Nx1ehC3M6ByHjjpE5TuVBKcp3E5TuVBKcp3E5TuVBKcp3E5TuVBKcp3C0OZ0bcPHDUNx1ejcdXoQhzOj"
    "ch44aT//2Q=="
)  # a framed grey rectangle of 32 by 48
_VIEWED = 6
_FLAKY_FAILURES = 2
_SLOW_S = 2.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One response, before it becomes bytes."""

    status: HTTPStatus
    body: bytes = b""
    content_type: str = _HTML
    headers: tuple[tuple[str, str], ...] = ()
    delay_s: float = 0.0
    cut_short: bool = False  # half of the body is sent, then the connection closes


def plain(status: HTTPStatus, *headers: tuple[str, str]) -> Answer:
    """A short page that says no more than its status."""
    line = f"{status.value} {status.phrase}"
    body = f"<html>\n<head><title>{line}</title></head>\n<body>\n<h1>{line}</h1>\n</body>\n</html>\n"
    return Answer(status, body.encode(), headers=headers)


_FIXED: dict[Fault | None, Answer] = {
    Fault.NOT_FOUND: plain(HTTPStatus.NOT_FOUND),
    Fault.SERVER_ERROR: plain(HTTPStatus.INTERNAL_SERVER_ERROR),
    Fault.BINARY: Answer(HTTPStatus.OK, bytes(range(256)) * 16, "application/octet-stream"),
    Fault.JSON: Answer(HTTPStatus.OK, b'{"error": "try again later", "books": []}'),
    Fault.PDF: Answer(HTTPStatus.OK, b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<< /Type /Catalog >>\nendobj\n%%EOF\n"),
    Fault.EMPTY: Answer(HTTPStatus.OK),
}


class Site:
    """The pages of a shop. It remembers nothing but how often its flaky pages were asked for."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._failures: Counter[int] = Counter()
        # Six pages in a row show the same neighbor.
        self._pod = lru_cache(1024)(lambda number, root: pages.pod(shop.book(number), root))

    def answer(self, target: str, if_none_match: str = "") -> Answer:
        """The answer to GET; `target` is a path with its query, as the request line has it."""
        path, _, query = target.partition("?")
        path = path.removeprefix("/")
        if path == "" or path.endswith("/"):
            path += "index.html"
        if match := _PRODUCT.fullmatch(path):
            answer = self._product(int(match[1]), path, query)
        elif _IMAGE.fullmatch(path):
            answer = Answer(HTTPStatus.OK, _COVER, "image/jpeg")
        else:
            html = self._list(path)
            answer = Answer(HTTPStatus.OK, html.encode()) if html else plain(HTTPStatus.NOT_FOUND)
        return _conditional(answer, if_none_match)

    def _product(self, number: int, path: str, query: str) -> Answer:
        shop = self._shop
        if number not in shop or shop.book(number).path != path:
            return plain(HTTPStatus.NOT_FOUND)
        fault = shop.fault(number)
        if fault in _FIXED:
            return _FIXED[fault]
        if fault is Fault.GZIP_BOMB:
            return Answer(HTTPStatus.OK, gzip_bomb(), headers=(("Content-Encoding", "gzip"),))
        if fault is Fault.REDIRECT_LOOP:
            return plain(HTTPStatus.FOUND, ("Location", "index.html" if query else "index.html?again"))
        if fault is Fault.FLAKY and self._failures[number] < _FLAKY_FAILURES:
            self._failures[number] += 1
            return plain(HTTPStatus.SERVICE_UNAVAILABLE)
        return Answer(
            HTTPStatus.OK,
            self._product_page(number, fault).encode("latin-1" if fault is Fault.WRONG_CHARSET else "utf-8", "replace"),
            delay_s=_SLOW_S if fault is Fault.SLOW else 0.0,
            cut_short=fault is Fault.CUT_SHORT,
        )

    def _product_page(self, number: int, fault: Fault | None) -> str:
        shop = self._shop
        text = spoil(pages.ProductText.of(shop.book(number)), fault)
        # The books above are those that a reader of the lists saw just before.
        viewed = [self._pod(n, pages.PRODUCT_ROOT) for n in range(number + 1, number + 1 + _VIEWED) if n in shop]
        return pages.product_page(text, viewed)

    def _list(self, path: str) -> str:
        """The list page at a path, or "" where there is none."""
        if path == "index.html":
            return self._list_page(self._shop.ids(), "All products", "", 1, pager_prefix="catalogue/")
        if match := _ALL.fullmatch(path):
            return self._list_page(self._shop.ids(), "All products", "../", int(match[1]))
        if match := _BOOKS.fullmatch(path):
            return self._list_page(self._shop.ids(), "Books", "../../../", int(match[1] or 1), is_all_books=True)
        match = _CATEGORY.fullmatch(path)
        category = int(match[2]) - pages.FIRST_CATEGORY_NUMBER if match else -1
        if match is None or not 0 <= category < len(GENRES) or GENRES[category].slug != match[1]:
            return ""
        shelf = self._shop.category_ids(category)
        if match[3] and shelf.page_count == 1:
            return ""  # a category of one page has no page-1.html
        return self._list_page(shelf, GENRES[category].name, "../../../../", int(match[3] or 1), category=category)

    def _list_page(
        self,
        listing: Listing,
        heading: str,
        root: str,
        page: int,
        *,
        category: int | None = None,
        is_all_books: bool = False,
        pager_prefix: str = "",
    ) -> str:
        if page > listing.page_count:
            return ""
        return pages.list_page(
            pages.ListText(
                heading=heading,
                root=root,
                category=category,
                is_all_books=is_all_books,
                total=len(listing),
                page=page,
                page_count=listing.page_count,
                pods=[self._pod(number, root) for number in listing.page(page)],
                pager_prefix=pager_prefix,
            )
        )


def _conditional(answer: Answer, if_none_match: str) -> Answer:
    """The answer with its ETag, or 304 where the reader has it already (RFC 9110, section 13.1.2)."""
    if answer.status is not HTTPStatus.OK or answer.cut_short:
        return answer
    etag = f'"{blake2b(answer.body, digest_size=8).hexdigest()}-{len(answer.body):x}"'
    known = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    headers = (*answer.headers, ("ETag", etag))
    if known & {etag, "*"}:
        return Answer(HTTPStatus.NOT_MODIFIED, headers=headers)
    return Answer(answer.status, answer.body, answer.content_type, headers, answer.delay_s)
