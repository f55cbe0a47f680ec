"""Reads a log file, turn by turn, whatever state it is in (log_format.py, architecture.md §4).

Rules:
- Only what its checksum proves is believed, and reading stops at the first record that is short, cannot be
  decoded or is not the one that has to come next. What came before it is whole.
- One exception: an Output whose checksum fails is handed on as it stands, marked. Replay does not depend on it,
  and can tell what was altered.
- One turn is held in memory at a time.
"""

import io
import struct
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import msgspec
from mcap.exceptions import EndOfFile, McapError
from mcap.records import Channel, Chunk, Header, McapRecord, Message
from mcap.stream_reader import StreamReader
from mcap.writer import MCAP0_MAGIC
from msgspec import Struct

from ..messages.inputs import AnyInput
from .log_format import (
    FORMAT,
    PROFILE,
    RECORD_LIMIT_BYTES,
    TOPICS,
    TURN_MODULUS,
    Gap,
    SegmentEnd,
    SegmentHeader,
    is_intact,
    type_name,
)

READ_BUFFER_BYTES = 2**18


class LogError(Exception):
    """The log cannot be read. The text is for the user."""


class NotALogError(LogError):
    """There is no such file, or it is something else."""


class UnsupportedFormatError(LogError):
    """A log of a format, or with contents, that this version does not know."""


class DamagedLogError(LogError):
    """The log is cut short or altered."""


class RecordedOutput(Struct, frozen=True):
    """An Output as it stands in the log."""

    payload: bytes
    """Sealed JSON (log_format.py)."""
    intact: bool
    """False: its checksum fails, or the record's head does not belong to the turn."""


class Turn(Struct, frozen=True):
    """One recorded turn."""

    number: int
    at_ns: int
    utc_ns: int
    input: AnyInput
    outputs: tuple[RecordedOutput, ...]
    complete: bool
    """False for the last turn of a log that ended without goodbye: outputs may be missing at its end."""


class EndKind(Enum):
    """How a log ends."""

    GOODBYE = "goodbye"
    """The driver closed it."""
    DRIVER_DIED = "driver died"
    """The recorder closed it, after all that the driver had handed over."""
    DAMAGED = "damaged"
    """It is cut short or altered; the turns before that are whole."""


class Ending(Struct, frozen=True):
    """How a log ends, and after which turn."""

    kind: EndKind
    last_turn: int
    """Number of the last turn that is kept."""
    text: str
    """What is to be said of it; empty for a goodbye."""


class _WholeReads(io.BufferedReader):
    """A file that never gives less than was asked for. mcap's reader takes a short read for a whole one."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= RECORD_LIMIT_BYTES:
            msg = f"a length of {size} bytes"
            raise ValueError(msg)
        data = super().read(size)
        if len(data) < size:
            raise EndOfFile
        return data


class LogReader:
    """An open log: its header, and its turns, to be iterated once. A context manager."""

    def __init__(self, file: _WholeReads) -> None:
        """Reads up to the segment header. LogError."""
        self.gap: Gap | None = None
        """The gap before this segment's first turn, once that has been read."""
        self.ending: Ending | None = None
        """Known once all turns have been read."""
        self._file = file
        self._topics: dict[int, str] = {}
        self._records = self._read_records()
        first = next(self._records, None)
        if isinstance(first, Header) and first.profile != PROFILE:
            msg = f"not a log: an MCAP file, but not of this driver (profile {first.profile!r})"
            raise NotALogError(msg)
        self._messages = self._read_messages()
        self.header = self._read_header()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def turns(self) -> Iterator[Turn]:
        """The turns in their order; `ending` is set when they have come to their end.

        UnsupportedFormatError if a later version wrote something that is unknown here.
        """
        turn: Turn | None = None
        end: SegmentEnd | None = None
        number = self.header.first_turn - 1
        damage = ""
        try:
            for topic, message in self._messages:
                if topic.startswith("in/"):
                    if turn is not None:
                        yield turn
                        turn = None
                    turn = self._turn(number + 1, topic, message)
                    number += 1
                elif topic.startswith("out/"):
                    turn = _with_output(turn, number, topic, message)
                elif topic == TOPICS[SegmentEnd.__name__]:
                    end = _note(message, SegmentEnd)
                elif topic == TOPICS[Gap.__name__]:
                    self.gap = _note(message, Gap)
                else:
                    raise _unknown(topic, message)
            if end is None:
                damage = "the note that ends a segment is missing"
        except DamagedLogError as error:
            damage = str(error)
        if turn is not None:
            yield msgspec.structs.replace(turn, complete=end is not None and end.goodbye)
        self.ending = _ending(number, end, damage)

    # --- records -------------------------------------------------------------------------------------------

    def _read_records(self) -> Iterator[McapRecord]:
        """Everything in the file. DamagedLogError where it is not whole."""
        whole = 0
        reader = StreamReader(self._file, emit_chunks=True, record_size_limit=RECORD_LIMIT_BYTES)
        try:
            for record in reader.records:
                whole = self._file.tell()
                yield record
        except EndOfFile:
            size = self._file.tell()
            cut = f"the file ends inside a record (whole up to byte {whole} of {size})"
            raise DamagedLogError("the file was not closed" if whole == size else cut) from None
        except (McapError, struct.error, ValueError, OSError) as error:
            msg = f"the record at byte {whole} cannot be read: {error}"
            raise DamagedLogError(msg) from None

    def _read_messages(self) -> Iterator[tuple[str, Message]]:
        """The messages with their topics."""
        for record in self._records:
            match record:
                case Channel():
                    self._topics[record.id] = record.topic
                case Message():
                    topic = self._topics.get(record.channel_id)
                    if topic is None:
                        msg = f"a record is of channel {record.channel_id}, which there is not"
                        raise DamagedLogError(msg)
                    yield topic, record
                case Chunk():
                    msg = "a chunk, which the recorder never writes"
                    raise DamagedLogError(msg)

    def _read_header(self) -> SegmentHeader:
        topic, message = next(self._messages, ("", None))
        if message is None or topic != TOPICS[SegmentHeader.__name__] or not is_intact(message.data):
            msg = "the segment header is missing or altered"
            raise DamagedLogError(msg)
        try:
            found = msgspec.json.decode(message.data, type=_FormatNumber).format
            if found == FORMAT:
                return msgspec.json.decode(message.data, type=SegmentHeader)
            msg = f"journal format {found}; this version reads format {FORMAT}"
        except msgspec.ValidationError as error:
            msg = f"the segment header is not one of format {FORMAT}: {error}"
        raise UnsupportedFormatError(msg)

    def _turn(self, number: int, topic: str, message: Message) -> Turn:
        """A turn that its Input begins."""
        if message.sequence != number % TURN_MODULUS:
            msg = f"an input of turn {message.sequence} stands where turn {number} has to come"
            raise DamagedLogError(msg)
        if not is_intact(message.data) or topic != TOPICS.get(type_name(message.data), topic):
            msg = f"the checksum of turn {number}'s input fails"
            raise DamagedLogError(msg)
        try:
            decoded = _input_decoder.decode(message.data)
        except msgspec.ValidationError as error:
            writer = self.header.versions.get("fusioncharger", "?")
            msg = f"turn {number}'s input ({topic}), written by version {writer}, is unknown here: {error}"
            raise UnsupportedFormatError(msg) from None
        if message.publish_time != decoded.at_ns:
            msg = f"the time of turn {number}'s record is not its input's"
            raise DamagedLogError(msg)
        return Turn(number, decoded.at_ns, message.log_time, decoded, (), complete=True)


N = TypeVar("N", SegmentEnd, Gap)


class _FormatNumber(Struct):
    """What is read of a header before anything else is believed of it."""

    format: int


_input_decoder = msgspec.json.Decoder(AnyInput)


def _with_output(turn: Turn | None, number: int, topic: str, message: Message) -> Turn:
    if turn is None or message.sequence != number % TURN_MODULUS:
        msg = f"an output of turn {message.sequence} stands after the input of turn {number}"
        raise DamagedLogError(msg)
    intact = (
        is_intact(message.data)
        and message.publish_time == turn.at_ns
        and topic == TOPICS.get(type_name(message.data), topic)
    )
    outputs = (*turn.outputs, RecordedOutput(message.data, intact))
    return msgspec.structs.replace(turn, outputs=outputs)


def _unknown(topic: str, message: Message) -> LogError:
    """A record on a channel that there is not: a later version's, if it is whole and of an unknown kind."""
    if is_intact(message.data) and type_name(message.data) not in TOPICS:
        return UnsupportedFormatError(f"a record of an unknown kind: {topic}")
    return DamagedLogError(f"a record stands on channel {topic!r}, where it does not belong")


def _note(message: Message, note: type[N]) -> N:
    if not is_intact(message.data):
        msg = f"the checksum of the {note.__name__} note fails"
        raise DamagedLogError(msg)
    try:
        return msgspec.json.decode(message.data, type=note)
    except msgspec.ValidationError as error:
        msg = f"a note of an unknown kind: {error}"
        raise UnsupportedFormatError(msg) from None


def _ending(last_turn: int, end: SegmentEnd | None, damage: str) -> Ending:
    if damage:
        return Ending(EndKind.DAMAGED, last_turn, damage)
    if end is not None and end.goodbye:
        return Ending(EndKind.GOODBYE, last_turn, "")
    text = "the driver ended without goodbye"
    if end is not None and end.lost_bytes:
        text += f", in the middle of a record ({end.lost_bytes} bytes of it are left out)"
    return Ending(EndKind.DRIVER_DIED, last_turn, text)


def read_log(path: Path) -> LogReader:
    """Open a log and read its header. LogError."""
    try:
        file = _WholeReads(io.FileIO(path), READ_BUFFER_BYTES)
    except OSError as error:
        msg = f"cannot be read: {error.strerror or error}"
        raise NotALogError(msg) from None
    try:
        _check_beginning(file)
        return LogReader(file)
    except BaseException:
        file.close()
        raise


def _check_beginning(file: _WholeReads) -> None:
    beginning = file.peek(len(MCAP0_MAGIC))[: len(MCAP0_MAGIC)]
    if not beginning:
        msg = "the file is empty"
        raise DamagedLogError(msg)
    if not MCAP0_MAGIC.startswith(beginning):
        msg = "not a log: not an MCAP file"
        raise NotALogError(msg)
