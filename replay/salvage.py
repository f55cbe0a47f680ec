"""The whole records of a damaged log file, whatever lies between them.

    ┌ record ┬ record ┬ ??????????????????? ┬ record ┬ record ┐
    └ proved ┴ proved ┘   searched for the  └ proved ┴ … ─────┘
                          next whole record

Rules:
- A message is believed if its checksum holds, a chunk if its own does. All else (schemas, channels) only leads
  from one to the next; where it leads nowhere, the next whole record is searched for from the last one that was
  proved.
- What a message is, its own tag says: the channel that would say it may be lost.
- A block of the file, or a record, is in memory at a time.
"""

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import BinaryIO

import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Chunk
from mcap.writer import MCAP0_MAGIC
from msgspec import Struct

from .log_format import RECORD_LIMIT_BYTES, TOPICS, is_intact, type_name
from .records import decompressed

BLOCK_BYTES = 2**16
SEARCH_FACTOR = 16
"""So often at most is a byte looked at in searching. Records that begin in one another, which no accident
makes, would else take a time that grows with the square of the file."""

_HEAD = struct.Struct("<BQ")
_MESSAGE = struct.Struct("<HIQQ")
_PAYLOAD_BEGINNING = b'{"type":"'
_PAYLOAD_AT = _HEAD.size + _MESSAGE.size
_COMPRESSION = b"\x04\x00\x00\x00zstd"
_COMPRESSION_AT = _HEAD.size + 8 + 8 + 8 + 4
"""In a chunk: after its times, its size and its checksum."""
_PATTERNS = ((_PAYLOAD_BEGINNING, _PAYLOAD_AT), (_COMPRESSION, _COMPRESSION_AT))
"""What a record that can be proved has in it, and how far from its beginning."""
_OTHERS = frozenset((Opcode.HEADER, Opcode.SCHEMA, Opcode.CHANNEL, Opcode.METADATA, Opcode.MESSAGE_INDEX))


class Whole(Struct, frozen=True, gc=False):
    """A message whose checksum holds."""

    tag: str
    sequence: int
    utc_ns: int
    at_ns: int
    payload: bytes
    lost_bytes: int
    """So many bytes before it are no whole record."""


class Salvage:
    """The whole records of one file. `messages` once. OSError."""

    def __init__(self, file: BinaryIO) -> None:
        self.at = len(MCAP0_MAGIC)
        """Up to here, the file has been gone through."""
        self.lost_at_end_bytes = 0
        """After the last whole record, if the file does not end as it should."""
        self._file = file
        self._size = file.seek(0, 2)
        self._proved = len(MCAP0_MAGIC)
        """Where the last record ends that was proved."""
        self._lost_bytes = 0
        """Since the last message."""
        self._search_bytes = 0
        """Looked at, to see whether it is a whole record."""

    def messages(self) -> Iterator[Whole]:
        """All of them, in their order."""
        is_closed = False
        while True:
            opcode, content = self._record(self.at)
            found = self._whole(opcode, content)
            if found:
                self.at += _HEAD.size + len(content)
                self._proved = self.at
                yield from found
            elif opcode in _OTHERS:
                self.at += _HEAD.size + len(content)
            else:
                is_closed = opcode == Opcode.DATA_END and len(content) == 4
                begin = self._next_whole(self._proved)
                if begin is None:
                    break
                self._lost_bytes += begin - self._proved
                self.at = begin
        self.lost_at_end_bytes = 0 if is_closed else self._size - self._proved
        self.at = self._size

    # --- inside --------------------------------------------------------------------------------------------

    def _record(self, at: int) -> tuple[int, bytes]:
        """Kind and content of what begins there; 0 if that is no record."""
        self._file.seek(at)
        head = self._file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return 0, b""
        opcode, length = _HEAD.unpack(head)
        if length > RECORD_LIMIT_BYTES or at + _HEAD.size + length > self._size:
            return 0, b""
        return opcode, self._file.read(length)

    def _whole(self, opcode: int, content: bytes) -> list[Whole]:
        """The messages that a record is or holds, if it is whole; none if it is not."""
        if opcode == Opcode.MESSAGE:
            found = self._message(content)
            return [] if found is None else [found]
        return self._chunk(content) if opcode == Opcode.CHUNK else []

    def _message(self, content: bytes) -> Whole | None:
        payload = content[_MESSAGE.size :]
        if not payload.startswith(_PAYLOAD_BEGINNING) or not is_intact(payload):
            return None
        _, sequence, utc_ns, at_ns = _MESSAGE.unpack_from(content)
        try:
            tag = type_name(payload)
        except ValueError:  # whoever altered it sealed it again
            return None
        lost_bytes, self._lost_bytes = self._lost_bytes, 0
        return Whole(tag, sequence, utc_ns, at_ns, payload, lost_bytes) if tag in TOPICS else None

    def _chunk(self, content: bytes) -> list[Whole]:
        try:
            chunk = Chunk.read(ReadDataStream(BytesIO(content)))
            data, size = chunk.data, chunk.uncompressed_size
            if size > RECORD_LIMIT_BYTES or chunk.compression not in ("zstd", ""):
                return []
            if chunk.compression:
                data = decompressed(data, size)
        except (McapError, ValueError, OverflowError, struct.error, zstandard.ZstdError):
            return []
        if zlib.crc32(data) != chunk.uncompressed_crc:
            return []
        found = []
        at = 0
        while at + _HEAD.size <= len(data):
            opcode, length = _HEAD.unpack_from(data, at)
            length = min(length, len(data))
            start, at = at + _HEAD.size, at + _HEAD.size + length
            message = self._message(data[start:at]) if opcode == Opcode.MESSAGE else None
            if message is not None:
                found.append(message)
            elif opcode == Opcode.MESSAGE:
                self._lost_bytes += length  # it was altered before it was compressed
        return found

    def _next_whole(self, begin: int) -> int | None:
        """Where the next whole record begins, searched for from there on."""
        margin = _COMPRESSION_AT + len(_COMPRESSION)
        while begin < self._size:
            self._file.seek(begin)
            block = self._file.read(BLOCK_BYTES + margin)
            for candidate in _candidates(block, BLOCK_BYTES):
                at = begin + candidate
                if at >= self._proved and self._whole_at(at):
                    return at
            begin += BLOCK_BYTES
        return None

    def _whole_at(self, at: int) -> bool:
        if self._search_bytes > SEARCH_FACTOR * self._size:
            return False
        lost_bytes = self._lost_bytes
        opcode, content = self._record(at)
        self._search_bytes += len(content)
        found = self._whole(opcode, content)
        self._lost_bytes = lost_bytes
        return bool(found)


def _candidates(block: bytes, end: int) -> Iterator[int]:
    """Where in a block a record may begin, before `end`, in order."""
    found = {pattern: block.find(pattern, offset) for pattern, offset in _PATTERNS}
    while True:
        begins = [(found[pattern] - offset, pattern) for pattern, offset in _PATTERNS if found[pattern] >= 0]
        if not begins:
            return
        begin, pattern = min(begins)
        if begin >= end:
            return
        yield begin
        found[pattern] = block.find(pattern, found[pattern] + 1)
