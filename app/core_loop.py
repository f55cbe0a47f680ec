"""The core thread: one turn at a time (architecture.md §1).

    Input queue ─┐
    timers ──────┼─► stamp ─► journal ─► actors ─► journal ─► Outputs to io/
    UTC offset ──┘

The queue is bounded: nothing is dropped from it, because every Input in it sets state. If it fills up, the
core cannot follow any more, and that is a failure: safe stop and exit (architecture.md §5). What a peer could
flood it with is held back where it comes in: Modbus requests by their link, GOOSE garbage and repeats at the
socket. Measurements are the exception: the newest per source wins. While one waits, the next of its kind and
connector takes its place in the queue, so that a meter gone wild neither fills the queue nor ages what comes
out of it. What was replaced never was an Input: it is not recorded.
"""

import logging
import threading
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue

from msgspec.structs import replace

from ..actors.runtime import Runtime
from ..actors.system import snapshot
from ..io.clock import UTC_TOLERANCE_NS, Clock, Timers
from ..messages.inputs import (
    BspError,
    Input,
    IsolationMeasured,
    JournalLost,
    JournalRestored,
    OverVoltageMeasured,
    PowermeterMeasured,
    ShutdownRequested,
    Started,
    UtcOffsetChanged,
)
from ..messages.outputs import AnyOutput, CancelTimer, StartTimer, TurnFailed
from ..replay.journal import Journal

QUEUE_LIMIT = 10_000
NS_PER_S = 1e9

log = logging.getLogger("fusioncharger.core")

_BEGIN_SEGMENT = "begin segment"
_WAKE = "wake"

_Measurement = IsolationMeasured | OverVoltageMeasured | PowermeterMeasured
_Source = tuple[type[_Measurement], int]
"""Kind of a measurement, and connector. In the queue it stands for the newest measurement of this source."""


class CoreLoop:
    """Runs the core on a thread of its own. `perform` carries out an Output that is no timer; `turned` is told
    after each turn; `fatal` that the core cannot go on."""

    def __init__(
        self,
        runtime: Runtime,
        journal: Journal,
        clock: Clock,
        *,
        perform: Callable[[AnyOutput], None],
        turned: Callable[[], None],
        fatal: Callable[[str], None],
    ) -> None:
        self._runtime = runtime
        self._journal = journal
        self._clock = clock
        self._perform = perform
        self._turned = turned
        self._fatal = fatal
        self._queue: SimpleQueue[Input | _Source | str] = SimpleQueue()
        self._measured: dict[_Source, _Measurement] = {}
        """The newest measurement of each source that stands in the queue."""
        self._measuring = threading.Lock()
        """Guards `_measured`: a measurement must not replace one that is just being taken out."""
        self._timers = Timers()
        self._turn_number = 0
        self._utc_offset_ns = clock.utc_offset_ns()
        self._journal_failure: str | None = None
        self._has_stopped = False
        self._stop_reason: str | None = None
        self._thread = threading.Thread(target=self._run, name="core", daemon=True)

    @property
    def utc_offset_ns(self) -> int:
        """UTC minus monotonic time, as the core knows it."""
        return self._utc_offset_ns

    def start(
        self, goose_mac: bytes, restored_errors: tuple[BspError, ...] = (), restored_from: str = ""
    ) -> None:
        """Open the journal, start the thread, and let the first turn be `Started`, with these arguments."""
        now_ns = self._clock.now_ns()
        self._journal.open(snapshot(self._runtime), 1, now_ns, now_ns + self._utc_offset_ns)
        self._queue.put(
            Started(
                utc_offset_ns=self._utc_offset_ns,
                goose_mac=goose_mac,
                restored_errors=restored_errors,
                restored_from=restored_from,
            )
        )
        self._thread.start()

    def put(self, message: Input) -> None:
        """An Input, from any thread. Never blocks."""
        if isinstance(message, _Measurement):
            source = type(message), message.connector
            with self._measuring:
                is_waiting = source in self._measured
                self._measured[source] = message
            if not is_waiting:
                self._enqueue(source)
        else:
            self._enqueue(message)

    def _enqueue(self, item: Input | _Source) -> None:
        if self._queue.qsize() >= QUEUE_LIMIT:
            self._fatal(f"{QUEUE_LIMIT} inputs are waiting: the core cannot follow")
            return
        self._queue.put(item)

    def begin_segment(self) -> None:
        """The journal has a new recorder that is ready: use it from the next turn on."""
        self._queue.put(_BEGIN_SEGMENT)

    def stop(self, reason: str, timeout_s: float) -> bool:
        """Let the core stop all power, before anything that waits in the queue, and end the thread. False if it
        has failed, or did not end in time: then not everything has been stopped."""
        self._stop_reason = reason
        self._queue.put(_WAKE)
        self._thread.join(timeout_s)
        return self._has_stopped

    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    # --- in the thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._step():
                pass
            self._has_stopped = True
        except BaseException as error:
            log.exception("the core has failed")
            self._fatal(f"the core has failed: {type(error).__name__}: {error}")

    def _step(self) -> bool:
        """Wait for the next Input or timer and do its turns. False: the thread is to end.

        One Input goes before the timers that are due, so that after a pause of the process what arrived
        meanwhile counts before a timeout; but only one, so that no flood holds a timer back.
        """
        message = self._next()
        if self._stop_reason is not None:
            self._turn(ShutdownRequested(reason=self._stop_reason))
            return False
        self._follow_utc()
        if message is _BEGIN_SEGMENT:
            self._switch_segment()
        elif isinstance(message, tuple):
            with self._measuring:
                newest = self._measured.pop(message)
            self._turn(newest)
        elif isinstance(message, Input):
            self._turn(message)
        while (fired := self._timers.fire(self._clock.now_ns())) is not None:
            self._turn(fired)
        return True

    def _next(self) -> Input | _Source | str | None:
        due_ns = self._timers.next_due_ns()
        if due_ns is None:
            return self._queue.get()
        timeout_s = (due_ns - self._clock.now_ns()) / NS_PER_S
        try:
            return self._queue.get(timeout=timeout_s) if timeout_s > 0 else self._queue.get_nowait()
        except Empty:
            return None

    def _follow_utc(self) -> None:
        offset_ns = self._clock.utc_offset_ns()
        if abs(offset_ns - self._utc_offset_ns) > UTC_TOLERANCE_NS:
            self._utc_offset_ns = offset_ns
            self._turn(UtcOffsetChanged(utc_offset_ns=offset_ns))

    def _turn(self, message: Input) -> None:
        at_ns = self._clock.now_ns()
        utc_ns = at_ns + self._utc_offset_ns
        self._turn_number += 1
        stamped = replace(message, at_ns=at_ns)
        self._journal.record_input(self._turn_number, utc_ns, stamped)
        outputs = self._runtime.turn(stamped)
        self._journal.record_outputs(self._turn_number, at_ns, utc_ns, outputs)
        for output in outputs:
            if isinstance(output, StartTimer):
                self._timers.start(output, at_ns)
            elif isinstance(output, CancelTimer):
                self._timers.cancel(output)
            else:
                self._perform(output)
        self._turned()
        if isinstance(message, Started | ShutdownRequested):
            _insist(message, outputs)
        self._watch_journal()

    def _watch_journal(self) -> None:
        failure = self._journal.failure
        if failure is not None and self._journal_failure is None:
            self._journal_failure = failure
            self._turn(JournalLost(reason=failure))

    def _switch_segment(self) -> None:
        """Begin the segment that has been prepared: the former one is full, or its recorder has failed."""
        at_ns = self._clock.now_ns()
        if not self._journal.begin_segment(
            snapshot(self._runtime), self._turn_number + 1, at_ns, at_ns + self._utc_offset_ns
        ):
            return  # the main thread asks again
        if self._journal.failure is None and self._journal_failure is not None:
            self._journal_failure = None
            self._turn(JournalRestored())


def _insist(message: Input, outputs: Iterable[AnyOutput]) -> None:
    """The first and the last turn have to succeed: without the one nothing would ever happen, and after the
    other nothing comes that could stop what it did not."""
    if any(isinstance(output, TurnFailed) for output in outputs):
        msg = f"the turn of {type(message).__name__} failed"
        raise RuntimeError(msg)
