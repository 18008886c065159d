"""`manage.py ingest`: a catalogue that comes as a file."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from catalog.ingest import finish_run
from catalog.models import Book, CrawlRun, RejectedItem, Sighting
from tests.catalog.test_ingest_concurrency import ROOT, database_url

pytestmark = pytest.mark.django_db

FACTS: dict[str, Any] = {"category": "Poetry", "price": 51.5, "currency": "GBP", "rating": 3, "stock": 4}


def line(upc: str, **facts: Any) -> str:
    return json.dumps({"upc": upc, "title": f"Book {upc}", **FACTS, **facts})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "books.jsonl"


def run_command(file: Path | str, *arguments: str, code: int = 0) -> CrawlRun:
    """The run that the command made; it must end with the exit code."""
    try:
        call_command("ingest", str(file), "--shop=paper", *arguments, stdout=io.StringIO())
        ended = 0
    except SystemExit as stop:
        ended = int(str(stop.code))
    assert ended == code
    return CrawlRun.objects.latest("id")


def test_a_file_becomes_books(file: Path) -> None:
    file.write_text(
        line("a1", price=51.50, authors=["Ann", "Bob"], description="Cáfé", review_count=7, tax=1.5)
        + "\n\n"
        + line(
            "a2",
            price="£9.99",
            price_excl_tax="£9.99",
            authors="Carl",
            availability="In stock",
            source_url="https://x.example/2",
        )
    )
    run = run_command(file)
    assert (run.kind, run.state, run.created, run.seen, run.source) == ("file", "finished", 2, 2, str(file))
    one, two = Book.objects.order_by("upc")
    assert (one.shop, one.price, one.tax, one.price_excl_tax) == ("paper", Decimal("51.50"), Decimal("1.50"), 50)
    assert (one.authors, one.description, one.review_count, one.source_url) == (["Ann", "Bob"], "Cáfé", 7, "")
    assert (two.authors, two.price, two.source_url) == (["Carl"], Decimal("9.99"), "https://x.example/2")


def test_numbers_are_taken_as_they_are_written(file: Path) -> None:
    file.write_text(
        '{"upc": 9780140449136, "title": 1984, "category": "Fiction", "price": 10.10, "currency": "GBP", '
        '"rating": 5, "stock": 1}'
    )
    run_command(file)
    book = Book.objects.get()
    assert (book.upc, book.title, book.price) == ("9780140449136", "1984", Decimal("10.10"))


@pytest.mark.parametrize("how", ["gzip", "bom"])
def test_packed_and_marked_files_are_read_too(file: Path, how: str) -> None:
    content = (line("a1") + "\n").encode()
    file.write_bytes(gzip.compress(content) if how == "gzip" else b"\xef\xbb\xbf" + content)
    assert run_command(file).created == 1


def test_standard_input_is_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(line("a1").encode()))))
    assert (run_command("-").created, run_command("-", code=0).seen) == (1, 0)


WRONG = [
    ("nonsense", "line", "Is not JSON at character 1"),
    ("[1]", "line", "Is not a JSON object."),
    (b"\xff\xfe", "line", "Is not UTF-8 at byte 1."),
    ("[" * 100_000, "line", "Is nested too deeply."),
    ('{"upc": NaN}', "line", "NaN is not a number"),
    ('{"upc": "a1", "upc": "a2"}', "upc", "is there twice"),
    (line("a1", title=["x"]), "title", "Is neither a text nor a number."),
    (line("a1", title=True), "title", "Is neither a text nor a number."),
    (line("a1", authors=[["x"]]), "authors", "Is neither a text nor a list of texts."),
    (line("a1", scraped_at="yesterday"), "scraped_at", "Is not a time of ISO 8601."),
    (line("a1", rating=6), "rating", "Is not from 1 to 5"),
    (line("a1", price="free"), "price", "Is not an amount"),
    (line("a1", source_url="nowhere"), "source_url", "Is not an absolute"),
    (line("a\0"), "upc", "cannot be printed"),
    (line("a1", title="\ud800"), "title", "Holds half of a surrogate pair"),
]


@pytest.mark.parametrize(("text", "field", "detail"), WRONG, ids=[f"{f}: {d}" for _, f, d in WRONG])
def test_a_line_that_cannot_be_taken_is_told_with_its_number_and_kept(
    file: Path, capfd: pytest.CaptureFixture[str], text: str | bytes, field: str, detail: str
) -> None:
    wrong = text if isinstance(text, bytes) else text.encode()
    file.write_bytes(
        line("good").encode() + b"\n" + wrong + b"\n" + line("also good").replace(" good", "-good").encode()
    )
    run = run_command(file, code=1)
    assert (run.created, run.rejected, run.seen, run.state) == (2, 1, 3, "finished")
    told = capfd.readouterr().err
    assert f"{file}:2: {field}: " in told
    assert detail in told
    item = RejectedItem.objects.get()
    assert item.reference == f"{file}:2"
    assert detail in str(item.errors)


def test_unknown_keys_are_reported_once_with_their_count(file: Path) -> None:
    file.write_text("\n".join([line("a1", isbn=1, Title="x"), line("a2", isbn=2)]))
    run = run_command(file)
    assert {w["detail"] for w in run.warnings} == {
        "'isbn' in 2 lines was not used.",
        "'Title' in 1 lines was not used.",
    }


def test_lines_of_one_book_are_counted_and_told(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file.write_text("\n".join([line("a1"), line("a1"), line("a1", title="Else"), line("a2")]))
    run = run_command(file, "--complete", code=1)
    assert (run.created, run.seen, run.announced, run.complete) == (2, 2, 2, True)
    told = capfd.readouterr().err
    assert f"{file}:2: upc: Repeats line 1." in told
    assert f"{file}:3: upc: Contradicts line 1" in told
    assert {"repeated_lines", "contradicting_lines"} == {w["code"] for w in run.warnings}
    assert Book.objects.get(upc="a1").title == "Book a1"


def test_dated_lines_are_a_history(file: Path) -> None:
    days = ["2026-01-03T00:00:00Z", "2026-01-01", "2026-01-02T01:00:00+01:00"]
    file.write_text("\n".join(line("a1", stock=n, scraped_at=day) for n, day in enumerate(days)))
    run_command(file)
    book = Book.objects.get()
    assert (book.stock, book.source.scraped_at) == (0, datetime(2026, 1, 3, tzinfo=UTC))
    assert [o.stock for o in book.observations.all()] == [1, 2, 0]


def test_undated_lines_carry_the_time_of_the_run(file: Path) -> None:
    file.write_text(line("a1"))
    run = run_command(file)
    assert Sighting.objects.get().scraped_at == run.started_at


def test_a_complete_file_delists_what_it_lacks_and_another_does_not(file: Path) -> None:
    file.write_text("\n".join(line(f"u{n}") for n in range(10)))
    assert run_command(file, "--complete").complete
    file.write_text("\n".join(line(f"u{n}") for n in range(9)))
    assert (run_command(file).delisted, run_command(file, "--complete").delisted) == (0, 1)
    assert Book.objects.filter(listed=True).count() == 9


def test_a_rejected_line_spares_its_book(file: Path) -> None:
    file.write_text("\n".join(line(f"u{n}") for n in range(10)))
    run_command(file, "--complete")
    file.write_text("\n".join([*(line(f"u{n}") for n in range(8)), line("u8", title=[]), line("u9", rating=9)]))
    run = run_command(file, "--complete", code=1)
    assert (run.complete, run.delisted) == (True, 0)


def test_a_file_with_an_unreadable_line_is_not_whole(file: Path) -> None:
    file.write_text("\n".join(line(f"u{n}") for n in range(10)))
    run_command(file, "--complete")
    file.write_text("\n".join([*(line(f"u{n}") for n in range(9)), "u9 was cut sh"]))
    run = run_command(file, "--complete", code=1)
    assert (run.complete, run.delisted) == (False, 0)
    assert "unreadable_lines" in {w["code"] for w in run.warnings}


def test_a_resumed_file_ends_like_an_uninterrupted_one(file: Path) -> None:
    lines = [line(f"u{n}") for n in range(8)] + ["nonsense", line("u8", rating=6), line("u1")]
    file.write_text("\n".join(lines[:4]))
    run = run_command(file)
    # As if it had been killed after four lines: the same file, but longer, and older than the run.
    file.write_text("\n".join(lines))
    os.utime(file, (0, 0))
    CrawlRun.objects.filter(pk=run.pk).update(state="interrupted", filters={})
    resumed = run_command(file, f"--resume={run.pk}", code=1)
    assert resumed.pk == run.pk
    assert (resumed.created, resumed.rejected, resumed.seen, resumed.state) == (8, 2, 10, "finished")
    CrawlRun.objects.filter(pk=run.pk).update(state="interrupted")
    again = run_command(file, f"--resume={run.pk}", code=1)
    assert (again.created, again.rejected, again.seen, RejectedItem.objects.count()) == (8, 2, 10, 2)


def test_what_cannot_be_resumed_is_refused(file: Path, tmp_path: Path) -> None:
    file.write_text(line("a1"))
    run = run_command(file)
    with pytest.raises(CommandError, match="finished"):
        run_command(file, f"--resume={run.pk}")
    CrawlRun.objects.filter(pk=run.pk).update(state="interrupted")
    other = tmp_path / "other.jsonl"
    other.write_text("")
    with pytest.raises(CommandError, match="reads"):
        run_command(other, f"--resume={run.pk}")
    with pytest.raises(CommandError, match="--complete"):
        run_command(file, f"--resume={run.pk}", "--complete")
    os.utime(file, (time.time() + 60,) * 2)
    with pytest.raises(CommandError, match="changed after"):
        run_command(file, f"--resume={run.pk}")
    with pytest.raises(CommandError, match="no run"):
        run_command(file, f"--resume={run.pk + 1}")


def test_what_is_unusable_ends_with_two(file: Path, tmp_path: Path) -> None:
    file.write_bytes(gzip.compress(b"\n".join(line(f"u{n}").encode() for n in range(5000)))[:-20])
    for arguments in (["/no/such/file", "--shop=paper"], [str(tmp_path), "--shop=paper"], [str(file), "--shop=a b"]):
        with pytest.raises(CommandError) as refused:
            call_command("ingest", *arguments)
        assert refused.value.returncode == 2
    assert not CrawlRun.objects.exists()
    with pytest.raises(CommandError, match="ended before") as cut_short:
        run_command(file)
    assert (cut_short.value.returncode, CrawlRun.objects.get().state) == (2, "failed")


@pytest.mark.system
@pytest.mark.django_db(transaction=True)
def test_an_interrupted_file_says_how_to_go_on_and_goes_on(file: Path) -> None:
    """A real process, a real Ctrl-C. Its input is a pipe, so that it cannot end before it is interrupted."""
    lines = [line(f"u{n}") for n in range(1200)]
    command = [sys.executable, "manage.py", "ingest", "-", "--shop", "paper", "--complete"]
    env = os.environ | {"DATABASE_URL": database_url(), "LOG_LEVEL": "ERROR"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    first = subprocess.Popen(command, cwd=ROOT, env=env, **pipes)
    assert first.stdin is not None
    first.stdin.write("\n".join(lines[:1100]) + "\n")
    first.stdin.flush()
    deadline = time.monotonic() + 60
    while not CrawlRun.objects.filter(created__gte=500).exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first.send_signal(signal.SIGINT)
    _, told = first.communicate(timeout=60)
    run = CrawlRun.objects.get()
    assert (first.returncode, run.state, run.complete) == (130, "interrupted", False)
    assert f"--resume {run.pk}" in told
    assert 500 <= run.created < 1200

    second = subprocess.run(
        [*command, f"--resume={run.pk}"],
        cwd=ROOT,
        env=env,
        input="\n".join(lines),
        text=True,
        check=True,
        stdout=subprocess.PIPE,
    )
    run.refresh_from_db()
    assert (run.state, run.created, run.seen, run.announced, run.complete) == ("finished", 1200, 1200, 1200, True)
    assert "1200" in second.stdout


def test_retry_rejected_takes_what_can_be_taken_now(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("\n".join([line("a1", rating="Six"), "nonsense"]))
    run = run_command(file, code=1)
    other = CrawlRun.objects.create(shop="paper", source="x", kind="file", started_at=timezone.now())
    finish_run(other.pk)
    monkeypatch.setitem(__import__("catalog.cleaning", fromlist=["_RATINGS"])._RATINGS, "six", 5)

    def said(*arguments: str) -> str:
        out = io.StringIO()
        call_command("retry_rejected", *arguments, stdout=out)
        return out.getvalue()

    assert said(f"--run={other.pk}").startswith("0 taken")
    assert said(f"--run={run.pk}") == ("1 taken (1 created, 0 updated, 0 unchanged, 0 stale), 1 still rejected.\n")
    assert Book.objects.get().rating == 5
