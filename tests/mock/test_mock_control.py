"""Commands to the mock as a process, on standard input and from a scenario file."""

import json
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from fusioncharger.io.goose_codec import decode, verify
from fusioncharger.io.modbus_codec import WriteRequest
from fusioncharger.messages.goose import PowerRequestReply
from mock_bench import CHARGING, COMMAND, PLACEHOLDER, TIMEOUT_S, Dispenser, Ether, Mock


@pytest.fixture
def told(start: Callable[..., Mock]) -> Mock:
    return start("--control", "-")


def dispenser_of(mock: Mock) -> Dispenser:
    """A dispenser whose first round is over."""
    dispenser = Dispenser(mock)
    dispenser.requests_until(0x2011)
    mock.wait("round_done")
    return dispenser


def key_of(dispenser: Dispenser) -> bytes:
    key = dispenser.requests_until(0x2115)
    assert isinstance(key, WriteRequest)
    return b"".join(word.to_bytes(2, "big") for word in key.words)


def test_values_are_written_at_once(told: Mock) -> None:
    dispenser = dispenser_of(told)
    for address, do, arguments in (
        (0x4002, "alarm", {"name": "PowerUnit/Water"}),
        (0x4002, "clear_alarm", {"name": "PowerUnit/Water"}),
        (0x2006, "running_mode", {"mode": "FAULTY"}),
        (0x2100, "ratings", {"max_voltage_v": 500}),
        (0x212F, "port_available", {"available": False}),
        (0x2115, "key", {"connector": 1}),
        (0x1234, "write", {"address": 0x1234, "words": [1, 2]}),
    ):
        step = told.told(do, **arguments)
        assert (step["source"], step["dispensers"]) == ("control", 1)
        dispenser.requests_until(address)
    assert told.wait("write_acknowledged")["address"] == 0x1234
    dispenser.socket.close()


def test_ratings_at_once(start: Callable[..., Mock]) -> None:
    mock = start("--ratings-at-once", "--rating", "power_kw=120", "--alarm", "PowerUnit/Epo")
    dispenser = Dispenser(mock)
    dispenser.requests_until(0x4004)
    dispenser.requests_until(0x2100)
    power = dispenser.requests_until(0x212D)
    assert isinstance(power, WriteRequest)
    assert power.words == (0x42F0, 0)  # 120 kW
    dispenser.socket.close()


@pytest.mark.parametrize(("do", "end"), [("drop", "end"), ("reset", "reset")])
def test_connections_end_as_they_are_told_to(told: Mock, do: str, end: str) -> None:
    dispensers = [dispenser_of(told) for _ in range(2)]
    assert told.told(do)["dispensers"] == 2
    for dispenser in dispensers:
        if end == "end":
            assert dispenser.socket.recv(1) == b""
        else:
            with pytest.raises(ConnectionResetError):
                dispenser.socket.recv(1)
        assert told.wait("disconnected")["reason"] == do
        dispenser.socket.close()
    dispenser_of(told).socket.close()


def test_port_is_closed_until_listen(told: Mock) -> None:
    stays = dispenser_of(told)
    told.told("refuse")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", told.port), TIMEOUT_S)
    stays.report(1)
    stays.requests_until(0x2115)
    told.tell('{"do": "listen"}')
    assert told.wait("listening")["port"] == told.port
    dispenser_of(told).socket.close()
    stays.socket.close()


def test_port_is_closed_for_a_while(told: Mock) -> None:
    told.told("refuse", for_s=0.05)
    assert told.wait("listening")["port"] == told.port
    told.told("refuse")
    told.tell('{"do": "listen"}\n{"do": "refuse"}\n{"do": "listen"}')  # whatever is on the way
    told.wait("step", lambda event: event["do"] == "refuse")
    told.wait("listening")
    dispenser_of(told).socket.close()


def test_silence(told: Mock) -> None:
    dispenser = dispenser_of(told)
    told.told("silence")
    dispenser.report(1)
    told.wait("report", lambda event: event["registers"]["1/working_status"] == 1)
    told.told("silence", for_s=0.05)
    told.wait("silence_ended")
    dispenser.requests_until(0x2115)
    told.wait("key_written")
    assert [event["event"] for event in told.seen[-2:]] == ["silence_ended", "key_written"]
    dispenser.socket.close()


def test_restart_with_another_mac(told: Mock) -> None:
    dispenser = dispenser_of(told)
    told.told("restart", mac="02:00:00:00:00:99", for_s=0.05)
    with pytest.raises(ConnectionResetError):
        dispenser.socket.recv(1)
    dispenser.socket.close()
    told.wait("listening")
    dispenser = Dispenser(told)
    mac = dispenser.requests_until(0x2111)
    assert isinstance(mac, WriteRequest)
    assert mac.words == (0x0200, 0, 0x0099)
    dispenser.socket.close()


def test_bad_lines_are_said_and_change_nothing(told: Mock) -> None:
    told.tell("drop")
    assert told.wait("control_error")["error"].startswith("is no JSON: ")
    told.tell('{"do": "alarm", "name": "PowerUnit/Watre"}')
    error = told.wait("control_error")["error"]
    assert error.startswith("name: found 'PowerUnit/Watre'; did you mean 'PowerUnit/Water'?")
    dispenser_of(told).socket.close()
    assert f"WARNING control: {error}" in told.stop()


def test_mock_goes_on_when_its_standard_input_ends(told: Mock) -> None:
    assert told.process.stdin is not None
    told.process.stdin.write(b'{"do": "clear_alarm"}')  # without a line's end
    told.process.stdin.close()
    told.wait("step")
    dispenser_of(told).socket.close()


def test_commands_may_come_from_a_file(tmp_path: Path) -> None:
    commands, events = tmp_path / "commands", tmp_path / "events"
    commands.write_text('{"do": "alarm", "name": "PowerUnit/Water"}\n')
    command = [*COMMAND, "--interface", "udp:0", "--port", "0", "--control", "-", "--events", str(events)]
    with (
        commands.open() as file,
        subprocess.Popen(command, stdin=file, stderr=subprocess.PIPE) as process,
    ):
        assert process.stderr is not None
        assert b"listening" in process.stderr.readline()
        process.terminate()
        assert process.wait(TIMEOUT_S) == 0


# --- keys and placeholders ---------------------------------------------------------------------------------


def test_random_keys(start: Callable[..., Mock]) -> None:
    mock = start("--random-keys")
    ether = Ether(mock)
    dispenser = dispenser_of(mock)
    mac = [int.from_bytes(ether.mac[n : n + 2], "big") for n in (0, 2, 4)]
    dispenser.values = {0x1015: 1, 0x110E: 3, 0x114D: mac[0], 0x114E: mac[1], 0x114F: mac[2]}
    dispenser.report(1)
    first = key_of(dispenser)
    mock.wait("key_acknowledged")
    ether.send(PLACEHOLDER, key=first)
    frame = ether.port.receive(TIMEOUT_S)
    assert frame is not None
    assert verify(decode(frame), first)
    dispenser.report(0)
    dispenser.report(1)
    second = key_of(dispenser)
    assert second != first
    mock.wait("key_acknowledged")
    ether.send(CHARGING, st_num=2, key=second)
    mock.wait("power_request", lambda event: event["st_num"] == 2)
    assert mock.wait_until_dropped(lambda: ether.send(CHARGING, st_num=3, key=first)) == "bad_hmac"
    ether.close()
    dispenser.socket.close()


def test_placeholder_requests_are_refused_or_not_answered(start: Callable[..., Mock]) -> None:
    mock = start("--placeholder", "refuse", "--control", "-")
    ether = Ether(mock)
    ether.send(PLACEHOLDER)
    frame = ether.port.receive(TIMEOUT_S)
    assert frame is not None
    reply = decode(frame).message
    assert isinstance(reply, PowerRequestReply)
    assert reply.result == 1
    assert mock.wait("placeholder_reply")["result"] == 1
    mock.told("placeholder", reply="withhold", connector_no=3)
    ether.send(PLACEHOLDER, st_num=2)
    assert mock.wait("placeholder_withheld")["connector_no"] == 3
    ether.close()


# --- scenario ----------------------------------------------------------------------------------------------


def test_scenario(start: Callable[..., Mock], tmp_path: Path) -> None:
    path = tmp_path / "scenario.toml"
    path.write_text(
        """
        [[step]]
        at = 0.1
        do = "reset"
        [[step]]
        at = 0.05
        do = "alarm"
        name = "DcDcChargingModule/DcDcModule3"
        value = 0x80
        """
    )
    mock = start(SCENARIO=str(path))
    dispenser = Dispenser(mock)
    dispenser.requests_until(0x4074)
    alarm = mock.wait("step")
    assert (alarm["source"], alarm["step"], alarm["do"], alarm["value"]) == ("scenario", 2, "alarm", 0x80)
    assert mock.wait("step")["do"] == "reset"
    mock.wait("disconnected")
    dispenser.socket.close()


def test_scenario_that_is_not_right_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    path = tmp_path / "scenario.toml"
    path.write_text('[[step]]\nat = 1\ndo = "alram"\n')
    done = subprocess.run(
        [*COMMAND, "--scenario", str(path)], check=False, capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"--scenario: {path}: step 1 (alram): do: found 'alram'; did you mean 'alarm'?; ")


def test_commands_from_a_standard_input_that_is_closed_are_refused() -> None:
    done = subprocess.run(
        ["sh", "-c", '"$@" --interface udp:1 --control - <&-', "sh", *COMMAND],
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 2
    assert done.stderr == "--control: standard input is closed; connect a pipe, a terminal or a file to it\n"


def test_step_events_are_json(told: Mock) -> None:
    step = told.told("key", connector=1, key="zero")
    assert json.dumps(step)
    assert (step["connector"], step["key"], step["dispensers"]) == (1, "zero", 0)
