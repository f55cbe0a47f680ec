"""What must hold after every turn of the driver, whatever happens in the world (behaviour.md is the reference).

    oracle = Invariants(config)
    oracle.turn(message, outputs, states)      # after every turn; InvariantViolated
    oracle.settled(now_ns)                     # 30 s and more after the last fault

The parts are in oracle_*.py: shadows that follow the Inputs as the specification says, and checks of the
driver's Outputs and states against them. A Started begins a new process, which knows nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from ...actors.names import PSU_LINK
from ...actors.runtime import ActorState
from ...messages import inputs, outputs
from ...messages.config import Config
from ...messages.types import Level, LinkPhase
from .oracle import EARLY_NS, SECOND_NS, InvariantViolated, fail
from .oracle_alarms import KNOWN
from .oracle_answers import check_answers
from .oracle_measured import IMD, MEASURED, METER, OVM
from .oracle_reports import ReportShadow
from .oracle_shadows import ADUS, Shadows
from .oracle_telemetry import TelemetryShadow

__all__ = ["InvariantViolated", "Invariants"]

_OVERDUE_EVERY_NS = SECOND_NS // 4
_SHOWN_EVERY_NS = 2 * SECOND_NS
_CHECK_NS = SECOND_NS
"""communication_check comes so often."""
_OF_IMAGE = (inputs.Started, inputs.PsuConnected, inputs.PsuDisconnected)
_OF_BROKER = (inputs.BrokerConnected, inputs.BrokerDisconnected)
_OTHERS = frozenset({*MEASURED, *_OF_BROKER, *_OF_IMAGE, inputs.HeartbeatReceived})
_ADUS = frozenset(ADUS)


class Invariants:
    """The oracle of one simulated run, over any number of driver processes."""

    def __init__(self, config: Config) -> None:
        self._shadows = shadows = Shadows(config)
        self._link, self._watches = shadows.link, shadows.watches
        connectors = [watch.shadow for watch in self._watches.values()]
        self._reports = ReportShadow(config, shadows.link, shadows.alarms, connectors)
        self._telemetry = TelemetryShadow(config, shadows.link, shadows.alarms, list(self._watches.values()))
        self._overdue_ns = self._shown_overdue_ns = 0
        self._link_seen: object = None
        self._link_was = (False, False)
        self._registers_seen: object = None
        # Of this turn:
        self._failure: outputs.TurnFailed | None = None
        self._sent: list[outputs.ReportSent] = []
        self._answers: list[Any] = []
        self._logs: list[outputs.LogWritten] = []
        self._voltages: list[outputs.VoltageCurrentPublished] = []
        self._link_outputs: list[Any] = []
        self._takers = self._output_takers()

    # --- one turn --------------------------------------------------------------------------------------------

    def turn(
        self,
        message: inputs.Input,
        made: Sequence[outputs.AnyOutput],
        states: Mapping[str, ActorState],
    ) -> None:
        """A turn is done: the Input, its Outputs and every actor's state after it. InvariantViolated."""
        shadows = self._shadows
        shadows.begin_turn(message.at_ns, states)
        takers = self._takers
        for output in made:
            take = takers.get(type(output))
            if take is not None:
                take(output)
        kind = type(message)
        if isinstance(message, inputs.Started):
            shadows.start(message)
            self._reports.started(message.goose_mac)
            self._telemetry.restart()
            self._overdue_ns = self._shown_overdue_ns = 0
            self._check_restored(message)
        failure = self._failure
        if failure is not None:
            shadows.failed(message, failure)
        else:
            shadows.apply(message)
        if self._link_outputs or shadows.lost_connection:
            self._follow_link(message)
        self._check_link()
        self._check_connectors()
        if self._sent or shadows.report_due:
            self._check_report()
        if self._answers or kind in _ADUS:
            self._check_answers(message)
        if kind in _OTHERS or self._voltages or self._telemetry.published or shadows.history.asked:
            self._check_others(message)
        self._failure = None
        if self._logs:
            self._forget_logs()
        if message.at_ns >= self._overdue_ns:
            self._check_overdue()

    def _check_others(self, message: inputs.Input) -> None:
        """What most turns have nothing of: what is measured, published, asked; new connections."""
        shadows = self._shadows
        if self._voltages or isinstance(message, MEASURED):
            self._check_measured(message)
        if type(message) in _OF_BROKER:
            self._telemetry.broker(message, is_failed=self._failure is not None)
        if self._telemetry.published:
            self._telemetry.check(message.at_ns, shadows.slack_ns)
        if shadows.history.asked or shadows.history.is_due:
            shadows.history.check()
        if type(message) in _OF_IMAGE and self._failure is None:
            self._check_image()

    def _forget_logs(self) -> None:
        for watch in self._watches.values():
            watch.logged.clear()
        self._logs.clear()

    def settled(self, now_ns: int) -> None:
        """Everything has to be well again. InvariantViolated."""
        self._shadows.now_ns = now_ns
        self._check_overdue()
        if not self._link.ready:
            fail("not_settled", "the link is not READY")
        for watch in self._watches.values():
            watch.check_settled()
        self._check_image()

    # --- Outputs ---------------------------------------------------------------------------------------------

    def _output_takers(self) -> dict[type, Callable[[Any], None]]:
        watches = self._watches
        link = self._link_outputs.append
        answer = self._answers.append

        def failed(output: outputs.TurnFailed) -> None:
            self._failure = output

        def checked(output: outputs.CommunicationChecked) -> None:
            watch, now_ns = watches[output.connector], self._shadows.now_ns
            if now_ns + EARLY_NS < watch.checked_ns + _CHECK_NS:
                fail("communication_check", f"{watch.name} comes again too soon")
            watch.checked_ns = now_ns

        def logged(output: outputs.LogWritten) -> None:
            self._logs.append(output)
            watch = watches.get(output.connector)
            if watch is not None:
                watch.logged.append(output.text)
                if output.level is Level.WARNING:
                    watch.measured.warned.update(
                        device for device in (IMD, OVM, METER) if device in output.text
                    )

        def asked(_: outputs.ActiveErrorsRequested) -> None:
            self._shadows.history.asked = True

        return {
            outputs.TurnFailed: failed,
            outputs.PowerRequested: lambda output: watches[output.connector].messages.append(output),
            outputs.StopRequested: lambda output: watches[output.connector].messages.append(output),
            outputs.ErrorRaised: lambda output: watches[output.connector].said.append(output),
            outputs.ErrorCleared: lambda output: watches[output.connector].said.append(output),
            outputs.ModePublished: lambda output: watches[output.connector].modes.append(output),
            outputs.CapabilitiesPublished: lambda output: watches[output.connector].told.append(output),
            outputs.CommunicationChecked: checked,
            outputs.LogWritten: logged,
            outputs.ActiveErrorsRequested: asked,
            outputs.VoltageCurrentPublished: self._voltages.append,
            outputs.TelemetryPublished: self._telemetry.published.append,
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
                self._link.requested(output.connection, self._shadows.now_ns, self._shadows.slack_ns)
            elif isinstance(output, outputs.PsuDisconnectRequested):
                if self._failure is None and not self._shadows.stopping:
                    self._link.given_up(self._shadows.now_ns)
                self._shadows.lose_link(output.connection)
            elif isinstance(output, outputs.HmacKeysForgotten):
                self._link.forgotten(output.connection, self._shadows.now_ns)
                for watch in self._watches.values():
                    watch.goose.forgotten(output.connection)
                    watch.is_dirty = True
        for output in self._link_outputs:
            if isinstance(output, outputs.GooseSilenced):
                self._watches[output.connector].goose.silenced()
            elif isinstance(output, outputs.HmacKeysRetired) and self._link.is_current(output.connection):
                fail("keys_retired_early", f"connection {output.connection} stands: {message}")
        lost = self._shadows.lost_connection
        retired = (o.connection for o in self._link_outputs if isinstance(o, outputs.HmacKeysRetired))
        if lost and lost not in retired:
            fail("keys_not_retired", f"of connection {lost}")
        self._shadows.lost_connection = 0
        self._link_outputs.clear()

    # --- checks ----------------------------------------------------------------------------------------------

    def _check_link(self) -> None:
        seen, link = self._shadows.states[PSU_LINK], self._link
        if (
            seen is self._link_seen
            and self._link_was == (link.connected, link.ready)
            and not self._shadows.report_due
        ):
            return
        self._link_seen, self._link_was = seen, (link.connected, link.ready)
        state = cast("Any", seen)
        if (state.phase is LinkPhase.READY) != self._link.ready:
            fail("link_phase", f"{state.phase}; READY has to be {self._link.ready}")
        if state.connected != self._link.connected:
            fail("link_connected", f"{state.connected}, has to be {self._link.connected}")
        registers = state.registers
        if registers is self._registers_seen and not self._shadows.report_due:
            return
        self._registers_seen = registers
        for key, words in self._shadows.alarms.registers.items():
            if self._shadows.started and registers.get(key) != words:
                fail("alarm_register", f"{key}: {registers.get(key)}, has to be {words}")

    def _check_connectors(self) -> None:
        states, now_ns = self._shadows.states, self._shadows.now_ns
        utc_ns = now_ns + self._shadows.utc_offset_ns
        for watch in self._watches.values():
            seen = states[watch.name]
            if seen is not watch.seen or watch.is_dirty:
                watch.seen = seen
                watch.check_state(cast("Any", seen), now_ns)
            if watch.is_dirty or watch.messages or watch.said or watch.modes or watch.told:
                wanted = watch.wanted_errors(
                    self._shadows.psu_errors,
                    ready=self._link.ready,
                    runs=self._link.runs,
                    journal=self._shadows.journal,
                )
                watch.check_outputs(wanted, utc_ns)
                watch.measured.follow(now_ns)
                shadow = watch.shadow
                shown = (shadow.working_status, shadow.connection_status, shadow.contactor_on)
                if shown != watch.shown and not shadow.stopped:
                    watch.shown, self._shadows.report_due = shown, True

    def _check_report(self) -> None:
        if self._shadows.stopping:
            self._sent.clear()
            self._shadows.report_due = False
            return
        if self._shadows.report_due and not self._sent and self._link.connected:
            fail("change_not_reported", "an alarm or a status changed")
        self._reports.check(self._sent, self._shadows.now_ns + self._shadows.utc_offset_ns)
        if self._sent:
            is_due = self._shadows.report_due or self._failure is not None
            self._link.reported(self._shadows.now_ns, self._shadows.slack_ns, is_due=is_due)
        self._shadows.report_due = False
        self._sent.clear()

    def _check_answers(self, message: inputs.Input) -> None:
        answers = list(self._answers)
        self._answers.clear()
        if not isinstance(message, ADUS[:3]) or not self._link.is_current(message.connection):
            if answers:
                fail("answers", f"{len(answers)} answers to {message}")
            return
        check_answers(message, answers, is_failed=self._failure is not None)
        if isinstance(answers[0], outputs.ReadAnswered) and not self._shadows.stopping:
            self._reports.check_answer(cast("inputs.RegistersRead", message), answers[0])

    def _check_measured(self, message: inputs.Input) -> None:
        is_failed = self._failure is not None
        number = message.connector if isinstance(message, MEASURED) else 0
        for watch in self._watches.values():
            said = [output for output in self._voltages if output.connector == watch.number]
            if said or number == watch.number:
                watch.measured.check(message, said, is_failed=is_failed)
                watch.measured.check_registers(cast("Any", self._shadows.states[PSU_LINK]).registers)
        self._voltages.clear()

    def _check_image(self) -> None:
        self._reports.check_image(cast("Any", self._shadows.states[PSU_LINK]).registers)

    def _check_restored(self, message: inputs.Started) -> None:
        """A log line names what was restored."""
        for error in message.restored_errors:
            if error.error_type in KNOWN and not any(error.error_type in log.text for log in self._logs):
                fail("not_logged", f"{error} is restored")

    def _check_overdue(self) -> None:
        now_ns = self._shadows.now_ns
        self._overdue_ns = now_ns + _OVERDUE_EVERY_NS
        if not self._shadows.started or self._shadows.stopping:
            return
        slack_ns = self._shadows.slack_ns
        late_ns = now_ns - slack_ns
        self._link.overdue(late_ns)
        for watch in self._watches.values():
            watch.shadow.overdue(late_ns)
            if late_ns > watch.checked_ns + _CHECK_NS:
                fail("communication_check", f"{watch.name} is silent")
        if now_ns >= self._shown_overdue_ns:
            self._check_shown()

    def _check_shown(self) -> None:
        """What others are shown: less pressing, and more of it."""
        now_ns, slack_ns = self._shadows.now_ns, self._shadows.slack_ns
        self._shown_overdue_ns = now_ns + _SHOWN_EVERY_NS
        self._shadows.history.overdue(now_ns - slack_ns)
        registers = cast("Any", self._shadows.states[PSU_LINK]).registers
        for watch in self._watches.values():
            watch.measured.overdue(now_ns, slack_ns)
            watch.measured.check_registers(registers)
        self._telemetry.overdue(now_ns, slack_ns)
