"""The APDU of a GOOSE frame: each message's constant layout, and any other's fields (protocol.md §3.1, §3.2).

    61 ┌ 80 gocbRef, 81 timeAllowedToLive, 82 datSet, 83 goID, 84 t, 85 stNum, 86 sqNum, 87 simulation,
       └ 88 confRev, 89 ndsCom, 8A numDatSetEntries, AB allData: tag, length, value of each entry

What we send has each field in one length, so that a struct packs and unpacks all of it. Another sender may
write lengths otherwise: that is read field by field.
"""

import struct

from ..messages.goose import UNUSED, GooseHeader, GooseMessage, PowerRequest, PowerRequestReply, StopRequest
from ..messages.types import PowerRequestMode, RequirementType, StopReason
from .goose_refusal import GooseError, Refusal

ETHERTYPE_GOOSE = 0x88B8
EXTENSION_BYTES = 3 + 32
"""Tag and length, and the HMAC."""


def _crc16_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0xA001 if value & 1 else 0)  # noqa: PLW2901 - the textbook's shift register
        table.append(value)
    return tuple(table)


_CRC16 = _crc16_table()


def crc16(data: bytes) -> int:
    """CRC-16 as in Modbus RTU: polynomial 0xA001 reflected, initial 0xFFFF."""
    crc = 0xFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC16[(crc ^ byte) & 0xFF]
    return crc


def _ber(tag: int, content: bytes) -> bytes:
    """A TLV whose length fits one byte, in short or in long form."""
    length = bytes((len(content),)) if len(content) < 0x80 else bytes((0x81, len(content)))
    return bytes((tag,)) + length + content


_TAG_OF_KIND = {"H": 0x8602, "f": 0x8704, "I": 0x8704}
"""struct's letter of a data entry → its tag and length. A received f32 is kept as bits: I."""

# The parts of the APDU that vary, between those that do not; tag and length of a field are one H.
_VARYING = ">HHHHH {}s I {}s II HI HI H? HI H? {}s {}s"
_TAGS = (_ST_NUM, _SQ_NUM, _SIMULATION, _CONF_REV, _NDS_COM) = (0x8504, 0x8604, 0x8701, 0x8804, 0x8901)


class Layout:
    """The constant parts of one kind of message on the wire, made once."""

    def __init__(self, message: type[GooseMessage], kinds: str) -> None:
        self.message = message
        self.reference = message.reference.encode("ascii") + b"\0"
        self.entry_count = len(kinds)
        self.entry_tags = [_TAG_OF_KIND[kind] for kind in kinds]
        self.entries = struct.Struct(">" + "".join("H" + kind for kind in kinds))

        # Content of the APDU, cut where a varying field stands.
        self.head = _ber(0x80, self.reference) + b"\x81\x04"
        self.names = _ber(0x82, self.reference) + _ber(0x83, self.reference) + b"\x84\x08"
        self.all_data = b"\x8a\x04" + struct.pack(">I", len(kinds)) + bytes((0xAB, self.entries.size))
        content_bytes = len(self.head) + 4 + len(self.names) + 8 + 6 + 6 + 3 + 6 + 3 + len(self.all_data)
        content_bytes += self.entries.size
        self.head = _ber(0x61, bytes(content_bytes))[:-content_bytes] + self.head

        self.body = struct.Struct(
            _VARYING.format(len(self.head), len(self.names), len(self.all_data), self.entries.size)
        )
        length = self.body.size - 2
        self.plain_header = (ETHERTYPE_GOOSE, message.app_id, length, 0, 0)
        signed_start = (ETHERTYPE_GOOSE, message.app_id, length, EXTENSION_BYTES)
        self.signed_header = (*signed_start, crc16(struct.pack(">HHHH", *signed_start)))

    def pack(self, message: GooseMessage, header: GooseHeader, *, is_signed: bool) -> bytes:
        """From the ethertype to the end of the APDU. struct.error, OverflowError."""
        entries: list[float] = [0] * (2 * self.entry_count)
        entries[::2] = self.entry_tags
        entries[1::2] = _entry_values(message)
        return self.body.pack(
            *(self.signed_header if is_signed else self.plain_header),
            self.head,
            header.time_allowed_to_live_ms,
            self.names,
            header.t_seconds,
            header.t_fraction << 8 | header.t_quality,
            _ST_NUM,
            header.st_num,
            _SQ_NUM,
            header.sq_num,
            _SIMULATION,
            header.simulation,
            _CONF_REV,
            header.conf_rev,
            _NDS_COM,
            header.nds_com,
            self.all_data,
            self.entries.pack(*entries),
        )


LAYOUTS: dict[type[GooseMessage], Layout] = {
    PowerRequest: Layout(PowerRequest, "HHHHffHH"),
    PowerRequestReply: Layout(PowerRequestReply, "HHHHHIIHH"),
    StopRequest: Layout(StopRequest, "HHHHH"),
}
LAYOUT_OF_APP_ID = {message.app_id: layout for message, layout in LAYOUTS.items()}


def _entry_values(message: GooseMessage) -> tuple[float, ...]:
    match message:
        case PowerRequest():
            return (
                message.connector_no,
                message.charging_sn,
                message.requirement_type,
                message.mode,
                message.voltage_v,
                message.current_a,
                UNUSED,
                UNUSED,
            )
        case PowerRequestReply():
            return (
                message.connector_no,
                message.charging_sn,
                message.requirement_type,
                message.result,
                message.mode,
                message.voltage_bits,
                message.current_bits,
                UNUSED,
                UNUSED,
            )
        case StopRequest():
            return (message.connector_no, message.charging_sn, message.reason, UNUSED, UNUSED)


def _tlv(data: bytes, position: int, end: int, tag: int) -> tuple[int, int]:
    """Start and end of the content of the TLV at `position`, which must have this tag and end by `end`."""
    if position + 2 > end or data[position] != tag:
        raise GooseError(Refusal.UNDECODABLE)
    length = data[position + 1]
    start = position + 2
    if length >= 0x80:
        # Long form: that many bytes of length follow. 0x80 itself is BER's indefinite form, not used here.
        length_bytes = length & 0x7F
        if not 1 <= length_bytes <= 4 or start + length_bytes > end:
            raise GooseError(Refusal.UNDECODABLE)
        length = int.from_bytes(data[start : start + length_bytes], "big")
        start += length_bytes
    if start + length > end:
        raise GooseError(Refusal.UNDECODABLE)
    return start, start + length


def _name(data: bytes, position: int, end: int, tag: int, layout: Layout) -> int:
    """Check that a name is the message's; where the next TLV starts."""
    start, stop = _tlv(data, position, end, tag)
    if data[start:stop] != layout.reference:
        raise GooseError(Refusal.WRONG_GOID)
    return stop


def _unsigned(data: bytes, position: int, end: int, tag: int) -> tuple[int, int]:
    """An integer of 1 to 4 bytes, and where the next TLV starts."""
    start, stop = _tlv(data, position, end, tag)
    if not 1 <= stop - start <= 4:
        raise GooseError(Refusal.UNDECODABLE)
    return int.from_bytes(data[start:stop], "big"), stop


def _boolean(data: bytes, position: int, end: int, tag: int) -> tuple[bool, int]:
    start, stop = _tlv(data, position, end, tag)
    if stop - start != 1:
        raise GooseError(Refusal.UNDECODABLE)
    return data[start] != 0, stop


def decode_usual_header(
    data: bytes, start: int, apdu_end: int, layout: Layout
) -> tuple[GooseHeader, int] | None:
    """As decode_header, of an APDU whose every field stands where `encode` puts it; None of any other."""
    if apdu_end - start != layout.body.size:
        return None
    (
        *_,
        head,
        time_allowed_to_live_ms,
        names,
        t_seconds,
        t_fraction_and_quality,
        st_num_tag,
        st_num,
        sq_num_tag,
        sq_num,
        simulation_tag,
        simulation,
        conf_rev_tag,
        conf_rev,
        nds_com_tag,
        nds_com,
        all_data,
        _,
    ) = layout.body.unpack_from(data, start)
    tags = (st_num_tag, sq_num_tag, simulation_tag, conf_rev_tag, nds_com_tag)
    if (head, names, tags, all_data) != (layout.head, layout.names, _TAGS, layout.all_data):
        return None
    header = GooseHeader(
        st_num=st_num,
        sq_num=sq_num,
        t_seconds=t_seconds,
        t_fraction=t_fraction_and_quality >> 8,
        t_quality=t_fraction_and_quality & 0xFF,
        time_allowed_to_live_ms=time_allowed_to_live_ms,
        simulation=simulation,
        conf_rev=conf_rev,
        nds_com=nds_com,
    )
    return header, apdu_end - layout.entries.size


def decode_header(data: bytes, apdu_start: int, apdu_end: int, layout: Layout) -> tuple[GooseHeader, int]:
    """The APDU's fields before the entries, and where the entries start; there are as many as there must be."""
    position, end = _tlv(data, apdu_start, apdu_end, 0x61)
    if end != apdu_end:
        raise GooseError(Refusal.UNDECODABLE)
    position = _name(data, position, end, 0x80, layout)
    time_allowed_to_live_ms, position = _unsigned(data, position, end, 0x81)
    position = _name(data, position, end, 0x82, layout)
    position = _name(data, position, end, 0x83, layout)
    t_start, position = _tlv(data, position, end, 0x84)
    if position - t_start != 8:
        raise GooseError(Refusal.UNDECODABLE)
    st_num, position = _unsigned(data, position, end, 0x85)
    sq_num, position = _unsigned(data, position, end, 0x86)
    simulation, position = _boolean(data, position, end, 0x87)
    conf_rev, position = _unsigned(data, position, end, 0x88)
    nds_com, position = _boolean(data, position, end, 0x89)
    entry_count, position = _unsigned(data, position, end, 0x8A)
    entries_start, position = _tlv(data, position, end, 0xAB)
    if position != end:
        raise GooseError(Refusal.UNDECODABLE)
    if entry_count != layout.entry_count or end - entries_start != layout.entries.size:
        raise GooseError(Refusal.WRONG_ENTRIES)
    header = GooseHeader(
        st_num=st_num,
        sq_num=sq_num,
        t_seconds=int.from_bytes(data[t_start : t_start + 4], "big"),
        t_fraction=int.from_bytes(data[t_start + 4 : t_start + 7], "big"),
        t_quality=data[t_start + 7],
        time_allowed_to_live_ms=time_allowed_to_live_ms,
        simulation=simulation,
        conf_rev=conf_rev,
        nds_com=nds_com,
    )
    return header, entries_start


def decode_entries(data: bytes, start: int, layout: Layout) -> GooseMessage:
    """The message that the data entries make; their number and size are right already."""
    tags_and_values = layout.entries.unpack_from(data, start)
    if list(tags_and_values[::2]) != layout.entry_tags:
        raise GooseError(Refusal.WRONG_ENTRIES)
    values = tags_and_values[1::2]
    try:
        if layout.message is PowerRequest:
            return PowerRequest(
                connector_no=values[0],
                charging_sn=values[1],
                requirement_type=RequirementType(values[2]),
                mode=PowerRequestMode(values[3]),
                voltage_v=values[4],
                current_a=values[5],
            )
        if layout.message is StopRequest:
            return StopRequest(connector_no=values[0], charging_sn=values[1], reason=StopReason(values[2]))
    except ValueError:
        raise GooseError(Refusal.UNKNOWN_VALUE) from None
    return PowerRequestReply(
        connector_no=values[0],
        charging_sn=values[1],
        requirement_type=values[2],
        result=values[3],
        mode=values[4],
        voltage_bits=values[5],
        current_bits=values[6],
    )
