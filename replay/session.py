"""A log to be looked at turn by turn: the library for whoever wants to know what happened.

    from fusioncharger.replay import Session

    with Session.open("sessions") as session:
        for step in session:                      # every turn, replayed, with the states around it
            ...
        step = session["10:00:05"]                # the last turn that had been done by then
        step.after["connector/1"].phase           # the whole state of the system, actor by actor

A `Step` (stepping.py) has the recorded turn with its Input and Outputs, the replayed Outputs, and every
actor's state before and after. docs/session_example.py is a worked example.

Rules:
- Random access starts at the snapshot of the segment that holds the moment, or at the place where the last
  access ended, if that is nearer; so going on from where one is costs one turn.
- Nothing is kept of turns that went by: a log may be larger than the memory.
- Going over all turns, each snapshot is compared with what the turns before it led to (`mismatch`). A random
  access believes the snapshot that it starts from.
- Where a log does not tell how it was at a moment, the last turn before it is given, and `remark` says so.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

from msgspec.structs import replace

from ..actors.runtime import ActorState
from .logs import Log, Segment, missing_between, open_logs
from .moments import (
    CLOCK_SET_NS,
    Moment,
    MomentError,
    Target,
    extent_text,
    parse_moment,
    resolve,
    resolve_part,
    utc_text,
)
from .reader import Ending, EndKind, LogReader, Turn
from .stepping import Step, Stepper, snapshot_differs


class Session:
    """An open log. A context manager."""

    def __init__(self, log: Log) -> None:
        self.log = log
        """The files it consists of."""
        self.damage = ""
        """What is wrong with the file that was read last, once its end has been met: what came after it is
        missing."""
        self.mismatch = ""
        """The first snapshot that is not what the turns before it led to, once `steps` has come by."""
        self.remark = ""
        """What is to be said of the moment that was asked for last."""
        self._walk: Walk | None = None

    @classmethod
    def open(cls, *paths: str | Path) -> Self:
        """Files, or directories of them, as one log. LogError."""
        return cls(open_logs([Path(path) for path in paths]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file that is open."""
        if self._walk is not None:
            self._walk.close()
            self._walk = None

    def __iter__(self) -> Iterator[Step]:
        return self.steps()

    def steps(self, since: str | int | None = None, until: str | int | None = None) -> Iterator[Step]:
        """The turns from a moment to another, both included; a moment is a turn's number, or a text as
        moments.py takes it. `damage` and `mismatch` tell what was found on the way. MomentError, LogError."""
        part = resolve_part(
            self.log,
            None if since is None else _moment(since),
            None if until is None else _moment(until),
        )
        begin, end = part.first, part.last
        first = 0 if begin is None else begin.segment
        has_begun = begin is None
        former: Walk | None = None
        for index in range(first, len(self.log.segments)):
            if end is not None and index > end.segment:
                return
            walk = Walk(self.log.segments[index], index)
            try:
                self.mismatch = self.mismatch or (walk.mismatch(former) if former else "")
                for step in walk.steps():
                    # Once it has, it has: a clock that is set back must not hide what comes then.
                    has_begun = has_begun or begin is None or not is_before(begin, step.turn)
                    if end is not None and index == end.segment and end.is_past(step.turn):
                        return
                    if has_begun:
                        yield step
                self.damage = self.damage or walk.damage
            finally:
                walk.close()
            former, has_begun = walk, True

    def __getitem__(self, moment: str | int) -> Step:
        """The last turn that had been done at a moment. MomentError if none had, or the log ends before the
        turn that is named; LogError."""
        wanted = _moment(moment)
        target = resolve(self.log, wanted)
        step = self._go_to(target)
        if step is None and target.segment:  # between the segment's beginning and its first turn
            step = self._go_to(replace(target, segment=target.segment - 1))
        if step is None or (target.turn is not None and step.turn.number != target.turn):
            msg = f"{wanted.text}: the log has no such turn; {extent_text(self.log)}"
            raise MomentError(msg)
        self.remark = self._remark(target, step) if target.turn is None else ""
        return step

    def _remark(self, target: Target, step: Step) -> str:
        """What is to be said of a time whose last turn this is: that the log does not tell how it was then."""
        assert self._walk is not None  # noqa: S101 - it has just gone there
        turn, after, utc_ns = step.turn, self._walk.next, target.utc_ns
        if utc_ns is None or utc_ns == turn.utc_ns:
            return ""
        if after is not None:
            was_set_by_ns = (after.utc_ns - turn.utc_ns) - (after.at_ns - turn.at_ns)
            if was_set_by_ns < CLOCK_SET_NS:
                return ""
            return (
                f"no such time: the clock was set from {utc_text(after.utc_ns - was_set_by_ns)} to "
                f"{utc_text(after.utc_ns)} between turns {turn.number} and {after.number}"
            )
        last = f"turn {turn.number}, at {utc_text(turn.utc_ns)}"
        later = self.log.segments[self._walk.index + 1 :]
        if not later:
            return f"the log ends with {last}: how it was later is not known"
        if later[0].header.utc_ns > utc_ns and later[0].header.run_id != self._walk.segment.header.run_id:
            return (
                f"the run ends with {last}, and the next one begins at {utc_text(later[0].header.utc_ns)}: "
                "how it was in between is not known"
            )
        missing = missing_between(self._walk.segment, turn.number, later[0])
        return f"{missing}: how it was after {last}, is not known" if missing else ""

    def _go_to(self, target: Target) -> Step | None:
        if self._walk is None or not self._walk.can_reach(target):
            self.close()
            self._walk = Walk(self.log.segments[target.segment], target.segment)
        step = self._walk.to(target)
        self.damage = self._walk.damage
        return step

    def at(self, moment: str | int) -> Step:
        """The same, by name."""
        return self[moment]


class Walk:
    """A walk through a segment, from its snapshot on."""

    def __init__(self, segment: Segment, index: int) -> None:
        self.segment = segment
        self.index = index
        """In the log."""
        self._reader: LogReader = segment.read()
        try:
            self._stepper = Stepper(self._reader.header)
            self._turns = self._reader.turns()
            self.next: Turn | None = next(self._turns, None)
            """The turn that comes now; None: the segment has come to its end."""
        except BaseException:  # raised again: the file is closed on any way out
            self._reader.close()
            raise
        self._last: Step | None = None

    @property
    def damage(self) -> str:
        """Why the turns end where they do, if the file is cut or altered there and has been read so far."""
        ending = self.ending
        is_damaged = ending is not None and ending.kind is EndKind.DAMAGED
        return f"{self.segment.path}: {ending.text}" if ending is not None and is_damaged else ""

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def steps(self) -> Iterator[Step]:
        """Every turn from here on."""
        while self.next is not None:
            self._last = self._stepper.step(self.next)
            self.next = next(self._turns, None)
            yield self._last

    @property
    def ending(self) -> Ending | None:
        """How the segment ends, once it has come to that."""
        return self._reader.ending

    def states(self) -> Mapping[str, ActorState]:
        """Every actor's state as it is here."""
        return self._stepper.runtime.states()

    def mismatch(self, former: "Walk") -> str:
        """Says so if the snapshot is not what the former segment's turns led to; "" if they are not known."""
        ending = former.ending
        if ending is None or ending.kind is not EndKind.CONTINUES:
            return ""
        if not self.segment.follows(former.segment):
            return ""
        if missing_between(former.segment, ending.last_turn, self.segment):
            return ""
        return snapshot_differs(self.segment.header, former.states(), self.segment.path)

    def can_reach(self, target: Target) -> bool:
        """Whether the moment is not behind."""
        return target.segment == self.index and (self._last is None or not target.is_past(self._last.turn))

    def to(self, target: Target) -> Step | None:
        """The last turn that is not past the moment. None if there is none."""
        while self.next is not None and not target.is_past(self.next):
            self._last = self._stepper.step(self.next)
            self.next = next(self._turns, None)
        return self._last


def is_before(target: Target, turn: Turn) -> bool:
    """Whether a turn of the moment's segment comes before it."""
    return target.is_before(turn.number, turn.utc_ns, turn.at_ns)


def _moment(moment: str | int) -> Moment:
    return Moment(str(moment), turn=moment) if isinstance(moment, int) else parse_moment(moment)
