"""The connector: a car, EVerest's wishes for it, and the GOOSE message that follows (behaviour.md §1, §8.2).

Handlers only change `self.state`. At the end of a turn `end_turn` compares what followed from the state before
with what follows now, and emits the difference: registers, GOOSE message, errors, telemetry. So no handler can
forget to tell somebody, and there is at most one new GOOSE message a turn.
"""

from collections.abc import Iterable
from typing import Any

from ..messages import inputs
from ..messages.config import Config
from ..messages.everest import ModeRequest
from ..messages.internal import (
    ChargingEventOccurred,
    DatapointsChanged,
    LinkLost,
    PsuForgotten,
    PsuMacKnown,
    RegistersChanged,
    SecondPassed,
)
from ..messages.outputs import AnyOutput, CommunicationChecked, GooseSilenced, ModePublished
from ..messages.types import (
    BspEvent,
    ChargingEvent,
    ChargingPhase,
    ConnectorPhase,
    Level,
    Mode,
    ModePhase,
    RequirementType,
)
from ..telemetry.datapoints import to_psu_topic
from .connector_outputs import error_changes, error_synchronisation, goose_output, next_st_num
from .connector_state import (
    ConnectorState,
    Setpoint,
    as_f32,
    changed_datapoints,
    content,
    faults,
    registers,
)
from .connector_table import TRANSITIONS, Event
from .names import PSU_LINK, TELEMETRY_PUBLISHER
from .runtime import SECOND_NS, CoreActor, Runtime

ALLOCATION_TIMER = "placeholder_allocation"
HEARTBEAT_TIMER = "heartbeat"
BROKER_TIMER = "broker"

HEARTBEAT_WRAP = 1 << 64

_EXPORT_MODE_PHASES = {
    ChargingPhase.CABLE_CHECK: ModePhase.EXPORT_CABLE_CHECK,
    ChargingPhase.PRE_CHARGE: ModePhase.EXPORT_PRECHARGE,
    ChargingPhase.CHARGING: ModePhase.EXPORT_CHARGING,
}


class Connector(CoreActor[ConnectorState]):
    """One connector of the dispenser. `number` is the local one, from 1."""

    def __init__(
        self, runtime: Runtime, name: str, state: ConnectorState, *, config: Config, number: int
    ) -> None:
        super().__init__(runtime, name, state)
        self._number = number
        self._global_number = config.connectors[number - 1].global_connector_number
        self._send_secure = config.send_secure_goose
        self._verify_secure = config.verify_secure_goose
        self._everest_timeout_ns = int(config.everest_timeout_s * SECOND_NS)
        self._allocation_timeout_ns = int(config.module_placeholder_allocation_timeout_s * SECOND_NS)

    def handle(self, message: Any) -> None:  # noqa: C901 - one flat dispatch
        match message:
            case SecondPassed():
                self.emit(CommunicationChecked(connector=self._number))
            case inputs.SetpointRequested():
                self._set(message)
            case inputs.ModeRequested():
                self._request(ModeRequest(message.mode, message.charging_phase))
            case inputs.HeartbeatReceived():
                self._heartbeat(message)
            case inputs.BspEventReceived(event=event):
                self._bsp_event(event)
            case inputs.PowerRequestReplyReceived():
                self._reply(message)
            case inputs.HmacKeyReceived(connection=connection):
                self._key(connection)
            case PsuMacKnown(connection=connection, mac=mac):
                self.change(psu_mac=mac, mac_connection=connection, reissue=True)
            case LinkLost(connection=connection):
                self._link_lost(connection)
            case PsuForgotten(connection=connection):
                self._forget_psu(connection)
            case inputs.BrokerConnected():
                self.cancel_timer(BROKER_TIMER)
                self.change(sync_due=True)
            case inputs.BrokerDisconnected():
                self.start_timer(BROKER_TIMER, self._everest_timeout_ns)
            case inputs.ImportSetpointRequested():
                self._refuse("import setpoint refused: the power unit cannot import")
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

    def timer_fired(self, name: str) -> None:
        if name == ALLOCATION_TIMER:
            self.log(Level.WARNING, "no answer to the module placeholder request", self._number)
            self.change(allocation_failed=True)
            self._event(Event.ALLOCATION_ENDED, "timeout")
        elif name == BROKER_TIMER:
            self._everest_lost("no connection to the broker")
        elif name == HEARTBEAT_TIMER:
            silent_ns = self.at_ns - self.state.heartbeat_at_ns
            if silent_ns < self._everest_timeout_ns:
                self.start_timer(HEARTBEAT_TIMER, self._everest_timeout_ns - silent_ns)
            else:
                self._everest_lost("no heartbeat")
        else:
            super().timer_fired(name)

    # --- EVerest -------------------------------------------------------------------------------------------

    def _set(self, message: inputs.SetpointRequested) -> None:
        if self.state.phase is ConnectorPhase.CAR_DISCONNECTED:
            return self._refuse("setpoint refused: no car is connected")
        voltage_v, current_a = message.voltage_v, message.current_a
        if voltage_v < 0 or current_a < 0:
            return self._refuse(f"setpoint refused: {voltage_v} V {current_a} A is negative")
        try:
            setpoint = Setpoint(as_f32(voltage_v), as_f32(current_a))
        except OverflowError:
            return self._refuse(f"setpoint refused: {voltage_v} V {current_a} A is beyond an f32")
        return self.change(setpoint=setpoint)

    def _request(self, request: ModeRequest) -> None:
        self.change(everest_lost=False)
        if request.mode is Mode.OFF:
            if self.state.last_request == ModeRequest(Mode.EXPORT, ChargingPhase.CABLE_CHECK):
                request = ModeRequest(Mode.OFF, ChargingPhase.CABLE_CHECK)
            self.change(last_request=request, mode=Mode.OFF, setpoint=None)
            if request.charging_phase is ChargingPhase.CABLE_CHECK:
                self.change(mode_phase=ModePhase.OFF_CABLE_CHECK)
            else:
                self.change(mode_phase=ModePhase.OFF)
                self._event(Event.OFF_REQUESTED)
        elif request.mode is Mode.EXPORT and request.charging_phase in _EXPORT_MODE_PHASES:
            if self.state.phase is ConnectorPhase.CAR_DISCONNECTED:
                self._refuse(f"Export {request.charging_phase.value} refused: no car is connected")
            else:
                mode_phase = _EXPORT_MODE_PHASES[request.charging_phase]
                self.change(last_request=request, mode=Mode.EXPORT, mode_phase=mode_phase)
                self._event(Event.EXPORT_REQUESTED)
                self._supervise()
        else:
            self._refuse(f"mode {request.mode.value} {request.charging_phase.value} refused")
        self._publish_mode()

    def _heartbeat(self, message: inputs.HeartbeatReceived) -> None:
        last = self.state.heartbeat_id
        if last is None:
            self.change(sync_due=True)
            self.start_timer(HEARTBEAT_TIMER, self._everest_timeout_ns)
        else:
            step = (message.heartbeat_id - last) % HEARTBEAT_WRAP
            if step >= HEARTBEAT_WRAP // 2:
                if message.redelivered:  # an old one that the broker sent again after a reconnect
                    return
                self._everest_lost(f"its heartbeat id went back from {last} to {message.heartbeat_id}")
                self.start_timer(HEARTBEAT_TIMER, self._everest_timeout_ns)
        self.change(
            heartbeat_id=message.heartbeat_id,
            heartbeat_at_ns=self.at_ns,
            heartbeat_seen=True,
            everest_lost=False,
        )
        if self.state.sync_due:
            self._synchronise()

    def _supervise(self) -> None:
        """Power is asked for: an EVerest that once sent heartbeats has to go on, also after it was lost."""
        if self.state.heartbeat_seen and HEARTBEAT_TIMER not in self.state.timers:
            self.change(heartbeat_at_ns=self.at_ns)
            self.start_timer(HEARTBEAT_TIMER, self._everest_timeout_ns)

    def _everest_lost(self, why: str) -> None:
        self.cancel_timer(HEARTBEAT_TIMER)
        self.change(heartbeat_id=None, sync_due=True)
        if self.state.everest_lost:
            return
        self.log(Level.WARNING, f"EVerest is lost ({why}): power off until it asks again", self._number)
        self.change(everest_lost=True)
        self._switch_off(Event.OFF_REQUESTED)

    def _switch_off(self, event: Event) -> None:
        """Mode-phase Off, whatever EVerest asked for; nothing of it is kept, and EVerest is told."""
        self.change(mode_phase=ModePhase.OFF, mode=Mode.OFF, setpoint=None, last_request=None)
        self._event(event)
        self._publish_mode()

    def _publish_mode(self) -> None:
        self.emit(ModePublished(connector=self._number, mode=self.state.mode))

    def _refuse(self, text: str) -> None:
        self.log(Level.WARNING, text, self._number)

    # --- car and PSU ---------------------------------------------------------------------------------------

    def _bsp_event(self, event: BspEvent) -> None:
        self.change(bsp_event=event)
        match event:
            case BspEvent.A if self.state.phase is not ConnectorPhase.CAR_DISCONNECTED:
                self._switch_off(Event.CAR_DISCONNECTED)
            case BspEvent.B:
                self._event(Event.CAR_CONNECTED)
            case BspEvent.POWER_ON:
                self.change(contactor_on=True)
            case BspEvent.POWER_OFF:
                self.change(contactor_on=False)

    def _key(self, connection: int) -> None:
        if connection <= self.state.dead_connection:
            return
        self.change(key_connection=connection, reissue=True)
        self._event(Event.KEY_RECEIVED)

    def _reply(self, message: inputs.PowerRequestReplyReceived) -> None:
        if message.requirement_type != RequirementType.MODULE_PLACEHOLDER_REQUEST:
            return
        if self._verify_secure and self._number not in message.verified:
            return
        if self.state.phase is ConnectorPhase.CONNECTED_NO_ALLOCATION:
            if message.result != 0:
                self.log(Level.WARNING, "the PSU refused the module placeholder request", self._number)
            self.change(allocation_failed=message.result != 0)
            self._event(Event.ALLOCATION_ENDED, "placeholder reply")

    def _link_lost(self, connection: int) -> None:
        self.change(dead_connection=connection)
        if self.state.phase is ConnectorPhase.CAR_DISCONNECTED:
            return
        self.change(reissue=True)
        self._switch_off(Event.LINK_LOST)

    def _forget_psu(self, connection: int) -> None:
        """What came over this connection or a former one may not be used for sending any more."""
        could_send = self._can_send()
        if self.state.mac_connection <= connection:
            self.change(psu_mac=b"", mac_connection=0)
        if self.state.key_connection <= connection:
            self.change(key_connection=0)
        if could_send and not self._can_send() and self.state.issued is not None:
            self.change(issued=None)
            self.emit(GooseSilenced(connector=self._number))

    def _can_send(self) -> bool:
        return bool(self.state.psu_mac) and (not self._send_secure or self.state.key_connection > 0)

    def _event(self, event: Event, cause: str = "") -> None:
        phase = TRANSITIONS.get((self.state.phase, event))
        if phase is None:
            return
        self.log(
            Level.INFO, f"{self.state.phase.value} -> {phase.value} ({cause or event.value})", self._number
        )
        self.cancel_timer(ALLOCATION_TIMER)
        self.change(phase=phase)
        match phase:
            case ConnectorPhase.CONNECTED_NO_ALLOCATION:
                self.start_timer(ALLOCATION_TIMER, self._allocation_timeout_ns)
            case ConnectorPhase.RUNNING:
                self.change(internal_error="")
            case _:
                self.change(allocation_failed=False)

    # --- the end of a turn ---------------------------------------------------------------------------------

    def end_turn(self) -> None:
        before, now = self.before, self.state
        if now is before:
            return
        self._log_mode_phase(before, now)
        self._push_registers(before, now)
        self._issue_goose()
        self._tell_errors()
        self._push_datapoints(before, now)

    def _log_mode_phase(self, before: ConnectorState, now: ConnectorState) -> None:
        if before.mode_phase is not now.mode_phase:
            self.log(Level.INFO, f"mode-phase {now.mode_phase.value}", self._number)

    def _push_registers(self, before: ConnectorState, now: ConnectorState) -> None:
        old = registers(before)
        changed: dict[str, tuple[int, ...]] = {
            f"{self._number}/{name}": (value,) for name, value in registers(now).items() if old[name] != value
        }
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

    def _tell_errors(self) -> None:
        now = faults(self.state)
        if now != self.state.raised:
            self._emit_all(error_changes(self._number, self.state.raised, now))
            self.change(raised=now)

    def _synchronise(self) -> None:
        """Tell EVerest everything, so that nothing that a predecessor raised stays for ever."""
        self._publish_mode()
        now = faults(self.state)
        self._emit_all(error_synchronisation(self._number, now))
        self.change(sync_due=False, raised=now)

    def _emit_all(self, made: Iterable[AnyOutput]) -> None:
        for output in made:
            self.emit(output)

    def _push_datapoints(self, before: ConnectorState, now: ConnectorState) -> None:
        changed = changed_datapoints(before, now)
        if changed:
            topic = to_psu_topic(self._global_number)
            self.tell(TELEMETRY_PUBLISHER, DatapointsChanged(topic=topic, values=changed))
