"""Clients that are logged in, for tests of what accounts may ask for."""

from __future__ import annotations

from django.contrib.auth.models import Permission
from django.test import Client

from bookapi import tokens
from tests.bookapi.logins import make_user


def reader(name: str = "rita") -> Client:
    """A client of an account with the role of a reader."""
    return Client(headers={"Authorization": f"Bearer {tokens.log_in(make_user(name)).access}"})


def operator(name: str = "oskar") -> Client:
    """A client of an account that may start crawls."""
    user = make_user(name, is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="start_crawl"))
    return Client(headers={"Authorization": f"Bearer {tokens.log_in(user).access}"})
