"""The shadows of a whole driver, and what each Input does to them (behaviour.md, section by section).

Inputs that change nothing that is compared (measurements, timers) have no method here.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

from ...actors.names import PSU_LINK
from ...actors.runtime import ActorState
from ...messages import inputs, outputs
from ...messages.config import Config
from ...messages.types import BspEvent, RequirementType
from .oracle import LATE_NS, SLACK_NS
from .oracle_alarms import AlarmShadow
from .oracle_failure import concerns, is_car_leaving, take_over, take_over_details
from .oracle_history import HistoryShadow
from .oracle_link import LinkShadow
from .oracle_measured import MEASURED
from .oracle_table import CAR_DISCONNECTED, WITHOUT_CAR
from .oracle_watch import ConnectorWatch

ADUS = (
    inputs.RegistersRead,
    inputs.RegistersWritten,
    inputs.ModbusRequestRefused,
    inputs.UnexpectedPduReceived,
)


class Shadows:
    """What a driver that does as specified would know."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.link = LinkShadow(config)
        self.alarms = AlarmShadow(len(config.connectors))
        alarm_keys = [register.key for register in self.link.alarm_registers]
        count = len(config.connectors)
        self.watches = {number: ConnectorWatch(number, config, alarm_keys) for number in range(1, count + 1)}
        self.by_global_no = {watch.shadow.global_no: watch for watch in self.watches.values()}
        self.psu_errors: dict[tuple[str, str], str] = {}
        self.journal = ""
        """Why it cannot be written; empty: it can."""
        self.utc_offset_ns = 0
        self.started = False
        self.stopping = False
        self.slack_ns = LATE_NS
        """How late something may be that hangs on a timer."""
        self._slack_until_ns = 0
        self.now_ns = 0
        self.states: Mapping[str, ActorState] = {}
        """Every actor's, after this turn."""
        self.report_due = False
        """In this turn a register changed that is reported at once."""
        self.lost_connection = 0
        """The connection that was lost in this turn; 0: none."""
        self.history = HistoryShadow(config)
        self._handlers = self._input_handlers()

    def begin_turn(self, now_ns: int, states: Mapping[str, ActorState]) -> None:
        """A turn is over, with these states."""
        self.now_ns, self.states = now_ns, states
        if self.slack_ns != LATE_NS and now_ns > self._slack_until_ns:
            self.slack_ns = LATE_NS

    def apply(self, message: inputs.Input) -> None:
        """An Input whose turn was done."""
        handler = self._handlers.get(type(message))
        if handler is not None:
            handler(message)

    def _input_handlers(self) -> dict[type, Callable[[Any], None]]:
        return {
            inputs.ShutdownRequested: self._on_shutdown,
            inputs.UtcOffsetChanged: self._on_utc_offset,
            inputs.JournalLost: lambda message: self._on_journal(message.reason),
            inputs.JournalRestored: lambda _: self._on_journal(""),
            inputs.PsuConnected: self._on_connected,
            inputs.PsuConnectFailed: lambda message: self.lose_link(message.connection),
            inputs.PsuDisconnected: lambda message: self.lose_link(message.connection),
            inputs.RegistersRead: self._heard,
            inputs.ModbusRequestRefused: self._heard,
            inputs.UnexpectedPduReceived: self._heard,
            inputs.RegistersWritten: self._on_written,
            inputs.HmacKeyReceived: self._on_key,
            inputs.PowerRequestReplyReceived: self._on_reply,
            **dict.fromkeys(MEASURED, self._on_measured),
            inputs.ImportSetpointRequested: self._on_import_setpoint,
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

    def start(self, message: inputs.Started) -> None:
        self.started, self.stopping, self.journal = True, False, ""
        self.utc_offset_ns = message.utc_offset_ns
        self.psu_errors = {}
        self.link.restart()
        self.link.retry_ns = self.now_ns
        self.history.restart()
        self.slack_ns = LATE_NS
        self.alarms.replace(message.restored_errors)
        for watch in self.watches.values():
            watch.restart()
            watch.checked_ns = self.now_ns

    def _on_shutdown(self, _: inputs.ShutdownRequested) -> None:
        self.stopping = True
        for watch in self.watches.values():
            watch.shadow.stopped = watch.is_dirty = True
            watch.goose.stop_again(is_needed=watch.shadow.phase not in WITHOUT_CAR)
            watch.mode_due = True

    def _on_utc_offset(self, message: inputs.UtcOffsetChanged) -> None:
        self.utc_offset_ns = message.utc_offset_ns

    def _on_journal(self, reason: str) -> None:
        self.journal = reason
        for watch in self.watches.values():
            watch.is_dirty = True
            watch.shadow.may_synchronise = True

    def _on_connected(self, message: inputs.PsuConnected) -> None:
        if not self.link.stands(message.connection, self.now_ns):
            return
        for watch in self.watches.values():
            watch.shadow.charging_event = None
            watch.shadow.charging_event_free = False

    def lose_link(self, connection: int, *, in_failure: bool = False) -> None:
        """The link failed: closed, refused or given up."""
        was_ready, was_connected = self.link.ready, self.link.connected
        if not self.link.lost(connection, self.now_ns, in_failure=in_failure):
            return
        self.psu_errors = {}
        for watch in self.watches.values():
            needs_stop = was_ready and watch.shadow.phase not in WITHOUT_CAR
            watch.shadow.link_lost(self.now_ns)
            watch.goose.stop_again(is_needed=needs_stop)
            watch.rated((0.0, 0.0, 0.0, 0.0, 0.0))
        if was_connected:
            self.lost_connection = connection

    def _heard(self, message: inputs.RegistersRead) -> None:
        if self.link.is_current(message.connection):
            self.link.heard(self.now_ns)

    def _on_written(self, message: inputs.RegistersWritten) -> None:
        link = self.link
        if not link.is_current(message.connection):
            return
        link.heard(self.now_ns)
        changed = link.written(message)
        for key in changed:
            number = link.is_rating(key)
            if number:
                self.watches[number].rated(link.ratings(number))
            elif key == "psu_mac":
                self._on_mac()
            elif key == "psu_running_mode":
                self._on_running_mode()
            elif "/" in key and not key[0].isdigit():
                self.psu_errors = link.alarms()
                for watch in self.watches.values():
                    watch.is_dirty = True

    def _on_mac(self) -> None:
        link = self.link
        if not link.mac:
            for watch in self.watches.values():
                watch.goose.mac_blanked()
            return
        is_new = link.becomes_ready(self.now_ns)
        for watch in self.watches.values():
            watch.goose.mac_written(link.mac, link.connection)
            watch.is_dirty = True
            if is_new:
                watch.shadow.psu_ready(self.now_ns)

    def _on_running_mode(self) -> None:
        link = self.link
        is_first = link.runs and not link.runs_said
        link.runs_said = link.runs_said or link.runs
        for watch in self.watches.values():
            watch.is_dirty = True
            if is_first:
                watch.shadow.psu_runs(self.now_ns)

    def _on_key(self, message: inputs.HmacKeyReceived) -> None:
        watch = self.watches.get(message.connector)
        if watch is not None and self.link.is_current(message.connection):
            watch.goose.key_written(message.connection)
            watch.shadow.key_written(self.now_ns, cast("Any", self.states[watch.name]))
            watch.is_dirty = True

    def _on_reply(self, message: inputs.PowerRequestReplyReceived) -> None:
        watch = self.by_global_no.get(message.connector_no)
        if watch is None or message.requirement_type != RequirementType.MODULE_PLACEHOLDER_REQUEST:
            return
        if self.config.verify_secure_goose and watch.number not in message.verified:
            return
        if message.connection and not self.link.is_current(message.connection):
            return  # for receiving, keys are gone with their connection (behaviour.md §2)
        watch.shadow.allocation_answered(self.now_ns, failed=message.result != 0)
        watch.is_dirty = True

    def _on_broker(self, *, is_there: bool) -> None:
        self.history.broker_changed(is_there=is_there)
        for watch in self.watches.values():
            watch.shadow.broker_changed(is_there=is_there, now_ns=self.now_ns)
            watch.is_broker_new = is_there

    def _on_mode(self, message: inputs.ModeRequested) -> None:
        watch = self.watches.get(message.connector)
        if watch is not None:
            watch.shadow.mode_requested(message.mode, message.charging_phase, self.now_ns)
            watch.is_dirty = watch.mode_due = True

    def _on_setpoint(self, message: inputs.SetpointRequested) -> None:
        watch = self.watches.get(message.connector)
        if watch is not None:
            seen, before = cast("Any", self.states[watch.name]), watch.shadow.setpoint
            watch.shadow.setpoint_requested(message.voltage_v, message.current_a, self.now_ns, seen)
            watch.is_dirty = watch.is_dirty or watch.shadow.setpoint != before or bool(watch.shadow.log_due)

    def _on_import_setpoint(self, message: inputs.ImportSetpointRequested) -> None:
        watch = self.watches.get(message.connector)
        if watch is not None:
            watch.shadow.log_due, watch.is_dirty = "an import setpoint is refused", True

    def _on_measured(self, message: Any) -> None:
        watch = self.watches.get(message.connector)
        if watch is not None:
            watch.measured.measured(message)

    def _on_heartbeat(self, message: inputs.HeartbeatReceived) -> None:
        watch = self.watches.get(message.connector)
        if watch is None:
            return
        shadow = watch.shadow
        is_open = message.redelivered and shadow.sync_due
        watch.may_synchronise = shadow.may_synchronise or shadow.everest_lost or is_open
        due = shadow.heartbeat(message.heartbeat_id, self.now_ns, redelivered=message.redelivered)
        watch.must_synchronise = due
        if shadow.has_restarted:
            self.history.everest_restarted(self.now_ns)
        watch.is_dirty = watch.is_dirty or due or watch.may_synchronise

    def _on_bsp_event(self, message: inputs.BspEventReceived) -> None:
        watch = self.watches.get(message.connector)
        if watch is None:
            return
        shadow, event = watch.shadow, message.event
        shadow.board_speaks = watch.is_dirty = True
        shadow.bsp_event, shadow.is_bsp_event_open = event.value, False
        if event is BspEvent.A:
            shadow.car_left(self.now_ns)
        elif event is BspEvent.B:
            shadow.car_connected(self.now_ns)
        elif event in (BspEvent.POWER_ON, BspEvent.POWER_OFF):
            shadow.contactor_on = event is BspEvent.POWER_ON
        elif event is BspEvent.DISCONNECTED:
            # Not in behaviour.md. When in doubt, no power.
            seen = cast("Any", self.states[watch.name])
            if seen.phase is CAR_DISCONNECTED:
                shadow.car_left(self.now_ns)

    def _on_session_event(self, message: inputs.SessionEventReceived) -> None:
        watch = self.watches.get(message.connector)
        if watch is None or watch.shadow.board_speaks:
            return
        watch.is_dirty = True
        event, by_car = message.event, message.reason == "EVConnected"
        if event == "TransactionStarted" or (event == "SessionStarted" and by_car):
            watch.shadow.car_connected(self.now_ns)
        elif event == "SessionFinished":
            watch.shadow.car_left(self.now_ns)

    def _on_bsp_error(self, message: inputs.BspErrorRaised | inputs.BspErrorCleared) -> None:
        is_raised = isinstance(message, inputs.BspErrorRaised)
        if self.alarms.change(message.connector, message.error_type, message.sub_type, is_raised=is_raised):
            self.report_due = True

    def _on_active_errors(self, message: inputs.ActiveErrorsReceived) -> None:
        self.history.answered()
        if self.alarms.replace(message.errors):
            self.report_due = True

    # --- a turn that failed ----------------------------------------------------------------------------------

    def failed(self, message: inputs.Input, failure: outputs.TurnFailed) -> None:
        self.slack_ns, self._slack_until_ns = SLACK_NS, self.now_ns + SLACK_NS
        self.history.failed()
        link_state = cast("Any", self.states[PSU_LINK])
        if isinstance(message, ADUS) and self.link.is_current(message.connection):
            self.link.heard_ns = self.now_ns
        if isinstance(message, inputs.PsuConnected | inputs.PsuConnectFailed | inputs.PsuDisconnected):
            self.lose_link(message.connection, in_failure=True)
        elif self.link.connected and not link_state.connected:
            self.lose_link(self.link.connection, in_failure=True)
        self._take_over_alarms(message)
        for watch in self.watches.values():
            seen = cast("Any", self.states[watch.name])
            take_over_details(watch, seen, message, self.link.connection if self.link.connected else -1)
            if concerns(watch, failure) or is_car_leaving(message, watch):
                take_over(watch, seen, message, failure, self.now_ns)
            if isinstance(message, inputs.JournalLost | inputs.JournalRestored):
                self.journal = seen.journal_lost
            if isinstance(message, inputs.UtcOffsetChanged):
                self.utc_offset_ns = seen.utc_offset_ns

    def _take_over_alarms(self, message: inputs.Input) -> None:
        """Boards do not repeat their errors (behaviour.md §6): lost with the turn would be lost for good."""
        if isinstance(message, inputs.BspErrorRaised | inputs.BspErrorCleared):
            self._on_bsp_error(message)
        elif isinstance(message, inputs.ActiveErrorsReceived):
            self._on_active_errors(message)
