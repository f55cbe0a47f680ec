"""The turn-based runtime: Pykka actors, one turn at a time, as a pure function of their Inputs.

A turn: deliver one Input, then run the actors, in FIFO order over all mailboxes, until no mailbox holds a
message; then every actor that had one finishes its turn, in fixed order (architecture.md §1). What the actors
emitted meanwhile are the turn's Outputs. If a handler raises, the whole turn is undone and the safe stop, which
calls no handler, decides instead (behaviour.md §10).

The actors stay ordinary Pykka actors: mailbox, ActorRef.tell, on_start, on_failure. Only what Pykka offers as
extension points is ours: the inbox, the future, and how the loop is started. Pykka's own loop is stepped one
message at a time: `inbox.get()` stands outside its try, so an inbox that hands out one envelope and then raises
a private BaseException brings control back here after Pykka's own dispatch and error handling.

Rules: actors use `tell` only, and keep what they know in one frozen Struct, `self.state`, which a handler
replaces; so a turn is undone by putting the former Structs back.
"""

import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Generic, TypeVar

import pykka
from msgspec import Struct
from msgspec.structs import replace

from ..messages.inputs import Input, TimerFired
from ..messages.internal import Internal
from ..messages.outputs import AnyOutput, CancelTimer, LogWritten, StartTimer
from ..messages.types import Level

SECOND_NS = 1_000_000_000
MILLISECOND_NS = 1_000_000


class ActorState(Struct, frozen=True, kw_only=True):
    """What an actor knows. Subclasses are frozen; containers in them are replaced, never changed."""

    timers: dict[str, int] = {}
    """Running timers: name to the number of the start that counts."""
    timers_started: int = 0


S = TypeVar("S", bound=ActorState)


class Failure(Struct, frozen=True):
    """A handler that raised."""

    actor: str
    exception_type: str
    message: str
    concerned: tuple[str, ...]
    """Names of all actors that a message was sent to in the turn, read or not yet, in the system's order."""


class _StepDone(BaseException):
    """Raised by a mailbox to bring Pykka's loop back after one message; never seen outside this module."""


class _Mailbox:
    """Pykka's ActorInbox, in memory, that tells the runtime when it has something."""

    def __init__(self) -> None:
        self._envelopes: deque[Any] = deque()
        self.one_allowed = False
        """The next get() hands out one envelope."""
        self.on_put: Callable[[], None] = lambda: None

    def put(self, envelope: Any, /) -> None:
        self._envelopes.append(envelope)
        self.on_put()

    def get(self) -> Any:
        if self.one_allowed and self._envelopes:
            self.one_allowed = False
            return self._envelopes.popleft()
        raise _StepDone

    def empty(self) -> bool:
        return not self._envelopes

    def allow_all(self) -> None:
        """A stopped actor's loop empties its mailbox."""
        self.get = self._envelopes.popleft  # type: ignore[method-assign]


class _Promise(pykka.Future[Any]):
    """The answer to `ask` and `stop`. There is one thread, so waiting for a missing one is an error."""

    def __init__(self) -> None:
        super().__init__()
        self._done = False
        self._value: Any = None
        self._error: BaseException | None = None

    def get(self, *, timeout: float | None = None) -> Any:
        if self._get_hook is not None:
            return super().get(timeout=timeout)
        if not self._done:
            msg = "the runtime has one thread: run it before asking for the answer"
            raise pykka.Timeout(msg)
        if self._error is not None:
            raise self._error
        return self._value

    def set(self, value: Any = None) -> None:
        self._done, self._value = True, value

    def set_exception(self, exc_info: Any = None) -> None:
        self._done, self._error = True, (exc_info or sys.exc_info())[1]


class CoreActor(pykka.Actor, Generic[S]):
    """Base of the core's actors.

    A subclass implements `handle(message)`, and, where it needs them, `timer_fired(name)` and `end_turn()`.
    """

    def __init__(self, runtime: "Runtime", name: str, state: S) -> None:
        super().__init__()
        # Pykka's urn is a random uuid; names must be the same in every run.
        self.actor_urn = self.actor_ref.actor_urn = name
        self.state = state
        self.is_in_turn = False
        """It had a message in this turn, or in the last one, if there is none."""
        self.before = state
        """The state at the beginning of the turn, once the actor is in it."""
        self.at_ns = 0
        """Time of the turn, ns since start, once the actor is in it."""
        self._runtime = runtime
        mailbox = self.actor_inbox
        assert isinstance(mailbox, _Mailbox)  # noqa: S101 - narrows the type; made a few lines below
        mailbox.on_put = partial(runtime.ready.append, self)
        self._mailbox = mailbox

    @staticmethod
    def _create_actor_inbox() -> _Mailbox:
        return _Mailbox()

    @staticmethod
    def _create_future() -> _Promise:
        return _Promise()

    def _start_actor_loop(self) -> None:
        self._runtime.adopt(self)
        self._actor_loop_setup()

    def step(self) -> None:
        """Take one message through Pykka's dispatch and error handling."""
        self._mailbox.one_allowed = True
        try:
            self._actor_loop_running()
        except _StepDone:
            return
        self._mailbox.allow_all()  # the loop ended: the actor was stopped or has failed
        self._actor_loop_teardown()

    def on_receive(self, message: Any) -> None:
        if type(message) is not TimerFired:
            self.handle(message)
        elif self.state.timers.get(message.name) == message.number:  # else cancelled or restarted meanwhile
            self._forget_timer(message.name)
            self.timer_fired(message.name)

    def on_failure(self, _type: object, exception_value: BaseException | None, _traceback: object) -> None:
        if exception_value is not None:
            self._runtime.handler_failed(self, exception_value)

    def handle(self, message: Any) -> None:
        """Handle an Input or a message of another actor."""
        raise NotImplementedError  # each actor has its own

    def timer_fired(self, name: str) -> None:
        """The actor's own timer `name` has run out."""
        msg = f"{self.actor_urn} has no timer {name}"
        raise LookupError(msg)

    def end_turn(self) -> None:
        """Compose what the turn as a whole calls for; `self.before` is the state it began with."""

    # --- for subclasses ------------------------------------------------------------------------------------

    def change(self, **fields: Any) -> None:
        """Replace fields of the state."""
        self.state = replace(self.state, **fields)

    def emit(self, output: AnyOutput) -> None:
        """Add an Output to this turn."""
        self._runtime.outputs.append(output)

    def tell(self, actor: str, message: Internal) -> None:
        """Send a message to the actor of that name."""
        self._runtime.refs[actor].tell(message)

    def log(self, level: Level, text: str, connector: int = 0) -> None:
        """Add a line for the process log to this turn."""
        self.emit(LogWritten(level=level, connector=connector, text=text))

    def start_timer(self, name: str, delay_ns: int) -> None:
        """Start or restart a timer; `timer_fired(name)` is called when it has run out."""
        number = self.state.timers_started + 1
        self.change(timers={**self.state.timers, name: number}, timers_started=number)
        self.emit(StartTimer(owner=self.actor_urn, name=name, number=number, delay_ns=delay_ns))

    def cancel_timer(self, name: str) -> None:
        """Stop a timer, if it runs."""
        number = self.state.timers.get(name)
        if number is not None:
            self._forget_timer(name)
            self.emit(CancelTimer(owner=self.actor_urn, name=name, number=number))

    def _forget_timer(self, name: str) -> None:
        self.change(timers={key: number for key, number in self.state.timers.items() if key != name})


class ActorSpec(Struct, frozen=True):
    """How to make an actor: again, too, after it failed."""

    name: str
    start: Callable[["Runtime", str, Any], object]
    """The actor class's `start`, with what else it needs bound."""
    initial: ActorState


Route = Callable[[Input], Iterable[str]]
"""The names of the actors that an Input goes to, in order."""

SafeStop = Callable[
    [Mapping[str, ActorState], Input, Failure], tuple[dict[str, ActorState], tuple[AnyOutput, ...]]
]
"""States as before the turn, the Input, what failed → states and Outputs of the safe stop."""


class Runtime:
    """Runs turns over a fixed set of actors; holds the only strong references to them."""

    def __init__(self, specs: Iterable[ActorSpec], route: Route, safe_stop: SafeStop) -> None:
        self._specs = {spec.name: spec for spec in specs}
        """In the order in which the end of a turn goes round."""
        self._route = route
        self._safe_stop = safe_stop
        self._in_turn: list[CoreActor[Any]] = []
        """The actors that had a message in this turn, or in the last one, if there is none."""
        self._failure: Failure | None = None
        self._undone: dict[str, ActorState] = {}
        """The states before the last turn, if it failed: the actors have been made anew."""
        self._actors: dict[str, CoreActor[Any]] = {}
        self.at_ns = 0
        # For the actors:
        self.refs: dict[str, pykka.ActorRef[Any]] = {}
        """By name. Names, not refs, are what actors know: a failed actor is replaced."""
        self.ready: deque[CoreActor[Any]] = deque()
        """Whose mailbox got a message, for each message, in FIFO order over all mailboxes."""
        self.outputs: list[AnyOutput] = []
        """Of this turn."""
        for spec in self._specs.values():
            spec.start(self, spec.name, spec.initial)

    def turn(self, message: Input) -> tuple[AnyOutput, ...]:
        """One whole turn. The Outputs, in the order in which they were emitted.

        A handler that raises makes TurnFailed and the safe stop's Outputs; an exception out of this method
        means that the core itself is broken and must not go on.
        """
        self.at_ns = message.at_ns
        self._undone = {}
        self.outputs = []
        for actor in self._in_turn:
            actor.is_in_turn = False
        self._in_turn.clear()
        for name in self._route(message):
            self.refs[name].tell(message)
        self._drain()
        for actor in self._actors.values():
            if actor.is_in_turn and self._failure is None:
                try:
                    actor.end_turn()  # without the way through the mailbox: nothing can come between
                except Exception as error:  # noqa: BLE001 - whatever a handler raises undoes the turn
                    self.handler_failed(actor, error)
                if self.ready:
                    self._drain()
        if self._failure is not None:
            self._undone = self.states_before()
            return self._undo(self._undone, message, self._failure)
        return tuple(self.outputs)

    def states(self) -> dict[str, ActorState]:
        """Every actor's state, by name, in fixed order."""
        return {name: actor.state for name, actor in self._actors.items()}

    def states_before(self) -> dict[str, ActorState]:
        """Every actor's state before the last turn, which may have failed."""
        return self._undone or {
            name: actor.before if actor.is_in_turn else actor.state for name, actor in self._actors.items()
        }

    def stop(self) -> None:
        """Stop all actors, as Pykka does it."""
        for actor in self._actors.values():
            actor.stop()
        self._drain()

    # --- for the actors ------------------------------------------------------------------------------------

    def adopt(self, actor: CoreActor[Any]) -> None:
        """An actor starts. Pykka's refs are weak: this is what keeps the actor alive."""
        # Its registry holds the ref, with it the mailbox, and so all of this runtime, until the actor is
        # stopped: whoever replays many segments would keep a core for each.
        pykka.ActorRegistry.unregister(actor.actor_ref)
        self._actors[actor.actor_urn] = actor
        self.refs[actor.actor_urn] = actor.actor_ref

    def handler_failed(self, actor: CoreActor[Any], error: BaseException) -> None:
        """A handler raised (the first one of a turn counts)."""
        if self._failure is None:
            concerned = tuple(
                name for name, other in self._actors.items() if other.is_in_turn or other in self.ready
            )
            self._failure = Failure(actor.actor_urn, type(error).__name__, _reproducible(str(error)), concerned)

    # --- inside --------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        ready = self.ready
        while ready and self._failure is None:
            actor = ready.popleft()
            if not actor.is_in_turn:
                actor.is_in_turn = True
                actor.before = actor.state
                actor.at_ns = self.at_ns
                self._in_turn.append(actor)
            actor.step()

    def _undo(
        self, states: Mapping[str, ActorState], message: Input, failure: Failure
    ) -> tuple[AnyOutput, ...]:
        safe_states, outputs = self._safe_stop(states, message, failure)
        self._failure = None
        self.ready.clear()
        self._in_turn.clear()
        # Every actor is made anew: the failed one is stopped, and the others' mailboxes may hold messages.
        for name, spec in self._specs.items():
            if self.refs[name].is_alive():
                self._actors[name]._stop()  # noqa: SLF001 - at once, without working off the mailbox
            spec.start(self, name, safe_states[name])
        return outputs


def _reproducible(text: str) -> str:
    """An exception's text without memory addresses, which differ from run to run."""
    return re.sub(r"0x[0-9a-fA-F]{6,}", "0x…", text)[:500]
