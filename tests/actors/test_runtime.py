"""The runtime's contract: what Pykka promises must hold on it, and turns are undone as a whole."""

import gc
import threading
import weakref
from typing import Any

import pykka
import pytest
from core_harness import make_config
from fusioncharger.actors.runtime import ActorSpec, ActorState, CoreActor, Failure, Runtime
from fusioncharger.actors.system import build
from fusioncharger.messages.inputs import Input, ShutdownRequested, TimerFired
from fusioncharger.messages.internal import Internal
from fusioncharger.messages.outputs import AnyOutput, CancelTimer, LogWritten, StartTimer
from fusioncharger.messages.types import Level


class Note(Internal, frozen=True):
    text: str


class Counting(ActorState, frozen=True):
    seen: tuple[str, ...] = ()


class Recorder(CoreActor[Counting]):
    """Notes what it gets; some texts make it do something."""

    def handle(self, message: Any) -> None:
        text = message.text if isinstance(message, Note) else message.reason
        self.change(seen=(*self.state.seen, text))
        match text.split():
            case ["raise"]:
                raise ValueError("deliberate at 0x7f0011223344")
            case ["fan", *names]:
                for name in names:
                    self.tell(name, Note(text=f"from {self.actor_urn}"))
            case ["relay", name]:
                self.tell(name, Note(text=f"relay of {self.actor_urn}"))
            case ["log"]:
                self.log(Level.INFO, "noted")
            case ["timer"]:
                self.start_timer("t", 5)
            case ["cancel"]:
                self.cancel_timer("t")

    def timer_fired(self, name: str) -> None:
        if name != "t":
            super().timer_fired(name)
        self.change(seen=(*self.state.seen, "fired"))

    def end_turn(self) -> None:
        self.log(Level.INFO, f"end of {self.actor_urn}: {len(self.before.seen)} -> {len(self.state.seen)}")


def stop_nothing(
    states: Any, message: Input, failure: Failure
) -> tuple[dict[str, ActorState], tuple[AnyOutput, ...]]:
    text = f"{failure.actor} {failure.exception_type} {failure.message} {','.join(failure.concerned)}"
    return dict(states), (LogWritten(level=Level.ERROR, connector=0, text=text),)


def make_runtime(first: str = "a") -> Runtime:
    specs = [ActorSpec(name, Recorder.start, Counting()) for name in ("a", "b", "c")]

    def route(message: Input) -> tuple[str, ...]:
        return (message.owner,) if isinstance(message, TimerFired) else (first,)

    return Runtime(specs, route, stop_nothing)


def say(runtime: Runtime, text: str) -> tuple[AnyOutput, ...]:
    return runtime.turn(ShutdownRequested(reason=text, at_ns=7))


def seen(runtime: Runtime, name: str) -> tuple[str, ...]:
    state = runtime.states()[name]
    assert isinstance(state, Counting)
    return state.seen


# --- what Pykka's own ThreadingActor does as well -------------------------------------------------------------


class Log:
    """What an actor under contract did, on either runtime."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.ended = threading.Event()


def contract_actor(base: type[pykka.Actor], log: Log, *args: Any) -> pykka.ActorRef[Any]:
    """The same behaviour on a given base class."""

    class Actor(base):  # type: ignore[misc,valid-type]
        def on_start(self) -> None:
            log.events.append("start")

        def on_receive(self, message: Any) -> Any:
            log.events.append(f"got {message}")
            if message == "raise":
                raise ValueError(message)
            return f"answer to {message}"

        def on_stop(self) -> None:
            log.events.append("stop")
            log.ended.set()

        def on_failure(self, *_: Any) -> None:
            log.events.append("failure")
            log.ended.set()

    return Actor.start(*args)


@pytest.fixture(params=["ours", "pykka"])
def contract(request: pytest.FixtureRequest) -> Any:
    """(start an actor, let it work off its mailbox)"""
    actors: list[Any] = []

    def start(log: Log) -> pykka.ActorRef[Any]:
        if request.param == "pykka":
            return contract_actor(pykka.ThreadingActor, log)
        runtime = Runtime([], lambda _: (), stop_nothing)
        ref = contract_actor(CoreActor, log, runtime, "x", ActorState())
        actors.append(runtime._actors["x"])
        return ref

    def work_off(log: Log) -> None:
        if request.param == "pykka":
            assert log.ended.wait(5)
            return
        (actor,) = actors
        while not actor.actor_inbox.empty() and not actor.actor_stopped.is_set():
            actor.step()

    return start, work_off


@pytest.mark.parametrize(
    ("messages", "events"),
    [
        (["1", "2", "3"], ["start", "got 1", "got 2", "got 3", "stop"]),
        (["1", "raise", "2"], ["start", "got 1", "got raise", "failure"]),
    ],
)
def test_tell_order_failure_and_stop_are_as_in_pykka(
    contract: Any, messages: list[str], events: list[str]
) -> None:
    start, work_off = contract
    log = Log()
    ref = start(log)
    # Before the stop message, so that with threads all are in the mailbox in this order whatever happens.
    gate = [*messages, pykka.messages._ActorStop()]
    for message in gate:
        try:
            ref.tell(message)
        except pykka.ActorDeadError:
            break
    work_off(log)
    assert log.events == events
    assert not ref.is_alive()
    with pytest.raises(pykka.ActorDeadError):
        ref.tell("too late")


def test_ask_is_answered_by_running_the_actor() -> None:
    runtime = Runtime([], lambda _: (), stop_nothing)
    ref = contract_actor(CoreActor, Log(), runtime, "x", ActorState())
    future = ref.ask("question", block=False)
    with pytest.raises(pykka.Timeout):
        future.get()
    runtime._actors["x"].step()
    assert future.get() == "answer to question"
    assert future.map(len).get() == len("answer to question")
    failing = ref.ask("raise", block=False)
    runtime._actors["x"].step()
    with pytest.raises(ValueError, match="raise"):
        failing.get()
    ref.stop(block=False)
    unanswered = ref.ask("too late", block=False)
    runtime._actors["x"].step()
    with pytest.raises(pykka.ActorDeadError):
        unanswered.get()


# --- turns ----------------------------------------------------------------------------------------------------


def test_names_are_stable_and_actors_stay_alive() -> None:
    runtime = make_runtime()
    assert list(runtime.states()) == ["a", "b", "c"]
    assert [ref.actor_urn for ref in runtime.refs.values()] == ["a", "b", "c"]
    assert all(ref.is_alive() for ref in runtime.refs.values())


def test_fan_in_has_one_order() -> None:
    runtime = make_runtime()
    say(runtime, "fan b c b")
    assert seen(runtime, "b") == ("from a", "from a")
    assert seen(runtime, "c") == ("from a",)


def test_end_of_turn_goes_to_those_that_had_a_message_in_fixed_order() -> None:
    runtime = make_runtime("b")
    texts = [output.text for output in say(runtime, "relay a") if isinstance(output, LogWritten)]
    assert texts == ["end of a: 0 -> 1", "end of b: 0 -> 1"]


def test_outputs_are_those_of_the_turn() -> None:
    runtime = make_runtime()
    first = say(runtime, "log")
    assert next(output.text for output in first if isinstance(output, LogWritten)) == "noted"
    assert len(say(runtime, "nothing")) == 1  # the end of a


def test_a_failed_turn_is_undone_as_a_whole() -> None:
    runtime = make_runtime()
    say(runtime, "fan b")
    before = runtime.states()
    actor = runtime._actors["b"]
    outputs = say(runtime, "raise")
    assert runtime.states() == before
    assert [o.text for o in outputs if isinstance(o, LogWritten)] == ["a ValueError deliberate at 0x… a"]
    assert not actor.actor_ref.is_alive()
    say(runtime, "fan b")  # the actors that were made anew work
    assert seen(runtime, "b") == ("from a", "from a")


def test_a_failure_further_down_the_turn_undoes_its_beginning() -> None:
    class Failing(Recorder):
        def end_turn(self) -> None:
            raise KeyError(self.actor_urn)

    specs = [
        ActorSpec("a", Recorder.start, Counting()),
        ActorSpec("b", Failing.start, Counting()),
        ActorSpec("c", Recorder.start, Counting()),
    ]
    runtime = Runtime(specs, lambda _: ("a",), stop_nothing)
    outputs = say(runtime, "fan b c")
    assert [o.text for o in outputs if isinstance(o, LogWritten)] == ["b KeyError 'b' a,b,c"]
    assert all(seen(runtime, name) == () for name in "abc")


def test_timers_count_by_number() -> None:
    runtime = make_runtime()
    assert StartTimer(owner="a", name="t", number=1, delay_ns=5) in say(runtime, "timer")
    assert StartTimer(owner="a", name="t", number=2, delay_ns=5) in say(runtime, "timer")
    runtime.turn(TimerFired(owner="a", name="t", number=1))
    assert "fired" not in seen(runtime, "a")
    assert CancelTimer(owner="a", name="t", number=2) in say(runtime, "cancel")
    runtime.turn(TimerFired(owner="a", name="t", number=2))
    assert "fired" not in seen(runtime, "a")
    say(runtime, "cancel")  # nothing runs: nothing to cancel
    say(runtime, "timer")
    runtime.turn(TimerFired(owner="a", name="t", number=3))
    assert seen(runtime, "a")[-1] == "fired"
    runtime.turn(TimerFired(owner="a", name="t", number=3))
    assert seen(runtime, "a").count("fired") == 1


def test_a_core_that_nobody_needs_any_more_is_gone() -> None:
    """Pykka's registry would keep it, and whoever replays many segments makes a core for each."""
    core = weakref.ref(build(make_config()))
    gc.collect()
    assert core() is None


def test_stop_stops_all() -> None:
    runtime = make_runtime()
    runtime.stop()
    assert not any(ref.is_alive() for ref in runtime.refs.values())
