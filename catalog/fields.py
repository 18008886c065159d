"""A column whose order is the same on every database."""

from typing import Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper


class BytewiseCharField(models.CharField):  # type: ignore[type-arg]  # not subscriptable at run time
    """Text that sorts by code point on SQLite and PostgreSQL alike.

    PostgreSQL otherwise sorts by the locale of the server, so that a cursor made on one machine would skip rows on
    another; SQLite does not know PostgreSQL's name for the order.
    """

    def db_parameters(self, connection: BaseDatabaseWrapper) -> dict[str, Any]:
        collation = "C" if connection.vendor == "postgresql" else None
        return {**super().db_parameters(connection), "collation": collation}
