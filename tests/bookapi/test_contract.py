"""The committed schema is what the code says, and the code answers as the schema says, whatever it is asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from django.conf import settings as django_settings
from django.core.management import call_command
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from bookapi import tokens
from tests.bookapi.logins import make_user
from tests.factories import make_books

SCHEMA = django_settings.BASE_DIR / "docs" / "schema.yml"
#: Every answer is of the documented status, type and shape, and none is a 5xx. That every malformed request is refused
#: is not asked of the checks: an empty parameter is no filter with us, where they would see a missing refusal.
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
schema = schemathesis.openapi.from_path(SCHEMA)
schema.app = get_wsgi_application()


def test_committed_schema_is_what_the_code_says(tmp_path: Path) -> None:
    written = tmp_path / "schema.yml"

    call_command("spectacular", validate=True, fail_on_warn=True, file=str(written))

    assert written.read_text() == SCHEMA.read_text(), "docs/schema.yml is out of date: make schema"


@pytest.fixture
def bearer(db: None) -> Iterator[dict[str, str]]:
    """A reader's token, in a catalogue of a few books. A reader starts no crawl, however often he asks."""
    make_books(5)
    # As Django's own test client does: the end of a request closes the connection that holds the test's transaction.
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield {"Authorization": f"Bearer {tokens.log_in(make_user('reader')).access}"}
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


@schema.parametrize()
@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),  # the fixture is read only
)
def test_answers_are_as_the_schema_says(case: Any, bearer: dict[str, str]) -> None:
    case.call_and_validate(headers=bearer, checks=CHECKS)


def test_projection_of_a_list_is_within_the_schema(bearer: dict[str, str]) -> None:
    case = schema["/api/v1/books"]["GET"].Case(query={"fields": "id,price"})

    response = case.call_and_validate(headers=bearer, checks=CHECKS)

    assert set(response.json()["results"][0]) == {"id", "price"}
