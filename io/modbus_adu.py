"""Modbus TCP frames and PDUs, as this system speaks them (protocol.md §2).

    +----------------+-------------+--------------+---------+------------------------+
    | transaction id | protocol id | length       | unit id | PDU: function, data    |
    | u16            | u16 = 0     | u16 = 2..254 | u8      | length - 1 bytes       |
    +----------------+-------------+--------------+---------+------------------------+
    '-------------------- MBAP header, 7 bytes -------------'

pymodbus packs and unpacks frames and PDUs, with one exception: its stream handling loses the second of two
pipelined requests and stops at a wrong protocol id (architecture.md §6). So `AduStream` cuts the stream into
ADUs, and pymodbus gets them one at a time. Built on this: modbus_codec.py, the dispenser's end of a connection,
and modbus_psu_codec.py, the PSU's.
"""

import struct

from msgspec import Struct
from pymodbus.pdu import DecodePDU, ModbusPDU
from pymodbus.pdu.register_message import (
    ReadHoldingRegistersRequest,
    ReadHoldingRegistersResponse,
    WriteMultipleRegistersRequest,
    WriteMultipleRegistersResponse,
    WriteSingleRegisterRequest,
    WriteSingleRegisterResponse,
)

from ..messages.outputs import Segment

READ = 0x03
WRITE_SINGLE = 0x06
WRITE = 0x10
REPORT = 0x41
EXCEPTION_FLAG = 0x80
"""Set in the function code of an exception answer."""

_REPORT_SUBFUNCTION = 0x91
_RESPONSE_REQUIRED = 0x80


class ModbusProtocolError(Exception):
    """The peer sent what is not Modbus TCP; nothing after it can be made sense of: close the connection."""


class AduStream:
    """Cuts a byte stream into ADUs, in time linear in its length."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._start = 0
        """Where the first ADU that was not handed out yet begins in the buffer."""
        self._handed_out = 0
        """Bytes of the stream before that place, for error texts."""

    def feed(self, data: bytes) -> None:
        """Take bytes as they came from the socket, split and joined in any way."""
        del self._buffer[: self._start]
        self._start = 0
        self._buffer += data

    def next_adu(self) -> bytes | None:
        """The next complete ADU; None if more bytes are needed. ModbusProtocolError, and then always again."""
        if len(self._buffer) - self._start < 6:
            return None
        protocol_id, length = struct.unpack_from(">HH", self._buffer, self._start + 2)
        # The texts leave the values out: once a stream is out of step, they may be pieces of a key.
        if protocol_id != 0:
            msg = f"protocol id is not 0 in the MBAP header at byte {self._handed_out} of the stream"
            raise ModbusProtocolError(msg)
        if not 2 <= length <= 254:
            msg = f"length is not 2 to 254 in the MBAP header at byte {self._handed_out} of the stream"
            raise ModbusProtocolError(msg)
        end = self._start + 6 + length
        if len(self._buffer) < end:
            return None
        adu = bytes(self._buffer[self._start : end])
        self._handed_out += end - self._start
        self._start = end
        return adu


class Device(Struct, frozen=True):
    """One device of a report; the dispenser has one, at location 0."""

    location: int
    segments: tuple[Segment, ...]


class ReportPdu(ModbusPDU):
    """Unsolicited report (protocol.md §2.1), without its function code:

    +----+----------------+----+------+---------------------------------------------------------+
    | 91 | bytes after it | RR | NNNN | N x: location, segments, segments x: address, count, .. |
    | u8 | u16            | u8 | u16  | all u16                                                 |
    +----+----------------+----+------+---------------------------------------------------------+

    RR bit 7: response required.
    """

    function_code = REPORT

    def __init__(
        self,
        dev_id: int = 0,
        transaction_id: int = 0,
        *,
        devices: tuple[Device, ...] = (),
        response_required: bool = False,
    ) -> None:
        """Without arguments it is what pymodbus makes before it calls decode."""
        super().__init__(dev_id=dev_id, transaction_id=transaction_id)
        self.devices = devices
        self.response_required = response_required

    def encode(self) -> bytes:
        """The PDU after its function code."""
        body = struct.pack(">BH", _RESPONSE_REQUIRED if self.response_required else 0, len(self.devices))
        for device in self.devices:
            body += struct.pack(">HH", device.location, len(device.segments))
            for segment in device.segments:
                count = len(segment.words)
                body += struct.pack(f">HH{count}H", segment.address, count, *segment.words)
        return struct.pack(">BH", _REPORT_SUBFUNCTION, len(body)) + body

    def decode(self, data: bytes) -> None:
        """The reverse; struct.error or ValueError (which pymodbus expects) if the bytes are not a report."""
        subfunction, length, flags, device_count = struct.unpack_from(">BHBH", data)
        if subfunction != _REPORT_SUBFUNCTION or length != len(data) - 3:
            msg = f"sub-function 0x{subfunction:02x}, {length} bytes announced of {len(data) - 3}"
            raise ValueError(msg)
        position = 6
        devices = []
        for _ in range(device_count):
            location, segment_count = struct.unpack_from(">HH", data, position)
            position += 4
            segments = []
            for _ in range(segment_count):
                address, count = struct.unpack_from(">HH", data, position)
                segments.append(Segment(address, struct.unpack_from(f">{count}H", data, position + 4)))
                position += 4 + 2 * count
            devices.append(Device(location, tuple(segments)))
        if position != len(data):
            msg = f"{len(data) - position} bytes after the last segment"
            raise ValueError(msg)
        self.devices = tuple(devices)
        self.response_required = bool(flags & _RESPONSE_REQUIRED)


class Pdus(DecodePDU):
    """The PDUs of this system and no others: pymodbus's own tables belong to the whole process."""

    def __init__(self, *, of_requests: bool) -> None:
        super().__init__(is_server=of_requests)
        self.pdu_table = {
            READ: (ReadHoldingRegistersRequest, ReadHoldingRegistersResponse),
            WRITE_SINGLE: (WriteSingleRegisterRequest, WriteSingleRegisterResponse),
            WRITE: (WriteMultipleRegistersRequest, WriteMultipleRegistersResponse),
            REPORT: (ReportPdu, ReportPdu),
        }
        self.pdu_sub_table = {}
