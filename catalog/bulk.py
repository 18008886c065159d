"""Many rows in one statement, without what Django does for each. See docs/adr/0003."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC
from io import BytesIO
from typing import Any, TypeAlias

import orjson
from django.db import connection, models

#: A value for every column, as Python has it: `datetime`, `Decimal`, and lists and dictionaries for JSON.
Row = Sequence[Any]
Converters: TypeAlias = "dict[type[models.Field[Any, Any]], Callable[[Any], Any]]"


def write_rows(model: type[models.Model], columns: Sequence[str], rows: Iterable[Row], *, key: str = "") -> None:
    """Insert the rows, one query for all of them; with `key`, a column, rows that are there already are overwritten.

    `columns` are column names ("book_id"). Nothing of Django's is called for a row: no `save`, no signal, no default.
    Values must be such as every database takes: no NUL, no half of a surrogate pair.

    Raises:
        django.db.Error: the database refuses a row, and so all of them.
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
        if connection.vendor != "postgresql":
            marks = ", ".join(["%s"] * len(columns))
            sql = f"INSERT INTO {table} ({names}) VALUES ({marks}){conflict}"  # noqa: S608 - names of ours
            cursor.executemany(sql, list(_converted(model, columns, rows, _FOR_SQLITE, None)))
        elif key:
            # Parsed once by the server, where VALUES would be an expression a value; it knows the types by itself.
            source = f"SELECT {names} FROM json_populate_recordset(NULL::{table}, %s)"  # noqa: S608 - names of ours
            document = orjson.dumps([dict(zip(columns, row, strict=True)) for row in rows], default=str)
            cursor.execute(f"INSERT INTO {table} ({names}) {source}{conflict}", [document.decode()])
        else:
            # Two thirds of the time that JSON takes the server; but COPY cannot overwrite.
            lines = "".join("\t".join(row) + "\n" for row in _converted(model, columns, rows, _FOR_COPY, r"\N"))
            with connection.wrap_database_errors:
                cursor.copy_expert(f"COPY {table} ({names}) FROM STDIN", BytesIO(lines.encode()))


def _converted(
    model: type[models.Model], columns: Sequence[str], rows: Iterable[Row], converters: Converters, null: Any
) -> Iterator[tuple[Any, ...]]:
    """The rows with their values as the converters make them: a column at a time, which is a loop in C.

    `null` stands for None, in columns that may hold it.
    """
    fields = {field.column: field for field in model._meta.concrete_fields}
    converted: list[Iterable[Any]] = []
    for name, values in zip(columns, zip(*rows, strict=True), strict=True):
        convert = next((convert for kind, convert in converters.items() if isinstance(fields[name], kind)), None)
        if convert and fields[name].null:
            convert = _unless_none(convert, null)
        converted.append(map(convert, values) if convert else values)
    return zip(*converted, strict=True)


def _unless_none(convert: Callable[[Any], Any], null: Any) -> Callable[[Any], Any]:
    return lambda value: null if value is None else convert(value)


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\t", r"\t").replace("\n", r"\n").replace("\r", r"\r")


#: What makes of a value, by the kind of its field, what Django would store; other values SQLite takes as they are.
_FOR_SQLITE: Converters = {
    models.DateTimeField: lambda at: at.astimezone(UTC).isoformat(" ")[:-6],
    models.DecimalField: str,
    models.JSONField: _json,
}

#: What makes of a value the text that stands for it in a line of COPY.
_FOR_COPY: Converters = {
    models.CharField: _escaped,
    models.TextField: _escaped,
    models.JSONField: lambda value: _escaped(_json(value)),
    models.Field: str,
}
