"""A power unit without hardware, as a pure model (behaviour.md §9): dispensers, GOOSE, drawn power, commands.

    connected, received, disconnected ─┐                      ┌─► Modbus requests, connections closed
    goose_received                     ├─► PsuModel (pure) ───┼─► GOOSE replies, power on MQTT
    command, timer at due_ns           ─┘                      └─► Observed: the event log

Rules:
- No socket, clock, thread or randomness in here: `now_ns` (monotonic), noise and keys are given, so that a test
  or a simulation drives it on a time of its own and gets the same again.
- The Modbus side of a dispenser is dispenser_session.py, the GOOSE side goose_side.py; what both go by, and
  what commands change, is psu_state.py.
- A command is carried out at once, for all dispensers; its `step` comes after all that it does.
"""

import math
from collections.abc import Callable, Iterable

import msgspec

from ..io.modbus_psu_codec import Answer
from ..messages.goose import GooseHeader, PowerRequest, StopRequest
from ..messages.types import PsuRunningMode
from .actions import Action, BytesAsked, Detail, ListenAsked, Observed
from .commands import (
    Alarm,
    ClearAlarm,
    Command,
    Drop,
    Key,
    Listen,
    Placeholder,
    PortAvailable,
    Ratings,
    Refuse,
    Reset,
    Restart,
    RunningMode,
    Send,
    Silence,
    Write,
)
from .dispenser_session import KEY, SECOND_NS, DispenserSession, Keys
from .goose_side import GooseSide
from .key_book import KeyBook
from .psu_state import RATING_REGISTERS, PlaceholderPolicy, PsuState
from .registers import Request, write, write_words
from .scenario import Scenario, ScenarioRun, Step


class PsuModel:
    """Every method gives the Actions that follow from what it was told."""

    def __init__(
        self,
        psu: PsuState,
        *,
        noise: Callable[[], float],
        new_key: Callable[[], bytes] | None = None,
        scenario: Scenario | None = None,
    ) -> None:
        """`noise` gives values of -1 to 1, `new_key` the key of each plug-in; without it, it is always KEY."""
        self._psu = psu
        self._keys = KeyBook(KEY if new_key is None else None)
        self._new_key = new_key or (lambda: KEY)
        self._goose = GooseSide(psu, self._keys, noise)
        self._scenario = ScenarioRun(scenario or Scenario())
        self._sessions: dict[int, DispenserSession] = {}
        self._refuses_until_ns: float | None = None
        """None: it listens."""

    @property
    def due_ns(self) -> int | None:
        """When to call `timer`; None for never, as it stands."""
        dues: list[float | None] = [session.due_ns for session in self._sessions.values()]
        dues += [self._scenario.due_ns, self._psu.silent_until_ns, self._refuses_until_ns]
        due = min((due for due in dues if due is not None and math.isfinite(due)), default=None)
        return None if due is None else int(due)

    def timer(self, now_ns: int) -> list[Action]:
        """It is `due_ns` or later."""
        actions: list[Action] = []
        while (step := self._scenario.take_due(now_ns)) is not None:
            actions += self.command(step.command, now_ns, step)
        if self._refuses_until_ns is not None and now_ns >= self._refuses_until_ns:
            actions += self._listen()
        if math.isfinite(self._psu.silent_until_ns) and now_ns >= self._psu.silent_until_ns:
            actions += self._end_silence(now_ns)
        for session in self._sessions.values():
            due_ns = session.due_ns
            if due_ns is not None and due_ns <= now_ns:
                actions += session.timer(now_ns)
        return actions

    # --- Modbus ----------------------------------------------------------------------------------------------

    def listening(self, now_ns: int) -> None:
        """Dispensers can connect from now on."""
        self._scenario.happened("start", now_ns)

    def connected(self, connection: int, peer: str, now_ns: int) -> list[Action]:
        """A dispenser connected; `connection` is a number of its own, `peer` its address."""
        session = DispenserSession(
            connection,
            peer,
            psu=self._psu,
            keys=Keys(self._keys, self._new_key),
            ac_input=self._goose.ac_input,
        )
        self._sessions[connection] = session
        self._scenario.happened("connected", now_ns)
        return session.connected(now_ns)

    def received(self, connection: int, event: Answer, now_ns: int) -> list[Action]:
        """A dispenser answered or reported."""
        return self._sessions[connection].received(event, now_ns)

    def disconnected(self, connection: int, reason: str) -> list[Action]:
        """A dispenser's connection is gone."""
        return self._sessions.pop(connection).disconnected(reason)

    # --- GOOSE -----------------------------------------------------------------------------------------------

    def accepted_keys(self, src: bytes, connector_no: int, at_ns: int) -> tuple[bytes, ...]:
        """What a connector's frame that came at `at_ns` may be signed with."""
        return self._keys.accepted(src, connector_no, at_ns)

    def goose_received(
        self, message: PowerRequest | StopRequest, header: GooseHeader, src: bytes, now_ns: int
    ) -> list[Action]:
        """A frame of a dispenser that passed the server's checks."""
        if now_ns < self._psu.off_until_ns:
            return [Observed("goose_dropped", {"reason": "restarting"})]
        return self._goose.received(message, header, src, now_ns)

    # --- commands --------------------------------------------------------------------------------------------

    def command(self, command: Command, now_ns: int, step: Step | None = None) -> list[Action]:
        """Do what the mock is told; `step` if a scenario says so."""
        actions = self._perform(command, now_ns)
        told = {name: value for name, value in msgspec.to_builtins(command).items() if value is not None}
        details: dict[str, Detail] = {"source": "control" if step is None else "scenario"}
        if step is not None:
            details["step"] = step.number
        return [*actions, Observed("step", {**details, **told, "dispensers": len(self._sessions)})]

    def _perform(self, command: Command, now_ns: int) -> list[Action]:
        psu = self._psu
        match command:
            case Alarm():
                return self._set_alarms([command.name], command.value, now_ns)
            case ClearAlarm():
                names = list(psu.alarms) if command.name is None else [command.name]
                return self._set_alarms(names, 0, now_ns)
            case RunningMode():
                psu.running_mode = PsuRunningMode[command.mode]
                return self._tell(lambda _: [write("psu_running_mode", psu.running_mode)], now_ns)
            case Ratings():
                return self._rate(command, now_ns)
            case PortAvailable():
                changed = range(1, 5) if command.connector is None else (command.connector,)
                psu.port_available |= dict.fromkeys(changed, command.available)
                return self._tell_connectors(
                    changed, lambda number: [write("psu_port_available", command.available, number)], now_ns
                )
            case Placeholder():
                self._set_policy(command)
                return []
            case Drop() | Reset() | Silence() | Refuse() | Listen() | Restart():
                return self._connections(command, now_ns)
            case Key():
                return self._write_key(command, now_ns)
            case Send():
                data = bytes.fromhex(command.hex)
                return [BytesAsked(connection, data) for connection in self._sessions]
            case Write():
                return self._tell(lambda _: [write_words(command.address, command.words)], now_ns)

    def _set_alarms(self, names: Iterable[str], value: int, now_ns: int) -> list[Action]:
        requests = [write(name, value) for name in names]
        for request in requests:
            self._psu.alarms.pop(request.name, None)
            if value:
                self._psu.alarms[request.name] = value
        return self._tell(lambda _: requests, now_ns)

    def _rate(self, command: Ratings, now_ns: int) -> list[Action]:
        values = {
            register: value
            for name, register in RATING_REGISTERS.items()
            if (value := getattr(command, name)) is not None
        }
        self._psu.rate(values, command.connector)
        connectors = range(1, 5) if command.connector is None else (command.connector,)
        return self._tell_connectors(
            connectors,
            lambda connector: [write(name, value, connector) for name, value in values.items()],
            now_ns,
        )

    def _set_policy(self, command: Placeholder) -> None:
        policy = PlaceholderPolicy(command.reply)
        if command.connector_no is None:
            self._psu.placeholder = policy
            self._psu.placeholder_of.clear()
        else:
            self._psu.placeholder_of[command.connector_no] = policy

    def _tell_connectors(
        self, connectors: Iterable[int], requests_of: Callable[[int], list[Request]], now_ns: int
    ) -> list[Action]:
        """Write something about each of these connectors that a dispenser has."""

        def requests(session: DispenserSession) -> list[Request]:
            own = [connector for connector in connectors if connector <= session.connector_count]
            return [request for connector in own for request in requests_of(connector)]

        return self._tell(requests, now_ns)

    def _tell(self, requests: Callable[[DispenserSession], list[Request]], now_ns: int) -> list[Action]:
        """Write something to each dispenser. One that was not asked yet how many connectors it has gets to know
        it with its first rounds."""
        return [
            action
            for session in self._sessions.values()
            if session.connector_count
            for action in session.tell(requests(session), now_ns)
        ]

    def _write_key(self, command: Key, now_ns: int) -> list[Action]:
        actions: list[Action] = []
        for session in self._sessions.values():
            if command.connector > session.connector_count:
                continue
            match command.key:
                case "again":
                    key = None
                case "new":
                    key = self._new_key()
                case "zero":
                    key = bytes(len(KEY))
                case digits:
                    key = bytes.fromhex(digits)
            actions += session.write_key(command.connector, key, now_ns)
        return actions

    # --- connections -----------------------------------------------------------------------------------------

    def _connections(
        self, command: Drop | Reset | Silence | Refuse | Listen | Restart, now_ns: int
    ) -> list[Action]:
        match command:
            case Drop():
                return self._end_all("drop", reset=False)
            case Reset():
                return self._end_all("reset", reset=True)
            case Silence():
                return self._silence(command.for_s, now_ns)
            case Refuse():
                self._refuses_until_ns = _until(now_ns, command.for_s)
                return [ListenAsked(accept=False)]
            case Listen():
                return self._listen()
            case Restart():
                return self._restart(command, now_ns)

    def _end_all(self, reason: str, *, reset: bool) -> list[Action]:
        return [action for session in self._sessions.values() for action in session.end(reason, reset=reset)]

    def _silence(self, for_s: float | None, now_ns: int) -> list[Action]:
        self._psu.silent_until_ns = _until(now_ns, for_s)
        return self._end_silence(now_ns) if for_s == 0 else []

    def _end_silence(self, now_ns: int) -> list[Action]:
        self._psu.silent_until_ns = -math.inf
        resumed: list[Action] = [Observed("silence_ended", {})]
        return resumed + [action for session in self._sessions.values() for action in session.resume(now_ns)]

    def _listen(self) -> list[Action]:
        self._refuses_until_ns = None
        self._psu.off_until_ns = -math.inf
        return [ListenAsked(accept=True)]

    def _restart(self, command: Restart, now_ns: int) -> list[Action]:
        psu = self._psu
        actions = self._end_all("the PSU restarts", reset=True)
        self._keys.forget()
        self._goose.restart(now_ns)
        psu.silent_until_ns = -math.inf
        if command.mac is not None:
            psu.mac = bytes.fromhex(command.mac.replace(":", ""))
        if command.for_s == 0:
            return actions
        psu.off_until_ns = self._refuses_until_ns = _until(now_ns, command.for_s)
        return [*actions, ListenAsked(accept=False)]


def _until(now_ns: int, for_s: float | None) -> float:
    return math.inf if for_s is None else now_ns + round(for_s * SECOND_NS)
