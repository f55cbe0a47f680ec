"""What a connector knows, and what follows from it: registers, GOOSE content, errors, telemetry.

Everything here is a pure function of the state, so the connector's handlers only change the state, and the
end of a turn compares what followed from it before with what follows now (actors/connector.py).
"""

from msgspec import Struct

from ..messages.everest import ModeRequest
from ..messages.goose import bits_of_float, float_of_bits
from ..messages.outputs import TelemetryValue
from ..messages.types import (
    BspEvent,
    ConnectionStatus,
    ConnectorPhase,
    Mode,
    ModePhase,
    RequirementType,
)
from ..telemetry.units import shortest_f32
from .connector_table import outward
from .runtime import ActorState


class Setpoint(Struct, frozen=True):
    """What EVerest commanded; not negative, finite, exactly representable as f32."""

    voltage_v: float
    current_a: float


NO_POWER = Setpoint(0.0, 0.0)


class Content(Struct, frozen=True):
    """What a GOOSE message says, apart from when and to whom."""

    requirement_type: RequirementType | None
    """None: a stop request."""
    voltage_v: float = 0.0
    current_a: float = 0.0


STOP = Content(None)


class Fault(Struct, frozen=True):
    """An error towards EVerest (behaviour.md §3)."""

    error_type: str
    sub_type: str
    message: str


class ConnectorState(ActorState, frozen=True, kw_only=True):
    """Everything a connector knows."""

    phase: ConnectorPhase = ConnectorPhase.CAR_DISCONNECTED
    mode_phase: ModePhase = ModePhase.OFF
    mode: Mode = Mode.OFF
    """The mode in effect, as EVerest is told."""
    last_request: ModeRequest | None = None
    """EVerest's, after the CableCheck rule of behaviour.md §1; None: none since the last plug-in or stop."""
    setpoint: Setpoint | None = None
    bsp_event: BspEvent | None = None
    contactor_on: bool = False
    shutting_down: bool = False

    utc_offset_ns: int = 0
    psu_mac: bytes = b""
    mac_connection: int = 0
    """Connection over which psu_mac came; 0: none."""
    key_connection: int = 0
    """Connection over which the HMAC key in the key ring came; 0: there is none."""
    dead_connection: int = 0
    """The last connection that was lost: what still comes from it does not count."""
    st_num: int = 0
    issued: Content | None = None
    """Content of the GOOSE message that is being repeated."""
    reissue: bool = False
    """Issue a GOOSE message in this turn, even with the content it has already."""

    allocation_failed: bool = False
    internal_error: str = ""
    """Exception type of a failed turn, until the next session reaches Running."""
    journal_lost: str = ""
    raised: tuple[Fault, ...] = ()
    """Errors as EVerest was told."""

    everest_lost: bool = False
    heartbeat_seen: bool = False
    """EVerest sends heartbeats: from then on it is supervised whenever it asks for power."""
    heartbeat_id: int | None = None
    """None: no heartbeat seen since start or since EVerest was lost."""
    heartbeat_at_ns: int = 0
    sync_due: bool = True
    """At the next heartbeat EVerest is told everything (behaviour.md §8.2)."""


def as_f32(value: float) -> float:
    """The nearest f32. OverflowError if it is too large for one."""
    return float_of_bits(bits_of_float(value + 0.0))  # + 0.0: no negative zero on the wire


def applied(state: ConnectorState) -> Setpoint:
    """What is asked of the PSU while a request carries the setpoint (behaviour.md §1)."""
    return state.setpoint or NO_POWER


def content(state: ConnectorState) -> Content:
    """What the connector's GOOSE message has to say now."""
    shown = outward(state.phase, state.mode_phase)
    if state.shutting_down or shown.requirement_type is None:
        return STOP
    if not shown.carries_setpoint:
        return Content(shown.requirement_type)
    now = applied(state)
    return Content(shown.requirement_type, now.voltage_v, now.current_a)


def registers(state: ConnectorState) -> dict[str, int]:
    """The registers that follow from the state, by name."""
    connected = state.phase is not ConnectorPhase.CAR_DISCONNECTED
    status = ConnectionStatus.FULL_CONNECTED if connected else ConnectionStatus.NOT_CONNECTED
    return {
        "working_status": int(outward(state.phase, state.mode_phase).working_status),
        "connection_status": int(status),
        "contactor_status": int(state.contactor_on),
    }


INTERNAL_ERROR = ("VendorError", "internal_error")
ALLOCATION_FAILED = ("VendorWarning", "module_placeholder_allocation_failed")
JOURNAL_UNAVAILABLE = ("VendorWarning", "journal_unavailable")

CATALOGUE: tuple[tuple[str, str], ...] = (INTERNAL_ERROR, ALLOCATION_FAILED, JOURNAL_UNAVAILABLE)
"""Every (type, sub_type) that can be raised; a synchronisation states each (behaviour.md §8.2)."""


def faults(state: ConnectorState) -> tuple[Fault, ...]:
    """The errors that have to be raised now, in the catalogue's order (behaviour.md §3)."""
    found = []
    if state.internal_error:
        found.append(Fault(*INTERNAL_ERROR, state.internal_error))
    if state.allocation_failed:
        found.append(Fault(*ALLOCATION_FAILED, "Module placeholder allocation failed"))
    if state.journal_lost:
        found.append(Fault(*JOURNAL_UNAVAILABLE, state.journal_lost))
    return tuple(found)


def changed_datapoints(before: ConnectorState | None, now: ConnectorState) -> dict[str, TelemetryValue]:
    """The telemetry values that follow from the state (behaviour.md §7, connector/N/dispenser_to_psu): those
    that differ from the ones before, or all."""
    old = _datapoints(before) if before is not None else {}
    return {
        key: shortest_f32(value) if isinstance(value, float) else value
        for key, value in _datapoints(now).items()
        if key not in old or old[key] != value
    }


def _datapoints(state: ConnectorState) -> dict[str, TelemetryValue]:
    request = state.last_request
    now = applied(state)
    return {
        "bsp_event": state.bsp_event.value if state.bsp_event else None,
        "everest_mode": request.mode.value if request else None,
        "everest_phase": request.charging_phase.value if request else None,
        "export_voltage": now.voltage_v,
        "export_current": now.current_a,
    }
