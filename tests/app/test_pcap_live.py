"""`log pcap` against the wire: what it makes of a session's log is what was captured while the session ran."""

import argparse
import contextlib
import socket
import statistics
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fusioncharger.app.pcap_command import add_arguments, pcap_command
from fusioncharger.io.af_packet_port import AfPacketPort
from fusioncharger.io.goose_codec import decode
from fusioncharger.messages.goose import PowerRequestReply
from rig import Rig, rig
from scapy.utils import RawPcapNgReader

HMAC_BYTES = 32
LATE_REPEATS = 5
"""Of a message: on a busy machine the live thread is late, and the next message comes before its last ones."""


class Captured(NamedTuple):
    utc_ns: int
    frame: bytes


class GooseCapture:
    """GOOSE frames that arrive at an interface."""

    def __init__(self, interface: str) -> None:
        self.frames: list[Captured] = []
        self._port = AfPacketPort(interface)
        self._closing = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._closing:
            frame = self._port.receive(0.5)
            if frame is not None:
                self.frames.append(Captured(time.time_ns(), frame))

    def close(self) -> None:
        self._closing = True
        self._port.interrupt()
        self._thread.join()
        self._port.close()


class TcpCapture:
    """What TCP connections to a port of this host carry: connection (the client's port) to both streams."""

    def __init__(self, port: int) -> None:
        self.streams: dict[int, tuple[bytearray, bytearray]] = {}
        """From the client, and to it."""
        self._port = port
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.bind(("lo", 0))
        self._socket.settimeout(0.5)
        self._closing = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._closing:
            with contextlib.suppress(TimeoutError):
                frame, address = self._socket.recvfrom(65_536)
                if address[2] != socket.PACKET_OUTGOING and frame[23] == socket.IPPROTO_TCP:
                    self._take(frame[14 : 14 + struct.unpack_from(">H", frame, 16)[0]])

    def _take(self, packet: bytes) -> None:
        tcp = packet[(packet[0] & 0xF) * 4 :]
        source, destination = struct.unpack_from(">HH", tcp)
        data = tcp[(tcp[12] >> 4) * 4 :]
        if destination == self._port:
            self.streams.setdefault(source, (bytearray(), bytearray()))[0].extend(data)
        elif source == self._port:
            self.streams.setdefault(destination, (bytearray(), bytearray()))[1].extend(data)

    def close(self) -> None:
        self._closing = True
        self._thread.join()
        self._socket.close()


@contextlib.contextmanager
def closing(*captures: GooseCapture | TcpCapture) -> Iterator[None]:
    try:
        yield
    finally:
        for capture in captures:
            capture.close()


def run_pcap(*words: str | Path) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return pcap_command(parser.parse_args([str(word) for word in words]))


def read_pcapng(path: Path) -> list[Captured]:
    """All packets, by scapy's reader."""
    with RawPcapNgReader(str(path)) as reader:
        return [
            Captured((meta.tshigh << 32 | meta.tslow) * 10**9 // meta.tsresol, data) for data, meta in reader
        ]


def test_the_frames_are_those_that_were_on_the_wire(tmp_path: Path) -> None:
    output = tmp_path / "x.pcapng"
    settings = "goose_vlan_id = 200\ngoose_vlan_priority = 6"
    with rig(tmp_path, 2, settings) as system:
        sent, received = GooseCapture("veth0"), GooseCapture("veth1")
        modbus = TcpCapture(system.mock_port)
        with closing(sent, received, modbus):
            system.start_driver()
            _session(system)
            assert system.driver.terminate() == 0
        assert run_pcap(*system.logs(), "-o", output) == 0

    written = read_pcapng(output)
    assert [packet.utc_ns for packet in written] == sorted(packet.utc_ns for packet in written)
    goose = [packet for packet in written if packet.frame[12:14] == b"\x81\x00"]
    replies = [packet for packet in goose if isinstance(decode(packet.frame).message, PowerRequestReply)]
    assert replies
    # Those before a key came were dropped at the socket, and are in no log.
    assert {packet.frame for packet in replies} <= {packet.frame for packet in received.frames}
    _compare_sent(sent.frames, [packet for packet in goose if packet not in replies])
    _compare_streams(modbus, [packet.frame for packet in written if packet not in goose])


def _session(system: Rig) -> None:
    """Two charges, several setpoints, and a stop request that is repeated in steady state."""
    everest = system.everest
    everest.start_heartbeats(2)
    system.charge(1)
    system.charge(2, 350, 7)
    for voltage_v in (401, 402.5, 403):
        mark = system.mock.events.mark()
        everest.setpoint(1, voltage_v, 20)
        system.wait_power(1, "CHARGING", voltage_v, after=mark)
    mark = system.mock.events.mark()
    everest.mode(2, "Off", "Other")
    system.wait_stop(2, after=mark)
    # Long enough for repeats in steady state.
    system.mock.events.wait(
        lambda event: event["event"] == "power_request" and event["repeat"] and event["sq_num"] == 6,
        after=mark,
    )
    everest.stop_heartbeats()


def _by_message(frames: list[Captured]) -> dict[tuple[int, int], dict[int, Captured]]:
    """By connector number and stNum: sqNum to frame."""
    found: dict[tuple[int, int], dict[int, Captured]] = {}
    for captured in frames:
        decoded = decode(captured.frame)
        header = decoded.header
        found.setdefault((decoded.message.connector_no, header.st_num), {})[header.sq_num] = captured
    return found


def _compare_sent(on_the_wire: list[Captured], made_again: list[Captured]) -> None:
    live, again = _by_message(on_the_wire), _by_message(made_again)
    assert live.keys() == again.keys()
    assert len(live) > 10
    compared = 0
    late_ns = []
    for message, frames in live.items():
        for sq_num, captured in frames.items():
            if sq_num not in again[message]:
                continue
            frame, utc_ns = again[message][sq_num].frame, again[message][sq_num].utc_ns
            assert frame[:-HMAC_BYTES] == captured.frame[:-HMAC_BYTES]
            assert frame[-HMAC_BYTES:] == bytes(HMAC_BYTES)
            assert any(captured.frame[-HMAC_BYTES:])
            late_ns.append(captured.utc_ns - utc_ns)
            compared += 1
        # A repeat that was due between the turn's begin and the new message's sending did leave.
        assert len(frames.keys() - again[message].keys()) <= 1
        more = again[message].keys() - frames.keys()
        assert len(more) <= LATE_REPEATS
        assert all(sq_num > max(frames) for sq_num in more)
    assert compared > 0.9 * len(on_the_wire)
    assert abs(statistics.median(late_ns)) < 200_000_000


def _compare_streams(modbus: TcpCapture, packets: list[bytes]) -> None:
    """The bytes that each connection carried; on the wire there was the key, where now zeros are."""
    (live,) = (streams for streams in modbus.streams.values() if streams[0])
    dispenser, psu = bytearray(), bytearray()
    for packet in packets:
        source = struct.unpack_from(">H", packet, 34)[0]
        (dispenser if source == 502 else psu).extend(packet[54:])
    assert dispenser == live[0]
    assert len(psu) == len(live[1]) > 500
    differing = [one for one, other in zip(psu, live[1], strict=True) if one != other]
    assert set(differing) == {0}
    assert len(differing) <= 48 * 8
