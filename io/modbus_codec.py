"""The dispenser's end of a Modbus connection, sans-IO: bytes in, requests out; outputs in, bytes out.

The PSU asks and the dispenser answers, on the connection that the dispenser opened; besides, the dispenser
reports on its own, function 0x41 (protocol.md §2). Frames and PDUs are drawn in modbus_adu.py.

A request is checked against its own length fields before pymodbus decodes it, because pymodbus takes a write
whose quantity, byte count and data disagree, and does not say why it refuses another (architecture.md §6).
"""

from typing import assert_never

from msgspec import Struct
from pymodbus.framer import FramerSocket
from pymodbus.pdu import ExceptionResponse, ModbusPDU
from pymodbus.pdu.register_message import (
    ReadHoldingRegistersRequest,
    ReadHoldingRegistersResponse,
    WriteMultipleRegistersRequest,
    WriteMultipleRegistersResponse,
    WriteSingleRegisterRequest,
    WriteSingleRegisterResponse,
)

from ..messages.outputs import ExceptionAnswered, ReadAnswered, ReportSent, WriteAnswered
from .modbus_adu import EXCEPTION_FLAG, REPORT, AduStream, Device, Pdus, ReportPdu

ILLEGAL_FUNCTION = 0x01
ILLEGAL_VALUE = 0x03

_MAX_READ = 125
_MAX_WRITE = 123


class ReadRequest(Struct, frozen=True):
    """0x03. The range may still wrap past 0xFFFF: that is for the register image to judge."""

    transaction_id: int
    unit_id: int
    address: int
    count: int
    adu: bytes


class WriteRequest(Struct, frozen=True):
    """0x06 or 0x10."""

    transaction_id: int
    unit_id: int
    function: int
    address: int
    words: tuple[int, ...]
    adu: bytes


class RefusedRequest(Struct, frozen=True):
    """A request to be answered with this exception."""

    transaction_id: int
    unit_id: int
    function: int
    exception_code: int
    reason: str
    adu: bytes


class UnexpectedPdu(Struct, frozen=True):
    """Function 0x41 or 0x80 and up, which no PSU has a reason to send: never answered."""

    transaction_id: int
    unit_id: int
    function: int
    adu: bytes


Request = ReadRequest | WriteRequest | RefusedRequest | UnexpectedPdu


class DispenserCodec:
    """The dispenser's end of one connection: `receive` bytes, then take `next_event` until there is none.

    Any bytes give events or, after all that came before it, ModbusProtocolError.
    """

    def __init__(self) -> None:
        self._stream = AduStream()
        self._framer = FramerSocket(Pdus(of_requests=True))

    def receive(self, data: bytes) -> None:
        """Take bytes as they came from the socket, split and joined in any way."""
        self._stream.feed(data)

    def next_event(self) -> Request | None:
        """The next request; None if more bytes are needed."""
        adu = self._stream.next_adu()
        if adu is None:
            return None
        _, unit_id, transaction_id, pdu = self._framer.decode(adu)
        function = pdu[0]
        if function == REPORT or function >= EXCEPTION_FLAG:
            return UnexpectedPdu(transaction_id, unit_id, function, adu)
        refusal = _refusal(pdu)
        if refusal is not None:
            return RefusedRequest(transaction_id, unit_id, function, *refusal, adu)
        request = self._framer.decoder.decode(pdu)
        match request:
            case ReadHoldingRegistersRequest():
                return ReadRequest(transaction_id, unit_id, request.address, request.count, adu)
            case WriteSingleRegisterRequest() | WriteMultipleRegistersRequest():
                words = tuple(request.registers)
                return WriteRequest(transaction_id, unit_id, function, request.address, words, adu)
            case _:
                msg = f"pymodbus does not decode a request that was checked, function 0x{function:02x}"
                raise AssertionError(msg)

    def encode(self, output: ReadAnswered | WriteAnswered | ExceptionAnswered | ReportSent) -> bytes:
        """The ADU of an answer or a report."""
        return self._framer.buildFrame(_pdu_of(output))


def _refusal(pdu: bytes) -> tuple[int, str] | None:
    """Exception code and reason, if the PDU (one byte or more) is not a request that registers can answer."""
    function = pdu[0]
    match function:
        case 0x03:
            wrong = _wrong_size(pdu, 5) or _wrong_quantity(pdu, _MAX_READ)
        case 0x06:
            wrong = _wrong_size(pdu, 5)
        case 0x10:
            wrong = _too_short(pdu, 6) or _wrong_quantity(pdu, _MAX_WRITE) or _wrong_byte_count(pdu)
        case _:
            return ILLEGAL_FUNCTION, f"unknown function 0x{function:02x}"
    return (ILLEGAL_VALUE, wrong) if wrong else None


def _wrong_size(pdu: bytes, size: int) -> str:
    return "" if len(pdu) == size else f"function 0x{pdu[0]:02x} has {size} bytes, this one has {len(pdu)}"


def _too_short(pdu: bytes, size: int) -> str:
    return "" if len(pdu) >= size else f"function 0x{pdu[0]:02x} has {size} bytes or more, not {len(pdu)}"


def _wrong_quantity(pdu: bytes, maximum: int) -> str:
    quantity = int.from_bytes(pdu[3:5], "big")
    return "" if 1 <= quantity <= maximum else f"quantity is {quantity}, allowed are 1 to {maximum}"


def _wrong_byte_count(pdu: bytes) -> str:
    """0x10 says the length of its data three times: as quantity, as byte count and by its end."""
    quantity, byte_count, present = int.from_bytes(pdu[3:5], "big"), pdu[5], len(pdu) - 6
    if byte_count == 2 * quantity == present:
        return ""
    return f"{quantity} registers with byte count {byte_count} and {present} bytes of data"


def _pdu_of(output: ReadAnswered | WriteAnswered | ExceptionAnswered | ReportSent) -> ModbusPDU:
    # Both ids are always given: pymodbus's defaults (unit 1, transaction 0) are never right.
    transaction_id = output.transaction_id
    match output:
        case ReadAnswered():
            return ReadHoldingRegistersResponse(output.unit_id, transaction_id, registers=output.words)
        case WriteAnswered(function=0x06):
            return WriteSingleRegisterResponse(
                output.unit_id, transaction_id, output.address, registers=(output.value,)
            )
        case WriteAnswered():
            return WriteMultipleRegistersResponse(
                output.unit_id, transaction_id, output.address, count=output.value
            )
        case ExceptionAnswered():
            return ExceptionResponse(output.function, output.exception_code, output.unit_id, transaction_id)
        case ReportSent():
            return ReportPdu(0, transaction_id, devices=(Device(0, output.segments),))
        case _:
            assert_never(output)
