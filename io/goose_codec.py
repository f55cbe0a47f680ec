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
- What the dispenser sends has a constant layout for each message (goose_apdu.py), so that encoding is one
  struct.pack.
"""

import hmac
import struct

from msgspec import Struct

from ..messages.goose import GooseHeader, GooseMessage
from .goose_apdu import (
    ETHERTYPE_GOOSE,
    EXTENSION_BYTES,
    LAYOUT_OF_APP_ID,
    LAYOUTS,
    crc16,
    decode_entries,
    decode_header,
    decode_usual_header,
)
from .goose_refusal import GooseError, Refusal

__all__ = ["ETHERTYPE_GOOSE", "DecodedFrame", "GooseError", "Refusal", "crc16", "decode", "encode", "verify"]

_ETHERTYPE_VLAN = 0x8100

_AUTHENTICATION = b"\xad\x00\x20"
"""Tag and length before the HMAC: the authentication value of IEC 62351-6."""
_HMAC_BYTES = 32

_GOOSE_HEADER = struct.Struct(">HHHHH")
"""Ethertype, APPID, length, reserved1, reserved2; `length` counts all of it but the ethertype."""


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
    body = LAYOUTS[type(message)].pack(message, header, is_signed=key is not None)
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
    layout = LAYOUT_OF_APP_ID.get(app_id)
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
        authenticated_end = extension_end - EXTENSION_BYTES
        authentication = frame[authenticated_end : extension_end - _HMAC_BYTES]
        if authenticated_end < apdu_end or authentication != _AUTHENTICATION:
            raise GooseError(Refusal.UNDECODABLE)
        signature = frame[extension_end - _HMAC_BYTES : extension_end]

    usual = decode_usual_header(frame, start, apdu_end, layout)
    header, entries_start = usual or decode_header(frame, apdu_start, apdu_end, layout)
    return DecodedFrame(
        dst=frame[:6],
        src=frame[6:12],
        tci=tci,
        message=decode_entries(frame, entries_start, layout),
        header=header,
        signature=signature,
        authenticated=frame[start:authenticated_end],
    )


def verify(frame: DecodedFrame, key: bytes) -> bool:
    """Whether the frame is signed with `key`. An all-zero key is no key and verifies nothing."""
    if frame.signature is None or not any(key):
        return False
    return hmac.compare_digest(hmac.digest(key, frame.authenticated, "sha256"), frame.signature)
