"""What is checked of every run besides the invariants: telemetry, failures of handlers, and the journal."""

from collections.abc import Mapping
from io import BytesIO

from ...actors.runtime import ActorState
from ...actors.system import restore
from ...messages.inputs import BrokerConnected, Input, Started
from ...messages.outputs import AnyOutput, TelemetryPublished, TelemetryValue, TurnFailed
from ...replay.divergence import report
from ...replay.reader import EndKind, LogError, LogReader
from ...replay.replayer import Replay, replay
from .handler_failures import HandlerFailure, SimulatedError, replaying
from .invariants import InvariantViolated

TELEMETRY = "telemetry is published when it changes"
NO_HANDLER_FAILS = "no handler fails"
JOURNAL = "the journal replays as identical"


class TelemetryCheck:
    """No telemetry object is published twice in a row unchanged, within a connection to the broker."""

    def __init__(self) -> None:
        self._published: dict[str, Mapping[str, TelemetryValue]] = {}

    def turn(self, message: Input, outputs: tuple[AnyOutput, ...], _states: Mapping[str, ActorState]) -> None:
        """After every turn."""
        if isinstance(message, BrokerConnected | Started):
            self._published.clear()
        for output in outputs:
            if not isinstance(output, TelemetryPublished):
                continue
            if self._published.get(output.topic) == output.values:
                text = f"{output.topic} came twice with the same values"
                raise InvariantViolated(TELEMETRY, text)
            self._published[output.topic] = output.values


class FailureCheck:
    """No handler fails but where the plan says so."""

    def turn(self, _message: Input, outputs: tuple[AnyOutput, ...], _states: Mapping[str, ActorState]) -> None:
        """After every turn."""
        for output in outputs:
            if isinstance(output, TurnFailed) and output.exception_type != SimulatedError.__name__:
                text = f"{output.actor}: {output.exception_type}: {output.message}"
                raise InvariantViolated(NO_HANDLER_FAILS, text)


def check_journal(names: list[str], segments: list[bytes], struck: Mapping[int, HandlerFailure]) -> int:
    """Every segment of a process replays as identical, from its own snapshot; and what the one ends with is
    what the next one begins with, so that all of them replay from the first turn as well. The turns."""
    turns = 0
    ended: Mapping[str, ActorState] | None = None
    with replaying(struck):
        for name, data in zip(names, segments, strict=True):
            try:
                found, problem, continues = _check_segment(data, ended)
            except LogError as error:
                found, problem, continues = None, str(error), False
            if found is None or problem:
                raise InvariantViolated(JOURNAL, f"{name}: {problem}")
            turns += found.turns
            ended = found.states if continues else None
    return turns


def _check_segment(data: bytes, before: Mapping[str, ActorState] | None) -> tuple[Replay, str, bool]:
    """What replay found, what is wrong with it ("": nothing), and whether the next segment goes on there."""
    with LogReader(BytesIO(data)) as log:
        begins_well = before is None or restore(log.header.snapshot) == dict(before)
        found = replay(log)
        ending = log.ending
    if not begins_well:
        problem = "it does not begin with what the segment before it ends with"
    elif found.divergence is not None:
        problem = report(found.divergence)
    elif ending is None or ending.kind is EndKind.DAMAGED:
        problem = ending.text if ending else "it has no end"
    else:
        problem = found.altered
    return found, problem, ending is not None and ending.kind is EndKind.CONTINUES
