"""When a part fails (behaviour.md §8.2, §10): real processes, killed, stopped, blocked or made to raise."""

import contextlib
import hmac
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from fusioncharger.io.goose_codec import encode
from fusioncharger.io.goose_port import open_port
from fusioncharger.messages.goose import GooseHeader, PowerRequestReply
from fusioncharger.messages.inputs import TimerFired
from fusioncharger.messages.outputs import ReportSent, StartTimer
from netns import ip
from rig import decoded, rig, utc_s

EVEREST_TIMEOUT = "everest_timeout_s = 2\n"
EVEREST_LIMIT_S = 2.5


def test_sigkill_loses_nothing(tmp_path: Path) -> None:
    with rig(tmp_path, connectors=2) as system:
        system.start_driver()
        system.charge(1)
        system.charge(2)
        for n in range(20):
            system.everest.setpoint(1 + n % 2, 400 + n, 10)
        system.wait_power(2, "CHARGING", 419)
        (recorder,) = system.driver.children()
        waiting = os.pidfd_open(recorder)
        system.driver.kill()
        assert system.mock.events.wait(lambda event: event["event"] == "disconnected")
        _wait_for_end(waiting)
        code, text = system.replay()
        assert code == 0, text
        assert "identical" in text.splitlines()[-1]
        for connector in (1, 2):
            seen = [frame["st_num"] for frame in system.frames(connector)]
            logged = [number for _, number in system.frames_in_log(connector)]
            assert seen == logged[: len(seen)]
            assert len(seen) > 10
        reports = [event for event in system.mock.events.all() if event["event"] == "report"]
        recorded = [
            o for turn in system.turns() for o in map(decoded, turn.outputs) if isinstance(o, ReportSent)
        ]
        assert len(recorded) >= len(reports) > 3


def _wait_for_end(pidfd: int) -> None:
    """Until the process behind the descriptor has ended (its file is closed then)."""
    try:
        assert select.select([pidfd], [], [], 10)[0], "the recorder has not ended"
    finally:
        os.close(pidfd)


def test_a_stopped_recorder_delays_nothing(tmp_path: Path) -> None:
    with rig(tmp_path) as system:
        system.start_driver()
        system.charge(1)
        (recorder,) = system.driver.children()
        os.kill(recorder, signal.SIGSTOP)
        try:
            end_s = time.monotonic() + 3
            n = 0
            while time.monotonic() < end_s:
                n += 1
                mark = system.mock.events.mark()
                voltage_v = 300 + n % 600
                system.everest.setpoint(1, voltage_v, 10)
                system.wait_power(1, "CHARGING", voltage_v, after=mark)
        finally:
            os.kill(recorder, signal.SIGCONT)
        assert system.driver.terminate() == 0
        code, text = system.replay()
        assert code == 0, text
        seen = [frame["st_num"] for frame in system.frames(1)]
        assert seen == [number for _, number in system.frames_in_log(1)]
        assert len(seen) > n
        # How late a turn is shows in its timers: when they were due, and when their turn began.
        delays = _timer_delays_ms(system.turns())
        assert len(delays) > 5
        assert max(delays) < 20


def test_a_core_that_hangs_without_power_is_noticed(tmp_path: Path) -> None:
    with rig(tmp_path) as system:
        system.start_driver(fault="block")
        system.everest.bsp(1, "B")
        system.wait_key(1)
        system.everest.setpoint(1, 666, 20)
        assert system.driver.wait(8) == 1
        assert any("the core has not finished a turn" in line for line in system.driver.log.all())


def test_a_standard_error_that_nobody_reads_stops_nothing(tmp_path: Path) -> None:
    with rig(tmp_path) as system:
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(write_end, b"x" * 4096)
        os.set_blocking(write_end, True)
        driver = subprocess.Popen(
            [sys.executable, "-m", "fusioncharger", "run", "--config", str(system.config)], stderr=write_end
        )
        try:
            system.everest.wait("telemetry/status", "online")
            system.charge(1)
            driver.terminate()
            system.wait_stop(1)
            assert driver.wait(10) != 0  # it says that it could not write its log
        finally:
            driver.kill()
            driver.wait()
            os.close(read_end)
            os.close(write_end)


def test_an_interface_that_goes_away_ends_the_process(tmp_path: Path) -> None:
    with rig(tmp_path) as system:
        system.start_driver()
        system.charge(1)
        offs = system.everest.messages.mark()
        ip("link", "del", "veth1")
        assert system.driver.wait(10) == 1
        assert any("no GOOSE frame could be sent" in line for line in system.driver.log.all())
        system.everest.wait("psu_1/m2e/mode", '"Off"', after=offs)


def _timer_delays_ms(turns: list) -> list[float]:
    due_ns: dict[tuple[str, str, int], int] = {}
    delays = []
    for turn in turns:
        if isinstance(turn.input, TimerFired):
            key = (turn.input.owner, turn.input.name, turn.input.number)
            if key in due_ns:
                delays.append((turn.input.at_ns - due_ns.pop(key)) / 1e6)
        for output in map(decoded, turn.outputs):
            if isinstance(output, StartTimer):
                due_ns[output.owner, output.name, output.number] = turn.input.at_ns + output.delay_ns
    return delays


def test_silence_of_everest_stops_power(tmp_path: Path) -> None:
    with rig(tmp_path, settings=EVEREST_TIMEOUT) as system:
        system.start_driver()
        system.everest.start_heartbeats(1)
        system.charge(1)
        mark = system.mock.events.mark()
        system.everest.stop_heartbeats()
        begin_s = time.monotonic()
        system.wait_stop(1, after=mark, timeout_s=EVEREST_LIMIT_S)
        assert time.monotonic() - begin_s < EVEREST_LIMIT_S
        system.everest.wait("psu_1/m2e/mode", '"Off"')
        stop = system.wait_stop(1, after=mark)
        # Two seconds later the stop request is still what is said, and nothing else was.
        system.mock.events.wait(lambda event: event.get("st_num") == stop["st_num"] and event["sq_num"] == 6)
        later = [event for event in system.mock.events.all()[mark:] if event["t"] > stop["t"]]
        assert not any(event["event"] == "power_request" for event in later)
        assert system.driver.terminate() == 0
        assert system.replay()[0] == 0


def test_loss_of_the_broker_stops_power(tmp_path: Path) -> None:
    with rig(tmp_path, settings=EVEREST_TIMEOUT) as system:
        system.start_driver()
        system.charge(1)
        mark = system.mock.events.mark()
        system.broker.kill()
        system.wait_stop(1, after=mark, timeout_s=EVEREST_LIMIT_S)
        assert system.driver.terminate() == 0
        assert system.replay()[0] == 0


def test_a_handler_that_raises_stops_its_connector_in_that_turn(tmp_path: Path) -> None:
    with rig(tmp_path, connectors=2) as system:
        system.start_driver(fault="raise")
        system.everest.start_heartbeats(2)
        system.charge(1)
        system.charge(2)
        mark = system.mock.events.mark()
        system.everest.setpoint(1, 666, 20)
        system.wait_stop(1, after=mark)
        error = system.everest.wait("psu_1/m2e/raise_error")
        assert msgspec.json.decode(error)["sub_type"] == "internal_error"
        system.everest.setpoint(2, 420, 20)
        system.wait_power(2, "CHARGING", 420, after=mark)
        assert not any(frame["event"] == "stop_request" for frame in system.frames(2, after=mark))
        assert system.driver.terminate() == 0
        (failed,) = [
            turn
            for turn in system.turns()
            if any(type(output).__name__ == "TurnFailed" for output in map(decoded, turn.outputs))
        ]
        assert "StopRequested" in [type(output).__name__ for output in map(decoded, failed.outputs)]
        # Without the fault the same inputs lead elsewhere, and replay says where.
        code, text = system.replay()
        assert code == 1, text
        assert "TurnFailed" in text


def test_a_blocked_core_cannot_go_on_with_power(tmp_path: Path) -> None:
    with rig(tmp_path) as system:
        system.start_driver(fault="block")
        system.charge(1)
        mark = system.mock.events.mark()
        begin_s = time.monotonic()
        system.everest.setpoint(1, 666, 20)
        stop = system.wait_stop(1, after=mark, timeout_s=4)
        assert system.driver.wait() != 0
        assert time.monotonic() - begin_s < 6
        assert any("core" in line and "ERROR" in line for line in system.driver.log.all())
        events = system.mock.events.all()
        # The turn before the one that hangs: after 2.1 s more, no power request leaves.
        last_turn_s = system.turns()[-2].utc_ns / 1e9
        powered = [utc_s(e) for e in events if e["event"] == "power_request" and e["voltage"] > 0]
        assert max(powered) <= last_turn_s + 2.1
        assert utc_s(stop) <= last_turn_s + 2.5
        assert stop["reason"] == "OTHER_CHARGER_FAULT"
        stops = [e for e in events if e["event"] == "stop_request" and e["t"] >= stop["t"]]
        assert len(stops) >= 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_ending_stops_power_first(tmp_path: Path, number: signal.Signals) -> None:
    with rig(tmp_path, connectors=2) as system:
        system.start_driver()
        system.charge(1)
        system.everest.bsp(2, "B")
        system.wait_key(2)
        mark = system.mock.events.mark()
        offs = system.everest.messages.mark()
        system.driver.popen.send_signal(number)
        assert system.driver.wait() == 0
        system.mock.events.wait(lambda event: event["event"] == "disconnected", after=mark)
        for connector in (1, 2):
            stops = [
                event
                for event in system.mock.events.all()[mark:]
                if event["event"] == "stop_request" and event["connector_no"] == connector + 4
            ]
            assert [event["sq_num"] for event in stops][:5] == [0, 1, 2, 3, 4]
        system.everest.wait("psu_1/m2e/mode", '"Off"', after=offs)
        system.everest.wait("telemetry/status", "offline", after=offs)
        code, text = system.replay()
        assert code == 0, text
        assert text.startswith("identical")


def test_an_authenticated_frame_with_a_malformed_payload_is_dropped(tmp_path: Path) -> None:
    key = bytes.fromhex(
        "67e426560a70ca4a833c44b31270ca9355d87b020f578e1e9d1974c02fa6f6804c2fcbdf735e711cec085b93814716ad"
    )
    with rig(tmp_path) as system:
        system.start_driver()
        system.charge(1)
        port = open_port("veth0")
        try:
            reply = PowerRequestReply(5, 1, 0, 2, 0, 0)
            frame = encode(
                reply,
                GooseHeader(1, 0, 1, 0),
                dst=b"\xff" * 6,
                src=port.mac,
                vlan_id=0,
                vlan_priority=5,
                key=key,
            )
            for bad in _malformed(frame, key):
                port.send(bad)
        finally:
            port.close()
        system.driver.log.wait(lambda line: "GOOSE frames dropped" in line)
        mark = system.mock.events.mark()
        system.everest.setpoint(1, 411, 20)
        system.wait_power(1, "CHARGING", 411, after=mark)
        assert system.driver.terminate() == 0
        assert system.replay()[0] == 0


def _malformed(frame: bytes, key: bytes) -> list[bytes]:
    """The signed frame with broken payloads, each signed again with the right key."""

    def signed(raw: bytes) -> bytes:
        body = raw[:-35]
        return body + raw[-35:-32] + hmac.digest(key, body[16:], "sha256")

    broken = []
    for position in range(24, len(frame) - 35, 3):
        changed = bytearray(frame)
        changed[position] ^= 0xFF
        broken.append(signed(bytes(changed)))
    return broken
