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
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Self

from msgspec.structs import replace

from .logs import Log, Segment, open_logs
from .moments import Moment, MomentError, Target, parse_moment, resolve
from .reader import EndKind, LogReader, Turn
from .stepping import Step, Stepper


class Session:
    """An open log. A context manager."""

    def __init__(self, log: Log) -> None:
        self.log = log
        """The files it consists of."""
        self.damage = ""
        """What is wrong with the file that was read last, once its end has been met: what came after it is
        missing."""
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
        moments.py takes it. MomentError, LogError."""
        begin = None if since is None else resolve(self.log, _moment(since))
        end = None if until is None else resolve(self.log, _moment(until))
        first = 0 if begin is None else begin.segment
        for index in range(first, len(self.log.segments)):
            if end is not None and index > end.segment:
                return
            walk = Walk(self.log.segments[index], index)
            try:
                for step in walk.steps():
                    if begin is not None and index == begin.segment and is_before(begin, step.turn):
                        continue
                    if end is not None and index == end.segment and end.is_past(step.turn):
                        return
                    yield step
                self.damage = self.damage or walk.damage
            finally:
                walk.close()

    def __getitem__(self, moment: str | int) -> Step:
        """The last turn that had been done at a moment. MomentError if none had, or the log ends before the
        turn that is named; LogError."""
        wanted = _moment(moment)
        target = resolve(self.log, wanted)
        step = self._go_to(target)
        if step is None and target.segment:  # between the segment's beginning and its first turn
            step = self._go_to(replace(target, segment=target.segment - 1))
        if step is None or (target.turn is not None and step.turn.number != target.turn):
            msg = f"{wanted.text}: the log has no such turn"
            raise MomentError(msg)
        return step

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
        self._index = index
        self._reader: LogReader = segment.read()
        try:
            self._stepper = Stepper(self._reader.header)
        except BaseException:
            self._reader.close()
            raise
        self._turns = self._reader.turns()
        self._next: Turn | None = next(self._turns, None)
        self._last: Step | None = None

    @property
    def damage(self) -> str:
        """Why the turns end where they do, if the file is cut or altered there and has been read so far."""
        ending = self._reader.ending
        is_damaged = ending is not None and ending.kind is EndKind.DAMAGED
        return f"{self.segment.path}: {ending.text}" if ending is not None and is_damaged else ""

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def steps(self) -> Iterator[Step]:
        """Every turn from here on."""
        while self._next is not None:
            self._last = self._stepper.step(self._next)
            self._next = next(self._turns, None)
            yield self._last

    def can_reach(self, target: Target) -> bool:
        """Whether the moment is not behind."""
        return target.segment == self._index and (self._last is None or not target.is_past(self._last.turn))

    def to(self, target: Target) -> Step | None:
        """The last turn that is not past the moment. None if there is none."""
        while self._next is not None and not target.is_past(self._next):
            self._last = self._stepper.step(self._next)
            self._next = next(self._turns, None)
        return self._last


def is_before(target: Target, turn: Turn) -> bool:
    """Whether a turn of the moment's segment comes before it."""
    if target.turn is not None:
        return turn.number < target.turn
    return target.utc_ns is not None and turn.utc_ns < target.utc_ns


def _moment(moment: str | int) -> Moment:
    return Moment(str(moment), turn=moment) if isinstance(moment, int) else parse_moment(moment)
