"""The practice shop with pages of a test's own among its pages, served on loopback by this process."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from crawler.practice_shop import Shop
from crawler.practice_shop.site import Answer, Site, plain


@dataclass
class OddShop:
    """A shop that can be changed while it is open."""

    address: str
    site: Site
    #: Answers in place of the shop's own, by path ("/index.html" for "/").
    pages: dict[str, Answer] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    #: Called before each answer with the number of requests so far, in the thread of the request: it may wait.
    before_answer: Callable[[int], object] = lambda _: None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, path: str, if_none_match: str) -> Answer:
        if path.endswith("/"):
            path += "index.html"
        with self._lock:
            self.asked[path] += 1
            number = self.asked.total()
        self.before_answer(number)
        return self.pages.get(path) or self.site.answer(path, if_none_match)

    def page(self, path: str) -> str:
        """The shop's own page at a path."""
        return self.site.answer(path).body.decode()

    def replace(self, path: str, old: str, new: str) -> None:
        """Change the page at a path, where `old` must stand."""
        html = self.page(path)
        assert old in html
        self.pages[path] = Answer(HTTPStatus.OK, html.replace(old, new).encode())


def redirect(location: str) -> Answer:
    return plain(HTTPStatus.FOUND, ("Location", location))


@contextmanager
def odd_shop(shop: Shop, pages: Mapping[str, Answer] | None = None) -> Iterator[OddShop]:
    """A shop that is open until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer = odd.answer(self.path, self.headers.get("If-None-Match", ""))
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(answer.body)))
            for name, value in answer.headers:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, *_: Any) -> None:  # a crawl that is killed resets its connections
            pass

    server = Server(("127.0.0.1", 0), Handler)
    odd = OddShop(f"http://127.0.0.1:{server.server_port}", Site(shop), dict(pages or {}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield odd
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
