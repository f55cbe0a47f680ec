"""The core on virtual time, as app/core_loop.py runs it on real time; and the calendar of what happens then.

Rules:
- Nothing here reads a clock. What happens at the same nanosecond happens in the order in which it was planned.
- The time of a turn is later than that of the one before it.
"""

import heapq
from collections.abc import Callable, Mapping
from typing import Protocol

from fusioncharger.actors.system import build, snapshot
from fusioncharger.messages.config import Config
from fusioncharger.messages.inputs import Input, TimerFired
from fusioncharger.messages.outputs import AnyOutput, CancelTimer, StartTimer
from msgspec.structs import replace

SECOND_NS = 1_000_000_000
TIMER_DELAY_NS = 90_000
"""A timer fires so much later than it is due: what waking a thread costs."""
TURN_NS = 60_000
"""What a turn takes at least."""


class Recording(Protocol):
    """Where turns go."""

    def turn(self, number: int, at_ns: int, message: Input, outputs: tuple[AnyOutput, ...]) -> None:
        """Record a turn."""

    def make_room(self, first_turn: int, at_ns: int, take_snapshot: Callable[[], Mapping[str, object]]) -> None:
        """Between two turns: begin another segment, if this one is full."""


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


class Driver:
    """The core; `perform` gets the Outputs that are no timers."""

    def __init__(
        self, config: Config, calendar: Calendar, recording: Recording, perform: Callable[[AnyOutput], None]
    ) -> None:
        self._runtime = build(config)
        self._calendar = calendar
        self._recording = recording
        self._perform = perform
        self._timers: dict[tuple[str, str], int] = {}
        """Number of the start that counts."""
        self._last_at_ns = 0
        self.turns = 0

    def snapshot(self) -> Mapping[str, object]:
        """Every actor's state."""
        return snapshot(self._runtime)

    def feed(self, message: Input) -> None:
        """One turn, now."""
        at_ns = self._last_at_ns = max(self._calendar.now_ns, self._last_at_ns + TURN_NS)
        self.turns += 1
        stamped = replace(message, at_ns=at_ns)
        outputs = self._runtime.turn(stamped)
        self._recording.turn(self.turns, at_ns, stamped, outputs)
        for output in outputs:
            if isinstance(output, StartTimer):
                self._start(output, at_ns)
            elif isinstance(output, CancelTimer):
                self._timers.pop((output.owner, output.name), None)
            else:
                self._perform(output)
        self._recording.make_room(self.turns + 1, at_ns, self.snapshot)

    def _start(self, timer: StartTimer, at_ns: int) -> None:
        name, number = (timer.owner, timer.name), timer.number
        self._timers[name] = number

        def fire() -> None:
            if self._timers.get(name) == number:
                del self._timers[name]
                self.feed(TimerFired(owner=timer.owner, name=timer.name, number=number))

        self._calendar.at(at_ns + timer.delay_ns + TIMER_DELAY_NS, fire)
