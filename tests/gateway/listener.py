"""A server that remembers what it is sent, for what the API does not tell, and that can end without an answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Listener:
    address: str = ""
    #: Method and headers, by lower-case name, of every request but health checks.
    heard: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    answering: bool = True


@contextmanager
def listening() -> Iterator[Listener]:
    listener = Listener()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path != "/api/v1/health/ready":
                listener.heard.append((self.command, {name.lower(): value for name, value in self.headers.items()}))
                if not listener.answering:
                    self.close_connection = True
                    return
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        do_POST = do_GET  # noqa: N815 - as the base class asks for it

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        listener.address = f"127.0.0.1:{server.server_port}"
        yield listener
        server.shutdown()
