"""A bookshop of our own in the page layout of books.toscrape.com, of any size, served on loopback.

    python -m crawler.practice_shop --books 1000 --port 8765

Every page is computed from (seed, book number): no memory, no disk, and page 50,000 costs what page 1 costs.
"""

from crawler.practice_shop.books import ShopBook
from crawler.practice_shop.changes import Change
from crawler.practice_shop.faults import ENDS, End, Fault
from crawler.practice_shop.server import serving
from crawler.practice_shop.shop import Shop

__all__ = ["ENDS", "Change", "End", "Fault", "Shop", "ShopBook", "serving"]
