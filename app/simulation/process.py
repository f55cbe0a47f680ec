"""A driver process on virtual time: the core, its timers, its key ring and its journal, as app/core_loop.py and
app/driver.py put them together on real time.

Rules:
- The time of a turn is later than that of the one before it, and counts from the process's start.
- What the core wants is carried out after its turn; nothing of that makes a turn at once.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from msgspec.structs import replace

from ...actors.dispenser_alarms import DispenserAlarmsState
from ...actors.names import DISPENSER_ALARMS
from ...actors.runtime import ActorState
from ...actors.system import build, snapshot
from ...io.clock import UTC_TOLERANCE_NS
from ...io.key_ring import KeyRing
from ...messages.config import Config
from ...messages.inputs import (
    BspError,
    Input,
    JournalLost,
    JournalRestored,
    ShutdownRequested,
    Started,
    TimerFired,
    UtcOffsetChanged,
)
from ...messages.outputs import AnyOutput, CancelTimer, StartTimer
from .handler_failures import HandlerFailures
from .recording import Recording
from .virtual_time import Calendar

TIMER_DELAY_NS = 90_000
"""A timer fires so much later than it is due: what waking a thread costs."""
TURN_NS = 60_000
"""What a turn takes at least."""
DISPENSER_MAC = bytes.fromhex("020000000002")


class Watcher(Protocol):
    """Sees every turn, before anything of it is carried out."""

    def turn(self, message: Input, outputs: tuple[AnyOutput, ...], states: Mapping[str, ActorState]) -> None:
        """A turn is over."""


class Process:
    """One run of the driver; `perform` gets the Outputs that are no timers."""

    def __init__(
        self,
        config: Config,
        calendar: Calendar,
        recording: Recording,
        utc_ns: Callable[[], int],
        *,
        perform: Callable[[AnyOutput], None],
        watchers: tuple[Watcher, ...] = (),
    ) -> None:
        """`utc_ns`: the wall clock."""
        self.key_ring = KeyRing(len(config.connectors))
        self.failures = HandlerFailures()
        self.turns = 0
        self.has_ended = False
        self._runtime = build(config)
        self._calendar = calendar
        self._recording = recording
        self._utc_ns = utc_ns
        self._perform = perform
        self._watchers = watchers
        self._timers: dict[tuple[str, str], int] = {}
        """Number of the start that counts."""
        self._start_ns = calendar.now_ns
        self._utc_offset_ns = utc_ns()
        self._last_at_ns = 0

    def start(self, restored_errors: tuple[BspError, ...] = (), restored_from: str = "") -> None:
        """The first turn."""
        self._recording.begin(1, 0, self._utc_offset_ns, snapshot(self._runtime))
        started = Started(
            utc_offset_ns=self._utc_offset_ns,
            goose_mac=DISPENSER_MAC,
            restored_errors=restored_errors,
            restored_from=restored_from,
        )
        self._turn(started)

    @property
    def now_ns(self) -> int:
        """Its time."""
        return max(self._calendar.now_ns - self._start_ns, self._last_at_ns)

    @property
    def board_errors(self) -> tuple[BspError, ...]:
        """What it knows the boards to have raised."""
        state = self._runtime.states()[DISPENSER_ALARMS]
        assert isinstance(state, DispenserAlarmsState)  # noqa: S101 - narrows the type
        return state.errors

    @property
    def has_lost_journal(self) -> bool:
        """Whether what happened last is not recorded."""
        return self._recording.is_lost

    def feed(self, message: Input) -> None:
        """An Input, now. What comes for a process that has ended is lost."""
        if self.has_ended:
            return
        offset_ns = self._utc_ns() - (self._calendar.now_ns - self._start_ns)
        if abs(offset_ns - self._utc_offset_ns) > UTC_TOLERANCE_NS:
            self._utc_offset_ns = offset_ns
            self._turn(UtcOffsetChanged(utc_offset_ns=offset_ns))
        self._turn(message)

    def stop(self) -> None:
        """An orderly end: the last turn, and goodbye."""
        if not self.has_ended:
            self._turn(ShutdownRequested(reason="signal SIGTERM"))
            self.has_ended = True
            self._recording.close(goodbye=True)

    def kill(self, cut_bytes: int = 0) -> None:
        """The end without a word. Of what the journal was handed over last, so much did not get there."""
        if not self.has_ended:
            self.has_ended = True
            self._recording.close(goodbye=False, cut_bytes=cut_bytes)

    def rotate(self) -> None:
        """Begin another segment of the journal."""
        if not self.has_ended:
            self._recording.rotate(self.turns + 1, self._last_at_ns, self._utc_offset_ns, self.snapshot())

    def lose_journal(self, reason: str, lost_turns: int) -> None:
        """The recorder cannot write any more; this has cost the last turns."""
        if not self.has_ended and self._recording.lose(reason, lost_turns):
            self.feed(JournalLost(reason=reason))

    def restore_journal(self) -> None:
        """A new recorder writes."""
        if not self.has_ended and self._recording.resume(
            self.turns + 1, self._last_at_ns, self._utc_offset_ns, self.snapshot
        ):
            self.feed(JournalRestored())

    def snapshot(self) -> Mapping[str, object]:
        """Every actor's state."""
        return snapshot(self._runtime)

    def _turn(self, message: Input) -> None:
        at_ns = self._last_at_ns = max(self._calendar.now_ns - self._start_ns, self._last_at_ns + TURN_NS)
        self.turns += 1
        stamped = replace(message, at_ns=at_ns)
        outputs = self.failures.turn(self._runtime, stamped)
        self._recording.turn(self.turns, at_ns, self._utc_offset_ns, stamped, outputs)
        if self._watchers:
            states = self._runtime.states()
            for watcher in self._watchers:
                watcher.turn(stamped, outputs, states)
        for output in outputs:
            if isinstance(output, StartTimer):
                self._start_timer(output, at_ns)
            elif isinstance(output, CancelTimer):
                self._timers.pop((output.owner, output.name), None)
            else:
                self._perform(output)
        self._recording.make_room(self.turns + 1, at_ns, self._utc_offset_ns, self.snapshot)

    def _start_timer(self, timer: StartTimer, at_ns: int) -> None:
        name, number = (timer.owner, timer.name), timer.number
        self._timers[name] = number

        def fire() -> None:
            if self._timers.get(name) == number:
                del self._timers[name]
                self.feed(TimerFired(owner=timer.owner, name=timer.name, number=number))

        self._calendar.at(self._start_ns + at_ns + timer.delay_ns + TIMER_DELAY_NS, fire)
