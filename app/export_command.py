"""`fusioncharger log export LOG… --csv PATH --parquet PATH`: states and messages as tables (docs/formats.md).

PATH is a directory, which gets a file per table, or a file, which gets the table that --table names. The states
come from a replay; where this version does otherwise than the recorded one, `as_recorded` is false.

Exit codes: 0 written, 1 written, but the log does not replay as it was recorded, 2 usage, 3 written as far as
the log is whole, 4 format not supported.
"""

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ..replay.logs import Log, Segment, open_logs
from ..replay.reader import LogError, LogReader, Turn
from ..replay.stepping import NO_SNAPSHOT, Stepper
from .export_files import (
    Meter,
    OutputError,
    check_output,
    exit_code,
    new_path,
    told_ending,
)
from .export_tables import MESSAGES, STATES, TABLES, Row, StateRows, Table, message_rows
from .export_writers import CsvWriter, ParquetWriter, TableWriter
from .log_files import DAMAGED, OK, add_logs, say_left_out

DIVERGED = 1

_WRITERS: dict[str, Callable[[Path, Table], TableWriter]] = {".csv": CsvWriter, ".parquet": ParquetWriter}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `log export` takes."""
    add_logs(parser)
    what = "a directory, which gets a file per table, or one file, which gets the one that --table names"
    parser.add_argument("--csv", type=Path, metavar="PATH", help=f"write CSV: {what}")
    parser.add_argument("--parquet", type=Path, metavar="PATH", help=f"write Parquet: {what}")
    parser.add_argument(
        "--table",
        choices=[table.name for table in TABLES],
        help="write this table only (a file: states, if nothing is said)",
    )
    parser.add_argument("--force", action="store_true", help="replace files that are there already")


def export_command(arguments: argparse.Namespace) -> int:
    """Write the tables and say what is in them; the exit code."""
    try:
        outputs = _outputs(arguments)
        log = open_logs(arguments.logs)
        for path, _ in outputs:
            if path not in (arguments.csv, arguments.parquet):
                _make_directory(path.parent)
            check_output(path, log, force=arguments.force)
        say_left_out(log)
        return _export(log, outputs)
    except (LogError, OutputError) as error:
        print(error, file=sys.stderr)
        return exit_code(error)


def _outputs(arguments: argparse.Namespace) -> list[tuple[Path, Table]]:
    """The files to write, and which table each gets. OutputError."""
    wanted: list[tuple[Path, Table]] = []
    for suffix, path in ((".csv", arguments.csv), (".parquet", arguments.parquet)):
        if path is None:
            continue
        tables = [table for table in TABLES if arguments.table in (None, table.name)]
        if path.suffix == suffix and not path.is_dir():
            table = tables[0] if arguments.table else STATES
            wanted.append((path, table))
            continue
        if not path.is_dir() and (path.suffix or path.exists()):
            msg = f"{path}: neither a directory nor a file whose name ends in {suffix}"
            raise OutputError(msg)
        wanted += [(path / f"{table.name}{suffix}", table) for table in tables]
    if not wanted:
        msg = "nothing to write: say --csv PATH or --parquet PATH, or both"
        raise OutputError(msg)
    return wanted


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"{path}: cannot be made: {error.strerror}"
        raise OutputError(msg) from None


def _export(log: Log, outputs: Sequence[tuple[Path, Table]]) -> int:
    # All are complete before the first gets its name.
    with contextlib.ExitStack() as paths, contextlib.ExitStack() as files:
        writers = []
        for path, table in outputs:
            partial = paths.enter_context(new_path(path))
            writers.append((table, files.enter_context(_WRITERS[path.suffix](partial, table))))
        export = _Export(writers)
        with Meter(log, "export") as meter:
            for segment in log.segments:
                with segment.read() as reader:
                    export.segment(segment, reader, meter)
    for (path, _), (_, writer) in zip(outputs, writers, strict=True):
        print(f"{path}: {writer.rows} rows")
    if not export.is_whole or log.unreadable:
        return DAMAGED
    return DIVERGED if export.has_diverged else OK


class _Export:
    """All tables, segment by segment."""

    def __init__(self, writers: Sequence[tuple[Table, TableWriter]]) -> None:
        self.is_whole = True
        self.has_diverged = False
        self._states = [writer for table, writer in writers if table is STATES]
        self._messages = [writer for table, writer in writers if table is MESSAGES]
        self._state_rows = StateRows()

    def segment(self, segment: Segment, reader: LogReader, meter: Meter) -> None:
        """The next segment. UnsupportedFormatError."""
        replay = None
        if self._states and not reader.header.snapshot:
            print(f"{segment.path}: no rows of states of its turns: {NO_SNAPSHOT}", file=sys.stderr)
            self.is_whole = False
        elif self._states:
            replay = _Replay(segment, reader, self._state_rows)
        for turn in meter.turns(segment, reader):
            for row in replay.turn(turn) if replay else ():
                self._add(self._states, row)
            for row in message_rows(turn, reader.header.run_id) if self._messages else ():
                self._add(self._messages, row)
        self.is_whole = told_ending(segment, reader) and self.is_whole
        self.has_diverged = self.has_diverged or (replay is not None and not replay.as_recorded)

    @staticmethod
    def _add(writers: Sequence[TableWriter], row: Row) -> None:
        for writer in writers:
            writer.add(row)


class _Replay:
    """A segment's states, turn by turn."""

    def __init__(self, segment: Segment, reader: LogReader, rows: StateRows) -> None:
        """UnsupportedFormatError if the snapshot does not fit this version."""
        self.as_recorded = True
        """Whether every turn so far did what was recorded."""
        self._path = segment.path
        self._header = reader.header
        self._rows = rows
        self._stepper = Stepper(reader.header)

    def turn(self, turn: Turn) -> Iterator[Row]:
        """The rows of what this turn changed."""
        step = self._stepper.step(turn)
        if self.as_recorded and step.differs:
            self.as_recorded = False
            print(
                f"{self._path}: from turn {turn.number} on it does not replay as it was recorded: the states "
                "are this version's (as_recorded is false); "
                f"`fusioncharger replay {self._path}` shows the difference",
                file=sys.stderr,
            )
        return self._rows.rows(
            self._stepper.config,
            step.after,
            run=self._header.run_id,
            turn=turn.number,
            at_ns=turn.at_ns,
            utc_ns=turn.utc_ns,
            as_recorded=self.as_recorded,
        )
