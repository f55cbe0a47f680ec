"""A TCP connection made up around the bytes that it carried: a log holds the bytes, not the packets.

client ── SYN ──►  server        Ethernet / IPv4 or IPv6 / TCP, with right checksums, sequence numbers and
client ◄─ SYN ACK  server        acknowledgements: an analyser finds a whole stream with nothing missing
client ── ACK ──►  server
       ◄─ data ─►
one ── FIN ACK ──► other, answered by FIN ACK and ACK; or one ── RST ──► other
"""

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

from msgspec import Struct

Address = IPv4Address | IPv6Address

_TCP = 6
_TCP_HEADER_BYTES = 20
_TTL = 64
_WINDOW_BYTES = 65_535
_ACK_AFTER_BYTES = 8 * 1024
"""So much may stand unacknowledged before an acknowledgement of its own is sent: less than the window, so that
no analyser finds it full."""

_FIN = 0x01
_SYN = 0x02
_RST = 0x04
_PSH = 0x08
_ACK = 0x10


class Endpoint(Struct, frozen=True):
    """One end of a connection."""

    mac: bytes
    address: str
    """IPv4 or IPv6; both ends of a connection alike."""
    port: int


class _End:
    """What is known of one end while the connection goes on."""

    def __init__(self, endpoint: Endpoint, sequence: int) -> None:
        self.mac = endpoint.mac
        self.port = endpoint.port
        self.address: Address = ip_address(endpoint.address)
        self.sequence = sequence
        """Of the next byte that it sends, modulo 2^32."""
        self.unacknowledged = 0
        """Bytes that it sent and the other has not acknowledged."""
        self.packets = 0


class TcpConnection:
    """The frames of one connection, in their order. Every method gives the frames that come next, each with
    whether the client sent it."""

    def __init__(self, client: Endpoint, server: Endpoint, initial_sequence: int) -> None:
        self._client = _End(client, initial_sequence & 0xFFFFFFFF)
        self._server = _End(server, ~initial_sequence & 0xFFFFFFFF)

    def opened(self) -> list[tuple[bool, bytes]]:
        """The handshake."""
        client, server = self._client, self._server
        return [
            self._packet(client, _SYN),
            self._packet(server, _SYN | _ACK),
            self._packet(client, _ACK),
        ]

    def refused(self, *, answered: bool) -> list[tuple[bool, bytes]]:
        """A handshake that came to nothing: refused by the server, or without an answer."""
        frames = [self._packet(self._client, _SYN)]
        if answered:
            frames.append(self._packet(self._server, _RST | _ACK))
        return frames

    def sent(self, data: bytes, *, by_client: bool) -> list[tuple[bool, bytes]]:
        """Data in one packet, and what acknowledges it if nothing has done so for long."""
        sender, receiver = self._ends(by_client)
        frames = [self._packet(sender, _PSH | _ACK, data)]
        if sender.unacknowledged >= _ACK_AFTER_BYTES:
            frames.append(self._packet(receiver, _ACK))
        return frames

    def closed(self, *, by_client: bool) -> list[tuple[bool, bytes]]:
        """An orderly end."""
        one, other = self._ends(by_client)
        return [
            self._packet(one, _FIN | _ACK),
            self._packet(other, _FIN | _ACK),
            self._packet(one, _ACK),
        ]

    def reset(self, *, by_client: bool) -> list[tuple[bool, bytes]]:
        """A sudden one."""
        one, _ = self._ends(by_client)
        return [self._packet(one, _RST | _ACK)]

    def _ends(self, by_client: bool) -> tuple[_End, _End]:
        return (self._client, self._server) if by_client else (self._server, self._client)

    def _packet(self, sender: _End, flags: int, data: bytes = b"") -> tuple[bool, bytes]:
        receiver = self._server if sender is self._client else self._client
        acknowledged = 0
        if flags & _ACK:
            acknowledged = receiver.sequence
            receiver.unacknowledged = 0
        segment = struct.pack(
            ">HHIIBBHHH",
            sender.port,
            receiver.port,
            sender.sequence,
            acknowledged,
            _TCP_HEADER_BYTES // 4 << 4,
            flags,
            _WINDOW_BYTES,
            0,
            0,
        )
        segment += data
        checksum = _checksum(_pseudo_header(sender.address, receiver.address, len(segment)) + segment)
        segment = segment[:16] + struct.pack(">H", checksum) + segment[18:]
        frame = receiver.mac + sender.mac + _ip_packet(sender, receiver.address, segment)
        length = len(data) + (1 if flags & (_SYN | _FIN) else 0)
        sender.sequence = (sender.sequence + length) & 0xFFFFFFFF
        sender.unacknowledged += length
        sender.packets += 1
        return sender is self._client, frame


def _ip_packet(sender: _End, destination: Address, segment: bytes) -> bytes:
    """Ethertype, IP header, segment."""
    source = sender.address
    if source.version == 6:
        head = struct.pack(">IHBB", 0x60000000, len(segment), _TCP, _TTL)
        return b"\x86\xdd" + head + source.packed + destination.packed + segment
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(segment), sender.packets & 0xFFFF, 0x4000, _TTL, _TCP, 0)
    head += source.packed + destination.packed
    head = head[:10] + struct.pack(">H", _checksum(head)) + head[12:]
    return b"\x08\x00" + head + segment


def _pseudo_header(source: Address, destination: Address, length: int) -> bytes:
    packing = ">HH" if source.version == 4 else ">II"
    return source.packed + destination.packed + struct.pack(packing, _TCP, length)


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    padded = data + bytes(len(data) % 2)
    total: int = sum(struct.unpack(f">{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
