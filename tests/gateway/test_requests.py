"""What reaches the API of a request, what does not, and what the log says of both."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager, closing

import pytest

from bookapi.serving import free_port
from tests.gateway.estate import BOOKS, Door, Estate, lines, until
from tests.gateway.listener import listening

Another = Callable[..., AbstractContextManager[Door]]


# --- Ids --------------------------------------------------------------------------------------------------------------
def test_one_id_goes_from_the_client_through_every_log_to_the_answer(front: Door, behind: Estate, token: str) -> None:
    answer = front.ask("/api/v1/books/0", token, headers={"X-Request-ID": "follow-me.1"})
    assert answer.headers["X-Request-ID"] == answer.json()["request_id"] == "follow-me.1"
    line = front.line_of("follow-me.1")
    assert (line["status"], line["path"], line["backend"]) == (404, "/api/v1/books/0", "api")
    (server,) = [program for program in behind.api if program.url.endswith(line["server"])]
    (theirs,) = until(lambda: behind.log_of(server, "follow-me.1"))
    assert (theirs["path"], str(theirs["account"])) == ("/api/v1/books/0", line["account"])


@pytest.mark.parametrize("offered", ['a"b', "x" * 65, "a b", "", "ü", '{"status":200}', "a,b"])
def test_an_id_that_could_harm_a_log_is_replaced(front: Door, offered: str) -> None:
    answer = front.ask("/api/v1/health/live", headers={"X-Request-ID": offered.encode()})
    assert answer.headers["X-Request-ID"] not in {offered, ""}
    assert front.line_of(answer.headers["X-Request-ID"])["status"] == 200


# --- Headers that say who one is --------------------------------------------------------------------------------------
CLAIMED = {
    "X-Forwarded-For": "198.51.100.7, 198.51.100.8",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "evil.example",
    "Forwarded": "for=198.51.100.7",
    "X-Real-IP": "198.51.100.7",
    "X-User-Id": "1",
    "x-account": "1",
    "X-Auth-Role": "operator",
    "X-Remote-User": "admin",
    "Remote-User": "admin",
    "X-Gateway-Verified": "yes",
    "Upgrade": "h2c",
    # To a WSGI application these are the same names.
    "X_Forwarded_For": "198.51.100.7",
    "X_Forwarded_Proto": "https",
    "X_Request_ID": "theirs",
}


def test_the_api_is_told_the_address_and_nothing_about_who(another: Another, behind: Estate, token: str) -> None:
    with listening() as server, another(behind.backends(api=[server.address])) as gateway:
        assert gateway.ask("/api/v1/books", token, headers=CLAIMED).status_code == 200
    ((_, head),) = server.heard
    assert head["x-forwarded-for"] == "127.0.0.1"
    assert head["x-forwarded-proto"] == "http"
    assert head["authorization"] == f"Bearer {token}"  # which the API checks itself
    dropped = {name.lower() for name in CLAIMED} - {"x-forwarded-for", "x-forwarded-proto"}
    assert dropped & set(head) == set()


def test_the_api_locks_logins_of_the_address_that_the_gateway_saw(front: Door) -> None:
    """Whoever makes up another address for every attempt is still one address."""
    wrong = {"username": "nobody-of-this-name", "password": "wrong"}
    answers = [
        front.ask("/api/v1/login", method="POST", json=wrong, headers={"X-Forwarded-For": f"198.51.100.{number}"})
        for number in range(3)
    ]
    assert [answer.status_code for answer in answers] == [401, 401, 429]


# --- Paths ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/../metrics",
        "/api/v1/./books",
        "/api/v1/..",
        "/api/v1/%2e%2e/metrics",
        "/api/v1/.%2E/metrics",
        "/api/v1%2fbooks",
        "/api/v1/books%2F..%2F..%2Fmetrics",
        "/api/v1/books/%252e%252e",
        "//api/v1/books",
        "/api//v1/books",
        "/api/v1/books%00",
        "/api/v1/books%0a",
        "/api/v1/%6cogin",
        "/api/v1/auth%5clogin",
        "/api/v1/auth\\login",
        "/static/..%5c..%5cetc/passwd",
    ],
)
def test_a_path_that_could_be_read_in_two_ways_is_refused(front: Door, token: str, path: str) -> None:
    status, request_id, body = raw(front, path, {"Authorization": f"Bearer {token}"})
    assert status == 400
    assert json.loads(body)["request_id"] == request_id
    assert front.line_of(request_id)["server"] == "<NOSRV>"


@pytest.mark.parametrize(
    "path", ["/metrics", "/predict", "/health/ready", "/api/v2/books", "/api", "/admins", "/favicon.ico", "/.env"]
)
def test_what_is_internal_is_nowhere(front: Door, token: str, path: str) -> None:
    status, request_id, body = raw(front, path, {"Authorization": f"Bearer {token}"})
    assert status == 404
    assert json.loads(body)["detail"] == "There is nothing at this address."
    assert front.line_of(request_id)["server"] == "<NOSRV>"


@pytest.mark.parametrize("method", ["post", "Post", "get"])
def test_a_method_that_could_be_read_in_two_ways_is_refused(front: Door, method: str) -> None:
    """Django takes "post" for POST, and the limit of attempts to log in did not."""
    with closing(http.client.HTTPConnection("127.0.0.1", front.gateway.port, timeout=20)) as connection:
        connection.request(method, "/api/v1/login", b"{}")
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["title"]) == (400, "Bad Request")


def test_names_in_other_letters_are_paths_like_others(front: Door, token: str) -> None:
    answer = front.ask("/api/v1/categories/po%C3%A9sie%20fran%C3%A7aise", token)
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")
    assert front.line_of(answer.headers["X-Request-ID"])["backend"] == "api"


def raw(front: Door, path: str, headers: dict[str, str]) -> tuple[int, str, bytes]:
    """Status, request id and body for a path that is sent as it stands."""
    with closing(http.client.HTTPConnection("127.0.0.1", front.gateway.port, timeout=20)) as connection:
        connection.putrequest("GET", path, skip_host=False)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.headers["X-Request-ID"], answer.read()


# --- Bodies, and clients that take their time -------------------------------------------------------------------------
def test_a_body_beyond_ten_megabytes_is_refused_before_it_is_sent(front: Door, token: str) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", front.gateway.port, timeout=20)) as connection:
        connection.putrequest("POST", "/api/v1/interactions")
        connection.putheader("Authorization", f"Bearer {token}")
        connection.putheader("Content-Length", str(10 * 1024 * 1024 + 1))
        connection.endheaders()
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["detail"]) == (413, "The body is too large.")


def test_a_body_that_is_not_finished_reaches_no_thread_of_the_api(another: Another, behind: Estate, token: str) -> None:
    with listening() as server, another(behind.backends(api=[server.address])) as gateway:
        with closing(socket.create_connection(("127.0.0.1", gateway.gateway.port), timeout=20)) as client:
            head = f"POST /api/v1/interactions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
            client.sendall(f"{head}Content-Length: 10\r\n\r\n{{".encode())
            gateway.ask("/api/v1/books", token)  # it came later, and was there before
            assert [method for method, _ in server.heard] == ["GET"]
            client.sendall(b'"a": 1234')
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        assert [method for method, _ in server.heard] == ["GET", "POST"]


def test_a_whole_set_arrives_as_it_is_made(front: Door, token: str) -> None:
    answer = front.ask("/api/v1/books?page_size=all", token)
    assert len(answer.json()["results"]) == answer.json()["count"] == BOOKS
    export = front.ask("/api/v1/books?format=ndjson", token, headers={"Accept-Encoding": "identity"})
    assert len(export.content.splitlines()) == BOOKS


@pytest.mark.parametrize("path", ["/api/v1/login", "/api/v1/auth/refresh", "/admin/login/", "/api/v1/docs"])
@pytest.mark.parametrize("length", ["Content-Length: 60000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\nea60\r\n"])
def test_a_long_body_without_an_account_reaches_no_thread_of_the_api(front: Door, path: str, length: str) -> None:
    """Four that never ended, from one client, kept everybody from logging in."""
    for head in ("", f"X-Long: {'x' * 7000}\r\n"):
        with closing(socket.create_connection(("127.0.0.1", front.gateway.port), timeout=20)) as client:
            client.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\n{head}{length}{' ' * 17_000}".encode())
            assert client.recv(100).startswith(b"HTTP/1.1 413")


# --- What is tried again ----------------------------------------------------------------------------------------------
def test_a_read_that_got_no_answer_is_tried_at_another_server_and_a_write_is_not(
    another: Another, behind: Estate, token: str
) -> None:
    with listening() as server, another(behind.backends(api=[server.address])) as gateway:
        server.answering = False
        written = gateway.ask("/api/v1/interactions", token, "POST", json={})
        assert (written.status_code, len(server.heard)) == (502, 1)
        assert written.json()["title"] == "Bad Gateway"
        assert written.headers["X-Request-ID"] == written.json()["request_id"]
        server.heard.clear()
        read = gateway.ask("/api/v1/books", token)
        assert (read.status_code, len(server.heard)) == (502, 4)


def test_nobody_to_ask_is_said_as_the_api_says_errors(another: Another, behind: Estate, token: str) -> None:
    with listening() as server, another(behind.backends(api=[server.address])) as gateway:
        gateway.gateway.write(behind.backends(api=[f"127.0.0.1:{free_port()}"]))
        gateway.gateway.reload(gateway.process)
        answer = gateway.ask("/api/v1/books", token)
        assert answer.status_code == 503
        assert answer.json()["detail"] == "No server can answer at the moment. Try again."
        assert answer.headers["Retry-After"] == "5"
        assert gateway.ask("/api/v1/auth/verify", method="POST", json={"token": token}).status_code == 200


# --- The log ----------------------------------------------------------------------------------------------------------
def test_every_line_is_json_whatever_a_client_writes(front: Door) -> None:
    hostile = b'"}\\\x01\x7f\xff\xf0\x9f\x92\xa9%s%n$(id)\t{"a":1}' * 3
    for path in (b"/" + hostile.replace(b"\t", b""), b"/" + b"\xff" * 3000, b"/api/v1/books/" + b"%C3%28" * 500):
        with closing(socket.create_connection(("127.0.0.1", front.gateway.port), timeout=20)) as client:
            agent = hostile.replace(b"\x01", b"").replace(b"\x7f", b"")
            client.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nUser-Agent: " + agent + b"\r\n\r\n")
            assert client.recv(12) in {b"HTTP/1.1 400", b"HTTP/1.1 401", b"HTTP/1.1 404"}
    marker = front.ask("/api/v1/health/live").headers["X-Request-ID"]
    front.line_of(marker)
    # Each line that begins like one is one, which is what `lines` sees to; and nothing else came between.
    text = front.gateway.log.read_bytes()
    assert len(lines(front.gateway.log)) == text.count(b'{"event":"request"')
    assert max(map(len, text.splitlines())) < 4096


def test_a_line_says_who_asked_whom_and_how_long_it_took(front: Door, token: str) -> None:
    answer = front.ask("/api/v1/books", token, headers={"User-Agent": 'a "quoted" one'})
    line = front.line_of(answer.headers["X-Request-ID"])
    assert (line["method"], line["status"], line["agent"]) == ("GET", 200, 'a "quoted" one')
    assert (line["address"], line["limit"], line["backend"], line["termination"]) == (
        "127.0.0.1",
        "account",
        "api",
        "--",
    )
    assert line["account"].isdigit()
    assert 0 <= line["answer_ms"] <= line["duration_ms"]
    assert token not in front.gateway.log.read_text()
