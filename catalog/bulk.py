"""Many rows in one statement, without what Django does for each. See docs/adr/0003."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC
from functools import cache
from typing import Any

import orjson
from django.db import connection, models

#: A value for every column, as Python has it: `datetime`, `Decimal`, and lists and dictionaries for JSON.
Row = Sequence[Any]


def write_rows(model: type[models.Model], columns: Sequence[str], rows: Iterable[Row], *, key: str = "") -> None:
    """Insert the rows, one query for all of them; with `key`, a column, rows that are there already are overwritten.

    `columns` are column names ("book_id"). Nothing of Django's is called for a row: no `save`, no signal, no default.
    Values must be such as every database takes: no NUL, no half of a surrogate pair.
    """
    rows = list(rows)
    if not rows:
        return
    table, names = model._meta.db_table, ", ".join(columns)
    conflict = ""
    if key:
        settings = ", ".join(f"{name} = excluded.{name}" for name in columns if name != key)
        conflict = f" ON CONFLICT ({key}) DO UPDATE SET {settings}"
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            # Parsed once by the server, where VALUES would be an expression a value; it knows the types by itself.
            source = f"SELECT {names} FROM json_populate_recordset(NULL::{table}, %s)"  # noqa: S608 - names of ours
            document = orjson.dumps([dict(zip(columns, row, strict=True)) for row in rows], default=str)
            cursor.execute(f"INSERT INTO {table} ({names}) {source}{conflict}", [document.decode()])
        else:
            marks = ", ".join(["%s"] * len(columns))
            sql = f"INSERT INTO {table} ({names}) VALUES ({marks}){conflict}"  # noqa: S608 - names of ours
            converters = _converters(model, tuple(columns))
            cursor.executemany(sql, [_converted(row, converters) for row in rows])


def _converted(row: Row, converters: Sequence[tuple[int, Callable[[Any], Any]]]) -> list[Any]:
    values = list(row)
    for place, convert in converters:
        values[place] = convert(values[place])
    return values


@cache
def _converters(model: type[models.Model], columns: tuple[str, ...]) -> list[tuple[int, Callable[[Any], Any]]]:
    """The columns whose values SQLite does not take as they are, and what makes of them what Django would store."""
    fields = {field.column: field for field in model._meta.concrete_fields}
    return [
        (place, convert)
        for place, name in enumerate(columns)
        for kind, convert in _FOR_SQLITE.items()
        if isinstance(fields[name], kind)
    ]


_FOR_SQLITE: dict[type[models.Field[Any, Any]], Callable[[Any], Any]] = {
    models.DateTimeField: lambda at: at.astimezone(UTC).isoformat(" ")[:-6],
    models.DecimalField: str,
    models.JSONField: lambda value: orjson.dumps(value).decode(),
}
