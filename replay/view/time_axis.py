"""Where turns stand on the picture's time axis: runs at their UTC, one after the other, and within a run on the
driver's monotonic clock, so that a clock that is set by a little tears no curve apart.

A dispenser's clock may stand wrong for years, as without a battery after a power cut, until it is set:

- If it is set in the first run, that is when the run was: all of it is dated so.
- If it is set in a later run, the axis goes on at the new time, with a gap that says so. Until then that run
  stands directly after the one before it.
- No picture spans years because a clock did.
"""

from ..moments import NS_PER_S, utc_text
from ..reader import Turn

SET_NS = 3600 * NS_PER_S
"""A clock that jumps by more stood wrong before."""
WRONG_NS = 365 * 24 * 3600 * NS_PER_S
"""So long no driver stands still."""


class TimeAxis:
    """Takes the turns in order."""

    def __init__(self) -> None:
        self.begin_utc_ns: int | None = None
        """UTC of the picture's begin; None: no turn yet."""
        self.end_us = 0
        """Of the last turn, since the begin."""
        self.remarks: list[str] = []
        """On clocks that stood wrong."""
        self._runs = 0
        self._zero_ns: int | None = None
        """UTC of the present run's monotonic zero, as it is drawn; None: the run has no turn yet."""
        self._recorded_zero_ns = 0
        """The same, by the machine's clock."""

    def begin_run(self) -> None:
        """The turns that follow are of another run."""
        self._zero_ns = None
        self._runs += 1

    def place(self, turn: Turn) -> tuple[int, str]:
        """µs since the begin; and why time is missing before it, if the clock says so."""
        zero_ns, why = turn.utc_ns - turn.at_ns, ""
        if self.begin_utc_ns is None:
            self.begin_utc_ns = turn.utc_ns
        if self._zero_ns is None:
            self._zero_ns = self._recorded_zero_ns = zero_ns
            self._begin(self.begin_utc_ns, turn)
        elif abs(zero_ns - self._recorded_zero_ns) > SET_NS:
            why = self._set(self.begin_utc_ns, zero_ns, turn)
        at_us = (self._zero_ns + turn.at_ns - self.begin_utc_ns) // 1000
        self.end_us = max(self.end_us, at_us)
        return self.end_us, why

    def _begin(self, begin_ns: int, turn: Turn) -> None:
        """A run begins: not before the end, and not years after it."""
        after_ns = turn.utc_ns - begin_ns - self.end_us * 1000
        if self._runs > 1 and after_ns < 0:
            self._zero_ns = turn.utc_ns - turn.at_ns - after_ns + NS_PER_S
            self.remarks.append(
                f"A run began at {utc_text(turn.utc_ns)} by its clock, before the end of the one before it: "
                "it is drawn directly after that one."
            )
        elif self._runs > 1 and after_ns > WRONG_NS:
            self.begin_utc_ns = begin_ns + after_ns - NS_PER_S
            self.remarks.append(
                f"The clock stood at {utc_text(begin_ns)} when the log began, years before the next run: what "
                "came before that is drawn directly before it."
            )

    def _set(self, begin_ns: int, zero_ns: int, turn: Turn) -> str:
        """The clock was set by more than an hour; why time is missing on the axis, if it is."""
        assert self._zero_ns is not None  # noqa: S101 - a run has begun
        self._recorded_zero_ns = zero_ns
        forward_ns = zero_ns - self._zero_ns
        if forward_ns <= 0:
            return ""
        if self._runs > 1:
            self._zero_ns = zero_ns
            return f"the clock was set, to {utc_text(turn.utc_ns)}: when it was before, is not known"
        self.begin_utc_ns = begin_ns + forward_ns
        self._zero_ns = zero_ns
        self.remarks.append(
            f"The clock was set to {utc_text(turn.utc_ns)} in turn {turn.number}: the turns before it are "
            "dated by the new time."
        )
        return ""
