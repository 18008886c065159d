"""A pytest plugin (`-p tests.database_only`): of all tests those that use the database."""

import pytest

#: Fixtures that a test asks for; pytest-django's own machinery (`django_db_blocker`) is around every test. Whoever asks
#: for the broker has workers that write into a database of their own.
FIXTURES = {"db", "transactional_db", "live_server", "broker"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    kept = [item for item in items if uses_database(item)]
    config.hook.pytest_deselected(items=[item for item in items if not uses_database(item)])
    items[:] = kept


def uses_database(item: pytest.Item) -> bool:
    return item.get_closest_marker("django_db") is not None or bool(FIXTURES & set(getattr(item, "fixturenames", ())))
