"""What a timeline is made of: bands, curves, markers. Times are µs since the log's begin.

A lane holds a value until the next one; values are stored once and named by index. Nothing is known before a
lane's first value, nor after `clear`: where the driver did not run, or the device was silent, nothing is drawn.
"""

from collections import Counter
from collections.abc import Iterable
from enum import Enum
from itertools import groupby
from math import inf

from msgspec import Struct

SYSTEM = 0
"""Group of lanes that belong to no connector; a connector's group is its local number."""

AC_INPUT = -1
"""Group of what the power unit draws from the grid."""


class Tone(Enum):
    """What a band's value means; the page has a colour for each, for light and for dark. The text is in the
    band, too: no one has to know colours apart."""

    IDLE = "idle"
    PREPARING = "preparing"
    ACTIVE = "active"
    DONE = "done"
    CHECKING = "checking"
    BAD = "bad"


class Lane(Struct):
    """Coloured bands in a row."""

    key: str
    group: int
    name: str
    texts: list[str] = []
    tones: list[str] = []
    at: list[int] = []
    values: list[int] = []
    """Index into texts and tones; -1: nothing known."""

    def set(self, at_us: int, text: str, tone: Tone) -> bool:
        """The value from then on; whether it is another one than before."""
        if text in self.texts:
            index = self.texts.index(text)
        else:
            index = len(self.texts)
            self.texts.append(text)
            self.tones.append(tone.value)
        return self._push(at_us, index)

    def clear(self, at_us: int) -> None:
        """Nothing is known from then on."""
        if self.values:
            self._push(at_us, -1)

    def _push(self, at_us: int, value: int) -> bool:
        if self.values and self.values[-1] == value:
            return False
        if self.at and self.at[-1] == at_us:  # the last word of a moment counts
            self.values[-1] = value
        else:
            self.at.append(at_us)
            self.values.append(value)
        return True


class Curve(Struct):
    """A value over time, held until the next one, but for `hold_us` at most after it was told last: what a
    device measured that has fallen silent is not what is.

    With a limit, it never has more points than that: of each stretch of time there are the first, the least,
    the greatest and the last then, and the stretches grow with the log. That there is no value counts as the
    least, so that no silence is lost.
    """

    key: str
    group: int
    panel: str
    """Curves of one group and panel are drawn in one coordinate system."""
    name: str
    unit: str
    at: list[int] = []
    values: list[float | None] = []
    hold_us: int = 0
    """0: for ever."""
    heard_us: int = 0
    limit: int = 0
    """So many points at most; 0: all."""
    stretch_us: int = 0
    """0: nothing was left out."""

    def set(self, at_us: int, value: float | None) -> None:
        """The value from then on; None: there is none."""
        self.expire(at_us)
        self.heard_us = at_us
        self._push(at_us, value)

    def expire(self, at_us: int) -> None:
        """Nothing was told up to then."""
        if self.hold_us and self.values and self.heard_us + self.hold_us < at_us:
            self._push(self.heard_us + self.hold_us, None)

    def _push(self, at_us: int, value: float | None) -> None:
        if not self.values and value is None:
            return
        if self.values and self.values[-1] == value:
            return
        if self.at and self.at[-1] == at_us:
            self.values[-1] = value
            return
        if self.limit and len(self.at) >= self.limit:
            self._thin()
        self.at.append(at_us)
        self.values.append(value)

    def _thin(self) -> None:
        """To half of the limit, so that this is seldom needed."""
        while len(self.at) > self.limit // 2:
            self.stretch_us = 2 * self.stretch_us or _FIRST_STRETCH_US
            kept: list[int] = []
            for _, stretch in groupby(range(len(self.at)), lambda index: self.at[index] // self.stretch_us):
                points = list(stretch)
                least, greatest = min(points, key=self._height), max(points, key=self._height)
                kept += sorted({points[0], least, greatest, points[-1]})
            self.at = [self.at[index] for index in kept]
            self.values = [self.values[index] for index in kept]

    def _height(self, index: int) -> float:
        value = self.values[index]
        return -inf if value is None else value


_FIRST_STRETCH_US = 250_000


class Marker(Struct, frozen=True):
    """Something that happened in one turn."""

    at: int
    row: int
    """Row of the turn table."""
    group: int
    kind: str
    """error, cleared, drop, refused, failed, diverged, altered, gap, begin, end, clock."""
    text: str


class Gap(Struct, frozen=True):
    """A stretch of time of which there is no record."""

    begin: int
    end: int
    text: str


class Timeline:
    """All of it. Lanes and curves are there from the beginning, in the order in which they are drawn."""

    def __init__(self, lanes: Iterable[Lane], curves: Iterable[Curve], marker_limit: int = 0) -> None:
        """`marker_limit`: so many markers of a kind at most; 0: all."""
        self.changes = 0
        """How often a band changed or something was marked."""
        self.unmarked: Counter[str] = Counter()
        """Beyond the limit, by kind."""
        self._marked: Counter[str] = Counter()
        self._marker_limit = marker_limit
        self._lanes = {(lane.group, lane.key): lane for lane in lanes}
        self._curves = {(curve.group, curve.key): curve for curve in curves}
        self.markers: list[Marker] = []
        self.gaps: list[Gap] = []

    @property
    def lanes(self) -> list[Lane]:
        """Those that ever had a value."""
        return [lane for lane in self._lanes.values() if lane.at]

    @property
    def curves(self) -> list[Curve]:
        """Those that ever had a value."""
        return [curve for curve in self._curves.values() if curve.at]

    def set_band(self, at_us: int, group: int, key: str, text: str, tone: Tone) -> None:
        """The lane's value from then on. What names a connector that there is not is not drawn."""
        lane = self._lanes.get((group, key))
        if lane is not None and lane.set(at_us, text, tone):
            self.changes += 1

    def mark(self, marker: Marker) -> None:
        """Something happened."""
        if self._marker_limit and self._marked[marker.kind] >= self._marker_limit:
            self.unmarked[marker.kind] += 1
            return
        self._marked[marker.kind] += 1
        self.changes += 1
        self.markers.append(marker)

    def set_point(self, at_us: int, group: int, key: str, value: float | None) -> None:
        """The curve's value from then on; likewise."""
        curve = self._curves.get((group, key))
        if curve is not None:
            curve.set(at_us, value)

    def expire(self, at_us: int) -> None:
        """The log ends then."""
        for curve in self._curves.values():
            curve.expire(at_us)

    def interrupt(self, at_us: int) -> None:
        """From then on, nothing is known."""
        for lane in self._lanes.values():
            lane.clear(at_us)
        for curve in self._curves.values():
            curve.set(at_us, None)
