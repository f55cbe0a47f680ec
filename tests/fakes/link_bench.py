"""A Modbus link over real sockets: the test is the PSU, and the core is a queue."""

import contextlib
import queue
import socket
from collections.abc import Callable
from typing import Any

from fusioncharger.io.key_ring import KeyRing
from fusioncharger.io.modbus_connection import MAX_PENDING_BYTES
from fusioncharger.io.modbus_link import ModbusLink
from fusioncharger.io.modbus_psu_codec import Answer, PsuCodec
from fusioncharger.messages.inputs import Input, PsuConnected, PsuDisconnected
from fusioncharger.messages.outputs import PsuConnectRequested, ReportSent, Segment

TIMEOUT_S = 5.0


class Psu:
    """The PSU's end of the accepted connection."""

    def __init__(self, accepted: socket.socket) -> None:
        self.socket = accepted
        self.socket.settimeout(TIMEOUT_S)
        self.codec = PsuCodec()

    def send(self, *adus: bytes) -> None:
        self.socket.sendall(b"".join(adus))

    def read(self, transaction_id: int, address: int = 0x1015, count: int = 1) -> None:
        self.send(self.codec.read(transaction_id, 0xFF, address, count))

    def receive(self) -> Answer:
        while (answer := self.codec.next_event()) is None:
            data = self.socket.recv(65536)
            assert data, "the dispenser closed the connection"
            self.codec.receive(data)
        return answer

    def reset(self) -> None:
        """Close with a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def expect_end(self) -> None:
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionResetError:
            pass  # what an end looks like when there were bytes that the dispenser had not read


class Bench:
    """A link, what its sink got, and the listening socket that it connects to."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(TIMEOUT_S)
        self.port = self.listener.getsockname()[1]
        self.inputs: queue.Queue[Input] = queue.Queue()
        self.key_ring = KeyRing(4)
        self.links: list[ModbusLink] = []
        self.psus: list[Psu] = []

    def start(
        self, host: str = "127.0.0.1", port: int = 0, sink: Callable[[Input], None] | None = None, **tls: Any
    ) -> ModbusLink:
        """`tls`: the link's arguments for it."""
        link = ModbusLink(
            host=host,
            port=port or self.port,
            key_ring=self.key_ring,
            sink=sink or self.inputs.put,
            connect_timeout_s=0.2,
            **tls,
        )
        self.links.append(link)
        link.start()
        return link

    def accept(self) -> Psu:
        psu = Psu(self.listener.accept()[0])
        self.psus.append(psu)
        return psu

    def connected(self, connection: int = 1, host: str = "127.0.0.1") -> tuple[ModbusLink, Psu]:
        link = self.start(host)
        link.handle(PsuConnectRequested(connection=connection))
        psu = self.accept()
        assert self.next() == PsuConnected(connection=connection)
        return link, psu

    def next(self) -> Input:
        return self.inputs.get(timeout=TIMEOUT_S)

    def expect_given_up(self, link: ModbusLink, psu: Psu) -> None:
        """Send until the link gives up a PSU that does not read."""
        psu.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        large = ReportSent(connection=1, transaction_id=0, segments=(Segment(0, (0,) * 100),))
        lost = None
        while lost is None:  # the kernel buffers megabytes before the link's own limit counts
            for _ in range(1000):
                link.handle(large)
            with contextlib.suppress(queue.Empty):
                lost = self.inputs.get(timeout=0.01)
        assert isinstance(lost, PsuDisconnected)
        assert lost.reason.startswith("the PSU does not read: ")
        assert int(lost.reason.split()[5]) > MAX_PENDING_BYTES

    def close(self) -> None:
        for link in self.links:
            link.close()
            assert not link.is_alive()
        for psu in self.psus:
            psu.socket.close()
        self.listener.close()
