"""The connector: a car, EVerest's wishes for it, and the GOOSE message that follows (behaviour.md §1, §2, §5).

Handlers only change `self.state`. At the end of a turn `end_turn` compares what followed from the state before
with what follows now, and emits the difference: registers, GOOSE message, errors, telemetry. So no handler can
forget to tell somebody, and there is at most one new GOOSE message a turn.

    connector_supervision.py  state machine, EVerest's supervision
    connector_psu.py          link, keys, allocation, first key, resuming
    connector.py              requests, car, measurements, the end of a turn
"""

from typing import Any

from msgspec.structs import replace

from ..messages import inputs
from ..messages.config import Config
from ..messages.everest import ModeRequest
from ..messages.internal import (
    ChargingEventOccurred,
    DatapointsChanged,
    RegistersChanged,
    SecondPassed,
)
from ..messages.outputs import CommunicationChecked, VoltageCurrentPublished
from ..messages.types import (
    BspEvent,
    ChargingEvent,
    ChargingPhase,
    ConnectorPhase,
    Level,
    Mode,
    ModePhase,
)
from ..telemetry.datapoints import to_psu_topic
from .capabilities import Setpoint, as_f32, is_below_minimum
from .connector_outputs import error_changes, faults, goose_output, next_st_num
from .connector_psu import ConnectorAtPsu
from .connector_state import (
    ConnectorState,
    changed_datapoints,
    changed_registers,
    content,
    differs_in_notes_only,
    has_car,
    is_supplying,
)
from .connector_table import Event
from .measurements import (
    IMD,
    METER,
    OVM,
    REPEAT_AFTER_NS,
    Reading,
    device_for_everest,
    measured,
    newly_silent,
    sources,
    value_for_everest,
    with_silent,
)
from .names import PSU_LINK, TELEMETRY_PUBLISHER
from .runtime import Runtime

_CABLE_CHECK = ChargingPhase.CABLE_CHECK
_EXPORT_MODE_PHASES = {
    ChargingPhase.CABLE_CHECK: ModePhase.EXPORT_CABLE_CHECK,
    ChargingPhase.PRE_CHARGE: ModePhase.EXPORT_PRECHARGE,
    ChargingPhase.CHARGING: ModePhase.EXPORT_CHARGING,
}


class Connector(ConnectorAtPsu):
    """One connector of the dispenser. `number` is the local one, from 1."""

    def __init__(
        self, runtime: Runtime, name: str, state: ConnectorState, *, config: Config, number: int
    ) -> None:
        super().__init__(runtime, name, state, config=config, number=number)
        self._global_number = self._config.global_connector_number
        self._sources = sources(config, number)
        self._told: ConnectorState | None = None
        """The state at the end of the last turn, if all that follows from it has been told."""

    def handle(self, message: Any) -> None:
        match message:
            # The frequent ones first.
            case inputs.PowermeterMeasured():
                self._measured(METER, Reading(message.voltage_v, message.current_a, self.at_ns))
            case inputs.IsolationMeasured():
                self._measured(IMD, Reading(message.voltage_v, 0.0, self.at_ns))
            case inputs.SetpointRequested():
                self._set(message)
            case inputs.ModeRequested():
                self._request(ModeRequest(message.mode, message.charging_phase))
            case inputs.HeartbeatReceived():
                self._heartbeat(message)
            case SecondPassed():
                self._second()
            case inputs.ImportSetpointRequested():
                self._refuse("import setpoint refused: the power unit cannot import")
            case inputs.BspEventReceived(event=event):
                self._bsp_event(event)
            case inputs.SessionEventReceived():
                self._session_event(message)
            case inputs.OverVoltageMeasured():
                self._measured(OVM, Reading(message.voltage_v, 0.0, self.at_ns))
            case _:
                self._handle_rest(message)

    def _handle_rest(self, message: Any) -> None:
        """What comes from the broker and the driver itself; the rest is the power unit's."""
        match message:
            case inputs.BrokerConnected():
                self._broker_connected()
            case inputs.BrokerDisconnected():
                self._broker_disconnected()
            case inputs.JournalLost(reason=reason):
                self.change(journal_lost=reason)
            case inputs.JournalRestored():
                self.change(journal_lost="")
            case inputs.UtcOffsetChanged(utc_offset_ns=offset):
                self.change(utc_offset_ns=offset)
            case inputs.Started(utc_offset_ns=offset):
                self.change(utc_offset_ns=offset)
                self._publish_mode()
            case inputs.ShutdownRequested():
                self._switch_off(Event.OFF_REQUESTED)
                self.change(shutting_down=True, reissue=True)
            case _:
                self._handle_psu(message)

    # --- EVerest -------------------------------------------------------------------------------------------

    def _set(self, message: inputs.SetpointRequested) -> None:
        if not has_car(self.state):
            return self._refuse("setpoint refused: no car is connected")
        voltage_v, current_a = message.voltage_v, message.current_a
        if voltage_v < 0 or current_a < 0:
            return self._refuse(f"setpoint refused: {voltage_v} V {current_a} A is negative")
        try:
            setpoint = Setpoint(as_f32(voltage_v), as_f32(current_a))
        except OverflowError:
            return self._refuse(f"setpoint refused: {voltage_v} V {current_a} A is beyond an f32")
        if is_below_minimum(setpoint, self.state.capabilities):
            minimum_v = self.state.capabilities.min_export_voltage_V
            return self._refuse(f"setpoint refused: {voltage_v} V is less than the PSU's {minimum_v} V")
        return self.change(setpoint=setpoint)

    def _request(self, request: ModeRequest) -> None:
        self.change(everest_lost=False)
        if request.mode is Mode.OFF:
            if self.state.last_request == ModeRequest(Mode.EXPORT, ChargingPhase.CABLE_CHECK):
                request = ModeRequest(Mode.OFF, ChargingPhase.CABLE_CHECK)
            self.change(last_request=request, mode=Mode.OFF, setpoint=None)
            if request.charging_phase is ChargingPhase.CABLE_CHECK:
                self.change(mode_phase=ModePhase.OFF_CABLE_CHECK, off_while_resuming=False)
            else:
                self.change(mode_phase=ModePhase.OFF)
                self._off()
        elif request.mode is Mode.EXPORT and request.charging_phase in _EXPORT_MODE_PHASES:
            if has_car(self.state):
                mode_phase = _EXPORT_MODE_PHASES[request.charging_phase]
                self.change(
                    last_request=request, mode=Mode.EXPORT, mode_phase=mode_phase, off_while_resuming=False
                )
                self._event(Event.EXPORT_REQUESTED)
                self._supervise()
            else:
                self._refuse(f"Export {request.charging_phase.value} refused: no car is connected")
        else:
            self._refuse(f"mode {request.mode.value} {request.charging_phase.value} refused")
        self._publish_mode()

    def _refuse(self, text: str) -> None:
        self.log(Level.WARNING, text, self._number)

    # --- car and measurements ------------------------------------------------------------------------------

    def _bsp_event(self, event: BspEvent) -> None:
        self.change(bsp_event=event)
        match event:
            case BspEvent.A:
                self._car_left()
            case BspEvent.B:
                self._event(Event.CAR_CONNECTED)
            case BspEvent.POWER_ON:
                self.change(contactor_on=True)
            case BspEvent.POWER_OFF:
                self.change(contactor_on=False)

    def _session_event(self, message: inputs.SessionEventReceived) -> None:
        """EVerest's own view of the car; a board support that speaks for itself goes before."""
        if self.state.bsp_event is not None:
            return
        match message.event, message.reason:
            case ("SessionStarted", "EVConnected") | ("TransactionStarted", _):
                self._event(Event.CAR_CONNECTED, message.event)
            case "SessionFinished", _:
                self._car_left()

    def _car_left(self) -> None:
        if has_car(self.state):
            self._switch_off(Event.CAR_DISCONNECTED)

    def _measured(self, device: str, reading: Reading) -> None:
        former = self.state.measured
        try:
            now = measured(former, self._sources, device, reading)
        except OverflowError:
            # The device then counts as silent, which is what it is.
            return
        if device in former.silent:
            self.log(Level.INFO, f"the {device} speaks again", self._number)
        self.change(measured=now)
        if device == self._device_for_everest():
            self._publish_measured(device)

    def _second(self) -> None:
        self.emit(CommunicationChecked(connector=self._number))
        silent = newly_silent(self.state.measured, self._sources, self.at_ns)
        for device in silent:
            self.log(Level.WARNING, f"the {device} has been silent for 5 s while power flows", self._number)
        if silent:
            self.change(measured=with_silent(self.state.measured, self._sources, silent))
        device = self._device_for_everest()
        if device:
            if self.at_ns - self.state.measured.told_at_ns >= REPEAT_AFTER_NS:
                self._publish_measured(device)
        elif self._sources.publish_requested:
            # What is really asked of the PSU: it is not there before Running, nor in mode Off.
            now = content(self.state)
            self.emit(
                VoltageCurrentPublished(
                    connector=self._number, voltage_v=now.voltage_v, current_a=now.current_a
                )
            )

    def _device_for_everest(self) -> str:
        request = self.state.last_request
        is_cable_check = request is not None and request.charging_phase is _CABLE_CHECK
        return device_for_everest(self._sources, cable_check=is_cable_check)

    def _publish_measured(self, device: str) -> None:
        value = value_for_everest(self.state.measured, device, self.at_ns)
        if value is not None:
            self.change(measured=replace(self.state.measured, told_at_ns=self.at_ns))
            self.emit(
                VoltageCurrentPublished(
                    connector=self._number, voltage_v=value.voltage_V, current_a=value.current_A
                )
            )

    # --- the end of a turn ---------------------------------------------------------------------------------

    def end_turn(self) -> None:
        before = self.before
        if self.state is before:
            return
        if before.phase is not self.state.phase or before.mode_phase is not self.state.mode_phase:
            self._note_supply(before)
        now = self.state
        self._push_registers(before, now)
        if before is not self._told or not differs_in_notes_only(before, now):
            self._issue_goose()
            self._tell_everest()
        self._push_datapoints(before, now)
        self._told = self.state

    def _note_supply(self, before: ConnectorState) -> None:
        if is_supplying(before) != is_supplying(self.state):
            since_ns = self.at_ns if is_supplying(self.state) else None
            self.change(measured=replace(self.state.measured, supplying_since_ns=since_ns))
        if before.mode_phase is not self.state.mode_phase:
            self.log(Level.INFO, f"mode-phase {self.state.mode_phase.value}", self._number)

    def _push_registers(self, before: ConnectorState, now: ConnectorState) -> None:
        changed = {f"{self._number}/{name}": words for name, words in changed_registers(before, now).items()}
        if changed:
            self.tell(PSU_LINK, RegistersChanged(values=changed))
        if before.phase is not now.phase:
            running = now.phase is ConnectorPhase.RUNNING
            event = ChargingEvent.STOP_TO_START if running else ChargingEvent.START_TO_STOP
            self.tell(PSU_LINK, ChargingEventOccurred(connector=self._number, event=event))

    def _issue_goose(self) -> None:
        state = self.state
        wanted = content(state)
        issue = self._can_send() and (state.reissue or wanted != state.issued)
        if state.reissue:
            self.change(reissue=False)
        if not issue:
            return
        self.change(st_num=next_st_num(state), issued=wanted)
        self.emit(goose_output(self.state, wanted, self._number, self._global_number, self.at_ns))

    def _tell_everest(self) -> None:
        if self.state.capabilities != self.state.capabilities_told:
            self._publish_capabilities()
        now = faults(self.state)
        if now != self.state.raised:
            self._emit_all(error_changes(self._number, self.state.raised, now))
            self.change(raised=now)

    def _push_datapoints(self, before: ConnectorState, now: ConnectorState) -> None:
        changed = changed_datapoints(before, now)
        if changed:
            topic = to_psu_topic(self._global_number)
            self.tell(TELEMETRY_PUBLISHER, DatapointsChanged(topic=topic, values=changed))
