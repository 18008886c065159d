"""Questions that Django's ORM has no word for."""

from __future__ import annotations

from typing import Any

import orjson
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.sql.compiler import SQLCompiler


@models.Field.register_lookup
class Among(models.Lookup):
    """`upc__among=[...]`: like `__in`, with one parameter for the whole list.

    `__in` makes a parameter of every value: Django spends longer on them than the database on the answer, and SQLite
    refuses more than 999. For text and whole numbers.
    """

    lookup_name = "among"
    prepare_rhs = False

    def as_sql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper) -> tuple[str, tuple[Any, ...]]:
        column, params = self.process_lhs(compiler, connection)
        values = orjson.dumps(list(self.rhs)).decode()
        if connection.vendor == "postgresql":
            # Of an array that is written out the planner knows the length, and may rather read the whole table.
            kind = self.lhs.output_field.cast_db_type(connection).partition("(")[0]
            array = f"ARRAY(SELECT value::{kind} FROM json_array_elements_text(%s))"  # noqa: S608 - a type of ours
            return f"{column} = ANY({array})", (*params, values)
        return f"{column} IN (SELECT value FROM json_each(%s))", (*params, values)  # noqa: S608 - a column of ours
