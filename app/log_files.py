"""What the `log` commands have in common: which files, and what to say of those that cannot be read.

Exit codes: 0 fine, 2 usage or no such log, 3 damaged, 4 format not supported.
"""

import argparse
import sys
from pathlib import Path

from ..replay.logs import Log
from ..replay.reader import LogError, NotALogError, UnsupportedFormatError

OK = 0
USAGE = 2
DAMAGED = 3
UNSUPPORTED = 4


def add_logs(parser: argparse.ArgumentParser) -> None:
    """The LOG… argument."""
    parser.add_argument(
        "logs", type=Path, nargs="+", metavar="LOG", help="log files (.mcap), or directories of them"
    )


def failed(error: LogError) -> int:
    """Say it; the exit code."""
    print(error, file=sys.stderr)
    if isinstance(error, UnsupportedFormatError):
        return UNSUPPORTED
    return USAGE if isinstance(error, NotALogError) else DAMAGED


def say_left_out(log: Log) -> None:
    """Name the files that are left out."""
    for path, why in log.unreadable:
        print(f"{path}: left out: {why}", file=sys.stderr)
