"""Telemetry (behaviour.md §7): each topic with all its keys, what is unknown as null, retained."""

import json
from pathlib import Path
from typing import Any

from rig import Rig, rig

CONNECTOR = "telemetry/connector/5"
TO_PSU = "telemetry/connector/5/dispenser_to_psu"
PSU = "telemetry/psu"
ALARMS = "telemetry/dispenser/published_alarms"

RATED = {
    "max_rated_psu_current": 100,
    "max_rated_psu_voltage": 1000,
    "min_rated_psu_current": 1,
    "min_rated_psu_voltage": 100,
    "psu_port_available": "AVAILABLE",
    "rated_output_power_psu": 60_000,
}
NOT_YET = {
    "bsp_event": None,
    "dc_output_contactor_fault_alarm": False,
    "everest_mode": None,
    "everest_phase": None,
    "export_current": None,
    "export_voltage": None,
    "output_current": None,
    "output_voltage": None,
    "upstream_voltage": None,
}
NO_ALARMS = dict.fromkeys(("door_status_alarm", "epo_alarm", "tilt_alarm", "water_alarm"), False)
AC_INPUT = {f"ac_input_{what}_{phase}" for what in ("current", "voltage") for phase in "abc"}
PSU_KEYS = AC_INPUT | {"psu_running_mode", "total_historic_input_energy"}


def published(system: Rig, topic: str, *, after: int = 0) -> list[dict[str, Any]]:
    return [json.loads(text) for name, text in system.everest.messages.all()[after:] if name == topic]


def wait_whole(system: Rig, topic: str, wanted: dict[str, object], *, after: int = 0) -> None:
    """The topic says this and nothing else."""
    assert system.everest.wait_object(topic, wanted, after=after) == wanted


def test_before_anything_was_received(tmp_path: Path) -> None:
    with rig(tmp_path, connectors=2) as system:
        system.psu("refuse")
        system.launch_driver()
        system.everest.wait("telemetry/status", "online")
        for connector_no in (5, 6):
            topic = f"telemetry/connector/{connector_no}"
            wait_whole(system, topic, dict.fromkeys(RATED))
            wait_whole(system, f"{topic}/dispenser_to_psu", NOT_YET)
        wait_whole(system, PSU, dict.fromkeys(PSU_KEYS))
        wait_whole(system, ALARMS, dict(NO_ALARMS))


def test_connector(tmp_path: Path) -> None:
    with rig(tmp_path) as system:
        system.start_driver()
        wait_whole(system, CONNECTOR, dict(RATED))
        for told, shown in (
            ({"max_voltage_v": 950.1}, {"max_rated_psu_voltage": 950.1}),  # the shortest decimal of the f32
            ({"max_current_a": 20.1}, {"max_rated_psu_current": 20.1}),
            ({"min_voltage_v": 150.5}, {"min_rated_psu_voltage": 150.5}),
            ({"min_current_a": 0.7}, {"min_rated_psu_current": 0.7}),
            ({"power_kw": 60.1}, {"rated_output_power_psu": 60_100}),
        ):
            mark = system.everest.messages.mark()
            system.psu("ratings", **told)
            wait_whole(system, CONNECTOR, RATED | shown, after=mark)
            system.psu(
                "ratings",
                max_voltage_v=1000,
                max_current_a=100,
                min_voltage_v=100,
                min_current_a=1,
                power_kw=60,
            )
            wait_whole(system, CONNECTOR, dict(RATED), after=mark)
        mark = system.everest.messages.mark()
        system.psu("port_available", available=False)
        wait_whole(system, CONNECTOR, RATED | {"psu_port_available": "NOT_AVAILABLE"}, after=mark)
        # A number that is none.
        mark = system.everest.messages.mark()
        system.psu("write", address=0x2100, words=[0x7FC0, 0])
        system.everest.wait_object(CONNECTOR, {"max_rated_psu_voltage": None}, after=mark)


def test_dispenser_to_psu(tmp_path: Path) -> None:
    with rig(tmp_path) as system:
        system.start_driver()
        everest = system.everest
        state: dict[str, Any] = dict(NOT_YET)

        def becomes(**changed: object) -> None:
            state.update(changed)
            wait_whole(system, TO_PSU, state)

        everest.imd(1, 20.1)
        becomes(upstream_voltage=20.1)
        everest.meter(1, 30.2, 4.3)
        becomes(output_voltage=30.2, output_current=4.3)
        everest.bsp_error(1, "MREC17EVSEContactorFault", raised=True)
        becomes(dc_output_contactor_fault_alarm=True)
        everest.bsp_error(1, "MREC17EVSEContactorFault", raised=False)
        becomes(dc_output_contactor_fault_alarm=False)
        everest.bsp(1, "B")
        becomes(bsp_event="B")
        everest.setpoint(1, 1500, 20.1)
        becomes(export_voltage=1000, export_current=20.1)  # as applied
        everest.mode(1, "Export", "CableCheck")
        becomes(everest_mode="Export", everest_phase="CableCheck")
        everest.mode(1, "Off", "Other")
        becomes(everest_mode="Off", everest_phase="CableCheck", export_voltage=0, export_current=0)
        everest.bsp(1, "PowerOn")
        becomes(bsp_event="PowerOn")
        everest.bsp(1, "A")
        becomes(bsp_event="A", everest_mode=None, everest_phase=None)
        # What did not really change is not published.
        mark = everest.messages.mark()
        for _ in range(3):
            everest.imd(1, 20.1)
            everest.meter(1, 30.2, 4.3)
            everest.bsp(1, "A")
        everest.bsp(1, "C")
        becomes(bsp_event="C")
        assert published(system, TO_PSU, after=mark) == [state]


def test_psu(tmp_path: Path) -> None:
    with rig(tmp_path) as system:
        system.start_driver()
        whole = system.everest.wait_object(
            PSU, {"psu_running_mode": "RUNNING", "total_historic_input_energy": 0}
        )
        last = published(system, PSU)[-1]
        assert set(whole) == PSU_KEYS
        assert all(last[key] == 0 if "current" in key else 225 < last[key] < 235 for key in AC_INPUT)
        for mode in ("STARTING_UP", "FAULTY", "SLEEPING", "UPGRADING", "RUNNING"):
            mark = system.everest.messages.mark()
            system.psu("running_mode", mode=mode)
            assert set(system.everest.wait_object(PSU, {"psu_running_mode": mode}, after=mark)) == PSU_KEYS
        mark = system.everest.messages.mark()
        system.psu("write", address=0x2013, words=[0x404E, 0x0CCC, 0xCCCC, 0xCCCD])  # 60.1 kWh as f64
        system.everest.wait_object(PSU, {"total_historic_input_energy": 60_100}, after=mark)
        system.psu("write", address=0x2007, words=[0x4366, 0x199A])  # 230.1 as f32
        system.everest.wait_object(PSU, {"ac_input_voltage_a": 230.1}, after=mark)


def test_published_alarms(tmp_path: Path) -> None:
    with rig(tmp_path) as system:
        system.start_driver()
        for error, key in (
            ("EnclosureOpen", "door_status_alarm"),
            ("MREC8EmergencyStop", "epo_alarm"),
            ("TiltDetected", "tilt_alarm"),
            ("WaterIngressDetected", "water_alarm"),
        ):
            mark = system.everest.messages.mark()
            system.everest.bsp_error(1, error, raised=True)
            wait_whole(system, ALARMS, NO_ALARMS | {key: True}, after=mark)
            system.everest.bsp_error(1, error, raised=False)
            wait_whole(system, ALARMS, dict(NO_ALARMS), after=mark)


def test_what_the_psu_said_is_null_once_the_link_failed(tmp_path: Path) -> None:
    with rig(tmp_path) as system:
        system.start_driver()
        system.charge(1)
        wait_whole(system, CONNECTOR, dict(RATED))
        mark = system.everest.messages.mark()
        system.psu("refuse")
        system.psu("drop")
        wait_whole(system, CONNECTOR, dict.fromkeys(RATED), after=mark)
        wait_whole(system, PSU, dict.fromkeys(PSU_KEYS), after=mark)
        # Nothing can be applied; what EVerest said is still what it said.
        wanted = {
            "export_voltage": 0,
            "export_current": 0,
            "everest_mode": "Export",
            "everest_phase": "Charging",
        }
        system.everest.wait_object(TO_PSU, wanted, after=mark)
        mark = system.everest.messages.mark()
        system.psu("listen")
        wait_whole(system, CONNECTOR, dict(RATED), after=mark)
        system.everest.wait_object(PSU, {"psu_running_mode": "RUNNING"}, after=mark)


def test_a_burst_is_one_message(tmp_path: Path) -> None:
    with rig(tmp_path) as system:
        system.start_driver()
        system.everest.wait_object(PSU, {"psu_running_mode": "RUNNING"})
        mark = system.everest.messages.mark()
        system.psu("drop")
        wait_whole(system, CONNECTOR, dict(RATED), after=mark)
        # Eleven writes of eight values each changed something; forgetting them did, too.
        assert len(published(system, CONNECTOR, after=mark)) <= 3
        assert len(published(system, PSU, after=mark)) <= 4


def test_messages_are_retained_and_the_status_says_who_is_there(tmp_path: Path) -> None:
    with rig(tmp_path) as system:
        system.start_driver()
        wait_whole(system, CONNECTOR, dict(RATED))
        system.everest.bsp(1, "B")
        system.everest.wait_object(TO_PSU, {"bsp_event": "B"})

        def late_listener() -> dict[str, str]:
            """What somebody hears who comes only now."""
            system.reconnect_everest()
            for topic in (CONNECTOR, TO_PSU, PSU, ALARMS, "telemetry/status"):
                system.everest.wait(topic)
            return dict(system.everest.messages.all())

        system.everest.close()
        heard = late_listener()
        assert heard["telemetry/status"] == "online"
        assert json.loads(heard[CONNECTOR]) == RATED
        assert json.loads(heard[TO_PSU])["bsp_event"] == "B"
        assert set(json.loads(heard[PSU])) == PSU_KEYS
        assert json.loads(heard[ALARMS]) == NO_ALARMS
        mark = system.everest.messages.mark()
        system.driver.kill()
        system.everest.wait("telemetry/status", "offline", after=mark)  # the last will
        mark = system.everest.messages.mark()
        system.start_driver()
        assert system.driver.terminate() == 0
        system.everest.wait("telemetry/status", "offline", after=mark)
        system.everest.close()
        assert late_listener()["telemetry/status"] == "offline"


def test_no_prefix_no_telemetry(tmp_path: Path) -> None:
    with rig(tmp_path) as system:
        text = system.config.read_text()
        system.config.write_text(text.replace('telemetry_topic_prefix = "telemetry"', ""))
        system.launch_driver()
        system.driver.log.wait(lambda line: "MQTT: connected" in line)
        system.wait_stop(1)
        system.charge(1)
        system.settle()
        assert system.driver.terminate() == 0
        topics = {topic for topic, _ in system.everest.messages.all()}
        assert all(topic.startswith("everest_api/1/") for topic in topics), topics
