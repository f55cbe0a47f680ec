"""A thread of io/ on virtual time: what it does, in which order, and when the core gets what it decided.

    socket ──► arrive ─┐
    core   ──► order  ─┴─► the thread ──► put ──► the core's turn

While all is well, a turn begins the moment that the thread has made its Input. A thread can be stopped between
the two, as the scheduler likes: then Inputs of other threads overtake what it has decided already (a frame
verified, a key kept), and the core may have changed its mind meanwhile.

Rules, which are those of real threads and one queue:
- Inputs of one thread keep their order.
- A thread that is held does nothing. What it is in the midst of goes on first, then what the core ordered, then
  what came in at its socket (io/modbus_link.py).
- So of what it decides, what one step of its makes is late, and nothing else.
"""

import heapq
from collections.abc import Callable

from msgspec import Struct

from ...messages.inputs import Input
from .process import Process
from .virtual_time import Calendar

_PRESENT, _ORDERED, _ARRIVED = range(3)

Work = Callable[[], None]


class Hold(Struct, frozen=True):
    """The thread is to be stopped when it has made its next Input of a kind."""

    on: str
    """Name of the Input."""
    for_s: float
    meanwhile: Work | None = None
    """What happens while it is held …"""
    after_s: float = 0.0
    """… and how long after its beginning."""


class IoThread:
    """One thread; `Process` is what takes its Inputs."""

    def __init__(self, calendar: Calendar) -> None:
        self._calendar = calendar
        self._armed: Hold | None = None
        self._striking: Hold | None = None
        """The one that holds it, and has not been called off."""
        self.is_held = False
        self._is_busy = False
        """Held, or doing what has waited since."""
        self._waiting: list[tuple[int, int, Work]] = []
        """By urgency, then by time."""
        self._numbered = 0
        self._holds = 0

    def reset(self) -> None:
        """Another process's thread: it has nothing to do."""
        self.call_off()
        self._waiting.clear()
        self.is_held = self._is_busy = False
        self._holds += 1

    def arm(self, hold: Hold) -> None:
        """Be stopped, some time."""
        self._armed = hold

    def call_off(self) -> None:
        """Do not be stopped any more. What holds it already comes to an end by itself."""
        self._armed = self._striking = None

    # --- what it has to do -----------------------------------------------------------------------------------

    def arrive(self, work: Work) -> None:
        """Something comes in at its socket."""
        self._do(_ARRIVED, work)

    def order(self, work: Work) -> None:
        """The core wants something of it."""
        self._do(_ORDERED, work)

    def go_on(self, work: Work) -> None:
        """The rest of what it is doing."""
        self._do(_PRESENT, work)

    def _do(self, urgency: int, work: Work) -> None:
        if self._is_busy:
            self._numbered += 1
            heapq.heappush(self._waiting, (urgency, self._numbered, work))
        else:
            work()

    # --- what it makes ---------------------------------------------------------------------------------------

    def put(self, process: Process, message: Input) -> None:
        """Into the core's queue, and a turn at once; or later, if the thread is stopped before."""
        armed = self._armed
        if armed is not None and not self.is_held and armed.on == type(message).__name__:
            self._armed = None
            self._stop(armed)
        if self.is_held:
            self.go_on(lambda: process.feed(message))
        else:
            process.feed(message)

    def _stop(self, hold: Hold) -> None:
        self.is_held = self._is_busy = True
        self._striking = hold
        self._holds += 1
        number = self._holds

        def happen() -> None:
            if self._striking is hold and hold.meanwhile is not None:
                hold.meanwhile()

        def end() -> None:
            if self._holds == number:
                self._resume()

        if hold.meanwhile is not None:
            self._calendar.after(min(hold.after_s, hold.for_s), happen)
        self._calendar.after(hold.for_s, end)

    def _resume(self) -> None:
        self.is_held = False
        self._striking = None
        while self._waiting and not self.is_held:
            _, _, work = heapq.heappop(self._waiting)
            work()
        self._is_busy = self.is_held
