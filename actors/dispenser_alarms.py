"""Alarms that the board supports report, as registers and telemetry (behaviour.md §6).

An alarm of dispenser scope is set while any board support has the error. Several instances (sub_types) of one
error at one board support count as one, until each of them is cleared.
"""

from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ..messages.config import Config
from ..messages.inputs import BspErrorCleared, BspErrorRaised
from ..messages.internal import DatapointsChanged, RegistersChanged
from ..messages.outputs import TelemetryValue
from ..messages.types import Level
from ..telemetry.datapoints import ALARMS_TOPIC, CONTACTOR_FAULT_KEY, to_psu_topic
from .names import PSU_LINK, TELEMETRY_PUBLISHER
from .runtime import ActorState, CoreActor, Runtime

DISPENSER_ALARMS_BY_ERROR = {
    "EnclosureOpen": "door_status_alarm",
    "WaterIngressDetected": "water_alarm",
    "MREC8EmergencyStop": "epo_alarm",
    "TiltDetected": "tilt_alarm",
}
CONTACTOR_FAULT_ERROR = "MREC17EVSEContactorFault"


class BspError(Struct, frozen=True):
    """An error that a connector's board support has raised and not cleared."""

    connector: int
    error_type: str
    sub_type: str


class DispenserAlarmsState(ActorState, frozen=True, kw_only=True):
    """All errors that matter here, in the order in which they were raised."""

    errors: tuple[BspError, ...] = ()


def alarms(state: DispenserAlarmsState, connector_count: int) -> dict[str, bool]:
    """Register key to whether the alarm is set, for all alarm registers, in fixed order."""
    found = dict.fromkeys(DISPENSER_ALARMS_BY_ERROR.values(), False)
    for number in range(1, connector_count + 1):
        found[f"{number}/dc_output_contactor_fault"] = False
    for error in state.errors:
        if error.error_type == CONTACTOR_FAULT_ERROR:
            found[f"{error.connector}/dc_output_contactor_fault"] = True
        else:
            found[DISPENSER_ALARMS_BY_ERROR[error.error_type]] = True
    return found


def with_error(state: DispenserAlarmsState, message: BspErrorRaised | BspErrorCleared) -> DispenserAlarmsState:
    """The state after a board support's error was raised or cleared."""
    error = BspError(message.connector, message.error_type, message.sub_type)
    if isinstance(message, BspErrorCleared):
        return replace(state, errors=tuple(other for other in state.errors if other != error))
    known = error.error_type in DISPENSER_ALARMS_BY_ERROR or error.error_type == CONTACTOR_FAULT_ERROR
    if not known or error in state.errors:
        return state
    return replace(state, errors=(*state.errors, error))


class DispenserAlarms(CoreActor[DispenserAlarmsState]):
    """Collects the board supports' errors of all connectors."""

    def __init__(self, runtime: Runtime, name: str, state: DispenserAlarmsState, *, config: Config) -> None:
        super().__init__(runtime, name, state)
        self._connector_nos = [connector.global_connector_number for connector in config.connectors]

    def handle(self, message: Any) -> None:
        if isinstance(message, BspErrorRaised | BspErrorCleared):
            self.state = with_error(self.state, message)

    def end_turn(self) -> None:
        old = alarms(self.before, len(self._connector_nos))
        now = alarms(self.state, len(self._connector_nos))
        changed = {key: value for key, value in now.items() if old[key] != value}
        if not changed:
            return
        self.tell(PSU_LINK, RegistersChanged(values={key: (int(value),) for key, value in changed.items()}))
        dispenser: dict[str, TelemetryValue] = {}
        for key, value in changed.items():
            number, _, name = key.rpartition("/")
            level, what = (Level.WARNING, "set") if value else (Level.INFO, "cleared")
            self.log(level, f"{name} {what}", int(number or 0))
            if number:
                topic = to_psu_topic(self._connector_nos[int(number) - 1])
                self.tell(
                    TELEMETRY_PUBLISHER,
                    DatapointsChanged(topic=topic, values={CONTACTOR_FAULT_KEY: value}),
                )
            else:
                dispenser[name] = value
        if dispenser:
            self.tell(TELEMETRY_PUBLISHER, DatapointsChanged(topic=ALARMS_TOPIC, values=dispenser))
