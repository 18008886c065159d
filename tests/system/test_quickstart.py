"""`manage.py quickstart` as a newcomer starts it: real processes, real ports, a shop of our own."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from bookapi.serving import free_port
from crawler.practice_shop.server import serving
from crawler.practice_shop.shop import Shop
from tests.crawler.deployment import copy_sqlite

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
NOWHERE = "http://127.0.0.1:9"  # the discard port: nobody listens
DEADLINE_S = 240.0  # of a machine that does much else; a quiet one needs a tenth


class Quickstart:
    """One start, its terminal or file, and what it said so far."""

    def __init__(self, var: Path, *options: str, shop_url: str = NOWHERE, terminal: bool = False) -> None:
        self.port = free_port()
        self.text = ""
        environment = {
            **{name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
            "VAR_DIR": str(var),
            "DATABASE_URL": "",
            "SHOP_URL": shop_url,
            "COLUMNS": "200",
        }
        here, there = pty.openpty() if terminal else os.pipe()
        self._output = here
        command = [sys.executable, "manage.py", "quickstart", f"--port={self.port}", *options]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=there, stderr=there
        )
        os.close(there)

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/v1"

    def read_until(self, text: str) -> str:
        """Everything said, once `text` is in it."""
        deadline = time.monotonic() + DEADLINE_S
        while text not in self.text:
            assert time.monotonic() < deadline, f"{text!r} did not come:\n{self.text}"
            if not self._read(1.0):
                raise AssertionError(f"it ended without {text!r}:\n{self.text}")
        return self.text

    def _read(self, seconds: float) -> bool:
        """Take in what has been said; False at the end."""
        if not select.select([self._output], [], [], seconds)[0]:
            return True
        try:
            said = os.read(self._output, 65536)
        except OSError:  # a terminal without processes
            return False
        self.text += said.decode(errors="replace")
        return bool(said)

    def family(self) -> list[psutil.Process]:
        """Every process of it."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        code = self.process.wait(60)
        while self._read(0.2) and select.select([self._output], [], [], 0)[0]:
            pass
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.end(signal.SIGTERM)
        os.close(self._output)


Start = Callable[..., Quickstart]


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database without a book, so that not every start has to make one."""
    folder = tmp_path_factory.mktemp("migrated")
    environment = {**os.environ, "VAR_DIR": str(folder), "DATABASE_URL": f"sqlite:///{folder / 'empty.sqlite3'}"}
    subprocess.run([sys.executable, "manage.py", "migrate", "--verbosity=0"], cwd=ROOT, env=environment, check=True)
    return folder / "empty.sqlite3"


@pytest.fixture
def start_anew(tmp_path: Path) -> Iterator[Start]:
    """Starts quickstart over one folder, which does not exist at first; ends what was started."""
    with ExitStack() as started:
        practice_port = free_port()

        def begin(*options: str, **kwargs: Any) -> Quickstart:
            quickstart = Quickstart(tmp_path / "v ar", f"--practice-port={practice_port}", *options, **kwargs)
            started.callback(quickstart.close)
            return quickstart

        yield begin


@pytest.fixture
def start(start_anew: Start, migrated: Path, tmp_path: Path) -> Start:
    """Starts quickstart over a folder whose database is there already."""
    (tmp_path / "v ar").mkdir()
    copy_sqlite(migrated, tmp_path / "v ar" / "catalogue.sqlite3")
    return start_anew


def login(quickstart: Quickstart, password: str) -> requests.Response:
    return requests.post(f"{quickstart.api}/login", json={"username": "operator", "password": password}, timeout=10)


def similar_books(quickstart: Quickstart, access: str) -> dict[str, Any]:
    """What is recommended for the first book, once the server has the model in memory."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        url, headers = f"{quickstart.api}/books/1/recommendations", {"Authorization": f"Bearer {access}"}
        found: dict[str, Any] = requests.get(url, headers=headers, timeout=10).json()
        assert len(found["results"]) == 10
        if found["source"] == "model" or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def password_in(text: str) -> str:
    found = re.search(r"operator, password (\S+)", text)
    assert found, text
    return found[1]


def wait_until_gone(processes: list[psutil.Process], seconds: float) -> None:
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    alive = [process for process in alive if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert not alive, f"left behind: {alive}"


def test_first_start_fills_the_catalogue_and_the_second_finds_nothing_changed(start_anew: Start) -> None:
    first = start_anew()
    text = first.read_until("Serving.")
    assert "practice-shop at http://127.0.0.1:" in text
    assert f"instead of {NOWHERE}: it cannot be reached" in text
    assert "1000 of 1000 books read" in text
    password = password_in(text)
    answer = login(first, password)
    assert answer.status_code == 200, answer.text
    health = requests.get(f"{first.api}/health", timeout=10).json()
    assert health["books"] == 1000
    assert health["last_crawl"]["outcome"] == "complete"
    assert "Recommender: promoted, trained on 1000 books." in text
    assert similar_books(first, answer.json()["access"])["source"] == "model"
    assert first.end(signal.SIGINT) == 0

    second = start_anew()
    text = second.read_until("Serving.")
    assert "1000 unchanged" in text
    assert password not in text
    assert "changepassword" in text
    assert "Recommender" not in text  # it has learned this revision already
    again = requests.get(f"{second.api}/health", timeout=10).json()
    assert again["revision"] == health["revision"]
    assert login(second, password).status_code == 200


def test_live_shop_that_answers_is_read_under_its_own_name(start: Start) -> None:
    with serving(Shop(20)) as address:
        quickstart = start("--no-train", shop_url=address)
        text = quickstart.read_until("Serving.")
    assert f"books-toscrape at {address}, it answers" in text
    assert "20 of 20 books read" in text
    assert "Recommender" not in text  # as it was asked for


def test_terminal_shows_a_bar(start: Start) -> None:
    text = start("--no-train", "--practice-books=40", terminal=True).read_until("Serving.")
    assert "Reading practice-shop" in text
    assert "40/40" in text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_signal_ends_every_process_within_seconds(start: Start, number: signal.Signals) -> None:
    quickstart = start("--practice", "--practice-books=40", "--no-train")
    quickstart.read_until("Serving.")
    family = quickstart.family()
    assert len(family) >= 2  # the server, the practice shop
    began = time.monotonic()
    assert quickstart.end(number) == 0
    assert time.monotonic() - began < 30
    assert "Traceback" not in quickstart.text
    wait_until_gone(family, 1)


def test_signal_while_the_shop_is_read_leaves_a_run_that_the_next_start_resumes(start: Start, tmp_path: Path) -> None:
    quickstart = start("--practice")
    quickstart.read_until("Documentation")
    wait_for_books(quickstart)
    family = quickstart.family()
    assert quickstart.end(signal.SIGINT) == 0
    wait_until_gone(family, 1)
    text = start("--practice", "--no-train").read_until("Serving.")
    assert "Run 1: 1000 of 1000 books read" in text


def wait_for_books(quickstart: Quickstart) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not requests.get(f"{quickstart.api}/health", timeout=10).json()["books"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_kill_leaves_no_process_that_holds_a_port(start: Start) -> None:
    quickstart = start("--practice", "--practice-books=40", "--no-train")
    quickstart.read_until("Serving.")
    family = quickstart.family()
    assert quickstart.end(signal.SIGKILL) == -signal.SIGKILL
    wait_until_gone(family, 30)


def test_taken_port_is_told_with_the_way_out(tmp_path: Path) -> None:
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        for command, word in (("quickstart", "run"), ("serve", "serve")):
            ended = subprocess.run(
                [sys.executable, "manage.py", command, f"--port={port}"],
                cwd=ROOT, env={**os.environ, "VAR_DIR": str(tmp_path), "DATABASE_URL": ""},
                capture_output=True, text=True, timeout=120, check=False,
            )  # fmt: skip
            assert ended.returncode == 1
            assert f"Port {port}" in ended.stderr
            assert f"make {word} PORT=" in ended.stderr
            assert "Traceback" not in ended.stderr


def test_taken_practice_port_moves_the_shop_which_says_so_and_a_crawl_through_the_api_reads_it_there(
    start: Start,
) -> None:
    with serving(Shop(5)) as address:
        taken = address.rpartition(":")[2]
        quickstart = start("--practice", "--practice-books=40", f"--practice-port={taken}", "--no-train")
        text = quickstart.read_until("Serving.")
    assert f"Port {taken} is taken" in text
    assert "40 of 40 books read" in text
    access = login(quickstart, password_in(text)).json()["access"]
    headers = {"Authorization": f"Bearer {access}"}
    answer = requests.post(f"{quickstart.api}/scraping/trigger", json={"limit": 3}, headers=headers, timeout=20)
    assert answer.status_code == 202, answer.text
    assert answer.json()["shop"] == "practice-shop"


def test_start_without_crawl_serves_what_is_there_and_the_server_writes_its_lines_into_the_log_file(
    start_anew: Start, tmp_path: Path
) -> None:
    quickstart = start_anew("--no-crawl")
    text = quickstart.read_until("Serving.")
    assert "Run 1" not in text
    assert requests.get(f"{quickstart.api}/health", timeout=10).json()["books"] == 0
    requests.get(f"{quickstart.api}/health/live", headers={"X-Request-ID": "seen-again"}, timeout=10)
    lines = (tmp_path / "v ar" / "log" / "server.log").read_text().splitlines()
    requests_told = [json.loads(line) for line in lines if line.startswith("{")]
    assert any(line.get("request_id") == "seen-again" and line["status"] == 200 for line in requests_told)
    assert "seen-again" not in quickstart.text
