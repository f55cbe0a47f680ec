"""Runs a plan with all checks, and says what came of it."""

import gc
import hashlib
import traceback
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from ...actors.runtime import ActorState
from ...messages.inputs import Input, Started
from ...messages.outputs import AnyOutput
from .checks import FailureCheck, TelemetryCheck, check_journal
from .invariants import Invariants, InvariantViolated
from .plan import Plan
from .recording import InMemory
from .world import World

MAX_TURNS_PER_S = 400.0
"""More, on average over a run, is a world (or a core) that runs away."""
RUNS_AWAY = "the run comes to an end"
CORE_RAISES = "the core never raises"


class Failure(Struct, frozen=True):
    """What did not hold."""

    invariant: str
    text: str
    process: int
    """The how many'th driver process of the run, from 1."""
    turn: int
    """Of that process."""
    at_s: float
    """Since the beginning of the run."""


class Result(Struct, frozen=True):
    """What came of a run."""

    seconds: float
    """That were simulated."""
    connectors: int
    turns: int
    processes: int
    segments: int
    charges_begun: int
    charges_done: int
    settled: int
    """How often all was well 30 s after the last fault."""
    happened: dict[str, int]
    """Events, by kind."""
    handlers_raised: int
    log_sha256: str
    """Of all segments."""
    failure: Failure | None = None


class _Oracle:
    """The invariants, as a watcher of all processes."""

    def __init__(self, plan: Plan) -> None:
        self._invariants = Invariants(plan.config)
        self._at_start: InvariantViolated | None = None
        """What was violated in a process's first turn: said in the next, or at the end: there is a log then."""
        self._turns_left = int(plan.seconds * MAX_TURNS_PER_S) + 10_000

    def turn(self, message: Input, outputs: tuple[AnyOutput, ...], states: Mapping[str, ActorState]) -> None:
        """After every turn."""
        self._turns_left -= 1
        if self._turns_left < 0:
            raise InvariantViolated(RUNS_AWAY, f"more than {MAX_TURNS_PER_S:g} turns a second")
        self.end()
        try:
            self._invariants.turn(message, outputs, states)
        except InvariantViolated as violated:
            if not isinstance(message, Started):
                raise
            self._at_start = violated

    def settled(self, now_ns: int) -> None:
        """30 s after the last fault."""
        self._invariants.settled(now_ns)

    def end(self) -> None:
        """InvariantViolated if something is still to be said."""
        if self._at_start is not None:
            raise self._at_start


def run(plan: Plan, log_directory: Path | None = None) -> Result:
    """Run it; with a directory, write its log there, whatever came of it."""
    gc.disable()  # one run's garbage is small, and no cycle of it is worth looking for in between
    oracle = _Oracle(plan)
    world = World(plan, watchers=(oracle, TelemetryCheck(), FailureCheck()), settled=oracle.settled)
    failure = None
    try:
        world.run_until(plan.seconds)
        world.end()
        oracle.end()
        failure = _check_journals(world)
    except InvariantViolated as violated:
        failure = _failure(world, violated.name, violated.text)
    except Exception as error:  # noqa: BLE001 - whatever comes out of the core is what was looked for
        trace = "".join(traceback.format_exception(error))
        failure = _failure(world, CORE_RAISES, trace)
    finally:
        gc.enable()
        gc.collect()
    if failure is not None and world.process is not None:
        world.process.kill()
    if log_directory is not None:
        _write_log(world, log_directory)
    return _result(plan, world, failure)


def _check_journals(world: World) -> Failure | None:
    for number, (process, target) in enumerate(world.processes, 1):
        assert isinstance(target, InMemory)  # noqa: S101 - narrows the type
        try:
            check_journal(target.names, target.segments, process.failures.struck)
        except InvariantViolated as violated:
            return Failure(violated.name, violated.text, number, 0, world.calendar.now_ns / 1e9)
    return None


def _failure(world: World, name: str, text: str) -> Failure:
    process, _ = world.processes[-1]
    return Failure(name, text, len(world.processes), process.turns, world.calendar.now_ns / 1e9)


def _write_log(world: World, directory: Path) -> None:
    """Each process's segments in a directory of its own, as the log of one run of the driver is."""
    for number, (_, target) in enumerate(world.processes, 1):
        if isinstance(target, InMemory):
            target.write_to(directory / f"process-{number}")


def _result(plan: Plan, world: World, failure: Failure | None) -> Result:
    digest = hashlib.sha256()
    segments = 0
    for _, target in world.processes:
        if isinstance(target, InMemory):
            for data in target.segments:
                digest.update(data)
                segments += 1
    return Result(
        seconds=world.calendar.now_ns / 1e9,
        connectors=len(plan.config.connectors),
        turns=world.turns,
        processes=len(world.processes),
        segments=segments,
        charges_begun=world.everest.charges_begun,
        charges_done=world.everest.charges_done,
        settled=world.settled_times,
        happened=dict(world.happened),
        handlers_raised=sum(len(process.failures.struck) for process, _ in world.processes),
        log_sha256=digest.hexdigest(),
        failure=failure,
    )
