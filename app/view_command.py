"""`fusioncharger view LOG… -o report.html`: the picture of a log, as one HTML file that needs no network.

Exit codes: 0 written, 2 usage or no such log, 3 the log is damaged (drawn up to the cut), 4 format not
supported.
"""

import argparse
import sys
import time
from pathlib import Path

from ..replay.logs import open_logs
from ..replay.moments import Moment, MomentError, parse_moment
from ..replay.reader import DamagedLogError, LogError, UnsupportedFormatError
from ..replay.view.drawing import Picture, TooLongError, draw
from ..replay.view.page import page
from .export_files import OutputError, check_output, new_path
from .progress import progress

WRITTEN = 0
USAGE = 2
DAMAGED = 3
UNSUPPORTED = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `view` takes."""
    parser.add_argument("log", type=Path, nargs="+", metavar="LOG", help="log files, or directories of them")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="the HTML file to write"
    )
    parser.add_argument(
        "--from",
        dest="begin",
        type=_moment,
        metavar="MOMENT",
        help="where the picture begins: a turn (1234), a time (2026-11-24T10:00:05Z, or 10:00:05), or +seconds",
    )
    parser.add_argument("--until", type=_moment, metavar="MOMENT", help="where it ends, likewise")
    parser.add_argument("--force", action="store_true", help="replace FILE if it is there already")


def _moment(text: str) -> Moment:
    try:
        return parse_moment(text)
    except MomentError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def view_command(arguments: argparse.Namespace) -> int:
    """Draw the log and say what came of it; the exit code."""
    output: Path = arguments.output
    started_s = time.monotonic()
    try:
        log = open_logs(arguments.log)
        check_output(output, log, force=arguments.force)
        with progress("drawing", sum(segment.size_bytes for segment in log.segments)) as advance:
            picture = draw(log, arguments.begin, arguments.until, advance)
        with new_path(output) as partial:
            partial.write_text(page(picture, _named(arguments.log)), "utf-8")
    except (MomentError, TooLongError) as error:
        print(f"{_named(arguments.log)}: {error}", file=sys.stderr)
        return USAGE
    except UnsupportedFormatError as error:
        print(f"{error}: not supported", file=sys.stderr)
        return UNSUPPORTED
    except DamagedLogError as error:
        print(f"{error}: no turn of it is whole, so there is nothing to draw", file=sys.stderr)
        return DAMAGED
    except (LogError, OutputError) as error:
        print(error, file=sys.stderr)
        return USAGE
    _conclude(picture, output, time.monotonic() - started_s)
    return DAMAGED if picture.cut else WRITTEN


def _conclude(picture: Picture, output: Path, took_s: float) -> None:
    for note in picture.notes:
        print(note)
    turns = picture.collector.turns
    if not picture.replayed:
        verdict = "not replayed"
    elif picture.replayed < turns and not picture.collector.differing:
        verdict = f"{picture.replayed} of them replayed, as recorded"
    elif picture.collector.differing:
        verdict = f"{picture.collector.differing} of them differ when they are replayed"
    else:
        verdict = "replayed as recorded"
    print(f"{output}: {turns} turns, {verdict}; {output.stat().st_size / 1e6:.1f} MB, {took_s:.1f} s")


def _named(paths: list[Path]) -> str:
    """The log's name in titles and messages."""
    others = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return f"{paths[0].name or paths[0]}{others}"
