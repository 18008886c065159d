"""The facts of a book, computed from (seed, number) alone: nothing is kept."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from crawler.practice_shop import prose
from crawler.practice_shop.dice import Dice, offset, unique
from crawler.practice_shop.shelves import Wheel
from crawler.practice_shop.words import GENRES, slugify

CURRENCY = "GBP"
LOWEST_PRICE, HIGHEST_PRICE = 500, 9999  # pence, both included
MOST_STOCK = 30

# Each group of facts has dice of its own, so that a price is known without telling the whole book.
_UPC, _PRICE, _STOCK, _LOOKS, _TEXT, _SERIES, _GENRE, _IMAGE = range(10, 18)
_SERIES_ROOM = 6  # neighbors of a category that may form one series


@dataclass(frozen=True, slots=True)
class ShopBook:
    """A book as the shop itself knows it: the truth that a crawl is compared with."""

    id: int  # the number at the end of its address, 1 and up
    upc: str  # 16 hexadecimal digits, unique in the shop
    title: str
    series: str  # "" when it belongs to none
    series_number: int  # 0 when it belongs to none
    authors: tuple[str, ...]  # empty where the page does not name them
    category: str
    category_number: int  # 0-49, its place in GENRES
    price: Decimal  # pounds, what the buyer pays: price_excl_tax + tax; 5.00-99.99
    price_excl_tax: Decimal
    tax: Decimal
    rating: int  # stars, 1-5
    stock: int  # copies, 0-30
    review_count: int
    description: str  # clean text: NFC, single blanks; "" when the page has none
    description_raw: str  # as the page holds it: perhaps a teaser before, "...more" behind, NBSP within
    image: str  # path from the root of the site, "media/cache/ab/cd/abcd....jpg"
    thumbnail: str  # another path, on list pages
    path: str  # of its page, from the root of the site: "catalogue/the-quiet-river_12/index.html"

    @property
    def in_stock(self) -> bool:
        return self.stock > 0

    @property
    def availability(self) -> str:
        """As the product page words it."""
        return f"{'In stock' if self.in_stock else 'Out of stock'} ({self.stock} available)"


def price_pence(seed: int, number: int) -> int:
    return LOWEST_PRICE + Dice(seed, number, _PRICE).roll(HIGHEST_PRICE - LOWEST_PRICE + 1)


def stock_copies(seed: int, number: int) -> int:
    """Copies, 0-30; a tenth of the books is out of stock."""
    dice = Dice(seed, number, _STOCK)
    return 0 if dice.chance(10) else dice.roll(MOST_STOCK) + 1


def tell(seed: int, wheel: Wheel, number: int, pence: int, stock: int) -> ShopBook:
    """The book of a number at its present price and stock."""
    category, index = wheel.place(number)
    genre = GENRES[category]
    genre_key = offset(seed, category, _GENRE)

    shelf = Dice(seed, category, index // _SERIES_ROOM, _SERIES)
    in_series = index % _SERIES_ROOM < (shelf.roll(_SERIES_ROOM - 1) + 2 if shelf.chance(30) else 0)
    text = Dice(seed, number, _TEXT)
    scene = prose.setting(genre_key, shelf if in_series else text)
    series = prose.series_name(genre, scene, shelf) if in_series else ""
    series_number = index % _SERIES_ROOM + 1 if in_series else 0

    name = prose.title(genre, scene, text)
    title = f"{name} ({series} #{series_number})" if in_series else name
    signed = text.chance(35)
    description = "" if text.chance(2) else prose.description(genre, scene, series or f"“{name}”", signed, text)
    looks = Dice(seed, number, _LOOKS)
    price_excl_tax = _before_tax(pence, looks.pick((0, 0, 0, 5, 20)))
    return ShopBook(
        id=number,
        upc=f"{unique(offset(seed, _UPC), number):016x}",
        title=title,
        series=series,
        series_number=series_number,
        authors=(scene.author,) if signed and description else (),
        category=genre.name,
        category_number=category,
        price=_pounds(pence),
        price_excl_tax=_pounds(price_excl_tax),
        tax=_pounds(pence - price_excl_tax),
        rating=looks.roll(5) + 1,
        stock=stock,
        review_count=0 if looks.chance(40) else looks.roll(1 + looks.roll(400)),
        description=description,
        description_raw=_as_printed(description, looks),
        image=_image(seed, number, 0),
        thumbnail=_image(seed, number, 1),
        path=f"catalogue/{slugify(title)}_{number}/index.html",
    )


def _pounds(pence: int) -> Decimal:
    return Decimal(pence).scaleb(-2)


def _before_tax(pence: int, percent: int) -> int:
    return (pence * 200 + 100 + percent) // (2 * (100 + percent))  # rounded to the nearest penny


def _image(seed: int, number: int, kind: int) -> str:
    left, right = (unique(offset(seed, _IMAGE, kind, half), number) for half in (0, 1))
    name = f"{left:016x}{right:016x}"
    return f"media/cache/{name[:2]}/{name[2:4]}/{name}.jpg"


def _as_printed(text: str, dice: Dice) -> str:
    """The text with the habits of the real shop's pages.

    Most begin with a teaser of themselves, cut anywhere, and end in "...more"; some hold no-break spaces.
    """
    if not text:
        return ""
    if dice.chance(12):
        text = text.replace(". ", ".\u00a0 ", 1).replace(" the ", " the\u00a0", 2)
    if dice.chance(70):
        cut = min(120 + dice.roll(240), len(text) - 20)
        text = f"{text[:cut]} {text} ...more"
    return text
