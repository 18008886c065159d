"""`manage.py create_account NAME --role ROLE`: make an account, and show its password once."""

from __future__ import annotations

import secrets
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from bookapi.accounts import ROLES, create_account


class Command(BaseCommand):
    help = "Make an account. Without --password-stdin a password is generated and printed, this once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name")
        parser.add_argument("--role", choices=ROLES, required=True)
        parser.add_argument(
            "--password-stdin",
            action="store_true",
            help="read the password from the first line of standard input; it is never an argument, which others see",
        )

    def handle(self, *, name: str, role: Any, password_stdin: bool, **_: Any) -> None:
        given = sys.stdin.readline().rstrip("\r\n") if password_stdin else ""
        password = given if password_stdin else secrets.token_urlsafe(18)
        try:
            create_account(name, role, password)
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from error
        except DatabaseError as error:
            raise CommandError(f"The database answers: {error}. Has `manage.py migrate` run?") from error
        self.stdout.write(f"Account {name} ({role}) made.")
        if not password_stdin:
            self.stdout.write(f"Password, shown this once: {password}")
