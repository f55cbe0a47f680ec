"""The GOOSE frames that the dispenser sent, made again from a log, with their repeats.

A log holds each new message once, with stNum and t; repeats, sqNum and signature are the publisher's. So the
publisher itself makes the frames here, on the log's time instead of the clock's, and without its thread: same
schedule, same counting, same codec.

Rules:
- Keys are never recorded. That a connector had one is (HmacKeyReceived): its frames are laid out as signed, and
  the 32 bytes of the HMAC are zeros.
- A repeat is dated when it was due; the live one left a little later, as late as the thread was.
- What the publisher decided alone is in no log: the stop requests of its dead man (core_silent_s), and
  transmissions that failed.
"""

from collections.abc import Callable, Mapping

from ..actors.connector_state import ConnectorState
from ..actors.names import connector_name
from ..actors.runtime import ActorState
from ..io.goose_publisher import GoosePublisher
from ..io.key_ring import KeyRing
from ..messages.config import Config
from ..messages.inputs import HmacKeyReceived, Input
from ..messages.outputs import (
    AnyOutput,
    GooseSilenced,
    HmacKeysForgotten,
    HmacKeysRetired,
    PowerRequested,
    StopRequested,
)
from ..messages.registers import RegisterMap
from .driver import FIRST_TRANSMISSIONS

_HMAC_BYTES = 32
_SOME_KEY_WORD = 1
"""Of the key that stands for the unknown one: what is made with it is overwritten."""

GOOSE_OUTPUTS = (PowerRequested, StopRequested, GooseSilenced, HmacKeysRetired, HmacKeysForgotten)
"""What `SentGoose.performed` has a use for."""

Sink = Callable[[int, bytes], None]
"""Takes a frame and when it was sent: monotonic ns, frame."""


class _KeepingPort:
    """GoosePort that sends nowhere: what the publisher sends is kept, without its HMAC."""

    def __init__(self, *, signed: bool) -> None:
        self.mac = bytes(6)
        self._signed = signed
        self._kept: list[bytes] = []

    def send(self, frame: bytes) -> None:
        self._kept.append(frame[:-_HMAC_BYTES] + bytes(_HMAC_BYTES) if self._signed else frame)

    def taken(self) -> list[bytes]:
        """What was sent since the last call."""
        kept, self._kept = self._kept, []
        return kept

    # The publisher only sends; nobody calls the rest of a port.

    def receive(self, timeout_s: float) -> bytes | None:
        raise NotImplementedError

    def interrupt(self) -> None:
        raise NotImplementedError

    def take_drop_count(self) -> int:
        raise NotImplementedError

    def close(self) -> None:
        """Nothing is open."""


class _SteppedPublisher(GoosePublisher):
    """The publisher without its thread: whoever has it says when to send what is due."""

    def next_due_ns(self) -> int | None:
        """When the next repeat is due; None: nothing is being repeated."""
        return min((current.due_ns for current in self._current.values()), default=None)

    def send_due(self) -> None:
        """Send what is due now."""
        with self._condition:
            self._send_due()

    def is_sent(self, count: int) -> bool:
        """Whether every present message was sent so many times."""
        return all(current.sent >= count for current in self._current.values())


class SentGoose:
    """The frames sent in one run of the driver, in the order of their times. Give it the turns in order."""

    def __init__(self, config: Config, sink: Sink) -> None:
        self._sink = sink
        self._now_ns = 0
        self._connectors = len(config.connectors)
        self._key_ring = KeyRing(len(config.connectors))
        self._port = _KeepingPort(signed=config.send_secure_goose)
        self._key_registers = RegisterMap(len(config.connectors)).by_key
        self._publisher = _SteppedPublisher(
            self._port,
            self._key_ring,
            send_secure=config.send_secure_goose,
            vlan_id=config.goose_vlan_id,
            vlan_priority=config.goose_vlan_priority,
            on_failure=lambda _reason: None,
            monotonic_ns=lambda: self._now_ns,
        )

    def start_with(self, mac: bytes, connectors: dict[int, ConnectorState]) -> None:
        """A log that begins in mid-run: the dispenser's MAC, and which connectors have keys. The messages that
        were being repeated then are not known (their t is not), so that frames begin with each next message."""
        self.set_mac(mac)
        # In the order of the connections: the key ring takes no key of a former one.
        for connector, state in sorted(connectors.items(), key=lambda item: item[1].key_connection):
            if state.key_connection:
                self._key_received(state.key_connection, connector)

    def set_mac(self, mac: bytes) -> None:
        """The dispenser's own, which is the source of all frames."""
        self._port.mac = mac

    def advance(self, to_ns: int) -> None:
        """Send the repeats that are due before `to_ns` (monotonic)."""
        while (due_ns := self._publisher.next_due_ns()) is not None and due_ns < to_ns:
            self._now_ns = due_ns
            self._publisher.send_due()
            self._pass_on()
        self._now_ns = to_ns

    def received(self, message: Input) -> None:
        """An Input that matters here: a key came."""
        if isinstance(message, HmacKeyReceived):
            self._key_received(message.connection, message.connector)

    def performed(self, output: AnyOutput) -> None:
        """An Output, now."""
        match output:
            case PowerRequested() | StopRequested():
                self._publisher.issue(output)
                self._pass_on()
            case GooseSilenced(connector=connector):
                self._publisher.silence(connector)
            case HmacKeysRetired(connection=connection):
                self._key_ring.retire(connection)
            case HmacKeysForgotten(connection=connection):
                self._key_ring.forget(connection)
            case _:
                pass

    def forget(self) -> None:
        """A gap: what is being repeated now is not known."""
        for connector in range(1, self._connectors + 1):
            self._publisher.silence(connector)

    def finish(self) -> None:
        """The driver said goodbye: before it does, each last message is sent several times."""
        while not self._publisher.is_sent(FIRST_TRANSMISSIONS):
            due_ns = self._publisher.next_due_ns()
            if due_ns is None:
                break
            self.advance(due_ns + 1)

    def _pass_on(self) -> None:
        """Not out of the port: the publisher takes what goes wrong there for a failed transmission."""
        for frame in self._port.taken():
            self._sink(self._now_ns, frame)

    def _key_received(self, connection: int, connector: int) -> None:
        register = self._key_registers[f"{connector}/hmac_key"]
        self._key_ring.absorb_write(connection, register.address, (_SOME_KEY_WORD,) * register.words)


def connector_states(states: Mapping[str, ActorState], count: int) -> dict[int, ConnectorState]:
    """Of all actors' states, the connectors', by local number."""
    found = ((number, states.get(connector_name(number))) for number in range(1, count + 1))
    return {number: state for number, state in found if isinstance(state, ConnectorState)}
