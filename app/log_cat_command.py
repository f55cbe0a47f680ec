"""`fusioncharger log cat LOG…`: the messages of a log as JSON lines (docs/log.md).

    {"turn":41,"utc":"2026-11-24T02:42:00.292966Z","at_s":3.102035213,"topic":"in/bsp/BspEventReceived","type":…}

Exit codes: 0, 2 usage or no such log, 3 damaged (printed up to there), 4 format not supported.
"""

import argparse
import sys
from collections.abc import Iterator

import msgspec

from ..replay.logs import Log, Segment, open_logs
from ..replay.moments import Moment, MomentError, extent_text, parse_moment, resolve_part
from ..replay.reader import LogError
from .log_cat_filter import Filter, FilterError, type_names
from .log_cat_records import Record, SegmentTail, next_segment
from .log_files import DAMAGED, OK, USAGE, add_logs, failed, say_left_out

EPILOG = """\
A moment is a turn (1234, or 9d1ff7c5:1234 of the run whose id begins so), a time (2026-11-24T10:00:05Z, or
10:00:05, UTC), or +seconds after the log's begin. Bytes (frames, MAC addresses) are printed as hex, though they
stand as base64 in the log."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `log cat` takes."""
    parser.epilog = EPILOG
    add_logs(parser)
    parser.add_argument("--since", metavar="MOMENT", help="from this moment on")
    parser.add_argument("--until", metavar="MOMENT", help="up to this moment, and with it")
    parser.add_argument("--turn", metavar="A..B", help="turns A to B; A.. and ..B, or A alone, too")
    parser.add_argument(
        "--connector",
        type=int,
        choices=(1, 2, 3, 4),
        metavar="N",
        help="what concerns connector N (local number)",
    )
    parser.add_argument(
        "--type",
        action="append",
        default=[],
        metavar="NAME",
        help="messages of this type only; with * and ?, and more than once: 'Power*', 'in/psu/*'",
    )
    parser.add_argument(
        "--follow", action="store_true", help="wait for what is recorded next, until the driver ends, or Ctrl-C"
    )


def log_cat_command(arguments: argparse.Namespace) -> int:
    """Print the messages; the exit code."""
    try:
        wanted = type_names(arguments.type)
        since, until = _moments(arguments)
        log = open_logs(arguments.logs)
        found = Filter(wanted, arguments.connector, resolve_part(log, since, until))
        say_left_out(log)
        code = _print(log, found, follow=arguments.follow)
        if not found.has_begun and not arguments.follow:
            print(f"nothing there; {extent_text(log)}", file=sys.stderr)
            return code or USAGE
        return code
    except LogError as error:
        return failed(error)
    except (MomentError, FilterError) as error:
        print(error, file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        return OK


def _moments(arguments: argparse.Namespace) -> tuple[Moment | None, Moment | None]:
    """Since, and until. MomentError, FilterError."""
    since, until = arguments.since, arguments.until
    if arguments.turn is not None:
        if since is not None or until is not None:
            msg = "--turn goes without --since and --until"
            raise FilterError(msg)
        first, dots, last = arguments.turn.partition("..")
        since, until = (first or None, last or None) if dots else (first, first)
    return (
        None if since is None else parse_moment(since),
        None if until is None else parse_moment(until),
    )


def _print(log: Log, wanted: Filter, *, follow: bool) -> int:
    """The exit code. LogError."""
    code = OK
    encoder = msgspec.json.Encoder()
    for index in range(wanted.first_segment, len(log.segments)):
        if wanted.is_past_segment(log, index):
            return code
        is_last = index == len(log.segments) - 1
        segment: Segment | None = log.segments[index]
        while segment is not None:
            tail = SegmentTail(segment)
            for record in _records(tail, follow=follow and is_last):
                if wanted.is_past(record, index):
                    return code
                if record.is_pause:
                    sys.stdout.buffer.flush()
                elif wanted.takes(record, index):
                    sys.stdout.buffer.write(encoder.encode(record.shown()) + b"\n")
            if tail.damage:
                sys.stdout.buffer.flush()
                print(f"{segment.path}: damaged after turn {tail.turn}: {tail.damage}", file=sys.stderr)
                code = DAMAGED
            former = segment
            segment = next_segment(segment, tail) if follow and is_last else None
            if segment is None and follow and is_last and _goes_on(tail):
                sys.stdout.buffer.flush()
                print(f"{former.path}: no driver is there any more to go on with it", file=sys.stderr)
    sys.stdout.buffer.flush()
    return code


def _goes_on(tail: SegmentTail) -> bool:
    """Whether the run was to go on in another segment."""
    return tail.end is not None and bool(tail.end.continues or tail.end.reason)


def _records(tail: SegmentTail, *, follow: bool) -> Iterator[Record]:
    return tail.following() if follow else tail.records()
