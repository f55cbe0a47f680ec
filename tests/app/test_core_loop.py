"""The core loop with the real core and a real journal; only the world around it is missing."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

import pytest
from core_harness import OWN_MAC, make_config
from fusioncharger.actors.connector import Connector
from fusioncharger.actors.system import build
from fusioncharger.app.core_loop import QUEUE_LIMIT, CoreLoop
from fusioncharger.io.clock import Clock
from fusioncharger.messages import inputs, outputs
from fusioncharger.messages.outputs import AnyOutput
from fusioncharger.messages.types import BspEvent
from fusioncharger.replay.journal import Journal
from fusioncharger.replay.reader import read_log

OFFSET_JUMP_NS = 10**9


class World:
    """What a core loop did."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.outputs: SimpleQueue[AnyOutput] = SimpleQueue()
        self.failures: SimpleQueue[str] = SimpleQueue()
        self.clock = Clock()
        self.journal = Journal(directory, "0" * 32, make_config())
        self.loop = CoreLoop(
            build(make_config()),
            self.journal,
            self.clock,
            perform=self.outputs.put,
            turned=lambda: None,
            fatal=self.failures.put,
        )

    def await_output(self, kind: type) -> AnyOutput:
        while True:
            output = self.outputs.get(timeout=5)
            if isinstance(output, kind):
                return output

    def recorded(self) -> list[inputs.Input]:
        (log,) = self.directory.glob("*.mcap")
        with read_log(log) as reader:
            return [turn.input for turn in reader.turns()]


@contextmanager
def running(directory: Path) -> Iterator[World]:
    world = World(directory)
    world.loop.start(OWN_MAC)
    try:
        yield world
    finally:
        world.loop.stop("test", 5)
        world.journal.close(10)


def block(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, Callable[[], None]]:
    """The next BSP event holds the core up: (is held up, let it go)."""
    held, release = threading.Event(), threading.Event()
    original = Connector.handle

    def handle(self: Connector, message: object) -> None:
        if isinstance(message, inputs.BspEventReceived) and not release.is_set():
            held.set()
            release.wait(10)
        original(self, message)

    monkeypatch.setattr(Connector, "handle", handle)
    return held, release.set


def test_turns_and_timers(tmp_path: Path) -> None:
    with running(tmp_path) as world:
        assert world.await_output(outputs.PsuConnectRequested)
        world.loop.put(inputs.BspEventReceived(connector=1, event=BspEvent.B))
        assert world.await_output(outputs.LogWritten)
        assert world.await_output(outputs.CommunicationChecked)  # of the 1 s timer
        assert world.loop.stop("test", 5)
    kinds = [type(message).__name__ for message in world.recorded()]
    assert kinds == ["Started", "BspEventReceived", "TimerFired", "ShutdownRequested"]
    at_ns = [message.at_ns for message in world.recorded()]
    assert at_ns == sorted(at_ns)


def test_a_full_queue_is_a_failure_and_stopping_overtakes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, release = block(monkeypatch)
    with running(tmp_path) as world:
        world.loop.put(inputs.BspEventReceived(connector=1, event=BspEvent.B))
        assert held.wait(5)
        for _ in range(QUEUE_LIMIT + 1):
            world.loop.put(inputs.HeartbeatReceived(connector=1, heartbeat_id=1))
        assert "inputs are waiting" in world.failures.get(timeout=5)
        assert not world.loop.stop("held up", 0.01)
        release()
        assert world.loop.stop("test", 5)
    assert [type(message).__name__ for message in world.recorded()][-1] == "ShutdownRequested"
    assert len(world.recorded()) < 10


def test_a_step_of_utc_is_an_input(tmp_path: Path) -> None:
    with running(tmp_path) as world:
        world.await_output(outputs.PsuConnectRequested)
        before_ns = world.clock.utc_offset_ns()
        world.clock.utc_offset_ns = lambda: before_ns + OFFSET_JUMP_NS  # type: ignore[method-assign]
        world.loop.put(inputs.BspEventReceived(connector=1, event=BspEvent.B))
        world.await_output(outputs.LogWritten)
    changed = [message for message in world.recorded() if isinstance(message, inputs.UtcOffsetChanged)]
    assert [message.utc_offset_ns for message in changed] == [before_ns + OFFSET_JUMP_NS]


def test_a_first_turn_that_fails_ends_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("injected")

    monkeypatch.setattr(Connector, "handle", fail)
    with running(tmp_path) as world:
        assert "the turn of Started failed" in world.failures.get(timeout=5)
        assert not world.loop.stop("test", 5)


def test_a_lost_journal_is_an_input_and_so_is_its_return(tmp_path: Path) -> None:
    with running(tmp_path) as world:
        world.await_output(outputs.PsuConnectRequested)
        world.journal.failure = "test"
        raised = world.await_output(outputs.ErrorRaised)
        assert isinstance(raised, outputs.ErrorRaised)
        assert raised.sub_type == "journal_unavailable"
        assert world.journal.prepare_replacement(world.clock.now_ns() + world.clock.utc_offset_ns() + 10**10)
        world.loop.begin_segment()
        assert world.await_output(outputs.ErrorCleared)
    last = max(tmp_path.glob("*.mcap"))
    with read_log(last) as reader:
        turns = list(reader.turns())
        assert type(turns[0].input).__name__ == "JournalRestored"
        assert reader.gap is not None
        assert reader.gap.reason == "test"
