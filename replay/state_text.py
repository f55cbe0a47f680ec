"""A moment of a log as text: every actor's whole state, and a turn in a line."""

from typing import Any

import msgspec

from .moments import utc_text
from .stepping import Step

_NAME_WIDTH = 32


def state_text(step: Step) -> str:
    """Every actor's state after a turn, a field a line. Fields that are empty are named together."""
    lines = [f"after turn {step.turn.number}, at {utc_text(step.turn.utc_ns)}", turn_line(step)]
    for name, state in step.after.items():
        lines += ["", name]
        fields: dict[str, Any] = msgspec.to_builtins(state, builtin_types=(bytes,))
        empty = []
        for key, value in fields.items():
            if value is None or value in ({}, [], (), "", b""):
                empty.append(key)
            else:
                lines += _field(key, value)
        if empty:
            lines.append(f"  (empty or unknown: {', '.join(empty)})")
    return "\n".join(lines)


def state_json(step: Step) -> str:
    """The same for programs: {"turn", "utc", "at_s", "input", "states"}."""
    return msgspec.json.encode(
        {
            "turn": step.turn.number,
            "utc": utc_text(step.turn.utc_ns),
            "at_s": step.turn.at_ns / 1e9,
            "input": step.turn.input,
            "states": step.after,
        }
    ).decode()


def turn_line(step: Step) -> str:
    """A turn in a line: number, time, its Input with its fields, and what came out."""
    fields: dict[str, Any] = msgspec.to_builtins(step.turn.input, builtin_types=(bytes,))
    said = " ".join(
        f"{key}={_value(value)}"
        for key, value in fields.items()
        if key not in {"type", "at_ns", "adu", "frame"}
    )
    names = [type(output).__name__ for output in step.outputs]
    counted = [
        f"{names.count(name)}x{name}" if names.count(name) > 1 else name for name in dict.fromkeys(names)
    ]
    mark = "! " if step.differs else "  "
    time_of_day = utc_text(step.turn.utc_ns)[11:-4]
    kind = type(step.turn.input).__name__
    return f"{mark}{step.turn.number:>7} {time_of_day} {kind} {said} -> {', '.join(counted) or '-'}"


def _field(key: str, value: Any) -> list[str]:
    """A field; a mapping with a line for each of its entries."""
    if not isinstance(value, dict):
        return [f"  {key:<{_NAME_WIDTH}} {_value(value)}"]
    lines = [f"  {key}"]
    for name, inner in value.items():
        if isinstance(inner, dict) and inner:
            lines += [f"  {line}" for line in _field(str(name), inner)]
        else:
            lines.append(f"    {name!s:<{_NAME_WIDTH - 2}} {_value(inner)}")
    return lines


def _value(value: Any) -> str:
    if isinstance(value, bytes):
        return f"0x{value.hex()}"
    return msgspec.json.encode(value).decode()
