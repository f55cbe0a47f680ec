"""The file of a segment: what is written to it, and what is left of it when the disk is full.

Rules:
- A record is either whole in the file or not there: what a full disk cut is taken back.
- Room for the notes that end a segment is kept from the beginning (`BALLAST_BYTES`, a file beside it), so that
  a segment that the disk cannot take any further is closed all the same.
- While it is written the file is locked, so that nobody compresses or deletes it.
"""

import contextlib
import errno
import fcntl
import os
from bisect import bisect_right
from pathlib import Path

BALLAST_BYTES = 64 * 1024
BALLAST_SUFFIX = ".reserve"


class SegmentFile:
    """A new file, to be written from its beginning to its end. OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path.with_name(path.name + BALLAST_SUFFIX)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._ballast.write_bytes(bytes(BALLAST_BYTES))
        except OSError:
            self.close()
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        self._pending = bytearray()
        self._written = 0
        """Bytes in the file."""
        self._ends = [0]
        """Where records end, from the last flush on."""

    # --- what mcap's writer needs of a file ----------------------------------------------------------------

    def write(self, data: bytes) -> int:
        """Keep it until the next flush."""
        self._pending += data
        return len(data)

    def tell(self) -> int:
        """Where the next byte goes."""
        return self._written + len(self._pending)

    # --- for the recorder ----------------------------------------------------------------------------------

    def end_record(self) -> None:
        """What was written so far is whole."""
        self._ends.append(self.tell())

    def flush(self) -> None:
        """Hand over to the kernel. OSError: it could not take everything."""
        while self._pending:
            written = os.write(self._descriptor, self._pending)
            del self._pending[:written]
            self._written += written
        self._ends = [self._written]

    def sync(self) -> None:
        """Put everything on the disk. OSError; also if the file has been deleted, or its directory: what is
        written to it then is lost without a word."""
        self.flush()
        os.fdatasync(self._descriptor)
        if not os.path.samestat(self.path.stat(), os.fstat(self._descriptor)):
            raise FileNotFoundError(errno.ENOENT, "the file has been replaced")

    def is_there(self) -> bool:
        """Whether its name still leads to it."""
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._descriptor))
        except OSError:
            return False

    def take_back(self) -> tuple[int, int]:
        """After a flush that failed: cut the file to its last whole record, and free the room that was kept.
        How many records, and how many bytes, are given up. OSError."""
        kept = bisect_right(self._ends, self._written)
        whole = self._ends[kept - 1]
        given_up = len(self._ends) - kept, self.tell() - whole
        self._pending.clear()
        os.ftruncate(self._descriptor, whole)
        os.lseek(self._descriptor, whole, os.SEEK_SET)
        self._written = whole
        self._ends = [whole]
        self._drop_ballast()
        return given_up

    def close(self) -> None:
        """Close it, with what has been flushed."""
        self._drop_ballast()
        os.close(self._descriptor)

    def _drop_ballast(self) -> None:
        with contextlib.suppress(OSError):
            self._ballast.unlink()


def is_disk_full(error: OSError) -> bool:
    """Whether room is what is missing."""
    return error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
