"""A file system that is soon full."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from requirements import unavailable


@contextmanager
def mounted_disk(directory: Path, size_mib: int = 4) -> Iterator[Path]:
    """A tmpfs of that size on a new directory."""
    directory.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", str(directory)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        unavailable(f"a small file system cannot be mounted: run as root ({done.stderr.strip()})")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def fill(disk: Path, leave_bytes: int) -> Path:
    """Something else takes the room."""
    path = disk / "something-else"
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):  # someone else may write, too
        file.write(bytes(max(0, free - leave_bytes)))
    return path
