"""The clock and the timers that the core's Outputs start.

Time is monotonic ns since the process's start; UTC is that plus an offset, which the core is told whenever it
moves by more than 0.2 s (architecture.md §3).
"""

import heapq
import time

from ..messages.inputs import TimerFired
from ..messages.outputs import CancelTimer, StartTimer

UTC_TOLERANCE_NS = 200_000_000


class Clock:
    """Monotonic time since it was made."""

    def __init__(self) -> None:
        self._start_ns = time.monotonic_ns()

    def now_ns(self) -> int:
        """Monotonic ns since the start."""
        return time.monotonic_ns() - self._start_ns

    def utc_offset_ns(self) -> int:
        """What has to be added to `now_ns` to get UTC in ns since 1970."""
        return time.time_ns() - self.now_ns()


class Timers:
    """Running timers, one for each (owner, name). Not thread-safe: the core thread's own."""

    def __init__(self) -> None:
        self._due: list[tuple[int, int, str, str]] = []
        self._numbers: dict[tuple[str, str], int] = {}

    def start(self, timer: StartTimer, now_ns: int) -> None:
        """Start a timer, or start it again."""
        self._numbers[timer.owner, timer.name] = timer.number
        heapq.heappush(self._due, (now_ns + timer.delay_ns, timer.number, timer.owner, timer.name))

    def cancel(self, timer: CancelTimer) -> None:
        """Stop a timer."""
        self._numbers.pop((timer.owner, timer.name), None)

    def next_due_ns(self) -> int | None:
        """When the next timer runs out; None: none runs."""
        self._drop_stale()
        return self._due[0][0] if self._due else None

    def fire(self, now_ns: int) -> TimerFired | None:
        """The next timer that has run out, if any; it runs no more."""
        self._drop_stale()
        if not self._due or self._due[0][0] > now_ns:
            return None
        _, number, owner, name = heapq.heappop(self._due)
        del self._numbers[owner, name]
        return TimerFired(owner=owner, name=name, number=number)

    def _drop_stale(self) -> None:
        """Entries of timers that were cancelled or started again meanwhile."""
        while self._due:
            _, number, owner, name = self._due[0]
            if self._numbers.get((owner, name)) == number:
                return
            heapq.heappop(self._due)
