"""One driver to a journal directory: a second one would delete and compress what the first one needs.

The lock is a file's. A directory that vanished and was made again has another file: the lock has to be renewed
before anything is written there.

The lock is the kernel's (flock): it is gone with the process, however that ends. The recorder does not hold it,
so that a new driver can start while the former one's recorder still writes its last turns.
"""

import contextlib
import fcntl
import os
from pathlib import Path

LOCK_NAME = ".driver.lock"


class DirectoryInUseError(Exception):
    """Another driver records there. The text is for the user."""


class DirectoryLock:
    """Held from `take` until `release`, or the end of the process."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / LOCK_NAME
        self._descriptor: int | None = None

    def take(self) -> None:
        """DirectoryInUseError. A directory that cannot be made or written is no reason not to charge: nothing
        is locked then, and the recorder will say what is wrong with it."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError:
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(descriptor, 20).decode("ascii", "replace").strip() or "?"
            os.close(descriptor)
            msg = f"{self._path.parent} is in use by another driver (process {pid}); each needs one of its own"
            raise DirectoryInUseError(msg) from None
        except OSError:  # a file system without locks
            os.close(descriptor)
            return
        with contextlib.suppress(OSError):  # a full disk
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor

    def renew(self) -> None:
        """Take it again if the directory, or the file, is not the one any more that was locked, or if it could
        not be locked so far. DirectoryInUseError."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                if os.path.samestat(self._path.stat(), os.fstat(self._descriptor)):
                    return
            self.release()
        self.take()

    def release(self) -> None:
        """Let another driver have it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of a file: a driver a directory's (LOCK_NAME), a recorder its segment's.
    True also where it cannot be told. Asking may be in the way of one that is about to take it: ask only when
    nobody is expected to."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # held; or a file system without locks
        return True
    finally:
        os.close(descriptor)
    return False
