"""Compresses closed segments, and deletes the oldest beyond what is to be kept (architecture.md §4).

    python -P -m fusioncharger.replay.housekeeping DIRECTORY KEEP_BYTES KEEP_DAYS

A process of its own, at the lowest priority, started by the recorder; one at a time in a directory.

Rules:
- Only files with the name of a segment are touched, and none that is being written: its writer holds its lock.
- A segment that was not closed is evidence, and stays as it is, until it is too old.
- The compressed file takes the plain one's name in one step, once it has been read back and holds as many
  messages. What a power cut left half done is removed.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel, Metadata, Schema
from mcap.records import Message as McapMessage
from mcap.stream_reader import StreamReader
from mcap.writer import MCAP0_MAGIC, CompressionType, IndexType, Writer

from .keep import Keep
from .log_format import PROFILE, RECORD_LIMIT_BYTES
from .records import RecordError, RecordReader
from .segment_file import BALLAST_SUFFIX

PART_SUFFIX = ".part"
LOCK_NAME = ".housekeeping.lock"
LOWEST_PRIORITY = 19
CHUNK_BYTES = 2**20
SECONDS_PER_DAY = 86_400
BEGINNING_BYTES = 4096
CLOCK_KNEW_S = 1_735_689_600
"""2025-01-01: the driver is younger. A clock that shows less does not know the time."""

_HEAD = struct.Struct("<BQ")
"""Opcode and length of an MCAP record."""

_SEGMENT = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}-[0-9]{4,}\.mcap")
_LEFT_OVER = re.compile(_SEGMENT.pattern + f"({re.escape(PART_SUFFIX)}|{re.escape(BALLAST_SUFFIX)})")


class _BusyError(Exception):
    """Someone else holds the lock."""


@contextlib.contextmanager
def _locked(path: Path, flags: int = os.O_RDONLY) -> Iterator[None]:
    """Hold the file's lock. _BusyError, OSError."""
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _BusyError from None
        yield
    finally:
        os.close(descriptor)


def segments(directory: Path) -> list[Path]:
    """The segments in a directory, the oldest first. By when they were written last: the time in a name may be
    from before the clock was set. OSError."""
    found: list[tuple[int, str, Path]] = []
    for path in directory.iterdir():
        if _SEGMENT.fullmatch(path.name):
            with contextlib.suppress(FileNotFoundError):
                found.append((path.stat().st_mtime_ns, path.name, path))
    return [path for _, _, path in sorted(found)]


def delete_old(directory: Path, keep: Keep, now_s: float) -> list[Path]:
    """Delete the oldest segments beyond what is to be kept; what was deleted. The newest stays, whatever its
    size. OSError where the directory cannot be read."""
    files = _sizes(segments(directory))
    total_bytes = sum(status.st_size for _, status in files)
    deleted = []
    for path, status in files[:-1]:
        has_age = status.st_mtime > CLOCK_KNEW_S  # else it is from a boot in which the clock was never set
        is_too_old = keep.days and has_age and status.st_mtime < now_s - keep.days * SECONDS_PER_DAY
        is_too_much = keep.total_bytes and total_bytes > keep.total_bytes
        if not (is_too_old or is_too_much):
            if has_age:
                break
            continue
        if _deleted(path):
            deleted.append(path)
            total_bytes -= status.st_size
    return deleted


def make_room(directory: Path, keep: Keep, free_bytes: int) -> None:
    """Let so much be free, at the cost of the oldest segments. OSError if that is not enough: none is given up
    for nothing then, as when something else fills the disk."""
    if _free_bytes(directory) < free_bytes:
        delete_old(directory, keep, time.time())
    files = _sizes(segments(directory)[:-1])
    if _free_bytes(directory) + sum(status.st_size for _, status in files) >= free_bytes:
        for path, _ in files:
            if _free_bytes(directory) >= free_bytes:
                break
            _deleted(path)
    free = _free_bytes(directory)
    if free < free_bytes:
        msg = f"the disk is full: {free / 2**20:.1f} MiB are free, {free_bytes / 2**20:g} MiB are needed"
        raise OSError(msg)


def _sizes(paths: list[Path]) -> list[tuple[Path, os.stat_result]]:
    """Those that are still there."""
    files = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            files.append((path, path.stat()))
    return files


def _deleted(path: Path) -> bool:
    """Whether it could be deleted: nobody is writing it."""
    with contextlib.suppress(_BusyError, OSError), _locked(path):
        path.unlink()
        return True
    return False


def _free_bytes(directory: Path) -> int:
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize


def compress(path: Path) -> bool:
    """Replace a closed, plain segment by its compressed form. False: it is not closed, compressed already, or
    being written. OSError where there is no room, or no permission."""
    part = path.with_name(path.name + PART_SUFFIX)
    try:
        with _locked(path):
            if not _is_closed_and_plain(path):
                return False
            try:
                _copy(path, part)
                if _digest(part) != _digest(path):
                    return False
                # The age that counts is that of the recording.
                status = path.stat()
                os.utime(part, ns=(status.st_atime_ns, status.st_mtime_ns))
                part.replace(path)
                _sync_directory(path.parent)
            finally:
                part.unlink(missing_ok=True)
    except (_BusyError, RecordError, McapError, ValueError, struct.error):
        return False
    return True


def _is_closed_and_plain(path: Path) -> bool:
    """Whether it ends as a closed file does, and its first record after the header is no chunk. Its ends alone
    are looked at: this is asked of every segment each time."""
    with path.open("rb") as file:
        beginning = file.read(BEGINNING_BYTES)
        file.seek(max(len(MCAP0_MAGIC), file.seek(0, os.SEEK_END) - len(MCAP0_MAGIC)))
        if not beginning.startswith(MCAP0_MAGIC) or file.read() != MCAP0_MAGIC:
            return False
    second = len(MCAP0_MAGIC) + _HEAD.size + _HEAD.unpack_from(beginning, len(MCAP0_MAGIC))[1]
    return second < len(beginning) and bool(beginning[second] == Opcode.SCHEMA)


def _digest(path: Path) -> bytes:
    """Of all its messages. RecordError if it cannot be read to its end."""
    digest = hashlib.blake2b()
    with path.open("rb") as file:
        reader = RecordReader(file)
        reader.read_profile()
        for topic, sequence, log_time, publish_time, payload in reader.messages():
            digest.update(b"%s %d %d %d %d " % (topic.encode(), sequence, log_time, publish_time, len(payload)))
            digest.update(payload)
    return digest.digest()


def _sync_directory(directory: Path) -> None:
    """Put a changed name on the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _copy(path: Path, part: Path) -> None:
    """Write the compressed form, and put it on the disk."""
    with path.open("rb") as source, part.open("wb") as out:
        writer = Writer(
            out,
            chunk_size=CHUNK_BYTES,
            compression=CompressionType.ZSTD,
            index_types=IndexType.CHUNK | IndexType.MESSAGE | IndexType.METADATA,
        )
        writer.start(PROFILE)
        schemas: dict[int, int] = {}
        channels: dict[int, int] = {}
        for record in StreamReader(source, record_size_limit=RECORD_LIMIT_BYTES).records:
            match record:
                case McapMessage():
                    writer.add_message(
                        channels[record.channel_id],
                        record.log_time,
                        record.data,
                        record.publish_time,
                        record.sequence,
                    )
                case Schema():
                    schemas[record.id] = writer.register_schema(record.name, record.encoding, record.data)
                case Channel():
                    channels[record.id] = writer.register_channel(
                        record.topic, record.message_encoding, schemas[record.schema_id]
                    )
                case Metadata():
                    writer.flush()  # type: ignore[no-untyped-call]  # after all messages, as in the plain file
                    writer.add_metadata(record.name, record.metadata)
        writer.finish()  # type: ignore[no-untyped-call]  # mcap leaves it without annotations
        out.flush()
        os.fsync(out.fileno())


def keep_house(directory: Path, keep: Keep, now_s: float) -> None:
    """All that is to be done in a directory. OSError."""
    for path in sorted(directory.iterdir()):
        if _LEFT_OVER.fullmatch(path.name):
            segment = path.with_suffix("")
            with contextlib.suppress(_BusyError, OSError), _locked(segment if segment.exists() else path):
                path.unlink(missing_ok=True)
    delete_old(directory, keep, now_s)
    for path in segments(directory):
        with contextlib.suppress(OSError):  # no room for this one, or it is gone
            # No other is given up for it: the recorder makes room where it has to.
            has_room = _free_bytes(directory) >= path.stat().st_size // 2
            if has_room and _is_closed_and_plain(path):
                compress(path)
    delete_old(directory, keep, now_s)


def main(arguments: list[str]) -> int:
    """Keep house once; 0 also if another process does so, or there is nothing to keep."""
    directory = Path(arguments[0])
    os.nice(LOWEST_PRIORITY)
    try:
        with _locked(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT):
            keep_house(directory, Keep.of_arguments(arguments[1:]), time.time())
    except (_BusyError, FileNotFoundError):  # someone else does it; or the directory is gone
        return 0
    except OSError as error:
        print(f"{directory}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
