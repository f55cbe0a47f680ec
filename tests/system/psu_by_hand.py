"""A PSU that does nothing by itself, for tests that ask for registers which no report shows."""

import socket
import struct
from typing import Self

from rig import TIMEOUT_S, Rig

READ, REPORT = 0x03, 0x41


class PsuByHand:
    """Takes the mock's place on its port; to be entered before the driver starts."""

    def __init__(self, system: Rig) -> None:
        system.mock.kill()
        self._server = socket.create_server(("127.0.0.1", system.mock_port))
        self._server.settimeout(TIMEOUT_S)
        self._connection: socket.socket | None = None
        self._transaction_id = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._server.close()
        if self._connection is not None:
            self._connection.close()

    def accept(self) -> None:
        """Wait for the dispenser's connection."""
        self._connection, _ = self._server.accept()
        self._connection.settimeout(TIMEOUT_S)

    def write(self, address: int, *words: int) -> None:
        """Write registers, and wait for the acknowledgement."""
        body = struct.pack(f">HHB{len(words)}H", address, len(words), 2 * len(words), *words)
        self._ask(0x10, body)

    def u16(self, address: int) -> int:
        return int(struct.unpack(">H", self._read(address, 1))[0])

    def f32(self, address: int) -> float:
        return float(struct.unpack(">f", self._read(address, 2))[0])

    def f64(self, address: int) -> float:
        return float(struct.unpack(">d", self._read(address, 4))[0])

    def _read(self, address: int, count: int) -> bytes:
        return self._ask(READ, struct.pack(">HH", address, count))[1:]

    def _ask(self, function: int, body: bytes) -> bytes:
        """The answer's bytes after the function code; reports that come before it are passed over."""
        self._transaction_id += 1
        assert self._connection is not None
        self._connection.sendall(
            struct.pack(">HHHBB", self._transaction_id, 0, len(body) + 2, 0xFF, function) + body
        )
        while True:
            transaction_id, _, length = struct.unpack(">HHH", self._exactly(6))
            adu = self._exactly(length)
            if adu[1] != REPORT:
                assert (transaction_id, adu[1]) == (self._transaction_id, function), adu.hex()
                return adu[2:]

    def _exactly(self, count: int) -> bytes:
        assert self._connection is not None
        data = b""
        while len(data) < count:
            part = self._connection.recv(count - len(data))
            assert part, "the dispenser closed the connection"
            data += part
        return data
