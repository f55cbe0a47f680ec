"""What writing another format from a log has in common: the output file, progress, exit codes.

A file appears under its name when it is complete: until then it is written beside it, under a name that begins
with a dot. A log is never overwritten.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

from ..replay.logs import Log, Segment
from ..replay.reader import EndKind, LogReader, NotALogError, Turn, UnsupportedFormatError
from .log_files import DAMAGED, UNSUPPORTED, USAGE

if TYPE_CHECKING:
    import rich.progress

_TURNS_PER_UPDATE = 1000


class OutputError(Exception):
    """The output cannot be written. The text is for the user."""


def exit_code(error: Exception) -> int:
    """Of a command that this ended."""
    if isinstance(error, UnsupportedFormatError):
        return UNSUPPORTED
    return USAGE if isinstance(error, OutputError | NotALogError) else DAMAGED


def check_output(path: Path, log: Log, *, force: bool) -> None:
    """OutputError if the file must not, or cannot, be written."""
    if any(path.exists() and path.samefile(segment.path) for segment in log.segments):
        msg = f"{path}: is the log itself; write to another file"
        raise OutputError(msg)
    if path.is_dir():
        msg = f"{path}: is a directory; name a file"
        raise OutputError(msg)
    if path.exists() and not force:
        msg = f"{path}: is there already; --force replaces it"
        raise OutputError(msg)
    if not path.parent.is_dir():
        msg = f"{path}: there is no directory {path.parent}"
        raise OutputError(msg)


@contextlib.contextmanager
def new_path(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes `path` if the block ends well. OutputError."""
    partial: Path | None = None
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        partial = Path(name)
        # mkstemp keeps others out; the finished file is as readable as any other.
        mask = os.umask(0)
        os.umask(mask)
        with contextlib.suppress(PermissionError):  # a memory stick's file system has no such modes
            os.fchmod(descriptor, 0o666 & ~mask)
        os.close(descriptor)
        yield partial
        partial.replace(path)
    except OSError as error:
        msg = f"{path}: cannot be written: {error.strerror or error}"
        raise OutputError(msg) from None
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """As `new_path`, opened to be written. OutputError."""
    with new_path(path) as partial, partial.open("wb") as file:
        yield file


class Meter:
    """A progress bar over a log, if standard error is a terminal. A context manager."""

    def __init__(self, log: Log, title: str) -> None:
        self._done_bytes = 0
        """In the segments before the present one."""
        self._bar: rich.progress.Progress | None = None
        if sys.stderr.isatty():
            from rich.console import Console  # noqa: PLC0415 - only a terminal needs it
            from rich.progress import Progress  # noqa: PLC0415

            self._bar = Progress(console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(title, total=sum(segment.size_bytes for segment in log.segments))

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def turns(self, segment: Segment, reader: LogReader) -> Iterator[Turn]:
        """The segment's turns."""
        for number, turn in enumerate(reader.turns()):
            if self._bar is not None and number % _TURNS_PER_UPDATE == 0:
                self._bar.update(self._task, completed=self._done_bytes + reader.records.whole_bytes)
            yield turn
        self._done_bytes += segment.size_bytes


def told_ending(segment: Segment, reader: LogReader) -> bool:
    """Say where a segment that was read to its end is cut; False if it is."""
    ending = reader.ending
    if ending is None or ending.kind is not EndKind.DAMAGED:
        return True
    print(f"{segment.path}: damaged after turn {ending.last_turn}: {ending.text}", file=sys.stderr)
    return False
