"""The Modbus connection between driver and power unit: bytes, through the real codec of either end.

    core ─ DispenserCodec ─► bytes ─► PsuCodec ─► PsuModel ─► requests ─► bytes ─► DispenserCodec ─► Inputs

Only sockets and threads of io/modbus_link.py are missing. What the driver's end does goes through its thread.
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol

from ...io.modbus_adu import ModbusProtocolError
from ...io.modbus_codec import DispenserCodec, WriteRequest
from ...io.modbus_link import inputs_of
from ...io.modbus_psu_codec import Answer, PsuCodec
from ...messages.inputs import PsuConnected, PsuConnectFailed, PsuDisconnected
from ...messages.outputs import ExceptionAnswered, ReadAnswered, ReportSent, WriteAnswered
from ...mock.actions import BytesAsked, ReadAsked, WriteAsked
from ...mock.registers import REGISTERS
from .io_thread import IoThread
from .network import Network
from .process import Process
from .virtual_time import SECOND_NS, Calendar

UNIT_ID = 0xFF
CONNECT_TIMEOUT_S = 1.0
USER_TIMEOUT_S = 10.0
"""TCP gives up data that is not acknowledged for so long (io/modbus_connection.py)."""

_KEY_REGISTERS = tuple(REGISTERS.by_key[f"{connector}/hmac_key"] for connector in range(1, 5))


class ModbusOwner(Protocol):
    """The power unit; `session` is its number of the connection."""

    def connected(self, session: int) -> None:
        """A dispenser connected."""

    def received(self, session: int, event: Answer) -> None:
        """An answer or a report."""

    def disconnected(self, session: int, reason: str) -> None:
        """The connection is gone."""


class _Wire:
    """One TCP connection."""

    def __init__(self, number: int, session: int, process: Process) -> None:
        self.number = number
        """The core's."""
        self.session = session
        """The model's."""
        self.process = process
        self.dispenser = DispenserCodec()
        self.psu = PsuCodec()
        self.is_open = True
        """Both ends can send and receive."""
        self.is_ours = True
        """The driver's end is not closed: its thread may not know yet that the other one is."""
        self.key_words = [[0] * register.words for register in _KEY_REGISTERS]
        """Each connector's hmac_key, as written so far."""
        self.to_psu_ns = 0
        """When what was sent last gets there."""
        self.to_dispenser_ns = 0


class ModbusSide:
    """The connection that there is, if there is one, and how another one comes about."""

    def __init__(
        self,
        owner: ModbusOwner,
        network: Network,
        calendar: Calendar,
        thread: IoThread,
        key_written: Callable[[int, int, bytes], None],
    ) -> None:
        """`thread` is the driver's; `key_written` is told in which session which connector was given which key,
        by the addresses."""
        self.listens = True
        self._owner = owner
        self._network = network
        self._calendar = calendar
        self._thread = thread
        self._key_written = key_written
        self._process: Process | None = None
        self._wanted = 0
        """Number of the connection that the process asked for last."""
        self._sessions = 0
        self._wire: _Wire | None = None
        """The connection that is open at both ends."""
        self._ours: _Wire | None = None
        """The one whose end the driver has, or gets as soon as its thread looks."""
        self.standing = 0, 0
        """The connection that stands, as the core knows: the power unit's number and the core's."""

    def attach(self, process: Process | None) -> None:
        """Another driver process, or none: the former one's socket is closed."""
        self._thread.reset()
        self._process = process
        self._wanted = 0
        self.standing = 0, 0
        self._close("closed by the dispenser")

    # --- what the core wants ---------------------------------------------------------------------------------

    def connect(self, connection: int) -> None:
        """Open a connection."""
        self._thread.order(partial(self._begin, connection, self._process))

    def disconnect(self, connection: int, reason: str) -> None:
        """Close it."""
        if self.standing[1] == connection:
            self.standing = 0, 0
        self._thread.order(partial(self._disconnect, connection, reason))

    def answer(self, output: ReadAnswered | WriteAnswered | ExceptionAnswered | ReportSent) -> None:
        """Send an answer or a report."""
        self._thread.order(partial(self._answer, output))

    def _begin(self, connection: int, process: Process | None) -> None:
        self._close("closed by the dispenser")
        self._wanted = connection
        self._network.soon(partial(self._connect, connection, process))

    def _disconnect(self, connection: int, reason: str) -> None:
        if self._ours is not None and self._ours.number == connection:
            self._close(reason)

    def _answer(self, output: ReadAnswered | WriteAnswered | ExceptionAnswered | ReportSent) -> None:
        wire = self._ours
        if wire is None or wire.number != output.connection:
            return
        for due_ns, part in self._network.pieces(wire.dispenser.encode(output), wire.to_psu_ns):
            wire.to_psu_ns = due_ns
            self._calendar.at(due_ns, partial(self._at_psu, wire, part))

    # --- what the power unit wants ---------------------------------------------------------------------------

    def ask(self, asked: ReadAsked | WriteAsked | BytesAsked) -> None:
        """Send a request, or whatever bytes."""
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
        for due_ns, part in self._network.pieces(data, wire.to_dispenser_ns):
            wire.to_dispenser_ns = due_ns
            self._calendar.at(due_ns, partial(self._at_dispenser, wire, part))

    def drop(self, session: int, reason: str, *, reset: bool) -> None:
        """Close the connection from the power unit's end."""
        wire = self._wire
        if wire is not None and session == wire.session:
            self._hang_up(reason)
            text = "Connection reset by peer" if reset else "closed by the power unit"
            self._thread.arrive(partial(self._lost, wire, text))

    # --- what happens to the cable ---------------------------------------------------------------------------

    def cut(self) -> None:
        """The connection breaks, and both ends notice."""
        if self._wire is not None:
            self.drop(self._wire.session, "connection reset", reset=True)

    def stall(self, for_s: float) -> None:
        """Nothing comes through, and TCP gives up after a while."""
        self._network.trouble.stalled_until_ns = self._calendar.now_ns + int(for_s * SECOND_NS)
        wire = self._wire

        def give_up() -> None:
            if wire is not None and wire is self._wire and self._network.is_stalled:
                self._hang_up("timed out")
                self._thread.arrive(partial(self._lost, wire, "Connection timed out"))

        self._calendar.after(USER_TIMEOUT_S, give_up)

    def _hang_up(self, reason: str) -> None:
        if self._wire is not None:
            wire, self._wire = self._wire, None
            wire.is_open = False
            self._owner.disconnected(wire.session, reason)

    def _connect(self, connection: int, process: Process | None) -> None:
        if connection != self._wanted or process is None or process is not self._process:
            return

        def refuse(reason: str) -> None:
            if connection == self._wanted and process is self._process:
                self._thread.put(process, PsuConnectFailed(connection=connection, reason=reason))

        def refused(reason: str) -> None:
            self._thread.arrive(partial(refuse, reason))

        if self._network.is_stalled:
            self._calendar.after(CONNECT_TIMEOUT_S, partial(refused, "no answer in 1 s"))
        elif not self.listens:
            refused("Connection refused")
        else:
            self._sessions += 1
            self._wire = self._ours = wire = _Wire(connection, self._sessions, process)
            self.standing = self._sessions, connection
            self._owner.connected(self._sessions)
            self._thread.arrive(partial(self._connected, wire))

    def _at_psu(self, wire: _Wire, data: bytes) -> None:
        if not wire.is_open:
            return
        wire.psu.receive(data)
        try:
            while wire.is_open and (event := wire.psu.next_event()) is not None:
                self._owner.received(wire.session, event)
        except ModbusProtocolError as error:  # the refusal of function 0, which no power unit asks for
            self.drop(wire.session, f"Modbus protocol error: {error}", reset=False)

    def _at_dispenser(self, wire: _Wire, data: bytes) -> None:
        if wire.is_open:
            self._thread.arrive(partial(self._receive, wire, data))

    # --- in the driver's thread ------------------------------------------------------------------------------

    def _close(self, reason: str) -> None:
        """Close the driver's end, without a word to the core."""
        if self._ours is not None:
            self._ours.is_ours = False
            self._ours = None
            self._hang_up(reason)

    def _connected(self, wire: _Wire) -> None:
        if wire.is_ours:
            self._thread.put(wire.process, PsuConnected(connection=wire.number))

    def _lost(self, wire: _Wire, reason: str) -> None:
        if not wire.is_ours:
            return
        self._close(reason)
        self._thread.put(wire.process, PsuDisconnected(connection=wire.number, reason=reason))

        def core_knows() -> None:
            if self.standing[0] == wire.session:
                self.standing = 0, 0

        self._thread.go_on(core_knows)

    def _receive(self, wire: _Wire, data: bytes) -> None:
        if wire.is_ours:
            wire.dispenser.receive(data)
            self._serve(wire)

    def _serve(self, wire: _Wire) -> None:
        """One request after the other; when the thread is held, the next one is looked at after that."""
        thread = self._thread
        try:
            while wire.is_ours and (request := wire.dispenser.next_event()) is not None:
                if isinstance(request, WriteRequest):
                    self._note_keys(wire, request)
                for message in inputs_of(request, wire.number, wire.process.key_ring):
                    thread.put(wire.process, message)
                if thread.is_held:
                    thread.go_on(partial(self._serve, wire))
                    return
        except ModbusProtocolError as error:
            self._hang_up("closed by the dispenser")
            self._lost(wire, f"Modbus protocol error: {error}")

    def _note_keys(self, wire: _Wire, request: WriteRequest) -> None:
        for connector, (register, words) in enumerate(zip(_KEY_REGISTERS, wire.key_words, strict=True), 1):
            begin = request.address - register.address
            if begin >= register.words or begin + len(request.words) <= 0:
                continue
            for position, word in enumerate(request.words, begin):
                if 0 <= position < register.words:
                    words[position] = word
            if any(words):
                self._key_written(wire.session, connector, b"".join(word.to_bytes(2, "big") for word in words))
