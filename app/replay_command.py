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
from ..replay.comparison import Comparison, summary
from ..replay.divergence import report
from ..replay.logs import Log, Segment, open_logs
from ..replay.moments import MomentError, utc_text
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
from ..replay.stepping import Stepper, restored_states
from ..replay.what_if import SettingError, what_if
from .log_files import say_left_out
from .progress import Advance, progress
from .replay_step import step_through

IDENTICAL = 0
DIVERGED = 1
USAGE = 2
DAMAGED = 3
UNSUPPORTED = 4

_ADVICE = """\
After a turn that differs the replay goes on with its own states: later ones may be consequences.
Look at it: replay LOG --at TURN; the picture: view LOG -o report.html"""
_WHAT_IF = """\
timers ran on virtual time; what came from the power unit and
from EVerest is as recorded, though they might have acted otherwise"""


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
    if arguments.speed is not None and not arguments.speed > 0:
        print("--speed: more than 0 is needed", file=sys.stderr)
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


# --- the whole log -----------------------------------------------------------------------------------------


class _Part(Struct, frozen=True):
    """A segment, replayed."""

    segment: Segment
    found: Replay
    ending: Ending | None
    """None: it diverged before its end."""


def _replay_all(log: Log, *, stop_at_first: bool, accept_new_fields: bool) -> int:
    """Print what is to be said of each segment, the verdict last."""
    turns = outputs = 0
    damage = ""
    former: _Part | None = None
    with progress("replaying", sum(segment.size_bytes for segment in log.segments)) as advance:
        for part in _parts(log, advance):
            turns += part.found.turns
            outputs += part.found.outputs
            if former is not None and not _goes_on(former, part):
                return DIVERGED
            if part.found.divergence is not None:
                if stop_at_first:
                    print(report(part.found.divergence))
                    return DIVERGED
                compared = _compare(log, accept_new_fields=accept_new_fields)
                if compared.differing:
                    print(summary(compared))
                    print(_ADVICE)
                    return DIVERGED
                print(f"{compared.new_fields} fields that the recorded version did not have were ignored")
                print(f"identical: {compared.turns} turns, but for these")
                return IDENTICAL
            damage = damage or _damage(part)
            _say_end(part, more=part.segment is not log.segments[-1])
            former = part
    verdict = f"identical: {turns} turns, {outputs} outputs"
    if damage:
        print(f"{damage}; replayed up to there: {verdict}")
        return DAMAGED
    print(verdict)
    return IDENTICAL


def _compare(log: Log, *, accept_new_fields: bool) -> Comparison:
    """Every turn that differs: the slow way. Each segment starts from its own snapshot."""
    comparison = Comparison(accept_new_fields=accept_new_fields)
    with progress("comparing", sum(segment.size_bytes for segment in log.segments)) as advance:
        for segment in log.segments:
            with segment.read() as reader:
                stepper = Stepper(reader.header)
                for turn in reader.turns():
                    comparison.add(stepper.step(turn).divergence())
            advance(segment.size_bytes)
    return comparison


def _what_if(log: Log, settings: list[str], *, accept_new_fields: bool) -> int:
    compared = what_if(log, settings, accept_new_fields=accept_new_fields)
    print(f"with {', '.join(settings)}: {_WHAT_IF}")
    if compared.carried_over:
        print("the log begins in mid-run, or goes on after a gap: what the recorded settings had led to stays")
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
            _say_gap(reader)
            yield _Part(segment, found, reader.ending)
        advance(segment.size_bytes)


def _say_gap(reader: LogReader) -> None:
    gap = reader.gap
    if gap is not None:
        print(f"gap: turns {gap.first_turn} to {gap.last_turn} are missing: {gap.reason}")


def _goes_on(former: _Part, part: _Part) -> bool:
    """Whether a segment begins with the states that the one before it ended with. Said if it does not."""
    is_continued = former.ending is not None and former.ending.kind is EndKind.CONTINUES
    if not (is_continued and part.segment.follows(former.segment)):
        return True
    recorded = restored_states(part.segment.header)
    differing = [name for name, state in former.found.states.items() if recorded.get(name) != state]
    if differing:
        print(
            f"diverged before turn {part.segment.header.first_turn}: the snapshot in {part.segment.path.name} "
            f"is not what the turns before it lead to: {', '.join(differing)}"
        )
    return not differing


def _damage(part: _Part) -> str:
    """What is wrong with the file; "" if nothing is."""
    assert part.ending is not None  # noqa: S101 - without divergence, the segment was read to its end
    why = part.found.altered or (part.ending.text if part.ending.kind is EndKind.DAMAGED else "")
    return f"damaged after turn {part.ending.last_turn}: {why}" if why else ""


def _say_end(part: _Part, *, more: bool) -> None:
    """How a segment ended, unless the next one just goes on, or it is damaged, which the verdict says."""
    ending = part.ending
    if part.found.unfinished:
        print(part.found.unfinished)
    if ending is not None and ending.text and (ending.kind is not EndKind.DAMAGED or more):
        name = f"{part.segment.path.name}: " if more else ""
        print(f"{name}{ending.text}")


# --- a moment, or some turns -------------------------------------------------------------------------------


def _show_moment(log: Log, moment: str, *, as_json: bool) -> int:
    with Session(log) as session:
        step = session[moment]
    if as_json:
        print(state_json(step))
    else:
        print(state_text(step))
    if session.damage:
        print(session.damage, file=sys.stderr)
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
        return DIVERGED
    if not shown:
        print(f"no turn there; the log begins at {utc_text(log.segments[0].header.utc_ns)}", file=sys.stderr)
        return USAGE
    return DAMAGED if session.damage else IDENTICAL


__all__ = ["LogError", "add_arguments", "replay_command"]
