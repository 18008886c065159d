"""The database that the tests themselves run on."""

from __future__ import annotations

import os
from contextlib import ExitStack, closing

import psycopg2
import pytest

from tests import services
from tests.run import is_success


@pytest.mark.system
def test_own_server_serves_and_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_POSTGRES_URL", raising=False)
    monkeypatch.setattr(services, "LOCAL", "postgres://postgres@127.0.0.1:9/postgres")  # nobody listens there
    with ExitStack() as stack:
        try:
            url = stack.enter_context(services.postgres())
        except services.NoPostgres as reason:
            if not isinstance(reason.__cause__, services.NotInstalled):
                raise
            pytest.skip(str(reason))
        server, _, name = url.rpartition("/")
        assert name == f"bookapi_{os.getpid()}"
        assert services.trouble(f"{server}/postgres") is None
        with closing(psycopg2.connect(f"{server}/postgres")) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT lower('É'), pg_encoding_to_char(encoding) FROM pg_database WHERE datname='postgres'")
            assert cursor.fetchone() == ("é", "UTF8")
    assert services.trouble(f"{server}/postgres") is not None


def test_server_that_was_named_and_does_not_answer_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_POSTGRES_URL", "postgres://postgres@127.0.0.1:9/postgres")
    with pytest.raises(services.NoPostgres, match="TEST_POSTGRES_URL does not answer"), services.postgres():
        pass


@pytest.mark.parametrize(
    ("codes", "chosen", "success"),
    [
        ([0, 0], False, True),
        ([0, 1], False, False),
        ([0, 5], False, False),  # no test that needs a database: the plugin is broken
        ([5, 5], True, False),
        ([0, 5], True, True),  # `-k parsing` needs no database
        ([0], False, True),  # without a PostgreSQL
    ],
)
def test_half_without_tests_is_fine_only_if_it_was_asked_for(codes: list[int], chosen: bool, success: bool) -> None:
    assert is_success(codes, chosen=chosen) is success
