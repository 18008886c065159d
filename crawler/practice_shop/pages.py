"""The HTML of the shop: the layout of books.toscrape.com in words of our own.

Structure, class names and traps are those of the real pages: blank lines before the doctype, padded texts, a sidebar
of fifty categories, other books' prices under "Products you recently viewed", relative links everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape

from crawler.practice_shop.books import ShopBook
from crawler.practice_shop.shelves import PAGE_SIZE
from crawler.practice_shop.words import GENRES

SHOP_NAME = "Practice Shop"
_NOTICE = "This shop exists for practice: its books were never written, and nothing here is for sale."
_RATINGS = ("Zero", "One", "Two", "Three", "Four", "Five")
FIRST_CATEGORY_NUMBER = 2  # "Books" itself is 1
PRODUCT_ROOT = "../../"  # the way from a product page to the root of the site
BOOKS_PATH = "catalogue/category/books_1/"


@dataclass(frozen=True, slots=True)
class ProductText:
    """What stands on a product page, word for word; None leaves the place out."""

    upc: str | None
    title: str | None
    category: int
    price: str | None
    price_excl_tax: str | None
    tax: str | None
    rating: str
    availability: str
    in_stock: bool
    review_count: int
    description: str
    image: str
    path: str
    has_main: bool = True

    @classmethod
    def of(cls, book: ShopBook) -> ProductText:
        return cls(
            upc=book.upc,
            title=book.title,
            category=book.category_number,
            price=f"£{book.price}",
            price_excl_tax=f"£{book.price_excl_tax}",
            tax=f"£{book.tax}",
            rating=_RATINGS[book.rating],
            availability=book.availability,
            in_stock=book.in_stock,
            review_count=book.review_count,
            description=book.description_raw,
            image=book.image,
            path=book.path,
        )


@dataclass(frozen=True, slots=True)
class ListText:
    """What a list page shows and where it stands."""

    heading: str
    root: str  # the way to the root of the site: "../../../../"
    category: int | None  # 0-49; None is not a category
    is_all_books: bool  # the category "Books", which holds every book
    total: int
    page: int
    page_count: int
    pods: Sequence[str]
    pager_prefix: str = ""  # the way from this page to its page-N.html


def category_path(category: int) -> str:
    """From the root of the site, with the slash at its end: "catalogue/category/books/travel_2/"."""
    return f"catalogue/category/books/{GENRES[category].slug}_{category + FIRST_CATEGORY_NUMBER}/"


def product_page(text: ProductText, viewed: Sequence[str]) -> str:
    """The page of one book; `viewed` are the pods of the trap at its foot."""
    root = PRODUCT_ROOT
    title = escape(text.title or "")
    trail = f"""
        <li>
            <a href="{root}{BOOKS_PATH}index.html">Books</a>
        </li>

        <li>
            <a href="{root}{category_path(text.category)}index.html">{escape(GENRES[text.category].name)}</a>
        </li>

        <li class="active">{title}</li>
"""
    return f"""{_top(root, f"{title} | {SHOP_NAME}", escape(text.description))}
    <div class="container-fluid page">
        <div class="page_inner">
{_breadcrumb(root, trail)}
            <div id="messages">

            </div>

            <div class="content">
                <div id="promotions">

                </div>

                <div id="content_inner">

<article class="product_page"><!-- Start of product page -->

    <div class="row">

        <div class="col-sm-6">
            <div id="product_gallery" class="carousel">
                <div class="thumbnail">
                    <div class="carousel-inner">
                        <div class="item active">

                            <img src="{root}{text.image}" alt="{title}" />

                        </div>
                    </div>
                </div>
            </div>
        </div>
{_main(text, title) if text.has_main else ""}
    </div><!-- /row -->
{_description(text.description)}
    <div class="sub-header">
        <h2>Product Information</h2>
    </div>
    <table class="table table-striped">
{_table(text)}
    </table>

        <section>
            <div id="reviews" class="sub-header">
            </div>
        </section>

{_recently_viewed(viewed)}
</article><!-- End of product page -->
                </div>
            </div>
        </div>
    </div>
{_bottom(root)}"""


def list_page(text: ListText) -> str:
    """A page of a list of books: of the whole shop, of "Books", or of a category."""
    heading = escape(text.heading)
    in_category = text.is_all_books or text.category is not None
    title = f"{heading} | \n     {SHOP_NAME}\n" if in_category else f"{heading} | {SHOP_NAME}"
    books_item = f"""
            <li>
                <a href="{text.root}{BOOKS_PATH}index.html">Books</a>
            </li>
"""
    trail = f"""{books_item if text.category is not None else ""}
        <li class="active">{heading}</li>
"""
    items = "".join(
        f"""
                    <li class="col-xs-6 col-sm-4 col-md-3 col-lg-3">
{pod}
</li>
"""
        for pod in text.pods
    )
    return f"""{_top(text.root, title, "")}
<div class="container-fluid page">
    <div class="page_inner">
{_breadcrumb(text.root, trail)}
        <div class="row">

            <aside class="sidebar col-sm-4 col-md-3">

                <div id="promotions_left">

                </div>
{_sidebar(text.root, text.category, text.is_all_books)}
            </aside>

            <div class="col-sm-8 col-md-9">

                <div class="page-header action">
                    <h1>{heading}</h1>
                </div>

                <div id="messages">

                </div>

                <div id="promotions">

                </div>

    <form method="get" class="form-horizontal">

        <div style="display:none">

        </div>

                    {_count(text)}

    </form>

        <section>
            <div class="alert alert-warning" role="alert"><strong>Please note!</strong> {_NOTICE}</div>

            <div>
                <ol class="row">
{items}
                </ol>
{_pager(text)}
            </div>
        </section>

            </div>

        </div><!-- /row -->
    </div><!-- /page_inner -->
</div><!-- /container-fluid -->
{_bottom(text.root)}"""


def _top(root: str, title: str, description: str) -> str:
    blank_lines = "\n\n" if root else ""  # every page but the home page begins with two
    return f"""{blank_lines}<!DOCTYPE html>
<!--[if lt IE 9]>      <html lang="en-us" class="no-js lt-ie9"> <![endif]-->
<!--[if gt IE 8]><!--> <html lang="en-us" class="no-js"> <!--<![endif]-->
    <head>
        <title>
    {title}
</title>

        <meta http-equiv="content-type" content="text/html; charset=UTF-8" />
        <meta name="created" content="1st Jan 2024 09:00" />
        <meta name="description" content="
    {description}
" />
        <meta name="viewport" content="width=device-width" />
        <meta name="robots" content="NOARCHIVE,NOCACHE" />

        <link rel="shortcut icon" href="{root}static/oscar/favicon.ico" />
        <link rel="stylesheet" type="text/css" href="{root}static/oscar/css/styles.css" />
    </head>

    <body id="default" class="default">

    <header class="header container-fluid">
        <div class="page_inner">
            <div class="row">
                <div class="col-sm-8 h1"><a href="{root}index.html">{SHOP_NAME}</a><small> Read us freely.</small>
</div>
            </div>
        </div>
    </header>
"""


def _bottom(root: str) -> str:
    return f"""
<footer class="footer container-fluid">

</footer>

        <script src="{root}static/oscar/js/oscar/ui.js" type="text/javascript" charset="utf-8"></script>
    </body>
</html>
"""


def _breadcrumb(root: str, trail: str) -> str:
    return f"""
<ul class="breadcrumb">
    <li>
        <a href="{root}index.html">Home</a>
    </li>
{trail}
</ul>
"""


@lru_cache(maxsize=256)
def _sidebar(root: str, current: int | None, is_all_books: bool) -> str:
    def entry(path: str, name: str, is_current: bool) -> str:
        text = f"<strong>{escape(name)}</strong>" if is_current else escape(name)
        return f"""
                    <li>
                        <a href="{root}{path}index.html">

                                {text}

                        </a>
"""

    categories = "".join(
        entry(category_path(n), genre.name, n == current) + "\n                        </li>\n"
        for n, genre in enumerate(GENRES)
    )
    return f"""
        <div class="side_categories">
            <ul class="nav nav-list">
{entry(BOOKS_PATH, "Books", is_all_books)}
                        <ul>
{categories}
                            </ul></li>

            </ul>
        </div>
"""


def _count(text: ListText) -> str:
    total = f"<strong>{text.total}</strong> result{'' if text.total == 1 else 's'}"
    if text.page_count == 1:
        return f"{total}."
    first = (text.page - 1) * PAGE_SIZE + 1
    last = first + len(text.pods) - 1
    return f"{total} - showing <strong>{first}</strong> to <strong>{last}</strong>."


def _pager(text: ListText) -> str:
    if text.page_count == 1:
        return ""

    def step(name: str, page: int) -> str:
        if not 1 <= page <= text.page_count:
            return ""
        return f"""
                <li class="{name}"><a href="{text.pager_prefix}page-{page}.html">{name}</a></li>
"""

    return f"""
    <div>
        <ul class="pager">
{step("previous", text.page - 1)}
            <li class="current">

                Page {text.page} of {text.page_count}

            </li>
{step("next", text.page + 1)}
        </ul>
    </div>
"""


def pod(book: ShopBook, root: str) -> str:
    """A book as lists and the trap show it."""
    link = f"{root}{book.path}"
    title = escape(book.title)
    return f"""
    <article class="product_pod">

            <div class="image_container">

                    <a href="{link}"><img src="{root}{book.thumbnail}" alt="{title}" class="thumbnail"></a>

            </div>

{_stars(_RATINGS[book.rating])}</p>

            <h3><a href="{link}" title="{title}">{escape(_first_words(book.title))}</a></h3>

            <div class="product_price">

        <p class="price_color">£{book.price}</p>

{_availability(book.in_stock, "In stock" if book.in_stock else "Out of stock")}

    <form>
        <button type="submit" class="btn btn-primary btn-block" data-loading-text="Adding...">Add to basket</button>
    </form>

            </div>

    </article>
"""


def _first_words(title: str) -> str:
    words = title.split()
    return title if len(words) <= 4 else " ".join(words[:4]) + " ..."


def _stars(rating: str) -> str:
    star = '\n        <i class="icon-star"></i>'
    return f'    <p class="star-rating {rating}">{star * 5}\n'


def _availability(in_stock: bool, text: str) -> str:
    kind, icon = ("instock", "ok") if in_stock else ("outofstock", "remove")
    return f"""<p class="{kind} availability">
    <i class="icon-{icon}"></i>

        {text}

</p>"""


def _main(text: ProductText, title: str) -> str:
    price = "" if text.price is None else f'<p class="price_color">{text.price}</p>'
    reviews = text.path.removesuffix("index.html") + "reviews/"
    return f"""
        <div class="col-sm-6 product_main">

            {"" if text.title is None else f"<h1>{title}</h1>"}

        {price}

{_availability(text.in_stock, text.availability)}

{_stars(text.rating)}
        <!-- <small><a href="/{reviews}">

                    {text.review_count} customer reviews

        </a></small>
         -->&nbsp;

<!--
    <a id="write_review" href="/{reviews}add/#addreview" class="btn btn-success btn-sm">
        Write a review
    </a>

 --></p>

            <hr/>

            <div class="alert alert-warning" role="alert"><strong>Please note!</strong> {_NOTICE}</div>

        </div><!-- /col-sm-6 -->
"""


def _description(text: str) -> str:
    if not text:
        return ""
    return f"""
        <div id="product_description" class="sub-header">
            <h2>Product Description</h2>
        </div>
        <p>{escape(text, quote=False)}</p>
"""


def _table(text: ProductText) -> str:
    rows = (
        ("UPC", text.upc),
        ("Product Type", "Books"),
        ("Price (excl. tax)", text.price_excl_tax),
        ("Price (incl. tax)", text.price),
        ("Tax", text.tax),
        ("Availability", text.availability),
        ("Number of reviews", str(text.review_count)),
    )
    return "".join(
        f"""
        <tr>
            <th>{name}</th><td>{value}</td>
        </tr>
"""
        for name, value in rows
        if value is not None
    )


def _recently_viewed(viewed: Sequence[str]) -> str:
    if not viewed:
        return ""
    items = "".join(
        f"""
                <li class="col-xs-6 col-sm-4 col-md-3 col-lg-3">
{pod}
</li>
"""
        for pod in viewed
    )
    return f"""
        <div class="sub-header">
            <h2>Products you recently viewed</h2>
        </div>

        <ul class="row">
{items}
        </ul>
"""
