"""GOOSE as scapy layers: for tests and tools that look at frames (protocol.md §3.1, §3.2).

    Ether / Dot1Q / Goose(apdu=GooseApdu)

What the driver sends and receives goes through goose_codec.py. Importing this module tells scapy that ethertype
0x88B8 is Goose. A layer that was dissected and not changed gives back the very same bytes.
"""

import struct
from typing import ClassVar

from scapy.asn1.ber import BER_len_dec, BER_len_enc
from scapy.fields import Field, ShortField, StrLenField, XShortField
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, bind_layers

from .goose_codec import ETHERTYPE_GOOSE

# mypy skips scapy's types (pyproject.toml): its classes are Any here, and so inheriting from them is remarked.


def _tlv(tag: int, content: bytes) -> bytes:
    length: bytes = BER_len_enc(len(content))
    return bytes((tag,)) + length + content


def _cut_tlv(data: bytes) -> tuple[int, bytes, bytes]:
    """Tag and content of the first TLV, and what follows it."""
    length, rest = BER_len_dec(data[1:])
    if length > len(rest):
        msg = f"TLV {data[0]:#04x} has {len(rest)} of its {length} bytes"
        raise ValueError(msg)
    return data[0], rest[:length], rest[length:]


class _TlvField(Field):  # type: ignore[misc]
    """Bytes in a TLV."""

    __slots__ = ("tag",)

    def __init__(self, name: str, tag: int, default: object) -> None:
        super().__init__(name, default)
        self.tag = tag

    def addfield(self, _packet: Packet, built: bytes, value: object) -> bytes:
        return built + _tlv(self.tag, self.content_of(value))

    def getfield(self, _packet: Packet, data: bytes) -> tuple[bytes, object]:
        tag, content, rest = _cut_tlv(data)
        if tag != self.tag:
            msg = f"{self.name}: found tag {tag:#04x} instead of {self.tag:#04x}"
            raise ValueError(msg)
        return rest, self.value_of(content)

    def content_of(self, value: object) -> bytes:
        return bytes(value)  # type: ignore[call-overload, no-any-return] # bytes or GooseApdu

    def value_of(self, content: bytes) -> object:
        return content


class _NumberField(_TlvField):
    """An integer in a TLV, built with `size` bytes."""

    __slots__ = ("size",)

    def __init__(self, name: str, tag: int, default: int, size: int = 4) -> None:
        super().__init__(name, tag, default)
        self.size = size

    def content_of(self, value: int) -> bytes:  # type: ignore[override]
        return value.to_bytes(self.size, "big")

    def value_of(self, content: bytes) -> int:
        return int.from_bytes(content, "big")


class _EntriesField(_TlvField):
    """The data entries: an int is a u16, a float an f32."""

    islist = 1

    def content_of(self, value: list[float]) -> bytes:  # type: ignore[override]
        return b"".join(
            _tlv(0x86, struct.pack(">H", entry))
            if isinstance(entry, int)
            else _tlv(0x87, struct.pack(">f", entry))
            for entry in value
        )

    def value_of(self, content: bytes) -> list[float]:
        entries: list[float] = []
        while content:
            tag, value, content = _cut_tlv(content)
            entries += struct.unpack(">f", value) if tag == 0x87 else (int.from_bytes(value, "big"),)
        return entries


class _ApduField(_TlvField):
    """The APDU as a layer of its own."""

    holds_packets = 1

    def value_of(self, content: bytes) -> "GooseApdu":
        return GooseApdu(content)


class GooseApdu(Packet):  # type: ignore[misc]
    """goosePdu of IEC 61850-8-1, without its tag."""

    name = "GOOSE APDU"
    fields_desc: ClassVar[list[Field]] = [
        _TlvField("goCbRef", 0x80, b""),
        _NumberField("timeAllowedToLive", 0x81, 10_000),
        _TlvField("datSet", 0x82, b""),
        _TlvField("goID", 0x83, b""),
        _TlvField("t", 0x84, bytes(8)),
        _NumberField("stNum", 0x85, 1),
        _NumberField("sqNum", 0x86, 0),
        _NumberField("simulation", 0x87, 0, size=1),
        _NumberField("confRev", 0x88, 1),
        _NumberField("ndsCom", 0x89, 0, size=1),
        _NumberField("numDatSetEntries", 0x8A, 0),
        _EntriesField("allData", 0xAB, []),
    ]


class Goose(Packet):  # type: ignore[misc]
    """GOOSE header, APDU and extension; what follows the extension is padding."""

    name = "GOOSE"
    fields_desc: ClassVar[list[Field]] = [
        XShortField("appid", 0),
        ShortField("length", None),
        XShortField("reserved1", 0),
        XShortField("reserved2", 0),
        _ApduField("apdu", 0x61, GooseApdu()),
        StrLenField("extension", b"", length_from=lambda packet: packet.reserved1 & 0xFF),
    ]

    def post_build(self, built: bytes, payload: bytes) -> bytes:
        if self.length is None:
            length = len(built) - len(self.extension)
            built = built[:2] + length.to_bytes(2, "big") + built[4:]
        return built + payload

    def extract_padding(self, data: bytes) -> tuple[bytes, bytes]:
        return b"", data


bind_layers(Ether, Goose, type=ETHERTYPE_GOOSE)
bind_layers(Dot1Q, Goose, type=ETHERTYPE_GOOSE)
