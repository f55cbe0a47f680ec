"""GOOSE frames as values and back: bytes in, values out, no socket (protocol.md §3.1, §3.2).

    dst 6 | src 6 | 81 00 TCI | 88 B8 | APPID | length | reserved1 | reserved2 | APDU | extension | padding
                    optional  '------------------- under the HMAC ------------------'

    length     8 + len(APDU)
    reserved1  low byte: length of the extension, 0 in a plain frame
    reserved2  CRC-16 over 88 B8 APPID length reserved1, if there is an extension
    extension  AD 00 20 + HMAC-SHA256; the HMAC covers everything from 88 B8 to just before AD 00 20

Rules:
- `decode` gives a value or raises GooseError, for any bytes, in time linear in their number: every length is
  checked against the bytes that are there before anything is read, and nothing is read twice.
- The cheap checks come first (ethertype, APPID, CRC, goID): garbage costs little, and the HMAC is left to
  `verify`.
- What the dispenser sends has a constant layout for each message, so that encoding is one struct.pack.
"""

import hmac
import struct
from enum import Enum

from msgspec import Struct

from ..messages.goose import UNUSED, GooseHeader, GooseMessage, PowerRequest, PowerRequestReply, StopRequest
from ..messages.types import PowerRequestMode, RequirementType, StopReason

ETHERTYPE_GOOSE = 0x88B8
_ETHERTYPE_VLAN = 0x8100

_AUTHENTICATION = b"\xad\x00\x20"
"""Tag and length before the HMAC: the authentication value of IEC 62351-6."""
_HMAC_BYTES = 32
_EXTENSION_BYTES = len(_AUTHENTICATION) + _HMAC_BYTES

_GOOSE_HEADER = struct.Struct(">HHHHH")
"""Ethertype, APPID, length, reserved1, reserved2; `length` counts all of it but the ethertype."""


class Refusal(Enum):
    """Why a frame is not accepted: the one vocabulary of codec, receiver and log (protocol.md §3.4)."""

    UNDECODABLE = "undecodable"
    WRONG_ETHERTYPE = "wrong_ethertype"
    WRONG_APP_ID = "wrong_app_id"
    WRONG_GOID = "wrong_goid"
    WRONG_ENTRIES = "wrong_entries"
    UNKNOWN_VALUE = "unknown_value"
    """An enumeration of a power or stop request has a number that protocol.md §3.2 does not list."""
    BAD_CRC = "bad_crc"
    OWN_FRAME = "own_frame"
    UNSIGNED = "unsigned"
    BAD_HMAC = "bad_hmac"
    WRONG_CONNECTOR = "wrong_connector"
    DUPLICATE = "duplicate"
    """The newest frame of its connector once more: harmless to the PSU's message, but not sent by it."""
    REPLAYED = "replayed"
    """An older frame than the newest of its connector, or one that contradicts it (goose_replay_guard.py)."""
    TOO_MANY = "too_many"
    """More accepted replies in a second than a PSU sends: a captured one is being sent again and again."""


class GooseError(Exception):
    """A frame that is not accepted. `reason` says why; there is no other exception for any bytes."""

    def __init__(self, reason: Refusal, text: str = "") -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.text = text
        """More about it, for people; "": there is no more to say."""


class DecodedFrame(Struct, frozen=True):
    """What a frame says. The HMAC is not checked yet: `verify`."""

    dst: bytes
    src: bytes
    tci: int | None
    """VLAN tag (priority, VLAN id); None without one."""
    message: GooseMessage
    header: GooseHeader
    signature: bytes | None
    """The 32 bytes of the HMAC; None in a plain frame."""
    authenticated: bytes
    """The bytes that the HMAC covers."""


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


class _Layout:
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
        signed_start = (ETHERTYPE_GOOSE, message.app_id, length, _EXTENSION_BYTES)
        self.signed_header = (*signed_start, crc16(struct.pack(">HHHH", *signed_start)))


_LAYOUTS: dict[type[GooseMessage], _Layout] = {
    PowerRequest: _Layout(PowerRequest, "HHHHffHH"),
    PowerRequestReply: _Layout(PowerRequestReply, "HHHHHIIHH"),
    StopRequest: _Layout(StopRequest, "HHHHH"),
}
_LAYOUT_OF_APP_ID = {message.app_id: layout for message, layout in _LAYOUTS.items()}


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


def encode(
    message: GooseMessage,
    header: GooseHeader,
    *,
    dst: bytes,
    src: bytes,
    vlan_id: int,
    vlan_priority: int,
    key: bytes | None,
) -> bytes:
    """The frame, always with a VLAN tag; signed with `key`, or plain if that is None.

    struct.error if a number does not fit its field, OverflowError if a voltage or current does not fit an f32.
    """
    layout = _LAYOUTS[type(message)]
    entries: list[float] = [0] * (2 * layout.entry_count)
    entries[::2] = layout.entry_tags
    entries[1::2] = _entry_values(message)
    body = layout.body.pack(
        *(layout.plain_header if key is None else layout.signed_header),
        layout.head,
        header.time_allowed_to_live_ms,
        layout.names,
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
        layout.all_data,
        layout.entries.pack(*entries),
    )
    frame = dst + src + struct.pack(">HH", _ETHERTYPE_VLAN, vlan_priority << 13 | vlan_id) + body
    if key is None:
        return frame
    return frame + _AUTHENTICATION + hmac.digest(key, body, "sha256")


def decode(frame: bytes) -> DecodedFrame:
    """What the frame says, of whichever of the three kinds, with or without a VLAN tag. GooseError."""
    tci = None
    start = 12  # of the ethertype, where the HMAC begins
    if frame[12:14] == b"\x81\x00":
        tci = int.from_bytes(frame[14:16], "big")
        start = 16
    apdu_start = start + _GOOSE_HEADER.size
    if len(frame) < apdu_start:
        raise GooseError(Refusal.UNDECODABLE)
    ethertype, app_id, length, reserved1, reserved2 = _GOOSE_HEADER.unpack_from(frame, start)
    if ethertype != ETHERTYPE_GOOSE:
        raise GooseError(Refusal.WRONG_ETHERTYPE)
    layout = _LAYOUT_OF_APP_ID.get(app_id)
    if layout is None:
        raise GooseError(Refusal.WRONG_APP_ID)
    apdu_end = start + 2 + length
    extension_end = apdu_end + (reserved1 & 0xFF)
    if apdu_end < apdu_start or extension_end > len(frame):
        raise GooseError(Refusal.UNDECODABLE)

    signature = None
    authenticated_end = apdu_end
    if extension_end > apdu_end:
        if crc16(frame[start : start + 8]) != reserved2:
            raise GooseError(Refusal.BAD_CRC)
        authenticated_end = extension_end - _EXTENSION_BYTES
        authentication = frame[authenticated_end : extension_end - _HMAC_BYTES]
        if authenticated_end < apdu_end or authentication != _AUTHENTICATION:
            raise GooseError(Refusal.UNDECODABLE)
        signature = frame[extension_end - _HMAC_BYTES : extension_end]

    usual = _decode_usual_header(frame, start, apdu_end, layout)
    header, entries_start = usual or _decode_header(frame, apdu_start, apdu_end, layout)
    return DecodedFrame(
        dst=frame[:6],
        src=frame[6:12],
        tci=tci,
        message=_decode_entries(frame, entries_start, layout),
        header=header,
        signature=signature,
        authenticated=frame[start:authenticated_end],
    )


def verify(frame: DecodedFrame, key: bytes) -> bool:
    """Whether the frame is signed with `key`. An all-zero key is no key and verifies nothing."""
    if frame.signature is None or not any(key):
        return False
    return hmac.compare_digest(hmac.digest(key, frame.authenticated, "sha256"), frame.signature)


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


def _name(data: bytes, position: int, end: int, tag: int, layout: _Layout) -> int:
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


def _decode_usual_header(
    data: bytes, start: int, apdu_end: int, layout: _Layout
) -> tuple[GooseHeader, int] | None:
    """As _decode_header, of an APDU whose every field stands where `encode` puts it; None of any other."""
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


def _decode_header(data: bytes, apdu_start: int, apdu_end: int, layout: _Layout) -> tuple[GooseHeader, int]:
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


def _decode_entries(data: bytes, start: int, layout: _Layout) -> GooseMessage:
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
