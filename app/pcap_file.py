"""Writes pcapng files: packets of several Ethernet interfaces with times in ns, comments and directions.

    Section Header Block         what wrote it, and a comment
    Interface Description Block  one per interface: name, description, time unit 1 ns
    Enhanced Packet Block …      interface, time, bytes, direction, comment

A block is: type u32, length u32, body padded to 4 bytes, length u32 again; an option: code u16, length u16,
value padded to 4 bytes (draft-ietf-opsawg-pcapng). Here all is little-endian.

scapy's PcapNgWriter is not used: it has times in us only, and no comment on the file or an interface.
"""

import struct
from collections.abc import Sequence
from typing import BinaryIO

from msgspec import Struct

_SECTION_HEADER = 0x0A0D0D0A
_INTERFACE = 1
_PACKET = 6

_BYTE_ORDER = 0x1A2B3C4D
_UNKNOWN_LENGTH = 0xFFFFFFFFFFFFFFFF
_LINKTYPE_ETHERNET = 1
_NANOSECONDS = 9

_COMMENT = 1
_USER_APPLICATION = 4
_NAME = 2
_DESCRIPTION = 3
_TIME_RESOLUTION = 9
_FLAGS = 2

_INBOUND = struct.pack("<I", 1)
_OUTBOUND = struct.pack("<I", 2)

_COMMENT_LIMIT_BYTES = 0xFFFF


class Interface(Struct, frozen=True):
    """A capture interface, as the reader of the file sees it."""

    name: str
    description: str


class PcapngFile:
    """A pcapng file that is being written. OSError where the disk refuses."""

    def __init__(self, file: BinaryIO, application: str, comment: str, interfaces: Sequence[Interface]) -> None:
        self.packets = [0] * len(interfaces)
        """How many were written, by interface."""
        self._file = file
        head = struct.pack("<IHHQ", _BYTE_ORDER, 1, 0, _UNKNOWN_LENGTH)
        self._block(_SECTION_HEADER, head + _options((_COMMENT, comment), (_USER_APPLICATION, application)))
        for interface in interfaces:
            options = _options(
                (_NAME, interface.name),
                (_DESCRIPTION, interface.description),
                (_TIME_RESOLUTION, bytes((_NANOSECONDS,))),
            )
            self._block(_INTERFACE, struct.pack("<HHI", _LINKTYPE_ETHERNET, 0, 0) + options)

    def packet(
        self, interface: int, utc_ns: int, frame: bytes, *, inbound: bool = False, comment: str = ""
    ) -> None:
        """Add a frame. `inbound`: the dispenser received it."""
        self.packets[interface] += 1
        head = struct.pack("<IIIII", interface, utc_ns >> 32, utc_ns & 0xFFFFFFFF, len(frame), len(frame))
        flags = (_FLAGS, _INBOUND if inbound else _OUTBOUND)
        options = _options((_COMMENT, comment), flags) if comment else _options(flags)
        self._block(_PACKET, head + _padded(frame) + options)

    def _block(self, kind: int, body: bytes) -> None:
        length = struct.pack("<I", 12 + len(body))
        self._file.write(struct.pack("<I", kind) + length + body + length)


def _options(*options: tuple[int, str | bytes]) -> bytes:
    """Encoded options with the end of options after them."""
    encoded = b""
    for code, value in options:
        data = value.encode() if isinstance(value, str) else value
        data = data[:_COMMENT_LIMIT_BYTES]
        encoded += struct.pack("<HH", code, len(data)) + _padded(data)
    return encoded + bytes(4)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
