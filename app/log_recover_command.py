"""`fusioncharger log recover LOG… -o OUT`: a readable log of a damaged one (replay/recover.py, docs/log.md).

Exit codes: 0 nothing was lost, 2 usage, no such log, or OUT is there already, 3 something was lost (it says
what), 4 format not supported.
"""

import argparse
import sys
from itertools import pairwise
from pathlib import Path

from ..replay.logs import Log, open_logs
from ..replay.reader import LogError
from ..replay.recover import Recovered, recover
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
    for segment, found in zip(log.segments, results, strict=True):
        for part in found.parts:
            turns = f"turns {part.first_turn} to {part.last_turn}" if part.turns else "no turn"
            print(f"{part.path}: {turns}" + ("" if part.replays else ", to be read, not to be replayed"))
        if found.damage:
            code = DAMAGED
            print(f"{segment.path}: {found.damage}")
            print(f"  lost: {found.lost_bytes} bytes; {_missing(found)}")
    for path, why in log.unreadable:
        code = DAMAGED
        print(f"{path}: lost as a whole: {why}")
    return code


def _missing(found: Recovered) -> str:
    """Which turns are not in the new files, or not whole."""
    holes = [
        f"turns {former.last_turn + 1} to {part.first_turn - 1}"
        if part.first_turn > former.last_turn + 1
        else f"a part of turn {former.last_turn}"
        for former, part in pairwise(found.parts)
    ]
    return ", ".join([*holes, f"what came after turn {found.parts[-1].last_turn}, if anything did"])
