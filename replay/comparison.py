"""All that differs between a log and its replay, grouped by kind: for changed code and for changed settings.

A kind is: in which Input, at which connector, what about which Output is other. The recorded Outputs of a turn
are laid beside the replayed ones by type and connector (and topic), so that one that is new moves no other.
"""

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from typing import Any

import msgspec
from msgspec import Struct

from ..messages.outputs import AnyOutput
from .divergence import Divergence, report
from .log_format import unsealed
from .reader import RecordedOutput, Turn

_encoder = msgspec.json.Encoder()
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
        self.kinds: dict[Kind, Found] = {}
        self._accept_new_fields = accept_new_fields
        self._ignored = ignored

    def add(self, divergence: Divergence) -> None:
        """A turn: recorded and replayed Outputs, and the states around it."""
        turn = divergence.turn
        self.turns += 1
        kinds = dict(self._kinds(turn, turn.outputs, divergence.actual))
        if divergence.error:
            kinds[Kind(type(turn.input).__name__, 0, "", f"the core raised {divergence.error}")] = ""
        if not kinds:
            return
        self.differing += 1
        self.first = self.first or divergence
        for kind, example in kinds.items():
            found = self.kinds.setdefault(kind, Found(0, turn.number, example))
            found.turns += 1

    def _kinds(
        self, turn: Turn, recorded: Sequence[RecordedOutput], replayed: Sequence[AnyOutput]
    ) -> Iterable[tuple[Kind, str]]:
        """What differs in a turn."""
        name = type(turn.input).__name__
        left = [_fields(unsealed(output.payload)) for output in recorded]
        right = [_fields(_encoder.encode(output)) for output in replayed]
        if not turn.complete:
            right = right[: len(left)]
        for one, other in _laid_beside(left, right):
            shown = other or one or {}
            kind = Kind(name, _connector(shown), str(shown.get("type", "?")), "")
            if one is None:
                yield msgspec.structs.replace(kind, what="new"), _short(other)
            elif other is None:
                yield msgspec.structs.replace(kind, what="missing"), _short(one)
            else:
                names = self._differing(one, other)
                if names:
                    example = f"{_value(one.get(names[0]))} -> {_value(other.get(names[0]))}"
                    yield msgspec.structs.replace(kind, what=", ".join(names)), example

    def _differing(self, recorded: dict[str, Any], replayed: dict[str, Any]) -> list[str]:
        names = []
        for key in {**recorded, **replayed}:
            if key in self._ignored:
                continue
            if self._accept_new_fields and key not in recorded:
                self.new_fields += 1
            elif recorded.get(key, ...) != replayed.get(key, ...):
                names.append(key)
        return names


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


def _laid_beside(
    left: list[dict[str, Any]], right: list[dict[str, Any]]
) -> Iterable[tuple[dict[str, Any] | None, dict[str, Any] | None]]:
    """Pairs of the same type and connector, in order; what has no partner stands alone."""
    matcher = SequenceMatcher(None, list(map(_key, left)), list(map(_key, right)), autojunk=False)
    for tag, begin, end, other_begin, other_end in matcher.get_opcodes():
        if tag == "equal":
            yield from zip(left[begin:end], right[other_begin:other_end], strict=True)
        else:
            yield from ((fields, None) for fields in left[begin:end])
            yield from ((None, fields) for fields in right[other_begin:other_end])


def _key(fields: dict[str, Any]) -> tuple[str, int, str, str]:
    return (
        str(fields.get("type")),
        _connector(fields),
        str(fields.get("topic", "")),
        str(fields.get("name", "")),
    )


def _fields(text: bytes) -> dict[str, Any]:
    try:
        fields = msgspec.json.decode(text)
    except ValueError:  # altered: no JSON, or no UTF-8
        return {"type": "(not JSON)", "text": text.decode("utf-8", "backslashreplace")}
    return fields if isinstance(fields, dict) else {"type": "(no object)"}


def _connector(fields: dict[str, Any]) -> int:
    connector = fields.get("connector")
    return connector if isinstance(connector, int) else 0


def _value(value: Any) -> str:
    text = _encoder.encode(value).decode()
    return text if len(text) <= _VALUE_COLUMNS else f"{text[: _VALUE_COLUMNS - 1]}…"


def _short(fields: dict[str, Any] | None) -> str:
    said = {key: value for key, value in (fields or {}).items() if key not in {"type", "connector"}}
    return _value(said) if said else ""
