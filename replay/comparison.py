"""All that differs between a log and its replay, grouped by kind: for changed code and for changed settings.

A kind is: in which Input, at which connector, what about which Output is other. The recorded Outputs of a turn
are laid beside the replayed ones by type and connector (and topic), so that one that is new moves no other.
"""

from collections.abc import Iterable
from difflib import SequenceMatcher
from typing import Any

import msgspec
from msgspec import Struct

from ..messages.outputs import AnyOutput
from .divergence import Divergence, differs, report
from .log_format import NOT_UNDERSTOOD, is_sealed, unsealed
from .new_fields import lacking
from .reader import RecordedOutput

_encoder = msgspec.json.Encoder()
_TIMER_NUMBERS = frozenset({"number"})
_KINDS_SHOWN = 40
_COLUMNS = 100
_VALUE_COLUMNS = 90


class Kind(Struct, frozen=True):
    """What differs."""

    input: str
    connector: int
    """0: none."""
    output: str
    what: str
    """"new", "missing", or the fields that are other."""


class _Side(Struct, frozen=True):
    """An Output, recorded or replayed."""

    fields: dict[str, Any]
    message: RecordedOutput | AnyOutput | None


_NOTHING = _Side({}, None)


class Found(Struct):
    """How often, and where first."""

    turns: int
    first_turn: int
    example: str
    """Of one field: `410.0 -> 400.0`."""


class Comparison:
    """Takes turns one by one, and keeps what differs."""

    def __init__(self, *, accept_new_fields: bool = False, ignored: frozenset[str] = frozenset()) -> None:
        """`accept_new_fields`: what a recorded Output lacks is no difference. `ignored`: fields that are not
        compared at all."""
        self.turns = 0
        self.differing = 0
        self.new_fields = 0
        """How many fields were ignored because the recorded version did not have them."""
        self.first: Divergence | None = None
        self.damage = ""
        """What is wrong with a file, if it could not be read to its end."""
        self.carried_over = 0
        """How often it began with a snapshot in mid-run."""
        self.undecided = 0
        """With another setting: how often either of an Input and a timer may have come first."""
        self.kinds: dict[Kind, Found] = {}
        self._accept_new_fields = accept_new_fields
        self._ignored = ignored

    def add(self, divergence: Divergence) -> None:
        """A turn: recorded and replayed Outputs, and the states around it. Once something has differed, the
        numbers of timers are a consequence (recorded_timers.py), and not compared any more."""
        turn = divergence.turn
        self.turns += 1
        kinds, new_fields = self._kinds(divergence, self._ignored | _TIMER_NUMBERS)
        if not kinds and self.first is None:
            kinds, new_fields = self._kinds(divergence, self._ignored)
        self.new_fields += new_fields
        if divergence.error:
            kinds[Kind(type(turn.input).__name__, 0, "", f"the core raised {divergence.error}")] = ""
        if not kinds:
            return
        self.differing += 1
        self.first = self.first or divergence
        for kind, example in kinds.items():
            found = self.kinds.setdefault(kind, Found(0, turn.number, example))
            found.turns += 1

    def _kinds(self, divergence: Divergence, ignored: frozenset[str]) -> tuple[dict[Kind, str], int]:
        """What differs in a turn, with an example; and how many fields are new, if those are accepted."""
        turn, replayed = divergence.turn, divergence.actual
        if len(replayed) == len(turn.outputs) and not any(map(differs, turn.outputs, replayed)):
            return {}, 0
        kinds: dict[Kind, str] = {}
        new_fields = 0
        name = type(turn.input).__name__
        left = [_Side(_fields(unsealed(output.payload)), output) for output in turn.outputs]
        right = [_Side(_fields(_encoder.encode(output)), output) for output in replayed]
        if not turn.complete:
            right = right[: len(left)]
        for one, other in _laid_beside(left, right):
            fields = (other or one or _NOTHING).fields
            kind = Kind(name, _connector(fields), str(fields.get("type", "?")), "")
            if one is None:
                kinds[msgspec.structs.replace(kind, what="new")] = _short(fields)
            elif other is None:
                kinds[msgspec.structs.replace(kind, what="missing")] = _short(fields)
            else:
                names, count = self._differing(one, other, ignored)
                new_fields += count
                if names:
                    left_value, right_value = (side.fields.get(names[0]) for side in (one, other))
                    example = f"{_value(left_value)} -> {_value(right_value)}"
                    kinds[msgspec.structs.replace(kind, what=", ".join(names))] = example
        return kinds, new_fields

    def _differing(self, one: "_Side", other: "_Side", ignored: frozenset[str]) -> tuple[list[str], int]:
        """The fields that differ, and how many are new, if those are accepted."""
        names = []
        new_fields = 0
        recorded, replayed = one.fields, other.fields
        for key in {**recorded, **replayed}:
            if key in ignored:
                continue
            if key in recorded and key in replayed and _same(recorded[key], replayed[key]):
                continue
            count = self._new_fields(recorded, key, other.message)
            if count is None:
                names.append(key)
            else:
                new_fields += count
        if not names and not new_fields and not ignored & set(recorded) and _texts_differ(one, other):
            names.append("(the text)")
        return names, new_fields

    def _new_fields(self, recorded: dict[str, Any], key: str, output: object) -> int | None:
        """How many fields the recorded version did not have, if that is all that differs in this one."""
        if not self._accept_new_fields:
            return None
        return 1 if key not in recorded else lacking(recorded[key], getattr(output, key, None))


def summary(comparison: Comparison) -> str:
    """What a person can act on: the first turn that differs in full, then every kind of difference."""
    lines: list[str] = []
    if comparison.first is not None:
        lines += [report(comparison.first), ""]
    lines.append(f"{comparison.differing} of {comparison.turns} turns differ, in {len(comparison.kinds)} ways:")
    lines.append(f"  {'turns':>7}  {'first':>8}  what")
    kinds = sorted(comparison.kinds.items(), key=lambda item: item[1].first_turn)
    for kind, found in kinds[:_KINDS_SHOWN]:
        where = f" of connector {kind.connector}" if kind.connector else ""
        what = kind.what if kind.what in {"new", "missing"} or not kind.output else f"other {kind.what}"
        lines.append(
            f"  {found.turns:>7}  {found.first_turn:>8}  at {kind.input}: {kind.output}{where}: {what}"
            + (f" ({found.example})" if found.example else "")
        )
    if len(kinds) > _KINDS_SHOWN:
        lines.append(f"  and {len(kinds) - _KINDS_SHOWN} more")
    if comparison.new_fields:
        lines.append(f"{comparison.new_fields} fields that the recorded version did not have were ignored")
    return "\n".join(
        line if len(line) <= _COLUMNS or "\n" in line else f"{line[: _COLUMNS - 1]}…" for line in lines
    )


def _laid_beside(left: list[_Side], right: list[_Side]) -> Iterable[tuple[_Side | None, _Side | None]]:
    """Pairs of the same type and connector, in order; what has no partner stands alone."""
    matcher = SequenceMatcher(None, list(map(_key, left)), list(map(_key, right)), autojunk=False)
    for tag, begin, end, other_begin, other_end in matcher.get_opcodes():
        if tag == "equal":
            yield from zip(left[begin:end], right[other_begin:other_end], strict=True)
        else:
            yield from ((side, None) for side in left[begin:end])
            yield from ((None, side) for side in right[other_begin:other_end])


def _texts_differ(one: _Side, other: _Side) -> bool:
    """Whether two that have the same fields are written otherwise: one of them was altered."""
    recorded = one.message.payload if isinstance(one.message, RecordedOutput) else b""
    return not is_sealed(recorded, _encoder.encode(other.message))


def _same(one: Any, other: Any) -> bool:
    """Whether two JSON values are: 1, 1.0 and true are three."""
    return bool(one == other) and _encoder.encode(one) == _encoder.encode(other)


def _key(side: _Side) -> tuple[str, int, str, str]:
    fields = side.fields
    return (
        str(fields.get("type")),
        _connector(fields),
        str(fields.get("topic", "")),
        str(fields.get("name", "")),
    )


def _fields(text: bytes) -> dict[str, Any]:
    try:
        fields = msgspec.json.decode(text)
    except NOT_UNDERSTOOD:  # altered
        return {"type": "(not JSON)", "text": text.decode("utf-8", "backslashreplace")}
    return fields if isinstance(fields, dict) else {"type": "(no object)"}


def _connector(fields: dict[str, Any]) -> int:
    connector = fields.get("connector")
    return connector if isinstance(connector, int) else 0


def _value(value: Any) -> str:
    text = _encoder.encode(value).decode()
    return text if len(text) <= _VALUE_COLUMNS else f"{text[: _VALUE_COLUMNS - 1]}…"


def _short(fields: dict[str, Any]) -> str:
    said = {key: value for key, value in fields.items() if key not in {"type", "connector"}}
    return _value(said) if said else ""
