"""`manage.py rotate_keys`: make the keys that sign tokens, and replace them by and by or at once."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from bookapi import key_rotation
from bookapi.key_rotation import Folders, Refused
from bookapi.keys import LOOK_S

RELOAD = f"The services notice within {LOOK_S:.0f} s. Reload the gateways, which read keys only then."


class Command(BaseCommand):
    help = (
        "Rotate the keys in JWT_PUBLIC_KEYS and JWT_PRIVATE_KEYS: next becomes current, current becomes previous. "
        "Nobody is logged out, if the rotation before was more than the life of a refresh token ago."
    )
    # The keys that the checks ask for are what this makes.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        how = parser.add_mutually_exclusive_group()
        how.add_argument(
            "--make", metavar="DIR", type=Path, help="make the first keys, in DIR/public and DIR/private, if not there"
        )
        how.add_argument(
            "--force", action="store_true", help="rotate although it ends logins that the previous key signed"
        )
        how.add_argument(
            "--compromised", action="store_true", help="replace every key at once: everybody has to log in again"
        )

    def handle(self, *, make: Path | None, force: bool, compromised: bool, **_: Any) -> None:
        try:
            if make is not None:
                self._make(Folders(public=make / "public", private=make / "private"))
            elif compromised:
                key_rotation.replace_all(_configured())
                self.stdout.write("All keys are new, and every token from before is refused.")
                self.stdout.write("Reload the gateways now: until then they refuse new tokens and take old ones.")
            elif key_rotation.rotate(_configured(), settings.REFRESH_TOKEN_S, force=force):
                self.stdout.write(f"Rotated. {RELOAD} They know the key that signs now already: there is no hurry.")
                if force:
                    self.stdout.write("Refresh tokens from before the last rotation but one are refused from now on.")
            else:
                self.stdout.write(f"Finished a rotation that was interrupted. {RELOAD}")
        except Refused as error:
            raise CommandError(str(error)) from error

    def _make(self, folders: Folders) -> None:
        if not key_rotation.make(folders):
            self.stdout.write("There are keys already; nothing was changed.")
            return
        self.stdout.write(f"Made. JWT_PUBLIC_KEYS={folders.public} for every service and the gateway;")
        self.stdout.write(f"JWT_PRIVATE_KEYS={folders.private} for the authentication service alone.")


def _configured() -> Folders:
    if not (settings.JWT_PUBLIC_KEYS and settings.JWT_PRIVATE_KEYS):
        raise CommandError("JWT_PUBLIC_KEYS and JWT_PRIVATE_KEYS name the folders to rotate; they are not set.")
    return Folders(public=Path(settings.JWT_PUBLIC_KEYS), private=Path(settings.JWT_PRIVATE_KEYS))
