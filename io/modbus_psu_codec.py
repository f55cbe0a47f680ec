"""The PSU's end of a Modbus connection, sans-IO: requests to bytes, bytes to answers and reports.

The mock and the tests use it. Frames and PDUs are drawn in modbus_adu.py.
"""

from msgspec import Struct
from pymodbus.framer import FramerSocket
from pymodbus.pdu import ExceptionResponse
from pymodbus.pdu.register_message import (
    ReadHoldingRegistersRequest,
    ReadHoldingRegistersResponse,
    WriteMultipleRegistersRequest,
    WriteMultipleRegistersResponse,
    WriteSingleRegisterRequest,
    WriteSingleRegisterResponse,
)

from .modbus_adu import EXCEPTION_FLAG, AduStream, Device, ModbusProtocolError, Pdus, ReportPdu


class ReadAnswer(Struct, frozen=True):
    """Answer to 0x03."""

    transaction_id: int
    unit_id: int
    words: tuple[int, ...]


class WriteAnswer(Struct, frozen=True):
    """Answer to 0x06 (`value` is the word) or 0x10 (`value` is the number of registers)."""

    transaction_id: int
    unit_id: int
    function: int
    address: int
    value: int


class ExceptionAnswer(Struct, frozen=True):
    """The request was refused; `function` is the request's."""

    transaction_id: int
    unit_id: int
    function: int
    exception_code: int


class Report(Struct, frozen=True):
    """Unsolicited report, 0x41."""

    transaction_id: int
    unit_id: int
    response_required: bool
    devices: tuple[Device, ...]


Answer = ReadAnswer | WriteAnswer | ExceptionAnswer | Report


class PsuCodec:
    """The PSU's end of one connection."""

    def __init__(self) -> None:
        self._stream = AduStream()
        self._framer = FramerSocket(Pdus(of_requests=False))

    def read(self, transaction_id: int, unit_id: int, address: int, count: int) -> bytes:
        """The ADU of a read request, 0x03."""
        request = ReadHoldingRegistersRequest(unit_id, transaction_id, address=address, count=count)
        return self._framer.buildFrame(request)

    def write_single(self, transaction_id: int, unit_id: int, address: int, word: int) -> bytes:
        """The ADU of a write request for one register, 0x06."""
        request = WriteSingleRegisterRequest(unit_id, transaction_id, address=address, registers=(word,))
        return self._framer.buildFrame(request)

    def write(self, transaction_id: int, unit_id: int, address: int, words: tuple[int, ...]) -> bytes:
        """The ADU of a write request, 0x10."""
        request = WriteMultipleRegistersRequest(unit_id, transaction_id, address=address, registers=words)
        return self._framer.buildFrame(request)

    def receive(self, data: bytes) -> None:
        """Take bytes as they came from the socket."""
        self._stream.feed(data)

    def next_event(self) -> Answer | None:
        """The next answer or report; None if more bytes are needed. ModbusProtocolError if it is neither."""
        adu = self._stream.next_adu()
        if adu is None:
            return None
        _, unit_id, transaction_id, pdu = self._framer.decode(adu)
        answer = self._framer.decoder.decode(pdu)
        match answer:
            case ReadHoldingRegistersResponse() if len(pdu) == 2 + 2 * len(answer.registers) == 2 + pdu[1]:
                return ReadAnswer(transaction_id, unit_id, tuple(answer.registers))
            case WriteSingleRegisterResponse() if len(pdu) == 5:
                return WriteAnswer(transaction_id, unit_id, pdu[0], answer.address, answer.registers[0])
            case WriteMultipleRegistersResponse() if len(pdu) == 5:
                return WriteAnswer(transaction_id, unit_id, pdu[0], answer.address, answer.count)
            case ExceptionResponse() if len(pdu) == 2:
                function = pdu[0] & ~EXCEPTION_FLAG
                return ExceptionAnswer(transaction_id, unit_id, function, answer.exception_code)
            case ReportPdu():
                return Report(transaction_id, unit_id, answer.response_required, answer.devices)
            case _:
                msg = f"neither an answer nor a report: {pdu.hex(' ')}"
                raise ModbusProtocolError(msg)
