"""`fusioncharger replay LOG`: does this version do what the recorded one did?

Exit codes: 0 identical, 1 diverged, 2 usage or no such log, 3 damaged (replayed up to the cut), 4 format not
supported.
"""

import argparse
import sys
from pathlib import Path

from ..replay.divergence import report
from ..replay.reader import (
    DamagedLogError,
    EndKind,
    LogReader,
    NotALogError,
    UnsupportedFormatError,
    read_log,
)
from ..replay.replayer import Replay, replay

IDENTICAL = 0
DIVERGED = 1
USAGE = 2
DAMAGED = 3
UNSUPPORTED = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `replay` takes."""
    parser.add_argument("log", type=Path, metavar="LOG", help="a log file (.mcap)")


def replay_command(arguments: argparse.Namespace) -> int:
    """Replay a log and say what came of it; the exit code."""
    path: Path = arguments.log
    try:
        with read_log(path) as log:
            return _conclude(log, replay(log))
    except NotALogError as error:
        print(f"{path}: {error}", file=sys.stderr)
        return USAGE
    except DamagedLogError as error:
        print(f"{path}: damaged after turn 0: {error}; 0 turns kept")
        return DAMAGED
    except UnsupportedFormatError as error:
        print(f"{path}: not supported: {error}", file=sys.stderr)
        return UNSUPPORTED


def _conclude(log: LogReader, found: Replay) -> int:
    """Print the result, the verdict last."""
    if log.gap is not None:
        print(f"gap: turns {log.gap.first_turn} to {log.gap.last_turn} are missing: {log.gap.reason}")
    if found.divergence is not None:
        print(report(found.divergence))
        return DIVERGED
    if found.unfinished:
        print(found.unfinished)
    ending = log.ending
    assert ending is not None  # noqa: S101 - without divergence, the log was read to its end
    damage = found.altered
    if ending.kind is EndKind.DAMAGED:
        damage = ending.text
    elif ending.text:
        print(ending.text)
    verdict = f"identical: {found.turns} turns, {found.outputs} outputs"
    if damage:
        print(f"damaged after turn {ending.last_turn}: {damage}; replayed up to there: {verdict}")
        return DAMAGED
    print(verdict)
    return IDENTICAL
