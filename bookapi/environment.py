"""Typed readers of environment variables that refuse what they do not understand."""

from __future__ import annotations

import os
import secrets
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

ESCAPES = "In a password, /, ?, #, [, ], @ and % are written as %2F, %3F, %23, %5B, %5D, %40 and %25."


def text(name: str, default: str = "") -> str:
    """The variable NAME, or the contents of the file that NAME_FILE names (container secrets)."""
    if path := os.environ.get(f"{name}_FILE"):
        try:
            return Path(path).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ImproperlyConfigured(f"{name}_FILE: {error}") from error
    return os.environ.get(name) or default


def boolean(name: str, default: bool) -> bool:
    """True or false; "yes", "1" and typing errors are refused, so that nothing is turned off by mistake."""
    value = text(name, str(default)).lower()
    if value not in {"true", "false"}:
        raise ImproperlyConfigured(f"{name} is {value!r}: say true or false.")
    return value == "true"


def integer(name: str, default: int, *, minimum: int = 0, maximum: int = 2**31 - 1) -> int:
    """A whole number within its bounds."""
    value = text(name, str(default))
    try:
        number = int(value)
    except ValueError:
        raise ImproperlyConfigured(f"{name} is {value!r}: a whole number is needed.") from None
    if not minimum <= number <= maximum:
        raise ImproperlyConfigured(f"{name} is {number}: {minimum} to {maximum} is allowed.")
    return number


def number(name: str, default: float, *, minimum: float, maximum: float) -> float:
    """A decimal number within its bounds."""
    value = text(name, str(default))
    try:
        result = float(value)
    except ValueError:
        raise ImproperlyConfigured(f"{name} is {value!r}: a number is needed.") from None
    if not minimum <= result <= maximum:
        raise ImproperlyConfigured(f"{name} is {value}: {minimum} to {maximum} is allowed.")
    return result


def words(name: str, default: Sequence[str] = ()) -> list[str]:
    """A list, separated by commas."""
    return [word.strip() for word in text(name).split(",") if word.strip()] or list(default)


def choice(name: str, default: str, allowed: Sequence[str]) -> str:
    """One of a few words."""
    value = text(name, default)
    if value not in allowed:
        raise ImproperlyConfigured(f"{name} is {value!r}: choose from {', '.join(allowed)}.")
    return value


def web_address(name: str, default: str = "") -> str:
    """An http(s) address without a trailing slash, or nothing."""
    value = text(name, default).rstrip("/")
    if value:
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ImproperlyConfigured(f"{name} is {value!r}: a full http:// or https:// address is needed.")
    return value


def address(name: str, schemes: Collection[str]) -> str:
    """The address of a service, or nothing. No message repeats any of it: it may hold a password."""
    value = text(name)
    if value:
        try:
            parts = urlsplit(value)
            _ = parts.port
        except ValueError:  # which quotes the first half of a password that holds a "/"
            raise ImproperlyConfigured(f"{name} is no address. {ESCAPES}") from None
        if parts.scheme not in schemes or not parts.hostname:
            known = " or ".join(f"{scheme}://" for scheme in sorted(schemes))
            raise ImproperlyConfigured(f"{name} must be an address that begins with {known}.")
    return value


def kept_secret(path: Path) -> str:
    """The secret in `path`, made on first use and readable by its owner alone.

    Written aside and linked into place, so that two processes that start at once agree on one.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_urlsafe(64), encoding="ascii")
        with suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
    return path.read_text(encoding="ascii")
