"""The connector's state machine as data (behaviour.md §1). docs/connector.md is generated from it.

TRANSITIONS says which state an event leads to; an event that is not listed for a state changes nothing there.
`outward` says what each state and mode-phase shows: working_status to the PSU, and which GOOSE message.
"""

from enum import Enum

from msgspec import Struct

from ..messages.types import ConnectorPhase, ModePhase, RequirementType, WorkingStatus


class Event(Enum):
    """What can move a connector from one state to another."""

    CAR_CONNECTED = "car connected"
    CAR_DISCONNECTED = "car disconnected"
    KEY_RECEIVED = "hmac key received"
    ALLOCATION_ENDED = "placeholder reply or its timeout"
    OFF_REQUESTED = "mode-phase Off"
    EXPORT_REQUESTED = "mode-phase Export…"
    OFF_WHILE_RESUMING = "mode-phase Off while resuming"
    LINK_LOST = "link to the PSU failed"
    PSU_RUNNING = "PSU reports RUNNING for the first time on a connection"
    FIRST_KEY_TIMEOUT = "no key in 10 s"


_P = ConnectorPhase
_E = Event

TRANSITIONS: dict[tuple[ConnectorPhase, Event], ConnectorPhase] = {
    (_P.CAR_DISCONNECTED, _E.CAR_CONNECTED): _P.NO_KEY_YET,
    (_P.NO_KEY_YET, _E.KEY_RECEIVED): _P.CONNECTED_NO_ALLOCATION,
    (_P.CONNECTED_NO_ALLOCATION, _E.ALLOCATION_ENDED): _P.RUNNING,
    (_P.RUNNING, _E.OFF_REQUESTED): _P.COMPLETED,
    (_P.COMPLETED, _E.EXPORT_REQUESTED): _P.NO_KEY_YET,
    (_P.CAR_DISCONNECTED, _E.PSU_RUNNING): _P.FIRST_KEY,
    (_P.FIRST_KEY, _E.KEY_RECEIVED): _P.CAR_DISCONNECTED,
    (_P.FIRST_KEY, _E.FIRST_KEY_TIMEOUT): _P.CAR_DISCONNECTED,
    (_P.FIRST_KEY, _E.LINK_LOST): _P.CAR_DISCONNECTED,
    (_P.FIRST_KEY, _E.CAR_CONNECTED): _P.NO_KEY_YET,
    (_P.CONNECTED_NO_ALLOCATION, _E.OFF_WHILE_RESUMING): _P.COMPLETED,
    (_P.CONNECTED_NO_ALLOCATION, _E.LINK_LOST): _P.NO_KEY_YET,
    (_P.RUNNING, _E.LINK_LOST): _P.NO_KEY_YET,
    (_P.NO_KEY_YET, _E.CAR_DISCONNECTED): _P.CAR_DISCONNECTED,
    (_P.CONNECTED_NO_ALLOCATION, _E.CAR_DISCONNECTED): _P.CAR_DISCONNECTED,
    (_P.RUNNING, _E.CAR_DISCONNECTED): _P.CAR_DISCONNECTED,
    (_P.COMPLETED, _E.CAR_DISCONNECTED): _P.CAR_DISCONNECTED,
}


class Outward(Struct, frozen=True):
    """What a connector shows the PSU."""

    working_status: WorkingStatus
    requirement_type: RequirementType | None
    """None: a stop request."""
    carries_setpoint: bool = False
    """True: the power request carries the applied setpoint. False: 0 V 0 A."""


NO_CAR = (ConnectorPhase.CAR_DISCONNECTED, ConnectorPhase.FIRST_KEY)
"""States without a car."""

_RUNNING = ConnectorPhase.RUNNING
_STARTING = WorkingStatus.CHARGING_STARTING
_PLACEHOLDER = Outward(_STARTING, RequirementType.MODULE_PLACEHOLDER_REQUEST)

_OUTWARD_RUNNING: dict[ModePhase, Outward] = {
    ModePhase.OFF: _PLACEHOLDER,
    ModePhase.EXPORT_CABLE_CHECK: Outward(
        _STARTING, RequirementType.INSULATION_DETECTION_VOLTAGE_OUTPUT, carries_setpoint=True
    ),
    ModePhase.OFF_CABLE_CHECK: Outward(_STARTING, RequirementType.INSULATION_DETECTION_VOLTAGE_OUTPUT_STOPPAGE),
    ModePhase.EXPORT_PRECHARGE: Outward(
        _STARTING, RequirementType.PRECHARGE_VOLTAGE_OUTPUT, carries_setpoint=True
    ),
    ModePhase.EXPORT_CHARGING: Outward(WorkingStatus.CHARGING, RequirementType.CHARGING, carries_setpoint=True),
}

_OUTWARD: dict[ConnectorPhase, Outward] = {
    _P.CAR_DISCONNECTED: Outward(WorkingStatus.STANDBY, None),
    _P.FIRST_KEY: Outward(WorkingStatus.STANDBY_WITH_CONNECTOR_INSERTED, None),
    _P.NO_KEY_YET: Outward(WorkingStatus.STANDBY_WITH_CONNECTOR_INSERTED, None),
    _P.CONNECTED_NO_ALLOCATION: _PLACEHOLDER,
    _P.COMPLETED: Outward(WorkingStatus.CHARGING_COMPLETE, None),
}


def outward(phase: ConnectorPhase, mode_phase: ModePhase) -> Outward:
    """What a connector in this state and mode-phase shows the PSU."""
    if phase is _RUNNING:
        return _OUTWARD_RUNNING[mode_phase]
    return _OUTWARD[phase]


def diagram() -> str:
    """The state machine as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {ConnectorPhase.CAR_DISCONNECTED.value}"]
    lines += [
        f"    {state.value} --> {target.value}: {event.value}" for (state, event), target in TRANSITIONS.items()
    ]
    return "\n".join(lines) + "\n"
