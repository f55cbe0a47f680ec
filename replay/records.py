"""Reads the records of a log file, plain or compressed, one after another (log_format.py).

A struct parser of the records that matter, several times as fast as the StreamReader of the mcap package, which
is the reference in the tests. It believes nothing: a length is checked before memory is taken for it, a chunk
before it is opened, and a kind of record that does not belong where it stands is damage, since a message whose
opcode was altered would else be passed over in silence.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import BinaryIO, NoReturn, TypeVar

import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, Header, Metadata, MetadataIndex
from mcap.writer import MCAP0_MAGIC

from .log_format import RECORD_LIMIT_BYTES

READ_BYTES = 2**20

R = TypeVar("R")

Message = tuple[str, int, int, int, bytes]
"""topic, sequence (turn), log_time (UTC, ns), publish_time (monotonic, ns), payload"""

_HEAD = struct.Struct("<BQ")
_MESSAGE = struct.Struct("<HIQQ")
_FOOTER_BYTES = 20
_FOOTER = struct.Struct("<QQI")


class RecordError(Exception):
    """The file is not whole from here on. The text is for the user."""


class RecordReader:
    """The records of one file. `messages` once."""

    def __init__(self, file: BinaryIO) -> None:
        """`file` stands at its beginning, and its magic has been looked at."""
        self.profile: str | None = None
        """Of the MCAP header, once that has been read."""
        self.metadata: dict[str, dict[str, str]] = {}
        """Metadata records by name, as they come."""
        self.has_chunks = False
        """Whether a chunk has been read: the file is a compressed one."""
        self.whole_bytes = len(MCAP0_MAGIC)
        """Up to here, all has been read and is whole."""
        self._file = file
        self._data = b""
        self._at = 0
        self._discarded_bytes = 0
        """Of the file, before `_data`."""
        self._topics: dict[int, str] = {}

    def read_profile(self) -> str:
        """The profile, from the first record. RecordError."""
        self._need(len(MCAP0_MAGIC))
        self._at = len(MCAP0_MAGIC)
        opcode, content = self._record()
        if opcode != Opcode.HEADER:
            msg = f"the record at byte {self.whole_bytes} cannot be read: no MCAP header"
            raise RecordError(msg)
        self.profile = self._parsed(Header.read, content).profile
        self._advance(len(content))
        return self.profile

    def messages(self) -> Iterator[Message]:
        """All messages, in their order. RecordError where the file is not whole."""
        message_opcode, head_bytes, message_bytes = int(Opcode.MESSAGE), _HEAD.size, _MESSAGE.size
        unpack_head, unpack_message, topics = _HEAD.unpack_from, _MESSAGE.unpack_from, self._topics
        is_indexed = False
        while True:
            # The messages that lie whole in the buffer, without a call for each.
            data, at = self._data, self._at
            last = len(data) - head_bytes - message_bytes
            while at <= last:
                opcode, length = unpack_head(data, at)
                end = at + head_bytes + length
                if opcode != message_opcode or end > len(data) or length < message_bytes:
                    break
                channel, sequence, log_time, publish_time = unpack_message(data, at + head_bytes)
                topic = topics.get(channel)
                if topic is None:
                    break
                yield topic, sequence, log_time, publish_time, data[at + head_bytes + message_bytes : end]
                at = end
                is_indexed = False
            self._at = at
            self.whole_bytes = self._discarded_bytes + at
            opcode, content = self._record()
            if opcode == Opcode.CHUNK:
                yield from self._chunk(content)
                is_indexed = True
            elif opcode == Opcode.MESSAGE:
                yield self._message(content)
                is_indexed = False
            elif opcode in (Opcode.SCHEMA, Opcode.CHANNEL, Opcode.METADATA):
                self._describe(opcode, content)
                is_indexed = False
            elif opcode == Opcode.DATA_END:
                self._advance(len(content))
                break
            elif not (opcode == Opcode.MESSAGE_INDEX and is_indexed):
                self._fail(f"a record of kind 0x{opcode:02x} does not belong here")
            self._advance(len(content))
        self._read_end()

    # --- inside --------------------------------------------------------------------------------------------

    def _record(self) -> tuple[int, bytes]:
        """The next record's kind and content; `_advance` goes on to the one after it."""
        self._need(_HEAD.size)
        opcode, length = _HEAD.unpack_from(self._data, self._at)
        if length > RECORD_LIMIT_BYTES:
            self._fail(f"a length of {length} bytes")
        self._need(_HEAD.size + length)
        start = self._at + _HEAD.size
        return opcode, self._data[start : start + length]

    def _advance(self, content_bytes: int) -> None:
        self._at += _HEAD.size + content_bytes
        self.whole_bytes = self._discarded_bytes + self._at

    def _need(self, count: int) -> None:
        """Let the next `count` bytes stand in the buffer."""
        missing = count - (len(self._data) - self._at)
        if missing <= 0:
            return
        try:
            more = self._file.read(max(missing, READ_BYTES))
            while len(more) < missing and (part := self._file.read(missing - len(more))):
                more += part
        except OSError as error:
            self._fail(error.strerror or str(error))
        self._discarded_bytes += self._at
        self._data = self._data[self._at :] + more
        self._at = 0
        if len(more) < missing:
            size = self._discarded_bytes + len(self._data)
            whole = self.whole_bytes
            cut = f"the file ends inside a record (whole up to byte {whole} of {size})"
            raise RecordError("the file was not closed" if whole == size else cut)

    def _message(self, content: bytes) -> Message:
        """A message that did not lie whole in the buffer, or that is odd."""
        if len(content) < _MESSAGE.size:
            self._fail("a message that is too short")
        channel, sequence, log_time, publish_time = _MESSAGE.unpack_from(content)
        topic = self._topics.get(channel)
        if topic is None:
            msg = f"a record is of channel {channel}, which there is not"
            raise RecordError(msg)
        return topic, sequence, log_time, publish_time, content[_MESSAGE.size :]

    def _describe(self, opcode: int, content: bytes) -> None:
        if opcode == Opcode.CHANNEL:
            channel = self._parsed(Channel.read, content)
            self._topics[channel.id] = channel.topic
        elif opcode == Opcode.METADATA:
            metadata = self._parsed(Metadata.read, content)
            self.metadata[metadata.name] = metadata.metadata

    def _chunk(self, content: bytes) -> Iterator[Message]:
        """The messages of a chunk, once all of it has proved to be whole."""
        self.has_chunks = True
        chunk = self._parsed(Chunk.read, content)
        if chunk.uncompressed_size > RECORD_LIMIT_BYTES:
            self._fail(f"a chunk of {chunk.uncompressed_size} bytes")
        if chunk.compression not in ("zstd", ""):
            self._fail(f"a chunk with compression {chunk.compression!r}")
        try:
            data = chunk.data
            if chunk.compression:
                data = decompressed(data, chunk.uncompressed_size)
        except zstandard.ZstdError as error:
            self._fail(str(error))
        if len(data) != chunk.uncompressed_size or zlib.crc32(data) != chunk.uncompressed_crc:
            self._fail("the checksum of a chunk fails")
        unpack_head, unpack_message, topics = _HEAD.unpack_from, _MESSAGE.unpack_from, self._topics
        message_opcode, head_bytes, message_bytes = int(Opcode.MESSAGE), _HEAD.size, _MESSAGE.size
        at = 0
        while at < len(data):
            try:
                opcode, length = unpack_head(data, at)
                start = at + head_bytes
                at = start + length
                if opcode == message_opcode:
                    channel, sequence, log_time, publish_time = unpack_message(data, start)
                    yield topics[channel], sequence, log_time, publish_time, data[start + message_bytes : at]
                else:
                    self._describe(opcode, data[start:at])
            except (struct.error, KeyError) as error:
                self._fail(f"a chunk with a wrong record in it: {error}")

    def _read_end(self) -> None:
        """What comes after the messages: an index, the footer and the magic, and nothing more."""
        while True:
            opcode, content = self._record()
            self._advance(len(content))
            if opcode == Opcode.FOOTER:
                break
        self._need(len(MCAP0_MAGIC))
        if self._data[self._at :] + self._file.read(1) != MCAP0_MAGIC:
            self._fail("the file does not end as it should")

    def _parsed(self, parse: Callable[[ReadDataStream], R], content: bytes) -> R:
        try:
            return parse(ReadDataStream(BytesIO(content)))
        except (McapError, ValueError, OverflowError, struct.error) as error:  # OverflowError: a length in it
            self._fail(str(error) or "it ends too early")

    def _fail(self, why: str) -> NoReturn:
        msg = f"the record at byte {self.whole_bytes} cannot be read: {why}"
        raise RecordError(msg) from None


def decompressed(data: bytes, size_bytes: int) -> bytes:
    """The content of a zstd frame that is to have so many bytes. zstandard.ZstdError."""
    # If the frame itself tells a size, that decides how much memory is taken, not max_output_size.
    told_bytes = zstandard.frame_content_size(data)
    if told_bytes not in (-1, size_bytes):  # -1: it tells none
        msg = f"a chunk of {size_bytes} bytes that wants to be {told_bytes}"
        raise zstandard.ZstdError(msg)
    return zstandard.ZstdDecompressor().decompress(data, max_output_size=size_bytes)


def read_metadata(file: BinaryIO, name: str) -> dict[str, str] | None:
    """A metadata record, found through the index at the end of the file; None if there is none, or no index."""
    ending = _FOOTER_BYTES + len(MCAP0_MAGIC)
    try:
        file.seek(-ending, 2)
        end = file.tell()
        summary_start, _, _ = _FOOTER.unpack(file.read(ending)[:_FOOTER_BYTES])
        if not 0 < summary_start < end or end - summary_start > RECORD_LIMIT_BYTES:
            return None
        file.seek(summary_start)
        data = file.read(end - summary_start)
        at, found = 0, None
        while at + _HEAD.size <= len(data):
            opcode, length = _HEAD.unpack_from(data, at)
            at += _HEAD.size + length
            if opcode != Opcode.METADATA_INDEX:
                continue
            index = MetadataIndex.read(ReadDataStream(BytesIO(data[at - length : at])))
            if index.name == name and _HEAD.size <= index.length <= RECORD_LIMIT_BYTES:
                found = index  # the last one: a disk that was full may have undone a former attempt
        if found is not None:
            file.seek(found.offset + _HEAD.size)
            metadata = Metadata.read(ReadDataStream(BytesIO(file.read(found.length - _HEAD.size))))
            return dict(metadata.metadata)
    except (McapError, OSError, ValueError, OverflowError, struct.error):
        pass  # cut, altered, or no MCAP file at all: reading it will tell
    return None
