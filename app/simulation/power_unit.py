"""The power unit at the other end of the cables: the mock's model, without sockets.

    core's Outputs ─► Wire (Modbus bytes), GOOSE frames ─► PsuModel ─► bytes, frames ─► Inputs

Both directions go through the real codecs, key ring and acceptance of io/; only sockets and threads are missing.
Each way takes `WIRE_NS` and a bit, and more while the network is in trouble (`Network`).
"""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from msgspec import Struct

from ...io.goose_codec import DecodedFrame, GooseError, decode, encode, verify
from ...io.goose_receiver import GooseAcceptance
from ...io.modbus_adu import ModbusProtocolError
from ...io.modbus_codec import DispenserCodec, WriteRequest
from ...io.modbus_link import inputs_of
from ...io.modbus_psu_codec import PsuCodec
from ...messages.config import Config
from ...messages.goose import GooseHeader, PowerRequest, PowerRequestReply, StopRequest, t_of_utc_ns
from ...messages.inputs import GooseFramesDropped, PsuConnected, PsuConnectFailed, PsuDisconnected
from ...messages.outputs import (
    AnyOutput,
    ExceptionAnswered,
    GooseSilenced,
    HmacKeysForgotten,
    HmacKeysRetired,
    PowerRequested,
    PsuConnectRequested,
    PsuDisconnectRequested,
    ReadAnswered,
    ReportSent,
    StopRequested,
    WriteAnswered,
)
from ...messages.types import RequirementType
from ...mock.actions import Action, BytesAsked, DisconnectAsked, ListenAsked, ReadAsked, ReplySent, WriteAsked
from ...mock.commands import command_from
from ...mock.psu_model import PsuModel
from ...mock.psu_state import PsuState
from ...mock.registers import REGISTERS
from .invariants import InvariantViolated
from .plan import Site
from .process import DISPENSER_MAC, Process
from .virtual_time import SECOND_NS, Calendar, Chance

PSU_MAC = bytes.fromhex("020000000001")
UNIT_ID = 0xFF
WIRE_NS = 400_000
CONNECT_TIMEOUT_S = 1.0
USER_TIMEOUT_S = 10.0
"""TCP gives up data that is not acknowledged for so long (io/modbus_connection.py)."""
CAPTURED_FRAMES = 8
SIGNATURES = "a message is signed with its connector's key"


class Network(Struct):
    """What is wrong with the cables; times are the calendar's, in ns."""

    stalled_until_ns: int = 0
    """Nothing gets through on Modbus; what is sent comes later."""
    slow_until_ns: int = 0
    slow_s: float = 0.0
    """Bytes take up to so much longer …"""
    splits: bool = False
    """… and come in pieces."""
    goose_until_ns: int = 0
    goose_lost: float = 0.0
    """Probability that a GOOSE frame is lost …"""
    goose_twice: float = 0.0
    """… or comes twice …"""
    goose_slow_s: float = 0.0
    """… and how much longer it takes at most."""

    def mend(self) -> None:
        """All is well."""
        self.stalled_until_ns = self.slow_until_ns = self.goose_until_ns = 0


class _Wire:
    """One TCP connection, with the codec of either end."""

    def __init__(self, number: int, session: int, process: Process) -> None:
        self.number = number
        """The core's."""
        self.session = session
        """The model's."""
        self.process = process
        self.dispenser = DispenserCodec()
        self.psu = PsuCodec()
        self.is_open = True
        self.key_words: dict[int, list[int]] = {}
        """By connector: its hmac_key, as written so far."""
        self.due_ns = {"dispenser": 0, "psu": 0}
        """When what was sent last gets there: bytes keep their order."""


class _Publisher(Struct):
    """A connector's GOOSE message, as it is being repeated."""

    output: PowerRequested | StopRequested
    is_accepted: bool = False
    """The power unit has it: repeats need no new frame."""


class Clock(Protocol):
    """The wall clock of the world."""

    def utc_ns(self) -> int:
        """UTC."""


class PowerUnit:
    """Model, wires, and the io/ side of both."""

    def __init__(self, config: Config, site: Site, calendar: Calendar, chance: Chance, clock: Clock) -> None:
        self.network = Network()
        self.frames_refused = 0
        """By the power unit: it does not know the key (any more)."""
        self._config = config
        self._site = site
        self._calendar = calendar
        self._chance = chance
        self._clock = clock
        self._psu = PsuState(
            mac=PSU_MAC,
            first_round_with_ratings=site.psu_first_round_with_ratings,
            round_ns=int(site.psu_round_s * SECOND_NS),
        )
        self._model = PsuModel(
            self._psu,
            noise=(lambda: chance.uniform(-1, 1)) if site.psu_noise else (lambda: 0.0),
            new_key=(lambda: chance.bytes(48)) if site.own_keys else None,
        )
        self._process: Process | None = None
        self._acceptance: GooseAcceptance | None = None
        self._wanted = 0
        """Number of the connection that the process asked for last."""
        self._sessions = 0
        self._wire: _Wire | None = None
        self._listens = True
        self._alarm_ns: int | None = None
        """When the model is to be called next."""
        self._publishers: dict[int, _Publisher] = {}
        """By connector."""
        self._keys: dict[int, list[bytes]] = {}
        """By connector: every key that it was ever given, the newest first."""
        self._captured: deque[bytes] = deque(maxlen=CAPTURED_FRAMES)
        self._drops: dict[str, int] = {}
        for connector in range(1, len(config.connectors) + 1):
            self._plan_repeat(connector)

    @property
    def is_ready(self) -> bool:
        """Whether a connection stands."""
        return self._wire is not None

    def attach(self, process: Process) -> None:
        """A new driver process."""
        self._process = process
        self._wanted = 0
        connector_nos = tuple(connector.global_connector_number for connector in self._config.connectors)
        self._acceptance = GooseAcceptance(
            DISPENSER_MAC,
            process.key_ring,
            verify_secure=self._config.verify_secure_goose,
            allow_insecure=self._config.allow_insecure_goose,
            connector_nos=connector_nos,
        )

    def detach(self) -> None:
        """The driver process has ended: its sockets are closed, its frames are repeated no more."""
        self._process = None
        self._publishers.clear()
        self._drops.clear()
        self._hang_up("closed by the dispenser")

    def demand(self, connector: int) -> PowerRequested | None:
        """What a connector is asked to deliver."""
        publisher = self._publishers.get(connector)
        return publisher.output if publisher and isinstance(publisher.output, PowerRequested) else None

    def tell(self, do: str, **arguments: object) -> None:
        """Have it do something (docs/mock.md)."""
        self._do(self._model.command(command_from({"do": do, **arguments}), self._calendar.now_ns))

    def mend(self) -> None:
        """It works again as it should, and so do the cables."""
        self.network.mend()
        self._psu.ratings_of.clear()
        for do, arguments in (
            ("listen", {}),
            ("silence", {"for_s": 0.0}),
            ("running_mode", {"mode": "RUNNING"}),
            ("placeholder", {"reply": "answer"}),
            ("clear_alarm", {}),
            ("port_available", {"available": True}),
            (
                "ratings",
                {
                    "max_voltage_v": 1000.0,
                    "max_current_a": 100.0,
                    "min_voltage_v": 100.0,
                    "min_current_a": 1.0,
                    "power_kw": 60.0,
                },
            ),
        ):
            self.tell(do, **arguments)

    def perform(self, output: AnyOutput) -> None:
        """Take an Output, if it is for the power unit."""
        match output:
            case PsuConnectRequested():
                self._hang_up("closed by the dispenser")
                self._wanted = output.connection
                self._soon(partial(self._connect, output.connection, self._process))
            case PsuDisconnectRequested(connection=connection):
                if self._wire is not None and self._wire.number == connection:
                    self._hang_up(output.reason)
            case ReadAnswered() | WriteAnswered() | ExceptionAnswered() | ReportSent():
                wire = self._wire
                if wire is not None and wire.number == output.connection:
                    self._send(wire, "psu", wire.dispenser.encode(output))
            case HmacKeysRetired(connection=connection):
                if self._process is not None:
                    self._process.key_ring.retire(connection)
            case HmacKeysForgotten(connection=connection):
                if self._process is not None:
                    self._process.key_ring.forget(connection)
            case PowerRequested() | StopRequested():
                publisher = self._publishers[output.connector] = _Publisher(output)
                self._publish(publisher)
            case GooseSilenced(connector=connector):
                self._publishers.pop(connector, None)

    # --- Modbus ----------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """The connection breaks, and both ends notice."""
        wire = self._wire
        if wire is not None:
            self._hang_up("connection reset")
            wire.process.feed(PsuDisconnected(connection=wire.number, reason="Connection reset by peer"))

    def stall(self, for_s: float) -> None:
        """The cable is out: nothing comes through, and TCP gives up after a while."""
        self.network.stalled_until_ns = self._calendar.now_ns + int(for_s * SECOND_NS)
        wire = self._wire

        def give_up() -> None:
            if wire is not None and wire.is_open and wire is self._wire and self._is_stalled:
                self._hang_up("timed out")
                wire.process.feed(PsuDisconnected(connection=wire.number, reason="Connection timed out"))

        self._calendar.after(USER_TIMEOUT_S, give_up)

    @property
    def _is_stalled(self) -> bool:
        return self._calendar.now_ns < self.network.stalled_until_ns

    def _soon(self, action: Callable[[], None]) -> None:
        self._calendar.at(self._calendar.now_ns + WIRE_NS + self._chance.below(WIRE_NS), action)

    def _connect(self, connection: int, process: Process | None) -> None:
        if connection != self._wanted or process is None or process is not self._process:
            return

        def refuse(reason: str) -> None:
            process.feed(PsuConnectFailed(connection=connection, reason=reason))

        if self._is_stalled:
            self._calendar.after(CONNECT_TIMEOUT_S, partial(refuse, "no answer in 1 s"))
            return
        if not self._listens:
            refuse("Connection refused")
            return
        self._sessions += 1
        wire = self._wire = _Wire(connection, self._sessions, process)
        process.feed(PsuConnected(connection=connection))
        self._do(self._model.connected(wire.session, "dispenser", self._calendar.now_ns))

    def _hang_up(self, reason: str) -> None:
        if self._wire is not None:
            wire, self._wire = self._wire, None
            wire.is_open = False
            self._do(self._model.disconnected(wire.session, reason))

    def _send(self, wire: _Wire, to: str, data: bytes) -> None:
        """Bytes on their way; they keep their order."""
        now_ns, network = self._calendar.now_ns, self.network
        slow_ns = int(network.slow_s * SECOND_NS) if now_ns < network.slow_until_ns else 0
        pieces = [data]
        if slow_ns and network.splits and len(data) > 1:
            at = 1 + self._chance.below(len(data) - 1)
            pieces = [data[:at], data[at:]]
        for piece in pieces:
            due_ns = max(now_ns + WIRE_NS + self._chance.below(WIRE_NS + slow_ns), network.stalled_until_ns)
            wire.due_ns[to] = max(wire.due_ns[to], due_ns)
            arrive = self._at_psu if to == "psu" else self._at_dispenser
            self._calendar.at(wire.due_ns[to], partial(arrive, wire, piece))

    def _at_psu(self, wire: _Wire, data: bytes) -> None:
        if not wire.is_open:
            return
        wire.psu.receive(data)
        while wire.is_open and (event := wire.psu.next_event()) is not None:
            self._do(self._model.received(wire.session, event, self._calendar.now_ns))

    def _at_dispenser(self, wire: _Wire, data: bytes) -> None:
        if not wire.is_open:
            return
        wire.dispenser.receive(data)
        try:
            while wire.is_open and (request := wire.dispenser.next_event()) is not None:
                if isinstance(request, WriteRequest):
                    self._note_keys(wire, request)
                for message in inputs_of(request, wire.number, wire.process.key_ring):
                    wire.process.feed(message)
        except ModbusProtocolError as error:
            self._hang_up("closed by the dispenser")
            reason = f"Modbus protocol error: {error}"
            wire.process.feed(PsuDisconnected(connection=wire.number, reason=reason))

    def _note_keys(self, wire: _Wire, request: WriteRequest) -> None:
        """Which connector was given which key, by the addresses alone (protocol.md §2.2)."""
        for connector in range(1, len(self._config.connectors) + 1):
            register = REGISTERS.by_key[f"{connector}/hmac_key"]
            words = wire.key_words.setdefault(connector, [0] * register.words)
            touched = False
            for position, word in enumerate(request.words):
                place = request.address + position - register.address
                if 0 <= place < register.words:
                    words[place], touched = word, True
            if touched and any(words):
                key = b"".join(word.to_bytes(2, "big") for word in words)
                self._keys.setdefault(connector, []).insert(0, key)

    # --- GOOSE -----------------------------------------------------------------------------------------------

    def _publish(self, publisher: _Publisher) -> None:
        """Send a connector's present message; a lost one comes again with the next repeat."""
        frame = self._frame(publisher.output)
        if self._travels(partial(self._at_psu_goose, publisher, frame)):
            return

        def repeat() -> None:
            if self._publishers.get(publisher.output.connector) is publisher:
                self._publish(publisher)

        self._calendar.after(1.0, repeat)

    def _travels(self, arrive: Callable[[], None]) -> bool:
        """Let a frame go over the cable. False if it is lost."""
        network = self.network
        if self._calendar.now_ns >= network.goose_until_ns:
            self._soon(arrive)
            return True
        if self._chance.happens(network.goose_lost):
            return False
        for _ in range(1 + self._chance.happens(network.goose_twice)):
            self._calendar.after(self._chance.uniform(0, network.goose_slow_s), partial(self._soon, arrive))
        return True

    def _frame(self, output: PowerRequested | StopRequested) -> bytes:
        """As io/goose_publisher.py sends it."""
        process = self._process
        key = process.key_ring.signing_key(output.connector) if process is not None else None
        if not self._config.send_secure_goose:
            key = None
        elif key is None:
            text = f"connector {output.connector} has a message to sign and no key"
            raise InvariantViolated(SIGNATURES, text)
        seconds, fraction = t_of_utc_ns(output.t_ns)
        header = GooseHeader(st_num=output.st_num, sq_num=0, t_seconds=seconds, t_fraction=fraction)
        return encode(
            _message_of(output), header, dst=output.dst, src=DISPENSER_MAC, vlan_id=0, vlan_priority=5, key=key
        )

    def _at_psu_goose(self, publisher: _Publisher, frame: bytes) -> None:
        decoded = decode(frame)
        output = publisher.output
        if self._config.send_secure_goose:
            self._check_signature(decoded, output.connector)
            keys = self._model.accepted_keys(DISPENSER_MAC, output.connector_no, self._calendar.now_ns)
            if not any(verify(decoded, key) for key in keys):
                self.frames_refused += 1
                return
        publisher.is_accepted = True
        self._show(output, decoded.header)

    def _check_signature(self, decoded: DecodedFrame, connector: int) -> None:
        """Signed with a key that this very connector was given, at whatever time."""
        if not any(verify(decoded, key) for key in self._keys.get(connector, ())):
            text = f"a message of connector {connector} is signed with a key that it was never given"
            raise InvariantViolated(SIGNATURES, text)

    def _show(self, output: PowerRequested | StopRequested, header: GooseHeader) -> None:
        message = _message_of(output)
        self._do(self._model.goose_received(message, header, DISPENSER_MAC, self._calendar.now_ns))

    def _plan_repeat(self, connector: int) -> None:
        def repeat() -> None:
            publisher = self._publishers.get(connector)
            if publisher is not None and publisher.is_accepted:
                seconds, fraction = t_of_utc_ns(publisher.output.t_ns)
                st_num = publisher.output.st_num
                header = GooseHeader(st_num=st_num, sq_num=9, t_seconds=seconds, t_fraction=fraction)
                self._show(publisher.output, header)
            self._plan_repeat(connector)

        self._calendar.after(self._site.goose_repeat_s, repeat)

    def _reply(self, reply: ReplySent) -> None:
        self._captured.append(self._encode_reply(reply, reply.key))
        frame = self._captured[-1]
        self._travels(partial(self._at_dispenser_goose, frame))

    def _encode_reply(self, reply: ReplySent, key: bytes | None) -> bytes:
        seconds, fraction = t_of_utc_ns(self._clock.utc_ns())
        header = GooseHeader(st_num=reply.st_num, sq_num=reply.sq_num, t_seconds=seconds, t_fraction=fraction)
        signing = key if self._site.psu_signs else None
        return encode(
            reply.message, header, dst=reply.dst, src=PSU_MAC, vlan_id=0, vlan_priority=5, key=signing
        )

    def forge(self, connector: int, how: str) -> None:
        """A frame that no honest power unit sends: a reply for a connector that a stranger made up."""
        connectors = self._config.connectors
        connector_no = connectors[(connector - 1) % len(connectors)].global_connector_number
        success = PowerRequestReply(
            connector_no=connector_no,
            requirement_type=int(RequirementType.MODULE_PLACEHOLDER_REQUEST),
            result=0,
            mode=2,
            voltage_bits=0,
            current_bits=0,
        )
        reply = ReplySent(DISPENSER_MAC, success, st_num=1, sq_num=0, key=None)
        match how:
            case "captured":
                frame = self._captured[0] if self._captured else b""
            case "unsigned":
                frame = self._encode_reply(reply, None)
            case "other_connector":
                others = [keys[0] for number, keys in sorted(self._keys.items()) if number != connector]
                frame = self._encode_reply(reply, others[0] if others else self._chance.bytes(48))
            case "garbage":
                frame = self._encode_reply(reply, None)[: self._chance.below(120)]
            case _:
                frame = self._encode_reply(reply, self._chance.bytes(48))
        self._soon(partial(self._at_dispenser_goose, frame))

    def _at_dispenser_goose(self, frame: bytes) -> None:
        process, acceptance = self._process, self._acceptance
        if process is None or acceptance is None:
            return
        try:
            process.feed(acceptance.decide(frame, self._calendar.now_ns).reply)
        except GooseError as error:
            if not self._drops:
                self._calendar.after(1.0, self._report_drops)
            self._drops[error.reason.value] = self._drops.get(error.reason.value, 0) + 1

    def _report_drops(self) -> None:
        drops, self._drops = self._drops, {}
        if self._process is not None and drops:
            self._process.feed(GooseFramesDropped(counts=drops))

    # --- what the model wants --------------------------------------------------------------------------------

    def _do(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case ReadAsked() | WriteAsked() | BytesAsked():
                    self._ask(action)
                case DisconnectAsked():
                    self._soon(partial(self._drop, action))
                case ListenAsked():
                    self._listens = action.accept
                case ReplySent():
                    self._reply(action)
        self._plan_timer()

    def _plan_timer(self) -> None:
        due_ns = self._model.due_ns
        if due_ns is None or due_ns == self._alarm_ns:
            return
        self._alarm_ns = due_ns

        def ring() -> None:
            if self._alarm_ns == due_ns:
                self._alarm_ns = None
                self._do(self._model.timer(self._calendar.now_ns))

        self._calendar.at(due_ns, ring)

    def _ask(self, asked: ReadAsked | WriteAsked | BytesAsked) -> None:
        wire = self._wire
        if wire is None or asked.connection != wire.session:
            return
        match asked:
            case ReadAsked():
                data = wire.psu.read(asked.transaction_id, UNIT_ID, asked.address, asked.count)
            case WriteAsked(function=0x06):
                data = wire.psu.write_single(asked.transaction_id, UNIT_ID, asked.address, asked.words[0])
            case WriteAsked():
                data = wire.psu.write(asked.transaction_id, UNIT_ID, asked.address, asked.words)
            case BytesAsked():
                data = asked.data
        self._send(wire, "dispenser", data)

    def _drop(self, asked: DisconnectAsked) -> None:
        wire = self._wire
        if wire is not None and asked.connection == wire.session:
            self._hang_up(asked.reason)
            reason = "Connection reset by peer" if asked.reset else "closed by the power unit"
            wire.process.feed(PsuDisconnected(connection=wire.number, reason=reason))


def _message_of(output: PowerRequested | StopRequested) -> PowerRequest | StopRequest:
    if isinstance(output, StopRequested):
        return StopRequest(connector_no=output.connector_no, reason=output.reason)
    return PowerRequest(
        connector_no=output.connector_no,
        requirement_type=output.requirement_type,
        mode=output.mode,
        voltage_v=output.voltage_v,
        current_a=output.current_a,
    )
