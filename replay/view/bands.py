"""Bands from the actors' states, which a replay shows before and after every turn."""

from collections.abc import Mapping

from ...actors.connector_errors import Fault
from ...actors.connector_state import ConnectorState
from ...actors.dispenser_alarms import DispenserAlarmsState, alarms
from ...actors.psu_link_state import PsuLinkState
from ...actors.runtime import ActorState
from ...messages.registers import RegisterMap, decode
from ...messages.types import ConnectorPhase, LinkPhase, ModePhase, PsuRunningMode
from ...telemetry.units import finite
from .lanes import AC_INPUT, SYSTEM, Timeline, Tone

NONE = "none"
"""Text of a band where there could be alarms or errors, and are none."""

PHASE_TONES = {
    ConnectorPhase.CAR_DISCONNECTED: Tone.IDLE,
    ConnectorPhase.FIRST_KEY: Tone.CHECKING,
    ConnectorPhase.NO_KEY_YET: Tone.PREPARING,
    ConnectorPhase.CONNECTED_NO_ALLOCATION: Tone.CHECKING,
    ConnectorPhase.RUNNING: Tone.ACTIVE,
    ConnectorPhase.COMPLETED: Tone.DONE,
}
MODE_PHASE_TONES = {
    ModePhase.OFF: Tone.IDLE,
    ModePhase.EXPORT_CABLE_CHECK: Tone.CHECKING,
    ModePhase.OFF_CABLE_CHECK: Tone.DONE,
    ModePhase.EXPORT_PRECHARGE: Tone.PREPARING,
    ModePhase.EXPORT_CHARGING: Tone.ACTIVE,
}
LINK_TONES = {
    LinkPhase.UNINITIALIZED: Tone.IDLE,
    LinkPhase.INITIALIZING: Tone.PREPARING,
    LinkPhase.READY: Tone.ACTIVE,
    LinkPhase.FAILED: Tone.BAD,
}
RUNNING_MODES = {
    PsuRunningMode.STARTING_UP: ("STARTING_UP", Tone.PREPARING),
    PsuRunningMode.RUNNING: ("RUNNING", Tone.ACTIVE),
    PsuRunningMode.FAULTY: ("FAULTY", Tone.BAD),
    PsuRunningMode.SLEEPING: ("SLEEPING", Tone.DONE),
    PsuRunningMode.UPGRADING: ("UPGRADING", Tone.CHECKING),
}
AC_INPUT_CURVES = tuple(
    (f"ac_input_{quantity}_{phase}", panel, f"phase {phase.upper()}")
    for quantity, panel in (("voltage", "voltage"), ("current", "current"))
    for phase in "abc"
)
"""Registers that the PSU writes: key, panel, curve."""

_REGISTERS = RegisterMap(1).by_key


def running_mode(value: int | None) -> tuple[str, Tone]:
    """Text and tone of register 0x2006."""
    if value is None:
        return "not received", Tone.IDLE
    try:
        return RUNNING_MODES[PsuRunningMode(value)]
    except ValueError:
        return f"unknown ({value})", Tone.BAD


class Bands:
    """Keeps the bands up with the states."""

    def __init__(self, timeline: Timeline, connector_count: int) -> None:
        self._timeline = timeline
        self._count = connector_count
        self._shown: dict[str, ActorState] = {}
        """The states that are drawn, by actor."""

    def restart(self) -> None:
        """Another segment: what was drawn says nothing of its states."""
        self._shown.clear()

    def show(self, at_us: int, states: Mapping[str, ActorState]) -> None:
        """The states are these from then on."""
        for name, state in states.items():
            shown = self._shown.get(name)
            if shown is state:
                continue
            self._shown[name] = state
            match state:
                case ConnectorState():
                    number = int(name.rpartition("/")[2])
                    self._connector(at_us, number, state, shown if isinstance(shown, ConnectorState) else None)
                case PsuLinkState():
                    self._link(at_us, state, shown if isinstance(shown, PsuLinkState) else None)
                case DispenserAlarmsState():
                    self._alarms(
                        at_us,
                        "dispenser_alarms",
                        [key for key, is_set in alarms(state, self._count).items() if is_set],
                    )

    def _connector(self, at_us: int, number: int, state: ConnectorState, shown: ConnectorState | None) -> None:
        band = self._timeline.set_band
        band(at_us, number, "phase", state.phase.value, PHASE_TONES[state.phase])
        band(at_us, number, "mode_phase", state.mode_phase.value, MODE_PHASE_TONES[state.mode_phase])
        if shown is None or shown.raised is not state.raised:
            text = ", ".join(map(_fault_text, state.raised))
            band(at_us, number, "errors", text or NONE, Tone.BAD if text else Tone.IDLE)
        if number == 1:  # each connector is told the same
            if shown is None or shown.psu_running_mode != state.psu_running_mode:
                band(at_us, SYSTEM, "running_mode", *running_mode(state.psu_running_mode))
            if shown is None or shown.psu_alarms is not state.psu_alarms:
                self._alarms(
                    at_us,
                    "psu_alarms",
                    [key if value == 1 else f"{key} 0x{value:x}" for key, value in state.psu_alarms.items()],
                )
        point = self._timeline.set_point
        if state.setpoint is None:
            point(at_us, number, "setpoint_v", None)
            point(at_us, number, "setpoint_a", None)

    def _link(self, at_us: int, state: PsuLinkState, shown: PsuLinkState | None) -> None:
        self._timeline.set_band(at_us, SYSTEM, "link", state.phase.value, LINK_TONES[state.phase])
        if shown is not None and shown.registers is state.registers:
            return
        for key, _, _ in AC_INPUT_CURVES:
            words = state.registers.get(key)
            if shown is None or words is not shown.registers.get(key):
                value = None if words is None else decode(_REGISTERS[key], words)
                self._timeline.set_point(
                    at_us, AC_INPUT, key, finite(value) if isinstance(value, float) else None
                )

    def _alarms(self, at_us: int, key: str, names: list[str]) -> None:
        self._timeline.set_band(at_us, SYSTEM, key, ", ".join(names) or NONE, Tone.BAD if names else Tone.IDLE)


def error_name(error_type: str, sub_type: str) -> str:
    """As people write an error."""
    return f"{error_type}/{sub_type}" if sub_type else error_type


def _fault_text(fault: Fault) -> str:
    return error_name(fault.error_type, fault.sub_type)
