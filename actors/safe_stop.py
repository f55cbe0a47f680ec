"""The safe stop after a handler raised (behaviour.md §10). Calls no handler; works on the states alone.

The turn that failed was undone. Instead of it:
- Each connector concerned gets mode-phase Off and no setpoint, its stop request is issued, VendorError /
  internal_error is raised. It goes to Completed, so that power needs a new key and a new request; from Running
  that is what an Off does.
- What the world told in that turn and will not tell again is kept: a car that left, contactors, a key, an alarm
  that was raised or cleared, a connection that came or went (the link is given up and starts anew).
- An open Modbus request is answered with exception 0x04; a timer whose firing failed is started again.

Concerned are the connectors that a message was sent to in the failed turn (the turn may have been an Off); all
of them, if PsuLink or DispenserAlarms failed, or an alarm or the life of the link was at stake.
"""

from collections.abc import Mapping
from typing import TypeVar

from msgspec.structs import replace

from ..messages import inputs
from ..messages.config import Config
from ..messages.outputs import (
    AnyOutput,
    CancelTimer,
    CapabilitiesPublished,
    ExceptionAnswered,
    HmacKeysRetired,
    LogWritten,
    ModePublished,
    PsuDisconnectRequested,
    ReportSent,
    StartTimer,
    TurnFailed,
)
from ..messages.registers import RegisterMap
from ..messages.types import BspEvent, ChargingEvent, ConnectorPhase, Level, Mode, ModePhase
from ..telemetry.datapoints import ALARMS_TOPIC, CONTACTOR_FAULT_KEY, psu_values_unknown, to_psu_topic
from .capabilities import nothing_received
from .connector_outputs import error_changes, faults, goose_output, next_st_num
from .connector_state import STOP, ConnectorState, datapoints, has_car, registers, without_link
from .connector_supervision import ALLOCATION_TIMER, FIRST_KEY_TIMER, OUTAGE_TIMER, RESUME_TIMER
from .dispenser_alarms import DispenserAlarmsState, ErrorInput, alarms, with_error
from .names import DISPENSER_ALARMS, PSU_LINK, TELEMETRY_PUBLISHER, connector_name
from .psu_link_state import (
    FORGET_AFTER_NS,
    FORGET_TIMER,
    LIVENESS_TIMER,
    RECONNECT_TIMER,
    REPORT_TIMER,
    PsuLinkState,
    reported,
    reported_registers,
    without_psu,
)
from .runtime import SECOND_NS, ActorState, Failure
from .telemetry_publisher import WINDOW_NS, WINDOW_TIMER, TelemetryPublisherState

INTERNAL_FAILURE = 0x04
RETRY_NS = SECOND_NS

S = TypeVar("S", bound=ActorState)


def safe_stop(
    config: Config, states: Mapping[str, ActorState], message: inputs.Input, failure: Failure
) -> tuple[dict[str, ActorState], tuple[AnyOutput, ...]]:
    """States before the failed turn, its Input, what failed → states and Outputs of the safe stop."""
    text = f"{failure.actor} failed: {failure.exception_type}: {failure.message}"
    work = _SafeStop(config, states, message)
    work.outputs += [
        TurnFailed(actor=failure.actor, exception_type=failure.exception_type, message=failure.message),
        LogWritten(level=Level.ERROR, connector=0, text=text),
    ]
    all_concerned = {PSU_LINK, DISPENSER_ALARMS} & {failure.actor} or DISPENSER_ALARMS in failure.concerned
    work.answer()
    work.keep_alarms()
    work.give_up_link()
    for number in range(1, len(config.connectors) + 1):
        if all_concerned or connector_name(number) in failure.concerned or work.link_given_up:
            work.stop_connector(number, failure)
    work.report()
    work.restart_timer()
    return work.states, tuple(work.outputs)


class _SafeStop:
    """The states and Outputs of one safe stop, as they come about."""

    def __init__(self, config: Config, states: Mapping[str, ActorState], message: inputs.Input) -> None:
        self.states = dict(states)
        self.outputs: list[AnyOutput] = []
        self.link_given_up = False
        self._config = config
        self._message = message
        self._map = RegisterMap(len(config.connectors))
        self._connector_nos = [connector.global_connector_number for connector in config.connectors]

    def _state(self, name: str, kind: type[S]) -> S:
        state = self.states[name]
        if not isinstance(state, kind):
            msg = f"{name} has a {type(state).__name__}"
            raise TypeError(msg)
        return state

    # --- what the world will not tell again ----------------------------------------------------------------

    def keep_alarms(self) -> None:
        message = self._message
        if not isinstance(message, ErrorInput):
            return
        state = with_error(self._state(DISPENSER_ALARMS, DispenserAlarmsState), message)
        self.states[DISPENSER_ALARMS] = state
        found = alarms(state, len(self._connector_nos))
        self._set_registers({key: (int(value),) for key, value in found.items()})
        for key, value in found.items():
            number, _, name = key.rpartition("/")
            if number:
                topic = to_psu_topic(self._connector_nos[int(number) - 1])
                self._set_datapoints(topic, {CONTACTOR_FAULT_KEY: value})
            else:
                self._set_datapoints(ALARMS_TOPIC, {name: value})

    def give_up_link(self) -> None:
        """A connection came or went, and the link could not follow: start anew with another one."""
        link = self._state(PSU_LINK, PsuLinkState)
        message = self._message
        life = inputs.PsuConnected | inputs.PsuConnectFailed | inputs.PsuDisconnected
        if not isinstance(message, life) or message.connection != link.connection:
            return
        self.link_given_up = True
        self.outputs.append(PsuDisconnectRequested(connection=link.connection, reason="its handler failed"))
        self.outputs.append(HmacKeysRetired(connection=link.connection))
        losses = (*link.losses, (link.connection, message.at_ns + FORGET_AFTER_NS))
        self.states[PSU_LINK] = replace(without_psu(link, self._map), losses=losses)
        self._cancel_timer(PSU_LINK, REPORT_TIMER)
        self._cancel_timer(PSU_LINK, LIVENESS_TIMER)
        self._start_timer(PSU_LINK, RECONNECT_TIMER, RETRY_NS)
        if len(losses) == 1:
            self._start_timer(PSU_LINK, FORGET_TIMER, FORGET_AFTER_NS)
        for topic, values in psu_values_unknown(self._connector_nos).items():
            self._set_datapoints(topic, values)

    # --- connectors ----------------------------------------------------------------------------------------

    def stop_connector(self, number: int, failure: Failure) -> None:
        name = connector_name(number)
        before = self._state(name, ConnectorState)
        phase = ConnectorPhase.COMPLETED
        if not has_car(before) or self._car_left(number, before):
            phase = ConnectorPhase.CAR_DISCONNECTED
        now = replace(
            before,
            phase=phase,
            mode_phase=ModePhase.OFF,
            mode=Mode.OFF,
            setpoint=None,
            last_request=None,
            allocation_failed=False,
            resuming=False,
            resume_overdue=False,
            off_while_resuming=False,
            measured=replace(before.measured, supplying_since_ns=None),
            internal_error=failure.exception_type,
            bsp_event=self._bsp_event(number) or before.bsp_event,
            contactor_on=self._contactor_on(number, before),
        )
        message = self._message
        if isinstance(message, inputs.HmacKeyReceived) and message.connector == number:
            is_dead = message.connection <= before.dead_connection
            now = now if is_dead else replace(now, key_connection=message.connection)
        if self.link_given_up:
            link = self._state(PSU_LINK, PsuLinkState)
            nothing = nothing_received(self._config.connectors[number - 1])
            now = replace(now, dead_connection=link.connection, **without_link(nothing))
        if now.psu_mac and (now.key_connection or not self._config.send_secure_goose):
            now = replace(now, st_num=next_st_num(now), issued=STOP)
            stop = goose_output(now, STOP, number, self._connector_nos[number - 1], message.at_ns)
            self.outputs.append(stop)
        self.outputs.append(ModePublished(connector=number, mode=Mode.OFF))
        if now.capabilities != now.capabilities_told:
            self.outputs.append(CapabilitiesPublished(connector=number, capabilities=now.capabilities))
            now = replace(now, capabilities_told=now.capabilities)
        self.outputs += error_changes(number, now.raised, faults(now))
        self.states[name] = replace(now, raised=faults(now))
        for timer in (ALLOCATION_TIMER, FIRST_KEY_TIMER, OUTAGE_TIMER, RESUME_TIMER):
            self._cancel_timer(name, timer)
        self._set_registers({f"{number}/{register}": words for register, words in registers(now).items()})
        if before.phase is not now.phase:
            self._set_charging_event(number)
        self._set_datapoints(to_psu_topic(self._connector_nos[number - 1]), datapoints(now))

    def _bsp_event(self, number: int) -> BspEvent | None:
        match self._message:
            case inputs.BspEventReceived(connector=connector, event=event) if connector == number:
                return event
        return None

    def _car_left(self, number: int, before: ConnectorState) -> bool:
        message = self._message
        if isinstance(message, inputs.SessionEventReceived):
            by_everest = message.connector == number and message.event == "SessionFinished"
            return by_everest and before.bsp_event is None
        return self._bsp_event(number) is BspEvent.A

    def _contactor_on(self, number: int, before: ConnectorState) -> bool:
        known = {BspEvent.POWER_ON: True, BspEvent.POWER_OFF: False}
        event = self._bsp_event(number)
        return known.get(event, before.contactor_on) if event else before.contactor_on

    # --- the power unit ------------------------------------------------------------------------------------

    def answer(self) -> None:
        message = self._message
        match message:
            case inputs.RegistersRead():
                function = 0x03
            case inputs.RegistersWritten() | inputs.ModbusRequestRefused():
                function = message.function
            case _:
                return
        link = self._state(PSU_LINK, PsuLinkState)
        if message.connection != link.connection or not link.connected:
            return  # its connection is gone: nobody waits for an answer
        self.outputs.append(
            ExceptionAnswered(
                connection=message.connection,
                transaction_id=message.transaction_id,
                unit_id=message.unit_id,
                function=function,
                exception_code=INTERNAL_FAILURE,
            )
        )

    def _set_registers(self, words: Mapping[str, tuple[int, ...]]) -> None:
        link = self._state(PSU_LINK, PsuLinkState)
        if any(link.registers[key] != value for key, value in words.items()):
            now = replace(link, registers={**link.registers, **words}, report_due=link.connected)
            self.states[PSU_LINK] = now

    def _set_charging_event(self, number: int) -> None:
        link = self._state(PSU_LINK, PsuLinkState)
        event = {f"{number}/charging_event": (int(ChargingEvent.START_TO_STOP),)}
        self.states[PSU_LINK] = replace(
            link,
            registers={**link.registers, **event},
            pending_events={**link.pending_events, **event} if link.connected else {},
        )

    def report(self) -> None:
        """What changed is reported in this turn (protocol.md §2.1)."""
        link = self._state(PSU_LINK, PsuLinkState)
        if not link.report_due:
            return
        self.outputs.append(
            ReportSent(
                connection=link.connection,
                transaction_id=link.next_transaction_id,
                segments=reported(link, reported_registers(self._map), self._message.at_ns),
            )
        )
        following = (link.next_transaction_id + 1) % 0x10000
        self.states[PSU_LINK] = replace(
            link, report_due=False, pending_events={}, next_transaction_id=following
        )
        self._start_timer(PSU_LINK, REPORT_TIMER, SECOND_NS)

    # --- telemetry and timers ------------------------------------------------------------------------------

    def _set_datapoints(self, topic: str, values: Mapping[str, object]) -> None:
        publisher = self._state(TELEMETRY_PUBLISHER, TelemetryPublisherState)
        if not self._config.telemetry_topic_prefix:
            return
        known: dict[str, object] = {**publisher.values[topic], **values}
        if known == publisher.values[topic]:
            return
        self.states[TELEMETRY_PUBLISHER] = replace(publisher, values={**publisher.values, topic: known})
        if publisher.broker_connected and WINDOW_TIMER not in publisher.timers:
            self._start_timer(TELEMETRY_PUBLISHER, WINDOW_TIMER, WINDOW_NS)

    def restart_timer(self) -> None:
        """The failed turn undid the firing: the timer counts as running still, so it has to fire once more."""
        message = self._message
        if not isinstance(message, inputs.TimerFired):
            return
        state = self.states.get(message.owner)
        if state is not None and state.timers.get(message.name) == message.number:
            self._start_timer(message.owner, message.name, RETRY_NS)

    def _start_timer(self, owner: str, name: str, delay_ns: int) -> None:
        state = self.states[owner]
        number = state.timers_started + 1
        self.states[owner] = replace(state, timers={**state.timers, name: number}, timers_started=number)
        self.outputs.append(StartTimer(owner=owner, name=name, number=number, delay_ns=delay_ns))

    def _cancel_timer(self, owner: str, name: str) -> None:
        state = self.states[owner]
        if name not in state.timers:
            return
        left = {key: number for key, number in state.timers.items() if key != name}
        self.states[owner] = replace(state, timers=left)
        self.outputs.append(CancelTimer(owner=owner, name=name, number=state.timers[name]))
