"""Sends and repeats GOOSE messages: one thread for all connectors (protocol.md §3.3, behaviour.md §10).

    issue ──► sent at once, in the caller's thread ──► repeated by the thread after 2, 2, 4, 8 ms, then every
                                                       1000 ms, until issue or silence replaces it

- The first transmission is in the caller's thread because it is the one that counts: a hand-over to another
  thread would cost more than encoding, signing and sending together.
- stNum and t are the core's; sqNum and the signature are made here, anew for each transmission.
- Dead man: a request for more than 0 V is repeated only while the core finished a turn within the last 2 s.
  After that the thread itself says stop, for every connector with power, and asks for power no more.
- A send error is counted and logged once; the schedule goes on.
- The thread sleeps until the next transmission is due, without a limit if there is none.
- At the end (`stop_power`, `send_out`) the thread is not needed: the caller sends. Even the lock is not: who
  has held it for half a second hangs, and a stop request counts more than the schedule.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from msgspec import structs

from ..messages.goose import GooseHeader, GooseMessage, PowerRequest, StopRequest, t_of_utc_ns
from ..messages.outputs import PowerRequested, StopRequested
from ..messages.types import StopReason
from .goose_codec import encode
from .goose_port import GoosePort
from .key_ring import KeyRing
from .pulse import Pulse

_FIRST_INTERVALS_NS = (2_000_000, 2_000_000, 4_000_000, 8_000_000)
_STEADY_INTERVAL_NS = 1_000_000_000
_CORE_TIMEOUT_NS = 2_000_000_000
_SENDING_TIMEOUT_NS = 2_000_000_000
"""The interface is down or gone for so long: no stop request can leave either."""
_LOCK_TIMEOUT_S = 0.5
_JOIN_TIMEOUT_S = 1.0
_COUNTER_MAX = 0xFFFFFFFF

_log = logging.getLogger("fusioncharger.goose")


def _next_count(count: int) -> int:
    """stNum and sqNum are 32-bit counters; after 4294967295 comes 1 (protocol.md §3.3)."""
    return count + 1 if count < _COUNTER_MAX else 1


def _has_power(output: PowerRequested | StopRequested) -> bool:
    return isinstance(output, PowerRequested) and output.voltage_v > 0


class _Current:
    """The message that a connector publishes now."""

    __slots__ = ("attempts", "due_ns", "header", "message", "output", "sent")

    def __init__(self, output: PowerRequested | StopRequested, now_ns: int) -> None:
        self.output = output
        self.message = _message_of(output)
        t_seconds, t_fraction = t_of_utc_ns(output.t_ns)
        self.header = GooseHeader(st_num=output.st_num, sq_num=0, t_seconds=t_seconds, t_fraction=t_fraction)
        self.due_ns = now_ns
        self.attempts = 0
        self.sent = 0

    def schedule_next(self, now_ns: int) -> None:
        """Set when the next transmission is due: counted from when this one was due, so that the schedule does
        not drift; from now if that has passed too, so that a late thread sends no burst."""
        repeat = self.attempts - 1
        interval_ns = _FIRST_INTERVALS_NS[repeat] if repeat < len(_FIRST_INTERVALS_NS) else _STEADY_INTERVAL_NS
        self.due_ns += interval_ns
        if self.due_ns <= now_ns:
            self.due_ns = now_ns + interval_ns


def _message_of(output: PowerRequested | StopRequested) -> GooseMessage:
    match output:
        case PowerRequested():
            return PowerRequest(
                connector_no=output.connector_no,
                requirement_type=output.requirement_type,
                mode=output.mode,
                voltage_v=output.voltage_v,
                current_a=output.current_a,
            )
        case StopRequested():
            return StopRequest(connector_no=output.connector_no, reason=output.reason)


class GoosePublisher:
    """GOOSE publisher of all connectors. All methods may be called from any thread."""

    def __init__(
        self,
        port: GoosePort,
        key_ring: KeyRing,
        *,
        send_secure: bool,
        vlan_id: int,
        vlan_priority: int,
        on_failure: Callable[[str], None],
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._port = port
        self._key_ring = key_ring
        self._send_secure = send_secure
        self._vlan_id = vlan_id
        self._vlan_priority = vlan_priority
        self._on_failure = on_failure
        self._monotonic_ns = monotonic_ns

        self.pulse = Pulse()
        self._condition = threading.Condition()
        """Guards everything below, and wakes the thread."""
        self._current: dict[int, _Current] = {}
        self._stopped_by_us: set[int] = set()
        """Connectors whose stNum is one ahead of the core's, because we issued a stop request."""
        self._core_turned_ns = monotonic_ns()
        self._core_stalled = False
        self._closing = False
        self._send_errors = 0
        self._sending_fails_since_ns: int | None = None
        self._failure = ""
        """Why the process has to end; told once, by the thread."""
        self._thread = threading.Thread(target=self._run, name="goose-publish", daemon=True)

    def start(self) -> None:
        """Start the thread, once."""
        self._thread.start()

    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def send_errors(self) -> int:
        """How many transmissions failed."""
        return self._send_errors

    def issue(self, output: PowerRequested | StopRequested) -> None:
        """Replace the connector's message by this one and send it now.

        Nothing is sent if it cannot be signed but must be, or if it asks for power after the core had stalled.
        """
        with self._condition:
            # The core hands its Outputs over when a turn is finished: this is a sign of life as well.
            self.core_turned()
            if self._closing or (self._core_stalled and _has_power(output)):
                return
            if output.connector in self._stopped_by_us:
                output = structs.replace(output, st_num=_next_count(output.st_num))
            self._replace(output)
            self._condition.notify_all()

    def silence(self, connector: int) -> None:
        """Send nothing for this connector until the next `issue`."""
        with self._condition:
            self._current.pop(connector, None)
            self._condition.notify_all()

    def core_turned(self) -> None:
        """The core has finished a turn. Takes no lock: it is called after each of them."""
        self._core_turned_ns = self._monotonic_ns()

    def stop_power(self) -> None:
        """The core is gone, or too late: say stop, at once, for every connector with power, and let no power
        request out any more."""
        with self._lock_if_free() as is_locked:
            self._core_stalled = True
            self._stop_powered()
            if is_locked:
                self._condition.notify_all()

    def core_silent_s(self) -> float:
        """Seconds since the core finished a turn."""
        return (self._monotonic_ns() - self._core_turned_ns) / 1e9

    def send_out(self, count: int, timeout_s: float) -> bool:
        """Send the present message of every connector that has one, until it was sent `count` times; False if
        that took longer than `timeout_s`."""
        with self._lock_if_free():
            deadline_ns = self._monotonic_ns() + round(timeout_s * 1e9)
            while any(current.sent < count for current in self._current.values()):
                now_ns = self._monotonic_ns()
                if now_ns >= deadline_ns:
                    return False
                due_ns = min(current.due_ns for current in self._current.values())
                time.sleep(max(0, min(due_ns, deadline_ns) - now_ns) / 1e9)
                self._send_due()
        return True

    def nudge(self) -> None:
        """Let the thread turn once. Never waits: who holds the lock may hang."""
        if self._condition.acquire(blocking=False):
            self._condition.notify_all()
            self._condition.release()

    def close(self) -> bool:
        """End the thread: nothing is sent any more. False if it hangs."""
        self._closing = True
        with self._lock_if_free() as is_locked:
            if is_locked:
                self._condition.notify_all()
        if self._thread.is_alive():
            self._thread.join(_JOIN_TIMEOUT_S)
        return not self._thread.is_alive()

    @contextmanager
    def _lock_if_free(self) -> Iterator[bool]:
        """The lock, or not, if somebody hangs who has it: for what has to be done all the same."""
        is_locked = self._condition.acquire(timeout=_LOCK_TIMEOUT_S)
        try:
            yield is_locked
        finally:
            if is_locked:
                self._condition.release()

    def _run(self) -> None:
        told = ""
        while not self._closing:
            self.pulse.beats += 1
            with self._condition:
                if self._stop_if_core_stalled():
                    self._failure = f"the core has not finished a turn for {_CORE_TIMEOUT_NS / 1e9:g} s"
                self._send_due()
                failure = self._failure
                if failure == told and not self._closing:
                    self._condition.wait(self._seconds_to_next())
            # Without the lock: what the callback does is not ours to know.
            if failure != told:
                told = failure
                self._on_failure(failure)

    def _replace(self, output: PowerRequested | StopRequested) -> None:
        # The former message goes first: whatever happens to the new one, it must not go on.
        self._current.pop(output.connector, None)
        current = _Current(output, self._monotonic_ns())
        if self._transmit(current):
            self._current[output.connector] = current

    def _transmit(self, current: _Current) -> bool:
        """Send the message once more. False if there is no key to sign it with."""
        key = self._key_ring.signing_key(current.output.connector) if self._send_secure else None
        if self._send_secure and key is None:
            return False
        frame = encode(
            current.message,
            current.header,
            dst=current.output.dst,
            src=self._port.mac,
            vlan_id=self._vlan_id,
            vlan_priority=self._vlan_priority,
            key=key,
        )
        try:
            self._port.send(frame)
        except OSError as error:
            self._note_send_error(error)
        else:
            current.sent += 1
            if self._sending_fails_since_ns is not None:
                _log.info("GOOSE frames are sent again (%d could not be)", self._send_errors)
            self._sending_fails_since_ns = None
        current.attempts += 1
        current.header = structs.replace(current.header, sq_num=_next_count(current.header.sq_num))
        current.schedule_next(self._monotonic_ns())
        return True

    def _note_send_error(self, error: OSError) -> None:
        now_ns = self._monotonic_ns()
        self._send_errors += 1
        if self._sending_fails_since_ns is None:
            _log.warning("GOOSE frames cannot be sent: %s", error.strerror)
            self._sending_fails_since_ns = now_ns
        elif now_ns - self._sending_fails_since_ns >= _SENDING_TIMEOUT_NS and not self._failure:
            seconds = _SENDING_TIMEOUT_NS / 1e9
            self._failure = f"no GOOSE frame could be sent for {seconds:g} s: {error.strerror}"

    def _send_due(self) -> None:
        now_ns = self._monotonic_ns()
        due = [current for current in self._current.values() if current.due_ns <= now_ns]
        for current in due:
            if not self._transmit(current):
                del self._current[current.output.connector]

    def _stop_if_core_stalled(self) -> bool:
        """Say stop for every connector with power if the core is too long silent; True if that was so."""
        return self._monotonic_ns() - self._core_turned_ns >= _CORE_TIMEOUT_NS and self._stop_powered()

    def _stop_powered(self) -> bool:
        """Say stop for every connector with power; True if there was one."""
        powered = [current.output for current in self._current.values() if _has_power(current.output)]
        for output in powered:
            self._core_stalled = True
            self._stopped_by_us.add(output.connector)
            self._replace(
                StopRequested(
                    connector=output.connector,
                    connector_no=output.connector_no,
                    dst=output.dst,
                    st_num=_next_count(output.st_num),
                    t_ns=time.time_ns(),
                    reason=StopReason.OTHER_CHARGER_FAULT,
                )
            )
        return bool(powered)

    def _seconds_to_next(self) -> float | None:
        """How long the thread may sleep; None: until it is woken."""
        deadlines = [current.due_ns for current in self._current.values()]
        if any(_has_power(current.output) for current in self._current.values()):
            deadlines.append(self._core_turned_ns + _CORE_TIMEOUT_NS)
        if not deadlines:
            return None
        return max(0, min(deadlines) - self._monotonic_ns()) / 1e9
