"""Crawls of a shop whose pages lead elsewhere, fail or say odd things: nothing vanishes, nothing is believed."""

from __future__ import annotations

import re
from collections.abc import Callable
from http import HTTPStatus

import pytest

from crawler.practice_shop import Shop
from crawler.practice_shop.site import Answer, plain
from tests.crawler.deployment import Deployment
from tests.crawler.odd_shop import OddShop, odd_shop, redirect
from tests.crawler.test_crawl import truth

pytestmark = pytest.mark.system

SHOP = Shop(60)  # three list pages
BOOKS = list(SHOP.truth())


def html(text: str) -> Answer:
    return Answer(HTTPStatus.OK, text.encode())


def path(n: int) -> str:
    """The path of the book that the lists show after n others."""
    return f"/{BOOKS[n].path}"


def test_links_and_redirects_out_of_the_shop_are_failed_pages_and_never_followed(deployment: Deployment) -> None:
    with odd_shop(SHOP) as shop, odd_shop(SHOP) as other:
        shop.replace("/index.html", f'href="{BOOKS[3].path}"', f'href="{other.address}/{BOOKS[3].path}"')
        shop.pages[path(4)] = redirect(f"{other.address}{path(4)}")
        crawl = deployment.crawl(shop.address)
        assert not other.asked  # not even its robots.txt
        assert deployment.failures() == {
            f"{other.address}{path(3)}": "foreign_host",
            f"{shop.address}{path(4)}": "foreign_host",
        }
        run = deployment.run()
        assert (run["announced"], run["seen"], run["failed_pages"]) == (60, 58, 2)
        assert crawl.code == 0


def test_book_that_moved_is_known_by_the_address_that_the_list_shows(deployment: Deployment) -> None:
    with odd_shop(SHOP) as shop:
        shop.pages[path(0)] = redirect("/new/home/of/it.html")
        shop.pages["/new/home/of/it.html"] = html(shop.page(path(0)).replace("../../media", "/media"))
        assert deployment.crawl(shop.address).code == 0
        assert deployment.books() == truth(SHOP, shop.address)
        shop.asked.clear()
        assert deployment.crawl(shop.address).code == 0
        assert deployment.run()["unchanged"] == 60


def test_book_listed_twice_is_read_once_and_the_sums_tell(deployment: Deployment) -> None:
    with odd_shop(SHOP) as shop:
        shop.replace("/catalogue/page-2.html", BOOKS[25].path.removeprefix("catalogue/"), f"..{path(2)}")
        crawl = deployment.crawl(shop.address)
        assert crawl.code == 2
        run = deployment.run()
        assert (run["announced"], run["seen"], run["failed_pages"], run["complete"]) == (60, 59, 0, False)
        assert run["warnings"] == ["sums_do_not_hold"]
        assert shop.asked[path(2)] == 1


def test_shop_that_lost_a_list_page_or_shows_no_book_delists_nothing(deployment: Deployment) -> None:
    with odd_shop(SHOP) as shop:
        assert deployment.crawl(shop.address).code == 0
        shop.pages["/catalogue/page-2.html"] = plain(HTTPStatus.NOT_FOUND)
        assert deployment.crawl(shop.address).code == 2
        run = deployment.run()
        assert (run["state"], run["seen"], run["complete"], run["delisted"]) == ("finished", 20, False, 0)
        assert set(run["warnings"]) == {"list_pages_failed", "sums_do_not_hold"}
        assert deployment.failures() == {f"{shop.address}/catalogue/page-2.html": "http_404"}

        shop.pages["/index.html"] = html(_emptied(shop.page("/index.html")))
        assert deployment.crawl(shop.address).code == 0
        run = deployment.run()
        assert (run["announced"], run["seen"], run["complete"], run["delisted"]) == (0, 0, True, 0)
        assert "delisting_withheld" in run["warnings"]
        assert deployment.books() == truth(SHOP, shop.address)


def _emptied(page: str) -> str:
    page, n = re.subn(r"<strong>60</strong> results.*?\.", "<strong>0</strong> results.", page, count=1, flags=re.S)
    page, m = re.subn(r'<ol class="row">.*?</ol>', '<ol class="row"></ol>', page, count=1, flags=re.S)
    page, k = re.subn(r'<li class="next">.*?</li>', "", page, count=1, flags=re.S)
    assert n == m == k == 1
    return page


def _disallow(shop: OddShop) -> None:
    shop.pages["/robots.txt"] = Answer(HTTPStatus.OK, b"User-agent: *\nDisallow: /\n", "text/plain")


def _set_home(answer: Answer) -> Callable[[OddShop], None]:
    return lambda shop: shop.pages.update({"/index.html": answer})


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        pytest.param(_set_home(plain(HTTPStatus.NOT_FOUND)), "http_404", id="not found"),
        pytest.param(_set_home(redirect("http://localhost:9/")), "foreign_host", id="elsewhere"),
        pytest.param(_disallow, "robots_txt", id="forbidden"),
    ],
)
def test_shop_without_its_first_page_is_a_failed_run(
    deployment: Deployment, break_it: Callable[[OddShop], None], reason: str
) -> None:
    with odd_shop(SHOP) as shop:
        break_it(shop)
        crawl = deployment.crawl(shop.address)
        assert crawl.code == 1
        assert "The crawl did not finish: The first page could not be read:" in crawl.log
        assert list(deployment.failures().values()) == [reason]
        run = deployment.run()
        assert (run["state"], run["complete"], run["seen"]) == ("failed", False, 0)


def test_robots_txt_keeps_us_from_what_it_names_alone(deployment: Deployment) -> None:
    with odd_shop(SHOP) as shop:
        rules = f"User-agent: *\nDisallow: {path(7)}\n"
        shop.pages["/robots.txt"] = Answer(HTTPStatus.OK, rules.encode(), "text/plain")
        assert deployment.crawl(shop.address).code == 0
        assert deployment.failures() == {f"{shop.address}{path(7)}": "robots_txt"}
        assert not shop.asked[path(7)]
        assert deployment.run()["seen"] == 59


def test_mistake_in_a_callback_is_a_failed_page(deployment: Deployment) -> None:
    with odd_shop(SHOP) as shop:
        crawl = deployment.crawl(shop.address, "-s", "SPIDER_MODULES=tests.crawler.careless")
        stumbled = {f"{shop.address}/{book.path}" for book in BOOKS if book.id % 10 == 0}
        assert deployment.failures() == dict.fromkeys(stumbled, "zero_division_error")
        run = deployment.run()
        assert (run["announced"], run["seen"], run["failed_pages"]) == (60, 54, 6)
        assert crawl.code == 0
        assert "ZeroDivisionError" in crawl.log  # the traceback is kept too
