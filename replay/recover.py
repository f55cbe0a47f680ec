"""Readable logs of a damaged one: `log recover` (docs/log.md).

    damaged    header, turns 1..14 ▒▒▒▒▒▒ turns 17..90 ▒▒ turns 92..
    recovered  header, turns 1..14
               header without snapshot, gap 15..16, turns 17..90
               header without snapshot, gap 91..91, turns 92..

Rules:
- Kept is every whole record, byte for byte, and nothing is made up: the state behind a hole is not known, so
  what comes there has a file of its own, whose header has no snapshot. It can be read, and not be replayed.
- Only where no Input is missing, and the turns before replay as recorded, is the state known: what they lead to
- Behind a hole a turn counts once another record bears out its number, which is under no checksum.
- What is lost is said. The note that ends a file says that it was recovered.
- No file is replaced, and none is left half written.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from .log_format import (
    FORMAT,
    NOT_UNDERSTOOD,
    PIPE_HEAD,
    TOPICS,
    TURN_MODULUS,
    Gap,
    SegmentEnd,
    seal,
    type_name,
    unsealed,
)
from .logs import Segment
from .reader import EndKind, UnsupportedFormatError, read_log
from .recorder import SegmentWriter
from .replayer import replay
from .salvage import Salvage, Whole
from .segment_file import SegmentFile
from .whole_file import whole_file

_FLUSH_RECORDS = 1 << 12
_END = SegmentEnd.__name__


class Part(Struct, frozen=True):
    """A file that was written."""

    path: Path
    first_turn: int
    last_turn: int
    """The one before the first, if there is none."""
    replays: bool = True
    """False: it can only be read."""

    @property
    def turns(self) -> int:
        """How many are in it."""
        return self.last_turn - self.first_turn + 1


class Recovered(Struct, frozen=True):
    """What became of a segment."""

    parts: tuple[Part, ...]
    """At least one: what comes before the damage."""
    damage: str
    """What is wrong with the file; empty: nothing is lost."""
    lost_bytes: int = 0
    """Of the damaged file."""

    @property
    def turns(self) -> int:
        """Kept, in all parts."""
        return sum(part.turns for part in self.parts)


class _NewFile:
    """A log file that is being written."""

    def __init__(self, sink: SegmentFile) -> None:
        self._writer = SegmentWriter(sink)
        self._data = bytearray()
        self._records = 0

    def add(self, sequence: int, utc_ns: int, at_ns: int, payload: bytes) -> None:
        """A record."""
        self._data += PIPE_HEAD.pack(len(payload), sequence, utc_ns, at_ns) + payload
        self._records += 1
        if self._records % _FLUSH_RECORDS == 0:
            self._flush()

    def copy(self, record: Whole) -> None:
        """A record of the damaged file."""
        self.add(record.sequence, record.utc_ns, record.at_ns, record.payload)

    def finish(self, damage: str) -> None:
        """`damage`: why it ends here; empty: it has its own end."""
        self._flush()
        self._writer.finish(f"recovered up to here from a damaged file: {damage}" if damage else "")

    def _flush(self) -> None:
        self._writer.feed(bytes(self._data))
        self._data.clear()


@contextlib.contextmanager
def _new_file(out: Path) -> Iterator[_NewFile]:
    """A file that has its name once it is whole. FileExistsError, OSError."""
    with whole_file(out) as part:
        sink = SegmentFile(part)
        try:
            yield _NewFile(sink)
            sink.sync()
        finally:
            sink.close()


def recover(segment: Segment, out: Path, advance: Callable[[int], None]) -> Recovered:
    """Write what is whole of a segment to a new file, and what comes behind damage to files beside it
    (`behind_name`). LogError, FileExistsError, OSError."""
    last_turn, count, damage = _before_damage(segment)
    with segment.path.open("rb") as file, contextlib.ExitStack() as files:
        salvage = Salvage(file)
        records = _watched(salvage, advance)
        with _new_file(out) as first:
            head = next(records)
            first.copy(head)
            for _ in range(count - 1):
                first.copy(next(records))
            ahead = next(records, None)
            is_end = ahead is not None and ahead.tag == _END and not ahead.lost_bytes
            if ahead is not None and is_end:
                first.copy(ahead)
            first.finish("" if is_end else damage)
        part = Part(out, segment.header.first_turn, last_turn, replays=bool(segment.header.snapshot))
        behind = _Behind(head, part, damage, files)
        if ahead is not None and not is_end:
            behind.add(ahead)
        for record in records:
            behind.add(record)
        behind.close()
    lost_bytes = behind.lost_bytes + salvage.lost_at_end_bytes
    return Recovered(tuple(behind.parts), damage, lost_bytes if damage else 0)


def behind_name(out: Path, first_turn: int) -> Path:
    """The file beside `out` with what comes behind a hole."""
    return out.with_name(f"{out.stem}-from-turn-{first_turn}{out.suffix}")


def _before_damage(segment: Segment) -> tuple[int, int, str]:
    """The last turn before the damage; how many records come before it, without the note at the end; the
    damage. LogError."""
    last_turn, records = segment.header.first_turn - 1, 1
    damage = ""
    with segment.read() as reader:
        for turn in reader.turns():
            last_turn = turn.number
            for output in turn.outputs:
                if output.intact and type_name(output.payload) not in TOPICS:
                    msg = f"turn {turn.number} has an output of a type that is unknown here"
                    raise UnsupportedFormatError(msg)
            damage = turn.altered()
            if damage:
                records += 1 + [output.intact for output in turn.outputs].index(False)
                break
            records += 1 + len(turn.outputs)
        records += reader.gap is not None
        if reader.ending is not None and reader.ending.kind is EndKind.DAMAGED:
            damage = reader.ending.text
    return last_turn, records, damage


def _watched(salvage: Salvage, advance: Callable[[int], None]) -> Iterator[Whole]:
    done_bytes = 0
    for count, record in enumerate(salvage.messages(), 1):
        if count % _FLUSH_RECORDS == 0:
            advance(salvage.at - done_bytes)
            done_bytes = salvage.at
        yield record
    advance(salvage.at - done_bytes)


class _FormatNumber(Struct):
    """What is looked at of the header."""

    format: int


class _AtNs(Struct):
    """What is looked at of an input."""

    at_ns: int = 0


class _Behind:
    """Takes the whole records behind the damage, and writes those that make up turns."""

    def __init__(self, head: Whole, first: Part, damage: str, files: contextlib.ExitStack) -> None:
        """`first`: what comes before the damage. `files` takes the open file back if anything fails."""
        self.parts = [first]
        self.lost_bytes = 0
        self._head = head
        self._out = first.path
        self._damage = damage
        self._last_turn = first.last_turn
        """That was kept."""
        self._turn: list[Whole] = []
        """The turn whose records are being collected."""
        self._hole = True
        """Something is missing before that turn."""
        self._is_cut = False
        """And after it."""
        self._file: _NewFile | None = None
        self._part: Part | None = None
        self._files = files

    def add(self, record: Whole) -> None:
        """The next one. OSError."""
        self.lost_bytes += record.lost_bytes
        self._is_cut = self._is_cut or record.lost_bytes > 0
        begun = self._turn[0] if self._turn else None
        if TOPICS[record.tag].startswith("in/"):
            follows = begun is not None and record.sequence == (begun.sequence + 1) % TURN_MODULUS
            self._end_turn(is_borne_out=follows and not self._is_cut)
            self._turn = [record]
        elif record.tag == _END and not self._is_cut:
            self._end_turn(is_borne_out=False)
            self._end_part(None if self._hole else record)
            self._hole = True
        elif begun is not None and not self._is_cut and _same_turn(record, begun):
            self._turn.append(record)
        else:
            self.lost_bytes += len(record.payload)
            self._is_cut = True

    def close(self) -> None:
        """There are no more. OSError."""
        self._end_turn(is_borne_out=False)
        self._end_part(None)

    def _end_turn(self, *, is_borne_out: bool) -> None:
        turn, self._turn = self._turn, []
        hole = self._hole
        self._hole, self._is_cut = self._is_cut, False
        if not turn:
            self._hole = self._hole or hole
            return
        number = self._last_turn + (turn[0].sequence - self._last_turn) % TURN_MODULUS
        goes_on = number == self._last_turn + 1 and not hole and self._file is not None
        is_later = self._last_turn < number < self._last_turn + TURN_MODULUS // 2
        if not (is_later and (goes_on or is_borne_out or len(turn) > 1) and _has_its_time(turn[0])):
            self.lost_bytes += sum(len(record.payload) for record in turn)
            self._hole = True
            return
        if not goes_on:
            self._end_part(None)
            self._begin_part(number, turn[0])
        assert self._file is not None  # noqa: S101 - it goes on, or has just been begun
        for record in turn:
            self._file.copy(record)
        self._last_turn = number

    def _begin_part(self, number: int, record: Whole) -> None:
        snapshot = self._known_states(number)
        path = behind_name(self._out, number)
        self._file = self._files.enter_context(_new_file(path))
        self._part = Part(path, number, number, replays=bool(snapshot))
        header = msgspec.json.decode(unsealed(self._head.payload))
        header |= {"first_turn": number, "utc_ns": record.utc_ns, "snapshot": snapshot}
        gap = Gap(reason=f"damaged: {self._damage}", first_turn=self._last_turn + 1, last_turn=number - 1)
        for note in (seal(header), seal(gap)):
            self._file.add(record.sequence, record.utc_ns, record.at_ns, note)

    def _known_states(self, first_turn: int) -> dict[str, object]:
        """Every actor's state before a turn, where the part before it leads right there; empty: not known."""
        former = self.parts[-1]
        if first_turn != former.last_turn + 1 or not former.replays:
            return {}
        try:
            with read_log(former.path) as log:
                if msgspec.json.decode(self._head.payload, type=_FormatNumber).format != FORMAT:
                    return {}
                found = replay(log)
        except UnsupportedFormatError:
            return {}
        is_whole = found.divergence is None and not found.altered
        return {name: msgspec.to_builtins(state) for name, state in found.states.items()} if is_whole else {}

    def _end_part(self, end: Whole | None) -> None:
        if self._file is not None and self._part is not None:
            if end is not None:
                self._file.copy(end)
            self._file.finish("" if end else self._damage)
            self._files.close()
            self.parts.append(replace(self._part, last_turn=self._last_turn))
        self._file = self._part = None


def _same_turn(record: Whole, begun: Whole) -> bool:
    is_output = TOPICS[record.tag].startswith("out/")
    return is_output and (record.sequence, record.at_ns) == (begun.sequence, begun.at_ns)


def _has_its_time(record: Whole) -> bool:
    try:
        return msgspec.json.decode(record.payload, type=_AtNs).at_ns == record.at_ns
    except NOT_UNDERSTOOD:
        return False
