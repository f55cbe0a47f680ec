"""Devices that are built into EVerest (behaviour.md §8.3): the test plays evse_manager and error_history."""

import json
from pathlib import Path

from psu_by_hand import PsuByHand
from rig import Rig, rig

HISTORY = 'error_history = "history"\n'
MANAGER = 'evse_manager = "evse_{n}"\n'
METER = {"timestamp": "2026-01-01T00:00:00.000Z", "energy_Wh_import": {"total": 0}}


def say(system: Rig, connector: int, name: str, payload: object) -> None:
    """As evse_manager of a connector."""
    system.everest.publish(f"evse_manager_consumer/evse_{connector}/e2m/{name}", payload)


def session_event(system: Rig, connector: int, event: str, reason: str = "") -> None:
    payload: dict[str, object] = {"uuid": "1", "timestamp": "2026-01-01T00:00:00.000Z", "event": event}
    if reason:
        payload["session_started"] = {"reason": reason, "meter_value": METER}
    say(system, connector, "session_event", payload)


def history_error(module_id: str, name: str, sub_type: str = "") -> dict[str, object]:
    return {
        "type": name,
        "sub_type": sub_type,
        "description": "",
        "message": "",
        "origin": {"module_id": module_id, "implementation_id": "board_support"},
        "timestamp": "2026-01-01T00:00:00.000Z",
        "uuid": "1",
        "severity": "High",
        "state": "Active",
    }


def tell(system: Rig, name: str, payload: object) -> None:
    """As error_history."""
    system.everest.publish(f"error_history_consumer/history/e2m/{name}", payload)


def wait_question(system: Rig, *, after: int) -> str:
    """Where the answer to the driver's question about active errors has to go."""
    text = system.everest.wait("error_history_consumer/history/m2e/active_errors", after=after, timeout_s=6)
    reply_to: str = json.loads(text)["headers"]["replyTo"]
    return reply_to.removeprefix("everest_api/1/")


def wait_alarms(system: Rig, *alarms: str, after: int) -> None:
    """A report shows these alarms and no other."""
    names = ("door_status_alarm", "water_alarm", "epo_alarm", "tilt_alarm", "2/dc_output_contactor_fault")
    system.wait_report({name: int(name in alarms) for name in names}, after=after)


def only_built_in(system: Rig) -> None:
    """A configuration in which evse_manager stands in for isolation monitor and power meter."""
    devices = ("isolation_monitor =", "over_voltage_monitor =", "powermeter =")
    lines = system.config.read_text().splitlines()
    system.config.write_text("\n".join(line for line in lines if not line.startswith(devices)))


def test_session_events_connect_and_disconnect_the_car(tmp_path: Path) -> None:
    with rig(tmp_path, connectors=2, tables=MANAGER) as system:
        only_built_in(system)
        system.start_driver()
        for event, reason in (("SessionStarted", "EVConnected"), ("TransactionStarted", "")):
            mark = system.mock.events.mark()
            session_event(system, 2, "SessionStarted", "Authorized")  # no car yet
            session_event(system, 2, "ChargingStarted")
            session_event(system, 2, event, reason)
            connected = system.wait_report({"2/connection_status": 2}, after=mark)
            assert connected["1/connection_status"] == 0
            system.wait_key(2, after=mark)
            system.start_power(2, 400, 20)
            end = system.mock.events.mark()
            session_event(system, 2, "SessionFinished")
            assert system.wait_report({"2/working_status": 0}, after=end)["2/connection_status"] == 0
            system.wait_stop(2, after=end)
            kinds = [kind for kind, *_ in system.requests(2, after=mark)]
            assert kinds == ["MODULE_PLACEHOLDER_REQUEST", "CHARGING", "STOP"]
        cars = [line for line in system.driver.log.all() if "CarDisconnected -> NoKeyYet" in line]
        assert [line.strip().partition("(")[2].rstrip(")") for line in cars] == [
            "SessionStarted",
            "TransactionStarted",
        ]


def test_a_board_that_speaks_for_itself_goes_before(tmp_path: Path) -> None:
    with rig(tmp_path, tables=MANAGER) as system:
        system.start_driver()
        system.settle()  # the board spoke
        session_event(system, 1, "SessionStarted", "EVConnected")
        assert system.settle()["1/working_status"] == 0
        system.charge(1)
        session_event(system, 1, "SessionFinished")
        assert system.settle()["1/working_status"] == 3


def test_measurements_of_evse_manager(tmp_path: Path) -> None:
    with rig(tmp_path, tables=MANAGER) as system, PsuByHand(system) as psu:
        only_built_in(system)
        system.launch_driver()
        psu.accept()
        everest = system.everest
        everest.wait("telemetry/status", "online")
        say(system, 1, "isolation_measurement", {"resistance_F_Ohm": 1e6, "voltage_V": 401.5})
        say(system, 1, "powermeter", METER | {"voltage_V": {"DC": 402.5}, "current_A": {"DC": 20.5}})
        topic = "connector/5/dispenser_to_psu"
        everest.wait_object(topic, {"upstream_voltage": 401.5, "output_voltage": 402.5, "output_current": 20.5})
        assert (psu.f32(0x1113), psu.f32(0x1107), psu.f32(0x1109)) == (401.5, 402.5, 20.5)
        everest.wait_object("psu_1/m2e/voltage_current", {"voltage_V": 402.5, "current_A": 20.5})


def test_devices_with_an_api_of_their_own_go_before_evse_manager(tmp_path: Path) -> None:
    with rig(tmp_path, tables=MANAGER) as system:
        system.start_driver()
        everest = system.everest
        say(system, 1, "isolation_measurement", {"resistance_F_Ohm": 1e6, "voltage_V": 1})
        say(system, 1, "powermeter", METER | {"voltage_V": {"DC": 2}, "current_A": {"DC": 2}})
        everest.imd(1, 401.5)
        everest.meter(1, 402.5, 20.5)
        shown = {"upstream_voltage": 401.5, "output_voltage": 402.5}
        everest.wait_object("connector/5/dispenser_to_psu", shown)
        told = [text for topic, text in everest.messages.all() if topic.endswith("m2e/voltage_current")]
        assert {json.loads(text)["voltage_V"] for text in told} == {402.5}
        assert not any('"upstream_voltage":1.0' in text for _, text in everest.messages.all())


def test_errors_of_native_boards(tmp_path: Path) -> None:
    with rig(tmp_path, connectors=2, settings=HISTORY, tables=MANAGER) as system:
        system.start_driver()
        mark = system.mock.events.mark()
        # Not a board's, or of a board that is not ours.
        tell(system, "error_raised", history_error("bsp_9", "evse_board_support/TiltDetected"))
        tell(system, "error_raised", history_error("bsp_1", "power_supply_DC/TiltDetected"))
        tell(system, "error_raised", history_error("bsp_1", "evse_board_support/MREC8EmergencyStop"))
        wait_alarms(system, "epo_alarm", after=mark)
        tell(system, "error_raised", history_error("bsp_2", "evse_board_support/MREC17EVSEContactorFault"))
        wait_alarms(system, "epo_alarm", "2/dc_output_contactor_fault", after=mark)
        tell(system, "error_cleared", history_error("bsp_2", "evse_board_support/MREC17EVSEContactorFault"))
        tell(system, "error_cleared", history_error("bsp_1", "evse_board_support/MREC8EmergencyStop"))
        wait_alarms(system, after=mark)
        reports = [event["registers"] for event in system.mock.events.all() if event["event"] == "report"]
        assert {report["tilt_alarm"] for report in reports} == {0}


def test_active_errors_reconcile_the_alarms(tmp_path: Path) -> None:
    tilt, door, contactor = (
        history_error("bsp_1", "evse_board_support/TiltDetected", "left"),
        history_error("bsp_2", "evse_board_support/EnclosureOpen"),
        history_error("bsp_2", "evse_board_support/MREC17EVSEContactorFault"),
    )
    with rig(tmp_path, connectors=2, settings=HISTORY, tables=MANAGER) as system:
        everest = system.everest
        # At start.
        mark = system.mock.events.mark()
        system.start_driver()
        others = [history_error("bsp_9", "evse_board_support/WaterIngressDetected")]
        first = wait_question(system, after=0)
        everest.publish(first, {"errors": [tilt, contactor, *others]})
        wait_alarms(system, "tilt_alarm", "2/dc_output_contactor_fault", after=mark)
        # When EVerest restarted: its heartbeat id went back.
        for heartbeat_id in (7, 8, 1):
            mark, question = system.mock.events.mark(), everest.messages.mark()
            everest.publish("power_supply_DC/psu_1/e2m/heartbeat", heartbeat_id)
            if heartbeat_id != 8:
                everest.publish(wait_question(system, after=question), {"errors": [tilt, door]})
                wait_alarms(system, "tilt_alarm", "door_status_alarm", after=mark)
        questions = [topic for topic, _ in everest.messages.all() if topic.endswith("m2e/active_errors")]
        assert len(questions) == 3
        # After a reconnect to the broker.
        everest.close()
        system.broker.kill()
        system.broker.start()
        system.reconnect_everest()
        mark = system.mock.events.mark()
        again = wait_question(system, after=0)
        assert again == first
        system.everest.publish(again, {"errors": [door]})
        wait_alarms(system, "door_status_alarm", after=mark)
        # What a former run had asked for is no answer to this one.
        system.driver.kill()
        question = system.everest.messages.mark()
        mark = system.mock.events.mark()
        system.start_driver()
        wait_alarms(system, "door_status_alarm", after=mark)  # from the journal
        current = wait_question(system, after=question)
        assert current != again
        system.everest.publish(again, {"errors": [tilt]})
        system.everest.publish(current, {"errors": []})
        wait_alarms(system, after=mark)
        reports = [
            event["registers"] for event in system.mock.events.all()[mark:] if event["event"] == "report"
        ]
        assert {report["tilt_alarm"] for report in reports} == {0}


def test_no_device_for_a_need_is_a_configuration_error(tmp_path: Path) -> None:
    with rig(tmp_path, tables=MANAGER) as system:
        only_built_in(system)
        text = system.config.read_text()
        for changed, complaint in (
            (f'upstream_voltage_source = "OVM"\n{text}', "over_voltage_monitor is missing"),
            (f"HACK_use_ovm_while_cable_check = true\n{text}", "over_voltage_monitor is missing"),
            (HISTORY + text.replace('evse_board_support = "bsp_1"', ""), "evse_board_support is missing"),
        ):
            system.config.write_text(changed)
            driver = system.launch_driver()
            assert driver.wait() == 2
            assert any(complaint in line for line in driver.log.all()), driver.log.all()
