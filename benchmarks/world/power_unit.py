"""The power unit at the other end of the cables: the mock's model, without sockets.

What the model wants becomes the Inputs that io/ would make of it; what the core wants comes to the model as the
mock's server would hand it over. Each way takes `WIRE_NS` and a bit.
"""

import random
import struct
from collections.abc import Callable, Sequence
from functools import partial

from fusioncharger.io.goose_codec import encode
from fusioncharger.io.key_ring import KeyRing
from fusioncharger.io.modbus_adu import Device
from fusioncharger.io.modbus_psu_codec import Answer, ExceptionAnswer, ReadAnswer, Report, WriteAnswer
from fusioncharger.messages.goose import GooseHeader, PowerRequest, StopRequest, t_of_utc_ns
from fusioncharger.messages.inputs import (
    HmacKeyReceived,
    Input,
    PowerRequestReplyReceived,
    PsuConnected,
    PsuConnectFailed,
    PsuDisconnected,
    RegistersRead,
    RegistersWritten,
)
from fusioncharger.messages.outputs import (
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
from fusioncharger.mock.actions import (
    Action,
    DisconnectAsked,
    ListenAsked,
    ReadAsked,
    ReplySent,
    WriteAsked,
)
from fusioncharger.mock.commands import command_from
from fusioncharger.mock.psu_model import PsuModel
from fusioncharger.mock.psu_state import PsuState

from .driver import SECOND_NS, Calendar

UTC_OFFSET_NS = 1_795_000_000 * SECOND_NS
PSU_MAC = bytes.fromhex("020000000001")
DISPENSER_MAC = bytes.fromhex("020000000002")
UNIT_ID = 0xFF
WIRE_NS = 400_000
REPEAT_S = 5.0
"""GOOSE repeats come every second; the model needs one in 10 s to believe that the demand still stands."""


class PowerUnit:
    """Model, wires, and the io/ side of both: key ring and acceptance."""

    def __init__(
        self, calendar: Calendar, chance: random.Random, connectors: int, feed: Callable[[Input], None]
    ) -> None:
        self._calendar = calendar
        self._chance = chance
        self._feed = feed
        self._keys = KeyRing(connectors)
        psu = PsuState(mac=PSU_MAC)
        self._model = PsuModel(psu, noise=lambda: chance.uniform(-1, 1), new_key=lambda: chance.randbytes(48))
        self._connection = 0
        self._listens = True
        self._alarm_ns: int | None = None
        """When the model is to be called next."""
        self._demands: dict[int, PowerRequested | StopRequested] = {}
        """By connector: what GOOSE repeats."""
        for connector in range(1, connectors + 1):
            self._plan_repeat(connector)

    def demand(self, connector: int) -> PowerRequested | None:
        """What a connector is asked to deliver."""
        found = self._demands.get(connector)
        return found if isinstance(found, PowerRequested) else None

    def tell(self, do: str, **arguments: object) -> None:
        """Have it do something (docs/mock.md)."""
        self._do(self._model.command(command_from({"do": do, **arguments}), self._calendar.now_ns))

    def perform(self, output: AnyOutput) -> None:
        """Take an Output, if it is for the power unit."""
        match output:
            case PsuConnectRequested():
                self._connection = output.connection
                self._soon(partial(self._connect, output.connection))
            case PsuDisconnectRequested(connection=self._connection):
                self._hang_up(output.reason)
            case ReadAnswered():
                self._answer(output.connection, ReadAnswer(output.transaction_id, output.unit_id, output.words))
            case WriteAnswered():
                answer = WriteAnswer(
                    output.transaction_id, output.unit_id, output.function, output.address, output.value
                )
                self._answer(output.connection, answer)
            case ExceptionAnswered():
                refusal = ExceptionAnswer(
                    output.transaction_id, output.unit_id, output.function, output.exception_code
                )
                self._answer(output.connection, refusal)
            case ReportSent():
                device = Device(0, output.segments)
                report = Report(output.transaction_id, 0, response_required=False, devices=(device,))
                self._answer(output.connection, report)
            case HmacKeysRetired():
                self._keys.retire(output.connection)
            case HmacKeysForgotten():
                self._keys.forget(output.connection)
            case PowerRequested() | StopRequested():
                self._demands[output.connector] = output
                self._soon(partial(self._show, output))
            case GooseSilenced():
                self._demands.pop(output.connector, None)

    # --- wires -----------------------------------------------------------------------------------------------

    def _soon(self, action: Callable[[], None]) -> None:
        self._calendar.at(self._calendar.now_ns + WIRE_NS + self._chance.randrange(WIRE_NS), action)

    def _connect(self, connection: int) -> None:
        if connection != self._connection:
            return
        if not self._listens:
            self._feed(PsuConnectFailed(connection=connection, reason="Connection refused"))
            return
        self._connected = connection
        self._feed(PsuConnected(connection=connection))
        self._do(self._model.connected(connection, "dispenser", self._calendar.now_ns))

    _connected = 0
    """The connection that stands; 0 for none."""

    def _hang_up(self, reason: str) -> None:
        if self._connected:
            connection, self._connected = self._connected, 0
            self._do(self._model.disconnected(connection, reason))

    def _answer(self, connection: int, event: Answer) -> None:
        def arrive() -> None:
            if connection == self._connected:
                self._do(self._model.received(connection, event, self._calendar.now_ns))

        self._soon(arrive)

    def _show(self, output: PowerRequested | StopRequested) -> None:
        seconds, fraction = t_of_utc_ns(output.t_ns) if isinstance(output, PowerRequested) else (0, 0)
        header = GooseHeader(st_num=output.st_num, sq_num=0, t_seconds=seconds, t_fraction=fraction)
        message = (
            PowerRequest(
                connector_no=output.connector_no,
                requirement_type=output.requirement_type,
                mode=output.mode,
                voltage_v=output.voltage_v,
                current_a=output.current_a,
            )
            if isinstance(output, PowerRequested)
            else StopRequest(connector_no=output.connector_no, reason=output.reason)
        )
        self._do(self._model.goose_received(message, header, DISPENSER_MAC, self._calendar.now_ns))

    def _plan_repeat(self, connector: int) -> None:
        def repeat() -> None:
            demand = self._demands.get(connector)
            if demand is not None:
                self._show(demand)
            self._plan_repeat(connector)

        self._calendar.after(REPEAT_S, repeat)

    # --- what the model wants --------------------------------------------------------------------------------

    def _do(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case ReadAsked() | WriteAsked():
                    self._soon(partial(self._ask, action))
                case DisconnectAsked():
                    self._soon(partial(self._drop, action))
                case ListenAsked():
                    self._listens = action.accept
                case ReplySent():
                    self._soon(partial(self._reply, action))
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

    def _ask(self, asked: ReadAsked | WriteAsked) -> None:
        connection = asked.connection
        if connection != self._connected:
            return
        adu = _adu(asked)
        if isinstance(asked, ReadAsked):
            self._feed(
                RegistersRead(
                    connection=connection,
                    transaction_id=asked.transaction_id,
                    unit_id=UNIT_ID,
                    address=asked.address,
                    count=asked.count,
                    adu=adu,
                )
            )
            return
        words, keyed = self._keys.absorb_write(connection, asked.address, asked.words)
        self._feed(
            RegistersWritten(
                connection=connection,
                transaction_id=asked.transaction_id,
                unit_id=UNIT_ID,
                function=asked.function,
                address=asked.address,
                words=words,
                adu=self._keys.mask_adu(adu, asked.address, len(words)),
            )
        )
        for connector in keyed:
            self._feed(HmacKeyReceived(connection=connection, connector=connector))

    def _drop(self, asked: DisconnectAsked) -> None:
        if asked.connection == self._connected:
            self._connected = 0
            self._do(self._model.disconnected(asked.connection, asked.reason))
            self._feed(PsuDisconnected(connection=asked.connection, reason="closed by the power unit"))

    def _reply(self, reply: ReplySent) -> None:
        seconds, fraction = t_of_utc_ns(self._calendar.now_ns + UTC_OFFSET_NS)
        header = GooseHeader(st_num=reply.st_num, sq_num=reply.sq_num, t_seconds=seconds, t_fraction=fraction)
        frame = encode(
            reply.message, header, dst=reply.dst, src=PSU_MAC, vlan_id=0, vlan_priority=5, key=reply.key
        )
        verified = tuple(owner for owner, key in self._keys.verifying_keys() if key == reply.key)
        message = reply.message
        if verified:
            self._feed(
                PowerRequestReplyReceived(
                    verified=verified,
                    connector_no=message.connector_no,
                    charging_sn=message.charging_sn,
                    requirement_type=message.requirement_type,
                    result=message.result,
                    mode=message.mode,
                    voltage_bits=message.voltage_bits,
                    current_bits=message.current_bits,
                    st_num=reply.st_num,
                    sq_num=reply.sq_num,
                    frame=frame,
                )
            )


def _adu(asked: ReadAsked | WriteAsked) -> bytes:
    """The request as it stands on the wire (io/modbus_adu.py)."""
    if isinstance(asked, ReadAsked):
        pdu = struct.pack(">BHH", 0x03, asked.address, asked.count)
    elif asked.function == 0x06:
        pdu = struct.pack(">BHH", 0x06, asked.address, asked.words[0])
    else:
        count = len(asked.words)
        pdu = struct.pack(f">BHHB{count}H", 0x10, asked.address, count, 2 * count, *asked.words)
    return struct.pack(">HHHB", asked.transaction_id, 0, 1 + len(pdu), UNIT_ID) + pdu
