"""Virtual time: what is planned, by when; and chance that depends on nothing but the seed and the moment.

Rules:
- Nothing here reads a clock. What happens at the same nanosecond happens in the order in which it was planned.
- Chance is a function of the seed and of the time, not of what was drawn before: a plan from which an event was
  taken out goes on as before wherever that event has no effect.
"""

import heapq
from collections.abc import Callable

SECOND_NS = 1_000_000_000

_MASK = 2**64 - 1


class Calendar:
    """What is planned, by time."""

    def __init__(self) -> None:
        self.now_ns = 0
        self._plan: list[tuple[int, int, Callable[[], None]]] = []
        self._planned = 0

    def at(self, due_ns: int, action: Callable[[], None]) -> None:
        """Do it then."""
        self._planned += 1
        heapq.heappush(self._plan, (due_ns, self._planned, action))

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        """Do it so much later than now."""
        self.at(self.now_ns + int(delay_s * SECOND_NS), action)

    def run_until(self, end_ns: int) -> None:
        """Let time go by up to there."""
        while self._plan and self._plan[0][0] <= end_ns:
            due_ns, _, action = heapq.heappop(self._plan)
            self.now_ns = max(self.now_ns, due_ns)
            action()
        self.now_ns = end_ns


class Chance:
    """Numbers by seed and moment (splitmix64)."""

    def __init__(self, seed: int, calendar: Calendar) -> None:
        self._seed = seed * 0xD1342543DE82EF95 & _MASK
        self._calendar = calendar
        self._at_ns = -1
        self._drawn = 0

    def bits(self) -> int:
        """64 random bits."""
        now_ns = self._calendar.now_ns
        if now_ns != self._at_ns:
            self._at_ns, self._drawn = now_ns, 0
        self._drawn += 1
        mixed = (self._seed + now_ns * 0x9E3779B97F4A7C15 + self._drawn * 0xA0761D6478BD642F) & _MASK
        mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & _MASK
        return mixed ^ mixed >> 31

    def uniform(self, low: float, high: float) -> float:
        """A number between the two."""
        return low + (high - low) * (self.bits() >> 11) * 2.0**-53

    def below(self, limit: int) -> int:
        """A whole number from 0 to less than the limit."""
        return self.bits() % limit

    def happens(self, probability: float) -> bool:
        """Whether something of that probability happens."""
        return probability > 0 and self.uniform(0, 1) < probability

    def bytes(self, count: int) -> bytes:
        """So many bytes, a multiple of 8."""
        return b"".join(self.bits().to_bytes(8, "big") for _ in range(count // 8))
