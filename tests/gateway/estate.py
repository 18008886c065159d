"""What stands behind the gateway in its tests: an authentication service that signs, and two replicas that cannot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from bookapi import key_rotation
from bookapi.key_rotation import Folders
from bookapi.processes import Child
from bookapi.serving import free_port, server_command
from deploy.gateway import Gateway, render_backends, running
from deploy.programs import Program, says_ok

ROOT = Path(__file__).resolve().parent.parent.parent
ACCOUNTS = ("anna", "bert")
BOOKS = 60
PASSWORD = "a quiet afternoon among old books"
#: More than any test asks for: the limits have gateways of their own.
NO_LIMITS = {
    "GATEWAY_LIMIT_ACCOUNT": "1000000",
    "GATEWAY_LIMIT_ADDRESS": "1000000",
    "GATEWAY_LIMIT_LOGIN": "1000000",
    "GATEWAY_FLOOD": "1000000",
}

FILLING = f"""
import django, json, sys
django.setup()
from django.contrib.auth.models import User
from django.core.management import call_command
call_command("migrate", verbosity=0)
from benchmarks.filling import fill
fill({BOOKS})
for name in {ACCOUNTS!r}:
    User.objects.create_user(name, password={PASSWORD!r})
"""


@dataclass(frozen=True)
class Estate:
    """The processes behind the gateway, and what they share."""

    folder: Path
    keys: Folders
    environment: dict[str, str]
    auth: Program
    api: tuple[Program, ...]
    processes: dict[str, Child]  # by the name of the program

    def backends(self, api: list[str] | None = None) -> str:
        auth, replicas = address_of(self.auth), [address_of(program) for program in self.api]
        return render_backends(auth=[auth], api=replicas if api is None else api, admin=[auth])

    def log_of(self, program: Program, request_id: str) -> list[dict[str, Any]]:
        return [line for line in lines(program.log) if line.get("request_id") == request_id]


@contextmanager
def estate(folder: Path) -> Iterator[Estate]:
    keys = Folders(public=folder / "keys" / "public", private=folder / "keys" / "private")
    key_rotation.make(keys)
    environment = {
        "ENVIRONMENT": "production",
        "ALLOWED_HOSTS": "127.0.0.1,localhost",
        "SECRET_KEY": "only for the tests of the gateway, and long enough",
        "VAR_DIR": str(folder),
        "DATABASE_URL": "",
        "BROKER_URL": "",
        "CACHE_URL": "",
        "TRUSTED_PROXIES": "1",
        "LOGIN_ATTEMPTS": "2",
        "RATE_LIMIT_ACCOUNT": "off",
        "RATE_LIMIT_ADDRESS": "off",
        "JWT_PUBLIC_KEYS": str(keys.public),
        "JWT_PRIVATE_KEYS": "",
        "DJANGO_SETTINGS_MODULE": "bookapi.settings",
        "LOG_FORMAT": "json",
    }
    signing = {"JWT_PRIVATE_KEYS": str(keys.private)}
    auth = application("auth", folder, environment | signing)
    api = tuple(application(f"api{number}", folder, environment) for number in (1, 2))
    processes = {program.name: program.start() for program in (auth, *api)}
    try:
        # Meanwhile, since starting takes most of the time; none of them is ready without the tables.
        environ = {**os.environ, **environment, **signing}
        subprocess.run([sys.executable, "-c", FILLING], cwd=ROOT, env=environ, check=True, timeout=120)
        for program in (auth, *api):
            program.wait(processes[program.name])
        yield Estate(folder, keys, environment, auth, api, processes)
    finally:
        for process in processes.values():  # a test may have put another one in the place of the first
            process.ask_to_stop()
        for process in processes.values():
            process.stop()


def application(name: str, folder: Path, environment: dict[str, str]) -> Program:
    """The product as its server runs it."""
    port = free_port()
    return Program(
        name,
        server_command("127.0.0.1", port),
        ROOT,
        folder / f"{name}.log",
        lambda: says_ok(port, "/api/v1/health/ready"),
        f"http://127.0.0.1:{port}",
        environment=environment,
    )


def address_of(program: Program) -> str:
    return program.url.removeprefix("http://")


@dataclass(frozen=True)
class Door:
    """A running gateway, as clients and operators see it."""

    gateway: Gateway
    process: Child
    estate: Estate

    @property
    def url(self) -> str:
        return self.gateway.url

    def ask(self, path: str, token: str = "", method: str = "GET", **options: Any) -> requests.Response:
        headers = {**({"Authorization": f"Bearer {token}"} if token else {}), **options.pop("headers", {})}
        return requests.request(
            method, f"{self.url}{path}", headers=headers, timeout=20, allow_redirects=False, **options
        )

    def line_of(self, request_id: str) -> dict[str, Any]:
        """Its log line, which is written after the answer has gone."""
        (line,) = until(lambda: [line for line in lines(self.gateway.log) if line["request_id"] == request_id])
        return line


@contextmanager
def door(
    behind: Estate, folder: Path, backends: str = "", certificate: Path | None = None, **settings: str
) -> Iterator[Door]:
    """A gateway before the estate, without limits but those that are given."""
    gateway = Gateway(folder, behind.keys.public, certificate, NO_LIMITS | settings)
    with running(gateway, backends or behind.backends()) as process:
        yield Door(gateway, process, behind)


def until(look: Callable[[], Any], seconds: float = 10.0) -> Any:
    """What it finds, once it finds something."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
    return found


def lines(log: Path) -> list[dict[str, Any]]:
    """What a log has of JSON. A line that begins like one and is none is an error."""
    text = log.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]
