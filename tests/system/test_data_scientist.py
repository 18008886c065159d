"""The data scientist's morning, against a server and a catalogue that a crawl has filled."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from urllib3.util import Retry

from bookapi.serving import free_port, server_command
from crawler.practice_shop import Shop, serving

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
EXAMPLE = ("examples/data_scientist.py", "--user", "ada")
PASSWORD = "correct horse battery staple"


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with the practice shop's books and the account `ada`."""
    tmp_path = tmp_path_factory.mktemp("catalogue")
    environment = {
        **os.environ,
        "ENVIRONMENT": "development",
        "LOG_LEVEL": "WARNING",
        "DATABASE_URL": f"sqlite:///{tmp_path / 'catalogue.sqlite3'}",
        "VAR_DIR": str(tmp_path),
    }

    def manage(*arguments: str, said: str = "") -> None:
        subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, input=said, text=True, check=True)

    manage("manage.py", "migrate", "--verbosity", "0")
    manage("manage.py", "create_account", "ada", "--role", "reader", "--password-stdin", said=PASSWORD)
    with serving(Shop(books=300)) as shop:
        manage("-m", "scrapy", "crawl", "books", "-a", f"start_url={shop}")
    port = free_port()
    server = subprocess.Popen(server_command("127.0.0.1", port), cwd=ROOT, env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        with requests.Session() as session:
            session.mount(url, requests.adapters.HTTPAdapter(max_retries=Retry(8, connect=8, backoff_factor=0.1)))
            assert session.get(f"{url}/api/v1/health/ready", timeout=30).ok
        yield url
    finally:
        server.terminate()
        server.wait(30)


def test_example_reads_plots_and_finds_similar_books(catalogue: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", *EXAMPLE, "--url", catalogue, "--out", str(tmp_path / "plots")],
        cwd=ROOT,
        env={**os.environ, "BOOKAPI_PASSWORD": PASSWORD, "MPLCONFIGDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    shop = Shop(books=300)
    assert f"300 books in {len({book.category for book in shop.truth()})} categories; 300 rows" in done.stdout
    pictures = sorted((tmp_path / "plots").glob("*.png"))
    assert [path.name for path in pictures] == ["categories.png", "prices.png", "ratings.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5000 for path in pictures)
    # The books most like the first one stand on its shelf.
    first, *similar = done.stdout.partition("Similar to ")[2].splitlines()
    category = first.rpartition(" (")[2].partition(",")[0]
    assert len(similar) == 6  # a heading and five books
    assert sum(category in line for line in similar) >= 3


def test_example_says_why_it_cannot_log_in(catalogue: str) -> None:
    done = subprocess.run(
        [sys.executable, *EXAMPLE, "--url", catalogue],
        cwd=ROOT,
        env={**os.environ, "BOOKAPI_PASSWORD": "not this one"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert done.stderr.startswith("Login failed: ")
