"""What must hold after every turn of the driver, whatever happens in the world (behaviour.md is the reference).

    oracle = Invariants(config)
    oracle.turn(message, outputs, states)      # after every turn; InvariantViolated
    oracle.settled(now_ns)                     # 30 s and more after the last fault

The parts are in oracle_*.py: shadows that follow the Inputs as the specification says, and checks of the
driver's Outputs and states against them. A Started begins a new process, which knows nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from ...actors.names import DISPENSER_ALARMS, PSU_LINK, connector_name
from ...actors.runtime import ActorState
from ...messages import inputs, outputs
from ...messages.config import Config
from ...messages.types import BspEvent, LinkPhase, RequirementType
from .oracle import SECOND_NS, SLACK_NS, InvariantViolated, fail
from .oracle_alarms import KNOWN, AlarmShadow
from .oracle_connector import CAR_DISCONNECTED, WITHOUT_CAR
from .oracle_failure import concerns, is_car_leaving, take_over, take_over_details
from .oracle_link import LinkShadow
from .oracle_reports import ReportShadow
from .oracle_watch import ConnectorWatch

__all__ = ["InvariantViolated", "Invariants"]

_OVERDUE_EVERY_NS = SECOND_NS // 4
_CHECK_NS = SECOND_NS
"""communication_check comes so often."""
_ADUS = (
    inputs.RegistersRead,
    inputs.RegistersWritten,
    inputs.ModbusRequestRefused,
    inputs.UnexpectedPduReceived,
)


class Invariants:
    """The oracle of one simulated run, over any number of driver processes."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._link = LinkShadow(config)
        self._alarms = AlarmShadow(len(config.connectors))
        alarm_keys = [register.key for register in self._link.alarm_registers]
        count = len(config.connectors)
        self._watches = {number: ConnectorWatch(number, config, alarm_keys) for number in range(1, count + 1)}
        self._by_global_no = {watch.shadow.global_no: watch for watch in self._watches.values()}
        shadows = [watch.shadow for watch in self._watches.values()]
        self._reports = ReportShadow(config, self._link, self._alarms, shadows)
        self._psu_errors: dict[tuple[str, str], str] = {}
        self._journal = ""
        self._utc_offset_ns = 0
        self._now_ns = 0
        self._overdue_ns = 0
        self._started = False
        self._stopping = False
        self._report_due = False
        self._states: Mapping[str, ActorState] = {}
        self._link_seen: object = None
        self._link_was = (False, False)
        # Of this turn:
        self._failure: outputs.TurnFailed | None = None
        self._sent: list[outputs.ReportSent] = []
        self._answers: list[Any] = []
        self._link_outputs: list[Any] = []
        self._takers = self._output_takers()
        self._handlers = self._input_handlers()

    # --- one turn --------------------------------------------------------------------------------------------

    def turn(
        self,
        message: inputs.Input,
        made: Sequence[outputs.AnyOutput],
        states: Mapping[str, ActorState],
    ) -> None:
        """A turn is done: the Input, its Outputs and every actor's state after it. InvariantViolated."""
        self._now_ns, self._states = message.at_ns, states
        takers = self._takers
        for output in made:
            take = takers.get(type(output))
            if take is not None:
                take(output)
        if isinstance(message, inputs.Started):
            self._on_started(message)
        if self._failure is not None:
            self._failed(message, self._failure)
        else:
            handler = self._handlers.get(type(message))
            if handler is not None:
                handler(message)
        if self._link_outputs:
            self._follow_link(message)
        self._check_link()
        self._check_connectors()
        if self._sent or self._report_due:
            self._check_report()
        if self._answers or isinstance(message, _ADUS):
            self._check_answers(message)
        self._failure = None
        if self._now_ns >= self._overdue_ns:
            self._check_overdue()

    def settled(self, now_ns: int) -> None:
        """Everything has to be well again. InvariantViolated."""
        self._now_ns = now_ns
        self._check_overdue()
        if not self._link.ready:
            fail("not_settled", "the link is not READY")
        for watch in self._watches.values():
            watch.check_settled()

    # --- Outputs ---------------------------------------------------------------------------------------------

    def _output_takers(self) -> dict[type, Callable[[Any], None]]:
        watches = self._watches
        link = self._link_outputs.append
        answer = self._answers.append

        def failed(output: outputs.TurnFailed) -> None:
            self._failure = output

        def checked(output: outputs.CommunicationChecked) -> None:
            watches[output.connector].checked_ns = self._now_ns

        return {
            outputs.TurnFailed: failed,
            outputs.PowerRequested: lambda output: watches[output.connector].messages.append(output),
            outputs.StopRequested: lambda output: watches[output.connector].messages.append(output),
            outputs.ErrorRaised: lambda output: watches[output.connector].said.append(output),
            outputs.ErrorCleared: lambda output: watches[output.connector].said.append(output),
            outputs.ModePublished: lambda output: watches[output.connector].modes.append(output),
            outputs.CapabilitiesPublished: lambda output: watches[output.connector].told.append(output),
            outputs.CommunicationChecked: checked,
            outputs.ReportSent: self._sent.append,
            outputs.ReadAnswered: answer,
            outputs.WriteAnswered: answer,
            outputs.ExceptionAnswered: answer,
            outputs.PsuConnectRequested: link,
            outputs.PsuDisconnectRequested: link,
            outputs.HmacKeysRetired: link,
            outputs.HmacKeysForgotten: link,
            outputs.GooseSilenced: link,
        }

    def _follow_link(self, message: inputs.Input) -> None:
        """What the driver decides about the link."""
        for output in self._link_outputs:
            if isinstance(output, outputs.PsuConnectRequested):
                self._link.requested(output.connection)
            elif isinstance(output, outputs.PsuDisconnectRequested):
                if self._failure is None and not self._stopping:
                    self._link.given_up(self._now_ns)
                self._lose_link(output.connection)
            elif isinstance(output, outputs.HmacKeysForgotten):
                self._link.forgotten(output.connection, self._now_ns)
                for watch in self._watches.values():
                    watch.goose.forgotten(output.connection)
                    watch.is_dirty = True
        for output in self._link_outputs:
            if isinstance(output, outputs.GooseSilenced):
                self._watches[output.connector].goose.silenced()
            elif isinstance(output, outputs.HmacKeysRetired) and self._link.is_current(output.connection):
                fail("keys_retired_early", f"connection {output.connection} stands: {message}")
        self._link_outputs.clear()

    # --- Inputs ----------------------------------------------------------------------------------------------

    def _input_handlers(self) -> dict[type, Callable[[Any], None]]:
        return {
            inputs.ShutdownRequested: self._on_shutdown,
            inputs.UtcOffsetChanged: self._on_utc_offset,
            inputs.JournalLost: lambda message: self._on_journal(message.reason),
            inputs.JournalRestored: lambda _: self._on_journal(""),
            inputs.PsuConnected: self._on_connected,
            inputs.PsuConnectFailed: lambda message: self._lose_link(message.connection),
            inputs.PsuDisconnected: lambda message: self._lose_link(message.connection),
            inputs.RegistersRead: self._heard,
            inputs.ModbusRequestRefused: self._heard,
            inputs.UnexpectedPduReceived: self._heard,
            inputs.RegistersWritten: self._on_written,
            inputs.HmacKeyReceived: self._on_key,
            inputs.PowerRequestReplyReceived: self._on_reply,
            inputs.BrokerConnected: lambda _: self._on_broker(is_there=True),
            inputs.BrokerDisconnected: lambda _: self._on_broker(is_there=False),
            inputs.ModeRequested: self._on_mode,
            inputs.SetpointRequested: self._on_setpoint,
            inputs.HeartbeatReceived: self._on_heartbeat,
            inputs.BspEventReceived: self._on_bsp_event,
            inputs.SessionEventReceived: self._on_session_event,
            inputs.BspErrorRaised: self._on_bsp_error,
            inputs.BspErrorCleared: self._on_bsp_error,
            inputs.ActiveErrorsReceived: self._on_active_errors,
        }

    def _on_started(self, message: inputs.Started) -> None:
        self._started, self._stopping, self._journal = True, False, ""
        self._utc_offset_ns, self._overdue_ns = message.utc_offset_ns, 0
        self._psu_errors = {}
        self._link.restart()
        self._alarms.replace(message.restored_errors)
        self._reports.started(message.goose_mac)
        for watch in self._watches.values():
            watch.restart()
            watch.checked_ns = self._now_ns

    def _on_shutdown(self, _: inputs.ShutdownRequested) -> None:
        self._stopping = True
        for watch in self._watches.values():
            watch.shadow.stopped = watch.is_dirty = True
            watch.goose.stop_again(is_needed=watch.shadow.phase not in WITHOUT_CAR)

    def _on_utc_offset(self, message: inputs.UtcOffsetChanged) -> None:
        self._utc_offset_ns = message.utc_offset_ns

    def _on_journal(self, reason: str) -> None:
        self._journal = reason
        for watch in self._watches.values():
            watch.is_dirty = True
            watch.shadow.may_synchronise = True

    def _on_connected(self, message: inputs.PsuConnected) -> None:
        if not self._link.stands(message.connection, self._now_ns):
            return
        for watch in self._watches.values():
            watch.shadow.charging_event = None
            watch.shadow.charging_event_free = False

    def _lose_link(self, connection: int) -> None:
        """The link failed: closed, refused or given up."""
        was_ready, was_connected = self._link.ready, self._link.connected
        if not self._link.lost(connection, self._now_ns):
            return
        self._psu_errors = {}
        for watch in self._watches.values():
            needs_stop = was_ready and watch.shadow.phase not in WITHOUT_CAR
            watch.shadow.link_lost(self._now_ns)
            watch.goose.stop_again(is_needed=needs_stop)
            watch.rated((0.0, 0.0, 0.0, 0.0, 0.0))
        if was_connected and not any(isinstance(o, outputs.HmacKeysRetired) for o in self._link_outputs):
            fail("keys_not_retired", f"of connection {connection}")

    def _heard(self, message: inputs.RegistersRead) -> None:
        if self._link.is_current(message.connection):
            self._link.heard(self._now_ns)

    def _on_written(self, message: inputs.RegistersWritten) -> None:
        link = self._link
        if not link.is_current(message.connection):
            return
        link.heard(self._now_ns)
        changed = link.written(message)
        for key in changed:
            number = link.is_rating(key)
            if number:
                self._watches[number].rated(link.ratings(number))
            elif key == "psu_mac":
                self._on_mac()
            elif key == "psu_running_mode":
                self._on_running_mode()
            elif "/" in key and not key[0].isdigit():
                self._psu_errors = link.alarms()
                for watch in self._watches.values():
                    watch.is_dirty = True

    def _on_mac(self) -> None:
        link = self._link
        if not link.mac:
            return
        is_new, link.ready = not link.ready, True
        for watch in self._watches.values():
            watch.goose.mac_written(link.mac, link.connection)
            watch.is_dirty = True
            if is_new:
                watch.shadow.psu_ready(self._now_ns)

    def _on_running_mode(self) -> None:
        link = self._link
        is_first = link.runs and not link.runs_said
        link.runs_said = link.runs_said or link.runs
        for watch in self._watches.values():
            watch.is_dirty = True
            if is_first:
                watch.shadow.psu_runs(self._now_ns)

    def _on_key(self, message: inputs.HmacKeyReceived) -> None:
        watch = self._watches.get(message.connector)
        if watch is not None and self._link.is_current(message.connection):
            watch.goose.key_written(message.connection)
            watch.shadow.key_written(self._now_ns, cast("Any", self._states[watch.name]))
            watch.is_dirty = True

    def _on_reply(self, message: inputs.PowerRequestReplyReceived) -> None:
        watch = self._by_global_no.get(message.connector_no)
        if watch is None or message.requirement_type != RequirementType.MODULE_PLACEHOLDER_REQUEST:
            return
        if self._config.verify_secure_goose and watch.number not in message.verified:
            return
        watch.shadow.allocation_answered(self._now_ns, failed=message.result != 0)
        watch.is_dirty = True

    def _on_broker(self, *, is_there: bool) -> None:
        for watch in self._watches.values():
            watch.shadow.broker_changed(is_there=is_there, now_ns=self._now_ns)

    def _on_mode(self, message: inputs.ModeRequested) -> None:
        watch = self._watches.get(message.connector)
        if watch is not None:
            watch.shadow.mode_requested(message.mode, message.charging_phase, self._now_ns)
            watch.is_dirty = watch.mode_due = True

    def _on_setpoint(self, message: inputs.SetpointRequested) -> None:
        watch = self._watches.get(message.connector)
        if watch is not None:
            seen = cast("Any", self._states[watch.name])
            watch.shadow.setpoint_requested(message.voltage_v, message.current_a, self._now_ns, seen)
            watch.is_dirty = True

    def _on_heartbeat(self, message: inputs.HeartbeatReceived) -> None:
        watch = self._watches.get(message.connector)
        if watch is None:
            return
        shadow = watch.shadow
        watch.may_synchronise = shadow.may_synchronise or shadow.everest_lost or message.redelivered
        due = shadow.heartbeat(message.heartbeat_id, self._now_ns, redelivered=message.redelivered)
        watch.must_synchronise = due and not message.redelivered
        watch.is_dirty = watch.is_dirty or due or watch.may_synchronise

    def _on_bsp_event(self, message: inputs.BspEventReceived) -> None:
        watch = self._watches.get(message.connector)
        if watch is None:
            return
        shadow, event = watch.shadow, message.event
        shadow.board_speaks = watch.is_dirty = True
        if event is BspEvent.A:
            shadow.car_left(self._now_ns)
        elif event is BspEvent.B:
            shadow.car_connected(self._now_ns)
        elif event in (BspEvent.POWER_ON, BspEvent.POWER_OFF):
            shadow.contactor_on = event is BspEvent.POWER_ON
        elif event is BspEvent.DISCONNECTED:
            # Not in behaviour.md. When in doubt, no power.
            seen = cast("Any", self._states[watch.name])
            if seen.phase is CAR_DISCONNECTED:
                shadow.car_left(self._now_ns)

    def _on_session_event(self, message: inputs.SessionEventReceived) -> None:
        watch = self._watches.get(message.connector)
        if watch is None or watch.shadow.board_speaks:
            return
        watch.is_dirty = True
        event, by_car = message.event, message.reason == "EVConnected"
        if event == "TransactionStarted" or (event == "SessionStarted" and by_car):
            watch.shadow.car_connected(self._now_ns)
        elif event == "SessionFinished":
            watch.shadow.car_left(self._now_ns)

    def _on_bsp_error(self, message: inputs.BspErrorRaised | inputs.BspErrorCleared) -> None:
        is_raised = isinstance(message, inputs.BspErrorRaised)
        if self._alarms.change(message.connector, message.error_type, message.sub_type, is_raised=is_raised):
            self._report_due = True

    def _on_active_errors(self, message: inputs.ActiveErrorsReceived) -> None:
        if self._alarms.replace(message.errors):
            self._report_due = True

    # --- a turn that failed ----------------------------------------------------------------------------------

    def _failed(self, message: inputs.Input, failure: outputs.TurnFailed) -> None:
        link_state = cast("Any", self._states[PSU_LINK])
        if isinstance(message, _ADUS) and self._link.is_current(message.connection):
            self._link.heard_ns = self._now_ns
        if isinstance(message, inputs.PsuConnected | inputs.PsuConnectFailed | inputs.PsuDisconnected):
            self._lose_link(message.connection)
        elif self._link.connected and not link_state.connected:
            self._lose_link(self._link.connection)
        self._take_over_alarms(message)
        for watch in self._watches.values():
            seen = cast("Any", self._states[watch.name])
            take_over_details(watch, seen, message, self._link.connection if self._link.connected else -1)
            if concerns(watch, failure) or is_car_leaving(message, watch):
                take_over(watch, seen, message, failure, self._now_ns)
            if isinstance(message, inputs.JournalLost | inputs.JournalRestored):
                self._journal = seen.journal_lost
            if isinstance(message, inputs.UtcOffsetChanged):
                self._utc_offset_ns = seen.utc_offset_ns

    def _take_over_alarms(self, message: inputs.Input) -> None:
        """Boards' errors of a failed turn are kept, or not; the states say it."""
        state = cast("Any", self._states[DISPENSER_ALARMS])
        kept = {(e.connector, e.error_type, e.sub_type) for e in state.errors if e.error_type in KNOWN}
        if kept == self._alarms.errors:
            return
        before = self._alarms.registers
        if isinstance(message, inputs.BspErrorRaised | inputs.BspErrorCleared):
            self._on_bsp_error(message)
        elif isinstance(message, inputs.ActiveErrorsReceived):
            self._on_active_errors(message)
        self._report_due = before != self._alarms.registers

    # --- checks ----------------------------------------------------------------------------------------------

    def _check_link(self) -> None:
        seen, link = self._states[PSU_LINK], self._link
        if seen is self._link_seen and self._link_was == (link.connected, link.ready) and not self._report_due:
            return
        self._link_seen, self._link_was = seen, (link.connected, link.ready)
        state = cast("Any", seen)
        if (state.phase is LinkPhase.READY) != self._link.ready:
            fail("link_phase", f"{state.phase}; READY has to be {self._link.ready}")
        if state.connected != self._link.connected:
            fail("link_connected", f"{state.connected}, has to be {self._link.connected}")
        for key, words in self._alarms.registers.items():
            if self._started and state.registers.get(key) != words:
                fail("alarm_register", f"{key}: {state.registers.get(key)}, has to be {words}")

    def _check_connectors(self) -> None:
        states, now_ns = self._states, self._now_ns
        utc_ns = now_ns + self._utc_offset_ns
        for watch in self._watches.values():
            seen = states[watch.name]
            if seen is not watch.seen or watch.is_dirty:
                watch.seen = seen
                watch.check_state(cast("Any", seen), now_ns)
            if watch.is_dirty or watch.messages or watch.said or watch.modes or watch.told:
                wanted = watch.wanted_errors(
                    self._psu_errors, ready=self._link.ready, runs=self._link.runs, journal=self._journal
                )
                watch.check_outputs(wanted, utc_ns)
                shadow = watch.shadow
                shown = (shadow.working_status, shadow.connection_status, shadow.contactor_on)
                if shown != watch.shown and not shadow.stopped:
                    watch.shown, self._report_due = shown, True

    def _check_report(self) -> None:
        if self._stopping:
            self._sent.clear()
            self._report_due = False
            return
        if self._report_due and not self._sent and self._link.connected:
            fail("change_not_reported", "an alarm or a status changed")
        self._reports.check(self._sent, self._now_ns + self._utc_offset_ns)
        if self._sent:
            self._link.reported_ns = self._now_ns
        self._report_due = False
        self._sent.clear()

    def _check_answers(self, message: inputs.Input) -> None:
        answers = list(self._answers)
        self._answers.clear()
        due = isinstance(message, _ADUS[:3]) and self._link.is_current(message.connection)
        if len(answers) != int(due):
            fail("answers", f"{len(answers)} answers to {message}")
        if not due:
            return
        (answer,) = answers
        request = cast("inputs.RegistersRead", message)
        if (answer.connection, answer.transaction_id, answer.unit_id) != (
            request.connection,
            request.transaction_id,
            request.unit_id,
        ):
            fail("answers", f"{answer} to {message}")
        if self._failure is not None:
            if not isinstance(answer, outputs.ExceptionAnswered) or answer.exception_code != 4:
                fail("answers", f"{answer} in a turn that failed")
        elif isinstance(answer, outputs.ReadAnswered) and not self._stopping:
            self._reports.check_answer(request, answer)

    def _check_overdue(self) -> None:
        now_ns = self._now_ns
        self._overdue_ns = now_ns + _OVERDUE_EVERY_NS
        if not self._started or self._stopping:
            return
        self._link.overdue(now_ns)
        for watch in self._watches.values():
            watch.shadow.overdue(now_ns)
            if now_ns > watch.checked_ns + _CHECK_NS + SLACK_NS:
                fail("communication_check", f"{connector_name(watch.number)} is silent")
