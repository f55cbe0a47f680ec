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
from fusioncharger.messages.types import BspEvent, ChargingPhase, Mode
from fusioncharger.replay.journal import Journal
from fusioncharger.replay.reader import read_log
from msgspec.structs import replace

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

    def await_error(self, kind: type, sub_type: str) -> None:
        """Until an error of this sub_type is raised or cleared."""
        while getattr(self.await_output(kind), "sub_type", "") != sub_type:
            pass

    def await_log(self, text: str) -> None:
        """Until a line of the process log holds the text."""
        while text not in getattr(self.await_output(outputs.LogWritten), "text", ""):
            pass

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


def measurements(connector: int, value: float) -> list[inputs.Input]:
    return [
        inputs.IsolationMeasured(connector=connector, voltage_v=value),
        inputs.OverVoltageMeasured(connector=connector, voltage_v=value),
        inputs.PowermeterMeasured(connector=connector, voltage_v=value, current_a=-value),
    ]


def test_of_waiting_measurements_the_newest_per_source_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, release = block(monkeypatch)
    mode = inputs.ModeRequested(connector=1, mode=Mode.OFF, charging_phase=ChargingPhase.OTHER)
    with running(tmp_path) as world:
        world.loop.put(inputs.BspEventReceived(connector=1, event=BspEvent.B))
        assert held.wait(5)
        world.loop.put(inputs.OverVoltageMeasured(connector=1, voltage_v=-1.0))
        world.loop.put(mode)
        for number in range(QUEUE_LIMIT):
            for connector in (1, 2):
                for message in measurements(connector, float(number)):
                    world.loop.put(message)
        release()
        world.loop.put(inputs.BspEventReceived(connector=1, event=BspEvent.A))
        world.await_log("-> CarDisconnected")
        for message in measurements(1, 1.5):  # nothing waits any more: each is an Input of its own
            world.loop.put(message)
        world.loop.put(inputs.BspEventReceived(connector=1, event=BspEvent.B))
        world.await_log("CarDisconnected ->")
        assert world.failures.empty()
    got = [
        replace(message, at_ns=0)
        for message in world.recorded()
        if type(message) in {type(mode), *(type(message) for message in measurements(1, 0.0))}
    ]
    last = float(QUEUE_LIMIT - 1)
    first_isolation, over_voltage, meter = measurements(1, last)
    # The place in the queue is that of the first one that waited.
    assert got[:4] == [over_voltage, mode, first_isolation, meter]
    assert got[4:7] == measurements(2, last)
    assert got[7:] == measurements(1, 1.5)


def test_no_measurement_is_lost_between_waiting_and_being_taken(tmp_path: Path) -> None:
    count = 20_000
    with running(tmp_path) as world:
        for number in range(count):
            world.loop.put(inputs.OverVoltageMeasured(connector=1, voltage_v=float(number)))
        world.loop.put(inputs.BspEventReceived(connector=1, event=BspEvent.B))
        world.await_log("CarDisconnected ->")
        assert world.failures.empty()
    values = [
        message.voltage_v for message in world.recorded() if isinstance(message, inputs.OverVoltageMeasured)
    ]
    assert values == sorted(set(values))
    assert values[-1] == count - 1


def test_what_everest_commands_is_never_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, release = block(monkeypatch)
    commands: list[inputs.Input] = []
    for number in range(1000):
        commands.append(inputs.SetpointRequested(connector=1, voltage_v=400.0, current_a=float(number)))
        mode = Mode.EXPORT if number % 2 else Mode.OFF
        commands.append(inputs.ModeRequested(connector=1, mode=mode, charging_phase=ChargingPhase.CABLE_CHECK))
    with running(tmp_path) as world:
        world.loop.put(inputs.BspEventReceived(connector=1, event=BspEvent.B))
        assert held.wait(5)
        for command in commands:
            world.loop.put(command)
        release()
        world.loop.put(inputs.BspEventReceived(connector=1, event=BspEvent.A))
        world.await_log("-> CarDisconnected")
    got = [
        replace(message, at_ns=0)
        for message in world.recorded()
        if isinstance(message, inputs.SetpointRequested | inputs.ModeRequested)
    ]
    assert got == commands


def test_what_was_restored_stands_in_the_first_turn(tmp_path: Path) -> None:
    world = World(tmp_path)
    errors = (inputs.BspError(1, "EnclosureOpen", "door"),)
    world.loop.start(OWN_MAC, errors, "former.mcap")
    assert world.loop.stop("test", 5)
    world.journal.close(10)
    started = world.recorded()[0]
    assert isinstance(started, inputs.Started)
    assert (started.restored_errors, started.restored_from) == (errors, "former.mcap")


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
        world.await_error(outputs.ErrorRaised, "journal_unavailable")
        assert world.journal.prepare_replacement(world.clock.now_ns() + world.clock.utc_offset_ns() + 10**10)
        world.loop.begin_segment()
        world.await_error(outputs.ErrorCleared, "journal_unavailable")
    last = max(tmp_path.glob("*.mcap"))
    with read_log(last) as reader:
        turns = list(reader.turns())
        assert type(turns[0].input).__name__ == "JournalRestored"
        assert reader.gap is not None
        assert reader.gap.reason == "test"
