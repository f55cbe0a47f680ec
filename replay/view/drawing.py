"""Goes through a log, replays it as far as this version can, and hands every turn to the collector."""

from collections.abc import Callable

import msgspec
from msgspec import Struct

from ..log_format import SegmentHeader
from ..logs import Log, Segment
from ..moments import Moment, MomentError, Target, resolve
from ..reader import EndKind, LogError, LogReader, UnsupportedFormatError
from ..stepping import Stepper
from .timeline import Collector

TURN_LIMIT = 400_000
"""Of one picture: about five hours of four charging connectors. A browser holds more, a person does not."""


class TooLongError(Exception):
    """More turns than one picture holds. The text is for the user."""


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
    first = resolve(log, begin) if begin is not None else None
    last = resolve(log, until) if until is not None else None
    connector_nos = _connector_nos(log)
    drawing = _Drawing(Collector(connector_nos), first, last, turn_limit, advance)
    for path, why in log.unreadable:
        drawing.notes.add(f"{path.name} is left out: {why}")
    former: Segment | None = None
    for index, segment in enumerate(log.segments):
        if first is not None and index < first.segment:
            continue
        if last is not None and index > last.segment:
            break
        drawing.segment(segment, former, index)
        former = segment
    collector = drawing.collector
    collector.end(drawing.ending)
    if not collector.table.rows:
        msg = "there is no turn in this part of the log" if first or last else "there is no turn in the log"
        raise MomentError(msg)
    if drawing.ending:
        drawing.notes.add(f"The log ends early: {drawing.ending}.")
    return Picture(
        collector,
        connector_nos,
        tuple(dict.fromkeys(segment.header.versions.get("fusioncharger", "?") for segment in log.segments)),
        tuple(drawing.notes.texts),
        drawing.replayed,
        bool(drawing.ending),
    )


class _Drawing:
    def __init__(
        self,
        collector: Collector,
        first: Target | None,
        last: Target | None,
        turn_limit: int,
        advance: Callable[[int], None],
    ) -> None:
        self.collector = collector
        self.notes = _Notes()
        self.ending = ""
        """Why the log breaks off where it does."""
        self.replayed = 0
        self._last_turn = 0
        self._first = first
        self._last = last
        self._turn_limit = turn_limit
        self._advance = advance

    def segment(self, segment: Segment, former: Segment | None, index: int) -> None:
        """Draw it. `former`: the one before it in the picture."""
        with segment.read() as reader:
            stepper = self._stepper(segment)
            self.collector.begin_segment(segment.header, replays=stepper is not None)
            self._interruption(segment, former)
            self.ending = ""
            try:
                if self._turns(reader, stepper, index):
                    return
            except UnsupportedFormatError as error:
                self.ending = f"{segment.path.name}: {error}"
                return
            ending = reader.ending
            if ending is not None:
                self._last_turn = ending.last_turn
            if ending is not None and ending.kind in {EndKind.DAMAGED, EndKind.DRIVER_DIED}:
                self.ending = f"{segment.path.name}: {ending.text} (after turn {ending.last_turn})"

    def _turns(self, reader: LogReader, stepper: Stepper | None, index: int) -> bool:
        """True: the picture's end was reached."""
        first = self._first if self._first is not None and self._first.segment == index else None
        last = self._last if self._last is not None and self._last.segment == index else None
        skipping = first is not None
        told_bytes = 0
        gap_told = False
        for number, turn in enumerate(reader.turns()):
            if number % 1000 == 0:
                self._advance(reader.records.whole_bytes - told_bytes)
                told_bytes = reader.records.whole_bytes
            if reader.gap is not None and not gap_told:
                gap_told = True
                gap = reader.gap
                missing = (
                    f"turns {gap.first_turn} to {gap.last_turn} are missing"
                    if gap.first_turn <= gap.last_turn
                    else "turns may be missing"
                )
                self.collector.interrupt(f"{missing}: {gap.reason}")
            if last is not None and last.is_past(turn):
                return True
            step = stepper.step(turn) if stepper is not None else None
            if skipping:
                assert first is not None  # noqa: S101 - that is what skipping says
                skipping = not (first.is_past(turn) or turn.number == first.turn)
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
            self.notes.add(
                f"{segment.path.name} does not replay under this version ({error}). It is drawn from the "
                "recorded inputs and outputs alone: there are no states and no state differences."
            )
            return None

    def _interruption(self, segment: Segment, former: Segment | None) -> None:
        header = segment.header
        if former is None or (segment.follows(former) and header.first_turn == self._last_turn + 1):
            return  # a recorder that was replaced says that the driver ended, but nothing is missing
        if self.ending:
            self.collector.interrupt(self.ending)
        elif segment.follows(former):
            missing = f"{self._last_turn + 1} to {header.first_turn - 1}"
            self.collector.interrupt(f"turns {missing} are not in the log")
        elif header.run_id == former.header.run_id:
            missing = f"{former.header.segment + 1} to {header.segment - 1}"
            self.collector.interrupt(f"segments {missing} of run {header.run_id[:8]} are missing")
        else:
            self.collector.interrupt(f"the driver did not run; it starts again as run {header.run_id[:8]}")

    def _too_long(self) -> str:
        collector = self.collector
        hours = collector.end_us / 3.6e9
        return (
            f"this is more than {self._turn_limit} turns ({hours:.1f} h of log), too much for one picture. "
            "`log info` tells where something happened; draw that part: --from 10:00:00 --until 11:00:00"
        )


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
