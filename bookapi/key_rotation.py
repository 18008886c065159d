"""Makes and moves the keys of `bookapi.keys`, so that a kill at any point leaves a set that works.

The private folder is the truth: `public/current` and `public/next` are always made from it, and a rotation that was
interrupted is finished by the next one. No file is ever missing or half-written: each is written aside and renamed.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from bookapi.keys import LOOK_S, PRIVATE, PUBLIC, UnusableKey, read_private, read_public


class Refused(Exception):
    """The keys were left as they are; the message says why."""


@dataclass(frozen=True, slots=True)
class Folders:
    public: Path
    private: Path

    @property
    def public_files(self) -> list[Path]:
        return [self.public / f"{name}.pem" for name in PUBLIC]

    @property
    def private_files(self) -> list[Path]:
        return [self.private / f"{name}.pem" for name in PRIVATE]


def make(folders: Folders) -> bool:
    """The first keys, where there are none: False if there were. Raises Refused."""
    with _held(folders):
        there = [path for path in folders.public_files + folders.private_files if path.exists()]
        if len(there) == len(PUBLIC) + len(PRIVATE):
            return False
        if any(path.parent == folders.public for path in there) and not all(p.exists() for p in folders.private_files):
            raise Refused(f"{folders.public} holds keys, {folders.private} does not: is it the right folder?")
        for path in folders.private_files:
            if not path.exists():
                _write_private(path, _new())
        _settle(folders)
        return True


def rotate(folders: Folders, keep_s: float, *, force: bool = False) -> bool:
    """Next becomes current, current becomes previous; False if this finished a rotation that was interrupted.

    Raises:
        Refused: the last rotation was less than `keep_s` ago, and tokens that its previous key signed are still good;
            or somebody else rotates; or there are no keys.
    """
    with _held(folders):
        previous, current, _ = (_read_public(path) for path in folders.public_files)
        if not _is_settled(folders):
            _settle(folders)
            return False
        # Whoever signed with the old key went on for some seconds.
        left = _rotated_at(folders) + keep_s + 2 * LOOK_S - time.time()
        if previous != current and left > 0 and not force:
            raise Refused(
                f"The last rotation was too short ago: for another {_duration(left)} there may be good refresh tokens"
                " of the previous key, and this would end them. --force does it anyway."
            )
        _write_public(folders.public_files[0], current)
        _write_private(folders.private_files[0], _read_private(folders.private_files[1]))
        _settle(folders)
        return True


def replace_all(folders: Folders) -> None:
    """New keys throughout; no token that was signed before is accepted. Raises Refused.

    The next key lay beside the current one, so whoever read one has read both.
    """
    with _held(folders):
        key = _new()
        _write_private(folders.private_files[1], key)
        _write_public(folders.public_files[2], key.public_key())  # known before it signs
        _write_private(folders.private_files[0], key)
        _write_public(folders.public_files[0], key.public_key())
        _settle(folders)


def _is_settled(folders: Folders) -> bool:
    current, ahead = (_read_private(path).public_key() for path in folders.private_files)
    return current != ahead and [current, ahead] == [_read_public(path) for path in folders.public_files[1:]]


def _settle(folders: Folders) -> None:
    """The public folder as the private one wants it, which gets a next key if it has none of its own."""
    current, ahead = (_read_private(path) for path in folders.private_files)
    if current.public_key() == ahead.public_key():
        ahead = _new()
        _write_private(folders.private_files[1], ahead)
    for path, key in zip(folders.public_files[1:], (current, ahead), strict=True):
        _write_public(path, key.public_key())
    if not folders.public_files[0].exists():
        _write_public(folders.public_files[0], current.public_key())


def _rotated_at(folders: Folders) -> float:
    """When the previous key stopped signing, in seconds since 1970. A copied file is younger, which errs to be safe."""
    return folders.public_files[0].stat().st_mtime


def _duration(seconds: float) -> str:
    return f"{seconds / 86400:.1f} days" if seconds >= 86400 else f"{seconds / 3600:.1f} hours"


# --- Files ------------------------------------------------------------------------------------------------------------
@contextmanager
def _held(folders: Folders) -> Iterator[None]:
    """The folders, made if they were missing, for us alone; whoever dies holds nothing. Raises Refused."""
    try:
        folders.private.mkdir(mode=0o700, parents=True, exist_ok=True)
        folders.public.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(folders.private, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for leftover in (*folders.private.glob(".*.aside"), *folders.public.glob(".*.aside")):
                leftover.unlink()  # of one that was killed: it may hold a private key
            yield
        finally:
            os.close(descriptor)
    except BlockingIOError:
        raise Refused("Another rotation is under way.") from None
    except FileNotFoundError as error:
        raise Refused(f"{error.filename} is missing. --make makes the first keys.") from None
    except OSError as error:
        raise Refused(f"The keys cannot be moved: {error}") from error


def _new() -> RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _read_private(path: Path) -> RSAPrivateKey:
    try:
        return read_private(path)
    except UnusableKey as error:
        raise Refused(str(error)) from error


def _read_public(path: Path) -> RSAPublicKey:
    try:
        return read_public(path)
    except UnusableKey as error:
        raise Refused(str(error)) from error


def _write_private(path: Path, key: RSAPrivateKey) -> None:
    _write(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)


def _write_public(path: Path, key: RSAPublicKey) -> None:
    _write(path, key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), 0o644)


def _write(path: Path, content: bytes, mode: int) -> None:
    """The whole file or the one before it, through a kill and a power cut."""
    aside = path.with_name(f".{path.name}.aside")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)  # whatever the umask is
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    aside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
