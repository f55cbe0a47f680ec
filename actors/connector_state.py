"""What a connector knows, and what follows from it: registers, GOOSE content, errors, telemetry.

Everything here is a pure function of the state, so the connector's handlers only change the state, and the
end of a turn compares what followed from it before with what follows now (actors/connector.py).
"""

import struct
from collections.abc import Mapping
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from ..messages.config import Config
from ..messages.everest import Capabilities, ModeRequest
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
from .capabilities import NO_POWER, Setpoint, clamped, nothing_received
from .connector_errors import Fault
from .connector_table import NO_CAR, outward
from .measurements import Measurements
from .runtime import ActorState

T = TypeVar("T")

_F32 = struct.Struct(">f")
_WORDS = struct.Struct(">HH")


class Content(Struct, frozen=True):
    """What a GOOSE message says, apart from when and to whom."""

    requirement_type: RequirementType | None
    """None: a stop request."""
    voltage_v: float = 0.0
    current_a: float = 0.0


STOP = Content(None)


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

    link_ready: bool = False
    psu_running_mode: int | None = None
    """Register 0x2006; None: not received on this connection."""
    psu_alarms: dict[str, int] = {}
    """PSU alarm registers that are not 0."""
    capabilities: Capabilities = Capabilities()
    first_key_connection: int = 0
    """The connection that has had its first-key cycle."""
    resuming: bool = False
    """The link failed in mid-charge: the connector is on its way back to Running (behaviour.md §2)."""
    resume_overdue: bool = False
    """It took too long: no CommunicationFault for it any more."""
    off_while_resuming: bool = False
    """EVerest wants Off: Completed as soon as the key is there."""

    measured: Measurements = Measurements()

    allocation_failed: bool = False
    internal_error: str = ""
    """Exception type of a failed turn, until the next session reaches Running."""
    journal_lost: str = ""
    raised: tuple[Fault, ...] = ()
    """Errors as EVerest was told."""
    capabilities_told: Capabilities | None = None
    """Capabilities as EVerest was told."""

    everest_lost: bool = False
    heartbeat_seen: bool = False
    """EVerest sends heartbeats: from then on it is supervised whenever it asks for power."""
    heartbeat_id: int | None = None
    """None: no heartbeat seen since start or since EVerest was lost."""
    heartbeat_at_ns: int = 0
    sync_due: bool = True
    """At the next heartbeat EVerest is told everything (behaviour.md §8.2)."""


def initial_state(config: Config, number: int) -> ConnectorState:
    """As it is before the first Input; `number` is the local one."""
    return ConnectorState(capabilities=nothing_received(config.connectors[number - 1]))


def without_link(nothing: Capabilities) -> dict[str, Any]:
    """Fields that change with the link's failing: what the PSU said is forgotten (behaviour.md §2)."""
    return {
        "link_ready": False,
        "psu_running_mode": None,
        "psu_alarms": {},
        "capabilities": nothing,
        "resume_overdue": False,
    }


def has_car(state: ConnectorState) -> bool:
    """Whether a car is connected."""
    return state.phase not in NO_CAR


def applied(state: ConnectorState) -> Setpoint:
    """What is asked of the PSU while a request carries the setpoint (behaviour.md §1)."""
    return clamped(state.setpoint, state.capabilities) if state.setpoint else NO_POWER


def content(state: ConnectorState) -> Content:
    """What the connector's GOOSE message has to say now."""
    shown = outward(state.phase, state.mode_phase)
    if state.shutting_down or shown.requirement_type is None:
        return STOP
    if not shown.carries_setpoint:
        return Content(shown.requirement_type)
    now = applied(state)
    return Content(shown.requirement_type, now.voltage_v, now.current_a)


def differs_in_notes_only(before: ConnectorState, now: ConnectorState) -> bool:
    """Whether no more changed than what neither a GOOSE message nor an error follows from: measurements, and
    when EVerest's heartbeat came. Most turns are such."""
    noted = replace(
        before,
        measured=now.measured,
        heartbeat_id=now.heartbeat_id,
        heartbeat_at_ns=now.heartbeat_at_ns,
        timers=now.timers,
        timers_started=now.timers_started,
    )
    return noted == now


def is_supplying(state: ConnectorState) -> bool:
    """Running with an Export mode-phase."""
    return state.phase is ConnectorPhase.RUNNING and outward(state.phase, state.mode_phase).carries_setpoint


def registers(state: ConnectorState) -> dict[str, tuple[int, ...]]:
    """The registers that follow from the state: name to words."""
    measured = state.measured
    return {
        **_state_registers(state),
        "output_voltage": _f32_words(measured.output_v),
        "output_current": _f32_words(measured.output_a),
        "contactor_upstream_voltage": _f32_words(measured.upstream_v),
    }


def changed_registers(before: ConnectorState, now: ConnectorState) -> dict[str, tuple[int, ...]]:
    """Those that differ from the ones before."""
    changed: dict[str, tuple[int, ...]] = {}
    if (
        before.phase is not now.phase
        or before.mode_phase is not now.mode_phase
        or before.contactor_on is not now.contactor_on
    ):
        changed |= _differing(_state_registers(before), _state_registers(now))
    if before.measured is not now.measured:
        changed |= _changed_measured_registers(before.measured, now.measured)
    return changed


def _state_registers(state: ConnectorState) -> dict[str, tuple[int, ...]]:
    shown_connected = state.phase is not ConnectorPhase.CAR_DISCONNECTED
    status = ConnectionStatus.FULL_CONNECTED if shown_connected else ConnectionStatus.NOT_CONNECTED
    return {
        "working_status": (int(outward(state.phase, state.mode_phase).working_status),),
        "connection_status": (int(status),),
        "contactor_status": (int(state.contactor_on),),
    }


def _changed_measured_registers(before: Measurements, now: Measurements) -> dict[str, tuple[int, ...]]:
    changed: dict[str, tuple[int, ...]] = {}
    if before.output_v != now.output_v:
        changed["output_voltage"] = _f32_words(now.output_v)
    if before.output_a != now.output_a:
        changed["output_current"] = _f32_words(now.output_a)
    if before.upstream_v != now.upstream_v:
        changed["contactor_upstream_voltage"] = _f32_words(now.upstream_v)
    return changed


def _differing(before: Mapping[str, T], now: Mapping[str, T]) -> dict[str, T]:
    return {key: value for key, value in now.items() if before[key] != value}


def _f32_words(value: float | None) -> tuple[int, ...]:
    return _WORDS.unpack(_F32.pack(value or 0.0))


def datapoints(state: ConnectorState) -> dict[str, TelemetryValue]:
    """The telemetry values that follow from the state (behaviour.md §7, connector/N/dispenser_to_psu)."""
    now = applied(state)
    return _as_shown(
        {
            **_asked_datapoints(state),
            "export_voltage": now.voltage_v,
            "export_current": now.current_a,
            **state.measured.datapoints(),
        }
    )


def changed_datapoints(before: ConnectorState, now: ConnectorState) -> dict[str, TelemetryValue]:
    """Those that differ from the ones before."""
    changed: dict[str, TelemetryValue] = {}
    if before.last_request is not now.last_request or before.bsp_event is not now.bsp_event:
        changed |= _differing(_asked_datapoints(before), _asked_datapoints(now))
    if before.setpoint is not now.setpoint or before.capabilities is not now.capabilities:
        former, new = applied(before), applied(now)
        if new.voltage_v != former.voltage_v:
            changed["export_voltage"] = new.voltage_v
        if new.current_a != former.current_a:
            changed["export_current"] = new.current_a
    if before.measured is not now.measured:
        changed |= _differing(before.measured.datapoints(), now.measured.datapoints())
    return _as_shown(changed) if changed else changed


def _asked_datapoints(state: ConnectorState) -> dict[str, TelemetryValue]:
    request = state.last_request
    return {
        "bsp_event": state.bsp_event.value if state.bsp_event else None,
        "everest_mode": request.mode.value if request else None,
        "everest_phase": request.charging_phase.value if request else None,
    }


def _as_shown(values: Mapping[str, TelemetryValue]) -> dict[str, TelemetryValue]:
    return {key: shortest_f32(value) if isinstance(value, float) else value for key, value in values.items()}
