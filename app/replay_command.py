"""`fusioncharger replay LOG…`: does this version do what the recorded one did? Or: how was it at that moment?

Exit codes: 0 identical, 1 diverged, 2 usage or no such log, 3 damaged (replayed up to the cut), 4 format not
supported.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from ..messages.config import ConfigError
from ..replay.changed_code import compare
from ..replay.comparison import summary
from ..replay.divergence import report
from ..replay.log_format import Gap
from ..replay.logs import Log, Segment, missing_between, open_logs
from ..replay.moments import MomentError, extent_text
from ..replay.reader import (
    DamagedLogError,
    Ending,
    EndKind,
    LogError,
    LogReader,
    NotALogError,
    UnsupportedFormatError,
)
from ..replay.replayer import Replay, replay
from ..replay.session import Session
from ..replay.state_text import state_json, state_text, turn_line
from ..replay.stepping import snapshot_differs
from ..replay.what_if import SettingError, what_if
from .log_files import say_left_out
from .progress import Advance, progress
from .replay_findings import DAMAGED, IDENTICAL, Findings
from .replay_step import step_through

DIVERGED = 1
USAGE = 2
UNSUPPORTED = 4

_ADVICE = """\
After a turn that differs the replay goes on with its own states: later ones may be consequences.
Look at it: replay LOG --at TURN; the picture: view LOG -o report.html"""
_WHAT_IF = """\
timers ran on virtual time; what came from the power unit and
from EVerest is as recorded, though they might have acted otherwise"""

_FITTING = {
    "--step": ("--from",),
    "--at": ("--json",),
    "--from": ("--until", "--speed"),
    "--until": ("--speed",),
    "--speed": (),
    "--set": ("--accept-new-fields",),
}
"""What each of these takes besides. The first that is given decides what is done."""

_TIE = "the input went first here; in the field it may have been the timer"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `replay` takes."""
    parser.add_argument(
        "logs",
        type=Path,
        nargs="+",
        metavar="LOG",
        help="log files (.mcap), or directories of them, as one log",
    )
    parser.add_argument(
        "--at",
        metavar="MOMENT",
        help="print the whole state of the system then: a turn (1234), a time (2026-11-24T10:00:05Z, or "
        "10:00:05), or +seconds from the log's begin",
    )
    parser.add_argument("--from", dest="since", metavar="MOMENT", help="print the turns from this moment on")
    parser.add_argument("--until", metavar="MOMENT", help="print the turns up to this moment")
    parser.add_argument(
        "--speed", type=float, metavar="FACTOR", help="print the turns at their pace: 1 as it was, 10 faster"
    )
    parser.add_argument(
        "--first", action="store_true", help="stop at the first turn that differs, and show only that"
    )
    parser.add_argument(
        "--accept-new-fields",
        action="store_true",
        help="fields of outputs that the recorded version did not have are no difference",
    )
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="what if this setting had been another one; connectors[1].max_export_current_A=20; repeatable",
    )
    parser.add_argument("--step", action="store_true", help="go through the turns by commands (h lists them)")
    parser.add_argument("--json", action="store_true", help="with --at: as JSON")


def replay_command(arguments: argparse.Namespace) -> int:
    """Replay a log and say what came of it; the exit code."""
    if problem := _contradiction(arguments):
        print(problem, file=sys.stderr)
        return USAGE
    try:
        log = open_logs(arguments.logs)
        say_left_out(log)
        if arguments.step:
            with Session(log) as session:
                return step_through(session, arguments.since)
        if arguments.at is not None:
            return _show_moment(log, arguments.at, as_json=arguments.json)
        if arguments.since is not None or arguments.until is not None or arguments.speed is not None:
            return _show_turns(log, arguments.since, arguments.until, arguments.speed)
        if arguments.settings:
            return _what_if(log, arguments.settings, accept_new_fields=arguments.accept_new_fields)
        return _replay_all(log, stop_at_first=arguments.first, accept_new_fields=arguments.accept_new_fields)
    except (MomentError, SettingError, ConfigError) as error:
        print(error, file=sys.stderr)
        return USAGE
    except NotALogError as error:
        print(error, file=sys.stderr)
        return USAGE
    except DamagedLogError as error:
        print(f"damaged after turn 0: {error}; 0 turns kept")
        return DAMAGED
    except UnsupportedFormatError as error:
        print(f"not supported: {error}", file=sys.stderr)
        return UNSUPPORTED


def _contradiction(arguments: argparse.Namespace) -> str:
    """What was asked for that would be passed over, or cannot be; "": nothing."""
    if arguments.speed is not None and not arguments.speed > 0:
        return "--speed: more than 0 is needed"
    values = {
        "--step": arguments.step,
        "--at": arguments.at,
        "--from": arguments.since,
        "--until": arguments.until,
        "--speed": arguments.speed,
        "--set": arguments.settings,
        "--first": arguments.first,
        "--accept-new-fields": arguments.accept_new_fields,
        "--json": arguments.json,
    }
    given = [name for name, value in values.items() if value not in (None, False, [])]
    if "--json" in given and "--at" not in given:
        return "--json goes with --at MOMENT"
    mode = next((name for name in given if name in _FITTING), "")
    odd = [name for name in given if mode and name != mode and name not in _FITTING[mode]]
    return f"{odd[0]} does not go with {mode}" if odd else ""


# --- the whole log -----------------------------------------------------------------------------------------


class _Part(Struct, frozen=True):
    """A segment, replayed."""

    segment: Segment
    found: Replay
    gap: Gap | None
    ending: Ending | None
    """None: it diverged before its end."""


def _replay_all(log: Log, *, stop_at_first: bool, accept_new_fields: bool) -> int:
    """Print what is to be said of each segment, the verdict last."""
    turns = outputs = 0
    findings = Findings(log)
    former: _Part | None = None
    with progress("replaying", sum(segment.size_bytes for segment in log.segments)) as advance:
        for part in _parts(log, advance):
            turns += part.found.turns
            outputs += part.found.outputs
            findings.add_beginning(part.segment, part.gap)
            if former is not None and (other := _breaks(former, part, accept_new_fields=accept_new_fields)):
                print("\n".join([*findings.lines, other]))
                return DIVERGED
            if part.found.divergence is not None and stop_at_first and not accept_new_fields:
                print("\n".join([*findings.lines, report(part.found.divergence)]))
                return DIVERGED
            if part.found.divergence is not None:
                return _compare_all(log, only_first=stop_at_first, accept_new_fields=accept_new_fields)
            findings.add_ending(part.segment, part.ending, part.found)
            former = part
    return findings.verdict(f"identical: {turns} turns, {outputs} outputs")


def _compare_all(log: Log, *, only_first: bool, accept_new_fields: bool) -> int:
    """Something differs: print all that does; the exit code."""
    findings = Findings(log)
    with progress("comparing", sum(segment.size_bytes for segment in log.segments)) as advance:

        def done(segment: Segment, reader: LogReader, found: Replay) -> None:
            findings.add_beginning(segment, reader.gap)
            findings.add_ending(segment, reader.ending, found)
            advance(segment.size_bytes)

        compared = compare(log, accept_new_fields=accept_new_fields, done=done)
    if not compared.differing:
        findings.lines.append(
            f"{compared.new_fields} fields that the recorded version did not have were ignored"
        )
        return findings.verdict(f"identical: {compared.turns} turns, but for these")
    if only_first and compared.first is not None:
        print(report(compared.first))
        return DIVERGED
    print(summary(compared))
    if findings.lines:
        print("\n".join(["", *findings.lines]))
    if findings.damage:
        print(f"{findings.damage}; compared up to there")
    print(_ADVICE)
    return DIVERGED


def _what_if(log: Log, settings: list[str], *, accept_new_fields: bool) -> int:
    compared = what_if(log, settings, accept_new_fields=accept_new_fields)
    print(f"with {', '.join(settings)}: {_WHAT_IF}")
    if compared.carried_over:
        print("the log begins in mid-run, or goes on after a gap: what the recorded settings had led to stays")
    if compared.undecided:
        print(f"{compared.undecided} times a timer was due less than 2 ms before an input: {_TIE}")
    if compared.differing:
        print(f"\n{summary(compared)}")
    else:
        print(f"no difference: {compared.turns} turns")
    if compared.damage:
        print(compared.damage)
        return DAMAGED
    return DIVERGED if compared.differing else IDENTICAL


def _parts(log: Log, advance: Advance) -> Iterator[_Part]:
    for segment in log.segments:
        with segment.read() as reader:
            found = replay(reader)
            yield _Part(segment, found, reader.gap, reader.ending)
        advance(segment.size_bytes)


def _breaks(former: _Part, part: _Part, *, accept_new_fields: bool) -> str:
    """Says so if a segment does not begin with the states that the one before it ended with."""
    is_continued = former.ending is not None and former.ending.kind is EndKind.CONTINUES
    if former.ending is None or not (is_continued and part.segment.follows(former.segment)):
        return ""
    if missing_between(former.segment, former.ending.last_turn, part.segment):
        return ""
    return snapshot_differs(
        part.segment.header, former.found.states, part.segment.path, accept_new_fields=accept_new_fields
    )


# --- a moment, or some turns -------------------------------------------------------------------------------


def _show_moment(log: Log, moment: str, *, as_json: bool) -> int:
    with Session(log) as session:
        step = session[moment]
    if as_json:
        print(state_json(step))
    else:
        print(state_text(step))
    for said in filter(None, (session.remark, session.damage)):
        print(said, file=sys.stderr)
    return DAMAGED if session.damage else IDENTICAL


def _show_turns(log: Log, since: str | None, until: str | None, speed: float | None) -> int:
    """A line for each turn, and the report of the first that differs."""
    session = Session(log)
    begin: tuple[int, float] | None = None
    differing = shown = 0
    first = ""
    for step in session.steps(since, until):
        if speed is not None:
            begin = begin or (step.turn.utc_ns, time.monotonic())
            due_s = begin[1] + (step.turn.utc_ns - begin[0]) / 1e9 / speed
            time.sleep(max(0.0, due_s - time.monotonic()))
        print(turn_line(step), flush=speed is not None)
        shown += 1
        if step.differs:
            differing += 1
            first = first or report(step.divergence())
    if session.damage:
        print(session.damage, file=sys.stderr)
    if first:
        print(f"\n{first}")
        print(f"{differing} of {shown} turns differ")
    if session.mismatch:
        print(session.mismatch)
    if first or session.mismatch:
        return DIVERGED
    if not shown:
        print(f"no turn there; {extent_text(log)}", file=sys.stderr)
        return USAGE
    return DAMAGED if session.damage else IDENTICAL


__all__ = ["DAMAGED", "IDENTICAL", "LogError", "add_arguments", "replay_command"]
