"""Conditions on a turn, as a person writes them: `connector/1.phase == Running and output is PowerRequested`.

    condition = part { "and" part }
    part      = place operator value | "input is" TYPE | "output is" TYPE | "differs"
    place     = ACTOR.FIELD[.FIELD…]  the state after the turn: connector/1.setpoint.voltage_v
              | input.FIELD           of the turn's Input
    operator  = == != < <= > >=
    value     = a word, a number, true, false, null, or text in double quotes

Rules: nothing is evaluated as code. What cannot be compared (a setpoint that is not there) does not hold.
"""

import difflib
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any

import msgspec
from msgspec import Struct

from ..actors.runtime import ActorState
from .log_format import NOT_UNDERSTOOD, TOPICS
from .stepping import Step

_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_COMPARED = re.compile(r"(\S+?)\s*(==|!=|<=|>=|<|>)\s*(.+)")
_IS = re.compile(r"(input|output)\s+is\s+(\w+)")
_FORMS = (
    "write: connector/1.phase == Running, input is SetpointRequested, input.connector == 1, "
    "output is StopRequested, or differs; several with `and`"
)
_NOTHING = object()


class ConditionError(ValueError):
    """Not understood, or of something that there is not. The text is for the user."""


class _Compared(Struct, frozen=True):
    place: tuple[str, ...]
    operator: str
    value: Any


class _Is(Struct, frozen=True):
    side: str
    name: str


class Condition(Struct, frozen=True):
    """All parts have to hold."""

    parts: tuple[_Compared | _Is | None, ...]
    """None: the turn differs."""

    def stops_at(self, step: Step) -> bool:
        """Whether it holds in this turn; of states alone, whether it has become true in it. ConditionError."""
        if not all([_holds(part, step, step.after) for part in self.parts]):  # noqa: C419 - checks each part
            return False
        if any(not isinstance(part, _Compared) or part.place[0] == "input" for part in self.parts):
            return True
        return not all(_holds(part, step, step.before) for part in self.parts)


def parse_condition(text: str) -> Condition:
    """ConditionError."""
    return Condition(tuple(_part(part.strip()) for part in re.split(r"\s+and\s+", text.strip())))


def _part(text: str) -> _Compared | _Is | None:
    if text == "differs":
        return None
    if match := _IS.fullmatch(text):
        side, name = match[1], match[2]
        prefix = "in/" if side == "input" else "out/"
        known = [tag for tag, topic in TOPICS.items() if topic.startswith(prefix)]
        if name not in known:
            msg = f"there is no {side} {name!r}{_hint(name, known)}"
            raise ConditionError(msg)
        return _Is(side, name)
    match = _COMPARED.fullmatch(text)
    if match is None or "." not in match[1]:
        msg = f"{text!r} is not understood; {_FORMS}"
        raise ConditionError(msg)
    try:
        value = msgspec.json.decode(match[3])
    except NOT_UNDERSTOOD:
        value = match[3].strip()
    return _Compared(tuple(match[1].split(".")), match[2], value)


def _holds(part: _Compared | _Is | None, step: Step, states: Mapping[str, ActorState]) -> bool:
    if part is None:
        return step.differs
    if isinstance(part, _Is):
        if part.side == "input":
            return type(step.turn.input).__name__ == part.name
        return any(type(output).__name__ == part.name for output in step.outputs)
    found = _value(part.place, step, states)
    if found is _NOTHING:
        return False
    try:
        return _OPERATORS[part.operator](found, part.value)
    except TypeError:  # a number and a word
        return False


def _value(place: tuple[str, ...], step: Step, states: Mapping[str, ActorState]) -> object:
    """What stands there; _NOTHING if something on the way there is None, or the Input is of another type."""
    actor, *names = place
    found: object
    if actor == "input":
        found = getattr(step.turn.input, names[0], _NOTHING)
        names = names[1:]
    elif actor in states:
        found = states[actor]
    else:
        msg = f"there is no actor {actor!r}; there are: input, {', '.join(states)}"
        raise ConditionError(msg)
    for name in names:
        if isinstance(found, Mapping):
            found = found.get(name, _NOTHING)
        elif isinstance(found, Struct):
            if name not in found.__struct_fields__:
                hint = _hint(name, found.__struct_fields__) or f"; known: {', '.join(found.__struct_fields__)}"
                msg = f"{'.'.join(place)}: there is no {name!r}{hint}"
                raise ConditionError(msg)
            found = getattr(found, name)
        else:
            return _NOTHING
    return found.value if isinstance(found, Enum) else found


def _hint(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {near[0]}?" if near else ""
