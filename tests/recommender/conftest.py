"""Each test has an artifact store of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_django import Settings


@pytest.fixture
def store(settings: Settings, tmp_path: Path) -> str:
    """The folder that the settings name."""
    settings.ARTIFACT_STORE = str(tmp_path / "models")
    return settings.ARTIFACT_STORE
