"""An MCAP file without chunks, as the recorder writes it.

mcap's own Writer makes the same bytes (a test compares them), but takes three times as long for a message, and
messages are what a recorder writes. All other records are made by mcap.
"""

import struct
import zlib
from collections import defaultdict
from typing import Protocol

from mcap.data_stream import RecordBuilder
from mcap.opcode import Opcode
from mcap.records import (
    Channel,
    DataEnd,
    Footer,
    Header,
    McapRecord,
    Metadata,
    MetadataIndex,
    Schema,
    Statistics,
    SummaryOffset,
)
from mcap.writer import LIBRARY_IDENTIFIER, MCAP0_MAGIC

_MESSAGE = struct.Struct("<BQHIQQ")
"""Opcode, length, channel, sequence, log time, publish time; then the data (mcap.dev/spec, Message)."""
_MESSAGE_HEAD_BYTES = _MESSAGE.size - 9
_FOOTER_BEGINNING = struct.Struct("<BQQQ")
_FOOTER_BYTES = 20


class Output(Protocol):
    """Where the file goes."""

    def write(self, data: bytes, /) -> int:
        """As a file's."""

    def tell(self) -> int:
        """As a file's."""


class McapFile:
    """Written from its beginning to its end. What the output raises comes through."""

    def __init__(self, output: Output, profile: str) -> None:
        self._output = output
        self._schemas = self._messages = 0
        self._channels: dict[int, int] = defaultdict(int)
        """Messages of each, by its number."""
        self._first_ns = self._last_ns = 0
        self._metadata: list[MetadataIndex] = []
        output.write(MCAP0_MAGIC)
        self._write(Header(profile, LIBRARY_IDENTIFIER))

    def add_channel(self, topic: str, message_encoding: str, schema: tuple[str, str, bytes]) -> int:
        """A channel with a schema of its own (name, encoding, text); its number."""
        self._schemas += 1
        number = self._schemas
        name, encoding, text = schema
        self._channels[number] = 0
        self._write(Schema(id=number, data=text, encoding=encoding, name=name))
        self._write(
            Channel(id=number, topic=topic, message_encoding=message_encoding, schema_id=number, metadata={})
        )
        return number

    def add_message(self, channel: int, log_ns: int, data: bytes, publish_ns: int, sequence: int) -> None:
        """A message. struct.error if a number does not fit."""
        head = _MESSAGE.pack(
            Opcode.MESSAGE, _MESSAGE_HEAD_BYTES + len(data), channel, sequence, log_ns, publish_ns
        )
        self._output.write(head + data)
        if not self._messages or log_ns < self._first_ns:
            self._first_ns = log_ns
        self._last_ns = max(self._last_ns, log_ns)
        self._messages += 1
        self._channels[channel] += 1

    def add_metadata(self, name: str, data: dict[str, str]) -> None:
        """A metadata record, which the file's end points to."""
        offset = self._output.tell()
        length = self._write(Metadata(name=name, metadata=data))
        self._metadata.append(MetadataIndex(offset=offset, length=length, name=name))

    def finish(self) -> None:
        """The end: statistics, where the metadata are, and the footer."""
        self._write(DataEnd(0))
        start = self._output.tell()
        summary = RecordBuilder()
        statistics = Statistics(
            attachment_count=0,
            channel_count=len(self._channels),
            channel_message_counts={channel: count for channel, count in self._channels.items() if count},
            chunk_count=0,
            message_count=self._messages,
            message_end_time=self._last_ns,
            message_start_time=self._first_ns,
            metadata_count=len(self._metadata),
            schema_count=self._schemas,
        )
        offsets = []
        for opcode, group in ((Opcode.STATISTICS, [statistics]), (Opcode.METADATA_INDEX, self._metadata)):
            group_start = summary.count
            for record in group:
                record.write(summary)
            offsets.append(
                SummaryOffset(
                    group_opcode=opcode,
                    group_start=start + group_start,
                    group_length=summary.count - group_start,
                )
            )
        offsets_start = start + summary.count
        for offset in offsets:
            offset.write(summary)
        data: bytes = summary.end()  # type: ignore[no-untyped-call]  # mcap leaves it without annotations
        self._output.write(data)
        beginning = _FOOTER_BEGINNING.pack(Opcode.FOOTER, _FOOTER_BYTES, start, offsets_start)
        crc = zlib.crc32(beginning, zlib.crc32(data))
        self._write(Footer(summary_start=start, summary_offset_start=offsets_start, summary_crc=crc))
        self._output.write(MCAP0_MAGIC)

    def _write(self, record: McapRecord) -> int:
        builder = RecordBuilder()
        record.write(builder)
        return self._output.write(builder.end())  # type: ignore[no-untyped-call]
