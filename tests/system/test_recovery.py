"""Losses of the link and of the broker, in every state, with real processes (behaviour.md §2, §8.2)."""

import json
import random
import threading
import time
from pathlib import Path

import msgspec
import pytest
from fusioncharger.actors.system import build
from fusioncharger.messages.config import Config
from fusioncharger.messages.inputs import PsuDisconnected
from fusioncharger.messages.types import ConnectorPhase
from fusioncharger.replay.reader import read_log
from netns import ip
from rig import Rig, rig

RECOVERY_S = 3.0
COMMUNICATION_FAULT = "CommunicationFault"
# A PSU that hands out a new key for each plug-in, and says its ratings at once.
MOCK = ("--ratings-at-once", "--random-keys")


def wait_back(system: Rig, connector: int, mark: int, timeout_s: float = RECOVERY_S) -> None:
    """Everything that a link loss raises is cleared."""
    for error in ((COMMUNICATION_FAULT, ""), ("HardwareFault", "capabilities_not_received")):
        system.everest.wait_error(connector, *error, raised=False, after=mark, timeout_s=timeout_s)


def wait_status(system: Rig, connector: int, status: int, *, after: int, timeout_s: float = RECOVERY_S) -> None:
    system.mock.events.wait(
        lambda event: (
            event["event"] == "report" and event["registers"].get(f"{connector}/working_status") == status
        ),
        after=after,
        timeout_s=timeout_s,
        what=f"working_status {status} of connector {connector}",
    )


def error_sequences(system: Rig, connector: int, *, after: int) -> dict[tuple[str, str], list[str]]:
    """What EVerest heard of each error, in order."""
    heard: dict[tuple[str, str], list[str]] = {}
    for topic, payload in system.everest.messages.all()[after:]:
        name = topic.rpartition("/")[2]
        if f"/psu_{connector}/m2e/" in topic and name in ("raise_error", "clear_error"):
            error = json.loads(payload)
            heard.setdefault((error["type"], error["sub_type"]), []).append(name)
    return heard


def phases_when_cut(log: Path) -> set[ConnectorPhase]:
    """The states in which the link's failing met the connectors, by replaying the log."""
    met: set[ConnectorPhase] = set()
    with read_log(log) as reader:
        runtime = build(msgspec.convert(reader.header.config, Config))
        for turn in reader.turns():
            message = turn.input
            if isinstance(message, PsuDisconnected):
                met |= {
                    state.phase  # type: ignore[attr-defined]
                    for name, state in runtime.states().items()
                    if name.startswith("connector/")
                }
            runtime.turn(message)
    return met


class Cutter:
    """Plays sessions on a connector up to a state, cuts the link there, and checks what comes after."""

    STATES = ("free", "no key", "allocation", "charging", "precharge", "off while resuming", "completed")

    def __init__(self, system: Rig, seed: int) -> None:
        self.system = system
        self.random = random.Random(seed)
        self.slowest_s = 0.0

    def one(self, state: str) -> None:
        system, everest, connector = self.system, self.system.everest, 1
        voltage_v = self.random.randrange(200, 900)
        frames = system.mock.events.mark()
        self._reach(state, voltage_v)
        # A random moment, in the midst of what may still be going on.
        threading.Event().wait(self.random.uniform(0, 0.03))
        cut = system.mock.events.mark()
        messages = everest.messages.mark()
        self._cut()
        everest.wait_error(connector, COMMUNICATION_FAULT, after=messages)
        if state == "off while resuming":
            everest.mode(connector, "Off", "Other")
        if state == "allocation":
            system.psu("placeholder", reply="answer")
        elif state == "no key":
            system.psu("silence", for_s=0)
        back_at_s = time.monotonic()
        self._come_back()
        wait_back(system, 1, messages)
        wait_back(system, 2, messages)
        if state in ("charging", "allocation", "no key"):
            system.wait_power(1, "CHARGING", voltage_v, after=cut, timeout_s=RECOVERY_S)
        elif state == "precharge":
            system.wait_power(1, "PRECHARGE_VOLTAGE_OUTPUT", voltage_v, after=cut, timeout_s=RECOVERY_S)
        elif state in ("off while resuming", "completed"):
            wait_status(system, 1, 4, after=cut)
        self.slowest_s = max(self.slowest_s, time.monotonic() - back_at_s)
        asked = [event for event in system.frames(1, after=frames) if event.get("voltage", 0) > 0]
        assert {event["voltage"] for event in asked} <= {voltage_v}
        if state in ("off while resuming", "completed", "free"):
            assert [event for event in system.frames(1, after=cut) if event.get("voltage", 0) > 0] == []
        leaving = system.mock.events.mark()
        everest.bsp(1, "A")
        wait_status(system, 1, 0, after=leaving)

    def _reach(self, state: str, voltage_v: float) -> None:
        system, everest = self.system, self.system.everest
        if state == "free":
            return
        mark = system.mock.events.mark()
        if state == "no key":
            system.psu("silence")  # it writes no key
        if state == "allocation":
            system.psu("placeholder", reply="withhold")
        everest.bsp(1, "B")
        everest.setpoint(1, voltage_v, 20)
        everest.mode(1, "Export", "PreCharge" if state == "precharge" else "Charging")
        if state == "no key":
            wait_status(system, 1, 1, after=mark)
        elif state == "allocation":
            system.wait_power(1, "MODULE_PLACEHOLDER_REQUEST", after=mark)
        elif state == "precharge":
            system.wait_power(1, "PRECHARGE_VOLTAGE_OUTPUT", voltage_v, after=mark)
        else:
            system.wait_power(1, "CHARGING", voltage_v, after=mark)
        if state == "completed":
            everest.mode(1, "Off", "Other")
            wait_status(system, 1, 4, after=mark)

    def _cut(self) -> None:
        self.system.psu("refuse")
        self.system.psu(self.random.choice(["drop", "reset", "restart"]))

    def _come_back(self) -> None:
        threading.Event().wait(self.random.choice([0, 0, 0.05, 0.3]))
        self.system.psu("listen")


def test_fifty_cuts_at_random_moments(tmp_path: Path) -> None:
    seed = 20261123
    with rig(tmp_path, connectors=2, settings="modbus_timeout_s = 30\n", mock_options=MOCK) as system:
        system.start_driver()
        system.everest.start_heartbeats(2)
        system.everest.wait_error(1, "VendorWarning", "PowerUnit/Water", raised=False)  # the synchronisation
        system.everest.wait_error(
            2, "VendorWarning", "PowerDistributionModule/PowerDistributionModule5", raised=False
        )
        synchronised = system.everest.messages.mark()
        cutter = Cutter(system, seed)
        states = [*Cutter.STATES] * 8
        cutter.random.shuffle(states)
        for state in states[:50]:
            cutter.one(state)
        assert system.driver.terminate() == 0
        for connector in (1, 2):
            for error, heard in error_sequences(system, connector, after=synchronised).items():
                assert heard == ["raise_error", "clear_error"] * (len(heard) // 2), error
        code, text = system.replay()
        assert code == 0, text
        assert phases_when_cut(system.logs()[-1]) >= set(ConnectorPhase) - {ConnectorPhase.FIRST_KEY}
    print(f"slowest recovery: {cutter.slowest_s:.2f} s")


def charging(system: Rig) -> int:
    """Connector 1 charges with 400 V 20 A; a mark in EVerest's messages from before the loss."""
    system.start_driver()
    system.everest.start_heartbeats(1)
    wait_back(system, 1, 0, 5)
    system.charge(1)
    return system.everest.messages.mark()


def lost_and_back(system: Rig, mark: int, reason: str, *, within_s: float) -> None:
    """The link is given up for the reason, power stops, and everything comes back by itself."""
    system.driver.log.wait(lambda line: reason in line, timeout_s=within_s, what=reason)
    system.everest.wait_error(1, COMMUNICATION_FAULT, after=mark)


@pytest.mark.parametrize("how", ["drop", "reset", "restart"])
def test_a_connection_that_ends(tmp_path: Path, how: str) -> None:
    # A connection that is closed while something waits unread ends with a reset, too.
    reasons = {"drop": "link to the PSU failed", "reset": "onnection reset", "restart": "onnection reset"}
    with rig(tmp_path, mock_options=MOCK) as system:
        mark = charging(system)
        seen = system.mock.events.mark()
        system.psu(how)
        lost_and_back(system, mark, reasons[how], within_s=2)
        if how != "restart":  # a PSU that boots anew knows the old key no more
            system.wait_stop(1, after=seen)
        wait_back(system, 1, mark)
        system.wait_power(1, "CHARGING", 400, after=seen)


def test_a_psu_that_came_back_with_another_mac_gets_its_frames_there(tmp_path: Path) -> None:
    with rig(tmp_path, mock_options=MOCK) as system:
        mark = charging(system)
        system.psu("restart", mac="02:00:00:00:00:99")
        lost_and_back(system, mark, "onnection reset", within_s=2)
        system.driver.log.wait(lambda line: "02:00:00:00:00:99" in line)
        assert system.driver.terminate() == 0
        assert system.replay()[0] == 0


def test_a_refused_connection_is_tried_for_ever(tmp_path: Path) -> None:
    with rig(tmp_path, mock_options=MOCK) as system:
        mark = charging(system)
        seen = system.mock.events.mark()
        system.psu("refuse")
        system.psu("drop")
        lost_and_back(system, mark, "onnection refused", within_s=2)
        system.psu("listen")
        wait_back(system, 1, mark)
        system.wait_power(1, "CHARGING", 400, after=seen)
        refusals = [line for line in system.driver.log.all() if "onnection refused" in line]
        assert len(refusals) == 1  # once, not at every attempt


def test_a_silent_psu_is_given_up(tmp_path: Path) -> None:
    with rig(tmp_path, settings="modbus_timeout_s = 6\n", mock_options=MOCK) as system:
        mark = charging(system)
        seen = system.mock.events.mark()
        system.psu("silence")
        lost_and_back(system, mark, "nothing received for 6 s", within_s=8)
        system.wait_stop(1, after=seen)
        system.psu("silence", for_s=0)
        wait_back(system, 1, mark, 5)
        system.wait_power(1, "CHARGING", 400, after=seen)


def test_a_psu_that_lost_its_power_is_noticed(tmp_path: Path) -> None:
    """Half-open: no FIN, no RST; nothing that is sent is acknowledged any more (TCP_USER_TIMEOUT)."""
    with rig(tmp_path, mock_options=MOCK) as system:
        mark = charging(system)
        ip("link", "set", "lo", "down")
        # The broker is on lo, too: EVerest hears of it when it is back. A PSU without power hears no GOOSE.
        system.driver.log.wait(lambda line: "link to the PSU failed" in line, timeout_s=14)
        ip("link", "set", "lo", "up")
        wait_back(system, 1, mark, 10)


def test_a_protocol_error_ends_the_connection(tmp_path: Path) -> None:
    with rig(tmp_path, mock_options=MOCK) as system:
        mark = charging(system)
        seen = system.mock.events.mark()
        system.psu("send", hex="0001ffff0002ff03")  # protocol id 0xFFFF
        lost_and_back(system, mark, "Modbus protocol error", within_s=2)
        wait_back(system, 1, mark)
        system.wait_power(1, "CHARGING", 400, after=seen)


# --- the broker -----------------------------------------------------------------------------------------------


def test_a_short_loss_of_the_broker_stops_nothing_and_an_off_sent_meanwhile_arrives(tmp_path: Path) -> None:
    with rig(tmp_path, settings="everest_timeout_s = 5\n", mock_options=MOCK) as system:
        system.start_driver()
        system.charge(1)
        seen = system.mock.events.mark()
        messages = system.everest.messages.mark()
        with system.broker.stopped():  # its sockets stay open: what EVerest sends waits in them
            system.everest.setpoint(1, 410, 20)
            system.everest.mode(1, "Off", "Other")
        system.wait_stop(1, after=seen)
        system.everest.wait("psu_1/m2e/mode", '"Off"', after=messages)
        wait_status(system, 1, 4, after=seen)


def test_a_broker_that_is_down_at_the_start_is_waited_for(tmp_path: Path) -> None:
    with rig(tmp_path, mock_options=MOCK) as system:
        system.everest.close()
        system.broker.kill()
        system.launch_driver()
        system.driver.log.wait(lambda line: "trying on" in line)
        system.wait_stop(1)  # the first-key cycle needs no broker
        system.broker.start()
        system.reconnect_everest()
        system.everest.wait("telemetry/status", "online", timeout_s=5)
        system.everest.start_heartbeats(1)
        system.everest.wait_error(1, "HardwareFault", "psu_not_running", raised=False)
        state = system.everest.wait_object("telemetry/psu", {"psu_running_mode": "RUNNING"})
        assert state["ac_input_voltage_a"] is not None
        wait_back(system, 1, 0)
        assert system.everest.raised(1) == []
        system.charge(1)
