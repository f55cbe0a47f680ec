"""The broker between EVerest, devices and driver: who gets what, and when.

Rules:
- What one source says on one topic keeps its order; between sources it may change while MQTT is in trouble.
- What gets to the driver goes through its MQTT thread, and so does what it says.
- Messages to a driver that is not connected wait, if the broker keeps its session, and else are lost. What the
  driver says while it is not connected is lost (behaviour.md §8.2).
"""

from collections import deque
from collections.abc import Callable
from functools import partial

from msgspec.structs import replace

from ...messages.inputs import BrokerConnected, BrokerDisconnected, HeartbeatReceived, Input
from .io_thread import IoThread
from .process import Process
from .virtual_time import SECOND_NS, Calendar, Chance

LATENCY_NS = 300_000
CONNECT_S = 0.05
UNACKNOWLEDGED = 3
"""So many messages at most are sent again, since their acknowledgements were lost."""


class Mqtt:
    """The driver's connection to the broker."""

    def __init__(self, calendar: Calendar, chance: Chance, thread: IoThread, session_s: float) -> None:
        """`thread`: the driver's; `session_s`: how long the broker keeps the session of a driver that is not
        connected."""
        self._thread = thread
        self._calendar = calendar
        self._chance = chance
        self._session_ns = int(session_s * SECOND_NS)
        self._process: Process | None = None
        self._is_up = True
        self.is_connected = False
        self._keeps = False
        self._disconnected_ns = 0
        self._waiting: list[Input] = []
        self._heartbeats: deque[HeartbeatReceived] = deque(maxlen=UNACKNOWLEDGED)
        """The last ones that the driver got."""
        self._due_ns: dict[str, int] = {}
        """By source: when what it said last gets there."""
        self._trouble = 0, 0.0, 0.0, 0.0
        """Until when, and the probabilities of losing and doubling, and how late at most."""

    def attach(self, process: Process) -> None:
        """A new driver process: a new client."""
        self._thread.reset()
        self._process = process
        self.is_connected = False
        self._waiting.clear()
        self._heartbeats.clear()
        self._calendar.after(CONNECT_S, partial(self._connect, process))

    def detach(self) -> None:
        """The process has ended, and its session with it: the next one has another name."""
        self._thread.reset()
        self._process = None
        self.is_connected = False
        self._keeps = False
        self._waiting.clear()
        self._heartbeats.clear()

    def lose(self, for_s: float, *, keeps: bool) -> None:
        """The connection is gone for a while."""
        process = self._process
        self._is_up = False
        self._calendar.after(for_s, self.mend_connection)
        if self.is_connected and process is not None:
            self.is_connected = False
            self._keeps = keeps
            self._disconnected_ns = self._calendar.now_ns
            self._take(process, BrokerDisconnected(reason="connection lost"))

    def trouble(self, for_s: float, lost: float, twice: float, slow_s: float) -> None:
        """Messages to the driver are lost, come twice or late."""
        self._trouble = self._calendar.now_ns + int(for_s * SECOND_NS), lost, twice, slow_s

    def mend_connection(self) -> None:
        """The broker can be reached again."""
        if not self._is_up:
            self._is_up = True
            if self._process is not None:
                self._calendar.after(CONNECT_S, partial(self._connect, self._process))

    def mend(self) -> None:
        """All is well."""
        self.mend_connection()
        self._trouble = 0, 0.0, 0.0, 0.0

    def send(self, source: str, message: Input) -> None:
        """Somebody says something to the driver."""
        now_ns = self._calendar.now_ns
        until_ns, lost, twice, slow_s = self._trouble
        due_ns = now_ns + LATENCY_NS + self._chance.below(LATENCY_NS)
        copies = [message]
        if now_ns < until_ns:
            if self._chance.happens(lost):
                return
            due_ns += int(self._chance.uniform(0, slow_s) * SECOND_NS)
            if self._chance.happens(twice):
                again = (
                    replace(message, redelivered=True) if isinstance(message, HeartbeatReceived) else message
                )
                copies.append(again)
        due_ns = max(due_ns, self._due_ns.get(source, 0))
        self._due_ns[source] = due_ns
        for copy in copies:
            self._calendar.at(due_ns, partial(self._deliver, copy))

    def to_world(self, act: Callable[[], None]) -> bool:
        """The driver says something; False if it is lost."""
        if not self.is_connected:
            return False

        def send() -> None:
            self._calendar.at(self._calendar.now_ns + LATENCY_NS + self._chance.below(LATENCY_NS), act)

        self._thread.order(send)
        return True

    def _deliver(self, message: Input) -> None:
        if self.is_connected and self._process is not None:
            if isinstance(message, HeartbeatReceived):
                self._heartbeats.append(message)
            self._take(self._process, message)
        elif self._keeps and self._calendar.now_ns - self._disconnected_ns < self._session_ns:
            self._waiting.append(message)

    def _connect(self, process: Process) -> None:
        if process is not self._process or not self._is_up or self.is_connected:
            return
        self.is_connected = True
        kept = self._keeps and self._calendar.now_ns - self._disconnected_ns < self._session_ns
        waiting, self._waiting = self._waiting if kept else [], []
        self._take(process, BrokerConnected(session_present=kept))
        if kept and self._chance.happens(0.5):  # the acknowledgements were lost with the connection
            for heartbeat in self._heartbeats:
                self._take(process, replace(heartbeat, redelivered=True))
        for message in waiting:
            self._take(process, message)

    def _take(self, process: Process, message: Input) -> None:
        self._thread.arrive(partial(self._thread.put, process, message))
