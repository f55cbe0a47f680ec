"""Which segments of a journal a bundle needs, and how much of each is whole.

A segment starts with a snapshot, so whole segments are taken: those in which anything was recorded since then.
"""

import fcntl
from pathlib import Path

from msgspec import Struct

from ..replay.logs import Log, Segment
from ..replay.reader import LogError

NS_PER_S = 1_000_000_000


class Piece(Struct, frozen=True):
    """A segment to be packed."""

    path: Path
    size_bytes: int
    """So much of it, from its beginning."""
    is_live: bool
    """It is being written: what is packed is what was there, up to the last whole record."""


def slice_since(log: Log, since_utc_ns: int) -> tuple[Piece, ...]:
    """The segments that reach beyond that time, in their order."""
    return tuple(_piece(segment) for segment in log.segments if last_utc_ns(segment) >= since_utc_ns)


def last_utc_ns(segment: Segment) -> int:
    """When something was last recorded in it: by its summary, or else when the file was written last."""
    if segment.summary is not None and segment.summary.last_utc_ns:
        return segment.summary.last_utc_ns
    try:
        return segment.path.stat().st_mtime_ns
    except OSError:
        return segment.header.utc_ns


def _piece(segment: Segment) -> Piece:
    if not _is_being_written(segment.path):
        return Piece(segment.path, segment.path.stat().st_size, is_live=False)
    return Piece(segment.path, _whole_bytes(segment), is_live=True)


def _is_being_written(path: Path) -> bool:
    """Its writer holds the file's lock (replay/segment_file.py)."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # a file system without locks
            return False
    return False


def _whole_bytes(segment: Segment) -> int:
    """Where the last whole record ends at present."""
    with segment.read() as log:
        try:
            for _ in log.turns():
                pass
        except LogError:
            return segment.path.stat().st_size
        return log.records.whole_bytes
