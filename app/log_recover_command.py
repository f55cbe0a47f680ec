"""`fusioncharger log recover LOG… -o OUT`: a readable log of a damaged one (replay/recover.py, docs/log.md).

Exit codes: 0 nothing was lost, 2 usage, no such log, or OUT is there already, 3 something was lost (it says
what), 4 format not supported.
"""

import argparse
import sys
from pathlib import Path

from ..replay.logs import Log, open_logs
from ..replay.reader import LogError
from ..replay.recover import recover
from .log_files import DAMAGED, OK, USAGE, add_logs, failed
from .progress import progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `log recover` takes."""
    add_logs(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="OUT",
        help="the new file; a directory, which gets a file per segment, if the log has several",
    )


def log_recover_command(arguments: argparse.Namespace) -> int:
    """Recover the log and say what was lost; the exit code."""
    out: Path = arguments.output
    try:
        log = open_logs(arguments.logs)
        return _recover(log, out)
    except LogError as error:
        return failed(error)
    except FileExistsError as error:
        print(f"{error.filename or error}: is there already; name a new file", file=sys.stderr)
        return USAGE
    except OSError as error:
        print(f"{error.filename or out}: cannot be written: {error.strerror or error}", file=sys.stderr)
        return USAGE


def _recover(log: Log, out: Path) -> int:
    """The exit code. LogError, OSError."""
    targets = [out]
    if len(log.segments) > 1 or out.is_dir():
        out.mkdir(parents=True, exist_ok=True)
        targets = [out / segment.path.name for segment in log.segments]
    for target in targets:
        if target.exists():
            raise FileExistsError(target)
    code = OK
    with progress("recovering", sum(segment.size_bytes for segment in log.segments)) as advance:
        results = [
            recover(segment, target, advance) for segment, target in zip(log.segments, targets, strict=True)
        ]
    for segment, target, found in zip(log.segments, targets, results, strict=True):
        print(f"{target}: {found.turns} turns, up to turn {found.last_turn}")
        if found.damage:
            code = DAMAGED
            print(f"{segment.path}: {found.damage}")
            turns = f"at least {found.lost_inputs} turns" if found.lost_inputs else "no whole turn found there"
            print(f"  lost: {found.lost_bytes} bytes from there to the end of the file; {turns}")
    for path, why in log.unreadable:
        code = DAMAGED
        print(f"{path}: lost as a whole: {why}")
    return code
