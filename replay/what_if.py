"""What if a setting had been another one? The recorded Inputs, replayed with another configuration.

    recorded Inputs, but for TimerFired ──┐
                                          ├─ by time ─► core with the other configuration ─► Outputs, compared
    timers on virtual time ◄── StartTimer ┘

Rules:
- Timers run on virtual time, from the StartTimer of the replayed core. One that fired in the log, too, at most
  50 ms after it is due here, fires when it did in the log; so where a setting changes nothing, nothing differs.
- All other Inputs stay as they were recorded, though the world might have answered otherwise: what the power
  unit or EVerest would have done cannot be known from a log.
- A run begins as the other configuration has it, and goes on over its segments with its own states. A log that
  begins in mid-run, or goes on after a gap, begins with the snapshot there: what the recorded settings led to
  until then stays, which is said. Of a timer that runs in a snapshot it is not known when it is due: it fires
  when it fired in the log.
- An Input that came so soon after a timer was due here (SLACK_NS) goes first, as it may have done; how often is
  counted.
- A timer that fires is compared with the firing of the same timer in the log, in order. Times and timers'
  numbers are not compared.
"""

import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import msgspec
from msgspec.structs import replace

from ..actors.system import build, snapshot
from ..messages.config import Config, of_table
from ..messages.inputs import Input, TimerFired
from ..messages.outputs import AnyOutput, CancelTimer, StartTimer
from ..messages.toml_table import TomlError, table_of
from .comparison import Comparison
from .logs import Log, Segment
from .reader import EndKind, Turn
from .recorded_timers import timer_outputs
from .stepping import Step, Stepper

IGNORED = frozenset({"at_ns", "t_ns", "number"})
LATENCY_NS = 50_000_000
"""By so much a timer may have fired late in the field."""
SLACK_NS = 2_000_000
"""An Input that came so soon after a timer was due may have gone before it, and have stopped it."""

_Key = tuple[str, str]
"""Owner and name of a timer."""

_PART = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:\[([0-9]+)\])?")


class SettingError(ValueError):
    """A KEY=VALUE that is none. The text is for the user."""


def changed_config(recorded: Mapping[str, Any], settings: list[str]) -> Config:
    """The recorded configuration with some settings changed, each as KEY=VALUE: `psu_port=502`,
    `mqtt.host="x"`, `connectors[1].max_export_current_A=20`. SettingError, ConfigError."""
    table: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(recorded))
    for setting in settings:
        _set(table, setting)
    return of_table(table, "--set")


def _set(table: dict[str, Any], setting: str) -> None:
    key, has_value, written = setting.partition("=")
    *places, name = key.strip().split(".")
    place: Any = table
    for part in places:
        match = _PART.fullmatch(part)
        found = place.get(match[1]) if match and isinstance(place, dict) else None
        if match and match[2] and isinstance(found, list) and 1 <= int(match[2]) <= len(found):
            found = found[int(match[2]) - 1]
        if not isinstance(found, dict):
            msg = f"--set {setting}: there is no {part}"
            raise SettingError(msg)
        place = found
    if not has_value or not _PART.fullmatch(name):
        msg = (
            f"--set {setting}: write KEY=VALUE, as modbus_timeout_s=5 or connectors[1].max_export_current_A=20"
        )
        raise SettingError(msg)
    try:
        place[name] = table_of(f"value = {written}")["value"]
    except TomlError:
        place[name] = written.strip()  # text without its quotes


class _VirtualTimers:
    """The timers of a replayed core."""

    def __init__(self, unknown: set[tuple[str, str, int]]) -> None:
        self._due: dict[_Key, tuple[int, int]] = {}
        """When, and the number of the start."""
        self._recorded_due_ns: dict[_Key, int] = {}
        """When, in the recorded run."""
        self._unknown = unknown
        """Owner, name and number of those that ran already when the log began."""
        self.undecided = 0
        """How often an Input went before a timer that was due here already, and was not in the log."""

    def take(self, outputs: tuple[AnyOutput, ...], at_ns: int) -> None:
        """What a turn said of timers."""
        for output in outputs:
            match output:
                case StartTimer(owner=owner, name=name):
                    self._stopped((owner, name), at_ns)
                    self._due[owner, name] = at_ns + output.delay_ns, output.number
                case CancelTimer(owner=owner, name=name):
                    self._stopped((owner, name), at_ns)

    def take_recorded(self, turn: Turn) -> None:
        """What it said of timers in the log. UnsupportedFormatError."""
        for output in timer_outputs(turn.outputs):
            key = output.owner, output.name
            if isinstance(output, StartTimer):
                self._recorded_due_ns[key] = turn.at_ns + output.delay_ns
            else:
                self._recorded_due_ns.pop(key, None)

    def _stopped(self, key: _Key, at_ns: int) -> None:
        due_ns, _ = self._due.pop(key, (at_ns + 1, 0))
        self.undecided += due_ns <= at_ns and self._is_later_in_the_log(key, due_ns)

    def _is_later_in_the_log(self, key: _Key, due_ns: int) -> bool:
        return self._recorded_due_ns.get(key, due_ns + LATENCY_NS) - due_ns > SLACK_NS

    def fire(self, ahead: Sequence[Turn], now_ns: int) -> TimerFired | None:
        """The next one that is due before the first of the turns that come, taken out. Not one that fired soon
        after it is due in the log, too: it fires with that. `now_ns`: of the turn before."""
        due = sorted((due_ns, key, number) for key, (due_ns, number) in self._due.items())
        for due_ns, key, number in due:
            if due_ns + SLACK_NS >= ahead[0].at_ns:
                return None
            if not _fired_soon(key, due_ns, ahead):
                del self._due[key]
                self.undecided += due_ns < now_ns and self._is_later_in_the_log(key, due_ns)
                return TimerFired(at_ns=due_ns, owner=key[0], name=key[1], number=number)
        return None

    def fire_with(self, recorded: TimerFired) -> TimerFired | None:
        """The same timer as the one that fired in the log, if it is due here, too: taken out."""
        key = recorded.owner, recorded.name
        if (*key, recorded.number) in self._unknown:
            self._unknown.remove((*key, recorded.number))
            return recorded
        due_ns, number = self._due.get(key, (0, 0))
        if number == 0 or due_ns > recorded.at_ns:
            return None
        del self._due[key]
        return replace(recorded, number=number)


def what_if(log: Log, settings: list[str], *, accept_new_fields: bool = False) -> Comparison:
    """Replay the whole log with some settings changed. SettingError, ConfigError, LogError."""
    comparison = Comparison(accept_new_fields=accept_new_fields, ignored=IGNORED)
    for run in log.runs():
        for part in _without_gaps(run):
            config = changed_config(part[0].header.config, settings)
            comparison.carried_over += part[0].header.first_turn > 1
            for step in _replayed(part, config, comparison):
                comparison.add(step.divergence())
    return comparison


def _without_gaps(run: tuple[Segment, ...]) -> Iterator[tuple[Segment, ...]]:
    """The parts of a run between which turns are missing: after each, its own snapshot counts."""
    part = [run[0]]
    for former, segment in pairwise(run):
        if not segment.follows(former) or not _reaches(former, segment.header.first_turn):
            yield tuple(part)
            part = []
        part.append(segment)
    yield tuple(part)


def _reaches(segment: Segment, first_turn: int) -> bool:
    """Whether a segment's last turn is the one before that."""
    with segment.read() as reader:
        for _ in reader.turns():
            pass
    return reader.ending is not None and reader.ending.last_turn == first_turn - 1


def _replayed(run: tuple[Segment, ...], config: Config, comparison: Comparison) -> Iterator[Step]:
    """Every turn of a run: the recorded ones, and the timers' on virtual time beside the recorded ones."""
    header = run[0].header
    if header.first_turn == 1:
        # The run's beginning: not as the recorded configuration has it, but as this one does.
        header = replace(header, snapshot=snapshot(build(config)))
    stepper = Stepper(header, config)
    unknown = {
        (owner, name, number)
        for owner, state in stepper.runtime.states().items()
        for name, number in state.timers.items()
    }
    timers = _VirtualTimers(unknown)
    waiting: dict[_Key, deque[Step]] = {}
    """Timers that have fired here, and not yet in the log."""
    owed: dict[_Key, deque[Turn]] = {}
    """And the other way round."""
    now_ns = 0
    for ahead in _with_lookahead(_turns(run, comparison)):
        turn = ahead[0]
        while (fired := timers.fire(ahead, now_ns)) is not None:
            now_ns = max(now_ns, fired.at_ns)
            step = _step(stepper, turn, replace(fired, at_ns=now_ns))
            timers.take(step.outputs, now_ns)
            key = fired.owner, fired.name
            if owed.get(key):
                yield _beside(step, owed[key].popleft())
            else:
                waiting.setdefault(key, deque()).append(step)
        now_ns = turn.at_ns
        message: Input | None = turn.input
        if isinstance(turn.input, TimerFired):
            message = timers.fire_with(turn.input)
            key = turn.input.owner, turn.input.name
        if message is not None:
            step = stepper.step(turn if message is turn.input else replace(turn, input=message))
            timers.take(step.outputs, turn.at_ns)
            timers.take_recorded(turn)
            yield step
        elif waiting.get(key):
            yield _beside(waiting[key].popleft(), turn)
        else:
            owed.setdefault(key, deque()).append(turn)
    comparison.undecided += timers.undecided
    yield from (step for steps in waiting.values() for step in steps)
    states = stepper.runtime.states()
    yield from (Step(turn, (), states, states) for turns in owed.values() for turn in turns)


def _fired_soon(key: _Key, due_ns: int, ahead: Sequence[Turn]) -> bool:
    """Whether the log has that timer fire within the latency after that time."""
    return any(
        isinstance(turn.input, TimerFired)
        and (turn.input.owner, turn.input.name) == key
        and due_ns <= turn.at_ns <= due_ns + LATENCY_NS
        for turn in ahead
    )


def _with_lookahead(turns: Iterator[Turn]) -> Iterator[Sequence[Turn]]:
    """For each turn: it, and those that come within the latency after it."""
    ahead: deque[Turn] = deque()
    for turn in turns:
        ahead.append(turn)
        while ahead[0].at_ns + LATENCY_NS < turn.at_ns:
            yield ahead
            ahead.popleft()
    while ahead:
        yield ahead
        ahead.popleft()


def _turns(run: tuple[Segment, ...], comparison: Comparison) -> Iterator[Turn]:
    for segment in run:
        with segment.read() as reader:
            yield from reader.turns()
        if reader.ending is not None and reader.ending.kind is EndKind.DAMAGED:
            comparison.damage = (
                f"{segment.path}: damaged after turn {reader.ending.last_turn}: {reader.ending.text}"
            )


def _step(stepper: Stepper, beside: Turn, message: Input) -> Step:
    """A turn that the log does not have at this place; `beside` is the next one that it has."""
    utc_ns = beside.utc_ns - beside.at_ns + message.at_ns
    turn = replace(beside, at_ns=message.at_ns, utc_ns=utc_ns, input=message, outputs=(), complete=True)
    return stepper.step(turn)


def _beside(step: Step, recorded: Turn) -> Step:
    """A timer's turn here, with the Outputs that it had in the log."""
    turn = replace(recorded, input=step.turn.input)
    return replace(step, turn=turn)
