"""The records of a segment as `log cat` prints them, also of one that is being written."""

import base64
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from ..replay.directory_lock import LOCK_NAME, is_locked
from ..replay.lifts import Lifter
from ..replay.log_format import FORMAT, NOT_UNDERSTOOD, TURN_MODULUS, TYPES, SegmentEnd, is_intact, unsealed
from ..replay.logs import Segment, open_logs
from ..replay.moments import utc_text
from ..replay.reader import LogError, NotALogError, UnsupportedFormatError
from ..replay.records import Message, RecordError, RecordReader

POLL_S = 0.1
"""How often a log that is followed is looked at."""

_BYTES_FIELDS = {
    name: tuple(field.name for field in msgspec.structs.fields(tagged) if field.type is bytes)
    for name, tagged in TYPES.items()
}
_DAMAGE = "the record at byte"
"""How the reader's errors begin that are no end of the file."""


class Record(Struct, frozen=True):
    """A message, or a pause in a log that is followed."""

    topic: str = ""
    turn: int = 0
    utc_ns: int = 0
    at_ns: int = 0
    payload: bytes = b""
    global_number: tuple[int, ...] = ()
    """The connectors' global numbers, by the configuration."""

    @property
    def is_pause(self) -> bool:
        """Nothing more is there for now."""
        return not self.topic

    def fields(self) -> dict[str, Any]:
        """The message's fields, bytes as hex. UnsupportedFormatError."""
        try:
            found = msgspec.json.decode(unsealed(self.payload), type=dict[str, Any])
            for name in _BYTES_FIELDS.get(str(found.get("type")), ()):
                if isinstance(found.get(name), str):
                    found[name] = base64.b64decode(found[name]).hex()
        except NOT_UNDERSTOOD as error:
            raise _unknown(self.turn, self.topic, error) from None
        return found

    def shown(self) -> dict[str, Any]:
        """As it is printed."""
        fields = self.fields()
        fields.pop("at_ns", None)  # it stands as at_s
        return {
            "turn": self.turn,
            "utc": utc_text(self.utc_ns),
            "at_s": self.at_ns / 1e9,
            "topic": self.topic,
            **fields,
        }


def _unknown(turn: int, topic: str, error: Exception) -> UnsupportedFormatError:
    return UnsupportedFormatError(f"a record of turn {turn} is unknown here ({topic}): {error}")


class _FormatNumber(Struct):
    """What is read of a header."""

    format: int


class _Connector(Struct):
    """What counts of a connector in a configuration of any version."""

    global_connector_number: int


class _Connectors(Struct):
    """What counts of such a configuration."""

    connectors: tuple[_Connector, ...] = ()


class SegmentTail:
    """Reads a segment from its beginning, once. NotALogError if it cannot be opened, UnsupportedFormatError."""

    def __init__(self, segment: Segment) -> None:
        self.damage = ""
        """Once it has been read: where it is cut, in words."""
        self.turn = segment.header.first_turn - 1
        """The last one that was read."""
        self.end: SegmentEnd | None = None
        self._segment = segment
        self._lifter: Lifter | None = None
        try:
            config = msgspec.convert(segment.header.config, _Connectors)
        except msgspec.ValidationError as error:
            raise _unknown(segment.header.first_turn, "journal/SegmentHeader", error) from None
        self._global_numbers = tuple(connector.global_connector_number for connector in config.connectors)

    def records(self) -> Iterator[Record]:
        """All of them."""
        yield from self._read(follow=False)

    def following(self) -> Iterator[Record]:
        """All of them, with a pause whenever more is to come."""
        yield from self._read(follow=True)

    def _read(self, *, follow: bool) -> Iterator[Record]:
        try:
            file = self._segment.path.open("rb", buffering=0)
        except OSError as error:
            msg = f"{self._segment.path}: cannot be read: {error.strerror or error}"
            raise NotALogError(msg) from None
        with file:
            reader = RecordReader(file)
            reader.read_profile()
            is_abandoned = False
            while True:
                try:
                    for message in reader.messages():
                        record = self._record(message)
                        if record is None:
                            return
                        yield record
                except RecordError as error:
                    self.damage = str(error)
                if not follow or self.damage.startswith(_DAMAGE) or not self.damage or self.end is not None:
                    break
                # The reader holds the beginning of what is to come whole, and goes on from there.
                yield Record()
                if is_abandoned or (
                    next_path(self._segment) is not None and not self.damage.startswith("the file was not")
                ):
                    break
                # Once more, then: it may have written something and have ended in between.
                is_abandoned = not is_locked(self._segment.path)
                if not is_abandoned:
                    time.sleep(POLL_S)
                self.damage = ""
            if is_abandoned and self.end is None:
                self.damage += "; nobody writes it any more: driver and recorder have ended"
        if not self.damage and self.end is None:
            self.damage = "the note that ends a segment is missing"
        elif self.end is not None and follow:
            self.damage = ""

    def _record(self, message: Message) -> Record | None:
        """None where it is altered."""
        topic, sequence, utc_ns, at_ns, payload = message
        if not is_intact(payload):
            self.damage = f"the checksum of a record of turn {sequence} fails ({topic})"
            return None
        try:
            if topic == "journal/SegmentHeader":
                found = msgspec.json.decode(payload, type=_FormatNumber).format
                self._lifter = Lifter(found) if found != FORMAT else None
            elif topic == "journal/SegmentEnd":
                self.end = msgspec.json.decode(payload, type=SegmentEnd)
            payload = self._lifter(payload) if self._lifter else payload
        except NOT_UNDERSTOOD as error:
            raise _unknown(sequence, topic, error) from None
        first = self._segment.header.first_turn
        turn = first + (sequence - first) % TURN_MODULUS if sequence else sequence
        if topic.startswith("in/"):
            self.turn = turn
        return Record(topic, turn, utc_ns, at_ns, payload, self._global_numbers)


def next_path(segment: Segment) -> Path | None:
    """The file of the segment after this one, if it is there."""
    header = segment.header
    name = f"*-{header.run_id[:8]}-{header.segment + 1:04}.mcap"
    return next(iter(sorted(segment.path.parent.glob(name))), None)


def next_segment(segment: Segment, tail: SegmentTail) -> Segment | None:
    """Waits for the segment in which the run goes on; None if it does not, or nobody is there any more who
    would write it. LogError."""
    if tail.end is None or not (tail.end.continues or tail.end.reason):
        return None
    is_abandoned = False
    while True:
        path = next_path(segment)
        if path is not None:
            try:
                return open_logs([path]).segments[0]
            except LogError:  # its header is still being written
                pass
        if is_abandoned:
            return None
        # Once more, then: it may have been begun in between.
        is_abandoned = not is_locked(path or segment.path.with_name(LOCK_NAME))
        if not is_abandoned:
            time.sleep(POLL_S)
