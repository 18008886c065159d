"""A curator at work in a real browser, against a real server.

The browser is driven over a pipe (https://chromedevtools.github.io/devtools-protocol/), which needs no driver and no
package beside it.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from pytest_django.live_server_helper import LiveServer

from catalog.models import Book
from tests.catalog.crawled import crawl, crawled, scraped

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE_S = 30
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1400,1000",
    "--remote-debugging-pipe",
)

pytestmark = [
    pytest.mark.system,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(not CHROMIUM or not shutil.which("bash"), reason="There is no Chromium here."),
]


class Browser:
    """A page in a headless Chromium: go somewhere, ask it something, click and type."""

    def __init__(self, profile: Path) -> None:
        commands, self._to = os.pipe()
        self._from, answers = os.pipe()
        # The browser reads commands from descriptor 3 and answers on 4.
        line = ["bash", "-c", f'exec "$@" 3<&{commands} 4>&{answers}', "bash", str(CHROMIUM), *FLAGS]
        self.process = subprocess.Popen(
            [*line, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(commands, answers),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self._number = 0
        self._unread = b""
        self.errors: list[str] = []
        self.hosts: set[str] = set()
        target = next(t for t in self._call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        attached = self._call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network"):
            self._call(f"{domain}.enable")

    _session: str | None = None

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE_S)
        os.close(self._to)
        os.close(self._from)

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer)
                return dict(answer["result"])
            self._note(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            assert select.select([self._from], [], [], PATIENCE_S)[0], "The browser does not answer."
            chunk = os.read(self._from, 1 << 16)
            assert chunk, "The browser went away."
            self._unread += chunk
        message, _, self._unread = self._unread.partition(b"\0")
        return dict(json.loads(message))

    def _note(self, event: dict[str, Any]) -> None:
        match event.get("method"):
            case "Runtime.exceptionThrown" | "Page.javascriptDialogOpening":
                self.errors.append(json.dumps(event["params"])[:500])
            case "Network.requestWillBeSent":
                address = event["params"]["request"]["url"]
                if "://" in address:
                    self.hosts.add(address.split("/")[2])

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """The value of the expression as soon as it is true."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            if value := self.ask(f"document.readyState === 'complete' && ({expression})"):
                return value
            time.sleep(0.05)
        raise AssertionError(f"Never true: {expression}\n{self.ask('document.body && document.body.innerText')}")

    def go(self, address: str) -> None:
        self._call("Page.navigate", url=address)
        self.wait_for("location.href !== 'about:blank'")

    def press(self, selector: str) -> None:
        """Click as a mouse does, and wait for the page that follows."""
        self.ask("window.before = true")
        place = self.ask(
            f"(e => {{ e.scrollIntoView({{block: 'center'}}); const r = e.getBoundingClientRect();"
            f" return [r.x + r.width / 2, r.y + r.height / 2] }})(document.querySelector({selector!r}))"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)
        self.wait_for("!window.before")

    def type(self, selector: str, text: str) -> None:
        """Replace what stands in a field."""
        self.ask(f"(e => {{ e.focus(); e.select() }})(document.querySelector({selector!r}))")
        self._call("Input.insertText", text=text)

    def enter(self) -> None:
        """The Enter key, and the page that follows."""
        self.ask("window.before = true")
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
        self._call("Input.dispatchKeyEvent", type="keyDown", **key)
        self._call("Input.dispatchKeyEvent", type="keyUp", **key)
        self.wait_for("!window.before")

    @property
    def text(self) -> str:
        return str(self.ask("document.querySelector('#main, body').innerText"))


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    opened = Browser(tmp_path)
    try:
        yield opened
    finally:
        opened.close()


def test_a_curator_logs_in_corrects_a_book_and_gives_a_field_back(browser: Browser, live_server: LiveServer) -> None:
    book = crawled("a", title="A Light in the Attic <script>alert('scraped')</script>")
    User.objects.create_superuser("ada", password="a long pass phrase")
    page = f"{live_server.url}/admin/catalog/book/{book.pk}/change/"

    browser.go(page)
    browser.type("[name=username]", "ada")
    browser.type("[name=password]", "a long pass phrase")
    browser.enter()
    browser.wait_for("document.querySelector('[name=title]')")
    assert browser.ask("getComputedStyle(document.querySelector('[name=_save][form]')).cursor") == "pointer", (
        "no styles"
    )

    browser.type("[name=title]", "A Light in the Attic")
    browser.type("[name=price]", "12.50")
    browser.press("button[name=_continue]")
    assert "was changed successfully" in browser.text
    assert "The shop says: A Light in the Attic <script>alert('scraped')</script>" in " ".join(browser.text.split())
    crawl(scraped("a", day=1, title="Shouted", price="£9.00", price_excl_tax="£9.00"))
    book.refresh_from_db()
    assert (book.title, str(book.price), book.locked_fields) == ("A Light in the Attic", "12.50", ["price", "title"])

    browser.type("[name=product_type]", "Paperback")
    browser.press("button[name=_give_back][value=price]")
    assert browser.ask("document.querySelector('[name=price]').value") == "9.00"
    assert browser.ask("document.querySelector('[name=product_type]').value") == "Paperback"

    browser.type("[name=title]", "Attic")
    browser.enter()  # saves, and does not press one of the buttons that give fields back
    browser.wait_for("document.querySelector('#result_list')")
    book.refresh_from_db()
    assert (book.title, book.locked_fields) == ("Attic", ["product_type", "title"])
    assert browser.errors == []
    assert browser.hosts == {live_server.url.removeprefix("http://")}, "a page asked somebody else"


def test_books_are_selected_and_merged_by_clicking(browser: Browser, live_server: LiveServer) -> None:
    survivor, twin = crawled("a"), crawled("b", title="A Light in the Attic (again)")
    User.objects.create_superuser("ada", password="a long pass phrase")
    browser.go(f"{live_server.url}/admin/catalog/book/")
    browser.type("[name=username]", "ada")
    browser.type("[name=password]", "a long pass phrase")
    browser.enter()
    browser.wait_for("document.querySelector('#result_list')")
    browser.ask("document.querySelectorAll('input.action-select').forEach(box => box.click())")
    browser.ask(
        "(s => { s.value = 'merge'; s.dispatchEvent(new Event('change', {bubbles: true})) })"
        "(document.querySelector('select[name=action]'))"
    )
    browser.wait_for("document.querySelector('button[name=index]').checkVisibility()")
    browser.press("button[name=index]")
    browser.wait_for("document.querySelector('input[name=survivor]')")
    browser.ask(f"document.querySelector('input[name=survivor][value=\"{survivor.pk}\"]').click()")
    browser.press("#content form button[type=submit]")
    assert "1 book was merged into" in browser.text
    assert Book.objects.get(pk=twin.pk).merged_into == survivor
    assert browser.errors == []
