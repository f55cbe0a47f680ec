"""Lets a handler of the core raise, where the plan says so: in the run, and again where its log is replayed.

A failure is armed, and strikes in the first turn of the right kind that has so many handler calls. What struck
is kept by the turn's time, so that a replay of the log can let the same call of the same turn raise.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from msgspec import Struct

from ...actors.connector import Connector
from ...actors.dispenser_alarms import DispenserAlarms
from ...actors.psu_link import PsuLink
from ...actors.runtime import CoreActor, Runtime
from ...actors.telemetry_publisher import TelemetryPublisher
from ...messages.inputs import Input, ShutdownRequested, Started
from ...messages.outputs import AnyOutput

ACTORS: tuple[type[CoreActor[Any]], ...] = (Connector, DispenserAlarms, PsuLink, TelemetryPublisher)


class SimulatedError(Exception):
    """What the handler raises."""


class HandlerFailure(Struct, frozen=True):
    """Which call of a turn raises."""

    on: str
    """Name of the Input whose turn it is; "" for any."""
    call: int
    """The how many'th handler call of the turn, from 1."""
    after: bool
    """Whether the handler raises at its end, when it has changed what it wanted, or at its beginning."""


class HandlerFailures:
    """The failures of one process."""

    def __init__(self) -> None:
        self.struck: dict[int, HandlerFailure] = {}
        """By the turn's time (at_ns)."""
        self._armed: HandlerFailure | None = None

    def arm(self, failure: HandlerFailure | None) -> None:
        """Strike soon; None: do not."""
        self._armed = failure

    def turn(self, runtime: Runtime, message: Input) -> tuple[AnyOutput, ...]:
        """A turn of the core, with the armed failure in it if it fits. The first and the last turn are spared:
        a process whose first turn fails ends at once."""
        failure = self._armed
        if (
            failure is None
            or (failure.on and failure.on != type(message).__name__)
            or isinstance(message, Started | ShutdownRequested)
        ):
            return runtime.turn(message)
        with raising(failure) as has_raised:
            outputs = runtime.turn(message)
        if has_raised():
            self.struck[message.at_ns] = failure
            self._armed = None
        return outputs


@contextmanager
def replaying(struck: Mapping[int, HandlerFailure]) -> Iterator[None]:
    """Within it, every runtime's turns fail where they failed in the run."""
    if not struck:
        yield
        return
    original = Runtime.turn

    def turn(self: Runtime, message: Input) -> tuple[AnyOutput, ...]:
        failure = struck.get(message.at_ns)
        if failure is None:
            return original(self, message)
        with raising(failure):
            return original(self, message)

    Runtime.turn = turn  # type: ignore[method-assign]
    try:
        yield
    finally:
        Runtime.turn = original  # type: ignore[method-assign]


@contextmanager
def raising(failure: HandlerFailure) -> Iterator[Callable[[], bool]]:
    """Within it, that handler call raises; what it gives tells whether it has."""
    calls = 0
    raised = False

    def spoiled(original: Callable[..., None]) -> Callable[..., None]:
        def handler(*arguments: Any) -> None:
            nonlocal calls, raised
            calls += 1
            strikes = calls == failure.call
            if not strikes or failure.after:
                original(*arguments)
            if strikes:
                raised = True
                msg = f"call {failure.call}"
                raise SimulatedError(msg)

        return handler

    originals = [(actor, actor.end_turn) for actor in ACTORS]
    on_receive = CoreActor.on_receive
    CoreActor.on_receive = spoiled(on_receive)  # type: ignore[method-assign]
    for actor, end_turn in originals:
        actor.end_turn = spoiled(end_turn)  # type: ignore[method-assign]
    try:
        yield lambda: raised
    finally:
        CoreActor.on_receive = on_receive  # type: ignore[method-assign]
        for actor, end_turn in originals:
            actor.end_turn = end_turn  # type: ignore[method-assign]
