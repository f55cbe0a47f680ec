"""Modbus codec, both ends: captured ADUs, every split of a stream, and bytes that are not Modbus."""

import contextlib
import json
import time
from pathlib import Path

import pytest
from fakes import modbus_stream
from fusioncharger.io.modbus_adu import AduStream, Device, ModbusProtocolError
from fusioncharger.io.modbus_codec import (
    DispenserCodec,
    ReadRequest,
    RefusedRequest,
    Request,
    UnexpectedPdu,
    WriteRequest,
)
from fusioncharger.io.modbus_psu_codec import (
    ExceptionAnswer,
    PsuCodec,
    ReadAnswer,
    Report,
    WriteAnswer,
)
from fusioncharger.messages.outputs import ExceptionAnswered, ReadAnswered, ReportSent, Segment, WriteAnswered
from hypothesis import given, settings
from hypothesis import strategies as st

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "modbus.json").read_text())["adus"]

u8 = st.integers(0, 0xFF)
u16 = st.integers(0, 0xFFFF)


def mbap(pdu: bytes, transaction_id: int = 7, unit_id: int = 0xFF) -> bytes:
    return (
        transaction_id.to_bytes(2, "big")
        + bytes(2)
        + (len(pdu) + 1).to_bytes(2, "big")
        + unit_id.to_bytes(1, "big")
        + pdu
    )


def decoded(*chunks: bytes) -> list[Request | str]:
    """All events of a stream; its protocol error, if there is one, as text at the end."""
    events, error = modbus_stream.decoded(DispenserCodec(), chunks)
    return [*events, error] if error else [*events]


def of_dispenser(adu: bytes) -> object:
    codec = PsuCodec()
    codec.receive(adu)
    return codec.next_event()


# --- captured ADUs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["means"] for vector in VECTORS])
def test_captured_adu_decodes_and_encodes_to_the_same_bytes(vector: dict[str, str]) -> None:
    adu = bytes.fromhex(vector["adu"])
    if vector["from"] == "psu":
        psu = PsuCodec()
        match decoded(adu):
            case [ReadRequest(transaction_id, unit_id, address, count)]:
                assert psu.read(transaction_id, unit_id, address, count) == adu
            case [WriteRequest(transaction_id, unit_id, 0x06, address, (word,))]:
                assert psu.write_single(transaction_id, unit_id, address, word) == adu
            case [WriteRequest(transaction_id, unit_id, 0x10, address, words)]:
                assert psu.write(transaction_id, unit_id, address, words) == adu
            case events:
                pytest.fail(f"decoded to {events}")
        return
    dispenser = DispenserCodec()
    match of_dispenser(adu):
        case ReadAnswer(transaction_id, unit_id, words):
            answer = ReadAnswered(connection=1, transaction_id=transaction_id, unit_id=unit_id, words=words)
        case WriteAnswer(transaction_id, unit_id, function, address, value):
            answer = WriteAnswered(
                connection=1,
                transaction_id=transaction_id,
                unit_id=unit_id,
                function=function,
                address=address,
                value=value,
            )
        case Report(transaction_id, 0, False, (Device(0, segments),)):
            answer = ReportSent(connection=1, transaction_id=transaction_id, segments=segments)
        case other:
            pytest.fail(f"decoded to {other}")
    assert dispenser.encode(answer) == adu


def test_captured_adus_mean_what_they_say() -> None:
    events = decoded(*(bytes.fromhex(vector["adu"]) for vector in VECTORS if vector["from"] == "psu"))
    read, running, mac, energy, voltage = events
    assert (read.address, read.count, read.unit_id, read.transaction_id) == (0x1015, 1, 0xFF, 0)
    assert (running.function, running.address, running.words) == (0x06, 0x2006, (1,))
    assert (mac.function, mac.address, mac.words) == (0x10, 0x2111, (0xF6BA, 0xEF90, 0x32B5))
    assert (energy.address, energy.words) == (0x2013, (0x3EE4, 0xF8B5, 0x88E3, 0x68F1))
    assert (voltage.address, voltage.words) == (0x2100, (0x447A, 0x0000))
    report = of_dispenser(bytes.fromhex(VECTORS[-1]["adu"]))
    assert report.devices[0].segments[0] == Segment(0x1024, (0x6B03, 0xB702))
    assert [segment.address for segment in report.devices[0].segments] == [
        0x1024, 0x3001, 0x110B, 0x110D, 0x1154, 0x1156, 0x3105, 0x3115,
    ]  # fmt: skip


# --- requests that are refused or unexpected ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("pdu", "code", "reason"),
    [
        ("00", 1, "unknown function 0x00"),
        ("04 1015 0001", 1, "unknown function 0x04"),
        ("17 0000 0001 0000 0001 02 0000", 1, "unknown function 0x17"),
        ("7f", 1, "unknown function 0x7f"),
        ("03", 3, "function 0x03 has 5 bytes, this one has 1"),
        ("03 1015 00", 3, "function 0x03 has 5 bytes, this one has 4"),
        ("03 1015 0001 00", 3, "function 0x03 has 5 bytes, this one has 6"),
        ("03 1015 0000", 3, "quantity is 0, allowed are 1 to 125"),
        ("03 1015 007e", 3, "quantity is 126, allowed are 1 to 125"),
        ("06 2006", 3, "function 0x06 has 5 bytes, this one has 3"),
        ("06 2006 0001 00", 3, "function 0x06 has 5 bytes, this one has 6"),
        ("10", 3, "function 0x10 has 6 bytes or more, not 1"),
        ("10 2111 0001", 3, "function 0x10 has 6 bytes or more, not 5"),
        ("10 2111 0000 00", 3, "quantity is 0, allowed are 1 to 123"),
        ("10 2111 007c f8" + 246 * "00", 3, "quantity is 124, allowed are 1 to 123"),
        ("10 2111 0002 02 0001", 3, "2 registers with byte count 2 and 2 bytes of data"),
        ("10 2111 0001 04 0001 0002", 3, "1 registers with byte count 4 and 4 bytes of data"),
        ("10 2111 0001 02 0001 00", 3, "1 registers with byte count 2 and 3 bytes of data"),
        ("10 2111 0002 04 0001 00", 3, "2 registers with byte count 4 and 3 bytes of data"),
    ],
)
def test_request_is_refused_with_the_exception_and_the_reason(pdu: str, code: int, reason: str) -> None:
    adu = mbap(bytes.fromhex(pdu))
    function = bytes.fromhex(pdu)[0]
    assert decoded(adu) == [RefusedRequest(7, 0xFF, function, code, reason, adu)]


@pytest.mark.parametrize("pdu", ["41 91 0001 00 00", "41", "80", "83 02", "ff"])
def test_pdu_that_no_psu_has_a_reason_to_send_is_unexpected(pdu: str) -> None:
    adu = mbap(bytes.fromhex(pdu), unit_id=0)
    assert decoded(adu) == [UnexpectedPdu(7, 0, bytes.fromhex(pdu)[0], adu)]


def test_largest_read_and_write_are_taken() -> None:
    words = tuple(range(123))
    psu = PsuCodec()
    read, write = decoded(psu.read(1, 0, 0xFFFF, 125), psu.write(2, 0, 0x2100, words))
    assert (read.address, read.count) == (0xFFFF, 125)
    assert write.words == words


# --- protocol errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ("0001 0001 0006", "protocol id is not 0"),
        ("0001 0000 0000", "length is not 2 to 254"),
        ("0001 0000 0001", "length is not 2 to 254"),
        ("0001 0000 00ff", "length is not 2 to 254"),
    ],
)
def test_protocol_error_says_what_and_where_after_what_came_before(header: str, text: str) -> None:
    good = PsuCodec().read(1, 0xFF, 0x1015, 1)
    event, error = decoded(good + bytes.fromhex(header) + good)
    assert event == ReadRequest(1, 0xFF, 0x1015, 1, good)
    assert error == f"{text} in the MBAP header at byte 12 of the stream"


def test_protocol_error_stays() -> None:
    codec = DispenserCodec()
    codec.receive(b"\0\0\0\1\0\6")
    for _ in range(2):
        with pytest.raises(ModbusProtocolError):
            codec.next_event()
        codec.receive(PsuCodec().read(1, 0xFF, 0x1015, 1))


# --- any bytes, any split ----------------------------------------------------------------------------------


@st.composite
def adus(draw: st.DrawFn) -> bytes:
    psu = PsuCodec()
    ids = draw(u16), draw(u8)
    return draw(
        st.one_of(
            st.builds(lambda address, count: psu.read(*ids, address, count), u16, st.integers(1, 125)),
            st.builds(lambda address, word: psu.write_single(*ids, address, word), u16, u16),
            st.builds(
                lambda address, words: psu.write(*ids, address, tuple(words)),
                u16,
                st.lists(u16, min_size=1, max_size=123),
            ),
            st.binary(min_size=1, max_size=253).map(lambda pdu: mbap(pdu, *ids)),
        )
    )


@settings(deadline=None)  # it decodes each stream three times, once byte by byte
@given(st.lists(adus(), max_size=6), st.binary(max_size=20), st.data())
def test_any_split_of_the_stream_gives_the_same_events(
    requests: list[bytes], tail: bytes, data: st.DataObject
) -> None:
    stream = b"".join(requests) + tail
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    chunks = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    expected = decoded(stream)
    assert decoded(*chunks) == expected
    assert decoded(*(stream[n : n + 1] for n in range(len(stream)))) == expected
    assert [event.adu for event in expected[: len(requests)]] == requests


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_any_bytes_give_requests_or_a_protocol_error(chunks: list[bytes]) -> None:
    decoded(*chunks)


@given(st.binary(min_size=1, max_size=253))
def test_any_pdu_gives_exactly_one_request(pdu: bytes) -> None:
    (event,) = decoded(mbap(pdu))
    assert event.adu == mbap(pdu)
    assert event.unit_id == 0xFF


@given(st.binary(min_size=1, max_size=253))
def test_any_pdu_from_the_dispenser_is_understood_or_a_protocol_error(pdu: bytes) -> None:
    with contextlib.suppress(ModbusProtocolError):
        assert of_dispenser(mbap(pdu)) is not None


def test_ten_thousand_requests_in_one_piece_take_linear_time() -> None:
    stream = AduStream()
    stream.feed(PsuCodec().read(1, 0xFF, 0x1015, 1) * 10_000)
    start = time.perf_counter()
    while stream.next_adu() is not None:
        pass
    assert time.perf_counter() - start < 0.5  # quadratic copying would take several seconds


# --- round trips -------------------------------------------------------------------------------------------

ids = {"connection": st.just(1), "transaction_id": u16, "unit_id": u8}


@given(st.builds(ReadAnswered, words=st.lists(u16, min_size=1, max_size=125).map(tuple), **ids))
def test_read_answer_round_trip(answer: ReadAnswered) -> None:
    assert of_dispenser(DispenserCodec().encode(answer)) == ReadAnswer(
        answer.transaction_id, answer.unit_id, answer.words
    )


@given(st.builds(WriteAnswered, function=st.sampled_from([0x06, 0x10]), address=u16, value=u16, **ids))
def test_write_answer_round_trip(answer: WriteAnswered) -> None:
    assert of_dispenser(DispenserCodec().encode(answer)) == WriteAnswer(
        answer.transaction_id, answer.unit_id, answer.function, answer.address, answer.value
    )


@given(st.builds(ExceptionAnswered, function=st.integers(1, 0x7F), exception_code=u8, **ids))
def test_exception_round_trip(answer: ExceptionAnswered) -> None:
    assert of_dispenser(DispenserCodec().encode(answer)) == ExceptionAnswer(
        answer.transaction_id, answer.unit_id, answer.function, answer.exception_code
    )


segments = st.builds(Segment, address=u16, words=st.lists(u16, max_size=20).map(tuple))


@given(
    st.builds(
        ReportSent,
        connection=st.just(1),
        transaction_id=u16,
        segments=st.lists(segments, max_size=4).map(tuple),
    )
)
def test_report_round_trip(report: ReportSent) -> None:
    assert of_dispenser(DispenserCodec().encode(report)) == Report(
        report.transaction_id, 0, response_required=False, devices=(Device(0, report.segments),)
    )


@pytest.mark.parametrize(
    "pdu",
    [
        "41 92 0003 00 0000",  # another sub-function
        "41 91 0004 00 0000",  # more announced than there is
        "41 91 0004 00 0000 00",  # a byte too many
        "41 91 0003 00 0001",  # a device announced, none there
        "41 91 0007 00 0001 0000 0001",  # a segment announced, none there
        "41 91 000b 00 0001 0000 0001 1024 0002",  # registers announced, none there
        "03 03 0001",
        "03 02 0001 00",
        "06 2006",
        "10 2006 0001 00",
        "83",
        "80 01",
        "04 02 0001",
    ],
)
def test_psu_takes_what_is_neither_answer_nor_report_as_a_protocol_error(pdu: str) -> None:
    with pytest.raises(ModbusProtocolError):
        of_dispenser(mbap(bytes.fromhex(pdu)))


def test_report_that_wants_a_response_says_so() -> None:
    report = of_dispenser(mbap(bytes.fromhex("41 91 0003 80 0000"), unit_id=0))
    assert report == Report(7, 0, response_required=True, devices=())
