"""What Django does for pages is not done for the API."""

from __future__ import annotations

from django.test import Client


def test_the_api_sets_no_cookie_and_needs_none(client: Client) -> None:
    client.cookies["sessionid"] = "a session that is not there"

    answer = client.get("/api/v1/health/live")

    assert (answer.status_code, answer.cookies) == (200, {})
    assert "Cookie" not in answer.get("Vary", "")
    assert not hasattr(answer.wsgi_request, "session")
