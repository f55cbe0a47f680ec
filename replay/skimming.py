"""The few messages of a log that matter, fast: all others are stepped over by their heads.

Rules:
- What is stepped over is neither decoded nor checked; what is handed on has to be checked by its CRC.
- Reading stops at the first record that is broken; what came before it counts.
- Files are read, not mapped: a bad block of the disk then is an error, where it would kill the process.

    record   ┌ opcode u8 ┬ length u64 ┬ … length bytes                                        (little-endian)
    message  └    0x05   ┴            ┴ channel u16, sequence u32, log_time u64, publish_time u64, payload
"""

import os
import struct
from collections.abc import Iterator

from mcap.opcode import Opcode

from .log_format import PROFILE, RECORD_LIMIT_BYTES

BLOCK_BYTES = 2**20

MAGIC = b"\x89MCAP0\r\n"
"""As in mcap.writer, whose import would cost 8 ms."""

# As numbers, because an Enum's member is no match for one, and slow to look up.
_HEADER, _SCHEMA = Opcode.HEADER.value, Opcode.SCHEMA.value
_CHANNEL, _MESSAGE, _DATA_END = Opcode.CHANNEL.value, Opcode.MESSAGE.value, Opcode.DATA_END.value
_CHUNK, _METADATA = Opcode.CHUNK.value, Opcode.METADATA.value

_HEAD = struct.Struct("<BQ")
_HEAD_AND_ID = struct.Struct("<BQH")
"""A message's or a channel's head, with the channel's number. Any other record is that long as well."""
_MESSAGE_HEAD = struct.Struct("<HIQQ")
_CHANNEL_HEAD = struct.Struct("<HHI")
_STRING = struct.Struct("<I")


class UnusableLogError(Exception):
    """The log tells nothing. The text says why; empty: its process ended before it began."""


class _CompressedLogError(Exception):
    """The log is a compressed one."""


class DamagedLogError(Exception):
    """The log is not whole. The text says where."""


def skim(descriptor: int, wanted: frozenset[str]) -> Iterator[tuple[str, bytes]]:
    """Topic and payload of the messages on the wanted topics, up to the end. UnusableLogError, DamagedLogError
    where the file is not whole, OSError."""
    try:
        yield from _plain(descriptor, wanted)
    except _CompressedLogError:
        yield from _compressed(descriptor, wanted)


def _plain(descriptor: int, wanted: frozenset[str]) -> Iterator[tuple[str, bytes]]:
    """Of a log that is not compressed; else _CompressedLogError, before anything else."""
    size = os.fstat(descriptor).st_size
    at = _check_beginning(os.pread(descriptor, BLOCK_BYTES, 0))
    topics: dict[int, str] = {}
    """Of each channel; "" of one that does not matter."""
    while True:
        block = os.pread(descriptor, BLOCK_BYTES, at)
        begin, here, last = 0, 0, len(block) - _HEAD_AND_ID.size
        while here <= last:
            opcode, length, channel = _HEAD_AND_ID.unpack_from(block, here)
            end = here + _HEAD.size + length
            if opcode != _MESSAGE or topics.get(channel) != "":
                if opcode == _DATA_END:
                    return
                if at + end > size or length > RECORD_LIMIT_BYTES:
                    raise _cut(at + here, size)
                body = _body(descriptor, block, at, here + _HEAD.size, end)
                if opcode == _CHANNEL:
                    topics[channel] = _topic(body, wanted)
                elif opcode == _MESSAGE and channel in topics:
                    yield topics[channel], body[_MESSAGE_HEAD.size :]
                elif opcode == _CHUNK:
                    raise _CompressedLogError
                elif opcode not in {_SCHEMA, _METADATA}:
                    raise _cut(at + here, size)
            begin, here = here, end
        if at + here > size:
            raise _cut(at + begin, size)
        at += here
        if at + _HEAD_AND_ID.size > size or here == 0:
            raise _cut(at, size)


def _compressed(descriptor: int, wanted: frozenset[str]) -> Iterator[tuple[str, bytes]]:
    """Of a compressed log, which is read whole."""
    from .records import RecordError, RecordReader  # noqa: PLC0415 - most starts need no decompressor

    with os.fdopen(os.dup(descriptor), "rb", buffering=0) as file:
        file.seek(0)
        reader = RecordReader(file)
        try:
            reader.read_profile()
            for topic, _, _, _, payload in reader.messages():
                if topic in wanted:
                    yield topic, payload
        except RecordError as error:
            raise DamagedLogError(str(error)) from None


def _body(descriptor: int, block: bytes, at: int, start: int, end: int) -> bytes:
    """The bytes `start` to `end` of the block that begins at byte `at` of the file, also beyond its end."""
    if end <= len(block):
        return block[start:end]
    return os.pread(descriptor, end - start, at + start)


def _check_beginning(block: bytes) -> int:
    """Where the records after the MCAP header begin. UnusableLogError."""
    problem, end = "", 0
    try:
        opcode, length = _HEAD.unpack_from(block, len(MAGIC))
        start = len(MAGIC) + _HEAD.size
        (profile_bytes,) = _STRING.unpack_from(block, start)
        profile = block[start + _STRING.size :][:profile_bytes]
        end = start + length
        if not block.startswith(MAGIC) or opcode != _HEADER or profile != PROFILE.encode() or end > len(block):
            problem = "not a log of this driver"
    except struct.error:
        problem = "the file is empty or cut short at its very beginning"
    if problem:
        raise UnusableLogError(problem)
    return end


def _topic(channel: bytes, wanted: frozenset[str]) -> str:
    """The channel record's topic, if it matters. DamagedLogError."""
    try:
        *_, length = _CHANNEL_HEAD.unpack_from(channel)
        topic = channel[_CHANNEL_HEAD.size :][:length].decode()
    except (struct.error, UnicodeDecodeError):
        msg = "a channel is damaged"
        raise DamagedLogError(msg) from None
    return topic if topic in wanted else ""


def _cut(whole: int, size: int) -> DamagedLogError:
    if whole == size:
        return DamagedLogError("the file was not closed: what was recorded last may be missing")
    return DamagedLogError(f"whole only up to byte {whole} of {size}; what came after is not known")
