"""`python -m deploy.cluster up`: the whole topology, from an empty folder to its end, with readers all the time."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from bookapi.serving import free_port
from deploy.cluster import control
from deploy.cluster.cluster import missing_packages

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(bool(missing_packages()), reason=f"not installed: {' '.join(missing_packages())}"),
]

ROOT = Path(__file__).parents[2]
BOOKS = 100
DEADLINE_S = 400.0  # of a machine that does much else; a quiet one needs a tenth
PAUSE_S = 0.05  # of a reader between two requests


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not pytest's own: PostgreSQL does not run as root, and whom it runs as has to get there."""
    path = Path(tempfile.mkdtemp(prefix="cluster-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@contextmanager
def started(folder: Path, port: int, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The supervisor, and the file with what it says."""
    output = folder / "said"
    command = [sys.executable, "-m", "deploy.cluster", f"--folder={folder}", "up", f"--port={port}", *options]
    with output.open("wb") as said:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, "COLUMNS": "300"}, stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )
    try:
        yield process, output
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(DEADLINE_S)


def text_with(words: str, process: subprocess.Popen[bytes], output: Path) -> str:
    """Everything said, once the words are among it."""
    deadline = time.monotonic() + DEADLINE_S
    while words not in (text := output.read_text()):
        assert process.poll() is None, f"it ended without {words!r}:\n{text}"
        assert time.monotonic() < deadline, f"{words!r} did not come:\n{text}"
        time.sleep(0.1)
    return text


class Readers:
    """Two clients that read page after page through the gateway, one over kept connections, one over new ones."""

    def __init__(self, api: str, headers: dict[str, str]) -> None:
        self.outcomes: Counter[object] = Counter()
        self._over = threading.Event()
        session = requests.Session()
        gets: list[Callable[..., requests.Response]] = [session.get, requests.get]
        self._threads = [threading.Thread(target=self._read, args=(get, api, headers)) for get in gets]

    def _read(self, get: Callable[..., requests.Response], api: str, headers: dict[str, str]) -> None:
        paths = ["/books?page_size=5", "/books/1", "/books/1/recommendations?limit=3", "/stats/overview"]
        number = 0
        while not self._over.is_set():
            number += 1
            try:
                self.outcomes[get(api + paths[number % len(paths)], headers=headers, timeout=30).status_code] += 1
            except requests.RequestException as error:
                self.outcomes[repr(error)] += 1
            self._over.wait(PAUSE_S)

    def __enter__(self) -> Readers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def processes(folder: Path) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in control.ask(folder, "status")["processes"]}


def test_topology_is_filled_and_replaced_without_a_failed_read_and_ends_whole(folder: Path) -> None:
    port = free_port()
    api = f"http://127.0.0.1:{port}/api/v1"
    with started(folder, port, "--workers=1", f"--books={BOOKS}") as (process, output):
        text = text_with("Serving. Ctrl-C ends it.", process, output)
        assert f"{BOOKS} of {BOOKS} books read" in text
        assert "Recommender: promoted" in text
        assert "(by model " in text
        password = re.search(r"operator, password (\S+)", text)
        assert password, text

        login = requests.post(f"{api}/login", json={"username": "operator", "password": password[1]}, timeout=30)
        headers = {"Authorization": f"Bearer {login.json()['access']}"}
        books = requests.get(f"{api}/books?page_size=all", headers=headers, timeout=30).json()
        assert (books["count"], len({book["upc"] for book in books["results"]})) == (BOOKS, BOOKS)
        similar = requests.get(f"{api}/books/1/recommendations", headers=headers, timeout=30).json()
        assert similar["source"] == "model"
        assert requests.get(f"{api}/books", timeout=30).status_code == 401
        [run] = requests.get(f"{api}/scraping/runs", headers=headers, timeout=30).json()["results"]
        assert (run["complete"], run["seen"], run["created"]) == (True, BOOKS, BOOKS)

        before = processes(folder)
        with Readers(api, headers) as readers:
            os.kill(before["upkeep-1"]["pid"], signal.SIGKILL)
            for kind in ("api", "prediction", "workers"):
                control.ask(folder, "roll", kind=kind)
            text_with("upkeep-1 is ready again.", process, output)
        after = processes(folder)
        assert readers.outcomes.total() > 50
        assert set(readers.outcomes) == {200}, readers.outcomes
        changed = {name for name in after if after[name]["pid"] != before[name]["pid"]}
        assert changed == {"api-1", "api-2", "prediction-1", "ingest-1", "upkeep-1"}
        assert {row["state"] for row in after.values()} == {"ready"}
        assert {name for name, row in after.items() if row["restarts"]} == {"upkeep-1"}

        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) > len(after)
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == 0
        assert output.read_text().splitlines()[-1] == "Ended."
        _, left = psutil.wait_procs(family, timeout=10)
        assert left == []
