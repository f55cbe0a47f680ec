"""The turn table: every turn's input, outputs and state diff, as lines of JSON in compressed blocks.

The page unpacks a block only when the cursor, or a search, comes to it. What it needs of all turns at once
(time and input type, for the table's rows) is a small index of columns.

A line:

    {"n":17,"u":"2026-11-24T10:00:05.123456Z","i":{input},"o":[{output}, …],
     "d":[["connector/1","setpoint.voltage_v",400.0,410.0], …],   changed state: actor, field, before, after
     "r":[{output}, …],                                           replayed outputs, if they differ
     "e":"…", "c":false}                                          what the core raised; not complete
"""

import base64
import gzip
from collections.abc import Iterator, Mapping
from itertools import zip_longest

import msgspec
from msgspec import Struct

from ...actors.runtime import ActorState
from ..log_format import unsealed
from ..moments import utc_text
from ..reader import RecordedOutput, Turn
from ..stepping import Step

BLOCK_TURNS = 512
_COMPRESSION = 6

_encoder = msgspec.json.Encoder()
_ABSENT = None
"""What stands in a diff for a member that is not there; JSON's null, as None is."""

Change = tuple[str, str, object, object]


class _Line(Struct, omit_defaults=True):
    n: int
    u: str
    i: object
    o: list[object] = []
    d: list[Change] = []
    r: list[object] | None = None
    e: str = ""
    c: bool = True


class TurnTable:
    """Made turn by turn; `close` when all are there."""

    def __init__(self) -> None:
        self.blocks: list[str] = []
        """gzip, base64."""
        self.at: list[int] = []
        """µs since the log's begin, by row; each as the difference to the one before."""
        self.types: list[str] = []
        self.inputs: list[int] = []
        """Index of the input's type, by row."""
        self.spans: list[tuple[int, int, str]] = []
        """Where numbers are not one more than in the row before: row, turn number, id of the run."""
        self.rows = 0
        self._lines: list[bytes] = []
        self._type_index: dict[str, int] = {}
        self._last_us = 0
        self._run_id = ""
        self._next_number: int | None = None

    def begin_run(self, run_id: str) -> None:
        """The turns that follow are of another run."""
        self._run_id = run_id
        self._next_number = None

    def add(self, at_us: int, turn: Turn, step: Step | None) -> None:
        """The next turn."""
        if turn.number != self._next_number:
            self.spans.append((self.rows, turn.number, self._run_id))
        self._next_number = turn.number + 1
        name = type(turn.input).__name__
        index = self._type_index.get(name)
        if index is None:
            index = self._type_index[name] = len(self.types)
            self.types.append(name)
        self.inputs.append(index)
        self.at.append(at_us - self._last_us)
        self._last_us = at_us
        self.rows += 1
        self._lines.append(_line(turn, step))
        if len(self._lines) == BLOCK_TURNS:
            self.close()

    def close(self) -> None:
        """Pack the lines that are not in a block yet."""
        if self._lines:
            self.blocks.append(packed(b"\n".join(self._lines)))
            self._lines = []


def packed(data: bytes) -> str:
    """As the page unpacks it. The same data make the same text."""
    return base64.b64encode(gzip.compress(data, _COMPRESSION, mtime=0)).decode("ascii")


def _line(turn: Turn, step: Step | None) -> bytes:
    line = _Line(turn.number, utc_text(turn.utc_ns), turn.input, list(map(_recorded, turn.outputs)))
    line.c = turn.complete
    if step is not None:
        line.d = [change for name in step.after for change in _changes(name, step.before, step.after)]
        line.e = step.error
        if step.differs:
            line.r = list(step.outputs)
    return _encoder.encode(line)


def _recorded(output: RecordedOutput) -> object:
    if output.intact:
        return msgspec.Raw(unsealed(output.payload))
    return {"type": "(altered: its checksum fails)", "text": output.payload.decode("utf-8", "backslashreplace")}


def _changes(name: str, before: Mapping[str, ActorState], after: Mapping[str, ActorState]) -> Iterator[Change]:
    old, now = before.get(name), after[name]
    if old is now or old is None:
        return
    for path, left, right in _differences("", old, now):
        yield name, path, _shown(left), _shown(right)


def _differences(path: str, left: object, right: object) -> Iterator[tuple[str, object, object]]:
    """The parts that differ, each with its path."""
    if left is right or left == right:
        return
    prefix = f"{path}." if path else ""
    if isinstance(left, Struct) and type(left) is type(right):
        for field in left.__struct_fields__:
            old, now = getattr(left, field), getattr(right, field)
            if old is not now:  # most are shared; there are many
                yield from _differences(prefix + field, old, now)
    elif isinstance(left, dict) and isinstance(right, dict):
        for key in left if left.keys() == right.keys() else {**left, **right}:
            old, now = left.get(key, _ABSENT), right.get(key, _ABSENT)
            if old is not now:
                yield from _differences(f"{prefix}{key}", old, now)
    elif isinstance(left, tuple) and isinstance(right, tuple) and len(left) == len(right):
        for index, (one, other) in enumerate(zip_longest(left, right)):
            yield from _differences(f"{path}[{index}]", one, other)
    elif isinstance(left, tuple) and isinstance(right, tuple) and set(left) != set(right):
        yield from ((f"{path} (less)", item, _ABSENT) for item in left if item not in right)
        yield from ((f"{path} (more)", _ABSENT, item) for item in right if item not in left)
    else:
        yield path, left, right


def _shown(value: object) -> object:
    return f"0x{value.hex()}" if isinstance(value, bytes) else value
