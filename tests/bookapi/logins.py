"""Accounts and logins for the tests of authentication."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from django.contrib.auth.hashers import PBKDF2PasswordHasher, make_password
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client

PASSWORD = "a quiet afternoon among old books"


class QuickHasher(PBKDF2PasswordHasher):
    """One round, so that a test does not wait for what makes passwords safe."""

    iterations = 1


QUICK_HASHERS = ["tests.bookapi.logins.QuickHasher"]


def make_user(name: str = "anna", **fields: Any) -> User:
    return User.objects.create(username=name, password=make_password(PASSWORD), **fields)


def log_in(name: str = "anna", password: str = PASSWORD, address: str = "192.0.2.1") -> Any:
    return post("/api/v1/auth/login", {"username": name, "password": password}, address=address)


def tokens_of(name: str = "anna") -> dict[str, Any]:
    answer = log_in(name)
    assert answer.status_code == 200, answer.content
    body: dict[str, Any] = answer.json()
    return body


def post(path: str, body: Any, *, address: str = "192.0.2.1", **headers: str) -> Any:
    return Client().post(path, body, content_type="application/json", REMOTE_ADDR=address, headers=headers)


def refresh(token: str) -> Any:
    return post("/api/v1/auth/refresh", {"refresh": token})


def verify(token: str) -> Any:
    return post("/api/v1/auth/verify", {"token": token})


def all_at_once(n: int, act: Callable[[int], Any]) -> list[Any]:
    """What `act(0)` ... `act(n - 1)` answer, started together in threads with a database connection each."""
    barrier = threading.Barrier(n)
    results: list[Any] = [None] * n

    def run(i: int) -> None:
        try:
            connection.ensure_connection()
            barrier.wait(timeout=30)
            results[i] = act(i)
        except BaseException as error:  # the main thread has to see it
            results[i] = error
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results
