"""Inputs: everything that can influence the core, one Struct each (architecture.md §1, §3).

Rules:
- Names are in the past tense: an Input says what happened, never what to do.
- `at_ns` is monotonic time since the start of the process in ns. The core loop stamps it; whoever makes an
  Input leaves it 0.
- No float that is not finite, ever (msgspec writes NaN as null): what comes from a register or a GOOSE frame
  is carried as words or raw bits.
- No secret: the words of hmac_key are zeroed before an Input is made (io/key_ring.py).
- `connector` is the local number 1..4, `connector_no` the global one 1..12.
- `connection` counts the connections to the PSU, from 1; it is set by the core (PsuConnectRequested), so that
  what a former connection left in a queue is told from what the present one says.
- Fields are only ever added, with a default; tags are never renamed or reused (architecture.md §4).

`group` is the middle part of the journal's channel: `in/<group>/<type>`.
"""

from typing import ClassVar

from msgspec import Struct

from .types import BspEvent, ChargingPhase, Mode


class Input(Struct, frozen=True, kw_only=True, tag=True):
    """Base of all Inputs."""

    group: ClassVar[str] = "driver"

    at_ns: int = 0


# --- the driver itself -------------------------------------------------------------------------------------


class BspError(Struct, frozen=True):
    """An error that a connector's board support has raised and not cleared (behaviour.md §6)."""

    connector: int
    error_type: str
    """Without a namespace: MREC8EmergencyStop."""
    sub_type: str = ""


class Started(Input, frozen=True):
    """First Input of every process: what the core must know of the world it starts in."""

    utc_offset_ns: int
    """UTC minus monotonic time since start, ns."""
    goose_mac: bytes
    """The dispenser's own MAC on the GOOSE interface, 6 bytes (register 0x114D)."""
    restored_errors: tuple[BspError, ...] = ()
    """What the former process knew when it ended, from its journal: boards do not repeat their errors."""
    restored_from: str = ""
    """Name of that journal."""


class ShutdownRequested(Input, frozen=True):
    """SIGTERM or SIGINT came, or a part of the process failed: stop all power (behaviour.md §10)."""

    reason: str


class UtcOffsetChanged(Input, frozen=True):
    """UTC minus monotonic time moved by more than 0.2 s."""

    group: ClassVar[str] = "clock"

    utc_offset_ns: int


class TimerFired(Input, frozen=True):
    """The answer to a StartTimer; ignored unless `number` is the one started last."""

    group: ClassVar[str] = "clock"

    owner: str
    """Name of the actor that started it."""
    name: str
    number: int


class JournalLost(Input, frozen=True):
    """The recorder cannot write (behaviour.md §3, journal_unavailable)."""

    group: ClassVar[str] = "journal"

    reason: str


class JournalRestored(Input, frozen=True):
    """A recorder writes again; what happened in between is a gap in the log."""

    group: ClassVar[str] = "journal"


# --- Modbus link to the PSU --------------------------------------------------------------------------------


class PsuConnected(Input, frozen=True):
    """The TCP connection that PsuConnectRequested asked for stands."""

    group: ClassVar[str] = "psu"

    connection: int


class PsuConnectFailed(Input, frozen=True):
    """The TCP connection that PsuConnectRequested asked for was refused or not done in 1 s."""

    group: ClassVar[str] = "psu"

    connection: int
    reason: str


class PsuDisconnected(Input, frozen=True):
    """The connection is gone: closed, reset, or closed by us for a protocol error."""

    group: ClassVar[str] = "psu"

    connection: int
    reason: str


class RegistersRead(Input, frozen=True):
    """The PSU asked for holding registers (0x03). `count` is 1..125; the range may still wrap past 0xFFFF."""

    group: ClassVar[str] = "psu"

    connection: int
    transaction_id: int
    unit_id: int
    address: int
    count: int
    adu: bytes
    """The request as it was received, MBAP header included."""


class RegistersWritten(Input, frozen=True):
    """The PSU wrote registers (0x06 or 0x10). hmac_key's words are zeroed in `words` and in `adu`."""

    group: ClassVar[str] = "psu"

    connection: int
    transaction_id: int
    unit_id: int
    function: int
    """0x06 or 0x10."""
    address: int
    words: tuple[int, ...]
    """1..123 register words; the range may still wrap past 0xFFFF."""
    adu: bytes


class ModbusRequestRefused(Input, frozen=True):
    """A request that no register can answer: unknown function (0x01) or malformed PDU (0x03)."""

    group: ClassVar[str] = "psu"

    connection: int
    transaction_id: int
    unit_id: int
    function: int
    exception_code: int
    reason: str
    adu: bytes
    """From byte 10 on zeroed: what is not understood may hold a key."""


class UnexpectedPduReceived(Input, frozen=True):
    """A PDU with function 0x41 or >= 0x80 from the PSU: logged, never answered (protocol.md §2)."""

    group: ClassVar[str] = "psu"

    connection: int
    function: int
    adu: bytes
    """From byte 10 on zeroed: what is not understood may hold a key."""


class HmacKeyReceived(Input, frozen=True):
    """The PSU wrote the connector's session key; the key itself stays in io/key_ring.py."""

    group: ClassVar[str] = "psu"

    connection: int
    connector: int


# --- GOOSE -------------------------------------------------------------------------------------------------


class PowerRequestReplyReceived(Input, frozen=True):
    """An accepted power request reply (protocol.md §3.2, §3.4)."""

    group: ClassVar[str] = "goose"

    verified: tuple[int, ...]
    """Local numbers of the connectors whose key verified the frame; empty if HMACs are not checked."""
    connector_no: int
    charging_sn: int
    requirement_type: int
    result: int
    """0 success, 1 failure."""
    mode: int
    voltage_bits: int
    """The f32's raw bits, V."""
    current_bits: int
    """The f32's raw bits, A."""
    st_num: int
    sq_num: int
    frame: bytes
    """The frame as it was received."""
    connection: int = 0
    """The connection to the PSU on which the key came that verified it for `connector_no`; 0 if HMACs are not
    checked, or in a log of an older version."""


class GooseFramesDropped(Input, frozen=True):
    """Frames dropped at the socket during the last second that had any, by reason (protocol.md §3.4); and those
    that were accepted although they look played again (goose_replay_protection = "observe")."""

    group: ClassVar[str] = "goose"

    counts: dict[str, int]
    suspected: dict[str, int] = {}
    """Accepted: `duplicate`, `replayed`."""
    example: str = ""
    """What the first one that looks played again says, dropped or not."""


# --- MQTT: broker, EVerest, devices ------------------------------------------------------------------------


class BrokerConnected(Input, frozen=True):
    """The MQTT connection stands and the subscriptions are acknowledged."""

    group: ClassVar[str] = "mqtt"

    session_present: bool
    """True if the broker kept our session (and with it what was sent meanwhile)."""


class BrokerDisconnected(Input, frozen=True):
    """The MQTT connection is gone."""

    group: ClassVar[str] = "mqtt"

    reason: str


class MqttMessageRejected(Input, frozen=True):
    """A message that does not fit its schema; it changes nothing (behaviour.md §8.1)."""

    group: ClassVar[str] = "mqtt"

    topic: str
    reason: str
    size_bytes: int


class ModeRequested(Input, frozen=True):
    """EVerest's e2m/mode."""

    group: ClassVar[str] = "everest"

    connector: int
    mode: Mode
    charging_phase: ChargingPhase


class SetpointRequested(Input, frozen=True):
    """EVerest's e2m/export_voltage_current. Finite; may be negative (the core refuses that)."""

    group: ClassVar[str] = "everest"

    connector: int
    voltage_v: float
    current_a: float


class ImportSetpointRequested(Input, frozen=True):
    """EVerest's e2m/import_voltage_current (refused by the core: no import)."""

    group: ClassVar[str] = "everest"

    connector: int
    voltage_v: float
    current_a: float


class HeartbeatReceived(Input, frozen=True):
    """EVerest's e2m/heartbeat. `heartbeat_id` rises by one each time and wraps after 2^64 - 1."""

    group: ClassVar[str] = "everest"

    connector: int
    heartbeat_id: int
    redelivered: bool = False
    """MQTT's DUP flag: a redelivery is no sign that EVerest restarted."""


class BspEventReceived(Input, frozen=True):
    """m2e/event of the connector's evse_board_support."""

    group: ClassVar[str] = "bsp"

    connector: int
    event: BspEvent


class BspErrorRaised(Input, frozen=True):
    """m2e/raise_error of the connector's evse_board_support."""

    group: ClassVar[str] = "bsp"

    connector: int
    error_type: str
    sub_type: str


class BspErrorCleared(Input, frozen=True):
    """m2e/clear_error of the connector's evse_board_support."""

    group: ClassVar[str] = "bsp"

    connector: int
    error_type: str
    sub_type: str


class ActiveErrorsReceived(Input, frozen=True):
    """The reply to ActiveErrorsRequested: all errors that the connectors' board supports have now
    (behaviour.md §8.3)."""

    group: ClassVar[str] = "bsp"

    errors: tuple[BspError, ...]


class SessionEventReceived(Input, frozen=True):
    """e2m/session_event of the connector's evse_manager: the car, where no board support says so."""

    group: ClassVar[str] = "bsp"

    connector: int
    event: str
    """EVerest's SessionEventEnum: SessionStarted, TransactionStarted, SessionFinished, …"""
    reason: str = ""
    """Of SessionStarted: EVConnected or Authorized."""


class IsolationMeasured(Input, frozen=True):
    """m2e/isolation_measurement of the isolation monitor, or e2m/isolation_measurement of evse_manager."""

    group: ClassVar[str] = "device"

    connector: int
    voltage_v: float
    """0 if the measurement has none. Finite."""


class OverVoltageMeasured(Input, frozen=True):
    """m2e/voltage_measurement_V of the over-voltage monitor."""

    group: ClassVar[str] = "device"

    connector: int
    voltage_v: float


class PowermeterMeasured(Input, frozen=True):
    """m2e/powermeter_values of the car-side power meter, or e2m/powermeter of evse_manager: its DC values."""

    group: ClassVar[str] = "device"

    connector: int
    voltage_v: float
    """0 if missing. Finite."""
    current_a: float


AnyInput = (
    Started
    | ShutdownRequested
    | UtcOffsetChanged
    | TimerFired
    | JournalLost
    | JournalRestored
    | PsuConnected
    | PsuConnectFailed
    | PsuDisconnected
    | RegistersRead
    | RegistersWritten
    | ModbusRequestRefused
    | UnexpectedPduReceived
    | HmacKeyReceived
    | PowerRequestReplyReceived
    | GooseFramesDropped
    | BrokerConnected
    | BrokerDisconnected
    | MqttMessageRejected
    | ModeRequested
    | SetpointRequested
    | ImportSetpointRequested
    | HeartbeatReceived
    | BspEventReceived
    | BspErrorRaised
    | BspErrorCleared
    | ActiveErrorsReceived
    | SessionEventReceived
    | IsolationMeasured
    | OverVoltageMeasured
    | PowermeterMeasured
)
