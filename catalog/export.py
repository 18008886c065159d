"""Whole sets as bytes: CSV, NDJSON and Parquet, batch by batch, in memory that does not grow with the set.

Rows in, bytes out; where the rows come from and where the bytes go is the caller's business.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, cast

import orjson

if TYPE_CHECKING:
    import pyarrow

Kind = Literal["integer", "number", "money", "text", "word", "texts", "json", "boolean", "time"]
Batches = Iterable[Sequence[Sequence[Any]]]

#: What a spreadsheet takes for a formula, OWASP's list.
FORMULA_SIGNS = frozenset("=+-@")
FORMULA = (*FORMULA_SIGNS, "\t", "\r")


#: Lines of a chunk: some hundred kilobytes.
CSV_LINES = 250
#: Times end in Z. One without a zone is UTC: that is how SQLite's driver gives them.
JSON = orjson.OPT_UTC_Z | orjson.OPT_NAIVE_UTC


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a flat table, and the Python type of its cells; every cell may be None.

    integer: int; number: float; money: Decimal with two places; text: str; word: str of which there are few different
    ones; texts: list of str; json: anything that JSON can say; boolean: bool; time: aware datetime.
    """

    name: str
    kind: Kind


class _Lines:
    """A file for the csv module that hands out each line instead of keeping it.

    A StringIO takes four bytes for every character of a batch, and keeps them.
    """

    def write(self, line: str) -> str:
        return line


def csv_chunks(columns: Sequence[Column], batches: Batches) -> Iterator[bytes]:
    """UTF-8 without a byte order mark, one header line, CRLF, an empty cell for None, true and false.

    Text that a spreadsheet would run is defused with a leading apostrophe.
    """
    line = csv.writer(_Lines()).writerow
    header = cast(str, line([column.name for column in columns]))
    conversions = [(i, _CELLS[column.kind]) for i, column in enumerate(columns) if column.kind in _CELLS]
    # The header goes with the first rows: once they are there, the query is known to work.
    lines = [header]
    for batch in batches:
        for start in range(0, len(batch), CSV_LINES):
            for row in batch[start : start + CSV_LINES]:
                cells = list(row)
                for i, text in conversions:
                    if cells[i] is not None:
                        cells[i] = text(cells[i])
                lines.append(cast(str, line(cells)))
            yield "".join(lines).encode()
            lines.clear()
    if lines:
        yield header.encode()


def defused(text: str) -> str:
    """`text`, with an apostrophe before it where a spreadsheet would take it for a formula, also after white space."""
    if text.startswith(FORMULA) or text.lstrip()[:1] in FORMULA_SIGNS:
        return f"'{text}"
    return text


def _json_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


def _time_text(value: datetime) -> str:
    return f"{value.astimezone(UTC).replace(tzinfo=None).isoformat()}Z"


_CELLS: dict[Kind, Callable[[Any], Any]] = {
    "money": "{:.2f}".format,
    "text": defused,
    "word": defused,
    "texts": lambda value: defused("; ".join(value)),
    "json": lambda value: defused(_json_text(value)),
    "boolean": lambda value: "true" if value else "false",
    "time": _time_text,
}


def ndjson_chunks(batches: Iterable[Iterable[Any]]) -> Iterator[bytes]:
    """One JSON value a line. The objects are dumped by orjson as they are."""
    for batch in batches:
        yield b"".join(orjson.dumps(value, option=JSON | orjson.OPT_APPEND_NEWLINE) for value in batch)


class _Pipe(io.RawIOBase):
    """A file that hands out what was written to it and keeps nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[bytes] = []
        self.position = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        chunk = bytes(data)
        self.parts.append(chunk)
        self.position += len(chunk)
        return len(chunk)

    def tell(self) -> int:
        return self.position

    def taken(self) -> bytes:
        chunk = b"".join(self.parts)
        self.parts.clear()
        return chunk


def parquet_chunks(columns: Sequence[Column], batches: Batches) -> Iterator[bytes]:
    """A Parquet file, a row group a batch: money is decimal128(10, 2), times are timestamp[us, UTC], texts are lists.

    Batches should have thousands of rows: a row group is what a reader reads at once.
    """
    import pyarrow as pa  # noqa: PLC0415 - 60 MB and a third of a second, for those who ask for Parquet
    from pyarrow import parquet  # noqa: PLC0415

    schema = pa.schema([pa.field(column.name, _arrow_type(column.kind)) for column in columns])
    pipe = _Pipe()
    # The system's allocator gives memory back between batches; Arrow's own keeps what the largest one needed.
    pool = pa.system_memory_pool()
    with parquet.ParquetWriter(pipe, schema, compression="snappy", memory_pool=pool) as writer:
        for batch in batches:
            if batch:
                writer.write_batch(_arrow_batch(columns, schema, batch, pool))
            if chunk := pipe.taken():
                yield chunk
    yield pipe.taken()


def _arrow_type(kind: Kind) -> pyarrow.DataType:
    import pyarrow as pa  # noqa: PLC0415

    types: dict[Kind, pyarrow.DataType] = {
        "integer": pa.int64(),
        "number": pa.float64(),
        "money": pa.decimal128(10, 2),
        "text": pa.string(),
        "word": pa.dictionary(pa.int32(), pa.string()),
        "texts": pa.list_(pa.string()),
        "json": pa.string(),
        "boolean": pa.bool_(),
        "time": pa.timestamp("us", tz="UTC"),
    }
    return types[kind]


def _arrow_batch(
    columns: Sequence[Column], schema: pyarrow.Schema, batch: Sequence[Sequence[Any]], pool: pyarrow.MemoryPool
) -> pyarrow.RecordBatch:
    import pyarrow as pa  # noqa: PLC0415

    arrays = []
    for column, arrow_type, values in zip(columns, schema.types, zip(*batch, strict=True), strict=True):
        if column.kind == "json":
            texts = [None if value is None else _json_text(value) for value in values]
            arrays.append(pa.array(texts, arrow_type, memory_pool=pool))
        elif column.kind == "word":
            arrays.append(pa.array(values, pa.string(), memory_pool=pool).dictionary_encode())
        else:
            arrays.append(pa.array(values, arrow_type, memory_pool=pool))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
