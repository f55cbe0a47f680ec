"""Goes through a log, replays it as far as this version can, and hands every turn to the collector."""

from collections.abc import Callable

import msgspec
from msgspec import Struct

from ..log_format import Gap, SegmentHeader
from ..logs import Log, Segment, missing_between
from ..moments import Moment, MomentError, Part, extent_text, resolve_part
from ..reader import EndKind, LogError, LogReader, UnsupportedFormatError
from ..stepping import NO_SNAPSHOT, Stepper
from .timeline import Collector

TURN_LIMIT = 300_000
"""Of a picture that has them all: about three hours of four busy connectors, 30 MB. What is longer gets an
overview, which has at most so many turns that changed something."""


class TooLongError(Exception):
    """More turns than a picture holds. The text is for the user."""


class Picture(Struct, frozen=True):
    """All that the page shows."""

    collector: Collector
    connector_nos: tuple[int, ...]
    versions: tuple[str, ...]
    """That recorded the log."""
    notes: tuple[str, ...]
    """What is to be known before the picture is believed."""
    replayed: int
    """Turns that were replayed."""
    cut: bool
    """The log breaks off before it ends."""


class _Notes:
    """What is to be said, each once."""

    def __init__(self) -> None:
        self.texts: dict[str, None] = {}

    def add(self, text: str) -> None:
        self.texts.setdefault(text)


def draw(
    log: Log,
    begin: Moment | None = None,
    until: Moment | None = None,
    advance: Callable[[int], None] = lambda _count: None,
    turn_limit: int = TURN_LIMIT,
) -> Picture:
    """The picture of a log, or of the part from `begin` to `until`. `advance` is told now and then
    how many bytes more are done.

    MomentError, TooLongError, LogError.
    """
    part = resolve_part(log, begin, until)
    if _turns_at_least(part, log) <= turn_limit:
        done_bytes = 0

        def count(more_bytes: int) -> None:
            nonlocal done_bytes
            done_bytes += more_bytes
            advance(more_bytes)

        try:
            return _draw(log, part, _Drawing(Collector(_connector_nos(log)), part, turn_limit, count))
        except TooLongError:
            advance(
                -done_bytes
            )  # how many turns an unfinished segment has is only known now: from the beginning
    overview = Collector(_connector_nos(log), is_overview=True)
    return _draw(log, part, _Drawing(overview, part, turn_limit, advance))


def _turns_at_least(part: Part, log: Log) -> int:
    """As far as the segments tell without being read."""
    return sum(
        segment.summary.turns
        for index, segment in enumerate(log.segments)
        if segment.summary is not None and part.holds_whole(index)
    )


def _draw(log: Log, part: Part, drawing: "_Drawing") -> Picture:
    for path, why in log.unreadable:
        drawing.notes.add(f"{path.name} is left out: {why}")
    former: Segment | None = None
    for index, segment in enumerate(log.segments):
        if part.holds(index):
            drawing.segment(segment, former, index)
            former = segment
    collector = drawing.collector
    collector.end(drawing.ending)
    if not collector.table.rows:
        raise MomentError(drawing.nothing(log))
    for remark in collector.axis.remarks:
        drawing.notes.add(remark)
    if drawing.ending:
        drawing.notes.add(f"The log ends early: {drawing.ending}.")
    if collector.is_overview:
        drawing.tell_of_overview()
    return Picture(
        collector,
        _connector_nos(log),
        tuple(dict.fromkeys(segment.header.versions.get("fusioncharger", "?") for segment in log.segments)),
        tuple(drawing.notes.texts),
        drawing.replayed,
        bool(drawing.ending),
    )


class _Drawing:
    def __init__(
        self,
        collector: Collector,
        part: Part,
        turn_limit: int,
        advance: Callable[[int], None],
    ) -> None:
        self.collector = collector
        self.notes = _Notes()
        self.ending = ""
        """Why the log breaks off where it does."""
        self.replayed = 0
        self._last_turn = 0
        self._part = part
        self._turn_limit = turn_limit
        self._advance = advance

    def segment(self, segment: Segment, former: Segment | None, index: int) -> None:
        """Draw it. `former`: the one before it in the picture."""
        with segment.read() as reader:
            stepper = self._stepper(segment)
            self.collector.begin_segment(segment.header, replays=stepper is not None)
            missing = self._missing(segment, former)
            self.ending = ""
            try:
                if self._turns(reader, stepper, index, missing):
                    return
            except UnsupportedFormatError as error:
                self.ending = f"{segment.path.name}: {error}"
                return
            ending = reader.ending
            if ending is not None:
                self._last_turn = ending.last_turn
            if ending is not None and ending.kind in {EndKind.DAMAGED, EndKind.DRIVER_DIED}:
                self.ending = f"{segment.path.name}: {ending.text} (after turn {ending.last_turn})"

    def _turns(self, reader: LogReader, stepper: Stepper | None, index: int, missing: str) -> bool:
        """True: the picture's end was reached. `missing`: before the first turn, unless a gap is recorded."""
        first, last = self._part.first, self._part.last
        first = first if first is not None and first.segment == index else None
        last = last if last is not None and last.segment == index else None
        skipping = first is not None
        told_bytes = 0
        for number, turn in enumerate(reader.turns()):
            if number % 1000 == 0:
                self._advance(reader.records.whole_bytes - told_bytes)
                told_bytes = reader.records.whole_bytes
            if number == 0 and (reader.gap is not None or missing):
                self.collector.interrupt(missing if reader.gap is None else _gap_text(reader.gap))
            if last is not None and last.is_past(turn):
                return True
            step = stepper.step(turn) if stepper is not None else None
            if skipping:
                assert first is not None  # noqa: S101 - that is what skipping says
                skipping = first.is_before(turn.number, turn.utc_ns, turn.at_ns)
                if skipping:
                    continue
            self.collector.add(turn, step)
            self.replayed += step is not None
            if self.collector.table.rows > self._turn_limit:
                raise TooLongError(self._too_long())
        return False

    def _stepper(self, segment: Segment) -> Stepper | None:
        try:
            return Stepper(segment.header)
        except UnsupportedFormatError as error:
            why = error if segment.header.snapshot else NO_SNAPSHOT
            self.notes.add(
                f"{segment.path.name}: its turns cannot be replayed here ({why}). They are drawn from the "
                "recorded inputs and outputs alone: there are no states and no state differences."
            )
            return None

    def _missing(self, segment: Segment, former: Segment | None) -> str:
        """What is missing before a segment, in words, but for how the former one ended, which is told."""
        if former is None:
            return ""
        if segment.header.run_id != former.header.run_id:
            return self.ending or f"the driver did not run; it starts again as run {segment.header.run_id[:8]}"
        missing = missing_between(former, self._last_turn, segment)
        if missing and self.ending:  # a recorder that was replaced says so, too, though nothing is missing
            self.collector.interrupt(self.ending)
        return missing

    def _too_long(self) -> str:
        hours = self.collector.axis.end_us / 3.6e9
        return (
            f"more than {self._turn_limit} turns changed something in {hours:.1f} h of log, too much for a "
            "picture. `log info` tells where something happened; draw that part: "
            "--from 10:00:00 --until 11:00:00"
        )

    def nothing(self, log: Log) -> str:
        """Why the picture is empty."""
        if self._part.first is None and self._part.last is None:
            return "there is no turn in the log"
        return f"there is no turn in this part; {extent_text(log)}"

    def tell_of_overview(self) -> None:
        """What the picture lacks."""
        collector = self.collector
        stretch_s = max((curve.stretch_us for curve in collector.timeline.curves), default=0) / 1e6
        curves = (
            f"; curves show of each {stretch_s:g} s the first, least, greatest and last value"
            if stretch_s
            else ""
        )
        self.notes.add(
            f"This is an overview of {collector.turns} turns, too many for one picture. Its table, and the "
            f"search, have only the {collector.table.rows} turns in which a band changed or an event is marked"
            f"{curves}. For every turn of a shorter part: "
            "fusioncharger view LOG -o FILE --from 10:00:00 --until 11:00:00"
        )
        for kind, count in collector.timeline.unmarked.items():
            self.notes.add(f"{count} more events of the kind {kind!r} are not marked.")


def _gap_text(gap: Gap) -> str:
    if gap.first_turn > gap.last_turn:
        return f"turns may be missing: {gap.reason}"
    return f"turns {gap.first_turn} to {gap.last_turn} are missing: {gap.reason}"


def _connector_nos(log: Log) -> tuple[int, ...]:
    """Global connector numbers: those of the configuration with the most connectors."""
    found = (_configured(segment.header) for segment in log.segments)
    return max(found, key=len)


def _configured(header: SegmentHeader) -> tuple[int, ...]:
    try:
        config = msgspec.convert(header.config, _Connectors)
    except msgspec.ValidationError as error:
        msg = f"the configuration in the log names no connectors: {error}"
        raise LogError(msg) from None
    return tuple(connector.global_connector_number for connector in config.connectors)


class _Connector(Struct):
    global_connector_number: int


class _Connectors(Struct):
    """What a picture needs of any version's configuration."""

    connectors: list[_Connector]
