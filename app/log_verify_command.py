"""`fusioncharger log verify LOG…`: is the log whole? (docs/log.md)

Checked are every record's and every chunk's checksum, that turns follow one another within a segment and from
segment to segment, and that each segment was closed.

Exit codes: 0 whole, 2 usage or no such log, 3 damaged or turns missing, 4 format not supported.
"""

import argparse
from collections.abc import Callable
from itertools import pairwise

from msgspec import Struct

from ..replay.log_info import table
from ..replay.logs import Log, Segment, missing_between, open_logs
from ..replay.reader import Ending, EndKind, LogError, UnsupportedFormatError
from .log_files import DAMAGED, OK, UNSUPPORTED, add_logs, failed, say_left_out
from .progress import progress

_UPDATE_TURNS = 1 << 10
_CLOSED = {
    EndKind.GOODBYE: "closed by the driver",
    EndKind.CONTINUES: "goes on in the next segment",
}
_HEAD = ("run", "segment", "turns", "MiB", "state", "file")


class Checked(Struct, frozen=True):
    """What was found in a segment."""

    turns: int
    last_turn: int
    state: str
    is_whole: bool
    continues: bool = False
    is_unsupported: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `log verify` takes."""
    add_logs(parser)


def log_verify_command(arguments: argparse.Namespace) -> int:
    """Check the log and say what came of it; the exit code."""
    try:
        log = open_logs(arguments.logs)
        with progress("verifying", sum(segment.size_bytes for segment in log.segments)) as advance:
            checked = [check(segment, advance) for segment in log.segments]
    except LogError as error:
        return failed(error)
    rows = [
        (
            segment.header.run_id[:8],
            str(segment.header.segment),
            str(found.turns),
            f"{segment.size_bytes / 2**20:.1f}",
            found.state,
            str(segment.path),
        )
        for segment, found in zip(log.segments, checked, strict=True)
    ]
    print("\n".join(table(_HEAD, rows)))
    missing = list(_missing(log, checked))
    for line in missing:
        print(line)
    say_left_out(log)
    turns = sum(found.turns for found in checked)
    if any(found.is_unsupported for found in checked):
        print("not supported: a later version wrote it")
        return UNSUPPORTED
    if missing or log.unreadable or not all(found.is_whole for found in checked):
        print(f"damaged: {turns} turns are whole")
        return DAMAGED
    print(f"whole: {turns} turns")
    return OK


def check(segment: Segment, advance: Callable[[int], None]) -> Checked:
    """Read a segment to its end or its damage. LogError if it cannot be opened any more."""
    turns = done_bytes = 0
    last_turn = segment.header.first_turn - 1
    altered = ""
    with segment.read() as reader:
        try:
            for turn in reader.turns():
                turns, last_turn = turns + 1, turn.number
                for number, output in enumerate(turn.outputs, 1):
                    if not output.intact:
                        altered = altered or f"the checksum of output {number} of turn {turn.number} fails"
                if turns % _UPDATE_TURNS == 0:
                    advance(reader.records.whole_bytes - done_bytes)
                    done_bytes = reader.records.whole_bytes
        except UnsupportedFormatError as error:
            return Checked(turns, last_turn, f"not supported: {error}", is_whole=False, is_unsupported=True)
    advance(segment.size_bytes - done_bytes)
    ending = reader.ending
    assert ending is not None  # noqa: S101 - it was read to its end
    if altered:
        return Checked(turns, last_turn, f"damaged: {altered}", is_whole=False)
    is_whole = ending.kind is not EndKind.DAMAGED
    continues = ending.kind is EndKind.CONTINUES
    return Checked(turns, last_turn, _state(ending), is_whole, continues)


def _state(ending: Ending) -> str:
    if ending.kind is EndKind.DAMAGED:
        return f"damaged after turn {ending.last_turn}: {ending.text}"
    return _CLOSED.get(ending.kind) or ending.text


def _missing(log: Log, checked: list[Checked]) -> list[str]:
    """Turns that are not there between the segments of a run, in words."""
    found = []
    for index, (former, segment) in enumerate(pairwise(log.segments)):
        if missing := missing_between(former, checked[index].last_turn, segment):
            found.append(f"{missing}, before {segment.path}")
    return found
