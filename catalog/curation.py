"""What a person does to the catalogue: correct, give back, hide, merge, rename.

Every function takes the catalogue's lock first and reads the rows it writes under it, so that nothing that a crawl
wrote a moment ago is overwritten by what somebody's form showed a minute ago. What readers can see of it is published
as changes, and moves the revision once.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import URLValidator
from django.db.models import QuerySet

from catalog import cleaning
from catalog.ingest.applying import Differences, as_json, observation
from catalog.models import Book, CatalogueRevision, Category, Change, PriceObservation, RejectedItem
from catalog.revision import Writing, writing
from catalog.text import fold

#: Ids or rows in one statement; SQLite allows 999 variables.
CHUNK = 400
#: Columns that follow from curated ones, see `Book.derive`.
DERIVED = ("in_stock", "title_key", "search_key")


class CurationError(Exception):
    """This cannot be done to the catalogue."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").splitlines()[0])


class UnknownBook(CurationError):
    """There is no such book."""


class UnknownCategory(CurationError):
    """There is no such category."""


class InvalidValue(CurationError):
    """The value does not fit its field."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class NotMergeable(CurationError):
    """These books cannot be merged."""


@dataclass(frozen=True, slots=True)
class Edit:
    """What an edit came to."""

    fields: Differences  # what changed, as `/changes` shows it
    overtaken: tuple[str, ...] = ()  # edited fields that somebody else had changed since the editor looked


# -- editing a book ---------------------------------------------------------------------------------------------------


def edit_book(book_id: int, values: Mapping[str, Any], *, seen: Mapping[str, Any] | None = None) -> Edit:
    """Set curated fields and lock those whose value really changed, so that no crawl sets them again.

    `values` holds only what the person edited: nothing else of the book is written. `seen` is what she saw, by field
    and as `as_json` gives it; a field that has changed since is set all the same, and named in `overtaken`.

    Raises:
        UnknownBook: there is no such book.
        InvalidValue: a field is not a curated one, or its value does not fit.
    """
    wanted = {name: curated_value(name, value) for name, value in values.items()}
    with writing() as turn:
        book = _book(book_id)
        before = dict(seen or {})
        overtaken = tuple(
            name for name in wanted if name in before and not same_value(before[name], as_json(getattr(book, name)))
        )
        changed = [name for name, value in wanted.items() if getattr(book, name) != value]
        for name in changed:
            if name not in book.locked_fields:
                book.shop_values[name] = as_json(getattr(book, name))
        book.locked_fields = sorted({*book.locked_fields, *changed})
        fields, seen_anew = _set(book, {name: wanted[name] for name in changed}, turn)
        PriceObservation.objects.bulk_create(seen_anew)
        if fields:
            columns = (*changed, *DERIVED, "locked_fields", "shop_values", "updated_at")
            book.save(update_fields=columns)
    return Edit(fields, overtaken)


def give_back(book_ids: Collection[int], fields: Collection[str] | None = None) -> int:
    """How many books had locked fields (of `fields`, or any) that belong to the shop again.

    What the shop says comes back at once, without waiting for a crawl. Some five queries for each `CHUNK` of books.
    """
    count = 0
    with writing() as turn:
        for chunk in _chunks(book_ids):
            held = Book.objects.filter(pk__in=chunk).exclude(locked_fields=[]).select_related("category")
            books = [book for book in held if fields is None or set(book.locked_fields) & set(fields)]
            shelves = _shelves_said(books)
            observations = []
            for book in books:
                observations += _unlock(book, set(book.locked_fields if fields is None else fields), shelves, turn)
            PriceObservation.objects.bulk_create(observations)
            _write(books, (*Book.CURATED_FIELDS, *DERIVED, "locked_fields", "shop_values", "updated_at"))
            count += len(books)
    return count


def _unlock(book: Book, fields: set[str], shelves: dict[str, Category], turn: Writing) -> list[PriceObservation]:
    returned = {}
    for name in sorted(fields & set(book.locked_fields)):
        said = book.shop_values.pop(name, None)
        value = shelves.get(said["slug"]) if name == "category" and said else said
        if value is not None:  # where the shop was never heard, the value stays until it is
            returned[name] = curated_value(name, value, of_shop=True)
    book.locked_fields = sorted(set(book.locked_fields) - fields)
    return _set(book, returned, turn)[1]


def _shelves_said(books: Iterable[Book]) -> dict[str, Category]:
    """The categories that the shop names for locked ones, by slug."""
    slugs = {said["slug"] for book in books if (said := book.shop_values.get("category"))}
    return {c.slug: c for c in Category.objects.filter(slug__in=slugs)} if slugs else {}


def _set(book: Book, values: Mapping[str, Any], turn: Writing) -> tuple[Differences, list[PriceObservation]]:
    """Set values on the book and note what readers see of it. Saves neither the book nor what is observed of it."""
    watched = (book.price, book.stock, book.rating)
    was_in_stock = book.in_stock
    differences: Differences = {}
    for name, new in values.items():
        old = getattr(book, name)
        if old != new:
            setattr(book, name, new)
            differences[name] = {"old": as_json(old), "new": as_json(new)}
    if not differences:
        return {}, []
    book.derive()
    book.updated_at = turn.at
    if book.in_stock != was_in_stock:
        differences["in_stock"] = {"old": was_in_stock, "new": book.in_stock}
    if book.visible:
        turn.change(book.pk, Change.Kind.UPDATED, differences)
    moved = (book.price, book.stock, book.rating) != watched
    return differences, [observation(book, turn.at)] if moved else []


def same_value(one: Any, other: Any) -> bool:
    """Whether two values of `as_json` are the same; a category is, even if it was renamed."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.get("slug") == other.get("slug")
    return bool(one == other)


# -- values -----------------------------------------------------------------------------------------------------------

_CURRENCY = re.compile("[A-Z]{3}")
_web_address = URLValidator(schemes=["http", "https"])


def curated_value(name: str, value: Any, *, of_shop: bool = False) -> Any:
    """The value as the field holds it: text cleaned as a shop's is, money with two places. No query, but for an id.

    With `of_shop` it comes from `shop_values`, and was judged when it was scraped.

    Raises:
        InvalidValue: nobody may edit the field, or the value does not fit it.
    """
    if name not in Book.CURATED_FIELDS:
        raise InvalidValue(name, f"{name} is not for people to edit.")
    if name == "category":
        return _category(value)
    if name == "authors":
        return list(value) if of_shop else _authors(value)
    field = Book._meta.get_field(name)
    try:
        text = _text(name, value) if isinstance(value, str) and not of_shop else value
        clean = field.clean(text, None)  # type: ignore[union-attr]
    except ValidationError as error:
        raise InvalidValue(name, " ".join(error.messages)) from None
    return clean.quantize(Decimal("0.01")) if isinstance(clean, Decimal) else clean


def _text(name: str, value: str) -> str:
    text = _clean(name, value)
    if name == "currency" and not _CURRENCY.fullmatch(text):
        raise InvalidValue(name, "Is not a currency code of three capital letters, like GBP.")
    if name == "image_url" and text:
        _web_address(text)
    if name == "description" and len(text) > cleaning.DESCRIPTION_MAX:
        raise InvalidValue(name, f"{len(text)} characters, at most {cleaning.DESCRIPTION_MAX} fit.")
    return text


def _clean(name: str, value: str) -> str:
    try:
        return cleaning.clean_text(value)
    except UnicodeEncodeError:
        raise InvalidValue(name, "Holds half of a surrogate pair.") from None


def _authors(value: Any) -> list[str]:
    if not isinstance(value, list | tuple) or not all(isinstance(author, str) for author in value):
        raise InvalidValue("authors", "Is not a list of names.")
    names = list(dict.fromkeys(filter(None, (_clean("authors", author) for author in value))))
    if len(names) > cleaning.AUTHORS_MAX:
        raise InvalidValue("authors", f"{len(names)} names, at most {cleaning.AUTHORS_MAX} fit.")
    if any(len(author) > cleaning.AUTHOR_MAX for author in names):
        raise InvalidValue("authors", f"A name has more than {cleaning.AUTHOR_MAX} characters.")
    return names


def _category(value: Any) -> Category:
    found = value if isinstance(value, Category) else Category.objects.filter(pk=value).first()
    if found is None:
        raise InvalidValue("category", "There is no such category.")
    return found


# -- hiding -----------------------------------------------------------------------------------------------------------


def set_hidden(book_ids: Collection[int], hidden: bool) -> int:
    """How many books were withheld from readers, or shown to them again.

    Readers learn of it as of a book that left the shop or came back; a crawl never touches it. Two queries for each
    `CHUNK` of books.
    """
    count = 0
    with writing() as turn:
        for chunk in _chunks(book_ids):
            found = Book.objects.filter(pk__in=chunk, hidden=not hidden).values_list("pk", "listed", "merged_into")
            moved = list(found)
            for pk, listed, merged_into in moved:
                if merged_into is None:
                    turn.change(pk, Change.Kind.DELISTED if hidden else _reappearing(listed))
            Book.objects.filter(pk__in=[pk for pk, _, _ in moved]).update(hidden=hidden, updated_at=turn.at)
            count += len(moved)
    return count


def _reappearing(listed: bool) -> Change.Kind:
    """How readers learn of a book that they can see again: one that left the shop meanwhile is not in it again."""
    return Change.Kind.RELISTED if listed else Change.Kind.UPDATED


# -- merging ----------------------------------------------------------------------------------------------------------


def merge(survivor_id: int, duplicate_ids: Collection[int]) -> int:
    """How many books were merged into the survivor.

    A duplicate stays as a shadow: its UPC is remembered, crawls go on feeding it silently, and its id leads to the
    survivor. What had been merged into a duplicate now leads to the survivor too. Merging again changes nothing.

    Raises:
        UnknownBook: one of them does not exist.
        NotMergeable: into itself, into a book that is hidden or merged away, of another shop (each shop's price is a
            fact of its own), or a duplicate that was merged into another book.
    """
    duplicates = set(duplicate_ids)
    with writing() as turn:
        survivor = Book.objects.filter(pk=survivor_id).first()
        if survivor is None:
            raise UnknownBook(f"There is no book {survivor_id}.")
        _check_survivor(survivor, duplicates)
        moved: list[tuple[int, int | None]] = []
        for chunk in _chunks(duplicates):
            moved += _mergeable(survivor, chunk, duplicates)
            shadows = Book.objects.filter(merged_into__in=chunk).exclude(merged_into=survivor)
            moved += shadows.values_list("pk", "merged_into")
        for pk, into in moved:
            turn.change(pk, Change.Kind.MERGED, {"into": {"old": into, "new": survivor.pk}})
        for chunk in _chunks([pk for pk, _ in moved]):
            Book.objects.filter(pk__in=chunk).update(merged_into=survivor, updated_at=turn.at)
    return len(moved)


def _check_survivor(survivor: Book, duplicates: set[int]) -> None:
    if survivor.pk in duplicates:
        raise NotMergeable("A book cannot be merged into itself.")
    if survivor.merged_into_id is not None:
        raise NotMergeable(f"Book {survivor.pk} was merged into book {survivor.merged_into_id}: choose that one.")
    if survivor.hidden:
        raise NotMergeable(f"Book {survivor.pk} is hidden: readers would lose all of them. Show it first.")


def _mergeable(survivor: Book, chunk: Collection[int], duplicates: set[int]) -> list[tuple[int, int | None]]:
    """The books of the chunk that are not merged into the survivor yet."""
    rows = list(Book.objects.filter(pk__in=chunk).values_list("pk", "shop", "merged_into"))
    if missing := set(chunk) - {pk for pk, _, _ in rows}:
        raise UnknownBook(f"There is no book {min(missing)}.")
    for pk, shop, into in rows:
        if shop != survivor.shop:
            raise NotMergeable(
                f"Book {pk} is of {shop}, the survivor of {survivor.shop}: each shop's price is its own."
            )
        if into is not None and into != survivor.pk and into not in duplicates:
            raise NotMergeable(f"Book {pk} was merged into book {into}: undo that first.")
    return [(pk, into) for pk, _, into in rows if into is None]


def unmerge(book_id: int) -> bool:
    """Whether the book was merged away and is a book of its own again. What once led to it stays with the survivor.

    Raises:
        UnknownBook: there is no such book.
    """
    with writing() as turn:
        book = _book(book_id)
        into = book.merged_into_id
        if into is None:
            return False
        book.merged_into = None
        book.updated_at = turn.at
        book.save(update_fields=["merged_into", "updated_at"])
        if book.visible:
            turn.change(book.pk, _reappearing(book.listed), {"into": {"old": into, "new": None}})
    return True


# -- shelves and rejected items ---------------------------------------------------------------------------------------


def rename_category(category_id: int, name: str) -> int:
    """How many visible books stand on the renamed shelf; every one of them has changed for readers.

    The slug stays, so that links hold; so does `shop_name`, by which ingest finds the shelf again.

    Raises:
        UnknownCategory: there is no such category.
        InvalidValue: the name is blank or too long, or another category has it.
    """
    with writing() as turn:
        category = Category.objects.filter(pk=category_id).first()
        if category is None:
            raise UnknownCategory
        name = shelf_name(category.pk, name)
        if category.name == name:
            return 0
        old = as_json(category)
        category.name = name
        category.save(update_fields=["name", "name_key"])
        return _publish_shelf(category, {"category": {"old": old, "new": as_json(category)}}, turn)


def shelf_name(category_id: int, name: str) -> str:
    """The name as the category would have it. One query.

    Raises:
        InvalidValue: it is blank or too long, or another category has it.
    """
    name = _clean("name", name)
    if not name:
        raise InvalidValue("name", "A category has a name.")
    if len(name) > cleaning.CATEGORY_MAX:
        raise InvalidValue("name", f"{len(name)} characters, at most {cleaning.CATEGORY_MAX} fit.")
    same = Category.objects.filter(name_key=fold(name)[: cleaning.CATEGORY_MAX]).exclude(pk=category_id)
    if same.exists():
        raise InvalidValue("name", f"There is a category {name!r} already.")
    return name


def _publish_shelf(category: Category, fields: Differences, turn: Writing) -> int:
    books = Book.objects.visible().filter(category=category)
    count = 0
    for chunk in _ids_in_chunks(books):
        # A shelf may hold a million books: their changes are written as they come, the last chunk by `writing`.
        turn.write_changes()
        for pk in chunk:
            turn.change(pk, Change.Kind.UPDATED, fields)
        count += len(chunk)
    books.update(updated_at=turn.at)
    if not count:  # no book tells of it, but the list of categories shows it
        CatalogueRevision.objects.filter(pk=1).update(number=turn.revision)
    return count


def dismiss_rejected(ids: Collection[int]) -> int:
    """How many open rejected items are set aside for good."""
    with writing():
        rows = [RejectedItem.objects.filter(pk__in=chunk, state=RejectedItem.State.OPEN) for chunk in _chunks(ids)]
        return sum(row.update(state=RejectedItem.State.DISMISSED) for row in rows)


# -- rows -------------------------------------------------------------------------------------------------------------


def _book(book_id: int) -> Book:
    book = Book.objects.select_related("category").filter(pk=book_id).first()
    if book is None:
        raise UnknownBook(f"There is no book {book_id}.")
    return book


def _write(books: list[Book], columns: tuple[str, ...]) -> None:
    """Write columns of rows that are there: one statement where `bulk_update` would need a CASE per value."""
    if books:
        Book.objects.bulk_create(books, update_conflicts=True, unique_fields=["id"], update_fields=columns)


def _chunks(ids: Collection[int]) -> Iterator[list[int]]:
    """The ids in order, a statement's worth at a time."""
    ordered = sorted(set(ids))
    for start in range(0, len(ordered), CHUNK):
        yield ordered[start : start + CHUNK]


def _ids_in_chunks(books: QuerySet[Book]) -> Iterator[list[int]]:
    """Ids of the books, read a chunk at a time by their place, so that no cursor is open while others are written."""
    last = 0
    while chunk := list(books.filter(pk__gt=last).order_by("pk").values_list("pk", flat=True)[: 10 * CHUNK]):
        yield chunk
        last = chunk[-1]
