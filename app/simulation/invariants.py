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
from ...messages.types import LinkPhase
from .oracle import SECOND_NS, SLACK_NS, InvariantViolated, fail
from .oracle_reports import ReportShadow
from .oracle_shadows import ADUS, Shadows

__all__ = ["InvariantViolated", "Invariants"]

_OVERDUE_EVERY_NS = SECOND_NS // 4
_CHECK_NS = SECOND_NS
"""communication_check comes so often."""


class Invariants:
    """The oracle of one simulated run, over any number of driver processes."""

    def __init__(self, config: Config) -> None:
        self._shadows = shadows = Shadows(config)
        self._link, self._watches = shadows.link, shadows.watches
        connectors = [watch.shadow for watch in self._watches.values()]
        self._reports = ReportShadow(config, shadows.link, shadows.alarms, connectors)
        self._overdue_ns = 0
        self._link_seen: object = None
        self._link_was = (False, False)
        self._registers_seen: object = None
        # Of this turn:
        self._failure: outputs.TurnFailed | None = None
        self._sent: list[outputs.ReportSent] = []
        self._answers: list[Any] = []
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
        shadows.now_ns, shadows.states = message.at_ns, states
        takers = self._takers
        for output in made:
            take = takers.get(type(output))
            if take is not None:
                take(output)
        if isinstance(message, inputs.Started):
            shadows.start(message)
            self._reports.started(message.goose_mac)
            self._overdue_ns = 0
        if self._failure is not None:
            shadows.failed(message, self._failure)
        else:
            shadows.apply(message)
        if self._link_outputs or shadows.lost_connection:
            self._follow_link(message)
        self._check_link()
        self._check_connectors()
        if self._sent or shadows.report_due:
            self._check_report()
        if self._answers or isinstance(message, ADUS):
            self._check_answers(message)
        self._failure = None
        if message.at_ns >= self._overdue_ns:
            self._check_overdue()

    def settled(self, now_ns: int) -> None:
        """Everything has to be well again. InvariantViolated."""
        self._shadows.now_ns = now_ns
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
            watches[output.connector].checked_ns = self._shadows.now_ns

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
            self._link.reported_ns = self._shadows.now_ns
        self._shadows.report_due = False
        self._sent.clear()

    def _check_answers(self, message: inputs.Input) -> None:
        answers = list(self._answers)
        self._answers.clear()
        due = isinstance(message, ADUS[:3]) and self._link.is_current(message.connection)
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
        elif isinstance(answer, outputs.ReadAnswered) and not self._shadows.stopping:
            self._reports.check_answer(request, answer)

    def _check_overdue(self) -> None:
        now_ns = self._shadows.now_ns
        self._overdue_ns = now_ns + _OVERDUE_EVERY_NS
        if not self._shadows.started or self._shadows.stopping:
            return
        self._link.overdue(now_ns)
        for watch in self._watches.values():
            watch.shadow.overdue(now_ns)
            if now_ns > watch.checked_ns + _CHECK_NS + SLACK_NS:
                fail("communication_check", f"{watch.name} is silent")
