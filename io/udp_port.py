"""The GOOSE port for development without privileges: whole Ethernet frames in UDP datagrams on 127.0.0.1.

    udp:LOCAL       listen on LOCAL (0: any free port); a frame goes to the address that its destination MAC was
                    last seen to come from, as in a switch, and nowhere if there is none
    udp:LOCAL:PEER  everything goes to PEER

The MAC is made from the port number: 02:00:00:00 and its two bytes (locally administered).
"""

import re
import socket

from .goose_port import GoosePortError, ReadableWait

_LOOPBACK = "127.0.0.1"
_MAX_FRAME_BYTES = 1 << 16
_MAX_LEARNED = 64


def open_udp_port(interface: str) -> "UdpPort":
    """The port that `udp:LOCAL` or `udp:LOCAL:PEER` names. GoosePortError."""
    match = re.fullmatch(r"udp:([0-9]{1,5})(?::([0-9]{1,5}))?", interface)
    local_port = int(match[1]) if match else -1
    peer_port = int(match[2]) if match and match[2] else None
    if not 0 <= local_port <= 65535 or (peer_port is not None and not 1 <= peer_port <= 65535):
        msg = f"{interface!r} is no UDP port; write udp:LOCAL or udp:LOCAL:PEER (udp:9000, udp:9001:9000)"
        raise GoosePortError(msg)
    try:
        return UdpPort(local_port, peer_port)
    except OSError as error:
        msg = f"cannot open {interface}: {error.strerror}; choose another port, or 0 for any free one"
        raise GoosePortError(msg) from None


class UdpPort:
    """GoosePort on 127.0.0.1."""

    def __init__(self, local_port: int, peer_port: int | None = None) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.bind((_LOOPBACK, local_port))
        except OSError:
            self._socket.close()
            raise
        self.local_port: int = self._socket.getsockname()[1]
        self.mac = b"\x02\0\0\0" + self.local_port.to_bytes(2, "big")
        self._peer = None if peer_port is None else (_LOOPBACK, peer_port)
        self._learned: dict[bytes, tuple[str, int]] = {}
        self._wait = ReadableWait(self._socket.fileno())

    def send(self, frame: bytes) -> None:
        """Send to the peer, or to where the destination MAC was learned. OSError."""
        address = self._peer or self._learned.get(frame[:6])
        if address is not None:
            self._socket.sendto(frame, socket.MSG_DONTWAIT, address)

    def receive(self, timeout_s: float) -> bytes | None:
        """The next datagram as a frame; None after `timeout_s` or an interrupt."""
        if not self._wait.wait(timeout_s):
            return None
        frame, address = self._socket.recvfrom(_MAX_FRAME_BYTES)
        src = frame[6:12]
        if src in self._learned or len(self._learned) < _MAX_LEARNED:
            self._learned[src] = address
        return frame

    def interrupt(self) -> None:
        """Let `receive` return None."""
        self._wait.interrupt()

    def take_drop_count(self) -> int:
        """Always 0: UDP does not count."""
        return 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        self._wait.close()
