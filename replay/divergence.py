"""Where a replay first differs from its log, and the report that an engineer reads: plain text, 100 columns.

    diverged in turn 17, output 2: PowerRequested.voltage_v

    turn     17, at 12.345678901 s, 2026-11-23T20:04:13.345678Z
    input    SetpointRequested
               connector           1
               voltage_v           410.0

    output                          expected (recorded)               actual (replayed)
      1 LogWritten                  the same
    ! 2 PowerRequested
        connector                   1                                 1
    !   voltage_v                   410.0                             400.0

    state                           before the turn                   after it (replayed)
      connector/1
    !   setpoint.voltage_v          400.0                             410.0

Rules: fields that differ are marked with `!`; a field that differs in parts shows only those parts; bytes are
hex; equal values are cut to one line, differing ones are shown whole.
"""

import base64
import contextlib
import textwrap
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Any

import msgspec
from msgspec import Struct

from ..messages.outputs import AnyOutput
from .log_format import NOT_UNDERSTOOD, TYPES, is_sealed, sealed, unsealed
from .reader import RecordedOutput, Turn

_NAME_WIDTH = 28
_VALUE_WIDTH = 34
_MISSING = object()
_NOT_JSON = "(not JSON)"

_encoder = msgspec.json.Encoder()


class Divergence(Struct, frozen=True):
    """The first turn whose replayed Outputs are not the recorded ones."""

    turn: Turn
    actual: tuple[AnyOutput, ...]
    before: Mapping[str, Struct]
    """Every actor's state before the turn, by name."""
    after: Mapping[str, Struct]
    error: str = ""
    """What came out of the core instead of Outputs, if it raised."""


class _Row(Struct, frozen=True):
    name: str
    left: str
    right: str
    differs: bool


class _Pair(Struct, frozen=True):
    """A recorded Output and the replayed one at the same place; one of the two may be missing."""

    number: int
    name: str
    rows: tuple[_Row, ...]
    """Empty if the two are the same."""
    altered: bool
    """The recorded one fails its checksum."""


def differs(recorded: RecordedOutput, output: AnyOutput) -> bool:
    """Whether the replayed Output is not, byte for byte, the recorded one."""
    return not is_sealed(recorded.payload, _encoder.encode(output))


def is_whole_and_same(recorded: RecordedOutput, output: AnyOutput) -> bool:
    """Whether the recorded Output is the replayed one, and intact: what equals what is sealed here has the
    right checksum, too, which need not be looked at by itself."""
    return recorded.is_in_place and recorded.payload == sealed(_encoder.encode(output))


def report(divergence: Divergence) -> str:
    """The whole report."""
    turn = divergence.turn
    pairs = [
        _pair(number, recorded, output)
        for number, (recorded, output) in enumerate(zip_longest(turn.outputs, divergence.actual), 1)
    ]
    lines = [_headline(divergence, pairs)]
    if divergence.error:
        lines.append(f"the core raised {divergence.error}")
    if any(pair.rows and pair.altered for pair in pairs):
        lines.append("the recorded output's checksum fails, too: it was altered after it was written")
    utc = datetime.fromtimestamp(turn.utc_ns // 10**9, UTC)
    microseconds = turn.utc_ns % 10**9 // 1000
    lines += [
        "",
        f"turn     {turn.number}, at {turn.at_ns // 10**9}.{turn.at_ns % 10**9:09} s, "
        f"{utc:%Y-%m-%dT%H:%M:%S}.{microseconds:06}Z",
        f"input    {type(turn.input).__name__}",
    ]
    fields = _fields(_encoder.encode(turn.input), type(turn.input))
    for name, value in list(fields.items())[1:]:  # without the tag
        lines += textwrap.wrap(
            f"{name:<20}{_text(value)}", 98, initial_indent=" " * 11, subsequent_indent=" " * 31
        )
    lines += ["", _table_head("output", "expected (recorded)", "actual (replayed)")]
    for pair in pairs:
        lines += _pair_lines(pair)
    lines += ["", _table_head("state", "before the turn", "after it (replayed)")]
    lines += _state_lines(divergence.before, divergence.after)
    return "\n".join(line.rstrip() for line in lines)


def _headline(divergence: Divergence, pairs: list[_Pair]) -> str:
    where = f"diverged in turn {divergence.turn.number}"
    for pair in pairs:
        names = [row.name for row in pair.rows if row.differs]
        if names:
            return f"{where}, output {pair.number}: {pair.name}.{names[0]}"
    return where


# --- comparing ---------------------------------------------------------------------------------------------


def _pair(number: int, recorded: RecordedOutput | None, output: AnyOutput | None) -> _Pair:
    altered = recorded is not None and not recorded.intact
    if recorded is None or output is None:
        left = {} if recorded is None else _recorded_fields(unsealed(recorded.payload), None)
        right = {} if output is None else _fields(_encoder.encode(output), type(output))
        return _Pair(number, str((left or right).get("type", "?")), tuple(_rows(left, right)), altered)
    name = type(output).__name__
    if not differs(recorded, output):
        return _Pair(number, name, (), altered)
    found, wanted = unsealed(recorded.payload), _encoder.encode(output)
    rows = tuple(_rows(_recorded_fields(found, type(output)), _fields(wanted, type(output))))
    if _NOT_JSON in (row.name for row in rows) or not any(row.differs for row in rows):
        # No longer JSON, or read as the same: show the texts; the first byte that differs tells the field.
        rows = (_Row(_field_at(wanted, found), _readable(found), _readable(wanted), differs=True),)
    return _Pair(number, name, rows, altered)


def _fields(text: bytes, message_type: type[Struct] | None) -> dict[str, Any]:
    """A message's fields by name, what the type declares as bytes as bytes. NOT_UNDERSTOOD (log_format.py)."""
    fields = msgspec.json.decode(text, type=dict[str, Any])
    for name in _bytes_fields(message_type or TYPES.get(str(fields.get("type")))):
        with contextlib.suppress(LookupError, TypeError, ValueError):  # not base64 any more: shown as it is
            fields[name] = base64.b64decode(fields[name], validate=True)
    return fields


def _recorded_fields(text: bytes, message_type: type[Struct] | None) -> dict[str, Any]:
    try:
        return _fields(text, message_type)
    except NOT_UNDERSTOOD:
        return {_NOT_JSON: _readable(text)}


def _bytes_fields(message_type: type[Struct] | None) -> Iterator[str]:
    if message_type is not None:
        yield from (field.name for field in msgspec.structs.fields(message_type) if field.type is bytes)


def _field_at(encoded: bytes, other: bytes) -> str:
    """The field of an encoded message in which another text first differs from it."""
    same = next((n for n, (one, two) in enumerate(zip(encoded, other, strict=False)) if one != two), len(other))
    end = 0
    for name, value in msgspec.json.decode(encoded, type=dict[str, Any]).items():
        end += len(_encoder.encode({name: value})) - 1  # where its comma, or the last brace, stands
        if same <= end:
            return name
    return "?"


def _rows(left: Mapping[str, Any], right: Mapping[str, Any]) -> Iterator[_Row]:
    """All fields of two objects; of those that differ, the parts that do."""
    for name in {**left, **right}:
        yield from _differences(name, left.get(name, _MISSING), right.get(name, _MISSING), whole=True)


def _differences(name: str, left: object, right: object, *, whole: bool = False) -> Iterator[_Row]:
    texts = _text(left), _text(right)
    if texts[0] == texts[1]:
        if whole:
            yield _Row(name, *texts, differs=False)
    elif isinstance(left, dict) and isinstance(right, dict):
        for key in {**left, **right}:
            yield from _differences(f"{name}.{key}", left.get(key, _MISSING), right.get(key, _MISSING))
    elif isinstance(left, list | tuple) and isinstance(right, list | tuple):
        for index, (one, other) in enumerate(zip_longest(left, right, fillvalue=_MISSING)):
            yield from _differences(f"{name}[{index}]", one, other)
    else:
        yield _Row(name, *texts, differs=True)


# --- writing -----------------------------------------------------------------------------------------------


def _text(value: object) -> str:
    if value is _MISSING:
        return "-"
    if isinstance(value, bytes):
        return f"0x{value.hex()}"
    return _encoder.encode(value).decode()


def _readable(text: bytes) -> str:
    return text.decode("utf-8", "backslashreplace")


def _pair_lines(pair: _Pair) -> Iterator[str]:
    mark = "!" if pair.rows else " "
    yield f"{mark} {pair.number} {pair.name:<{_NAME_WIDTH}}{'' if pair.rows else 'the same'}"
    for row in pair.rows:
        yield from _row_lines(row)


def _state_lines(before: Mapping[str, Struct], after: Mapping[str, Struct]) -> Iterator[str]:
    """The states that the turn changed; all of them, if it changed none."""
    changed = [name for name in before if before[name] != after[name]]
    for name in changed or before:
        yield f"  {name}"
        left, right = (msgspec.to_builtins(states[name], builtin_types=(bytes,)) for states in (before, after))
        for row in _rows(left, right):
            yield from _row_lines(row)


def _table_head(*titles: str) -> str:
    return f"{titles[0]:<{_NAME_WIDTH + 4}}{titles[1]:<{_VALUE_WIDTH}}{titles[2]}"


def _row_lines(row: _Row) -> Iterator[str]:
    cells = [_wrapped(text, cut=not row.differs) for text in (row.left, row.right)]
    name = row.name
    if len(name) >= _NAME_WIDTH:
        yield f"{'!' if row.differs else ' '}   {name}"
        name = ""
    for number, (left, right) in enumerate(zip_longest(*cells, fillvalue="")):
        mark = "!" if row.differs and number == 0 and name else " "
        shown = name if number == 0 else ""
        yield f"{mark}   {shown:<{_NAME_WIDTH}}{left:<{_VALUE_WIDTH}}{right}"


def _wrapped(text: str, *, cut: bool) -> list[str]:
    """A cell's lines, each shorter than the column."""
    width = _VALUE_WIDTH - 2
    if cut and len(text) > width:
        return [text[: width - 1] + "…"]
    return [text[start : start + width] for start in range(0, len(text), width)] or [""]
