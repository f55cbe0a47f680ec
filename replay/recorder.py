"""The recorder process: makes the log file of what the driver hands over through a pipe (architecture.md §4).

    python -P -m fusioncharger.replay.recorder FILE SEGMENT

Standard input is the pipe (log_format.py draws its records), standard output takes reports, one JSON line each.

Rules:
- The pipe's end is the only end: signals that stop the driver do not stop the recorder, so a driver that was
  killed loses nothing that it had handed over.
- What was read is in the kernel's hands (flushed) before the next read, and on the disk within about a second.
- No wake-up without something to do: it sleeps until the pipe has data, or until data has to be synced.
- What cannot be written ends the recorder. The driver notices, and starts another one.
"""

import contextlib
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import BinaryIO

import msgspec
from mcap.well_known import MessageEncoding, SchemaEncoding
from mcap.writer import IndexType, Writer

from .log_format import PIPE_HEAD, PROFILE, TOPICS, TYPES, Report, SegmentEnd, json_schema, seal, type_name

NAP_S = 0.005
SYNC_INTERVAL_S = 1.0
READ_BYTES = 2**20
NICENESS = 5

PIPE_FD = 0
REPORT_FD = 1


class SegmentWriter:
    """Turns what comes out of the pipe into an MCAP file. OSError where the file cannot be written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        # Without chunks every message is a record of its own: what was flushed can be read after a kill.
        self._mcap = Writer(file, use_chunking=False, index_types=IndexType.NONE)
        self._mcap.start(PROFILE)
        self._channels: dict[str, int] = {}
        self._rest = b""
        self._last: tuple[str, int, int, int] | None = None
        self.sync()

    @property
    def is_empty(self) -> bool:
        """Whether the driver never handed anything over."""
        return self._last is None

    def feed(self, data: bytes) -> None:
        """Append the whole records, and keep the beginning of one that is still to come whole."""
        data = self._rest + data
        start = 0
        while len(data) - start >= PIPE_HEAD.size:
            length, sequence, log_time, publish_time = PIPE_HEAD.unpack_from(data, start)
            end = start + PIPE_HEAD.size + length
            if end > len(data):
                break
            self._add(data[start + PIPE_HEAD.size : end], sequence, log_time, publish_time)
            start = end
        self._rest = data[start:]
        self._file.flush()

    def sync(self) -> None:
        """Put everything on the disk."""
        self._file.flush()
        os.fdatasync(self._file.fileno())

    def finish(self) -> None:
        """Close the file's structure, with a SegmentEnd if the driver said none."""
        if self._last is not None and self._last[0] != SegmentEnd.__name__:
            end = SegmentEnd(goodbye=False, lost_bytes=len(self._rest))
            self._add(seal(end), *self._last[1:])
        self._mcap.finish()  # type: ignore[no-untyped-call]  # mcap leaves it without annotations
        self.sync()

    def _add(self, payload: bytes, sequence: int, log_time: int, publish_time: int) -> None:
        tag = type_name(payload)
        channel = self._channels.get(tag)
        if channel is None:
            schema = self._mcap.register_schema(tag, SchemaEncoding.JSONSchema, json_schema(TYPES[tag]))
            channel = self._mcap.register_channel(TOPICS[tag], MessageEncoding.JSON, schema)
            self._channels[tag] = channel
        self._mcap.add_message(channel, log_time, payload, publish_time, sequence)
        self._last = tag, sequence, log_time, publish_time


def record(writer: SegmentWriter) -> None:
    """Write until the pipe ends. OSError where the file cannot be written."""
    sync_at_s: float | None = None
    while True:
        timeout_s = None if sync_at_s is None else max(0.0, sync_at_s - time.monotonic())
        readable, _, _ = select.select([PIPE_FD], [], [], timeout_s)
        if readable:
            # Whoever waits at a pipe is woken by every write, and waking costs the writer 50 to 100 us: so nap,
            # and take what has come by then in one go.
            time.sleep(NAP_S)
            data = os.read(PIPE_FD, READ_BYTES)
            if not data:
                break
            writer.feed(data)
            if sync_at_s is None:
                sync_at_s = time.monotonic() + SYNC_INTERVAL_S
        if sync_at_s is not None and time.monotonic() >= sync_at_s:
            writer.sync()
            sync_at_s = None
    writer.finish()


def _report(report: Report) -> None:
    # A driver that is gone, or does not read, misses the report; the file says the same.
    with contextlib.suppress(OSError):
        os.write(REPORT_FD, msgspec.json.encode(report) + b"\n")


def _sync_directory(directory: Path) -> None:
    """Put the new file's name on the disk, too."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def main(arguments: list[str]) -> int:
    """Record one segment; 0 if the file is complete."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICENESS)
    path, segment = Path(arguments[0]), int(arguments[1])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("xb", buffering=READ_BYTES)
        try:
            writer = SegmentWriter(file)
            _sync_directory(path.parent)
            _report(Report(segment, "ready", path=str(path)))
            record(writer)
            if writer.is_empty:
                path.unlink()  # prepared, and not needed
        finally:
            file.close()  # raises what a full disk left unwritten, and closes all the same
    except OSError as error:
        _report(Report(segment, "unavailable", f"{path.parent}: {error.strerror or error}"))
        return 1
    except (ValueError, KeyError) as error:
        # Only if the package was replaced while the driver ran: the two do not speak the same format.
        _report(Report(segment, "unavailable", f"record not understood: {error!r}"))
        return 1
    _report(Report(segment, "closed"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
