"""Collects the timeline and the turn table of a log from its turns, one after the other."""

from collections.abc import Sequence

from ...actors.measurements import FRESH_NS
from ..log_format import SegmentHeader
from ..reader import Turn
from ..stepping import Step
from .bands import AC_INPUT_CURVES, Bands
from .lanes import AC_INPUT, SYSTEM, Curve, Gap, Lane, Marker, Timeline
from .recorded import Recorded
from .time_axis import TimeAxis
from .turns import TurnTable

UNITS = {"voltage": "V", "current": "A"}
"""Of a panel."""
HOLD_US = FRESH_NS // 1000
"""So long a reading is what is; devices tell theirs about once a second."""
MEASURED = frozenset({"output_v", "output_a", "imd_v", "ovm_v"})
CURVES = (
    ("setpoint_v", "voltage", "EVerest's setpoint"),
    ("asked_v", "voltage", "asked of the PSU"),
    ("output_v", "voltage", "power meter"),
    ("imd_v", "voltage", "isolation monitor"),
    ("ovm_v", "voltage", "over-voltage monitor"),
    ("setpoint_a", "current", "EVerest's setpoint"),
    ("asked_a", "current", "asked of the PSU"),
    ("output_a", "current", "power meter"),
)
"""A connector's: key, panel, name."""
SYSTEM_LANES = (
    ("link", "PSU link"),
    ("running_mode", "PSU mode"),
    ("psu_alarms", "PSU alarms"),
    ("dispenser_alarms", "Dispenser alarms"),
    ("broker", "MQTT broker"),
)
CURVE_POINTS = 60_000
"""Of each curve of an overview: more than a screen has columns, so that one can zoom in a while."""
MARKERS_OF_A_KIND = 5_000
"""Of an overview."""
CONNECTOR_LANES = (("phase", "State"), ("mode_phase", "Mode-phase"), ("mode", "Mode"), ("errors", "Errors"))


class Collector:
    """Takes the turns of a log and makes the picture's contents of them: all of them, or an overview. That has
    the same bands, thinned curves, markers of a limited number, and in its table only the turns that changed a
    band or are marked.
    """

    def __init__(self, connector_nos: Sequence[int], *, is_overview: bool = False) -> None:
        """`connector_nos`: the global number of each connector."""
        self.is_overview = is_overview
        self.turns = 0
        """So many were taken."""
        limit = CURVE_POINTS if is_overview else 0
        numbers = range(1, len(connector_nos) + 1)
        self.timeline = Timeline(
            [
                *(Lane(key, SYSTEM, name) for key, name in SYSTEM_LANES),
                *(Lane(key, number, name) for number in numbers for key, name in CONNECTOR_LANES),
            ],
            [
                *(
                    Curve(key, AC_INPUT, panel, name, UNITS[panel], limit=limit)
                    for key, panel, name in AC_INPUT_CURVES
                ),
                *(
                    Curve(
                        key,
                        number,
                        panel,
                        name,
                        UNITS[panel],
                        hold_us=HOLD_US if key in MEASURED else 0,
                        limit=limit,
                    )
                    for number in numbers
                    for key, panel, name in CURVES
                ),
            ],
            MARKERS_OF_A_KIND if is_overview else 0,
        )
        self.table = TurnTable()
        self.axis = TimeAxis()
        self.differing = 0
        """Turns whose replay differs."""
        self._bands = Bands(self.timeline, len(connector_nos))
        self._recorded = Recorded(self.timeline, {no: number for number, no in enumerate(connector_nos, 1)})
        self._run_id = ""
        self._gap_text = ""

    def begin_segment(self, header: SegmentHeader, *, replays: bool) -> None:
        """The turns that follow are of that segment."""
        if header.run_id != self._run_id:
            self._run_id = header.run_id
            self.axis.begin_run()
            self.table.begin_run(header.run_id)
        self._bands.restart()
        self._recorded.draws_bands = not replays

    def interrupt(self, text: str) -> None:
        """Before the next turn some are missing, or the driver did not run; why."""
        if self.axis.begin_utc_ns is None:
            return
        self._gap_text = f"{self._gap_text}; {text}" if self._gap_text else text

    def add(self, turn: Turn, step: Step | None) -> None:
        """The next turn; `step` is its replay, None if this version cannot replay the log."""
        end_us = self.axis.end_us
        at_us, clock_text = self.axis.place(turn)
        if clock_text:
            self.interrupt(clock_text)
        if self._gap_text:
            self._end_gap(end_us, at_us)
        self.turns += 1
        row = self.table.rows
        changes = self.timeline.changes
        if step is not None:
            self._recorded.learn(step.before)
        self._recorded.show(at_us, row, turn)
        if step is not None:
            self._bands.show(at_us, step.after)
            if step.differs:
                self.differing += 1
                why = step.error or "the replayed outputs are not the recorded ones"
                self._mark("diverged", at_us, row, f"turn {turn.number} differs: {why}")
        if not self.is_overview or self.timeline.changes != changes or not row:
            self.table.add(at_us, turn, step)

    def end(self, text: str) -> None:
        """The log is at its end; how it ended, if not by goodbye."""
        if text and self.table.rows:
            self._mark("gap", self.axis.end_us, self.table.rows - 1, text)
        self.timeline.expire(self.axis.end_us)
        self.table.close()

    def _end_gap(self, begin_us: int, at_us: int) -> None:
        text, self._gap_text = self._gap_text, ""
        self.timeline.gaps.append(Gap(begin_us, at_us, text))
        self._mark("gap", begin_us, max(0, self.table.rows - 1), text)
        self.timeline.interrupt(begin_us)
        self._bands.restart()

    def _mark(self, kind: str, at_us: int, row: int, text: str) -> None:
        self.timeline.mark(Marker(at_us, row, SYSTEM, kind, text))
