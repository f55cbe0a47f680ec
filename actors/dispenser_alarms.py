"""Alarms that the board supports report, as registers and telemetry (behaviour.md §6).

An alarm of dispenser scope is set while any board support has the error. Several instances (sub_types) of one
error at one board support count as one, until each of them is cleared. Board supports do not repeat their
errors, so after a restart of the driver those that its journal knows are taken for raised, until they are
cleared or EVerest's error_history says otherwise (§8.3).
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from msgspec.structs import replace

from ..messages.config import Config
from ..messages.inputs import (
    ActiveErrorsReceived,
    BrokerConnected,
    BrokerDisconnected,
    BspError,
    BspErrorCleared,
    BspErrorRaised,
    Started,
)
from ..messages.internal import DatapointsChanged, EverestSynchronised, RegistersChanged
from ..messages.outputs import ActiveErrorsRequested, TelemetryValue
from ..messages.types import Level
from ..telemetry.datapoints import ALARMS_TOPIC, CONTACTOR_FAULT_KEY, to_psu_topic
from .names import PSU_LINK, TELEMETRY_PUBLISHER
from .runtime import SECOND_NS, ActorState, CoreActor, Runtime

ASK_TIMER = "active_errors"
ASK_AGAIN_NS = 5 * SECOND_NS

DISPENSER_ALARMS_BY_ERROR = {
    "EnclosureOpen": "door_status_alarm",
    "WaterIngressDetected": "water_alarm",
    "MREC8EmergencyStop": "epo_alarm",
    "TiltDetected": "tilt_alarm",
}
CONTACTOR_FAULT_ERROR = "MREC17EVSEContactorFault"
MAX_INSTANCES = 100
"""Of one error at one board. A board has a few; one that makes up a sub_type for every message must not make
the state, and with it every turn and every snapshot, grow without end. The alarm is set all the same."""


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
            key = f"{error.connector}/dc_output_contactor_fault"
            if key in found:
                found[key] = True
        else:
            found[DISPENSER_ALARMS_BY_ERROR[error.error_type]] = True
    return found


ErrorInput = BspErrorRaised | BspErrorCleared | ActiveErrorsReceived | Started
"""The Inputs that say which errors there are."""


def with_error(state: DispenserAlarmsState, message: ErrorInput) -> DispenserAlarmsState:
    """The state after board supports' errors were raised, cleared, listed or restored."""
    match message:
        case BspErrorRaised():
            error = BspError(message.connector, message.error_type, message.sub_type)
            return _with_errors(state, (*state.errors, error))
        case BspErrorCleared():
            error = BspError(message.connector, message.error_type, message.sub_type)
            return _with_errors(state, tuple(other for other in state.errors if other != error))
        case ActiveErrorsReceived():
            return _with_errors(state, message.errors)
        case Started():
            return _with_errors(state, message.restored_errors)


def _with_errors(state: DispenserAlarmsState, errors: Iterable[BspError]) -> DispenserAlarmsState:
    """Those that matter, each once, and MAX_INSTANCES of a kind at most."""
    known = (*DISPENSER_ALARMS_BY_ERROR, CONTACTOR_FAULT_ERROR)
    instances: dict[tuple[int, str], int] = {}
    kept = []
    for error in dict.fromkeys(error for error in errors if error.error_type in known):
        kind = error.connector, error.error_type
        instances[kind] = instances.get(kind, 0) + 1
        if instances[kind] <= MAX_INSTANCES:
            kept.append(error)
    return replace(state, errors=tuple(kept))


def _full(state: DispenserAlarmsState) -> list[tuple[int, str]]:
    """Connector and type of the errors of which no more instances are kept, in order."""
    counts = Counter((error.connector, error.error_type) for error in state.errors)
    return [kind for kind, count in counts.items() if count >= MAX_INSTANCES]


class DispenserAlarms(CoreActor[DispenserAlarmsState]):
    """Collects the board supports' errors of all connectors."""

    def __init__(self, runtime: Runtime, name: str, state: DispenserAlarmsState, *, config: Config) -> None:
        super().__init__(runtime, name, state)
        self._connector_nos = [connector.global_connector_number for connector in config.connectors]
        self._has_history = bool(config.error_history)

    def handle(self, message: Any) -> None:
        match message:
            case BspErrorRaised() | BspErrorCleared():
                self.state = with_error(self.state, message)
            case ActiveErrorsReceived():
                self.state = with_error(self.state, message)
                self.cancel_timer(ASK_TIMER)
            case Started():
                self.state = with_error(self.state, message)
                self._say_restored(message.restored_from)
            case BrokerConnected() | EverestSynchronised():
                self._ask()
            case BrokerDisconnected():
                self.cancel_timer(ASK_TIMER)

    def timer_fired(self, name: str) -> None:
        if name == ASK_TIMER:
            self._ask()
        else:
            super().timer_fired(name)

    def _ask(self) -> None:
        """Ask which errors there are, again and again until EVerest answers (behaviour.md §8.3)."""
        if self._has_history and ASK_TIMER not in self.state.timers:
            self.emit(ActiveErrorsRequested())
            self.start_timer(ASK_TIMER, ASK_AGAIN_NS)

    def _say_restored(self, journal: str) -> None:
        for error in self.state.errors:
            sub_type = f"/{error.sub_type}" if error.sub_type else ""
            self.log(
                Level.WARNING,
                f"{error.error_type}{sub_type} was raised when the driver ended ({journal}) and counts as "
                "raised until the board support clears it; `run --forget-alarms` starts without",
                error.connector,
            )

    def _say_full(self) -> None:
        was_full = _full(self.before)
        for connector, error_type in _full(self.state):
            if (connector, error_type) not in was_full:
                self.log(
                    Level.WARNING,
                    f"{error_type} is raised with {MAX_INSTANCES} sub_types: no more of them are kept, and the "
                    "alarm ends when these are cleared",
                    connector,
                )

    def end_turn(self) -> None:
        if self.state is self.before:
            return
        self._say_full()
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
