"""The ports over real sockets: UDP, and AF_PACKET on a veth pair."""

import math
import re
import socket
import threading
from collections.abc import Iterator

import pytest
from fakes.goose_frames import KEY, frame_of, reply
from fusioncharger.io import af_packet_port
from fusioncharger.io.af_packet_port import AfPacketPort
from fusioncharger.io.goose_port import GoosePort, GoosePortError, open_port
from fusioncharger.io.udp_port import UdpPort
from netns import await_up, ip, network_namespace


def frame_between(src: GoosePort, dst: GoosePort, st_num: int = 1) -> bytes:
    return frame_of(reply(), KEY, st_num=st_num, src=src.mac, dst=dst.mac)


# --- both ---------------------------------------------------------------------------------------------------


@pytest.fixture
def network() -> Iterator[None]:
    with network_namespace():
        yield


@pytest.fixture(params=["udp", "af_packet"])
def two_ports(request) -> Iterator[tuple[GoosePort, GoosePort]]:
    """Two ports at the two ends of a cable."""
    if request.param == "udp":
        one = open_port("udp:0")
        other = open_port(f"udp:0:{one.local_port}")  # type: ignore[attr-defined]
    else:
        request.getfixturevalue("network")
        one, other = open_port("veth0"), open_port("veth1")
    yield one, other
    one.close()
    other.close()


def test_frames_go_both_ways_unchanged(two_ports):
    one, other = two_ports
    there, back = frame_between(other, one), frame_between(one, other)
    other.send(there)
    assert one.receive(5) == there
    one.send(back)
    assert other.receive(5) == back


def test_a_frame_without_a_tag_arrives_without(two_ports):
    one, other = two_ports
    tagged = frame_between(other, one)
    other.send(tagged[:12] + tagged[16:])
    assert one.receive(5) == tagged[:12] + tagged[16:]


def test_receive_ends_after_its_timeout(two_ports):
    one, _ = two_ports
    assert one.receive(0.01) is None


def test_an_interrupt_ends_a_receive_without_a_limit(two_ports):
    one, other = two_ports
    received: list[bytes | None] = []
    thread = threading.Thread(target=lambda: received.append(one.receive(math.inf)))
    thread.start()
    one.interrupt()
    thread.join(5)
    assert received == [None]

    frame = frame_between(other, one)
    other.send(frame)
    assert one.receive(5) == frame


# --- UDP ----------------------------------------------------------------------------------------------------


def test_udp_answers_go_to_where_the_mac_was_seen():
    hub = UdpPort(0)
    ends = [UdpPort(0, hub.local_port) for _ in range(2)]
    hub.send(frame_between(hub, ends[0]))  # not seen yet: goes nowhere
    for end in ends:
        end.send(frame_between(end, hub))
        assert hub.receive(5) == frame_between(end, hub)
    for end in ends:
        hub.send(frame_between(hub, end))
        assert end.receive(5) == frame_between(hub, end)
        assert end.mac == b"\x02\0\0\0" + end.local_port.to_bytes(2, "big")
    for port in (hub, *ends):
        port.close()


@pytest.mark.parametrize("text", ["udp:", "udp:x", "udp:1:2:3", "udp:65536", "udp:1:0", "udp:-1", "udp:1:"])
def test_bad_udp_syntax_is_explained(text):
    with pytest.raises(GoosePortError, match="udp:LOCAL:PEER"):
        open_port(text)


def test_a_udp_port_in_use_is_explained():
    port = UdpPort(0)
    with pytest.raises(GoosePortError, match="in use"):
        open_port(f"udp:{port.local_port}")
    port.close()


# --- AF_PACKET ----------------------------------------------------------------------------------------------


@pytest.fixture
def veths(network) -> Iterator[tuple[AfPacketPort, AfPacketPort]]:
    one, other = AfPacketPort("veth0"), AfPacketPort("veth1")
    yield one, other
    one.close()
    other.close()


def test_only_goose_is_received(veths):
    one, other = veths
    frame = frame_between(other, one)
    for ethertype in (b"\x08\x00", b"\x88\xb9"):
        other.send(frame[:12] + ethertype + bytes(100))
        other.send(frame[:16] + ethertype + bytes(100))
    other.send(frame)
    assert one.receive(5) == frame


def test_what_came_before_opening_is_not_received(veths):
    one, other = veths
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    raw.bind(("veth0", 0))
    other.send(frame_between(other, one))
    af_packet_port._attach_filter(raw, af_packet_port._ACCEPT_NOTHING)
    af_packet_port._drain(raw)
    af_packet_port._attach_filter(raw, af_packet_port._ACCEPT_GOOSE)
    last = frame_between(other, one, st_num=2)
    other.send(last)
    # This socket knows nothing of VLAN tags, so the kernel has taken it out.
    assert raw.recv(2000) == last[:12] + last[16:]
    raw.close()


def test_own_frames_do_not_come_back(veths):
    one, other = veths
    tagged = frame_between(one, other)
    one.send(tagged)
    one.send(tagged[:12] + tagged[16:])
    answer = frame_between(other, one)
    other.send(answer)
    assert one.receive(5) == answer


def test_frames_of_other_vlans_and_for_others_arrive(veths):
    one, other = veths
    tagged = frame_between(other, one)
    frame = b"\x02\xff\xff\xff\xff\xff" + tagged[6:14] + b"\xa0\xc8" + tagged[16:]
    other.send(frame)
    assert one.receive(5) == frame


def test_a_burst_is_kept_and_what_is_lost_is_counted(veths):
    one, other = veths
    count = 20_000
    for number in range(count):
        other.send(frame_between(other, one, st_num=number))
    kept = 0
    while one.receive(0.2) is not None:
        kept += 1
    lost = one.take_drop_count()
    assert kept > 200
    # A busy machine drops some of so many before they reach the socket; nobody counts those.
    assert 0 < lost <= count - kept
    assert one.take_drop_count() == 0


def test_an_interface_that_goes_down_and_up_works_again(veths):
    one, other = veths
    ip("link", "set", "veth0", "down")
    with pytest.raises(OSError, match="down"):
        one.receive(5)
    with pytest.raises(OSError, match="down"):
        one.send(frame_between(one, other))
    ip("link", "set", "veth0", "up")
    await_up("veth1")
    frame = frame_between(other, one)
    other.send(frame)
    assert one.receive(5) == frame


def test_an_interface_that_is_down_is_explained(network):
    ip("link", "set", "veth0", "down")
    with pytest.raises(GoosePortError, match="ip link set veth0 up"):
        open_port("veth0")


def test_an_unknown_interface_names_those_that_there_are(network):
    with pytest.raises(
        GoosePortError, match=re.escape("no Ethernet interface 'eth7'; there are: lo, veth0, veth1")
    ):
        open_port("eth7")


def test_a_lack_of_permission_is_explained(network, monkeypatch):
    def refuse(**_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(af_packet_port, "L2Socket", refuse)
    with pytest.raises(GoosePortError, match=r"CAP_NET_RAW.*udp:"):
        open_port("veth0")
