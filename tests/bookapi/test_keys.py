"""Key folders: made, rotated, replaced, noticed; by processes that die at any point and by those that may not sign."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, partial
from io import StringIO
from itertools import count, cycle
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.test import Client

from bookapi import key_rotation, keys, tokens
from bookapi.key_rotation import Folders, Refused
from bookapi.keys import kid_of, read_private, read_public
from bookapi.models import LoginCounter, RefreshFamily
from tests.bookapi.logins import log_in, make_user, post, refresh, tokens_of, verify

KEEP_S = 14 * 86400


@pytest.fixture
def folders(tmp_path: Path, key_folders: Folders) -> Folders:
    """Keys of this test alone, as they are before the first rotation."""
    mine = Folders(public=tmp_path / "public", private=tmp_path / "private")
    for source, target in ((key_folders.public, mine.public), (key_folders.private, mine.private)):
        target.mkdir()
        for file in source.iterdir():
            (target / file.name).write_bytes(file.read_bytes())
    return mine


@pytest.fixture
def service(folders: Folders, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Folders:
    """This process is the authentication service of those keys, and looks at them every time."""
    monkeypatch.setattr(keys, "LOOK_S", 0.0)
    settings.JWT_PUBLIC_KEYS, settings.JWT_PRIVATE_KEYS = str(folders.public), str(folders.private)
    return folders


@pytest.fixture
def anna(db: None) -> User:
    return make_user()


def public(folders: Folders) -> list[str]:
    return [kid_of(read_public(path)) for path in folders.public_files]


def private(folders: Folders) -> list[str]:
    return [kid_of(read_remembered(path).public_key()) for path in folders.private_files]


def read(access: str) -> int:
    return Client().get("/api/v1/books", headers={"Authorization": f"Bearer {access}"}).status_code


def put_back(folders: Folders, seconds: float) -> None:
    """Have the last rotation be so long ago."""
    then = time.time() - seconds
    os.utime(folders.public_files[0], (then, then))


# --- Making and rotating ----------------------------------------------------------------------------------------------
def test_the_first_keys_are_whole_and_the_private_ones_their_owners(tmp_path: Path) -> None:
    folders = Folders(public=tmp_path / "keys" / "public", private=tmp_path / "keys" / "private")
    before = os.umask(0)
    try:
        assert key_rotation.make(folders) is True
    finally:
        os.umask(before)
    previous, current, ahead = public(folders)
    assert previous == current != ahead
    assert private(folders) == [current, ahead]
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "keys").rglob("*")}
    assert {modes[path] for path in folders.private_files} == {0o600}
    assert {modes[path] for path in folders.public_files} == {0o644}
    assert len(modes) == 2 + 5


def test_making_again_changes_nothing(folders: Folders) -> None:
    before = public(folders)
    assert key_rotation.make(folders) is False
    assert public(folders) == before


def test_making_beside_the_public_keys_of_another_folder_is_refused(folders: Folders, tmp_path: Path) -> None:
    before = public(folders)
    with pytest.raises(Refused, match="right folder"):
        key_rotation.make(Folders(public=folders.public, private=tmp_path / "elsewhere"))
    assert public(folders) == before


def test_a_rotation_moves_every_key_by_one_place(folders: Folders) -> None:
    _, current, ahead = public(folders)
    assert key_rotation.rotate(folders, KEEP_S) is True
    after = public(folders)
    assert after[:2] == [current, ahead]
    assert after[2] not in {current, ahead}
    assert private(folders) == after[1:]


def test_a_second_rotation_waits_for_the_last_refresh_token_of_the_key_that_it_drops(folders: Folders) -> None:
    key_rotation.rotate(folders, KEEP_S)
    before = public(folders)
    put_back(folders, KEEP_S)  # whoever signed with the old key may have gone on for some seconds
    with pytest.raises(Refused, match=r"0\.0 hours"):
        key_rotation.rotate(folders, KEEP_S)
    assert public(folders) == before
    put_back(folders, KEEP_S + 60)
    key_rotation.rotate(folders, KEEP_S)
    assert public(folders)[:2] == before[1:]


def test_of_several_rotations_at_once_one_wins(folders: Folders) -> None:
    before = public(folders)

    def rotate(_: int) -> bool:
        with suppress(Refused):
            return key_rotation.rotate(folders, KEEP_S)
        return False

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(rotate, range(4))) == [False, False, False, True]
    assert public(folders)[:2] == before[1:]


class Killed(BaseException):
    """What kill -9 does, for those who ask at a certain point."""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """New keys from a handful that were made before, each checked once: a pair takes tenths of a second."""
    monkeypatch.setattr(key_rotation, "_new", partial(next, cycle(some_keys())))
    monkeypatch.setattr(key_rotation, "read_private", read_remembered)


@cache
def some_keys() -> list[RSAPrivateKey]:
    return [rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(8)]


def read_remembered(path: Path) -> RSAPrivateKey:
    return loaded(path.read_bytes())


@cache
def loaded(pem: bytes) -> RSAPrivateKey:
    key = load_pem_private_key(pem, password=None)
    assert isinstance(key, RSAPrivateKey)
    return key


def killed_at(point: int, act: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether `act` came to that point, which is before or after the renaming of one of its files."""
    calls = count()
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if next(calls) == point:
            raise Killed
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        try:
            act()
        except Killed:
            return True
        return False


@pytest.mark.usefixtures("quick")
def test_a_rotation_that_is_killed_anywhere_leaves_a_set_that_works_and_is_finished_by_the_next(
    tmp_path: Path, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {path: path.read_bytes() for path in folders.public_files + folders.private_files}
    _, current, ahead = public(folders)
    for point in count():
        for path, content in kept.items():
            path.write_bytes(content)
        if not killed_at(point, lambda: key_rotation.rotate(folders, KEEP_S), monkeypatch):
            break
        assert {current, ahead} <= set(public(folders)), "tokens of before, and what is signed now"
        assert private(folders)[0] in public(folders)
        with suppress(Refused):  # it was killed when nothing was left to do
            key_rotation.rotate(folders, KEEP_S)
        assert public(folders)[:2] == [current, ahead]
        assert private(folders) == public(folders)[1:]
        assert len(set(public(folders))) == 3
        assert list(tmp_path.rglob(".*")) == [], "a draft that holds a private key"
    assert point == 10


@pytest.mark.usefixtures("quick")
def test_making_that_is_killed_anywhere_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for point in count():
        folders = Folders(public=tmp_path / str(point) / "public", private=tmp_path / str(point) / "private")
        if not killed_at(point, lambda made=folders: key_rotation.make(made), monkeypatch):  # type: ignore[misc]
            break
        key_rotation.make(folders)
        assert private(folders) == public(folders)[1:]
        assert public(folders)[0] == public(folders)[1] != public(folders)[2]
    assert point == 10


@pytest.mark.usefixtures("quick")
def test_a_replacement_that_is_killed_anywhere_can_sign_and_is_finished_by_doing_it_again(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    for point in count():
        before = set(public(folders))
        if not killed_at(point, lambda: key_rotation.replace_all(folders), monkeypatch):
            break
        assert private(folders)[0] in public(folders)
        key_rotation.replace_all(folders)
        assert before.isdisjoint(public(folders))
    assert point == 14


def test_keys_that_are_missing_or_no_keys_are_named(folders: Folders) -> None:
    folders.public_files[2].write_text("nonsense")
    with pytest.raises(Refused, match=r"next\.pem holds no key"):
        key_rotation.rotate(folders, KEEP_S)
    folders.private_files[1].unlink()
    folders.public_files[2].unlink()
    with pytest.raises(Refused, match=r"public/next\.pem is missing"):
        key_rotation.rotate(folders, KEEP_S)


# --- The command ------------------------------------------------------------------------------------------------------
def command(*arguments: str) -> str:
    out = StringIO()
    call_command("rotate_keys", *arguments, stdout=out)
    return out.getvalue()


def test_the_command_makes_rotates_refuses_and_replaces(tmp_path: Path, settings: Any) -> None:
    made = command("--make", str(tmp_path))
    assert f"JWT_PUBLIC_KEYS={tmp_path}/public" in made
    assert f"JWT_PRIVATE_KEYS={tmp_path}/private" in made
    assert "nothing was changed" in command("--make", str(tmp_path))
    settings.JWT_PUBLIC_KEYS, settings.JWT_PRIVATE_KEYS = str(tmp_path / "public"), str(tmp_path / "private")
    assert "Reload the gateways" in command()
    with pytest.raises(CommandError, match="--force"):
        command()
    assert "are refused from now on" in command("--force")
    assert "Reload the gateways now" in command("--compromised")


def test_the_command_says_which_settings_it_needs() -> None:
    with pytest.raises(CommandError, match="JWT_PRIVATE_KEYS"):
        command()


# --- Noticing ---------------------------------------------------------------------------------------------------------
def test_rotated_keys_are_noticed_and_log_nobody_out(service: Folders, anna: User) -> None:
    pair = tokens_of()
    assert jwt.get_unverified_header(pair["access"]) == {"alg": "RS256", "typ": "JWT", "kid": public(service)[1]}
    key_rotation.rotate(service, KEEP_S)
    assert read(pair["access"]) == 200
    again = refresh(pair["refresh"])
    assert again.status_code == 200
    assert jwt.get_unverified_header(again.json()["access"])["kid"] == public(service)[1]


@pytest.mark.parametrize("drop", ["force", "compromised"])
def test_a_token_of_a_dropped_key_is_refused_although_it_was_remembered(
    drop: str, service: Folders, anna: User
) -> None:
    pair = tokens_of()
    assert read(pair["access"]) == 200
    if drop == "force":
        key_rotation.rotate(service, KEEP_S)
        assert read(pair["access"]) == 200
        key_rotation.rotate(service, KEEP_S, force=True)
    else:
        key_rotation.replace_all(service)
    assert read(pair["access"]) == 401
    assert refresh(pair["refresh"]).status_code == 401
    assert read(tokens_of()["access"]) == 200


def test_files_are_looked_at_every_few_seconds_and_not_every_time(
    service: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "LOOK_S", 5.0)
    clock = [1000.0]
    watched = keys.Watched(service.public_files, lambda paths: [path.read_bytes() for path in paths], lambda: clock[0])
    before = watched.get()
    key_rotation.rotate(service, KEEP_S)
    clock[0] += 4.9
    assert watched.get() == before
    clock[0] += 0.2
    assert watched.get() == [path.read_bytes() for path in service.public_files]


def test_keys_that_cannot_be_read_any_more_log_nobody_out(service: Folders, anna: User) -> None:
    pair = tokens_of()
    assert read(pair["access"]) == 200
    service.public_files[2].write_text("half a ke")
    assert read(pair["access"]) == 200
    service.public_files[2].unlink()
    assert read(pair["access"]) == 200


def test_a_kid_orders_the_keys_and_does_not_choose(service: Folders, anna: User) -> None:
    claims = jwt.decode(tokens_of()["access"], options={"verify_signature": False})
    signer = read_private(service.private_files[0])
    for kid in (public(service)[2], "nobody's", "../../etc/passwd"):
        assert read(jwt.encode(claims, signer, algorithm="RS256", headers={"kid": kid})) == 200
        assert read(jwt.encode(claims, OTHER, algorithm="RS256", headers={"kid": kid})) == 401
    assert read(jwt.encode(claims, signer, algorithm="RS256")) == 200


# --- Starting ---------------------------------------------------------------------------------------------------------
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def test_missing_keys_stop_the_start_and_are_named(settings: Any, tmp_path: Path) -> None:
    settings.JWT_PUBLIC_KEYS = str(tmp_path)
    with pytest.raises(ImproperlyConfigured, match=r"previous\.pem.*rotate_keys --make"):
        keys.check()


def test_a_private_key_that_nobody_can_verify_stops_the_start(service: Folders) -> None:
    keys.check()
    service.private_files[0].write_bytes(OTHER.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(ImproperlyConfigured, match="JWT_PUBLIC_KEYS does not hold"):
        keys.check()


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(public_exponent=65537, key_size=1024),  # noqa: S505 - the weak key of this test
        ec.generate_private_key(ec.SECP256R1()),
    ],
)
def test_a_key_that_is_short_or_of_another_kind_is_refused(key: Any, folders: Folders, settings: Any) -> None:
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    folders.public_files[1].write_bytes(pem)
    settings.JWT_PUBLIC_KEYS = str(folders.public)
    with pytest.raises(ImproperlyConfigured, match="2048 bits or more"):
        keys.check()


# --- A process without a private key ----------------------------------------------------------------------------------
@pytest.fixture
def replica(service: Folders, anna: User, settings: Any) -> dict[str, Any]:
    """Tokens that the authentication service gave out; this process is another one, which verifies alone."""
    pair = tokens_of()
    settings.JWT_PRIVATE_KEYS = ""
    return pair


def assert_cannot_sign(answer: Any) -> None:
    assert answer.status_code == 503
    assert answer["Content-Type"] == "application/problem+json"
    assert [error["code"] for error in answer.json()["errors"]] == ["not_the_authentication_service"]


def test_a_replica_logs_nobody_in_and_is_no_place_to_guess(replica: dict[str, Any]) -> None:
    keys.check()
    counted = list(LoginCounter.objects.values())
    assert_cannot_sign(log_in())
    assert_cannot_sign(log_in(password="wrong"))
    assert_cannot_sign(post("/api/v1/login", {"username": "anna", "password": "wrong"}))
    assert list(LoginCounter.objects.values()) == counted
    assert RefreshFamily.objects.count() == 1


def test_a_replica_exchanges_no_refresh_token_and_does_not_spend_it(
    replica: dict[str, Any], settings: Any, service: Folders
) -> None:
    assert_cannot_sign(refresh(replica["refresh"]))
    assert_cannot_sign(refresh("nonsense"))
    settings.JWT_PRIVATE_KEYS = str(service.private)
    assert refresh(replica["refresh"]).status_code == 200


def test_a_replica_reads_verifies_and_ends_logins(replica: dict[str, Any]) -> None:
    """What needs the public key and the database alone works everywhere."""
    assert read(replica["access"]) == 200
    assert verify(replica["access"]).status_code == 200
    assert post("/api/v1/auth/logout", {"refresh": replica["refresh"]}).status_code == 204
    assert verify(replica["access"]).status_code == 401


def test_a_replica_cannot_make_tokens_from_code_either(replica: dict[str, Any], anna: User) -> None:
    with pytest.raises(keys.CannotSign):
        tokens.log_in(anna)
    with pytest.raises(keys.CannotSign):
        tokens.rotate(replica["refresh"])
