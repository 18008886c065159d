"""Django's middleware for pages that people use: sessions, their accounts, messages.

The API knows accounts by their tokens. Below /api these are passed by: nobody there is logged in by a cookie, and
every request is spared a tenth of its time.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from bookapi.errors import API_PREFIX


class _ForPages:
    get_response: Any

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path_info.startswith(API_PREFIX):
            answer: HttpResponseBase = self.get_response(request)
        else:
            answer = super().__call__(request)  # type: ignore[misc]
        return answer


class Sessions(_ForPages, SessionMiddleware):
    pass


class Accounts(_ForPages, AuthenticationMiddleware):
    pass


class Messages(_ForPages, MessageMiddleware):
    pass
