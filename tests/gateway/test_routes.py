"""Which service is asked, and what is nowhere."""

from __future__ import annotations

import pytest

from tests.gateway.estate import Door


@pytest.mark.parametrize(
    ("path", "backend"),
    [
        ("/", "api"),
        ("/api/v1/docs", "api"),
        ("/api/v1/health", "api"),
        ("/api/v1/books", "api"),
        ("/api/v1/login", "auth"),
        ("/api/v1/auth/login", "auth"),
        ("/admin/", "admin"),
        ("/static/admin/css/base.css", "admin"),
    ],
)
def test_each_path_has_its_service(front: Door, token: str, path: str, backend: str) -> None:
    answer = front.ask(path, token)
    assert answer.status_code in {200, 302, 404, 405}, answer.text
    assert front.line_of(answer.headers["X-Request-ID"])["backend"] == backend
