"""What every test shares."""

import pytest

from bookapi.api import paging
from catalog import memo


@pytest.fixture(autouse=True)
def _nothing_remembered() -> None:
    """A test's catalogue begins at revisions that another one's had, so what is kept by revision must go."""
    memo.forget_all()
    paging.forget_counts()
