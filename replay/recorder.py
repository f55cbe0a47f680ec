"""The recorder process: makes the log file of what the driver hands over through a pipe (architecture.md §4).

    python -P -m fusioncharger.replay.recorder FILE SEGMENT [KEEP_BYTES KEEP_DAYS]

Standard input is the pipe (log_format.py draws its records), standard output takes reports, one JSON line each.

Rules:
- The pipe's end is the only end: signals that stop the driver do not stop the recorder, so a driver that was
  killed loses nothing that it had handed over.
- What was read is in the kernel's hands (flushed) before the next read, and on the disk within about a second.
- No wake-up without something to do: it sleeps until the pipe has data, and then until enough for one read has
  come at the last rate, or the data has to be synced, or the pipe ends.
- What cannot be written ends the recorder; the file is cut to what is whole. The driver starts another one.
- Old segments are compressed and deleted by a process that it leaves behind (housekeeping.py).
"""

import contextlib
import fcntl
import mmap
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec
from mcap.well_known import MessageEncoding, SchemaEncoding

from .housekeeping import make_room
from .keep import Keep
from .log_format import (
    PIPE_HEAD,
    PROFILE,
    SUMMARY_KEY,
    SUMMARY_METADATA,
    TOPICS,
    TURN_MODULUS,
    TYPES,
    Report,
    SegmentEnd,
    json_schema,
    seal,
    type_name,
)
from .mcap_file import McapFile
from .segment_file import SegmentFile, is_disk_full
from .summary import Summariser

SYNC_INTERVAL_S = 1.0
READ_BYTES = 2**20
NAP_SHARE = 1 / 32
"""Of the pipe: so much is to come in a nap. It holds 1 MiB, or what the kernel allows."""
UNKNOWN_RATE = 1e9
"""Bytes a second: no nap to speak of."""
NICENESS = 5
ROOM_BYTES = 2**20
"""A segment is only begun where so much is free: else it would be given up again at once."""

PIPE_FD = 0
REPORT_FD = 1


class Sink(Protocol):
    """Where a segment goes: a SegmentFile, or something in memory."""

    def write(self, data: bytes, /) -> int:
        """As a file's."""

    def tell(self) -> int:
        """As a file's."""

    def flush(self) -> None:
        """As a file's."""

    def end_record(self) -> None:
        """What was written so far is whole."""


class SegmentWriter:
    """Turns what comes out of the pipe into an MCAP file. OSError where the file cannot be written."""

    def __init__(self, sink: Sink, make_room: Callable[[], None] = lambda: None) -> None:
        """`make_room` is called when the disk is full, before it is tried once more."""
        self._sink = sink
        self._make_room = make_room
        # Without chunks every message is a record of its own: what was flushed can be read after a kill.
        # Nothing is repeated at the end, so that little room is enough to close the file.
        self._mcap = McapFile(sink, PROFILE)
        sink.end_record()
        self._channels: dict[str, int] = {}
        self._rest = b""
        self.first_turn = 0
        """Turn of the first record (modulo 2^32)."""
        self._last: tuple[str, int, int, int] | None = None
        self._unflushed: list[tuple[str, int, int, int] | None] = []
        """What `_last` was before each record that has not been flushed."""
        self._summariser: Summariser | None = Summariser()

    @property
    def is_empty(self) -> bool:
        """Whether the driver never handed anything over."""
        return self._last is None

    @property
    def last_turn(self) -> int:
        """Turn of the last record (modulo 2^32)."""
        return self._last[1] if self._last else 0

    @property
    def has_end(self) -> bool:
        """Whether the driver has ended the segment."""
        return self._last is not None and self._last[0] == SegmentEnd.__name__

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
        self._flush()

    def _flush(self) -> None:
        try:
            self._sink.flush()
        except OSError as error:
            if not is_disk_full(error):
                raise
            try:
                self._make_room()
            except OSError:
                raise error from None
            self._sink.flush()  # nothing of it is lost: it goes on where it stopped
        self._unflushed.clear()

    def give_up(self, records: int) -> None:
        """The last so many records are not in the file: it could not take them."""
        if records:
            self._last = self._unflushed[-records]
            self._summariser = None  # it has counted them
        self._unflushed.clear()

    def finish(self, reason: str = "", lost_bytes: int = 0) -> None:
        """Close the file's structure, with a SegmentEnd if the driver said none. `reason`: why it could not be
        written any further; `lost_bytes`: what is given up for it."""
        if self._last is not None and not self.has_end:
            end = SegmentEnd(goodbye=False, lost_bytes=len(self._rest) + lost_bytes, reason=reason)
            self._add(seal(end), *self._last[1:])
        self._add_summary()
        self._mcap.finish()
        self._sink.flush()

    def _add(self, payload: bytes, sequence: int, log_time: int, publish_time: int) -> None:
        tag = type_name(payload)
        channel = self._channels.get(tag)
        if channel is None:
            schema = tag, SchemaEncoding.JSONSchema, json_schema(TYPES[tag])
            channel = self._mcap.add_channel(TOPICS[tag], MessageEncoding.JSON, schema)
            self._channels[tag] = channel
        self._mcap.add_message(channel, log_time, payload, publish_time, sequence)
        self._sink.end_record()
        if self._last is None:
            self.first_turn = sequence
        self._unflushed.append(self._last)
        self._last = tag, sequence, log_time, publish_time
        if self._summariser is not None:
            try:
                self._summariser.add(tag, payload, sequence, publish_time, log_time)
            except Exception:  # noqa: BLE001 - a recording without a summary is better than none
                self._summariser = None

    def _add_summary(self) -> None:
        if self._summariser is not None and self._last is not None:
            with contextlib.suppress(Exception):
                text = msgspec.json.encode(self._summariser.summary()).decode()
                self._mcap.add_metadata(SUMMARY_METADATA, {SUMMARY_KEY: text})


def record(writer: SegmentWriter, file: SegmentFile) -> None:
    """Write until the pipe ends. OSError where the file cannot be written."""
    sync_at_s: float | None = None
    pipe_bytes = fcntl.fcntl(PIPE_FD, fcntl.F_GETPIPE_SZ)
    bytes_per_s = UNKNOWN_RATE  # so that the segment's header is in the file at once
    # One for all reads: os.read would have the kernel map and unmap that much for each, a seventh of what the
    # recorder costs while little happens.
    buffer = mmap.mmap(-1, READ_BYTES)
    data_or_end, end = select.poll(), select.poll()
    data_or_end.register(PIPE_FD, select.POLLIN)
    end.register(PIPE_FD, 0)
    while True:
        if sync_at_s is None:
            data_or_end.poll()
            read_at_s = time.monotonic()
            sync_at_s = read_at_s + SYNC_INTERVAL_S
        # Whoever waits for data is woken by every write, and waking costs the writer 10 to 100 us: so wait for
        # the end alone, and take what has come by then in one go.
        nap_s = min(sync_at_s - time.monotonic(), NAP_SHARE * pipe_bytes / max(bytes_per_s, 1.0))
        end.poll(max(0.0, nap_s) * 1000)
        count = os.readv(PIPE_FD, [buffer]) if data_or_end.poll(0) else None
        if count == 0:
            break
        last_read_at_s, read_at_s = read_at_s, time.monotonic()
        # One quiet nap does not make a quiet driver; and how fast a pipe was filled that is full, nobody knows.
        bytes_per_s = max((count or 0) / max(read_at_s - last_read_at_s, 1e-6), bytes_per_s / 8)
        if count and count >= pipe_bytes / 2:
            bytes_per_s = UNKNOWN_RATE
        if count:
            writer.feed(buffer[:count])
        if time.monotonic() >= sync_at_s:
            file.sync()
            sync_at_s = None
    writer.finish()
    file.sync()


def _record_segment(path: Path, segment: int, keep: Keep) -> bool:
    """The whole life of a segment. False if the disk did not take all of it, which has been reported then.
    OSError if it could not be begun, or not be closed."""
    file = SegmentFile(path)
    try:
        writer = SegmentWriter(file, lambda: make_room(path.parent, keep, ROOM_BYTES))
        file.sync()
        _sync_directory(path.parent)
        _report(Report(segment, "ready", path=str(path)))
        try:
            record(writer, file)
        except OSError as error:
            records, lost_bytes = file.take_back()
            writer.give_up(records)
            if writer.has_end and _is_closed(writer, file):
                return True
            reason = error.strerror or str(error)
            # Of a file that was deleted, nothing is kept.
            kept = writer.last_turn if file.is_there() else (writer.first_turn - 1) % TURN_MODULUS
            _report(Report(segment, "unavailable", f"{path.parent}: {reason}", last_turn=kept))
            with contextlib.suppress(OSError):  # its turns are whole all the same
                if writer.is_empty and file.is_there():
                    path.unlink()
                elif not writer.is_empty:
                    writer.finish(reason, lost_bytes)
                    file.sync()
            return False
        if writer.is_empty:
            path.unlink()  # prepared, and not needed
        return True
    finally:
        file.close()


def _is_closed(writer: SegmentWriter, file: SegmentFile) -> bool:
    """Whether a file that holds all that the driver said can be closed, with the room kept for that."""
    try:
        writer.finish()
        file.sync()
    except OSError:
        return False
    return True


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


def _keep_house(directory: Path, keep: Keep) -> None:
    """Leave a process behind that compresses and deletes what is old; it takes its time."""
    module = "fusioncharger.replay.housekeeping"
    command = [sys.executable, "-P", "-m", module, str(directory), *keep.arguments()]
    with contextlib.suppress(OSError):
        subprocess.Popen(  # noqa: S603 - our own program
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )


def main(arguments: list[str]) -> int:
    """Record one segment; 0 if the file is complete."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICENESS)
    path, segment = Path(arguments[0]), int(arguments[1])
    keep = Keep.of_arguments(arguments[2:])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        make_room(path.parent, keep, ROOM_BYTES)
        if any(path.parent.glob("*.mcap")):
            _keep_house(path.parent, keep)
        if not _record_segment(path, segment, keep):
            return 1
    except OSError as error:
        _report(Report(segment, "unavailable", f"{path.parent}: {error.strerror or error}"))
        return 1
    except (ValueError, KeyError) as error:
        # Only if the package was replaced while the driver ran: the two do not speak the same format.
        _report(Report(segment, "unavailable", f"record not understood: {error!r}"))
        return 1
    _report(Report(segment, "closed"))
    _keep_house(path.parent, keep)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
