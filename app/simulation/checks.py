"""What is checked of every run besides the invariants: telemetry, failures of handlers, and the journal."""

from collections.abc import Mapping
from io import BytesIO

from ...actors.runtime import ActorState
from ...actors.system import restore
from ...messages.inputs import BrokerConnected, Input, Started
from ...messages.outputs import AnyOutput, TelemetryPublished, TelemetryValue, TurnFailed
from ...replay.divergence import report
from ...replay.reader import EndKind, LogError, LogReader
from ...replay.replayer import replay
from .handler_failures import HandlerFailure, SimulatedError, replaying
from .invariants import InvariantViolated


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
                name = "telemetry is published when it changes"
                raise InvariantViolated(name, f"{output.topic} came twice with the same values")
            self._published[output.topic] = output.values


class FailureCheck:
    """No handler fails but where the plan says so."""

    def turn(self, _message: Input, outputs: tuple[AnyOutput, ...], _states: Mapping[str, ActorState]) -> None:
        """After every turn."""
        for output in outputs:
            if isinstance(output, TurnFailed) and output.exception_type != SimulatedError.__name__:
                text = f"{output.actor}: {output.exception_type}: {output.message}"
                raise InvariantViolated("no handler fails", text)


def check_journal(
    names: list[str], segments: list[bytes], struck: Mapping[int, HandlerFailure]
) -> int:
    """Every segment of a process replays as identical, from its own snapshot; and what the one ends with is what
    the next one begins with, so that all of them together replay from the first turn as well. The turns."""
    turns = 0
    ended: Mapping[str, ActorState] | None = None
    with replaying(struck):
        for name, data in zip(names, segments, strict=True):
            try:
                with LogReader(BytesIO(data)) as log:
                    if ended is not None and restore(log.header.snapshot) != dict(ended):
                        raise _violated(f"{name} does not begin with what the segment before it ends with")
                    found = replay(log)
                    ending = log.ending
            except LogError as error:
                raise _violated(f"{name}: {error}") from None
            if found.divergence is not None:
                raise _violated(f"{name}\n{report(found.divergence)}")
            if found.altered or ending is None or ending.kind is EndKind.DAMAGED:
                raise _violated(f"{name}: {found.altered or (ending and ending.text)}")
            turns += found.turns
            ended = found.states if ending.kind is EndKind.CONTINUES else None
    return turns


def _violated(text: str) -> InvariantViolated:
    return InvariantViolated("the journal replays as identical", text)
