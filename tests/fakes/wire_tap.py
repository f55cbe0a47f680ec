"""Listens at the PSU's end of the cable: when which of the driver's frames arrived, by the kernel's clock."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from fusioncharger.io import af_packet_port
from fusioncharger.io.goose_codec import DecodedFrame, decode
from fusioncharger.messages.goose import PowerRequest

_SO_TIMESTAMPNS = 35
_SO_RCVBUFFORCE = 33
_ETH_P_ALL = 3
_FIRST_INTERVALS_MS = (2, 2, 4, 8)
_STEADY_INTERVAL_MS = 1000


@dataclass(frozen=True)
class Arrival:
    at_ns: int
    """UTC."""
    frame: DecodedFrame

    @property
    def voltage_v(self) -> float:
        message = self.frame.message
        return message.voltage_v if isinstance(message, PowerRequest) else 0.0


class WireTap:
    """Collects while in the block."""

    def __init__(self, interface: str = "veth0") -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)  # receives nothing until it is bound
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 8 << 20)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        af_packet_port._attach_filter(self._socket, af_packet_port._ACCEPT_GOOSE)
        self._socket.bind((interface, _ETH_P_ALL))
        self._socket.settimeout(0.2)
        self._raw: list[tuple[int, bytes]] = []
        self._came = threading.Condition()
        self._looked_at = 0
        """So many of them, by `first`."""
        self._closing = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._closing = True
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        while not self._closing:
            with contextlib.suppress(TimeoutError):
                frame, auxiliary, _, address = self._socket.recvmsg(2048, 256)
                if address[2] == socket.PACKET_OUTGOING:
                    continue
                seconds, nanoseconds = struct.unpack("qq", auxiliary[0][2])
                with self._came:
                    self._raw.append((seconds * 10**9 + nanoseconds, frame))
                    self._came.notify()

    def arrivals(self) -> list[Arrival]:
        """All that came so far, decoded. The kernel may have taken the VLAN tag out."""
        return [Arrival(at_ns, decode(frame)) for at_ns, frame in list(self._raw)]

    def first(self, matches: Callable[[Arrival], bool]) -> Arrival:
        """The next arrival that matches, of those that were not looked at yet."""
        while True:
            with self._came:
                assert self._came.wait_for(lambda: self._looked_at < len(self._raw), 5), "no such frame came"
                at_ns, frame = self._raw[self._looked_at]
            self._looked_at += 1
            arrival = Arrival(at_ns, decode(frame))
            if matches(arrival):
                return arrival


def repeat_delays_ms(arrivals: list[Arrival]) -> list[float]:
    """How much later than it should each retransmission came after the transmission before it. Fails if one is
    missing: sqNum has to go on without a gap."""
    last: dict[int, Arrival] = {}
    delays = []
    for arrival in arrivals:
        connector_no = arrival.frame.message.connector_no
        before = last.get(connector_no)
        last[connector_no] = arrival
        header = arrival.frame.header
        if before is None or before.frame.header.st_num != header.st_num:
            continue
        assert header.sq_num == before.frame.header.sq_num + 1, (connector_no, header)
        repeat = header.sq_num - 1
        interval_ms = _FIRST_INTERVALS_MS[repeat] if repeat < len(_FIRST_INTERVALS_MS) else _STEADY_INTERVAL_MS
        delays.append((arrival.at_ns - before.at_ns) / 1e6 - interval_ms)
    return delays
