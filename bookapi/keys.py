"""The keys that sign and verify tokens: one secret by default, RSA pairs in two folders in the scale-out profile.

    public/previous.pem  public/current.pem  public/next.pem     SubjectPublicKeyInfo, for whoever verifies
    private/current.pem  private/next.pem                        PKCS8, for the authentication service alone

Tokens are signed with `private/current.pem`; all three public keys are accepted. The next pair is made one rotation
ahead, so every verifier knows a key before it signs, and no order of restarts matters. All five files always exist:
before the first rotation, previous equals current. `bookapi.key_rotation` makes and moves them.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

logger = logging.getLogger(__name__)

T = TypeVar("T")

PUBLIC = ("previous", "current", "next")
PRIVATE = ("current", "next")
#: Seconds between looks for new files: so long after a rotation, a dropped key is still accepted.
LOOK_S = 5.0
MIN_BITS = 2048


class CannotSign(Exception):
    """This process has no private key: tokens are made by the authentication service."""

    def __str__(self) -> str:
        return self.__class__.__doc__ or ""


class UnusableKey(Exception):
    """A file is not the key that its name promises; the message says which and why."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """What new tokens are signed with."""

    algorithm: str
    key: Any  # what PyJWT takes: a secret or an RSA private key
    kid: str | None


@dataclass(frozen=True, slots=True, eq=False)
class VerifyingKeys:
    """What tokens are verified with: one object until the files change. The algorithm is ours, never the token's."""

    algorithm: str
    keys: tuple[tuple[str, Any], ...]  # (kid, what PyJWT takes), each once

    def for_token(self, kid: object) -> list[Any]:
        """Every key, the one that the token names first: a header orders them, it never chooses."""
        return [key for _, key in sorted(self.keys, key=lambda pair: pair[0] != kid)]


def signing_key() -> SigningKey:
    """The key of new tokens. Raises CannotSign where there is none."""
    if not settings.JWT_PUBLIC_KEYS:
        return SigningKey("HS256", settings.SECRET_KEY, None)
    if not settings.JWT_PRIVATE_KEYS:
        raise CannotSign
    return _private(settings.JWT_PRIVATE_KEYS).get()


def verifying_keys() -> VerifyingKeys:
    """The keys of tokens that are accepted now. Looks at the files every few seconds."""
    if not settings.JWT_PUBLIC_KEYS:
        return _of_secret(settings.SECRET_KEY)
    return _public(settings.JWT_PUBLIC_KEYS).get()


def check() -> None:
    """Return if this process can verify, and sign what it verifies. Raises ImproperlyConfigured."""
    known = {kid for kid, _ in verifying_keys().keys}
    if settings.JWT_PRIVATE_KEYS and signing_key().kid not in known:
        raise ImproperlyConfigured("JWT_PRIVATE_KEYS holds a key whose public half JWT_PUBLIC_KEYS does not hold.")


# --- Reading ----------------------------------------------------------------------------------------------------------
def read_public(path: Path) -> RSAPublicKey:
    """Raises OSError, UnusableKey."""
    key = _loaded(path, load_pem_public_key)
    if not isinstance(key, RSAPublicKey) or key.key_size < MIN_BITS:
        raise UnusableKey(f"{path} holds no RSA public key of {MIN_BITS} bits or more.")
    return key


def read_private(path: Path) -> RSAPrivateKey:
    """Raises OSError, UnusableKey."""
    key = _loaded(path, lambda pem: load_pem_private_key(pem, password=None))
    if not isinstance(key, RSAPrivateKey) or key.key_size < MIN_BITS:
        raise UnusableKey(f"{path} holds no RSA private key of {MIN_BITS} bits or more.")
    return key


def _loaded(path: Path, load: Callable[[bytes], object]) -> object:
    try:
        return load(path.read_bytes())
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UnusableKey(f"{path} holds no key in PEM: {error}") from error


def kid_of(key: RSAPublicKey) -> str:
    """A short name of the key, the same wherever it is computed."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()[:16]


class Watched(Generic[T]):
    """What some files say, read again after they changed.

    Files that cannot be read any more leave what was read last: a disk that is away for a moment logs nobody out.
    """

    def __init__(
        self, paths: Sequence[Path], read: Callable[[Sequence[Path]], T], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.paths = paths
        self.read = read
        self.clock = clock
        self._known: tuple[object, T] | None = None  # what the files looked like, and what they said
        self._look_at = 0.0
        self._lock = threading.Lock()

    def get(self) -> T:
        """Raises ImproperlyConfigured if they could never be read."""
        known = self._known
        if known is not None and self.clock() < self._look_at:
            return known[1]
        with self._lock:  # one looks; the others wait for a few calls of stat
            if self._known is None or self.clock() >= self._look_at:
                self._look()
            assert self._known is not None  # noqa: S101 - _look raises otherwise
            return self._known[1]

    def _look(self) -> None:
        try:
            seen = self._marks()
            if self._known is None or self._known[0] != seen:
                value = self.read(self.paths)
                # A rotation in between could have shown a file from before it and one from after it.
                while (again := self._marks()) != seen:
                    seen, value = again, self.read(self.paths)
                if self._known is not None:
                    logger.info("new keys", extra={"folder": str(self.paths[0].parent)})
                self._known = (seen, value)
        except (OSError, UnusableKey) as error:
            if self._known is None:
                raise ImproperlyConfigured(f"{error} `manage.py rotate_keys --make` makes the keys.") from error
            logger.warning("keys cannot be read; the known ones stay", extra={"error": str(error)})
        self._look_at = self.clock() + LOOK_S

    def _marks(self) -> list[tuple[int, int, int]]:
        return [(s.st_ino, s.st_mtime_ns, s.st_size) for s in (path.stat() for path in self.paths)]


@cache
def _public(folder: str) -> Watched[VerifyingKeys]:
    def read(paths: Sequence[Path]) -> VerifyingKeys:
        by_kid = {kid_of(key): key for key in map(read_public, paths)}
        return VerifyingKeys("RS256", tuple(by_kid.items()))

    return Watched([Path(folder, f"{name}.pem") for name in PUBLIC], read)


@cache
def _private(folder: str) -> Watched[SigningKey]:
    def read(paths: Sequence[Path]) -> SigningKey:
        key = read_private(paths[0])
        return SigningKey("RS256", key, kid_of(key.public_key()))

    return Watched([Path(folder, "current.pem")], read)


@cache
def _of_secret(secret: str) -> VerifyingKeys:
    return VerifyingKeys("HS256", (("", secret),))
