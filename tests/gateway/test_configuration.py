"""The files that containers use, the switches, and the gateway's own door."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, suppress
from pathlib import Path

import pytest
import requests

from bookapi import settings
from bookapi.rates import Rate, parse_rate
from bookapi.serving import free_port
from deploy.gateway import CONFIGURATION, CONTAINERS, Refused, check
from tests.gateway.estate import ROOT, Door, Estate, until
from tests.gateway.listener import listening

Another = Callable[..., AbstractContextManager[Door]]


def test_haproxy_accepts_both_files_of_backends_without_a_warning(behind: Estate, tmp_path: Path) -> None:
    local = tmp_path / "local.cfg"
    local.write_text(behind.backends())
    for backends in (CONTAINERS, local):
        check(backends, {"JWT_PUBLIC_KEYS": str(behind.keys.public)})
    with pytest.raises(Refused, match="failed to open"):
        check(CONTAINERS, {"JWT_PUBLIC_KEYS": str(tmp_path)})


def test_what_is_set_in_two_places_is_the_same_in_both() -> None:
    text = CONFIGURATION.read_text()
    defaults = dict(re.findall(r"^    presetenv (\w+) (\S+)$", text, re.MULTILINE))
    example = (ROOT / ".env.example").read_text()
    window = int(defaults["GATEWAY_WINDOW_S"])
    for name in ("ACCOUNT", "ADDRESS"):
        (rate,) = re.findall(rf"^#RATE_LIMIT_{name}=(\S+)$", example, re.MULTILINE)
        assert parse_rate(rate) == Rate(int(defaults[f"GATEWAY_LIMIT_{name}"]), window)
    (lifetime,) = re.findall(r"^#ACCESS_TOKEN_S=(\d+)$", example, re.MULTILINE)
    assert defaults["ACCESS_TOKEN_S"] == lifetime
    assert f"gt {settings.DATA_UPLOAD_MAX_MEMORY_SIZE} }}" in text
    described = set(re.findall(r"^#     ([A-Z_]+) ", text, re.MULTILINE))
    assert set(defaults) | {"GATEWAY_CERTIFICATE"} == described


def test_public_read_opens_reads_alone(another: Another, token: str) -> None:
    with another(GATEWAY_PUBLIC_READ="true") as gateway:

        def reached(method: str, headers: dict[str, str]) -> bool:
            """Whether the API was asked, which here lets nobody read without a token."""
            answer = gateway.ask("/api/v1/books", method=method, headers=headers)
            return bool(gateway.line_of(answer.headers["X-Request-ID"])["server"] != "<NOSRV>")

        assert reached("GET", {})
        assert reached("HEAD", {})
        assert reached("GET", {"Authorization": f"Bearer {token}"})
        assert not reached("POST", {})
        assert not reached("DELETE", {})
        # A token that is wrong is an error, as in the API: its owner thinks that she is known.
        assert not reached("GET", {"Authorization": "Bearer no.good.token"})
        assert not reached("GET", {"Authorization": "Bearer"})


def test_a_switch_that_is_not_understood_stops_the_start(behind: Estate) -> None:
    with pytest.raises(Refused, match="GATEWAY_PUBLIC_READ: say true or false"):
        check(CONTAINERS, {"JWT_PUBLIC_KEYS": str(behind.keys.public), "GATEWAY_PUBLIC_READ": "yes"})


def test_metrics_and_health_of_the_gateway_have_their_own_door(another: Another, behind: Estate) -> None:
    with listening() as server, another(behind.backends(api=[server.address])) as gateway:
        internal = f"http://127.0.0.1:{gateway.gateway.internal_port}"
        assert gateway.ask("/api/v1/books").status_code == 401
        metrics = requests.get(f"{internal}/metrics", timeout=20).text
        assert 'haproxy_frontend_http_responses_total{proxy="clients",code="4xx"} 1' in metrics
        assert requests.get(f"{internal}/health/ready", timeout=20).status_code == 200
        assert requests.get(f"{internal}/api/v1/books", timeout=20).status_code == 404
        gateway.gateway.write(behind.backends(api=[f"127.0.0.1:{free_port()}"]))
        gateway.gateway.reload(gateway.process)
        until(lambda: requests.get(f"{internal}/health/ready", timeout=20).status_code == 503)
        assert requests.get(f"{internal}/health/live", timeout=20).status_code == 200


def test_an_address_has_so_many_connections(another: Another) -> None:
    """Whoever opens them and sends nothing leaves room for others."""
    with another(GATEWAY_CONNECTIONS="3") as gateway:
        clients = [connected(gateway) for _ in range(6)]
        assert sum(map(is_answered, clients)) == 3
        until(lambda: is_answered(connected(gateway)))


def connected(gateway: Door) -> socket.socket:
    """A connection, which may have been reset already."""
    client = socket.socket()
    client.settimeout(20)
    with suppress(ConnectionError):
        client.connect(("127.0.0.1", gateway.gateway.port))
    return client


def is_answered(client: socket.socket) -> bool:
    """Whether it is still there. It is closed by this."""
    with closing(client), suppress(OSError):
        client.sendall(b"GET /api/v1/nothing HTTP/1.1\r\nHost: x\r\n\r\n")
        return client.recv(12) == b"HTTP/1.1 401"
    return False
