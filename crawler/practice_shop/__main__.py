"""The practice shop on loopback; its first line on stdout is its address."""

from __future__ import annotations

import argparse
import asyncio
import sys
from functools import partial

from crawler.practice_shop.server import serve
from crawler.practice_shop.shop import MOST_BOOKS, Shop


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m crawler.practice_shop",
        description="Serve a bookshop of our own on 127.0.0.1, in the page layout of books.toscrape.com.",
    )
    parser.add_argument("--books", type=int, default=1000, metavar="N", help=f"1-{MOST_BOOKS:,} (default 1000)")
    parser.add_argument("--port", type=int, default=8765, metavar="P", help="0 takes a free one (default 8765)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="another seed, another shop (default 1)")
    parser.add_argument("--changes", type=int, default=0, metavar="K", help="the shop after its first K changes")
    parser.add_argument("--faults", action="store_true", help="let some product pages misbehave")
    options = parser.parse_args()
    try:
        shop = Shop(options.books, options.seed, options.changes, options.faults)
    except ValueError as error:
        parser.error(str(error))
    try:
        asyncio.run(serve(shop, options.port, partial(print, flush=True)))
    except (OSError, OverflowError) as error:
        print(f"cannot serve on port {options.port}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
