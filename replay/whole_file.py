"""A new file gets its name once it is whole, and replaces none."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

PART_SUFFIX = ".part"


@contextlib.contextmanager
def whole_file(output: Path) -> Iterator[Path]:
    """Where to write it: a file beside it, which has its name afterwards, or is deleted where anything failed.
    FileExistsError, also if that file is left from a time before; OSError, which names `output`."""
    part = output.with_name(output.name + PART_SUFFIX)
    for path in (output, part):
        if path.exists():
            raise _is_there(path)
    try:
        yield part
        _name(part, output)
    except OSError as error:
        if error.filename == str(part):
            error.filename = str(output)
        raise
    finally:
        part.unlink(missing_ok=True)


def _name(part: Path, output: Path) -> None:
    try:
        os.link(part, output)  # unlike a rename it replaces nothing, also what somebody made meanwhile
    except FileExistsError:
        raise _is_there(output) from None
    except OSError:  # a file system without hard links: FAT's say so one way, those of networks another
        if output.exists():
            raise _is_there(output) from None
        part.rename(output)


def _is_there(path: Path) -> FileExistsError:
    return FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
