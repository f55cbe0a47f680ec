"""Reads a log file, turn by turn, whatever state it is in (log_format.py, architecture.md §4).

Rules:
- Only what its checksum proves is believed, and reading stops at the first record that is short, cannot be
  decoded or is not the one that has to come next. What came before it is whole.
- One exception: an Output whose checksum fails is handed on as it stands, marked. Replay does not depend on it,
  and can tell what was altered.
- One turn is held in memory at a time.
"""

import contextlib
import stat
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, TypeVar

import msgspec
from mcap.writer import MCAP0_MAGIC
from msgspec import Struct

from ..messages.inputs import AnyInput
from ..messages.outputs import AnyOutput
from .lifts import LIFTS, Lift, Lifter, can_lift
from .log_format import (
    FORMAT,
    NOT_UNDERSTOOD,
    PROFILE,
    TOPICS,
    TURN_MODULUS,
    Gap,
    SegmentEnd,
    SegmentHeader,
    belongs_to,
    is_intact,
    type_name,
)
from .records import Message, RecordError, RecordReader


class LogError(Exception):
    """The log cannot be read. The text is for the user."""


class NotALogError(LogError):
    """There is no such file, or it is something else."""


class UnsupportedFormatError(LogError):
    """A log of a format, or with contents, that this version does not know."""


class DamagedLogError(LogError):
    """The log is cut short or altered."""


class RecordedOutput(Struct, frozen=True, gc=False):
    """An Output as it stands in the log."""

    payload: bytes
    """Sealed JSON (log_format.py), of the present format."""
    is_in_place: bool
    """False: the record's head does not belong to the turn; or an older format's checksum failed."""

    @property
    def intact(self) -> bool:
        """False: its checksum fails, or the record's head does not belong to the turn."""
        return self.is_in_place and is_intact(self.payload)

    def message(self) -> AnyOutput:
        """The Output itself. UnsupportedFormatError if this version does not know it."""
        try:
            return _output_decoder.decode(self.payload)
        except NOT_UNDERSTOOD as error:
            msg = f"an output that is unknown here: {error}"
            raise UnsupportedFormatError(msg) from None


class Turn(Struct, frozen=True):
    """One recorded turn."""

    number: int
    at_ns: int
    utc_ns: int
    input: AnyInput
    outputs: tuple[RecordedOutput, ...]
    complete: bool
    """False for the last turn of a log that ended without goodbye: outputs may be missing at its end."""

    def altered(self) -> str:
        """The first output that fails its checksum, in words; "" if none does."""
        for number, output in enumerate(self.outputs, 1):
            if not output.intact:
                return f"the checksum of output {number} of turn {self.number} fails"
        return ""


class EndKind(Enum):
    """How a log ends."""

    GOODBYE = "goodbye"
    """The driver closed it."""
    CONTINUES = "continues"
    """The driver closed it and went on in the next segment."""
    DRIVER_DIED = "driver died"
    """The recorder closed it, after all that the driver had handed over."""
    GIVEN_UP = "given up"
    """The recorder closed it, because it could not write any further; the turns in it are whole."""
    DAMAGED = "damaged"
    """It is cut short or altered; the turns before that are whole."""


class Ending(Struct, frozen=True):
    """How a log ends, and after which turn."""

    kind: EndKind
    last_turn: int
    """Number of the last turn that is kept."""
    text: str
    """What is to be said of it; empty for a goodbye."""


N = TypeVar("N", SegmentEnd, Gap)


class LogReader:
    """An open segment: its header, and its turns, to be iterated once. A context manager."""

    def __init__(self, file: BinaryIO, lifts: Mapping[int, Lift] = LIFTS) -> None:
        """Reads up to the segment header. LogError."""
        self.gap: Gap | None = None
        """The gap before this segment's first turn, once that has been read."""
        self.ending: Ending | None = None
        """Known once all turns have been read."""
        self.begin_at_ns = 0
        """When the segment begins, monotonic."""
        self._file = file
        self._lifts = lifts
        self._lifter: Lifter | None = None
        self.records = RecordReader(file)
        """Of the file. For what is read of them besides turns: how far, and the metadata."""
        try:
            profile = self.records.read_profile()
        except RecordError as error:
            raise DamagedLogError(str(error)) from None
        if profile != PROFILE:
            msg = f"not a log: an MCAP file, but not of this driver (profile {profile!r})"
            raise NotALogError(msg)
        self._messages = self.records.messages()
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
        begun: AnyInput | None = None
        """The Input of the turn whose Outputs are being collected."""
        begun_utc_ns = 0
        outputs: list[RecordedOutput] = []
        end: SegmentEnd | None = None
        number = self.header.first_turn - 1
        damage = ""
        try:
            for message in self._messages:
                topic, _, utc_ns, _, payload = message
                if end is not None or (topic == _GAP_TOPIC and (begun or self.gap)):
                    raise _misplaced(topic)
                if topic.startswith("out/"):
                    outputs.append(self._output(number, begun, message))
                elif topic.startswith("in/"):
                    if begun is not None:
                        yield Turn(number, begun.at_ns, begun_utc_ns, begun, tuple(outputs), complete=True)
                        begun = None
                    begun = self._input(number + 1, message)
                    number += 1
                    begun_utc_ns, outputs = utc_ns, []
                elif topic == _END_TOPIC:
                    end = self._note(payload, SegmentEnd)
                elif topic == _GAP_TOPIC:
                    self.gap = self._note(payload, Gap)
                else:
                    raise _unknown(topic, payload)
            if end is None:
                damage = "the note that ends a segment is missing"
        except (DamagedLogError, RecordError) as error:
            damage = str(error)
        if begun is not None:
            complete = end is not None and (end.goodbye or end.continues)
            yield Turn(number, begun.at_ns, begun_utc_ns, begun, tuple(outputs), complete)
        self.ending = _ending(number, end, damage)

    # --- records -------------------------------------------------------------------------------------------

    def _read_header(self) -> SegmentHeader:
        try:
            topic, _, _, self.begin_at_ns, payload = next(self._messages, ("", 0, 0, 0, b""))
        except RecordError as error:
            raise DamagedLogError(str(error)) from None
        if topic != TOPICS[SegmentHeader.__name__] or not is_intact(payload):
            msg = "the segment header is missing or altered"
            raise DamagedLogError(msg)
        try:
            found = msgspec.json.decode(payload, type=_FormatNumber).format
            if not can_lift(found, self._lifts):
                msg = f"journal format {found}; this version reads formats {min(self._lifts)} to {FORMAT}"
                raise UnsupportedFormatError(msg)
            if found != FORMAT:
                self._lifter = Lifter(found, self._lifts)
                payload = self._lifter(payload)
            return msgspec.json.decode(payload, type=SegmentHeader)
        except NOT_UNDERSTOOD as error:
            msg = f"the segment header is not one of its format: {error}"
            raise UnsupportedFormatError(msg) from None

    def _input(self, number: int, message: Message) -> AnyInput:
        """The Input of that turn."""
        topic, sequence, _, publish_time, payload = message
        if sequence != number % TURN_MODULUS:
            msg = f"an input of turn {sequence} stands where turn {number} has to come"
            raise DamagedLogError(msg)
        if not is_intact(payload) or not belongs_to(topic, payload):
            msg = f"the checksum of turn {number}'s input fails"
            raise DamagedLogError(msg)
        try:
            decoded = _input_decoder.decode(self._lifter(payload) if self._lifter else payload)
        except NOT_UNDERSTOOD as error:
            writer = self.header.versions.get("fusioncharger", "?")
            msg = f"turn {number}'s input ({topic}), written by version {writer}, is unknown here: {error}"
            raise UnsupportedFormatError(msg) from None
        if publish_time != decoded.at_ns:
            msg = f"the time of turn {number}'s record is not its input's"
            raise DamagedLogError(msg)
        return decoded

    def _output(self, number: int, begun: AnyInput | None, message: Message) -> RecordedOutput:
        """An Output of that turn, which `begun` began."""
        topic, sequence, _, publish_time, payload = message
        if begun is None or sequence != number % TURN_MODULUS:
            msg = f"an output of turn {sequence} stands after the input of turn {number}"
            raise DamagedLogError(msg)
        is_in_place = publish_time == begun.at_ns and belongs_to(topic, payload)
        if self._lifter is not None:
            is_in_place = is_in_place and is_intact(payload)
            payload = self._lifter(payload) if is_in_place else payload
        return RecordedOutput(payload, is_in_place)

    def _note(self, payload: bytes, note: type[N]) -> N:
        if not is_intact(payload):
            msg = f"the checksum of the {note.__name__} note fails"
            raise DamagedLogError(msg)
        try:
            return msgspec.json.decode(self._lifter(payload) if self._lifter else payload, type=note)
        except NOT_UNDERSTOOD as error:
            msg = f"a note of an unknown kind: {error}"
            raise UnsupportedFormatError(msg) from None


_END_TOPIC = TOPICS[SegmentEnd.__name__]
_GAP_TOPIC = TOPICS[Gap.__name__]


class _FormatNumber(Struct):
    """What is read of a header before anything else is believed of it."""

    format: int


_input_decoder: msgspec.json.Decoder[AnyInput] = msgspec.json.Decoder(AnyInput)
_output_decoder: msgspec.json.Decoder[AnyOutput] = msgspec.json.Decoder(AnyOutput)


def _unknown(topic: str, payload: bytes) -> LogError:
    """A record on a channel that there is not: a later version's, if it is whole and of an unknown kind."""
    with contextlib.suppress(ValueError):
        if is_intact(payload) and type_name(payload) not in TOPICS:
            return UnsupportedFormatError(f"a record of an unknown kind: {topic}")
    return _misplaced(topic)


def _misplaced(topic: str) -> LogError:
    return DamagedLogError(f"a record stands on channel {topic!r}, where it does not belong")


def _ending(last_turn: int, end: SegmentEnd | None, damage: str) -> Ending:
    if damage:
        return Ending(EndKind.DAMAGED, last_turn, damage)
    if end is not None and end.goodbye:
        return Ending(EndKind.GOODBYE, last_turn, "")
    if end is not None and end.continues:
        return Ending(EndKind.CONTINUES, last_turn, "")
    if end is not None and end.reason:
        text = f"it could not be written any further: {end.reason}"
        return Ending(EndKind.GIVEN_UP, last_turn, f"{text} ({end.lost_bytes} bytes are left out)")
    text = "the driver ended without goodbye"
    if end is not None and end.lost_bytes:
        text += f", in the middle of a record ({end.lost_bytes} bytes of it are left out)"
    return Ending(EndKind.DRIVER_DIED, last_turn, text)


def read_log(path: Path, lifts: Mapping[int, Lift] = LIFTS) -> LogReader:
    """Open a segment and read its header. LogError."""
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # opening a FIFO waits for whoever may write to it
            msg = "not a log: a device, FIFO or socket, and not a file"
            raise NotALogError(msg)
        file = path.open("rb", buffering=0)
        beginning = file.read(len(MCAP0_MAGIC))
        file.seek(0)
    except OSError as error:
        msg = f"cannot be read: {error.strerror or error}"
        raise NotALogError(msg) from None
    try:
        _check_beginning(beginning)
        return LogReader(file, lifts)
    except BaseException:  # raised again: the file is closed on any way out
        file.close()
        raise


def _check_beginning(beginning: bytes) -> None:
    if not beginning:
        msg = "the file is empty"
        raise DamagedLogError(msg)
    if not MCAP0_MAGIC.startswith(beginning):
        is_zip = beginning.startswith(b"PK")
        msg = (
            "not a log: a zip file, which has to be unpacked first" if is_zip else "not a log: not an MCAP file"
        )
        raise NotALogError(msg)
