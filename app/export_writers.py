"""Writes tables, row by row, as CSV or Parquet. Memory holds one block of rows, however long the table is.

CSV: UTF-8, a header line, times as 2026-11-24T10:00:05.123456789Z, true and false, empty for what is not known.
Parquet: zstd, times as timestamp[ns, UTC], null for what is not known; needs pyarrow.
"""

import csv
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from .export_files import OutputError
from .export_tables import Kind, Row, Table, Value

if TYPE_CHECKING:
    pass

ROWS_PER_GROUP = 50_000
_NS_PER_S = 1_000_000_000

_NO_PYARROW = "--parquet needs pyarrow, which is not installed: pip install pyarrow, or use --csv"


class TableWriter(Protocol):
    """A table that is being written; a context manager. OSError where the disk refuses."""

    rows: int
    """How many were added."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def add(self, row: Row) -> None:
        """Add a row."""


class CsvWriter:
    """A CSV file."""

    def __init__(self, path: Path, table: Table) -> None:
        self.rows = 0
        self._file = path.open("w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file)
        self._writer.writerow([column.name for column in table.columns])
        self._formats = [_CSV_FORMATS.get(column.kind) for column in table.columns]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, row: Row) -> None:
        """Add a row."""
        self.rows += 1
        self._writer.writerow(
            [
                value if form is None or value is None else form(value)
                for value, form in zip(row, self._formats, strict=True)
            ]
        )


class ParquetWriter:
    """A Parquet file."""

    def __init__(self, path: Path, table: Table) -> None:
        """OutputError if pyarrow is missing."""
        try:
            import pyarrow as pa  # type: ignore[import-untyped]  # noqa: PLC0415 - an extra, and slow
            import pyarrow.parquet as pq  # type: ignore[import-untyped]  # noqa: PLC0415
        except ImportError:
            raise OutputError(_NO_PYARROW) from None
        types: dict[Kind, pa.DataType] = {
            "utc": pa.timestamp("ns", tz="UTC"),
            "float": pa.float64(),
            "int": pa.int64(),
            "bool": pa.bool_(),
            "text": pa.string(),
        }
        self.rows = 0
        self._batch = pa.record_batch
        self._schema = pa.schema([(column.name, types[column.kind]) for column in table.columns])
        self._arrays: Callable[[Row, pa.DataType], pa.Array] = pa.array
        self._block: list[Row] = []
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exception_type: type[BaseException] | None, *_: object) -> None:
        try:
            if exception_type is None:
                self._flush()
        finally:
            self._writer.close()

    def add(self, row: Row) -> None:
        """Add a row."""
        self.rows += 1
        self._block.append(row)
        if len(self._block) >= ROWS_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._block:
            columns = zip(*self._block, strict=True)
            arrays = [
                self._arrays(column, field.type) for column, field in zip(columns, self._schema, strict=True)
            ]
            self._writer.write_batch(self._batch(arrays, schema=self._schema))
            self._block.clear()


def utc_text(utc_ns: int) -> str:
    """With all its nanoseconds."""
    seconds, rest_ns = divmod(utc_ns, _NS_PER_S)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest_ns:09}Z"


def _csv_utc(value: Value) -> str:
    return utc_text(value) if isinstance(value, int) else ""


def _csv_bool(value: Value) -> str:
    return "true" if value else "false"


_CSV_FORMATS: dict[Kind, Callable[[Value], str]] = {"utc": _csv_utc, "bool": _csv_bool}
