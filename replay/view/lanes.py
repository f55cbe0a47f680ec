"""What a timeline is made of: bands, curves, markers. Times are µs since the log's begin.

A lane holds a value until the next one; values are stored once and named by index. Nothing is known before a
lane's first value, nor after `clear`: where the driver did not run, or the device was silent, nothing is drawn.
"""

from collections.abc import Iterable
from enum import Enum

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

    def set(self, at_us: int, text: str, tone: Tone) -> None:
        """The value from then on."""
        if text in self.texts:
            index = self.texts.index(text)
        else:
            index = len(self.texts)
            self.texts.append(text)
            self.tones.append(tone.value)
        self._push(at_us, index)

    def clear(self, at_us: int) -> None:
        """Nothing is known from then on."""
        if self.values:
            self._push(at_us, -1)

    def _push(self, at_us: int, value: int) -> None:
        if self.values and self.values[-1] == value:
            return
        if self.at and self.at[-1] == at_us:  # the last word of a moment counts
            self.values[-1] = value
            return
        self.at.append(at_us)
        self.values.append(value)


class Curve(Struct):
    """A value over time, held until the next one."""

    key: str
    group: int
    panel: str
    """Curves of one group and panel are drawn in one coordinate system."""
    name: str
    unit: str
    at: list[int] = []
    values: list[float | None] = []

    def set(self, at_us: int, value: float | None) -> None:
        """The value from then on; None: there is none."""
        if not self.values and value is None:
            return
        if self.values and self.values[-1] == value:
            return
        if self.at and self.at[-1] == at_us:
            self.values[-1] = value
            return
        self.at.append(at_us)
        self.values.append(value)


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

    def __init__(self, lanes: Iterable[Lane], curves: Iterable[Curve]) -> None:
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
        if lane is not None:
            lane.set(at_us, text, tone)

    def set_point(self, at_us: int, group: int, key: str, value: float | None) -> None:
        """The curve's value from then on; likewise."""
        curve = self._curves.get((group, key))
        if curve is not None:
            curve.set(at_us, value)

    def interrupt(self, at_us: int) -> None:
        """From then on, nothing is known."""
        for lane in self._lanes.values():
            lane.clear(at_us)
        for curve in self._curves.values():
            curve.set(at_us, None)
