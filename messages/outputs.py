"""Outputs: everything the core wants done in the world, one Struct each (architecture.md §1, §3).

Rules:
- An Output says what is to be done or what was decided; io/ carries it out and decides nothing.
- Everything that ends up on the wire and is the core's to choose is in here: transaction and unit ids, stNum,
  t. Only sqNum (a repeat's number) and the signature come from io/.
- Fields are only ever added, with a default; tags are never renamed or reused (architecture.md §4).

`group` is the middle part of the journal's channel: `out/<group>/<type>`.
"""

from typing import ClassVar

from msgspec import Struct

from .everest import Capabilities
from .types import Level, Mode, PowerRequestMode, RequirementType, StopReason

TelemetryValue = float | int | str | bool | None


class Output(Struct, frozen=True, kw_only=True, tag=True):
    """Base of all Outputs."""

    group: ClassVar[str] = "driver"


# --- the driver itself -------------------------------------------------------------------------------------


class LogWritten(Output, frozen=True):
    """One line for the process log. `connector` is the local number, 0 for none."""

    level: Level
    connector: int
    text: str


class TurnFailed(Output, frozen=True):
    """A handler raised: the turn was undone and the safe stop ran (behaviour.md §10)."""

    actor: str
    exception_type: str
    message: str


class StartTimer(Output, frozen=True):
    """Start (or restart) the actor's timer `name`; TimerFired brings back the number."""

    group: ClassVar[str] = "clock"

    owner: str
    name: str
    number: int
    delay_ns: int


class CancelTimer(Output, frozen=True):
    """The actor's timer `name` is not wanted any more."""

    group: ClassVar[str] = "clock"

    owner: str
    name: str
    number: int


# --- Modbus link to the PSU --------------------------------------------------------------------------------


class PsuConnectRequested(Output, frozen=True):
    """Open the TCP connection to the PSU."""

    group: ClassVar[str] = "psu"

    connection: int


class PsuDisconnectRequested(Output, frozen=True):
    """Close the TCP connection to the PSU. No PsuDisconnected is expected for it."""

    group: ClassVar[str] = "psu"

    connection: int
    reason: str


class ReadAnswered(Output, frozen=True):
    """Answer to a read (0x03)."""

    group: ClassVar[str] = "psu"

    connection: int
    transaction_id: int
    unit_id: int
    words: tuple[int, ...]


class WriteAnswered(Output, frozen=True):
    """Answer to a write (0x06: `value` is the word written; 0x10: the number of registers)."""

    group: ClassVar[str] = "psu"

    connection: int
    transaction_id: int
    unit_id: int
    function: int
    address: int
    value: int


class ExceptionAnswered(Output, frozen=True):
    """Exception answer: 0x01 unknown function, 0x02 address, 0x03 value, 0x04 internal failure."""

    group: ClassVar[str] = "psu"

    connection: int
    transaction_id: int
    unit_id: int
    function: int
    """Function of the request, without the 0x80 of the answer."""
    exception_code: int


class Segment(Struct, frozen=True):
    """A run of adjacent registers in an unsolicited report."""

    address: int
    words: tuple[int, ...]


class ReportSent(Output, frozen=True):
    """Unsolicited report (0x41), unit id 0, no response required (protocol.md §2.1)."""

    group: ClassVar[str] = "psu"

    connection: int
    transaction_id: int
    segments: tuple[Segment, ...]


class HmacKeysRetired(Output, frozen=True):
    """From now on no received frame is verified with a key of this connection or a former one."""

    group: ClassVar[str] = "psu"

    connection: int


class HmacKeysForgotten(Output, frozen=True):
    """From now on nothing is signed with a key of this connection or a former one."""

    group: ClassVar[str] = "psu"

    connection: int


# --- GOOSE -------------------------------------------------------------------------------------------------


class PowerRequested(Output, frozen=True):
    """A new GOOSE power request: sent at once, then repeated (protocol.md §3.3)."""

    group: ClassVar[str] = "goose"

    connector: int
    connector_no: int
    dst: bytes
    """The PSU's MAC, 6 bytes."""
    st_num: int
    t_ns: int
    """UTC of this message, ns since 1970; the publisher puts it into the 8 bytes of `t`."""
    requirement_type: RequirementType
    mode: PowerRequestMode
    voltage_v: float
    """Exactly representable as f32."""
    current_a: float
    """Exactly representable as f32."""


class StopRequested(Output, frozen=True):
    """A new GOOSE stop request: sent at once, then repeated (protocol.md §3.3)."""

    group: ClassVar[str] = "goose"

    connector: int
    connector_no: int
    dst: bytes
    st_num: int
    t_ns: int
    reason: StopReason


class GooseSilenced(Output, frozen=True):
    """The connector's current GOOSE message is repeated no more (the PSU's MAC or key is forgotten)."""

    group: ClassVar[str] = "goose"

    connector: int


# --- EVerest and telemetry ---------------------------------------------------------------------------------


class ModePublished(Output, frozen=True):
    """m2e/mode: the mode in effect."""

    group: ClassVar[str] = "everest"

    connector: int
    mode: Mode


class ErrorRaised(Output, frozen=True):
    """m2e/raise_error."""

    group: ClassVar[str] = "everest"

    connector: int
    error_type: str
    sub_type: str
    message: str


class ErrorCleared(Output, frozen=True):
    """m2e/clear_error."""

    group: ClassVar[str] = "everest"

    connector: int
    error_type: str
    sub_type: str
    message: str


class CommunicationChecked(Output, frozen=True):
    """m2e/communication_check: `true`, once a second, from a turn of the core."""

    group: ClassVar[str] = "everest"

    connector: int


class CapabilitiesPublished(Output, frozen=True):
    """m2e/capabilities (behaviour.md §4)."""

    group: ClassVar[str] = "everest"

    connector: int
    capabilities: Capabilities


class VoltageCurrentPublished(Output, frozen=True):
    """m2e/voltage_current: what is measured at the car (behaviour.md §5)."""

    group: ClassVar[str] = "everest"

    connector: int
    voltage_v: float
    current_a: float


class ActiveErrorsRequested(Output, frozen=True):
    """m2e/active_errors of error_history: ask for ActiveErrorsReceived (behaviour.md §8.3)."""

    group: ClassVar[str] = "everest"


class TelemetryPublished(Output, frozen=True):
    """A telemetry object that changed (behaviour.md §7). `topic` is without the prefix."""

    group: ClassVar[str] = "telemetry"

    topic: str
    values: dict[str, TelemetryValue]


AnyOutput = (
    LogWritten
    | TurnFailed
    | StartTimer
    | CancelTimer
    | PsuConnectRequested
    | PsuDisconnectRequested
    | ReadAnswered
    | WriteAnswered
    | ExceptionAnswered
    | ReportSent
    | HmacKeysRetired
    | HmacKeysForgotten
    | PowerRequested
    | StopRequested
    | GooseSilenced
    | ModePublished
    | ErrorRaised
    | ErrorCleared
    | CommunicationChecked
    | CapabilitiesPublished
    | VoltageCurrentPublished
    | ActiveErrorsRequested
    | TelemetryPublished
)
