"""What the shop's pages say: HTML in, raw records out. No network, no clock, no judgement.

A page that is not what was asked for is an error here. A field that is not on the page is not: it becomes "", and
cleaning refuses the record with a reason for each field, so that a person can read what was wrong with it.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urljoin

from lxml import etree  # type: ignore[import-untyped]  # it ships no types
from parsel import css2xpath

from catalog.records import ScrapedBook

#: Moves whenever the same page gives another record, so that unchanged pages are read again.
PARSER_VERSION = 1


class PageError(Exception):
    """The page cannot be read."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or (type(self).__doc__ or "").partition("\n")[0])


class WrongCharset(PageError):
    """The page is not UTF-8, which is what it says it is."""


class CutShort(PageError):
    """The page ends before its closing </html>: it was cut short on the way."""


class NotABookPage(PageError):
    """The page is not about a book."""


class NotAListing(PageError):
    """The page is not a list of books."""


@dataclass(frozen=True, slots=True)
class CategoryLink:
    """A category in the sidebar of a list page."""

    name: str
    url: str  # absolute


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of a list of books: the whole shop or a category."""

    book_urls: tuple[str, ...]  # absolute, in the order of the page, each once
    next_url: str | None  # absolute; None on the last page
    announced: int | None  # books in the whole list, as the page says; None where it does not
    categories: tuple[CategoryLink, ...]  # without the root that holds all books


def parse_book(html: str | bytes, url: str, *, shop: str, scraped_at: datetime, etag: str = "") -> ScrapedBook:
    """The record of a product page, its text decoded but otherwise as it stands there.

    Give the bytes where they are at hand: a wrong charset shows in them, and is lost in text that was decoded
    leniently. `url` is the address of the page, which relative links are read against.

    Raises:
        NotABookPage: there is no product on the page, or its table is missing.
        CutShort: the page ends in the middle.
        WrongCharset: the bytes are not UTF-8.
    """
    source, root = _read(html, NotABookPage)
    # Everything is looked up below the product's own blocks. "Products you recently viewed" stands in the same
    # article and holds up to six prices, ratings, pictures and availabilities of other books.
    article = _first(_ARTICLE(root))
    main = None if article is None else _first(_MAIN(article))
    if main is None:
        raise NotABookPage("The page is not about a book: it has no .product_main.")
    table = _first(_TABLE(article))
    if table is None:
        raise NotABookPage("The page is not about a book: it has no table of product information.")
    _refuse_cut_short(source)

    facts = _facts(table)
    return ScrapedBook(
        shop=shop,
        source_url=url,
        scraped_at=scraped_at,
        upc=facts.get("upc", ""),
        title=_text(_TITLE(main)),
        description=_text(_DESCRIPTION(article)),
        category=_text(_CATEGORY(root)),
        # The table says which of its prices is the one with tax; .price_color does not.
        price=facts.get("price (incl. tax)", "") or _text(_PRICE(main)),
        price_excl_tax=facts.get("price (excl. tax)", ""),
        tax=facts.get("tax", ""),
        rating=_rating(_RATING(main)),
        availability=facts.get("availability", "") or _text(_AVAILABILITY(main)),
        review_count=facts.get("number of reviews", ""),
        product_type=facts.get("product type", ""),
        image_url=_absolute(url, _first(_IMAGE(article))) or "",
        etag=etag,
        parser_version=PARSER_VERSION,
    )


def parse_listing(html: str | bytes, url: str) -> Listing:
    """The links of a list page and how many books it announces.

    Raises:
        NotAListing: the page has neither a count of results nor a list.
        CutShort: the page ends in the middle.
        WrongCharset: the bytes are not UTF-8.
    """
    source, root = _read(html, NotAListing)
    count = _first(_COUNT_FORM(root))
    rows = _first(_ROWS(root))
    if count is None and rows is None:
        raise NotAListing("The page is not a list of books: it has neither a count of results nor ol.row.")
    _refuse_cut_short(source)

    book_urls = [] if rows is None else [_absolute(url, href) for href in _BOOK_LINKS(rows)]
    categories = [
        CategoryLink(_visible(_string(link)), address)
        for link in _CATEGORY_LINKS(root)
        if (address := _absolute(url, link.get("href"))) is not None
    ]
    return Listing(
        book_urls=tuple(dict.fromkeys(book_url for book_url in book_urls if book_url is not None)),
        next_url=_absolute(url, _first(_NEXT(root))),
        announced=None if count is None else _announced(_text(_COUNT(count))),
        categories=tuple(categories),
    )


# -- reading --------------------------------------------------------------------------------------------------------

#: What markup is indented with. Other white space (a no-break space, U+2028) is the shop's text and stays in it.
_INDENT = " \t\n\r\f"

_CLOSING_TAG = re.compile(rb"</html\s*>", re.IGNORECASE)
_AFTERWORD = 4096  # bytes after </html> that a shop may add, comments of a cache for example
_COUNT_TEXT = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,18}")


def _read(html: str | bytes, error: type[PageError]) -> tuple[bytes, etree._Element]:
    """The page as UTF-8 and its tree."""
    try:
        source = html if isinstance(html, bytes) else html.encode("utf-8")
        source.decode("utf-8")
    except UnicodeError as problem:
        # A page may be cut in the middle of a character; what stands before it is read, and found to lack its end.
        if not isinstance(problem, UnicodeDecodeError) or problem.reason != "unexpected end of data":
            raise WrongCharset(f"The page is not UTF-8, which is what it says it is: {_reason(problem)}.") from None
        source = problem.object[: problem.start]
    source = source.removeprefix(codecs.BOM_UTF8)
    if b"<" not in source:
        raise error("The page is empty." if not source.strip() else "The page is not HTML: it has no tag.")
    # HTML knows no NUL, and libxml2 would take it for the end of the page.
    try:
        root = etree.fromstring(source.replace(b"\0", b""), _parser())
    except etree.LxmlError:
        root = None
    if root is None:
        raise error("The page is not HTML: it has no element.")
    return source, root


def _reason(problem: UnicodeError) -> str:
    return f"{problem.reason} at {problem.start}" if isinstance(problem, UnicodeDecodeError) else str(problem)


def _parser() -> etree.HTMLParser:
    # A parser of its own for each page costs 5 us and keeps threads from waiting for each other's lock.
    return etree.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True)


def _refuse_cut_short(source: bytes) -> None:
    # A connection that breaks gives a page that parsers mend in silence: half a description, or ten books of twenty,
    # look like a whole one. Only the end of a page tells that nothing is missing, and the end is </html>, which HTML
    # lets authors leave out but which every page of this shop has.
    if not _CLOSING_TAG.search(source, max(0, len(source) - _AFTERWORD)):
        raise CutShort


def _css(selector: str, tail: str = "", axis: str = "descendant::") -> Callable[[Any], list[Any]]:
    """A lookup below an element, compiled once. `axis` "child::" asks for the selector's first part directly below."""
    path = css2xpath(selector).replace("descendant-or-self::", axis, 1)
    lookup: Callable[[Any], list[Any]] = etree.XPath(path + tail, smart_strings=False)
    return lookup


_ARTICLE = _css("article.product_page")
_MAIN = _css("div > div.product_main", axis="child::")
_TABLE = _css("table.table-striped", axis="child::")
_TITLE = _css("h1", axis="child::")
_PRICE = _css("p.price_color", axis="child::")
_AVAILABILITY = _css("p.availability", axis="child::")
_RATING = _css("p.star-rating", "/@class", axis="child::")
_DESCRIPTION = _css("#product_description + p", axis="child::")
_IMAGE = _css("div > div > #product_gallery .item img", "/@src", axis="child::")
_CATEGORY = _css("ul.breadcrumb", "/li[3]/a")

_COUNT_FORM = _css("form.form-horizontal")
_COUNT = _css("strong")
_ROWS = _css("ol.row")
_BOOK_LINKS = _css("article.product_pod h3 > a", "/@href")
_NEXT = _css("ul.pager > li.next > a", "/@href")
# The inner list stands inside the root's item; its own items are closed oddly, so they are sought at any depth.
_CATEGORY_LINKS = _css("div.side_categories ul ul li > a")


def _first(found: list[Any]) -> Any:
    return found[0] if found else None


def _string(element: etree._Element) -> str:
    return "".join(element.itertext())


def _text(found: list[Any]) -> str:
    """The text of the first element found, without the indentation of the markup; "" when there is none."""
    return _string(found[0]).strip(_INDENT) if found else ""


def _visible(text: str) -> str:
    return " ".join(text.split())


def _facts(table: etree._Element) -> dict[str, str]:
    """The rows of the product table by their heading in lower case."""
    facts: dict[str, str] = {}
    for row in table.iter("tr"):
        heading, value = row.find("th"), row.find("td")
        if heading is not None and value is not None:
            facts.setdefault(_visible(_string(heading)).lower(), _string(value).strip(_INDENT))
    return facts


def _rating(found: list[str]) -> str:
    """The word beside "star-rating" in the class: the five stars are always there, the style sheet colors them."""
    return next((word for word in _first(found).split() if word != "star-rating"), "") if found else ""


def _announced(text: str) -> int | None:
    return int(text.replace(",", "")) if _COUNT_TEXT.fullmatch(text) else None


def _absolute(url: str, href: str | None) -> str | None:
    """The address a link leads to; None for what cannot be fetched (javascript:, a broken host, no link at all)."""
    if not href:
        return None
    try:
        address = urljoin(url, href.strip(_INDENT))
    except ValueError:
        return None
    return address if address.startswith(("http://", "https://")) else None
