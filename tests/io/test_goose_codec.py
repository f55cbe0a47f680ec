"""The GOOSE codec against captured frames, and against anything at all."""

import ast
import contextlib
import hmac
import math
import struct
from pathlib import Path
from unittest import mock

import msgspec
import pytest
from fakes.goose_frames import KEY, OTHER_KEY, VECTORS, frame_of, reply
from fusioncharger.io import goose_codec
from fusioncharger.io.goose_codec import GooseError, Refusal, crc16, decode, encode, verify
from fusioncharger.messages.goose import (
    GooseHeader,
    GooseMessage,
    PowerRequest,
    PowerRequestReply,
    StopRequest,
    bits_of_float,
)
from fusioncharger.messages.types import PowerRequestMode, RequirementType, StopReason
from hypothesis import given, settings
from hypothesis import strategies as st

SIGNED = [vector for vector in VECTORS if vector["key"]]
FIELD_FRAME = bytes.fromhex(next(vector["frame"] for vector in VECTORS if not vector["key"]))

u16 = st.integers(0, 0xFFFF)
u32 = st.integers(0, 0xFFFFFFFF)
f32 = st.floats(width=32, allow_nan=False)
messages = st.one_of(
    st.builds(
        PowerRequest,
        connector_no=u16,
        requirement_type=st.sampled_from(RequirementType),
        mode=st.sampled_from(PowerRequestMode),
        voltage_v=f32,
        current_a=f32,
        charging_sn=u16,
    ),
    st.builds(StopRequest, connector_no=u16, reason=st.sampled_from(StopReason), charging_sn=u16),
    st.builds(
        PowerRequestReply,
        connector_no=u16,
        requirement_type=u16,
        result=u16,
        mode=u16,
        voltage_bits=u32,
        current_bits=u32,
        charging_sn=u16,
    ),
)
headers = st.builds(
    GooseHeader,
    st_num=u32,
    sq_num=u32,
    t_seconds=u32,
    t_fraction=st.integers(0, 0xFFFFFF),
    t_quality=st.integers(0, 255),
    time_allowed_to_live_ms=u32,
    simulation=st.booleans(),
    conf_rev=u32,
    nds_com=st.booleans(),
)


def entries_of(message: GooseMessage) -> list[float]:
    """The message as the vectors write it."""
    match message:
        case PowerRequest():
            own = [message.requirement_type, message.mode, message.voltage_v, message.current_a]
        case StopRequest():
            own = [message.reason]
        case PowerRequestReply():
            bits = struct.pack(">II", message.voltage_bits, message.current_bits)
            own = [message.requirement_type, message.result, message.mode, *struct.unpack(">ff", bits)]
    return [message.connector_no, message.charging_sn, *own, 0xFFFF, 0xFFFF]


def refusal_of(frame: bytes) -> Refusal:
    with pytest.raises(GooseError) as caught:
        decode(frame)
    return caught.value.reason


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_a_captured_frame_decodes_to_its_values(vector):
    decoded = decode(bytes.fromhex(vector["frame"]))

    assert decoded.dst.hex(":") == vector["dst"]
    assert decoded.src.hex(":") == vector["src"]
    assert decoded.tci == int(vector["tci"], 16)
    assert decoded.message.reference == vector["goID"]
    assert entries_of(decoded.message) == vector["entries"]
    assert decoded.header == GooseHeader(
        st_num=vector["stNum"],
        sq_num=vector["sqNum"],
        t_seconds=vector["t_seconds"],
        t_fraction=vector["t_fraction"],
        t_quality=vector["t_quality"],
        time_allowed_to_live_ms=vector["timeAllowedToLive"],
        conf_rev=vector["confRev"],
    )


@pytest.mark.parametrize("vector", SIGNED, ids=lambda vector: vector["name"])
def test_a_captured_frame_is_encoded_byte_for_byte(vector):
    frame, key = bytes.fromhex(vector["frame"]), bytes.fromhex(vector["key"])
    decoded = decode(frame)

    assert verify(decoded, key)
    assert not verify(decoded, OTHER_KEY)
    addresses = {"dst": decoded.dst, "src": decoded.src}
    assert encode(decoded.message, decoded.header, **addresses, vlan_id=0, vlan_priority=5, key=key) == frame


def test_the_crc_of_the_field_frame_holds():
    # ethertype to reserved1, and reserved2
    assert crc16(FIELD_FRAME[16:24]) == int.from_bytes(FIELD_FRAME[24:26], "big")
    assert decode(FIELD_FRAME).signature is not None


@given(
    message=messages,
    header=headers,
    vlan_id=st.integers(0, 4094),
    vlan_priority=st.integers(0, 7),
    key=st.none() | st.just(KEY),
    padding=st.binary(max_size=8),
    is_tagged=st.booleans(),
)
def test_what_is_encoded_decodes_to_the_same(message, header, vlan_id, vlan_priority, key, padding, is_tagged):
    dst, src = b"dstmac", b"srcmac"
    frame = encode(message, header, dst=dst, src=src, vlan_id=vlan_id, vlan_priority=vlan_priority, key=key)
    if not is_tagged:
        frame = frame[:12] + frame[16:]
    decoded = decode(frame + padding)

    assert decoded.message == message
    assert decoded.header == header
    assert (decoded.dst, decoded.src) == (dst, src)
    assert decoded.tci == (vlan_priority << 13 | vlan_id if is_tagged else None)
    assert (decoded.signature is None) == (key is None)
    assert verify(decoded, KEY) == (key is not None)


@given(st.binary(max_size=300))
def test_any_bytes_give_a_value_or_goose_error(data):
    for frame in (data, FIELD_FRAME[:16] + data, FIELD_FRAME[:26] + data):
        with contextlib.suppress(GooseError):
            decode(frame)


@given(
    vector=st.sampled_from(VECTORS),
    changes=st.lists(st.tuples(st.integers(0, 230), st.integers(0, 255)), max_size=4),
    cut=st.integers(0, 230),
    doubled=st.integers(0, 230),
)
def test_a_damaged_frame_gives_a_value_or_goose_error(vector, changes, cut, doubled):
    frame = bytearray.fromhex(vector["frame"])
    for at, value in changes:
        frame[at % len(frame)] = value
    for damaged in (frame, frame[:cut], frame[:doubled] + frame[doubled // 2 :]):
        with contextlib.suppress(GooseError):
            decode(bytes(damaged))


@given(at=st.integers(16, 16 + 173), bit=st.integers(0, 7))
def test_a_flipped_bit_never_verifies(at, bit):
    frame = bytearray(frame_of(reply(), KEY))
    frame[at] ^= 1 << bit
    with contextlib.suppress(GooseError):
        assert not verify(decode(bytes(frame)), KEY)


@pytest.mark.parametrize("length", range(16, len(FIELD_FRAME)))
def test_a_frame_cut_short_is_undecodable(length):
    assert refusal_of(FIELD_FRAME[:length]) is Refusal.UNDECODABLE


def test_an_all_zero_key_verifies_nothing():
    for zeros in (b"", bytes(48)):
        assert not verify(decode(frame_of(reply(), zeros)), zeros)


def test_a_plain_frame_verifies_with_no_key():
    decoded = decode(frame_of(reply(), None))
    assert decoded.signature is None
    assert not verify(decoded, KEY)


def damaged(old: bytes, new: bytes, frame: bytes | None = None) -> bytes:
    frame = frame or frame_of(reply(), None)
    assert frame.count(old) >= 1
    return frame.replace(old, new, 1)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (damaged(b"\x88\xb8", b"\x08\x00"), Refusal.WRONG_ETHERTYPE),
        (damaged(b"\x30\x01", b"\x30\x03"), Refusal.WRONG_APP_ID),
        (damaged(b"\x30\x01", b"\x00\x01"), Refusal.WRONG_GOID),
        (damaged(b"\x83\x1aCC/0$GO$PowerR", b"\x83\x1aCC/1$GO$PowerR"), Refusal.WRONG_GOID),
        (damaged(b"\x8a\x04\0\0\0\x09", b"\x8a\x04\0\0\0\x08"), Refusal.WRONG_ENTRIES),
        (damaged(b"\x87\x04\0\0\0\0\x87\x04", b"\x86\x04\0\0\0\0\x87\x04"), Refusal.WRONG_ENTRIES),
        (damaged(b"\x85\x04\0\0\0\x01", b"\x85\x80\0\0\0\x01"), Refusal.UNDECODABLE),
        (damaged(b"\x85\x04\0\0\0\x01", b"\x85\x84\xff\xff\xff\xff"), Refusal.UNDECODABLE),
        (damaged(b"\x00\x23", b"\x00\x22", frame_of(reply(), KEY)), Refusal.BAD_CRC),
        (damaged(b"\xad\x00\x20", b"\xad\x00\x21", frame_of(reply(), KEY)), Refusal.UNDECODABLE),
    ],
)
def test_each_damage_has_its_reason(frame, reason):
    assert refusal_of(frame) is reason


def test_an_unknown_enumeration_number_is_refused_in_requests_only():
    request = PowerRequest(
        connector_no=1,
        requirement_type=RequirementType.CHARGING,
        mode=PowerRequestMode.CONSTANT_CURRENT,
        voltage_v=0.0,
        current_a=0.0,
    )
    entries = b"\x86\x02\xff\xff\x86\x02\x00\x05"
    frame = damaged(entries, entries[:-1] + b"\x06", frame_of(request, None))
    assert refusal_of(frame) is Refusal.UNKNOWN_VALUE

    strange = msgspec.structs.replace(reply(), requirement_type=77, result=78, mode=79)
    assert decode(frame_of(strange, None)).message == strange


def test_a_longer_extension_is_accepted_and_under_the_hmac():
    frame = frame_of(reply(), KEY)
    start, extra = 16, b"\xa0\x01\x00"
    body, reserved1 = frame[start:-35], (35 + len(extra)).to_bytes(2, "big")
    body = body[:6] + reserved1 + crc16(body[:6] + reserved1).to_bytes(2, "big") + body[10:]

    # Signed by a codec that knows nothing of `extra`, so the HMAC fails, and only that.
    decoded = decode(frame[:start] + body + extra + frame[-35:])
    assert decoded.authenticated == body + extra
    assert decoded.signature == frame[-32:]
    assert not verify(decoded, KEY)


def test_a_short_extension_is_undecodable():
    frame = frame_of(reply(), KEY)
    header = frame[16:22] + b"\x00\x22"
    frame = frame[:16] + header + crc16(header).to_bytes(2, "big") + frame[26:]
    assert refusal_of(frame) is Refusal.UNDECODABLE


def test_nan_in_a_reply_stays_bits():
    nan = msgspec.structs.replace(reply(), voltage_bits=0x7FA00001, current_bits=bits_of_float(math.inf))
    assert decode(frame_of(nan, None)).message == nan


def with_header(message: GooseMessage, header: GooseHeader, key: bytes | None) -> bytes:
    return encode(message, header, dst=bytes(6), src=bytes(6), vlan_id=0, vlan_priority=5, key=key)


@st.composite
def nearly_usual_frames(draw: st.DrawFn) -> bytes:
    """Frames of ours, whole, or with a few bytes altered, one cut or put in."""
    frame = bytearray(with_header(draw(messages), draw(headers), draw(st.sampled_from([KEY, None]))))
    for _ in range(draw(st.integers(0, 2))):
        frame[draw(st.integers(16, len(frame) - 1))] ^= draw(st.integers(1, 255))
    if not draw(st.integers(0, 3)):
        at = draw(st.integers(0, len(frame)))
        frame[at : at + draw(st.integers(0, 1))] = draw(st.binary(max_size=1))
    return bytes(frame)


@settings(max_examples=300)
@given(st.one_of(nearly_usual_frames(), nearly_usual_frames(), st.binary(max_size=300)))
def test_the_fast_way_of_decoding_decides_as_the_thorough_one(frame: bytes) -> None:
    def outcome() -> str:
        try:
            return repr(decode(frame))  # a voltage may be NaN, which equals nothing
        except GooseError as error:
            return error.reason.value

    fast = outcome()
    with mock.patch.object(goose_codec, "decode_usual_header", return_value=None):
        assert outcome() == fast


@given(messages, headers, st.sampled_from([KEY, None]))
def test_what_encode_makes_is_decoded_the_fast_way(
    message: GooseMessage, header: GooseHeader, key: bytes | None
) -> None:
    with mock.patch.object(goose_codec, "decode_header", side_effect=AssertionError):
        assert decode(with_header(message, header, key)).header == header


@pytest.mark.parametrize("says", [True, False])
def test_only_the_comparison_in_constant_time_decides(monkeypatch, says):
    """Whatever compares signatures besides would decide one of these four by itself."""
    compared = []
    monkeypatch.setattr(hmac, "compare_digest", lambda one, other: compared.append((one, other)) or says)
    right, wrong = decode(frame_of(reply(), KEY)), decode(frame_of(reply(), OTHER_KEY))
    assert verify(right, KEY) is says
    assert verify(wrong, KEY) is says
    expected = hmac.digest(KEY, right.authenticated, "sha256")
    assert compared == [(expected, right.signature), (expected, wrong.signature)]


def test_nothing_else_looks_into_a_signature():
    """`signature` is compared with None, handed to verify's comparison, and read nowhere else."""
    package = Path(goose_codec.__file__).parents[1]
    found = []
    for folder in ("io", "mock", "app"):
        for path in sorted((package / folder).glob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            harmless = {
                id(node.left)
                for node in ast.walk(tree)
                if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Is | ast.IsNot)
            }
            found += [
                f"{folder}/{path.name}"
                for node in ast.walk(tree)
                if isinstance(node, ast.Attribute) and node.attr == "signature" and id(node) not in harmless
            ]
    assert found == ["io/goose_codec.py"]
