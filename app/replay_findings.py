"""What `replay` says of a log besides its outputs: what is missing, how it ends, where it is damaged."""

from ..replay.log_format import Gap
from ..replay.logs import Log, Segment, missing_between
from ..replay.reader import Ending, EndKind
from ..replay.replayer import Replay

IDENTICAL = 0
DAMAGED = 3


class Findings:
    """What is to be said of a log besides its outputs: gaps, how segments end, damage."""

    def __init__(self, log: Log) -> None:
        self.lines: list[str] = []
        self.damage = ""
        """The first one."""
        self._last = log.segments[-1]
        self._is_skipped = False
        self._former: tuple[Segment, int] | None = None

    def add_beginning(self, segment: Segment, gap: Gap | None) -> None:
        """What is missing before a segment."""
        missing = missing_between(*self._former, segment) if self._former else ""
        reason = f": {gap.reason}" if gap else ""
        if missing:
            self.lines.append(f"gap: {missing}{reason}")
        elif gap is not None and gap.last_turn >= gap.first_turn:
            self.lines.append(f"gap: turns {gap.first_turn} to {gap.last_turn} are missing{reason}")
        elif gap is not None:
            self.lines.append(f"gap: no turn is missing{reason}")

    def add_ending(self, segment: Segment, ending: Ending | None, found: Replay) -> None:
        """How a segment ended, unless the next one just goes on, or it is damaged, which the verdict says."""
        assert ending is not None  # noqa: S101 - the segment was read to its end
        self._former = segment, ending.last_turn
        more = segment is not self._last
        is_damaged = ending.kind is EndKind.DAMAGED
        self.lines += filter(None, (found.skipped, found.unfinished))
        self._is_skipped = self._is_skipped or bool(found.skipped)
        if ending.text and (not is_damaged or more):
            self.lines.append(f"{segment.path.name}: {ending.text}" if more else ending.text)
        why = found.altered or (ending.text if is_damaged else "")
        if why and not self.damage:
            self.damage = f"damaged after turn {ending.last_turn}: {why}"

    def verdict(self, verdict: str) -> int:
        """Print it all; the exit code of a log in which nothing differs."""
        if self.damage:
            verdict = f"{self.damage}; replayed up to there: {verdict}"
        print("\n".join([*self.lines, verdict]))
        return DAMAGED if self.damage or self._is_skipped else IDENTICAL
