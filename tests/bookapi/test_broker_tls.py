"""With amqps://, whoever has a certificate of another host gets neither the password nor a message."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.certificates import self_signed

ROOT = Path(__file__).parents[2]
TALK = """
import django
django.setup()
from contextlib import suppress
from bookapi.metrics import depths
from bookapi.publishing import publish
with suppress(Exception):
    publish("bookapi.tasks.train", 1)
with suppress(Exception):
    list(depths())
"""


@contextmanager
def listening(certificate: Path) -> Iterator[tuple[int, list[bytes]]]:
    """Its port, and the first words of whoever finds the certificate good."""
    heard: list[bytes] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def serve() -> None:
        with suppress(OSError):  # closed
            while True:
                connection, _ = server.accept()
                with suppress(OSError), context.wrap_socket(connection, server_side=True) as secure:
                    secure.settimeout(5)
                    heard.append(secure.recv(8))

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1], heard
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)


@pytest.mark.parametrize(("address", "speaks"), [("127.0.0.1", True), ("127.0.0.2", False)])
def test_the_broker_is_the_host_of_its_address(tmp_path: Path, address: str, speaks: bool) -> None:
    certificate = self_signed(tmp_path / "broker.pem", address)
    with listening(certificate) as (port, heard):
        environment = {
            "DJANGO_SETTINGS_MODULE": "bookapi.settings",
            "VAR_DIR": str(tmp_path),
            "BROKER_URL": f"amqps://books:secret@127.0.0.1:{port}/",
            "SSL_CERT_FILE": str(certificate),
        }
        subprocess.run(
            [sys.executable, "-c", TALK], cwd=ROOT, env={**os.environ, **environment}, check=True, timeout=60
        )
    assert set(heard) - {b""} == ({b"AMQP\x00\x00\x09\x01"} if speaks else set())
