"""The connector's tables (behaviour.md §1), row by row: events, mode-phases, what the PSU is shown."""

import contextlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fusioncharger.io.goose_codec import encode
from fusioncharger.io.goose_port import open_port
from fusioncharger.messages.goose import GooseHeader, PowerRequestReply
from fusioncharger.messages.inputs import PowerRequestReplyReceived
from fusioncharger.messages.outputs import PowerRequested
from fusioncharger.mock.dispenser_session import KEY
from psu_by_hand import PsuByHand
from rig import Rig, decoded, rig

STANDBY, INSERTED, CHARGING, COMPLETE, STARTING = 0, 1, 3, 4, 8
NOT_CONNECTED, FULL_CONNECTED = 0, 2
START_TO_STOP, STOP_TO_START = 0, 1

STOP = ("STOP", 0, 0)
PLACEHOLDER = ("MODULE_PLACEHOLDER_REQUEST", 0, 0)
STOPPAGE = ("INSULATION_DETECTION_VOLTAGE_OUTPUT_STOPPAGE", 0, 0)


def insulation(voltage_v: float, current_a: float) -> tuple[str, float, float]:
    return "INSULATION_DETECTION_VOLTAGE_OUTPUT", voltage_v, current_a


def precharge(voltage_v: float, current_a: float) -> tuple[str, float, float]:
    return "PRECHARGE_VOLTAGE_OUTPUT", voltage_v, current_a


def charging(voltage_v: float, current_a: float) -> tuple[str, float, float]:
    return "CHARGING", voltage_v, current_a


def wait_event(system: Rig, event: int, mark: int) -> dict[str, int]:
    """The report that says how the charge began or ended."""
    return system.wait_report({"1/charging_event": event}, after=mark)


def plug_in_to_running(system: Rig) -> None:
    """And the placeholder request has been seen: it is not after a mark that is set now."""
    mark, frames = system.driver.log.mark(), system.mock.events.mark()
    system.everest.bsp(1, "B")
    system.driver.log.wait(lambda line: "ConnectedNoAllocation -> Running" in line, after=mark)
    system.wait_power(1, "MODULE_PLACEHOLDER_REQUEST", after=frames)


def status(system: Rig) -> int:
    return system.settle()["1/working_status"]


# --- state x mode-phase -------------------------------------------------------------------------------------


def test_status_and_goose_message_of_every_state_and_mode_phase(tmp_path: Path) -> None:
    with rig(tmp_path) as system:
        system.start_driver()
        everest = system.everest
        begin = system.mock.events.mark()
        # CarDisconnected, with mode-phase Off and another one.
        assert status(system) == STANDBY
        everest.mode(1, "Off", "CableCheck")
        assert status(system) == STANDBY
        # NoKeyYet, with mode-phases: the PSU writes no key.
        system.psu("silence")
        everest.bsp(1, "B")
        for mode, phase in (
            ("Off", "Other"),
            ("Export", "Charging"),
            ("Export", "CableCheck"),
            ("Off", "Other"),
        ):
            everest.mode(1, mode, phase)
            assert status(system) == INSERTED
        everest.mode(1, "Off", "Other")
        assert status(system) == INSERTED
        assert system.requests(1, after=begin) == []  # still the stop request from before
        # ConnectedNoAllocation, with mode-phases: the PSU does not answer.
        system.psu("placeholder", reply="withhold")
        system.psu("silence", for_s=0)
        system.wait_power(1, "MODULE_PLACEHOLDER_REQUEST", 0, after=begin)
        for mode, phase in (("Off", "CableCheck"), ("Export", "Charging"), ("Off", "Other")):
            everest.setpoint(1, 300, 5)
            everest.mode(1, mode, phase)
            assert status(system) == STARTING
        # Running, Off: EVerest wants nothing yet. A key starts a new request, which is answered.
        system.psu("placeholder", reply="answer")
        mark = system.mock.events.mark()
        system.psu("key", connector=1)
        assert wait_event(system, STOP_TO_START, mark)["1/working_status"] == STARTING
        everest.setpoint(1, 500, 2)
        assert status(system) == STARTING
        assert system.requests(1, after=begin) == [PLACEHOLDER, PLACEHOLDER]
        # Running, the other mode-phases.
        everest.mode(1, "Export", "CableCheck")
        assert status(system) == STARTING
        everest.mode(1, "Off", "CableCheck")
        assert status(system) == STARTING
        everest.setpoint(1, 390, 3)
        everest.mode(1, "Export", "PreCharge")
        assert status(system) == STARTING
        everest.mode(1, "Export", "Charging")
        assert status(system) == CHARGING
        # Completed, with Off and another mode-phase.
        mark = system.mock.events.mark()
        everest.mode(1, "Off", "Other")
        assert wait_event(system, START_TO_STOP, mark)["1/working_status"] == COMPLETE
        everest.mode(1, "Off", "CableCheck")
        assert status(system) == COMPLETE
        stop = system.wait_stop(1, after=mark)
        assert stop["reason"] == "NORMAL"
        assert system.requests(1, after=begin) == [
            PLACEHOLDER,
            PLACEHOLDER,
            insulation(500, 2),
            STOPPAGE,
            precharge(390, 3),
            charging(390, 3),
            STOP,
        ]


def test_connection_and_lock_and_charging_events_are_reported(tmp_path: Path) -> None:
    with rig(tmp_path) as system:
        system.start_driver()
        registers = system.settle()
        assert registers["1/connection_status"] == NOT_CONNECTED
        assert registers["1/electronic_lock_status"] == 1
        mark = system.mock.events.mark()
        plug_in_to_running(system)
        wait_event(system, STOP_TO_START, mark)
        system.everest.mode(1, "Off", "Other")
        assert status(system) == COMPLETE
        assert system.settle()["1/connection_status"] == FULL_CONNECTED
        system.everest.bsp(1, "A")
        assert system.settle()["1/connection_status"] == NOT_CONNECTED
        events = system.mock.events.all()[mark:]
        reports = [event["registers"] for event in events if event["event"] == "report"]
        told = [
            (registers["1/working_status"], registers["1/charging_event"])
            for registers in reports
            if "1/charging_event" in registers
        ]
        # Each change of state is told once: plug-in, key, Running, Completed, unplugged.
        assert told == [(INSERTED, 0), (STARTING, 0), (STARTING, 1), (COMPLETE, 0), (STANDBY, 0)]


def test_every_register_has_its_start_value_before_the_first_event(tmp_path: Path) -> None:
    with rig(tmp_path) as system, PsuByHand(system) as psu:
        system.launch_driver()
        psu.accept()
        assert psu.f64(0x1100) == 0  # total_energy_charged
        assert psu.u16(0x1104) == 2  # connector_type: CCS2
        assert psu.f32(0x1105) == 100  # maximum_rated_charge_current: max_export_current_A
        assert psu.f32(0x1107) == 0  # output_voltage
        assert psu.f32(0x1109) == 0  # output_current
        assert psu.u16(0x110B) == STANDBY
        assert psu.u16(0x110D) == NOT_CONNECTED
        assert psu.u16(0x110E) == 5  # connector_no: the global number
        assert psu.f32(0x1113) == 0  # contactor_upstream_voltage
        assert psu.u16(0x1154) == 0  # contactor OFF
        assert psu.u16(0x1156) == 1  # electronic lock LOCKED
        assert psu.f32(0x2109) == 60  # rated_output_power_connector: max_export_power_W / 1000
        assert [psu.u16(address) for address in (0x3001, 0x3002, 0x3003, 0x3004, 0x3105, 0x3115)] == [0] * 6


# --- events --------------------------------------------------------------------------------------------


def test_a_car_that_leaves_in_any_state_takes_its_requests_along(tmp_path: Path) -> None:
    with rig(tmp_path) as system:
        system.start_driver()
        everest = system.everest

        def leave() -> None:
            mark = everest.messages.mark()
            everest.bsp(1, "A")
            registers = system.settle()
            assert (registers["1/working_status"], registers["1/connection_status"]) == (STANDBY, NOT_CONNECTED)
            everest.wait("psu_1/m2e/mode", '"Off"', after=mark)

        def wish(voltage_v: float) -> None:
            everest.setpoint(1, voltage_v, 20)
            everest.mode(1, "Export", "CableCheck")

        begin = system.mock.events.mark()
        system.psu("silence")
        everest.bsp(1, "B")
        wish(400)
        assert status(system) == INSERTED
        leave()  # from NoKeyYet
        system.psu("silence", for_s=0)
        system.wait_stop(1, after=begin)  # signed with the key that came after the car had left

        system.psu("placeholder", reply="withhold")
        everest.bsp(1, "B")
        wish(410)
        system.wait_power(1, "MODULE_PLACEHOLDER_REQUEST", after=begin)
        leave()  # from ConnectedNoAllocation
        system.psu("placeholder", reply="answer")

        mark = system.mock.events.mark()
        plug_in_to_running(system)
        wish(420)
        system.wait_power(1, "INSULATION_DETECTION_VOLTAGE_OUTPUT", 420, after=mark)
        leave()  # from Running

        mark = system.mock.events.mark()
        plug_in_to_running(system)
        # Nothing of the former car's is left: neither its setpoint, nor the CableCheck for an Off to follow.
        everest.mode(1, "Export", "Charging")
        system.wait_power(1, "CHARGING", 0, after=mark)
        everest.mode(1, "Off", "Other")
        assert status(system) == COMPLETE
        leave()  # from Completed
        mark = system.mock.events.mark()
        plug_in_to_running(system)
        everest.mode(1, "Off", "Other")
        assert status(system) == COMPLETE
        system.wait_stop(1, after=mark)
        assert system.requests(1, after=begin) == [
            STOP,
            PLACEHOLDER,
            STOP,
            PLACEHOLDER,
            insulation(420, 20),
            STOP,
            PLACEHOLDER,
            charging(0, 0),
            STOP,
            PLACEHOLDER,
            STOP,
        ]


@pytest.mark.parametrize("reply", ["answer", "refuse", "withhold"])
def test_key_then_reply_or_timeout_lead_to_running(tmp_path: Path, reply: str) -> None:
    settings = "module_placeholder_allocation_timeout_s = 0.2\n"
    with rig(tmp_path, settings=settings, mock_options=("--ratings-at-once", "--placeholder", reply)) as system:
        system.start_driver()
        mark = system.mock.events.mark()
        system.everest.bsp(1, "B")
        system.wait_report({"1/working_status": INSERTED, "1/connection_status": FULL_CONNECTED}, after=mark)
        system.wait_key(1, after=mark)
        system.wait_power(1, "MODULE_PLACEHOLDER_REQUEST", 0, after=mark)
        system.driver.log.wait(lambda line: "ConnectedNoAllocation -> Running" in line)
        system.everest.setpoint(1, 350, 10)
        system.everest.mode(1, "Export", "Charging")
        system.wait_power(1, "CHARGING", 350, after=mark)
        assert system.requests(1, after=mark) == [PLACEHOLDER, charging(350, 10)]
        causes = [line for line in system.driver.log.all() if "ConnectedNoAllocation -> Running" in line]
        assert len(causes) == 1
        assert ("timeout" in causes[0]) == (reply == "withhold")


def test_only_a_reply_to_a_placeholder_request_counts(tmp_path: Path) -> None:
    with rig(tmp_path) as system:
        system.start_driver()
        system.psu("placeholder", reply="withhold")
        mark = system.mock.events.mark()
        system.everest.bsp(1, "B")
        system.wait_power(1, "MODULE_PLACEHOLDER_REQUEST", after=mark)
        with forged_replies() as reply:
            for number, requirement_type in enumerate((2, 3, 4, 5), 1):
                reply(requirement_type, number)
            system.everest.mode(1, "Export", "Charging")
            assert status(system) == STARTING  # Running would be CHARGING
            reply(1, 5)
            system.wait_power(1, "CHARGING", 0, after=mark)
            # In Running and in Completed a reply changes nothing.
            reply(1, 6)
            assert status(system) == CHARGING
            system.everest.mode(1, "Off", "Other")
            system.wait_stop(1, after=mark)
            reply(1, 7)
            assert status(system) == COMPLETE
        assert system.requests(1, after=mark) == [PLACEHOLDER, charging(0, 0), STOP]
        assert system.driver.terminate() == 0
        answers = [turn for turn in system.turns() if isinstance(turn.input, PowerRequestReplyReceived)]
        assert [turn.input.requirement_type for turn in answers] == [2, 3, 4, 5, 1, 1, 1]
        powered = [
            any(isinstance(output, PowerRequested) for output in map(decoded, turn.outputs)) for turn in answers
        ]
        assert powered == [False, False, False, False, True, False, False]


@contextlib.contextmanager
def forged_replies() -> Iterator[Any]:
    """Sends replies as the PSU would, signed with its key: requirement type, stNum."""
    port = open_port("veth0")

    def reply(requirement_type: int, st_num: int) -> None:
        message = PowerRequestReply(5, requirement_type, 0, 2, 0, 0)
        header = GooseHeader(st_num, 0, 1_800_000_000 + st_num, 0)
        port.send(encode(message, header, dst=b"\xff" * 6, src=port.mac, vlan_id=0, vlan_priority=5, key=KEY))

    try:
        yield reply
    finally:
        port.close()


def test_off_in_running_completes_also_when_it_was_off_already(tmp_path: Path) -> None:
    with rig(tmp_path) as system:
        system.start_driver()
        for phase in ("Other", "PreCharge"):
            mark = system.mock.events.mark()
            plug_in_to_running(system)
            system.everest.mode(1, "Off", phase)
            assert status(system) == COMPLETE
            system.wait_stop(1, after=mark)
            assert system.requests(1, after=mark) == [PLACEHOLDER, STOP]
            system.everest.mode(1, "Off", phase)
            assert status(system) == COMPLETE
            system.everest.bsp(1, "A")
            assert status(system) == STANDBY


def test_any_export_in_completed_asks_for_a_new_key(tmp_path: Path) -> None:
    wanted = {"CableCheck": insulation, "PreCharge": precharge, "Charging": charging}
    with rig(tmp_path) as system:
        system.start_driver()
        plug_in_to_running(system)
        for phase, request in wanted.items():
            off = system.mock.events.mark()
            system.everest.mode(1, "Off", "Other")
            system.everest.mode(1, "Off", "Other")  # after a CableCheck the first one is OffCableCheck
            assert status(system) == COMPLETE
            system.wait_stop(1, after=off)
            mark = system.mock.events.mark()
            system.everest.setpoint(1, 420, 7)
            system.everest.mode(1, "Export", phase)
            system.wait_report({"1/working_status": INSERTED, "1/charging_event": START_TO_STOP}, after=mark)
            system.wait_key(1, after=mark)
            system.wait_power(1, request(420, 7)[0], 420, after=mark)
            assert system.requests(1, after=mark) == [PLACEHOLDER, request(420, 7)]


def test_export_without_a_car_does_nothing_and_is_logged(tmp_path: Path) -> None:
    with rig(tmp_path) as system:
        system.start_driver()
        mark = system.mock.events.mark()
        for phase in ("CableCheck", "PreCharge", "Charging"):
            messages = system.everest.messages.mark()
            system.everest.mode(1, "Export", phase)
            system.driver.log.wait(lambda line, phase=phase: f"Export {phase} refused" in line)
            system.everest.wait("psu_1/m2e/mode", '"Off"', after=messages)
            assert status(system) == STANDBY
        plug_in_to_running(system)  # and with mode-phase Off
        assert status(system) == STARTING
        assert system.requests(1, after=mark) == [PLACEHOLDER]


def test_other_events_change_nothing(tmp_path: Path) -> None:
    with rig(tmp_path) as system:
        system.start_driver()
        everest = system.everest
        for event in ("A", "C", "D", "E", "F"):  # CarDisconnected
            everest.bsp(1, event)
            assert status(system) == STANDBY
        mark = system.mock.events.mark()
        system.charge(1)
        for event in ("B", "C", "D", "E", "F"):  # Running
            everest.bsp(1, event)
            assert status(system) == CHARGING
        again = system.mock.events.mark()
        system.psu("key", connector=1)  # only a new message with the same content
        system.wait_power(1, "CHARGING", 400, after=again)
        everest.mode(1, "Off", "Other")
        system.wait_stop(1, after=mark)
        for event in ("B", "C", "D", "E", "F"):  # Completed
            everest.bsp(1, event)
            assert status(system) == COMPLETE
        completed = system.mock.events.mark()
        system.psu("key", connector=1)
        system.wait_key(1, after=completed)
        assert status(system) == COMPLETE
        system.wait_stop(1, after=completed)
        assert system.requests(1, after=mark) == [
            PLACEHOLDER,
            charging(400, 20),
            charging(400, 20),
            STOP,
            STOP,
        ]
        states = [line for line in system.driver.log.all() if "connector 1: " in line and " -> " in line]
        assert len(states) == 6, states  # of these, two are of the first key


def test_power_on_and_off_set_the_contactor_status(tmp_path: Path) -> None:
    with rig(tmp_path) as system:
        system.start_driver()
        for event, contactor in (("PowerOn", 1), ("PowerOff", 0), ("PowerOn", 1)):
            mark = system.mock.events.mark()
            system.everest.bsp(1, event)
            registers = system.wait_report({"1/contactor_status": contactor}, after=mark)
            assert registers["1/working_status"] == STANDBY


def test_the_first_key_stops_what_may_still_run(tmp_path: Path) -> None:
    with rig(tmp_path) as system:
        system.start_driver()
        assert status(system) == STANDBY
        kinds = [
            (event["event"], event["registers"]["1/working_status"])
            if event["event"] == "report"
            else event["event"]
            for event in system.mock.events.all()
            if event["event"] in ("report", "key_acknowledged", "stop_request", "power_request")
            and not event.get("repeat")
        ]
        shown = kinds.index(("report", INSERTED))
        assert kinds.index("key_acknowledged") > shown
        assert kinds.index("stop_request") > shown
        assert kinds.count("stop_request") == 1
        assert "power_request" not in kinds
        # After each connect, not once per process.
        mark = system.mock.events.mark()
        system.psu("drop")
        system.wait_report({"1/working_status": INSERTED}, after=mark)
        system.wait_key(1, after=mark)
        system.wait_stop(1, after=mark)
        assert status(system) == STANDBY
        assert "power_request" not in [event["event"] for event in system.mock.events.all()]


# --- mode-phase --------------------------------------------------------------------------------


def test_mode_phase_rules(tmp_path: Path) -> None:
    with rig(tmp_path) as system:
        system.start_driver()
        everest = system.everest
        mark = system.mock.events.mark()
        plug_in_to_running(system)
        everest.setpoint(1, 300, 5)
        # Export, CableCheck / PreCharge / Charging
        everest.mode(1, "Export", "PreCharge")
        everest.mode(1, "Export", "CableCheck")
        everest.mode(1, "Export", "Charging")
        system.wait_power(1, "CHARGING", 300, after=mark)
        # Export Other, Import and Fault change nothing and are logged; the mode in effect is told after each.
        for mode, phase in (
            ("Export", "Other"),
            *((mode, phase) for mode in ("Import", "Fault") for phase in ("Other", "CableCheck", "Charging")),
        ):
            messages = everest.messages.mark()
            lines = system.driver.log.mark()
            everest.mode(1, mode, phase)
            system.driver.log.wait(
                lambda line, text=f"mode {mode} {phase} refused": text in line and "WARNING" in line,
                after=lines,
            )
            assert everest.wait("psu_1/m2e/mode", after=messages) == '"Export"'
        # Off, CableCheck, whatever came before; then Off, anything else: the last request is no Export.
        everest.mode(1, "Off", "CableCheck")
        everest.mode(1, "Off", "Charging")
        assert status(system) == COMPLETE
        system.wait_stop(1, after=mark)
        assert system.requests(1, after=mark) == [
            PLACEHOLDER,
            precharge(300, 5),
            insulation(300, 5),
            charging(300, 5),
            STOPPAGE,
            STOP,
        ]


def test_off_after_a_cable_check_counts_as_cable_check_once(tmp_path: Path) -> None:
    with rig(tmp_path) as system:
        system.start_driver()
        everest = system.everest
        for phase in ("Other", "PreCharge", "Charging"):
            mark = system.mock.events.mark()
            plug_in_to_running(system)
            everest.setpoint(1, 500, 2)
            everest.mode(1, "Export", "CableCheck")
            everest.mode(1, "Import", "Other")  # is no request that counts
            everest.mode(1, "Off", phase)
            everest.wait_object("5/dispenser_to_psu", {"everest_mode": "Off", "everest_phase": "CableCheck"})
            assert status(system) == STARTING
            everest.mode(1, "Off", phase)
            assert status(system) == COMPLETE
            system.wait_stop(1, after=mark)
            assert system.requests(1, after=mark) == [PLACEHOLDER, insulation(500, 2), STOPPAGE, STOP]
            everest.bsp(1, "A")
            assert status(system) == STANDBY


# --- setpoint, GOOSE messages --------------------------------------------------------------------------


def test_setpoints_are_refused_where_they_make_no_sense(tmp_path: Path) -> None:
    with rig(tmp_path) as system:
        system.start_driver()
        everest = system.everest

        def refused(text: str) -> None:
            system.driver.log.wait(lambda line: text in line and "WARNING" in line, what=text)

        everest.setpoint(1, 400, 20)
        refused("setpoint refused: no car is connected")
        mark = system.mock.events.mark()
        system.charge(1)
        everest.setpoint(1, -1, 20)
        refused("-1.0 V 20.0 A is negative")
        everest.setpoint(1, 400, -20)
        refused("400.0 V -20.0 A is negative")
        everest.setpoint(1, 99, 20)
        refused("99.0 V is less than the PSU's 100.0 V")
        everest.publish("power_supply_DC/psu_1/e2m/import_voltage_current", {"voltage_V": 300, "current_A": 9})
        refused("import setpoint refused")
        for infinite in ("1e999", "NaN", "-Infinity"):
            lines = system.driver.log.mark()
            payload = f'{{"voltage_V": {infinite}, "current_A": 1}}'
            everest.publish("power_supply_DC/psu_1/e2m/export_voltage_current", payload, raw=True)
            system.driver.log.wait(lambda line: "rejected" in line, after=lines)
        everest.setpoint(1, 410, 20)
        system.wait_power(1, "CHARGING", 410, after=mark)
        assert system.requests(1, after=mark) == [PLACEHOLDER, charging(400, 20), charging(410, 20)]


def test_the_applied_setpoint_follows_setpoint_and_ratings(tmp_path: Path) -> None:
    with rig(tmp_path) as system:
        system.start_driver()
        everest = system.everest
        plug_in_to_running(system)
        everest.setpoint(1, 400, 20)  # accepted while Off
        mark = system.mock.events.mark()
        everest.mode(1, "Export", "Charging")
        expected = [charging(400, 20)]
        for voltage_v, current_a, applied in (
            (1200, 500, (1000, 100)),  # PSU's maximum
            (100, 0.25, (100, 1)),  # current up to the minimum
            (0, 20, (0, 0)),
            (400, 30, (400, 30)),
            (400, 0, (0, 0)),
            (400, 40, (400, 40)),
        ):
            everest.setpoint(1, voltage_v, current_a)
            expected.append(charging(*applied))
            system.wait_power(1, "CHARGING", applied[0], after=mark)
            status(system)
        for ratings, applied in (
            ({"max_voltage_v": 300}, (300, 40)),
            ({"max_current_a": 10}, (300, 10)),
            ({"max_current_a": 0}, (0, 0)),
            ({"max_current_a": 15}, (300, 15)),
            ({"max_voltage_v": 0}, (0, 0)),
            ({"max_voltage_v": 1000, "max_current_a": 100}, (400, 40)),
        ):
            before = system.mock.events.mark()
            system.psu("ratings", connector=1, **ratings)
            system.mock.events.wait(
                lambda event, applied=applied: (
                    event["event"] == "power_request" and (event["voltage"], event["current"]) == applied
                ),
                after=before,
                what=f"{applied}",
            )
        assert system.requests(1, after=mark)[:7] == expected
        # Every Off forgets it.
        everest.mode(1, "Off", "Other")
        assert status(system) == COMPLETE
        system.wait_stop(1, after=mark)
        mark = system.mock.events.mark()
        everest.mode(1, "Export", "Charging")
        system.wait_power(1, "CHARGING", 0, after=mark)
        assert system.requests(1, after=mark) == [PLACEHOLDER, charging(0, 0)]


def test_a_new_message_for_content_key_and_mac_and_for_nothing_else(tmp_path: Path) -> None:
    with rig(tmp_path) as system:
        system.start_driver()
        everest = system.everest
        line = system.driver.log.wait(lambda line: "MAC for GOOSE is" in line)
        mac = bytes.fromhex(line.split()[-1].replace(":", ""))
        other = bytes.fromhex("020000000099")

        def write_mac(value: bytes) -> None:
            mark = system.mock.events.mark()
            system.psu("write", address=0x2111, words=list(struct.unpack(">3H", value)))
            system.mock.events.wait(lambda event: event["event"] == "write_acknowledged", after=mark)

        system.charge(1)
        write_mac(mac)  # the same
        everest.setpoint(1, 400, 20)  # the same
        everest.mode(1, "Export", "Charging")  # the same
        status(system)
        mark = system.mock.events.mark()
        system.psu("key", connector=1)
        system.wait_key(1, after=mark)
        system.wait_power(1, "CHARGING", 400, after=mark)
        write_mac(other)
        everest.setpoint(1, 401, 20)
        status(system)
        assert system.driver.terminate() == 0
        powered = [
            (output.st_num, output.dst, output.voltage_v)
            for turn in system.turns()
            for output in map(decoded, turn.outputs)
            if isinstance(output, PowerRequested) and output.voltage_v > 0
        ]
        first = powered[0][0]
        assert powered == [
            (first, mac, 400),
            (first + 1, mac, 400),
            (first + 2, other, 400),
            (first + 3, other, 401),
        ]
