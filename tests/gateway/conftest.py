"""Real processes behind a real HAProxy, started once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest

from deploy.programs import NotInstalled, find_program
from tests.gateway.estate import ACCOUNTS, PASSWORD, Door, Estate, door, estate


@pytest.fixture(scope="session")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Estate]:
    try:
        find_program("haproxy", "haproxy")
    except NotInstalled as error:
        pytest.skip(str(error))
    with estate(tmp_path_factory.mktemp("estate")) as processes:
        yield processes


@pytest.fixture(scope="session")
def front(behind: Estate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """The gateway that most tests share."""
    with door(behind, tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


@pytest.fixture
def another(behind: Estate, tmp_path: Path) -> Callable[..., AbstractContextManager[Door]]:
    """A gateway of the test's own: `with another(GATEWAY_LIMIT_ACCOUNT="3") as gateway`."""
    return partial(door, behind, tmp_path)


@pytest.fixture(scope="session")
def tokens(front: Door) -> dict[str, str]:
    """An access token of each account, got through the gateway."""
    logins = {name: front.ask("/api/v1/login", method="POST", json=credentials(name)) for name in ACCOUNTS}
    return {name: login.json()["access"] for name, login in logins.items()}


@pytest.fixture
def token(tokens: dict[str, str]) -> str:
    return tokens["anna"]


def credentials(name: str) -> dict[str, str]:
    return {"username": name, "password": PASSWORD}
