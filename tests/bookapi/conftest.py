"""A reader with a real token, and caches as a fresh process has them."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from bookapi import accounts, tokens
from tests.bookapi.logins import QUICK_HASHERS, make_user


@pytest.fixture(autouse=True)
def _fresh_process(settings: Any) -> None:
    settings.PASSWORD_HASHERS = QUICK_HASHERS
    settings.RATE_LIMIT_ACCOUNT = settings.RATE_LIMIT_ADDRESS = "off"
    accounts.cache.clear()
    tokens.verified.clear()


@pytest.fixture
def reader(db: None) -> Client:
    """A client that is logged in, and whose account is known: its requests cost no query for that."""
    user = make_user("reader")
    pair = tokens.log_in(user)
    accounts.cache.get(user.pk)
    return Client(headers={"Authorization": f"Bearer {pair.access}"})
