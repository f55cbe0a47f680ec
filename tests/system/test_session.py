"""Whole charging sessions on the whole system: real processes, mosquitto, TCP, veth and AF_PACKET."""

import statistics
import time
from pathlib import Path

import pytest
from requirements import require_program
from rig import Rig, rig, utc_s


def session(system: Rig, connector: int) -> None:
    """Cable check, precharge, charging with several setpoints, off."""
    everest, mark = system.everest, system.mock.events.mark()
    everest.setpoint(connector, 500, 1)
    everest.mode(connector, "Export", "CableCheck")
    system.wait_power(connector, "INSULATION_DETECTION_VOLTAGE_OUTPUT", 500, after=mark)
    everest.mode(connector, "Off", "CableCheck")
    system.wait_power(connector, "INSULATION_DETECTION_VOLTAGE_OUTPUT_STOPPAGE", 0, after=mark)
    everest.setpoint(connector, 390, 2)
    everest.mode(connector, "Export", "PreCharge")
    system.wait_power(connector, "PRECHARGE_VOLTAGE_OUTPUT", 390, after=mark)
    everest.mode(connector, "Export", "Charging")
    for voltage_v in (400, 401.5, 402):
        everest.setpoint(connector, voltage_v, 20 + connector)
        request = system.wait_power(connector, "CHARGING", voltage_v, after=mark)
        assert request["current"] == 20 + connector
    everest.mode(connector, "Off", "Other")
    system.wait_stop(connector, after=mark)


def test_two_charges_on_one_plug_in(tmp_path: Path) -> None:
    with rig(tmp_path) as system:
        system.start_driver()
        mark = system.mock.events.mark()
        system.everest.bsp(1, "B")
        first_key = system.wait_key(1, after=mark)
        session(system, 1)
        # Completed: the next Export gets a new key first.
        mark = system.mock.events.mark()
        system.everest.setpoint(1, 350, 5)
        system.everest.mode(1, "Export", "Charging")
        second_key = system.wait_key(1, after=mark)
        assert second_key["t"] > first_key["t"]
        system.wait_power(1, "MODULE_PLACEHOLDER_REQUEST", 0, after=mark)
        system.wait_power(1, "CHARGING", 350, after=mark)
        system.everest.mode(1, "Off", "Other")
        system.wait_stop(1, after=mark)
        system.everest.bsp(1, "A")
        system.mock.events.wait(
            lambda event: event["event"] == "report" and event["registers"]["1/working_status"] == 0,
            after=mark,
        )
        assert system.driver.terminate() == 0
        assert system.everest.wait("telemetry/status", "offline")
        code, text = system.replay()
        assert (code, text.splitlines()[-1].split(":")[0]) == (0, "identical"), text
        # Nothing is dropped or refused in a session that goes well.
        assert [event for event in system.mock.events.all() if "drop" in event["event"]] == []


def test_four_connectors_at_once(tmp_path: Path) -> None:
    with rig(tmp_path, connectors=4) as system:
        system.start_driver()
        mark = system.mock.events.mark()
        for connector in (1, 2, 3, 4):
            system.everest.bsp(connector, "B")
        for connector in (1, 2, 3, 4):
            system.wait_key(connector, after=mark)
            system.start_power(connector, 300 + connector, 10)
        for connector in (1, 2, 3, 4):
            session(system, connector)
        # Each connector is a publisher of its own: its stNum goes up by one from message to message.
        for connector in (1, 2, 3, 4):
            numbers = [frame["st_num"] for frame in system.frames(connector)]
            assert numbers == list(range(1, len(numbers) + 1))
        assert system.driver.terminate() == 0
        assert system.replay()[0] == 0


def test_from_plug_in_to_key(tmp_path: Path) -> None:
    """Issue's figure: under 20 ms in the median, MQTT included."""
    with rig(tmp_path) as system:
        system.start_driver()
        delays_s = []
        for _ in range(15):
            mark = system.mock.events.mark()
            begin_s = time.time()
            system.everest.bsp(1, "B")
            delays_s.append(utc_s(system.wait_key(1, after=mark)) - begin_s)
            system.everest.bsp(1, "A")
            system.wait_stop(1, after=mark)
        assert statistics.median(delays_s) < 0.020, delays_s


def test_alarms_reach_the_psu_until_the_last_board_clears_them(tmp_path: Path) -> None:
    with rig(tmp_path, connectors=2) as system:
        system.start_driver()

        def reported(value: int, after: int) -> dict[str, object]:
            return system.mock.events.wait(
                lambda event: event["event"] == "report" and event["registers"]["epo_alarm"] == value,
                after=after,
                what=f"epo_alarm {value}",
            )

        everest, mark = system.everest, system.mock.events.mark()
        everest.bsp_error(1, "MREC8EmergencyStop", raised=True)
        reported(1, mark)
        everest.bsp_error(2, "MREC8EmergencyStop", raised=True)
        everest.bsp_error(1, "MREC8EmergencyStop", raised=False)
        everest.bsp(1, "PowerOn")  # something that is reported at once, after the clear
        mark = system.mock.events.mark()
        event = system.mock.events.wait(
            lambda event: event["event"] == "report" and event["registers"]["1/contactor_status"] == 1
        )
        assert event["registers"]["epo_alarm"] == 1
        everest.bsp_error(2, "MREC8EmergencyStop", raised=False)
        reported(0, mark)


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        ("power_supply_DC/psu_1/e2m/mode", "no json"),
        ("power_supply_DC/psu_1/e2m/mode", '{"mode": "Sideways"}'),
        ("power_supply_DC/psu_1/e2m/export_voltage_current", '{"voltage_V": 1e999, "current_A": 1}'),
        ("power_supply_DC/psu_1/e2m/export_voltage_current", "[" * 100_000),
        ("power_supply_DC/psu_1/e2m/heartbeat", "-1"),
        ("evse_board_support/bsp_1/m2e/event", '{"event": 7}'),
    ],
    ids=["no-json", "unknown-mode", "infinite", "nested", "negative-heartbeat", "event-type"],
)
def test_malformed_messages_change_nothing(tmp_path: Path, topic: str, payload: str) -> None:
    with rig(tmp_path) as system:
        system.start_driver()
        system.charge(1)
        system.everest.publish(topic, payload, raw=True)
        system.driver.log.wait(lambda line: "rejected" in line and topic in line)
        mark = system.mock.events.mark()
        system.everest.setpoint(1, 410, 20)
        system.wait_power(1, "CHARGING", 410, after=mark)
        assert system.driver.terminate() == 0
        assert system.replay()[0] == 0
        assert not any("Traceback" in line for line in system.driver.log.all())


def test_the_driver_needs_no_privilege_but_raw_sockets(tmp_path: Path) -> None:
    with rig(tmp_path) as system:
        setpriv = require_program("setpriv")
        only_raw = ["--bounding-set=-all,+net_raw", "--inh-caps=-all,+net_raw", "--no-new-privs"]
        system.start_driver(wrapper=[setpriv, *only_raw])
        status = Path(f"/proc/{system.driver.popen.pid}/status").read_text()
        (effective,) = [line.split()[1] for line in status.splitlines() if line.startswith("CapEff")]
        assert int(effective, 16) == 1 << 13  # CAP_NET_RAW
        system.charge(1)
        assert system.driver.terminate() == 0
