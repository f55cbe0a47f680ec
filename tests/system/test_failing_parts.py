"""Every thread, and the recorder, is killed or made to hang while cars charge (behaviour.md §10).

What holds of each: power ends within 5 s and never comes back, every stop request is sent five times, the
process ends with 1 and says why. Of the process log: that it may hang, since it does when nobody reads standard
error. Of the recorder: that charging goes on.

Every scenario has a rig of its own and mostly waits, so four run at a time.
"""

import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from fusioncharger.replay.logs import open_logs
from fusioncharger.replay.replayer import replay
from rig import Event, Rig, rig, utc_s

FAULT_V = 666
LIMIT_S = 5.0
"""behaviour.md §10."""
STOP_LIMIT_S = 5.0
"""From the first stop request to the end of the process, whatever hangs."""
STILL_S = 3.0
"""Longer than the core may be silent, shorter than the power unit believes a frame."""
UNAVAILABLE = "VendorWarning", "journal_unavailable"


def charging_driver(system: Rig, fault: str) -> int:
    """A driver whose connectors charge; where the mock's events go on from."""
    system.start_driver(fault=fault)
    for connector in range(1, system.connectors + 1):
        mark = system.mock.events.mark()
        system.charge(connector)
    system.mock.events.wait(lambda event: event.get("sq_num") == 5, after=mark, what="steady repeats")
    return system.mock.events.mark()


def stops_of(system: Rig, connector: int, mark: int) -> list[Event]:
    return [
        event
        for event in system.mock.events.all()[mark:]
        if event["event"] == "stop_request" and event["connector_no"] == connector + 4
    ]


def fault_utc_s(system: Rig) -> float:
    """When the thread was ended, or began to hang."""
    line = system.driver.log.wait(lambda line: line.startswith("fault at "))
    return float(line.removeprefix("fault at "))


def check_safe_stop(system: Rig, mark: int) -> float:
    """Each connector: stopped in time, five times, and no power after that. Seconds from the fault to the last
    connector's first stop request."""
    began_s = fault_utc_s(system)
    after_s = []
    for connector in range(1, system.connectors + 1):
        stops = stops_of(system, connector, mark)
        assert [stop["sq_num"] for stop in stops][:5] == [0, 1, 2, 3, 4]
        after_s.append(utc_s(stops[0]) - began_s)
        assert not any(
            event["event"] == "power_request"
            and event["connector_no"] == connector + 4
            and event["voltage"] > 0
            and event["t"] > stops[0]["t"]
            for event in system.mock.events.all()[mark:]
        )
    assert max(after_s) < LIMIT_S
    return max(after_s)


def thread_fails(fault: str, reason: str, directory: Path) -> str:
    with rig(directory, connectors=2) as system:
        mark = charging_driver(system, fault)
        system.everest.setpoint(1, FAULT_V, 20)
        for connector in (1, 2):
            system.wait_stop(connector, after=mark)
        assert system.driver.wait() == 1
        ended_s = time.time() - fault_utc_s(system)
        assert ended_s < LIMIT_S + STOP_LIMIT_S
        stopped_s = check_safe_stop(system, mark)
        lines = system.driver.log.all()
        if not fault.startswith("log"):
            assert any(re.search(reason, line) for line in lines)
        if fault.endswith("hangs"):
            # The log says in which call.
            assert any("is in: " in line and "hang (faulty_driver" in line for line in lines)
        return f"stop requests after {stopped_s:.1f} s, end of the process after {ended_s:.1f} s"


def process_stands_still(directory: Path) -> str:
    """Whichever thread runs first afterwards: no power goes on from before."""
    with rig(directory, connectors=2) as system:
        charging_driver(system, "small backlog")
        system.driver.popen.send_signal(signal.SIGSTOP)
        time.sleep(STILL_S)
        mark = system.mock.events.mark()
        system.driver.popen.send_signal(signal.SIGCONT)
        for connector in (1, 2):
            system.wait_stop(connector, after=mark)
        assert system.driver.wait() == 1
        for connector in (1, 2):  # the publisher may have begun with a stop request of its own
            assert [stop["sq_num"] for stop in stops_of(system, connector, mark)][-5:] == [0, 1, 2, 3, 4]
        assert any("the core has not finished a turn for" in line for line in system.driver.log.all())
        return "power stops"


def start_is_slow(directory: Path) -> str:
    """A disk that takes longer than the core may: it is not held against the core."""
    with rig(directory) as system:
        charging_driver(system, "slow start")
        assert system.driver.terminate() == 0
        return "it starts all the same"


def end_hangs(directory: Path) -> str:
    with rig(directory) as system:
        mark = charging_driver(system, "end hangs")
        system.driver.popen.terminate()
        system.wait_stop(1, after=mark)
        assert system.driver.wait() == 1
        ended_s = time.time() - fault_utc_s(system)
        assert 0.5 < ended_s < 4, ended_s
        return f"end of the process {ended_s:.1f} s after that"


def process_log_hangs(directory: Path) -> str:
    with rig(directory) as system:
        mark = charging_driver(system, "log hangs")
        system.everest.setpoint(1, FAULT_V, 20)
        # Longer than any other thread may hang: the driver's own turns, once a second, are the clock.
        for _ in range(5):
            seen = system.everest.messages.mark()
            system.everest.wait("m2e/communication_check", after=seen)
        system.everest.setpoint(1, 500, 20)
        system.wait_power(1, "CHARGING", 500, after=mark)
        assert stops_of(system, 1, mark) == []
        system.driver.popen.terminate()
        system.wait_stop(1, after=mark)
        assert system.driver.wait() == 1  # it says that it could not write its log
        return "nothing stops"


# --- the recorder -------------------------------------------------------------------------------------------


def charge_on(system: Rig, seconds: float) -> None:
    """New setpoints, one after another, each of which has to arrive."""
    end_s = time.monotonic() + seconds
    n = 0
    while time.monotonic() < end_s:
        n += 1
        mark = system.mock.events.mark()
        system.everest.setpoint(1, 300 + n % 300, 10)
        frame = system.wait_power(1, "CHARGING", 300 + n % 300, after=mark)
        assert frame["sq_num"] == 0
    assert n > 20
    # So that the first one of the next time is a new one.
    mark = system.mock.events.mark()
    system.everest.setpoint(1, 299, 10)
    system.wait_power(1, "CHARGING", 299, after=mark)


def was_told(system: Rig, mark: int) -> bool:
    """Whether EVerest was told of the journal, be it that all is well again meanwhile."""
    return any(
        topic.endswith("/psu_1/m2e/raise_error") and UNAVAILABLE[1] in payload
        for topic, payload in system.everest.messages.all()[mark:]
    )


def check_recorder_was_replaced(system: Rig, mark: int, seen: int) -> str:
    """EVerest was told, a new recorder writes, nothing was stopped, and both parts of the log replay."""
    system.everest.wait_error(1, *UNAVAILABLE, after=mark)
    system.everest.wait_error(1, *UNAVAILABLE, raised=False, after=mark)
    charge_on(system, 1)
    assert stops_of(system, 1, seen) == []
    assert system.driver.terminate() == 0
    log = open_logs([system.directory / "sessions"])
    assert len(log.segments) == 2
    for segment in log.segments:
        with segment.read() as reader:
            assert replay(reader).divergence is None
            is_last = segment is log.segments[-1]
    assert is_last
    assert reader.gap is not None
    return "another one records"


def recorder_is_killed(directory: Path) -> str:
    with rig(directory) as system:
        seen = charging_driver(system, "small backlog")
        mark = system.everest.messages.mark()
        (recorder,) = system.driver.children()
        os.kill(recorder, signal.SIGSTOP)
        charge_on(system, 1)  # stands in the pipe, and goes with the recorder
        os.kill(recorder, signal.SIGKILL)
        said = check_recorder_was_replaced(system, mark, seen)
        log = open_logs([directory / "sessions"])
        with log.segments[0].read() as reader:
            last_turn = max(turn.number for turn in reader.turns())
    command = [sys.executable, "-m", "fusioncharger", "log", "info", str(directory / "sessions")]
    info = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    first_turn = log.segments[1].header.first_turn
    assert f"not in the log: turns {last_turn + 1} to {first_turn - 1} of run" in info
    return said


def recorder_hangs(directory: Path) -> str:
    """It is replaced once the backlog is full."""
    with rig(directory) as system:
        seen = charging_driver(system, "small backlog")
        mark = system.everest.messages.mark()
        (recorder,) = system.driver.children()
        os.kill(recorder, signal.SIGSTOP)
        try:
            while not was_told(system, mark):
                charge_on(system, 1)
        finally:
            os.kill(recorder, signal.SIGCONT)
        return check_recorder_was_replaced(system, mark, seen)


def recorder_hangs_as_it_is_started(directory: Path) -> str:
    """The disk is stuck, and the driver is told to end."""
    with rig(directory) as system:
        charging_driver(system, "stuck recorder")
        (recorder,) = system.driver.children()
        os.kill(recorder, signal.SIGKILL)
        fault_utc_s(system)
        mark, begin_s = system.mock.events.mark(), time.monotonic()
        system.driver.popen.terminate()
        system.wait_stop(1, after=mark)
        assert system.driver.wait() == 0
        ended_s = time.monotonic() - begin_s
        assert ended_s < 3, ended_s
        return f"SIGTERM to the end of the process: {ended_s:.1f} s"


# --- systemd ------------------------------------------------------------------------------------------------


@contextmanager
def systemd(path: Path) -> Iterator[tuple[socket.socket, dict[str, str]]]:
    """A socket as systemd's, and the environment that it gives a service."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(path))
        notified.settimeout(10)
        yield notified, {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "2000000"}


def watchdog_is_fed_by_turns_and_by_nothing_else(directory: Path) -> str:
    with rig(directory) as system, systemd(directory / "notify") as (notified, environment):
        system.start_driver(fault="block", environment=environment)
        assert notified.recv(100) == b"READY=1"
        times_s = []
        for _ in range(3):
            assert notified.recv(100) == b"WATCHDOG=1"
            times_s.append(time.monotonic())
        assert max(later - earlier for earlier, later in itertools.pairwise(times_s)) < 2
        system.everest.bsp(1, "B")
        system.wait_key(1)
        system.everest.setpoint(1, FAULT_V, 20)
        begin_s = time.monotonic()
        last_s = begin_s
        while (message := notified.recv(200)) == b"WATCHDOG=1":
            last_s = time.monotonic()
        assert message.startswith(b"STOPPING=1\nSTATUS=stopping: the core has not finished a turn")
        assert last_s - begin_s < 0.1, "the core hangs and systemd hears that it turns"
        assert time.monotonic() - begin_s > 1.9
        assert system.driver.wait() == 1
        return "no WATCHDOG=1 once the core hangs"


def systemd_is_told_of_the_end(directory: Path) -> str:
    with rig(directory) as system, systemd(directory / "notify") as (notified, environment):
        system.start_driver(environment=environment)
        assert system.driver.terminate() == 0
        notified.settimeout(0)
        messages: list[bytes] = []
        try:
            while True:
                messages.append(notified.recv(200))
        except BlockingIOError:
            pass
        first, *_, last = messages
        assert first == b"READY=1"
        assert last == b"STOPPING=1\nSTATUS=stopping: signal SIGTERM"
        return "READY=1, STOPPING=1"


# --- all of them --------------------------------------------------------------------------------------------

THREADS = {
    "die": "the core has failed",
    "block": "the core has not finished a turn",
    "link dies": "the Modbus link thread has died",
    "link hangs": "the Modbus link thread hangs",
    "receiver dies": "the GOOSE receiver thread has died",
    "receiver hangs": "the GOOSE receiver thread hangs",
    "publisher dies": "the GOOSE publisher thread has died",
    # It hangs with its lock, so the core does, too, as soon as it has something to send.
    "publisher hangs": "the core has not finished a turn|the GOOSE publisher thread hangs",
    "mqtt dies": "the MQTT client thread has died",
    "mqtt hangs": "the MQTT client thread hangs",
    "log dies": "",
}
"""The fault (faulty_driver.py), and what the log says of it."""

SCENARIOS: dict[str, Callable[[Path], str]] = {
    **{fault: partial(thread_fails, fault, reason) for fault, reason in THREADS.items()},
    "process stands still": process_stands_still,
    "start is slow": start_is_slow,
    "end hangs": end_hangs,
    "log hangs": process_log_hangs,
    "recorder dies": recorder_is_killed,
    "recorder hangs": recorder_hangs,
    "recorder hangs as it is started": recorder_hangs_as_it_is_started,
    "systemd, core hangs": watchdog_is_fed_by_turns_and_by_nothing_else,
    "systemd, end": systemd_is_told_of_the_end,
}


@pytest.fixture(scope="module")
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[str]]]:
    """Those scenarios that are asked for."""
    asked = {
        item.callspec.params["name"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and "running" in item.fixturenames
    }
    with ThreadPoolExecutor(4) as pool:
        yield {name: pool.submit(SCENARIOS[name], tmp_path_factory.mktemp("part")) for name in sorted(asked)}
        pool.shutdown(cancel_futures=True)  # who ends the run waits for those that have begun, no more


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_part_fails(running: dict[str, Future[str]], name: str) -> None:
    print(f"{name}: {running[name].result()}")
