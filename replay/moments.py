"""Places in a log, as a person names them: a turn or a time.

1234                      turn 1234 of the last run of the driver in the log
9d1ff7c5:1234             turn 1234 of the run whose id begins so
2026-11-24T10:00:00.25Z   a time (UTC; another zone as +01:00)
10:00:05                  a time of day (UTC), the first after the log's begin
+12.5                     seconds after the log's begin: in its first run, as the driver counted them, whatever
                          happened to the clock
"""

import re
from datetime import UTC, datetime, time, timedelta

from msgspec import Struct

from .logs import Log, Segment
from .reader import Turn

NS_PER_S = 1_000_000_000
CLOCK_SET_NS = NS_PER_S
"""A jump of UTC against monotonic time that a person has to be told of."""

_FORMS = "a turn (1234, or 9d1ff7c5:1234), a time (2026-11-24T10:00:05Z, or 10:00:05), or +seconds"


class MomentError(ValueError):
    """No such place, or not understood. The text is for the user."""


class Moment(Struct, frozen=True):
    """What a person wrote; one of the four is given."""

    text: str
    turn: int | None = None
    run: str = ""
    """First characters of the run's id, with `turn`."""
    utc_ns: int | None = None
    time_of_day: time | None = None
    offset_ns: int | None = None


class Target(Struct, frozen=True):
    """Where in a log that is: in which segment, and which turns are before it."""

    segment: int
    """Index of the last segment that begins at or before it."""
    turn: int | None = None
    utc_ns: int | None = None

    at_ns: int | None = None
    """Monotonic, of the segment's run."""

    def is_past(self, turn: Turn) -> bool:
        """Whether a turn (of that segment or a later one of the run) comes after the moment: the moment is
        when all turns up to its number, or its time, have been done."""
        return self.is_behind(turn.number, turn.utc_ns, turn.at_ns)

    def is_behind(self, number: int, utc_ns: int, at_ns: int) -> bool:
        """The same of a turn of which only that is known."""
        if self.turn is not None:
            return number > self.turn
        if self.at_ns is not None:
            return at_ns > self.at_ns
        return self.utc_ns is not None and utc_ns > self.utc_ns

    def is_before(self, number: int, utc_ns: int, at_ns: int) -> bool:
        """Whether a turn comes before the moment."""
        if self.turn is not None:
            return number < self.turn
        if self.at_ns is not None:
            return at_ns < self.at_ns
        return self.utc_ns is not None and utc_ns < self.utc_ns


class Part(Struct, frozen=True):
    """What lies between two places, both included; None: the log's begin, or end."""

    first: Target | None = None
    last: Target | None = None

    @property
    def is_upside_down(self) -> bool:
        """Whether it surely ends before it begins; a turn and a time are only compared as they are read."""
        first, last = self.first, self.last
        if first is None or last is None:
            return False
        for begin, end in ((first.turn, last.turn), (first.at_ns, last.at_ns)):
            if begin is not None and end is not None:
                return (first.segment, begin) > (last.segment, end)
        return first.utc_ns is not None and last.utc_ns is not None and first.utc_ns > last.utc_ns

    def holds(self, index: int) -> bool:
        """Whether anything of the segment with that index lies in it."""
        return (self.first is None or index >= self.first.segment) and (
            self.last is None or index <= self.last.segment
        )

    def holds_whole(self, index: int) -> bool:
        """Whether all of it does."""
        return (self.first is None or index > self.first.segment) and (
            self.last is None or index < self.last.segment
        )


def parse_moment(text: str) -> Moment:
    """MomentError if it is none."""
    written = text.strip()
    if match := re.fullmatch(r"(?:([0-9a-f]{4,32}):)?([0-9]{1,18})", written):
        return Moment(text, turn=int(match[2]), run=match[1] or "")
    if re.fullmatch(r"\+[0-9]{1,9}(\.[0-9]{1,9})?", written):
        whole, _, fraction = written[1:].partition(".")
        return Moment(text, offset_ns=int(whole) * NS_PER_S + int(fraction.ljust(9, "0")))
    try:
        if re.match(r"[0-9]{1,2}:", written):
            return Moment(text, time_of_day=time.fromisoformat(written.zfill(len("10:00"))))
        moment = datetime.fromisoformat(written)
    except ValueError:
        msg = f"{text!r} is no place in a log; write {_FORMS}"
        raise MomentError(msg) from None
    return Moment(text, utc_ns=_utc_ns(moment if moment.tzinfo else moment.replace(tzinfo=UTC)))


def resolve(log: Log, moment: Moment) -> Target:
    """MomentError if it is before the log's begin. Whether it is after its end, reading tells."""
    if moment.turn is not None:
        return _turn(log, moment, moment.turn)
    begin_ns = log.segments[0].header.utc_ns
    utc_ns = begin_ns
    if moment.utc_ns is not None:
        utc_ns = moment.utc_ns
    elif moment.offset_ns is not None:
        utc_ns = begin_ns + moment.offset_ns
        if (target := _in_first_run(log, moment.offset_ns, utc_ns)) is not None:
            return target
    elif moment.time_of_day is not None:
        begin = datetime.fromtimestamp(begin_ns // NS_PER_S, UTC)
        zone = moment.time_of_day.tzinfo or UTC
        there = datetime.combine(begin.astimezone(zone).date(), moment.time_of_day, zone)
        utc_ns = _utc_ns(
            there if _utc_ns(there) >= begin_ns // NS_PER_S * NS_PER_S else there + timedelta(days=1)
        )
    found = [index for index, segment in enumerate(log.segments) if segment.header.utc_ns <= utc_ns]
    if not found:
        msg = f"{moment.text} is before the log's begin, {utc_text(begin_ns)}"
        raise MomentError(msg)
    return Target(found[-1], utc_ns=utc_ns)


def resolve_part(log: Log, begin: Moment | None, until: Moment | None) -> Part:
    """MomentError if it is before the log's begin, or ends before it begins."""
    part = Part(*(resolve(log, moment) if moment is not None else None for moment in (begin, until)))
    if part.is_upside_down and begin is not None and until is not None:
        msg = f"the part ends before it begins: from {begin.text} until {until.text}"
        raise MomentError(msg)
    return part


def extent_text(log: Log) -> str:
    """From where to where a log goes, in words. It reads a segment that was not closed. LogError."""
    first = log.segments[0].header
    text = f"the log begins at {utc_text(first.utc_ns)} with turn {first.first_turn}"
    for segment in reversed(log.segments):
        if (last := _last_turn(segment)) is not None:
            number, utc_ns = last
            run_id = segment.header.run_id
            of_run = f" of run {run_id[:8]}" if run_id != first.run_id else ""
            return f"{text} and ends at {utc_text(utc_ns)} with turn {number}{of_run}"
    return f"{text}, and no turn is in it"


def utc_text(utc_ns: int) -> str:
    """2026-11-24T10:00:05.123456Z"""
    whole = datetime.fromtimestamp(utc_ns // NS_PER_S, UTC)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{utc_ns % NS_PER_S // 1000:06}Z"


def _in_first_run(log: Log, offset_ns: int, utc_ns: int) -> Target | None:
    """So long after the log's begin; None if its first run was over by then: only UTC goes on over runs."""
    first_run = next(log.runs())
    if len(first_run) < len(log.segments) and log.segments[len(first_run)].header.utc_ns <= utc_ns:
        return None
    at_ns = first_run[0].at_ns + offset_ns
    found = [index for index, segment in enumerate(first_run) if segment.at_ns <= at_ns]
    return Target(found[-1], at_ns=at_ns)


def _turn(log: Log, moment: Moment, turn: int) -> Target:
    runs = [segment.header.run_id for segment in log.segments if segment.header.run_id.startswith(moment.run)]
    if not runs:
        ids = ", ".join(dict.fromkeys(segment.header.run_id[:8] for segment in log.segments))
        msg = f"{moment.text}: no run's id begins so; the log has {ids}"
        raise MomentError(msg)
    of_run = [
        (index, segment.header.first_turn)
        for index, segment in enumerate(log.segments)
        if segment.header.run_id == runs[-1]
    ]
    found = [index for index, first_turn in of_run if first_turn <= turn]
    if not found:
        msg = f"{moment.text}: the log of this run begins with turn {of_run[0][1]}"
        raise MomentError(msg)
    return Target(found[-1], turn=turn)


def _last_turn(segment: Segment) -> tuple[int, int] | None:
    """Its number, and its time; None: the segment has none. LogError."""
    summary = segment.summary
    if summary is not None:
        number = segment.header.first_turn + summary.turns - 1
        return (number, summary.last_utc_ns) if summary.turns else None
    last = None
    with segment.read() as reader:
        for turn in reader.turns():
            last = turn.number, turn.utc_ns
    return last


def _utc_ns(moment: datetime) -> int:
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * NS_PER_S + since.microseconds * 1000
