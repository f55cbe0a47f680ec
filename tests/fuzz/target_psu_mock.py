"""What a dispenser sends to the mock: Modbus in any pieces, GOOSE with any content, at any time.

input   steps: operation, its arguments
"""

import struct

from fakes.goose_frames import DISPENSER_MAC
from fakes.modbus_stream import decoded
from fusioncharger.io.goose_codec import DecodedFrame, GooseError, decode
from fusioncharger.io.modbus_adu import ModbusProtocolError
from fusioncharger.io.modbus_psu_codec import PsuCodec
from fusioncharger.messages.goose import GooseMessage, PowerRequest, PowerRequestReply, StopRequest
from fusioncharger.messages.types import PowerRequestMode, RequirementType, StopReason
from fusioncharger.mock.actions import ReadAsked
from fuzz.psu_bench import SECOND_NS, PsuBench
from fuzz.source import Source, cut
from fuzz.target_goose import framed

_STEPS = 60


def check(data: bytes) -> None:
    source = Source(data)
    bench = PsuBench(own_keys=source.below(2) == 1)
    bench.connect()
    for _ in range(_STEPS):
        if not source.left:
            break
        step(bench, source)


def step(bench: PsuBench, source: Source) -> None:
    match source.below(8):
        case 0:
            receive(bench, source.chunk())
        case 1:
            check_cuts(source)
        case 2 | 3:
            answer(bench, source)
        case 4:
            report(bench, source)
        case 5:
            goose(bench, source)
        case 6:
            bench.go_to(bench.now_ns + source.number(2) * SECOND_NS // 1000, most=20)
        case 7 if bench.is_connected:
            bench.disconnect()
        case _:
            bench.connect()


def receive(bench: PsuBench, data: bytes) -> None:
    """Bytes from the socket, as dispenser_link.py takes them."""
    if not bench.is_connected:
        return
    bench.codec.receive(data)
    try:
        while bench.is_connected and (event := bench.codec.next_event()) is not None:
            bench.perform(bench.model.received(1, event, bench.now_ns))
    except ModbusProtocolError:
        bench.disconnect()


def check_cuts(source: Source) -> None:
    stream = source.chunk()
    assert decoded(PsuCodec(), [stream]) == decoded(PsuCodec(), cut(stream, source))


def adu(transaction_id: int, pdu: bytes) -> bytes:
    return struct.pack(">HHHB", transaction_id, 0, len(pdu) + 1, 0xFF) + pdu


def answer(bench: PsuBench, source: Source) -> None:
    """To what the mock asked: as it should be, but for what the source says."""
    if not bench.asked:
        return
    asked = bench.asked.pop(0)
    oddity = source.number()
    if oddity & 1:
        pdu = bytes((0x83 if isinstance(asked, ReadAsked) else asked.function | 0x80, source.number()))
    elif isinstance(asked, ReadAsked):
        count = source.below(4) if oddity & 2 else asked.count
        words = b"".join(source.number(2).to_bytes(2, "big") for _ in range(count))
        if asked.address == 0x1015 and not oddity & 4:
            words = b"\0\2"
        pdu = bytes((0x03, len(words))) + words
    else:
        value = asked.words[0] if asked.function == 0x06 else len(asked.words)
        pdu = struct.pack(">BHH", asked.function, asked.address, value)
    receive(bench, adu(asked.transaction_id ^ (oddity >> 7), pdu))


def report(bench: PsuBench, source: Source) -> None:
    segments = [
        (source.choice((0x110B, 0x1D0B, 0x1100, 0x110B - 1, 0x1024, source.number(2))), source.chunk()[:120])
        for _ in range(1 + source.below(3))
    ]
    body = struct.pack(">BHHH", 0, 1, 0, len(segments))
    for address, data in segments:
        count = len(data) // 2
        body += struct.pack(">HH", address, count) + data[: 2 * count]
    pdu = b"\x41\x91" + len(body).to_bytes(2, "big") + body
    if len(pdu) <= 253:
        receive(bench, adu(0, pdu))


def goose(bench: PsuBench, source: Source) -> None:
    """A frame, or any bytes; a frame is believed, as with DISABLE_VERIFY_HMAC."""
    if source.below(4) == 0:
        frame = source.chunk()
    else:
        frame = bytearray(framed(message(source), None, DISPENSER_MAC, source.number()))
        if source.below(2):
            frame[6 + source.below(6)] ^= source.number()
        frame = bytes(frame)
    try:
        decoded: DecodedFrame = decode(frame)
    except GooseError:
        return
    if not isinstance(decoded.message, PowerRequestReply):
        bench.model.accepted_keys(decoded.src, decoded.message.connector_no, bench.now_ns)
        bench.perform(bench.model.goose_received(decoded.message, decoded.header, decoded.src, bench.now_ns))


def message(source: Source) -> GooseMessage:
    if source.below(4) == 0:
        return StopRequest(connector_no=source.below(16), reason=source.choice(list(StopReason)))
    voltage_v, current_a = struct.unpack(">ff", source.take(8).ljust(8, b"\0"))
    return PowerRequest(
        connector_no=source.below(16),
        requirement_type=source.choice(list(RequirementType)),
        mode=source.choice(list(PowerRequestMode)),
        voltage_v=voltage_v,
        current_a=current_a,
    )
