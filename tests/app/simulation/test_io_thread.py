"""A thread of io/ that is held: what overtakes what, and what does not."""

from functools import partial

from core_harness import make_config
from fusioncharger.app.simulation.io_thread import Hold, IoThread
from fusioncharger.app.simulation.process import Process
from fusioncharger.app.simulation.recording import InMemory, Recording
from fusioncharger.app.simulation.virtual_time import SECOND_NS, Calendar
from fusioncharger.messages import inputs
from fusioncharger.messages.inputs import Input


class Fixture:
    """A process, the turns that it does, and two of its threads."""

    def __init__(self) -> None:
        self.calendar = Calendar()
        self.done: list[str] = []
        config = make_config(1)
        recording = Recording(InMemory(), "0" * 32, config)
        self.process = Process(
            config,
            self.calendar,
            recording,
            lambda: self.calendar.now_ns,
            perform=lambda _: None,
            watchers=(self,),
        )
        self.thread, self.other = IoThread(self.calendar), IoThread(self.calendar)

    def turn(self, message: Input, *_: object) -> None:
        """As a watcher."""
        at_s = self.calendar.now_ns / SECOND_NS
        self.done.append(f"{at_s:g} {getattr(message, 'reason', '') or type(message).__name__}")

    def lost(self, reason: str) -> Input:
        return inputs.PsuDisconnected(connection=9, reason=reason)

    def serve(self, *reasons: str) -> None:
        """One Input after the other, as long as the thread runs."""
        for number, reason in enumerate(reasons, 1):
            self.thread.put(self.process, self.lost(reason))
            if self.thread.is_held:
                self.thread.go_on(partial(self.serve, *reasons[number:]))
                return


def test_a_thread_that_nobody_holds_has_its_turns_at_once() -> None:
    world = Fixture()
    world.thread.arrive(partial(world.serve, "a", "b"))
    assert world.done == ["0 a", "0 b"]


def test_others_overtake_a_thread_that_is_held_and_it_keeps_its_own_order() -> None:
    world = Fixture()
    world.thread.arm(Hold("PsuDisconnected", 2.0))
    world.thread.arrive(partial(world.serve, "a", "b"))
    world.thread.arrive(partial(world.serve, "arrived"))
    world.thread.order(partial(world.serve, "ordered"))
    world.other.put(world.process, world.lost("other"))
    world.calendar.run_until(SECOND_NS)
    assert world.done == ["0 other"]
    world.calendar.run_until(3 * SECOND_NS)
    assert world.done == ["0 other", "2 a", "2 b", "2 ordered", "2 arrived"]


def test_only_the_kind_that_is_meant_is_held_and_only_once() -> None:
    world = Fixture()
    world.thread.arm(Hold("PsuDisconnected", 2.0))
    world.thread.put(world.process, inputs.PsuConnected(connection=9))
    world.thread.put(world.process, world.lost("a"))
    world.calendar.run_until(3 * SECOND_NS)
    world.thread.put(world.process, world.lost("b"))
    assert world.done == ["0 PsuConnected", "2 a", "3 b"]


def test_it_can_be_held_again_by_what_has_waited() -> None:
    world = Fixture()
    world.thread.arm(Hold("PsuDisconnected", 1.0))
    for reason in ("a", "b", "c"):
        world.thread.arrive(partial(world.serve, reason))
    world.calendar.run_until(SECOND_NS // 2)
    world.thread.arm(Hold("PsuDisconnected", 1.0))
    world.calendar.run_until(SECOND_NS)
    assert world.done == ["1 a"]
    world.thread.order(partial(world.serve, "ordered"))
    world.calendar.run_until(5 * SECOND_NS)
    assert world.done == ["1 a", "2 b", "2 ordered", "2 c"]


def test_what_happens_meanwhile_can_be_called_off_and_the_hold_ends_all_the_same() -> None:
    for is_called_off in (False, True):
        world = Fixture()
        world.thread.arm(Hold("PsuDisconnected", 2.0, partial(world.done.append, "cut"), 1.0))
        world.serve("a")
        if is_called_off:
            world.thread.call_off()
        world.calendar.run_until(3 * SECOND_NS)
        assert world.done == (["2 a"] if is_called_off else ["cut", "2 a"])


def test_another_process_begins_with_a_thread_that_runs() -> None:
    world = Fixture()
    world.thread.arm(Hold("PsuDisconnected", 2.0))
    world.serve("a", "b")
    world.thread.reset()
    world.serve("c")
    world.calendar.run_until(3 * SECOND_NS)
    assert world.done == ["0 c"]
