"""The mock as a process, over real sockets: the test is the dispenser."""

import json
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from fusioncharger.io.goose_codec import decode, verify
from fusioncharger.io.modbus_codec import ReadRequest, WriteRequest
from fusioncharger.messages.goose import PowerRequestReply, StopRequest
from fusioncharger.messages.types import StopReason
from fusioncharger.mock.dispenser_session import KEY
from mock_bench import CHARGING, COMMAND, PLACEHOLDER, TIMEOUT_S, Dispenser, Ether, Mock


def test_dispenser_is_asked_and_gets_its_key(mock: Mock) -> None:
    dispenser = Dispenser(mock)
    first = dispenser.request()
    assert isinstance(first, ReadRequest)
    assert (first.address, first.unit_id, first.transaction_id) == (0x1015, 0xFF, 0)
    mac = dispenser.requests_until(0x2111)
    assert isinstance(mac, WriteRequest)
    assert b"".join(word.to_bytes(2, "big") for word in mac.words) == b"\x02\0\0\0" + mock.goose_port.to_bytes(
        2, "big"
    )
    dispenser.requests_until(0x2011)  # the round's last
    dispenser.report(0)
    dispenser.report(1)
    key = dispenser.requests_until(0x2115)
    assert isinstance(key, WriteRequest)
    assert b"".join(word.to_bytes(2, "big") for word in key.words) == KEY
    report = mock.wait("report", lambda event: event["registers"]["1/working_status"] == 1)
    written = mock.wait("key_written")
    assert written["t"] - report["t"] < 0.5
    host, port = dispenser.socket.getsockname()
    assert (written["peer"], written["connector"]) == (f"{host}:{port}", 1)
    mock.wait("key_acknowledged")
    dispenser.socket.close()
    assert mock.wait("disconnected")["reason"] == "closed by the dispenser"


def test_several_dispensers_at_once_and_one_after_the_last(mock: Mock) -> None:
    dispensers = [Dispenser(mock) for _ in range(3)]
    for dispenser in reversed(dispensers):
        dispenser.requests_until(0x2011)
    for dispenser in dispensers:
        dispenser.socket.close()
    late = Dispenser(mock)
    late.requests_until(0x2011)
    late.socket.close()


def test_protocol_error_of_one_dispenser_ends_its_connection_only(mock: Mock) -> None:
    good, bad = Dispenser(mock), Dispenser(mock)
    bad.socket.sendall(b"GET / HTTP/1.1\r\n\r\n")
    reason = mock.wait("disconnected")["reason"]
    assert reason == "Modbus protocol error: protocol id is not 0 in the MBAP header at byte 0 of the stream"
    good.requests_until(0x2011)
    for dispenser in good, bad:
        dispenser.socket.close()


def test_placeholder_request_is_answered_with_a_signed_reply(mock: Mock, ether: Ether) -> None:
    ether.send(PLACEHOLDER, st_num=4)
    frame = ether.port.receive(TIMEOUT_S)
    assert frame is not None
    reply = decode(frame)
    assert verify(reply, KEY)
    assert reply.dst == ether.mac
    assert isinstance(reply.message, PowerRequestReply)
    assert (reply.message.connector_no, reply.message.requirement_type, reply.message.result) == (3, 1, 0)
    assert (reply.header.st_num, reply.header.sq_num) == (1, 0)
    request = mock.wait("power_request")
    assert (request["connector_no"], request["st_num"], request["repeat"]) == (3, 4, False)
    mock.wait("placeholder_reply")


def test_requests_and_repeats_are_written_to_the_event_log(mock: Mock, ether: Ether) -> None:
    ether.send(CHARGING, st_num=1)
    ether.send(CHARGING, st_num=1, sq_num=1)
    ether.send(StopRequest(connector_no=3, reason=StopReason.NORMAL), st_num=2)
    first, repeat = mock.wait("power_request"), mock.wait("power_request")
    assert (first["requirement_type"], first["voltage"], first["current"]) == ("CHARGING", 400.0, 20.0)
    assert (first["repeat"], repeat["repeat"], repeat["sq_num"]) == (False, True, 1)
    assert first["t"] <= repeat["t"]
    assert first["utc"].endswith("Z")
    stop = mock.wait("stop_request")
    assert (stop["reason"], stop["st_num"]) == ("NORMAL", 2)


def test_frames_that_are_not_right_are_dropped_and_the_next_is_taken(mock: Mock, ether: Ether) -> None:
    ether.send(CHARGING, key=None)
    ether.send(CHARGING, key=bytes(47) + b"\1")
    ether.send(PowerRequestReply(3, 1, 0, 2, 0, 0))
    ether.port.send(b"\xff" * 60)
    ether.send(CHARGING)
    mock.wait("power_request")
    dropped = [event["reason"] for event in mock.seen if event["event"] == "goose_dropped"]
    assert dropped == ["unsigned", "bad_hmac", "wrong_app_id", "wrong_ethertype"]


def test_without_hmac_everything_is_taken_and_replies_are_plain(start: Callable[..., Mock]) -> None:
    mock = start(DISABLE_SEND_HMAC="1", DISABLE_VERIFY_HMAC="true")
    ether = Ether(mock)
    ether.send(PLACEHOLDER, key=None)
    ether.send(CHARGING, st_num=2, key=bytes(47) + b"\1")
    frame = ether.port.receive(TIMEOUT_S)
    ether.port.close()
    assert frame is not None
    assert decode(frame).signature is None
    mock.wait("power_request", lambda event: event["requirement_type"] == "CHARGING")


def test_requested_power_is_published_on_mqtt(start: Callable[..., Mock]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(TIMEOUT_S)
        mock = start(MQTT_HOST="127.0.0.1", MQTT_PORT=str(listener.getsockname()[1]))
        broker, _ = listener.accept()
        with broker:
            broker.settimeout(TIMEOUT_S)
            assert broker.recv(4096)[0] == 0x10  # CONNECT
            broker.sendall(b"\x20\x02\0\0")  # CONNACK
            ether = Ether(mock)
            ether.send(CHARGING)
            topic = b"fusion_charger_mock/3/power_request"
            payload = b'{"voltage":400.0,"current":20.0}'
            expected = b"\0" + bytes((len(topic),)) + topic + payload
            expected = bytes((0x30, len(expected))) + expected  # PUBLISH, QoS 0
            received = b""
            while len(received) < len(expected):
                received += broker.recv(4096)
            assert received == expected
            ether.port.close()
            mock.stop()


def test_connections_end_with_the_mock(mock: Mock) -> None:
    dispenser = Dispenser(mock)
    dispenser.requests_until(0x2011)
    text = mock.stop(signal.SIGINT)
    assert dispenser.socket.recv(1) == b""
    dispenser.socket.close()
    assert [event["event"] for event in mock.seen[-2:]] == ["disconnected", "stopped"]
    assert mock.seen[-2]["reason"] == "the mock ends"
    assert f"listening on TCP port {mock.port}" in text


def test_event_log_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    command = [*COMMAND, "--interface", "udp:0", "--port", "0", "--events", str(path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert b"listening" in process.stderr.readline()
        process.terminate()
        assert process.wait(TIMEOUT_S) == 0
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert [event["event"] for event in events] == ["listening", "stopped"]


def refusal(*options: str) -> str:
    """The one line that a mock writes which cannot start."""
    done = subprocess.run([*COMMAND, *options], check=False, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--running-mode", "RUNING"],
            "--running-mode: found 'RUNING'; did you mean 'RUNNING'?; allowed: STARTING_UP",
        ),
        (["--port", "x"], "--port: found 'x'; allowed: 0 to 65535"),
        (["--interface", "nosuch0"], "--interface: no Ethernet interface 'nosuch0'; there are: "),
        (["--events", "/nosuch/events"], "--events: /nosuch/events cannot be written: No such file"),
    ],
)
def test_what_is_not_usable_is_one_line_and_exit_code_2(options: list[str], message: str) -> None:
    assert refusal(*options).startswith(message)


def test_port_that_is_taken_is_one_line_and_exit_code_2(mock: Mock) -> None:
    message = f"TCP port {mock.port} is in use; choose another with --port"
    assert refusal("--interface", "udp:0", "--port", str(mock.port)) == message
