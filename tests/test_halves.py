"""What one half of the suite leaves to the other is run there."""

from __future__ import annotations

import pytest

from tests.database_only import uses_database


def test_what_is_skipped_beside_sqlite_is_run_beside_postgresql(request: pytest.FixtureRequest) -> None:
    """Twenty tests of the queue were in neither half once, and nobody missed them."""
    left = [item for item in request.session.items if "broker" in getattr(item, "fixturenames", ())]
    assert [item.nodeid for item in left if not uses_database(item)] == []
