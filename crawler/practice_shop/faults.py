"""Pages that misbehave: which ones, how, and how a sound crawl should end with each.

One page of every 32 numbers is bad. The kinds take turns, so that 650 books show each of them at least once.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from functools import lru_cache
from typing import Any
from zlib import MAX_WBITS, Z_FULL_FLUSH, compressobj, crc32

from crawler.practice_shop.dice import Dice
from crawler.practice_shop.pages import ProductText

_FAULT = 3
_SPACING = 32
_MIB = 1 << 20
BOMB_MIB = 256  # what the gzip bomb becomes


class Fault(StrEnum):
    """How the product page of a book misbehaves. The answer is 200 text/html where nothing else is said."""

    NOT_FOUND = "not_found"  # 404, although the lists show the book
    SERVER_ERROR = "server_error"  # 500, always
    FLAKY = "flaky"  # 503 at the first two requests since the server started, then fine
    CUT_SHORT = "cut_short"  # the connection closes before Content-Length bytes
    WRONG_CHARSET = "wrong_charset"  # Latin-1 bytes under a meta tag that says UTF-8
    BINARY = "binary"  # application/octet-stream
    JSON = "json"  # a JSON body that is called text/html
    PDF = "pdf"  # a body that begins like a PDF and is called text/html
    GZIP_BOMB = "gzip_bomb"  # some 260 KB of gzip that become 256 MiB
    REDIRECT_LOOP = "redirect_loop"  # 302 to itself, for ever
    EMPTY = "empty"  # no body at all
    SLOW = "slow"  # fine, after two seconds
    NO_UPC = "no_upc"  # a page without the row of the table
    NO_PRICE = "no_price"  # a page without any price
    NO_TITLE = "no_title"  # a page without the title, in any of its places
    NO_MAIN = "no_main"  # a page without .product_main, where a careless callback raises
    RATING_ELEVEN = "rating_eleven"  # class "star-rating Eleven"
    PRICE_NEGATIVE = "price_negative"  # every price is £-1.00
    PRICE_HUGE = "price_huge"  # every price is £999999999999.00
    STOCK_HUGE = "stock_huge"  # In stock (99999999999999999999 available)


class End(StrEnum):
    """What should become of a book."""

    FINE = "fine"  # recorded, all its fields true
    FAILED = "failed"  # a failed page: no record came of it
    REJECTED = "rejected"  # a rejected item: a record came of it, and was refused with a reason


_FAILED = (End.FAILED,)
_REJECTED = (End.REJECTED,)

#: The ends that are right for a fault; two where the line between page and record is the parser's to draw.
ENDS: dict[Fault, tuple[End, ...]] = {
    Fault.NOT_FOUND: _FAILED,
    Fault.SERVER_ERROR: _FAILED,
    Fault.FLAKY: (End.FINE,),  # with two retries or more
    Fault.CUT_SHORT: _FAILED,
    Fault.WRONG_CHARSET: (End.FAILED, End.REJECTED),
    Fault.BINARY: _FAILED,
    Fault.JSON: _FAILED,
    Fault.PDF: _FAILED,
    Fault.GZIP_BOMB: _FAILED,
    Fault.REDIRECT_LOOP: _FAILED,
    Fault.EMPTY: _FAILED,
    Fault.SLOW: (End.FINE,),
    Fault.NO_UPC: (End.FAILED, End.REJECTED),
    Fault.NO_PRICE: _REJECTED,
    Fault.NO_TITLE: _REJECTED,
    Fault.NO_MAIN: (End.FAILED, End.REJECTED),
    Fault.RATING_ELEVEN: _REJECTED,
    Fault.PRICE_NEGATIVE: _REJECTED,
    Fault.PRICE_HUGE: _REJECTED,
    Fault.STOCK_HUGE: _REJECTED,
}

_KINDS = tuple(Fault)

_SPOILED: dict[Fault | None, dict[str, Any]] = {
    Fault.NO_UPC: {"upc": None},
    Fault.NO_PRICE: {"price": None, "price_excl_tax": None, "tax": None},
    Fault.NO_TITLE: {"title": None},
    Fault.NO_MAIN: {"has_main": False},
    Fault.RATING_ELEVEN: {"rating": "Eleven"},
    Fault.PRICE_NEGATIVE: {"price": "£-1.00", "price_excl_tax": "£-1.00"},
    Fault.PRICE_HUGE: {"price": "£999999999999.00", "price_excl_tax": "£999999999999.00"},
    Fault.STOCK_HUGE: {"availability": "In stock (99999999999999999999 available)", "in_stock": True},
}


def fault_of(seed: int, number: int) -> Fault | None:
    """The fault of a book number in a shop with faults."""
    block, place = divmod(number - 1, _SPACING)
    if place != Dice(seed, block, _FAULT).roll(_SPACING):
        return None
    return _KINDS[block % len(_KINDS)]


def spoil(text: ProductText, fault: Fault | None) -> ProductText:
    """The texts of a product page with the fields missing or absurd that the fault names."""
    return replace(text, **_SPOILED[fault]) if fault in _SPOILED else text


@lru_cache(maxsize=1)
def gzip_bomb() -> bytes:
    """A gzip stream of some 260 KB that becomes BOMB_MIB MiB of blanks.

    One compressed mebibyte, flushed so that it can stand beside itself, repeated: made in the time of a single one.
    """
    blanks = b" " * _MIB
    packer = compressobj(9, wbits=-MAX_WBITS)
    block = packer.compress(blanks) + packer.flush(Z_FULL_FLUSH)
    checksum = 0
    for _ in range(BOMB_MIB):
        checksum = crc32(blanks, checksum)
    header = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff"
    trailer = checksum.to_bytes(4, "little") + (BOMB_MIB * _MIB & 0xFFFFFFFF).to_bytes(4, "little")
    return header + block * BOMB_MIB + packer.flush() + trailer
