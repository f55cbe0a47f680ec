"""A readable log of a damaged one: `log recover` (docs/log.md).

Rules:
- Kept is every record before the damage, byte for byte. What comes after a hole does not replay, since the
  state that it was made in is not known; the next segment begins with a snapshot, and is kept for itself.
- What is lost is said; nothing is made up. The note that ends the new file says that it was recovered.
- No file is replaced, and none is left half written.
"""

import contextlib
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from .log_format import PIPE_HEAD, TOPICS, SegmentEnd, is_intact
from .logs import Segment
from .reader import EndKind
from .recorder import SegmentWriter
from .records import Message, RecordReader
from .segment_file import SegmentFile

_END = TOPICS[SegmentEnd.__name__]
_MESSAGE = struct.Struct("<IQQ")
_FLUSH_RECORDS = 1 << 12
_INPUTS = "|".join(name for name, topic in TOPICS.items() if topic.startswith("in/"))
_PAYLOAD = re.compile(rb'\{"type":"(?:%s)".*?,"crc32":"[0-9a-f]{8}"\}' % _INPUTS.encode(), re.DOTALL)


class Recovered(Struct, frozen=True):
    """What became of a segment."""

    turns: int
    """Kept."""
    last_turn: int
    damage: str
    """Why the rest is not; empty: nothing is lost."""
    lost_bytes: int = 0
    """Of the damaged file, from the damage to its end."""
    lost_inputs: int = 0
    """Whole inputs found in there: turns that are left out, at least."""


def recover(segment: Segment, out: Path, advance: Callable[[int], None]) -> Recovered:
    """Write what is whole of a segment to a new file. LogError, FileExistsError, OSError."""
    turns, last_turn, records, damage = _whole(segment)
    kept_bytes = _copy(segment, out, records, damage, advance)
    if not damage:
        return Recovered(turns, last_turn, "")
    rest = segment.path.read_bytes()[kept_bytes:]
    lost_inputs = sum(is_intact(found[0]) for found in _PAYLOAD.finditer(rest))
    return Recovered(turns, last_turn, damage, len(rest), lost_inputs)


def _whole(segment: Segment) -> tuple[int, int, int, str]:
    """Turns, the last one's number, and records up to the damage, without the note at the end; the damage."""
    turns, last_turn, records = 0, segment.header.first_turn - 1, 1
    damage = ""
    with segment.read() as reader:
        for turn in reader.turns():
            turns, last_turn = turns + 1, turn.number
            records += 1
            for number, output in enumerate(turn.outputs, 1):
                if not output.intact:
                    damage = f"the checksum of output {number} of turn {turn.number} fails"
                    break
                records += 1
            if damage:
                break
        records += reader.gap is not None
        if reader.ending is not None and reader.ending.kind is EndKind.DAMAGED:
            damage = reader.ending.text
    return turns, last_turn, records, damage


def _copy(segment: Segment, out: Path, count: int, damage: str, advance: Callable[[int], None]) -> int:
    """Write so many records, and the note at the end; where in the old file they end."""
    if out.exists():
        raise FileExistsError(out)
    part = out.with_name(out.name + ".part")
    done_bytes = 0
    sink = SegmentFile(part)
    try:
        writer = SegmentWriter(sink)
        with segment.path.open("rb", buffering=0) as file:
            reader = RecordReader(file)
            reader.read_profile()
            messages = reader.messages()
            data = bytearray()
            for number in range(1, count + 1):
                _, turn, utc_ns, at_ns, payload = last = next(messages)
                data += PIPE_HEAD.pack(len(payload), turn, utc_ns, at_ns) + payload
                if number % _FLUSH_RECORDS == 0 or number == count:
                    writer.feed(bytes(data))
                    data.clear()
                    advance(reader.whole_bytes - done_bytes)
                    done_bytes = reader.whole_bytes
            with contextlib.suppress(Exception):  # the damage
                topic, turn, utc_ns, at_ns, payload = next(messages, ("", 0, 0, 0, b""))
                if topic == _END and is_intact(payload):
                    writer.feed(PIPE_HEAD.pack(len(payload), turn, utc_ns, at_ns) + payload)
                    damage = ""
        writer.finish(f"recovered up to here from a damaged file: {damage}" if damage else "")
        sink.sync()
        os.link(part, out)  # unlike a rename it replaces nothing
    finally:
        sink.close()
        part.unlink(missing_ok=True)
    advance(segment.size_bytes - done_bytes)
    return _end_of(segment, last, reader)


def _end_of(segment: Segment, message: Message, reader: RecordReader) -> int:
    """Where a message ends in the file; in a compressed one, where its last whole chunk ends."""
    _, turn, utc_ns, at_ns, payload = message
    wanted = _MESSAGE.pack(turn, utc_ns, at_ns) + payload
    found = -1 if reader.has_chunks else segment.path.read_bytes().find(wanted)
    return reader.whole_bytes if found < 0 else found + len(wanted)
