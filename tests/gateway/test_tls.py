"""With a certificate, clients are served over TLS alone."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path

import pytest
import requests

from tests.certificates import self_signed
from tests.gateway.estate import Door, Estate
from tests.gateway.listener import listening

Another = Callable[..., AbstractContextManager[Door]]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and certificate of 127.0.0.1, signed by itself."""
    return self_signed(tmp_path_factory.mktemp("tls") / "gateway.pem")


@pytest.fixture
def secure(another: Another, certificate: Path) -> Iterator[Door]:
    with another(certificate=certificate) as gateway:
        yield gateway


def test_books_are_read_over_tls_and_the_api_knows(
    another: Another, behind: Estate, certificate: Path, token: str
) -> None:
    with listening() as server, another(behind.backends(api=[server.address]), certificate) as gateway:
        url = f"https://127.0.0.1:{gateway.gateway.tls_port}/api/v1/books"
        answer = requests.get(url, headers={"Authorization": f"Bearer {token}"}, verify=str(certificate), timeout=20)
        assert answer.status_code == 200
        assert gateway.line_of(answer.headers["X-Request-ID"])["tls"] == "TLSv1.3"
    ((_, head),) = server.heard
    assert head["x-forwarded-proto"] == "https"


def test_without_tls_one_is_only_told_where_to_go(secure: Door, token: str) -> None:
    for path in ("/api/v1/books?page_size=5", "/admin/"):
        answer = secure.ask(path, token)
        assert (answer.status_code, answer.headers["Location"]) == (308, secure.url.replace("http:", "https:") + path)


@pytest.mark.parametrize(("version", "is_spoken"), [("TLSv1_1", False), ("TLSv1_2", True), ("TLSv1_3", True)])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_old_tls_is_not_spoken(secure: Door, certificate: Path, version: str, is_spoken: bool) -> None:
    context = ssl.create_default_context(cafile=str(certificate))
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    context.set_ciphers("ALL:@SECLEVEL=0")  # or this side would refuse
    context.set_alpn_protocols(["h2", "http/1.1"])
    with closing(socket.create_connection(("127.0.0.1", secure.gateway.tls_port), timeout=20)) as plain:
        if not is_spoken:
            with pytest.raises(ssl.SSLError):
                context.wrap_socket(plain, server_hostname="127.0.0.1")
            return
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as client:
            assert client.selected_alpn_protocol() == "h2"
            assert "GCM" in client.cipher()[0] or "CHACHA20" in client.cipher()[0]
