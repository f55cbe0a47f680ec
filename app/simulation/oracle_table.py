"""The tables of behaviour.md §1 as the oracle has them, and what it looks at in a connector's state."""

from typing import Protocol

from ...messages.types import ChargingPhase, ConnectorPhase, ModePhase, RequirementType, WorkingStatus
from .oracle import SECOND_NS, f32

CAR_DISCONNECTED = ConnectorPhase.CAR_DISCONNECTED
FIRST_KEY = ConnectorPhase.FIRST_KEY
NO_KEY_YET = ConnectorPhase.NO_KEY_YET
ALLOCATING = ConnectorPhase.CONNECTED_NO_ALLOCATION
RUNNING = ConnectorPhase.RUNNING
COMPLETED = ConnectorPhase.COMPLETED

WITHOUT_CAR = (CAR_DISCONNECTED, FIRST_KEY)
EXPORTS = (ModePhase.EXPORT_CABLE_CHECK, ModePhase.EXPORT_PRECHARGE, ModePhase.EXPORT_CHARGING)
FIRST_KEY_NS = 10 * SECOND_NS
OUTAGE_NS = 10 * SECOND_NS

EXPORT_PHASES = {
    ChargingPhase.CABLE_CHECK: ModePhase.EXPORT_CABLE_CHECK,
    ChargingPhase.PRE_CHARGE: ModePhase.EXPORT_PRECHARGE,
    ChargingPhase.CHARGING: ModePhase.EXPORT_CHARGING,
}
REQUIREMENTS = {
    ModePhase.OFF: (RequirementType.MODULE_PLACEHOLDER_REQUEST, False),
    ModePhase.EXPORT_CABLE_CHECK: (RequirementType.INSULATION_DETECTION_VOLTAGE_OUTPUT, True),
    ModePhase.OFF_CABLE_CHECK: (RequirementType.INSULATION_DETECTION_VOLTAGE_OUTPUT_STOPPAGE, False),
    ModePhase.EXPORT_PRECHARGE: (RequirementType.PRECHARGE_VOLTAGE_OUTPUT, True),
    ModePhase.EXPORT_CHARGING: (RequirementType.CHARGING, True),
}
STATUS = {
    CAR_DISCONNECTED: WorkingStatus.STANDBY,
    FIRST_KEY: WorkingStatus.STANDBY_WITH_CONNECTOR_INSERTED,
    NO_KEY_YET: WorkingStatus.STANDBY_WITH_CONNECTOR_INSERTED,
    ALLOCATING: WorkingStatus.CHARGING_STARTING,
    RUNNING: WorkingStatus.CHARGING_STARTING,
    COMPLETED: WorkingStatus.CHARGING_COMPLETE,
}


class SetpointSeen(Protocol):
    """A setpoint in the driver's state."""

    @property
    def voltage_v(self) -> float: ...
    @property
    def current_a(self) -> float: ...


class ConnectorSeen(Protocol):
    """What of the driver's state of a connector is looked at."""

    @property
    def phase(self) -> ConnectorPhase: ...
    @property
    def mode_phase(self) -> ModePhase: ...
    @property
    def setpoint(self) -> SetpointSeen | None: ...
    @property
    def everest_lost(self) -> bool: ...
    @property
    def resume_overdue(self) -> bool: ...
    @property
    def sync_due(self) -> bool: ...
    @property
    def key_connection(self) -> int: ...
    @property
    def contactor_on(self) -> bool: ...
    @property
    def journal_lost(self) -> str: ...
    @property
    def internal_error(self) -> str: ...
    @property
    def heartbeat_id(self) -> int | None: ...


def apply(
    setpoint: tuple[float, float] | None, ratings: tuple[float, float, float, float]
) -> tuple[float, float]:
    """The setpoint clamped into the capabilities (behaviour.md §1, *Applied*)."""
    max_v, min_v, max_a, min_a = ratings
    if setpoint is None or 0 in setpoint or max_v <= 0 or max_a <= 0:
        return (0.0, 0.0)
    voltage_v = min(setpoint[0], max_v)
    if voltage_v < min_v:
        return (0.0, 0.0)
    return (f32(voltage_v), f32(min(max(setpoint[1], min_a), max_a)))
