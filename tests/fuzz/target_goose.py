"""GOOSE frames, any bytes as well as altered payloads that are signed with the right key: driver and mock.

input   0, frame                                     any bytes
        1.., kind, src, patches (place, value) …     a whole frame, its APDU altered, then signed again
"""

import contextlib
import hmac
import struct

import msgspec
from fakes.goose_frames import DISPENSER_MAC, KEY, OTHER_KEY, PSU_MAC, key_ring, reply
from fusioncharger.io import goose_codec
from fusioncharger.io.goose_codec import (
    _AUTHENTICATION,
    DecodedFrame,
    GooseError,
    crc16,
    decode,
    encode,
    verify,
)
from fusioncharger.io.goose_receiver import GooseAcceptance
from fusioncharger.messages.goose import GooseHeader, GooseMessage, PowerRequest, PowerRequestReply, StopRequest
from fusioncharger.messages.inputs import AnyInput
from fusioncharger.messages.types import PowerRequestMode, RequirementType, StopReason
from fuzz.source import Source

MESSAGES: tuple[GooseMessage, ...] = (
    reply(5),
    PowerRequest(
        connector_no=5,
        requirement_type=RequirementType.MODULE_PLACEHOLDER_REQUEST,
        mode=PowerRequestMode.CONSTANT_CURRENT,
        voltage_v=400.0,
        current_a=20.0,
    ),
    StopRequest(connector_no=5, reason=StopReason.NORMAL),
)
RINGS = key_ring(KEY, OTHER_KEY)
STRICT, LAX, PLAIN = (
    GooseAcceptance(DISPENSER_MAC, RINGS, verify_secure=verified, allow_insecure=plain, connector_nos=(5, 6))
    for verified, plain in ((True, True), (False, False), (False, True))
)
_START = 16
"""Of the ethertype in a frame with a VLAN tag."""
_APDU = _START + 10
_EXTENSION_BYTES = 35
_decoder = msgspec.json.Decoder(AnyInput)


def check(data: bytes) -> None:
    source = Source(data)
    if source.number() == 0:
        check_frame(source.rest())
        return
    frame = signed_again(source)
    decoded = check_frame(frame)
    if decoded is None:
        return
    assert verify(decoded, KEY)
    assert not verify(decoded, OTHER_KEY)
    check_altered(frame, source)
    check_guarded(frame, source)


def signed_again(source: Source) -> bytes:
    """A frame whose APDU has been altered, with lengths, CRC and signature that are right again."""
    message = source.choice(MESSAGES)
    src = source.choice((PSU_MAC, DISPENSER_MAC))
    frame = framed(message, KEY, src)
    apdu = bytearray(frame[_APDU:-_EXTENSION_BYTES])
    while source.left >= 3:
        place, action, value = source.below(len(apdu) + 1), source.below(4), source.number()
        if action == 0:
            apdu.insert(place, value)
        elif action == 1:
            del apdu[place : place + 1 + value % 16]
        else:
            apdu[place : place + 1] = bytes((value,))
    if len(apdu) >= 3 and source.below(2) == 0:  # the outermost length right again, in its form
        size = len(apdu) - 3
        if apdu[1] == 0x81 and size < 0x100:
            apdu[2] = size
    head = struct.pack(">HHHH", 0x88B8, message.app_id, 8 + len(apdu), _EXTENSION_BYTES)
    body = head + struct.pack(">H", crc16(head)) + bytes(apdu)
    return frame[:_START] + body + _AUTHENTICATION + hmac.digest(KEY, body, "sha256")


def framed(message: GooseMessage, key: bytes | None, src: bytes = PSU_MAC, st_num: int = 1) -> bytes:
    header = GooseHeader(st_num=st_num, sq_num=0, t_seconds=1_700_000_000, t_fraction=0)
    return encode(message, header, dst=DISPENSER_MAC, src=src, vlan_id=0, vlan_priority=5, key=key)


def check_frame(frame: bytes) -> DecodedFrame | None:
    """GooseError or a value, which encodes to a frame that says the same."""
    for acceptance in (STRICT, LAX, PLAIN):
        try:
            accepted = acceptance.decide(frame, at_ns=0).reply
        except GooseError:
            continue
        if acceptance is STRICT:
            key = KEY if accepted.connector_no == 5 else OTHER_KEY
            assert verify(decode(frame), key), "taken without the signature of its connector"
        assert _decoder.decode(msgspec.json.encode(accepted)) == accepted
    assert outcome(frame) == thorough_outcome(frame), "the fast way of decoding decides otherwise"
    try:
        decoded = decode(frame)
    except GooseError:
        return None
    again = decode(
        encode(
            decoded.message,
            decoded.header,
            dst=decoded.dst,
            src=decoded.src,
            vlan_id=(decoded.tci or 0) & 0xFFF,
            vlan_priority=(decoded.tci or 0) >> 13,
            key=KEY,
        )
    )
    # As text, because NaN is not equal to itself.
    assert repr((again.message, again.header)) == repr((decoded.message, decoded.header))
    assert isinstance(decoded.message, PowerRequestReply | PowerRequest | StopRequest)
    return decoded


def outcome(frame: bytes) -> str:
    try:
        return repr(decode(frame))
    except GooseError as error:
        return error.reason.value


def thorough_outcome(frame: bytes) -> str:
    """Without the fast way."""
    fast = goose_codec.decode_usual_header
    goose_codec.decode_usual_header = lambda *_: None
    try:
        return outcome(frame)
    finally:
        goose_codec.decode_usual_header = fast


def check_altered(frame: bytes, source: Source) -> None:
    """One bit of what is signed, or of the signature, and the frame does not verify any more."""
    place = _START + source.below(len(frame) - _START)
    altered = bytearray(frame)
    altered[place] ^= 1 << source.below(8)
    try:
        decoded = decode(bytes(altered))
    except GooseError:
        return
    assert not verify(decoded, KEY), f"byte {place} is not under the signature"


def check_guarded(frame: bytes, source: Source) -> None:
    """With frames that are played again refused: what is refused, for whatever reason, changes nothing."""
    guarded = GooseAcceptance(
        DISPENSER_MAC,
        RINGS,
        verify_secure=True,
        allow_insecure=False,
        connector_nos=(5, 6),
        replay_protection="enforce",
    )
    with contextlib.suppress(GooseError):
        guarded.decide(frame, at_ns=0)
    known = repr(guarded._guard._publishers)
    garbled = bytearray(frame)
    garbled[_START + source.below(len(frame) - _START)] ^= 1 + source.below(255)
    for again in (frame, bytes(garbled), frame):
        try:
            guarded.decide(again, at_ns=source.number(4))
        except GooseError:
            assert repr(guarded._guard._publishers) == known
        else:
            msg = "taken twice, or altered"
            raise AssertionError(msg)
