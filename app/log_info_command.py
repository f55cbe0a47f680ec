"""`fusioncharger log info LOG…`: what is in a log (replay/log_info.py, docs/log.md).

Exit codes: 0, also for a log that is cut (it says where), 2 no such log, 3 nothing readable,
4 format not supported.
"""

import argparse

import msgspec

from ..replay.log_info import gather, info_text
from ..replay.logs import open_logs
from ..replay.reader import LogError
from .log_files import OK, add_logs, failed
from .progress import progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `log info` takes."""
    add_logs(parser)
    parser.add_argument("--json", action="store_true", help="as one JSON object")


def log_info_command(arguments: argparse.Namespace) -> int:
    """Print what is in the log; the exit code."""
    try:
        log = open_logs(arguments.logs)
        with progress("reading", sum(segment.size_bytes for segment in log.segments)) as advance:
            info = gather(log, advance)
    except LogError as error:
        return failed(error)
    print(msgspec.json.encode(info).decode() if arguments.json else info_text(info))
    return OK
