"""The made-up TCP packets, whatever is sent in whichever order, checked with scapy: fields and checksums."""

import pytest
from fusioncharger.app.pcap_tcp import Endpoint, TcpConnection
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

CLIENT_MAC, SERVER_MAC = bytes.fromhex("00005e005301"), bytes.fromhex("00005e005302")
WINDOW_BYTES = 65_535

transfers = st.lists(st.tuples(st.booleans(), st.binary(min_size=1, max_size=260)), max_size=60)


@pytest.mark.parametrize(("client", "server"), [("192.0.2.1", "10.1.2.3"), ("2001:db8::1", "fe80::7")])
@settings(deadline=None)
@given(transfers, st.integers(0, 2**32 - 1), st.sampled_from(["client", "server", "reset"]))
def test_a_connection_is_whole(
    client: str, server: str, sent: list[tuple[bool, bytes]], initial_sequence: int, end: str
) -> None:
    connection = TcpConnection(
        Endpoint(CLIENT_MAC, client, 502), Endpoint(SERVER_MAC, server, 50001), initial_sequence
    )
    frames = connection.opened()
    for by_client, data in sent:
        frames += connection.sent(data, by_client=by_client)
    if end == "reset":
        frames += connection.reset(by_client=False)
    else:
        frames += connection.closed(by_client=end == "client")

    streams = {True: b"", False: b""}
    next_sequence: dict[bool, int] = {}
    acknowledged: dict[bool, int] = {}
    for by_client, frame in frames:
        ether = Ether(frame)
        assert ether.src.replace(":", "") == (CLIENT_MAC if by_client else SERVER_MAC).hex()
        ip, tcp = ether.payload, ether[TCP]
        assert (ip.src, ip.dst) == ((client, server) if by_client else (server, client))
        assert (tcp.sport, tcp.dport) == ((502, 50001) if by_client else (50001, 502))
        assert rebuilt(frame) == frame, "scapy makes the same checksums and lengths"
        # Nothing is missing, nothing is there twice, and what came is acknowledged.
        assert tcp.seq == next_sequence.get(by_client, tcp.seq)
        if "A" in tcp.flags:
            assert tcp.ack == next_sequence[not by_client]
            acknowledged[not by_client] = tcp.ack
        data = bytes(tcp.payload)
        streams[by_client] += data
        control = 1 if tcp.flags & 0x03 else 0
        next_sequence[by_client] = (tcp.seq + len(data) + control) % 2**32
        in_flight = next_sequence[by_client] - acknowledged.get(by_client, tcp.seq)
        assert in_flight % 2**32 < WINDOW_BYTES
    for by_client in (True, False):
        assert streams[by_client] == b"".join(data for side, data in sent if side == by_client)


def rebuilt(frame: bytes) -> bytes:
    """The frame, with every checksum and length worked out by scapy."""
    packet = Ether(frame)
    if IP in packet:
        del packet[IP].chksum, packet[IP].len
    else:
        del packet[IPv6].plen
    del packet[TCP].chksum
    return bytes(packet)


def test_much_data_in_one_direction_is_acknowledged() -> None:
    connection = TcpConnection(
        Endpoint(CLIENT_MAC, "192.0.2.1", 502), Endpoint(SERVER_MAC, "192.0.2.2", 50001), 7
    )
    connection.opened()
    answers = [frame for _ in range(1000) for frame in connection.sent(bytes(200), by_client=True)]
    pure = [frame for by_client, frame in answers if not by_client]
    assert 1000 * 200 / WINDOW_BYTES < len(pure) < 1000
