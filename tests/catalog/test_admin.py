"""The administration site as its people use it: through its pages, and the forms that stand on them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from parsel import Selector

from catalog import curation
from catalog.ingest import PageFailure, record_failed_pages, record_rejected_line
from catalog.models import Book, Category, Change, CrawlRun, FailedPage, Prediction, RejectedItem
from catalog.revision import current_revision, writing
from tests.catalog.crawled import crawl, crawled, scraped

pytestmark = pytest.mark.django_db

BOOKS = "/admin/catalog/book/"
MODELS = [*apps.get_app_config("catalog").get_models(), *apps.get_app_config("bookapi").get_models()]


def logged_in(name: str, *permissions: str, **facts: Any) -> Client:
    user = User.objects.create_user(name, is_staff=True, **facts)
    codenames = [permission.split(".")[1] for permission in permissions]
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def curator() -> Client:
    """May view everything of the catalogue and change what people may change."""
    views = [f"catalog.view_{model._meta.model_name}" for model in apps.get_app_config("catalog").get_models()]
    return logged_in("ada", *views, "catalog.change_book", "catalog.change_category", "catalog.change_rejecteditem")


@pytest.fixture
def viewer() -> Client:
    return logged_in("vera", "catalog.view_book", "catalog.view_rejecteditem", "catalog.view_category")


@pytest.fixture
def superuser() -> Client:
    return logged_in("root", is_superuser=True)


@pytest.fixture(autouse=True)
def _no_cache() -> Iterator[None]:
    cache.clear()
    yield
    cache.clear()


def page_of(book: Book) -> str:
    return f"{BOOKS}{book.pk}/change/"


def get(client: Client, path: str, **query: Any) -> Selector:
    answer = client.get(path, query)
    assert answer.status_code == 200, (path, query, answer.status_code)
    return Selector(answer.content.decode())


def form_of(page: Selector, form_id: str) -> dict[str, Any]:
    """What a browser would send if nobody touched the form: its fields, without its buttons."""
    form = page.css(f"form#{form_id}")
    fields: dict[str, Any] = {}
    for field in form.css("input[name]:not([type=submit]):not([type=checkbox]), textarea[name], select[name]"):
        name = field.attrib["name"]
        if field.root.tag == "textarea":
            text = "".join(field.css("::text").getall()).removeprefix("\n").removeprefix("\r\n")
            fields[name] = text.replace("\r\n", "\n").replace("\n", "\r\n")
        elif field.root.tag == "select":
            fields[name] = field.css("option[selected]::attr(value)").get("")
        else:
            fields[name] = field.attrib.get("value", "")
    return fields


def save(client: Client, book: Book, page: Selector | None = None, **values: Any) -> Selector:
    """The page after the form was sent with these values changed, and what it says."""
    page = page or get(client, page_of(book))
    answer = client.post(page_of(book), {**form_of(page, "book_form"), **values}, follow=True)
    assert answer.status_code == 200
    return Selector(answer.content.decode())


def act(client: Client, action: str, *rows: Any, path: str = BOOKS, **values: Any) -> Selector:
    data = {"action": action, "_selected_action": [row.pk for row in rows], "index": 0, **values}
    answer = client.post(path, data, follow=True)
    assert answer.status_code == 200
    return Selector(answer.content.decode())


def text_of(page: Selector) -> str:
    return " ".join(" ".join(page.css("#main *::text").getall()).split())


# -- who may what -----------------------------------------------------------------------------------------------------


def test_every_model_is_registered_and_can_be_searched() -> None:
    for model in MODELS:
        assert model in admin.site._registry
        assert admin.site._registry[model].search_fields


def test_readers_and_strangers_are_sent_to_the_login() -> None:
    book = crawled("a")
    reader = Client()
    reader.force_login(User.objects.create_user("reader"))
    for client in (Client(), reader):
        for path in ("/admin/", BOOKS, page_of(book), "/admin/catalog/crawlrun/"):
            answer = client.get(path)
            assert answer.status_code == 302
            assert answer["Location"].startswith("/admin/login/")


def test_nobody_adds_or_deletes_or_writes_facts_by_hand(superuser: Client) -> None:
    run = crawl(scraped("a"), scraped("b", price="cheap"))
    book, item = Book.objects.get(upc="a"), RejectedItem.objects.get()
    for model in apps.get_app_config("catalog").get_models():
        assert superuser.get(reverse(f"admin:catalog_{model._meta.model_name}_add")).status_code == 403
    for row in (book, item, run, book.category, book.source, Change.objects.get()):
        name = row._meta.model_name
        assert (
            superuser.post(reverse(f"admin:catalog_{name}_delete", args=[row.pk]), {"post": "yes"}).status_code == 403
        )
    for row in (item, run, book.source, Change.objects.get()):
        name = row._meta.model_name
        assert superuser.post(reverse(f"admin:catalog_{name}_change", args=[row.pk]), {"upc": "x"}).status_code == 403
    assert not act(superuser, "delete_selected", book).css(".delete-selected-confirmation")
    assert Book.objects.filter(pk=book.pk).exists()


def test_a_viewer_reads_a_book_and_changes_nothing(viewer: Client) -> None:
    book = crawled("a")
    curation.edit_book(book.pk, {"title": "Mine"})
    page = get(viewer, page_of(book))
    assert "A Light in the Attic" in text_of(page)  # what the shop says
    assert not page.css("[name=title], [name=_save]:not([aria-hidden]), [name=_give_back]")
    assert viewer.post(page_of(book), {"title": "Theirs"}).status_code == 403
    act(viewer, "hide", book)
    act(viewer, "merge", book, crawled("b"), survivor=book.pk)
    item = RejectedItem.objects.create(
        run=CrawlRun.objects.first(), reference="x", page=1, raw={}, errors=[], scraped_at=book.updated_at
    )
    act(viewer, "dismiss", item, path="/admin/catalog/rejecteditem/")
    book.refresh_from_db()
    item.refresh_from_db()
    assert (book.title, book.hidden, item.state) == ("Mine", False, "open")
    assert not Book.objects.filter(merged_into__isnull=False).exists()


# -- correcting a book ------------------------------------------------------------------------------------------------


def test_a_correction_is_saved_locked_told_to_readers_and_survives_the_next_crawl(curator: Client) -> None:
    book = crawled("a")
    before = current_revision()
    page = save(curator, book, title="A Light in the Attic!", price="12.5", _continue="1")
    assert "was changed successfully" in text_of(page)
    assert "The shop says: A Light in the Attic" in text_of(page)
    assert page.css("button[name=_give_back]::attr(value)").getall() == ["title", "price"]
    assert current_revision() == before + 1
    crawl(scraped("a", day=1, title="Shouted", price="£9.00", price_excl_tax="£9.00", rating="Five"))
    book.refresh_from_db()
    assert (book.title, book.price, book.rating) == ("A Light in the Attic!", Decimal("12.50"), 5)
    assert "The shop says: Shouted" in text_of(get(curator, page_of(book)))
    entry = LogEntry.objects.get()
    assert "A Light in the Attic → A Light in the Attic!" in entry.get_change_message()
    assert "51.77 → 12.50" in entry.get_change_message()


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"description": 'Line one\nline two  "quoted" & <b>bold</b> \u00a0 end'},
        {"title": "<script>alert(1)</script>", "image_url": "https://x.example/a?b=1&c='\"", "product_type": ""},
        {"authors": ("Böll, Heinrich", "O'Neill & Sons"), "description": "", "availability": "Sold out"},
    ],
)
def test_a_form_that_nobody_touched_changes_nothing(curator: Client, facts: dict[str, Any]) -> None:
    book = crawled("a", **facts)
    before = current_revision()
    save(curator, book)
    unchanged = Book.objects.get(pk=book.pk)
    assert unchanged.locked_fields == []
    assert {f.name: getattr(unchanged, f.attname) for f in Book._meta.fields} == {
        f.name: getattr(book, f.attname) for f in Book._meta.fields
    }
    assert current_revision() == before


def test_what_a_crawl_wrote_while_the_form_was_open_is_kept(curator: Client) -> None:
    book = crawled("a")
    page = get(curator, page_of(book))
    crawl(scraped("a", day=1, price="£9.00", price_excl_tax="£9.00", description="New.", category="Travel"))
    save(curator, book, page, title="Mine")
    book.refresh_from_db()
    assert (book.title, book.price, book.description, book.category.name) == ("Mine", Decimal("9"), "New.", "Travel")
    assert book.locked_fields == ["title"]


def test_a_curator_is_told_when_her_edit_overtook_another(curator: Client) -> None:
    book = crawled("a")
    page = get(curator, page_of(book))
    crawl(scraped("a", day=1, price="£9.00", price_excl_tax="£9.00"))
    after = save(curator, book, page, price="8.00")
    assert "Price had changed to “9.00” since you opened the page; yours stands." in text_of(after)
    book.refresh_from_db()
    assert book.price == Decimal("8.00")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("title", ""),
        ("price", "-1"),
        ("price", "1e99"),
        ("price", "cheap"),
        ("rating", "6"),
        ("stock", "99999999999999999999"),
        ("currency", "pound"),
        ("image_url", "javascript:alert(1)"),
        ("category", "999999"),
        ("authors", "x" * 201),
        ("title", "nul \0"),
        ("seen", "not json"),
        ("seen", "[]"),
    ],
)
def test_a_value_that_does_not_fit_is_shown_again_with_the_reason(curator: Client, field: str, value: str) -> None:
    book = crawled("a")
    before = current_revision()
    page = save(curator, book, **{"description": "Mine.", field: value})
    assert page.css(".errorlist, .errornote")
    book.refresh_from_db()
    assert (book.description, book.locked_fields, current_revision()) == ("Poems.", [], before)


def test_a_field_is_given_back_with_one_click_and_nothing_else_that_was_typed_is_lost(curator: Client) -> None:
    book = crawled("a")
    curation.edit_book(book.pk, {"price": Decimal("1.00"), "title": "Mine"})
    page = save(curator, book, price="not even a number", product_type="Paperback", _give_back="price")
    book.refresh_from_db()
    assert (book.price, book.product_type, book.locked_fields) == (
        Decimal("51.77"),
        "Paperback",
        ["product_type", "title"],
    )
    assert page.css("#book_form"), "the curator stays on the page"
    assert page.css("button[name=_give_back]::attr(value)").getall() == ["title", "product_type"]
    assert "price: given back to the shop" in LogEntry.objects.latest("id").get_change_message()


def test_giving_back_what_is_not_locked_does_nothing(curator: Client) -> None:
    book = crawled("a")
    before = current_revision()
    for name in ("price", "upc", "nonsense"):
        save(curator, book, _give_back=name)
    assert current_revision() == before


def test_enter_in_a_field_saves_and_gives_nothing_back(curator: Client) -> None:
    book = crawled("a")
    curation.edit_book(book.pk, {"title": "Mine"})
    buttons = get(curator, page_of(book)).css("form#book_form button[type=submit]::attr(name)").getall()
    assert buttons[0] == "_save"  # the first one is what a browser presses


def test_the_buttons_of_a_book_follow_its_state(curator: Client) -> None:
    book, twin = crawled("a"), crawled("b")

    def press(pressed: Book, name: str) -> Book:
        assert get(curator, page_of(pressed)).css(f"button[name=catalog_book_{name}]")
        save(curator, pressed, **{f"catalog_book_{name}": "1"})
        assert not get(curator, page_of(pressed)).css(f"button[name=catalog_book_{name}]")
        return Book.objects.get(pk=pressed.pk)

    assert press(book, "hide_this").hidden
    assert not press(book, "show_this").hidden
    curation.edit_book(book.pk, {"title": "Mine", "price": 1})
    assert press(book, "give_back_this").locked_fields == []
    curation.merge(book.pk, [twin.pk])
    assert press(twin, "undo_merge_of_this").merged_into is None
    assert [entry.get_change_message() for entry in LogEntry.objects.order_by("id")] == [
        "Changed hidden.",
        "Changed shown again.",
        "Changed all fields given back to the shop.",
        "Changed merge undone.",
    ]


# -- many books -------------------------------------------------------------------------------------------------------


def test_books_are_hidden_shown_and_given_back_from_the_list(curator: Client) -> None:
    a, b = crawled("a"), crawled("b")
    assert "2 books were hidden." in text_of(act(curator, "hide", a, b))
    assert Book.objects.filter(hidden=True).count() == 2
    assert "1 book was shown again." in text_of(act(curator, "show", a))
    curation.edit_book(a.pk, {"title": "Mine"})
    assert "1 book was given back to the shop." in text_of(act(curator, "give_back", a, b))
    assert Book.objects.get(pk=a.pk).title == "A Light in the Attic"
    assert LogEntry.objects.filter(object_id=str(b.pk), change_message="hidden").count() == 1


def test_books_are_merged_into_the_chosen_one(curator: Client) -> None:
    a, b, c = (crawled(upc, title=f"Title of {upc}") for upc in "abc")
    page = act(curator, "merge", a, b, c)
    assert page.css("input[name=survivor]::attr(value)").getall() == [str(row.pk) for row in (a, b, c)]
    assert page.css("input[name=survivor][checked]::attr(value)").getall() == [str(a.pk)]
    fields = {
        "action": page.css("input[name=action]::attr(value)").get(),
        "_selected_action": page.css("input[name=_selected_action]::attr(value)").getall(),
        "survivor": b.pk,
    }
    after = Selector(curator.post(BOOKS, fields, follow=True).content.decode())
    assert "2 books were merged into “Title of b”." in text_of(after)
    assert set(Book.objects.filter(merged_into=b)) == {a, c}
    assert LogEntry.objects.filter(change_message=f"merged into book {b.pk}").count() == 2


def test_a_merge_that_cannot_be_is_explained_and_offered_again(curator: Client) -> None:
    a, b = crawled("a"), crawled("b", shop="elsewhere")
    page = act(curator, "merge", a, b, survivor=a.pk)
    assert "each shop's price is its own" in text_of(page)
    assert page.css("input[name=survivor]")
    assert "Choose two books or more" in text_of(act(curator, "merge", a))
    assert "Choose two books or more" in text_of(act(curator, "merge", *(crawled(f"u{n}") for n in range(21))))


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"q": "cafe"}, {"cafe"}),
        ({"q": "CAFÉ of"}, {"cafe"}),
        ({"q": "of the cafe nowhere"}, set()),
        ({"q": "gone"}, {"gone"}),
        ({"price_from": "20", "price_to": "30"}, {"gone"}),
        ({"rating": "5"}, {"hidden"}),
        ({"in_stock": "0"}, {"gone"}),
        ({"state": "listed"}, {"cafe"}),
        ({"state": "left"}, {"gone"}),
        ({"state": "hidden"}, {"hidden"}),
        ({"state": "merged"}, {"twin"}),
        ({"locked": "yes"}, {"hidden"}),
        ({"locked": "no"}, {"cafe", "gone", "twin"}),
        ({"shop": "elsewhere"}, set()),
    ],
)
def test_the_list_is_searched_and_filtered(curator: Client, query: dict[str, str], found: set[str]) -> None:
    crawl(
        scraped("cafe", title="The Café of Lost Youth"),
        scraped("gone", title="Soumission", price="£25.00", price_excl_tax="£25.00", availability="Out of stock"),
        scraped("hidden", title="Sapiens", rating="Five"),
        scraped("twin", title="Sharp Objects"),
    )
    books = {book.upc: book for book in Book.objects.all()}
    Book.objects.filter(upc="gone").update(listed=False)
    curation.set_hidden([books["hidden"].pk], True)
    curation.edit_book(books["hidden"].pk, {"title": "Sapiens!"})
    curation.merge(books["cafe"].pk, [books["twin"].pk])
    page = get(curator, BOOKS, **query)
    shown = set(map(int, page.css("input[name=_selected_action]::attr(value)").getall()))
    assert shown == {books[upc].pk for upc in found}


NONSENSE = [
    {"price_from": "abc", "price_to": "NaN"},
    {"price_from": "1e999999", "price_to": "-1"},
    {"price_from": "1e400"},
    {"rating": "six", "state": "nowhere", "locked": "perhaps", "in_stock": "2"},
    {"shop": "x\0y"},
    {"q": "\0"},
    {"q": "%_\\'\""},
    {"category__id__exact": "abc"},
    {"category__id__exact": "9" * 40},
    {"updated_at__gte": "yesterday"},
    {"p": "abc"},
    {"p": "99999999"},
    {"o": "99.-98.x"},
    {"id__exact": "9" * 40},
    {"book__id__exact": "9" * 40, "run": "-" + "9" * 40},
    {"unknown": "1"},
]


@pytest.mark.parametrize("query", NONSENSE)
def test_nonsense_in_an_address_is_never_a_server_error(curator: Client, query: dict[str, str]) -> None:
    crawled("a")
    for name in ("book", "change", "crawlrun", "rejecteditem"):
        assert curator.get(f"/admin/catalog/{name}/", query, follow=True).status_code == 200
    for pk in ("abc", "0", "9" * 40, "a\0b", "%00"):
        assert curator.get(f"{BOOKS}{pk}/change/", follow=True).status_code in {200, 404}


# -- shelves, runs, rejected items ------------------------------------------------------------------------------------


def test_a_shelf_is_renamed_and_readers_are_told(curator: Client) -> None:
    book = crawled("a")
    crawled("b", category="Travel")
    path = f"/admin/catalog/category/{book.category_id}/change/"
    answer = curator.post(path, {"name": "Verse"}, follow=True)
    assert "1 book stands on the renamed shelf." in text_of(Selector(answer.content.decode()))
    assert Change.objects.latest("id").fields["category"]["new"] == {"name": "Verse", "slug": "poetry"}
    assert LogEntry.objects.get().get_change_message() == "Changed name: Poetry → Verse."
    taken = Selector(curator.post(path, {"name": "TRAVEL", "slug": "other"}).content.decode())
    assert "There is a category" in text_of(taken)
    shelf = Category.objects.get(pk=book.category_id)
    assert (shelf.name, shelf.slug, shelf.shop_name) == ("Verse", "poetry", "Poetry")


def test_the_shelf_of_a_book_is_found_by_typing(curator: Client) -> None:
    crawled("a")
    crawled("b", category="Travel")
    query = {"app_label": "catalog", "model_name": "book", "field_name": "category", "term": "tra"}
    answer = curator.get("/admin/autocomplete/", query)
    assert [found["text"] for found in answer.json()["results"]] == ["Travel"]
    answer = curator.get("/admin/autocomplete/", {**query, "term": "\0"})
    assert len(answer.json()["results"]) == 2


def test_the_page_of_a_run_has_its_sums_coverage_warnings_and_links(curator: Client) -> None:
    run = crawl(scraped("a"), scraped("b", price="cheap"))
    record_failed_pages(run.pk, [PageFailure("https://shop.example/c", "book", "http_500", "Oops")])
    CrawlRun.objects.filter(pk=run.pk).update(announced=3, warnings=[{"code": "books_fell", "detail": "Much fewer."}])
    page = get(curator, f"/admin/catalog/crawlrun/{run.pk}/change/")
    text = text_of(page)
    for expected in (
        "2 = 1 + 0 + 0 + 0 + 1",
        "books fell",
        "Much fewer.",
        "finished",
        "image url 100.0%",
        "price 50.0%",
    ):
        assert expected in text
    for name, count in (("failedpage", 1), ("rejecteditem", 1), ("sighting", 1)):
        link = page.css(f"a[href^='/admin/catalog/{name}/?']::attr(href)").get()
        assert link
        rows = get(curator, link).css("#result_list tbody tr")
        assert len(rows) == count, name


def test_rejected_items_are_retried_and_dismissed(curator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    run = crawl(scraped("a", price="cheap"), scraped("b", rating="Eleven"))
    record_rejected_line(run.pk, "books.jsonl:3", "{not json", "Is not JSON.")
    good, bad, line = RejectedItem.objects.order_by("pk")
    RejectedItem.objects.filter(pk=good.pk).update(raw={**good.raw, "price": "£9.99", "price_excl_tax": "£9.99"})
    path = "/admin/catalog/rejecteditem/"
    page = act(curator, "retry", good, bad, line, path=path)
    assert "1 item was accepted; 2 still refused." in text_of(page)
    assert Book.objects.get(upc="a").price == Decimal("9.99")
    detail = get(curator, f"{path}{bad.pk}/change/")
    assert "Eleven" in text_of(detail)
    button = detail.css(f"form[action='{path}'] button[name=action]::attr(value)").getall()
    assert button == ["retry", "dismiss"]
    assert "1 item was dismissed." in text_of(act(curator, "dismiss", bad, path=path))
    states = RejectedItem.objects.order_by("pk").values_list("state", flat=True)
    assert list(states) == ["retried", "dismissed", "open"]
    assert not get(curator, f"{path}{bad.pk}/change/").css(f"form[action='{path}'] button[name=action]")


def test_the_first_page_tells_how_the_catalogue_stands(curator: Client) -> None:
    assert "No shop was read yet." in text_of(get(curator, "/admin/"))
    crawl(scraped("a"), scraped("b", price="cheap"))
    page = get(curator, "/admin/")
    assert "rejected item nobody has decided about" in text_of(page)
    assert "2 seen" in text_of(page)
    waiting = page.css("a[href*='state__exact=open']::attr(href)").get()
    assert len(get(curator, waiting or "").css("#result_list tbody tr")) == 1


# -- scraped text is text ---------------------------------------------------------------------------------------------

NASTY = "<script>alert('nasty')</script>\"'><img src=x onerror=alert(2)>{{ 7 }}"


def assert_harmless(page: Selector, where: str) -> None:
    """Nothing that was scraped became an element, an event handler or a link that runs."""
    assert not page.xpath("//script[contains(text(), 'nasty')]"), where
    assert not page.css("img[src=x], [onerror]"), where
    assert not page.xpath(
        "//a[starts-with(translate(normalize-space(@href), 'JAVSCRIPT', 'javscript'), 'javascript:')]"
    )
    for address in page.css("img::attr(src), script::attr(src), link::attr(href), iframe::attr(src)").getall():
        assert address.startswith("/"), f"{where} loads {address} from elsewhere"


def test_scraped_text_is_never_html_and_no_page_loads_anything_from_elsewhere(superuser: Client) -> None:
    run = crawl(
        scraped("nasty", title=NASTY, category=NASTY, description=NASTY, authors=(NASTY,), product_type="<b>x</b>"),
        scraped("twin", title=NASTY, category=NASTY),
        scraped(NASTY, price=NASTY, source_url="javascript:alert('nasty')", rating=NASTY),
    )
    book, twin = Book.objects.order_by("pk")
    Book.objects.update(
        source_url="JavaScript:alert('nasty')", image_url="javascript:alert('nasty')", availability=NASTY
    )
    curation.edit_book(book.pk, {"title": NASTY + "!", "authors": [], "category": Category.objects.create(name="x")})
    record_failed_pages(run.pk, [PageFailure("javascript:alert('nasty')", "book", NASTY, NASTY)])
    CrawlRun.objects.update(
        source="javascript:alert('nasty')", warnings=[{"code": NASTY, "detail": NASTY}], filters={"x": NASTY}
    )
    owner = User.objects.get(username="root")
    Prediction.objects.create(model=NASTY, model_version="1", book=book, score=1, extra={NASTY: NASTY}, account=owner)
    pages = {}
    for model in MODELS:
        app, name = model._meta.app_label, model._meta.model_name
        pages[f"list of {name}"] = get(superuser, reverse(f"admin:{app}_{name}_changelist"))
        for row in model._default_manager.all():  # type: ignore[attr-defined]
            pages[f"{name} {row.pk}"] = get(superuser, reverse(f"admin:{app}_{name}_change", args=[row.pk]))
    pages["merging"] = act(superuser, "merge", book, twin)
    pages["merge done"] = act(superuser, "merge", book, twin, survivor=book.pk)
    pages["hide done"] = act(superuser, "hide", book)
    stale = get(superuser, page_of(book))
    curation.edit_book(book.pk, {"title": NASTY + "?"})
    pages["overtaken"] = save(superuser, book, stale, title=NASTY + "!!", _continue="1")
    pages["given back"] = save(superuser, book, _give_back="title")
    pages["not valid"] = save(superuser, book, title=NASTY * 10)
    pages["history"] = get(superuser, f"{BOOKS}{book.pk}/history/")
    pages["first page"] = get(superuser, "/admin/")
    pages["search"] = get(superuser, BOOKS, q=NASTY)
    item = RejectedItem.objects.get()
    pages["retried"] = act(superuser, "retry", item, path="/admin/catalog/rejecteditem/")
    for where, page in pages.items():
        assert_harmless(page, where)
    for where in ("list of book", "merging", f"book {book.pk}", "overtaken", "history", f"rejecteditem {item.pk}"):
        assert "alert('nasty')" in " ".join(pages[where].css("body ::text, body ::attr(value)").getall()), where


def test_a_page_in_the_shop_is_linked_when_it_is_on_the_web(curator: Client) -> None:
    book = crawled("a")
    link = get(curator, page_of(book)).css("a[href='https://shop.example/a']")
    assert link.attrib["rel"] == "noopener noreferrer nofollow"


# -- many rows, and others at work ------------------------------------------------------------------------------------


def queries(work: Callable[[], object]) -> int:
    with CaptureQueriesContext(connection) as captured:
        work()
    return len(captured)


def test_a_list_needs_as_many_queries_for_a_hundred_rows_as_for_two(superuser: Client) -> None:
    lists = [
        reverse(f"admin:catalog_{m._meta.model_name}_changelist") for m in apps.get_app_config("catalog").get_models()
    ]

    def measure() -> dict[str, int]:
        return {path: queries(lambda path=path: get(superuser, path)) for path in [*lists, "/admin/"]}

    def fill(first: int, last: int) -> None:
        run = crawl(*(scraped(f"u{n}", category=f"Shelf {n}") for n in range(first, last)),
                    *(scraped(f"r{n}", price="cheap") for n in range(first, last)))  # fmt: skip
        failures = [PageFailure(f"https://shop.example/f{n}", "book", "http_500", "") for n in range(first, last)]
        record_failed_pages(run.pk, failures)
        owner = User.objects.get(username="root")
        books = Book.objects.filter(upc__in=[f"u{n}" for n in range(first, last)])
        Prediction.objects.bulk_create(
            Prediction(model="m", model_version="1", book=book, score=1, account=owner) for book in books
        )

    fill(0, 2)
    measure()  # content types and the like are asked once
    few = measure()
    fill(2, 100)
    assert FailedPage.objects.count() == 100
    assert measure() == few
    assert few[BOOKS] <= 6, "session, user, and for the list: shops, count, rows, actions"


def test_a_book_with_a_long_history_needs_as_many_queries_as_a_new_one(curator: Client) -> None:
    book = crawled("a")
    get(curator, page_of(book))
    new = queries(lambda: get(curator, page_of(book)))
    for n in range(1, 31):
        crawl(scraped("a", day=n, price=f"£{n}.00", price_excl_tax=f"£{n}.00"))
    assert queries(lambda: get(curator, page_of(book))) == new
    text = text_of(get(curator, page_of(book)))
    assert "29.00 → 30.00" in text
    assert "9.00 → 10.00" not in text


@pytest.mark.django_db(transaction=True)
def test_pages_are_read_while_a_crawl_holds_the_lock() -> None:
    book = crawled("a")
    client = logged_in("root", is_superuser=True)
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        try:
            with writing():
                held.set()
                release.wait(20)
        finally:
            connection.close()

    writer = threading.Thread(target=hold)
    writer.start()
    try:
        assert held.wait(10)
        for path in ("/admin/", BOOKS, page_of(book), "/admin/catalog/rejecteditem/"):
            get(client, path)
        assert writer.is_alive()
    finally:
        release.set()
        writer.join(20)


@pytest.mark.django_db(transaction=True)
def test_saving_waits_for_a_crawl_and_loses_nothing_of_it() -> None:
    book = crawled("a")
    client = logged_in("root", is_superuser=True)
    page = get(client, page_of(book))
    held, release = threading.Event(), threading.Event()

    def write() -> None:
        try:
            with writing() as turn:
                held.set()
                release.wait(20)
                Book.objects.filter(pk=book.pk).update(stock=7)
                turn.change(book.pk, Change.Kind.UPDATED, {"stock": {"old": 22, "new": 7}})
        finally:
            connection.close()

    writer = threading.Thread(target=write)
    writer.start()
    assert held.wait(10)
    threading.Timer(0.5, release.set).start()
    save(client, book, page, title="Mine")
    writer.join(20)
    book.refresh_from_db()
    assert (book.title, book.stock, book.locked_fields) == ("Mine", 7, ["title"])
    changes = list(Change.objects.order_by("revision", "id").values_list("revision", "fields"))
    assert [list(fields) for _, fields in changes] == [[], ["stock"], ["title"]]
    assert changes[1][0] < changes[2][0]


# -- accounts ---------------------------------------------------------------------------------------------------------


def test_who_may_change_accounts_cannot_make_herself_mighty() -> None:
    client = logged_in("mia", "auth.view_user", "auth.change_user", "auth.view_group", "auth.change_group")
    reader, root = User.objects.create_user("reader"), User.objects.create_superuser("root")
    page = get(client, f"/admin/auth/user/{reader.pk}/change/")
    fields = {**form_of(page, "user_form"), "is_superuser": "on", "is_staff": "on", "email": "r@example.org"}
    assert client.post(f"/admin/auth/user/{reader.pk}/change/", fields).status_code == 302
    reader.refresh_from_db()
    assert (reader.email, reader.is_superuser, reader.is_staff) == ("r@example.org", False, False)
    mia = User.objects.get(username="mia")
    for other in (root, mia):
        assert client.post(f"/admin/auth/user/{other.pk}/change/", {"username": "x"}).status_code == 403
        assert client.post(f"/admin/auth/user/{other.pk}/password/", {}).status_code == 403
    assert client.get("/admin/auth/group/add/").status_code == 403


def test_a_superuser_makes_an_account_and_reads_of_logins(superuser: Client) -> None:
    fields = {
        "username": "new",
        "password1": "long and odd 7",
        "password2": "long and odd 7",
        "usable_password": "true",
    }
    answer = superuser.post("/admin/auth/user/add/", fields)
    assert answer.status_code == 302, Selector(answer.content.decode()).css(".errorlist").getall()
    assert User.objects.get(username="new").check_password("long and odd 7")
    for path in ("auth/user", "auth/group", "bookapi/refreshfamily", "bookapi/logincounter"):
        get(superuser, f"/admin/{path}/")


def test_what_was_seen_travels_with_the_form_as_it_is_published(curator: Client) -> None:
    book = crawled("a", authors=("One", "Two"))
    seen = json.loads(form_of(get(curator, page_of(book)), "book_form")["seen"])
    assert seen["price"] == "51.77"
    assert seen["authors"] == ["One", "Two"]
    assert set(seen) == set(Book.CURATED_FIELDS)
