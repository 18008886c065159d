"""Rows as bytes: what a spreadsheet must not run, exact types, and memory that does not grow."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
import textwrap
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from itertools import product

import orjson
import pyarrow as pa
import pytest
from pyarrow import parquet

from catalog.export import Column, csv_chunks, defused, ndjson_chunks, parquet_chunks

COLUMNS = [
    Column("n", "integer"),
    Column("x", "number"),
    Column("price", "money"),
    Column("title", "text"),
    Column("shelf", "word"),
    Column("authors", "texts"),
    Column("fields", "json"),
    Column("listed", "boolean"),
    Column("at", "time"),
]
MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
ROW = (-7, -0.5, Decimal("51.50"), "Té", "a", ["A", "B"], {"é": 1}, False, MOMENT)
NOTHING = (None,) * len(COLUMNS)


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "\n@x", "\u00a0-2", "\u3000+3", "-", "="]
)
def test_text_that_a_spreadsheet_would_run_is_defused(text: str) -> None:
    assert defused(text) == "'" + text


@pytest.mark.parametrize("text", ["", " ", "a=1", "1-2", "'=1", "x@y", "–5", "Book: =1"])
def test_other_text_stays_as_it_is(text: str) -> None:
    assert defused(text) == text


def test_csv_leaves_negative_numbers_alone_and_empties_nothing_else() -> None:
    raw = b"".join(csv_chunks(COLUMNS, [[ROW, NOTHING]])).decode()
    assert raw == (
        "n,x,price,title,shelf,authors,fields,listed,at\r\n"
        '-7,-0.5,51.50,Té,a,A; B,"{""é"":1}",false,2026-01-02T03:04:05.678901Z\r\n'
        ",,,,,,,,\r\n"
    )


def test_csv_defuses_every_kind_of_text() -> None:
    columns = [Column("a", "text"), Column("b", "word"), Column("c", "texts")]
    assert b"".join(csv_chunks(columns, [[("=a", "@b", ["+c", "=d"])]])) == b"a,b,c\r\n'=a,'@b,'+c; =d\r\n"


def test_csv_is_quoted_as_the_csv_module_quotes() -> None:
    marks = ["", " ", ",", '"', '""', "\n", "\r", "\r\n", "\t", ";", "'", "x", "é", "\u2028", "\u00a0", "\0"]
    texts = ["".join(parts) for n in (1, 2, 3) for parts in product(marks, repeat=n)]
    expected = io.StringIO(newline="")
    csv.writer(expected).writerows([("a", "n"), *((defused(text), 1) for text in texts)])
    columns = [Column("a", "text"), Column("n", "integer")]
    assert b"".join(csv_chunks(columns, [[(text, 1) for text in texts]])).decode() == expected.getvalue()


def test_a_line_of_one_empty_cell_is_no_empty_line() -> None:
    assert b"".join(csv_chunks([Column("a", "text")], [[("",), (None,), ("b",)]])) == b'a\r\n""\r\n""\r\nb\r\n'


def test_csv_takes_cells_as_the_drivers_give_them() -> None:
    columns = [Column("price", "money"), Column("authors", "texts"), Column("nobody", "texts"), Column("at", "time")]
    row = (51.5, '["A, B","=C"]', "[]", MOMENT.replace(tzinfo=None))
    raw = b"".join(csv_chunks(columns, [[row]])).decode()
    assert raw == 'price,authors,nobody,at\r\n51.50,"A, B; =C",,2026-01-02T03:04:05.678901Z\r\n'


def test_csv_of_no_batches_has_its_header() -> None:
    assert b"".join(csv_chunks(COLUMNS[:2], [])) == b"n,x\r\n"


def test_times_of_other_zones_are_told_in_utc() -> None:
    moment = datetime(2026, 1, 2, 5, 4, 5, tzinfo=timezone(timedelta(hours=2)))
    assert b"".join(csv_chunks([Column("at", "time")], [[(moment,)]])) == b"at\r\n2026-01-02T03:04:05Z\r\n"


def test_ndjson_is_one_value_a_line() -> None:
    lines = b"".join(ndjson_chunks([[{"a": 1}], [], [{"at": MOMENT}, "x\ny"]])).splitlines()
    assert [orjson.loads(line) for line in lines] == [{"a": 1}, {"at": "2026-01-02T03:04:05.678901Z"}, "x\ny"]


def test_parquet_gives_back_what_went_in() -> None:
    table = parquet.read_table(io.BytesIO(b"".join(parquet_chunks(COLUMNS, [[ROW], [], [NOTHING, ROW]]))))
    assert table.schema.types == [
        pa.int64(),
        pa.float64(),
        pa.decimal128(10, 2),
        pa.string(),
        pa.dictionary(pa.int32(), pa.string()),
        pa.list_(pa.field("element", pa.string())),
        pa.string(),
        pa.bool_(),
        pa.timestamp("us", tz="UTC"),
    ]
    expected = dict(zip(table.column_names, ROW, strict=True)) | {"fields": '{"é":1}'}
    assert table.to_pylist() == [expected, dict.fromkeys(table.column_names), expected]


def test_parquet_comes_in_pieces() -> None:
    batches = ([(i * 1000 + k, f"title {i} {k}") for k in range(1000)] for i in range(20))
    chunks = list(parquet_chunks([Column("n", "integer"), Column("t", "text")], batches))
    assert len(chunks) >= 20
    assert max(map(len, chunks)) < sum(map(len, chunks)) / 5


@pytest.mark.parametrize("function", ["csv_chunks", "parquet_chunks"])
def test_memory_does_not_grow_with_the_rows(function: str) -> None:
    program = textwrap.dedent(
        f"""
        import resource
        from catalog.export import Column, {function}
        columns = [Column("n", "integer"), Column("word", "word"), Column("text", "text")]
        def batches(count):
            for i in range(count):
                yield [(k, f"w{{k % 50}}", f"{{i}} {{k}} " + "x" * 800) for k in range(2000)]
        def peak(count):
            for chunk in {function}(columns, batches(count)):
                pass
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        small = peak(5)
        print((peak(100) - small) / 1024)
        """
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert float(done.stdout) < 30, "MB above the small export, for 200,000 rows"
