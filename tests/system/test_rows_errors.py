"""The errors towards EVerest (behaviour.md §3), row by row, and the capabilities (§4)."""

import json
from pathlib import Path

import pytest
from rig import Rig, rig

COMMUNICATION_FAULT = ("CommunicationFault", "")
NOT_RUNNING = ("HardwareFault", "psu_not_running")
NO_CAPABILITIES = ("HardwareFault", "capabilities_not_received")
ALLOCATION_FAILED = ("VendorWarning", "module_placeholder_allocation_failed")
INTERNAL_ERROR = ("VendorError", "internal_error")
JOURNAL_UNAVAILABLE = ("VendorWarning", "journal_unavailable")
AT_START = [COMMUNICATION_FAULT, NO_CAPABILITIES, NOT_RUNNING]
LAST_OF_SYNCHRONISATION = ("VendorWarning", "PowerDistributionModule/PowerDistributionModule5")

CAPABILITIES = {
    "bidirectional": False,
    "max_export_voltage_V": 1000,
    "min_export_voltage_V": 100,
    "max_export_current_A": 100,
    "min_export_current_A": 1,
    "max_export_power_W": 60_000,
    "nominal_max_export_current_A": 100,
    "nominal_max_export_power_W": 60_000,
    "max_import_voltage_V": 0,
    "min_import_voltage_V": 0,
    "max_import_current_A": 0,
    "min_import_current_A": 0,
    "max_import_power_W": 0,
    "current_regulation_tolerance_A": 1,
    "peak_current_ripple_A": 0.5,
    "conversion_efficiency_import": 0.85,
    "conversion_efficiency_export": 0.9,
}
NOTHING = {
    "max_export_voltage_V": 0,
    "min_export_voltage_V": 0,
    "max_export_current_A": 0,
    "min_export_current_A": 0,
    "max_export_power_W": 0,
}


def synchronise(system: Rig) -> None:
    """Have EVerest's first heartbeat answered: from then on it knows every error."""
    mark = system.everest.messages.mark()
    system.everest.heartbeat(system.connectors)
    for connector in range(1, system.connectors + 1):
        system.everest.wait_error(connector, *LAST_OF_SYNCHRONISATION, raised=False, after=mark)


def told(system: Rig, connector: int, error: tuple[str, str], *, after: int) -> list[str]:
    """What EVerest heard of an error, in order: "raise" and "clear", each with its message."""
    heard = []
    for topic, payload in system.everest.messages.all()[after:]:
        for what in ("raise", "clear"):
            if topic.endswith(f"/psu_{connector}/m2e/{what}_error"):
                said = json.loads(payload)
                if (said["type"], said["sub_type"]) == error:
                    heard.append(f"{what} {said['message']}")
    return heard


def wait_raised(system: Rig, error: tuple[str, str], *, after: int, connector: int = 1) -> str:
    return system.everest.wait_error(connector, *error, after=after)


def wait_cleared(
    system: Rig, error: tuple[str, str], *, after: int, connector: int = 1, timeout_s: float = 10
) -> None:
    system.everest.wait_error(connector, *error, raised=False, after=after, timeout_s=timeout_s)


# --- the first three ----------------------------------------------------------------------------------------


def test_the_first_three_are_raised_at_start_and_cleared_once(tmp_path: Path) -> None:
    with rig(tmp_path, connectors=2, mock_options=()) as system:  # the ratings come when the test says so
        system.psu("refuse")
        system.launch_driver()
        system.everest.wait("telemetry/status", "online")
        synchronise(system)
        for connector in (1, 2):
            assert system.everest.raised(connector) == AT_START
        mark = system.everest.messages.mark()
        seen = system.mock.events.mark()
        system.psu("listen")
        system.mock.events.wait(lambda event: event["event"] == "round_done", after=seen)
        for connector in (1, 2):
            wait_cleared(system, COMMUNICATION_FAULT, after=mark, connector=connector)
            wait_cleared(system, NOT_RUNNING, after=mark, connector=connector)
            assert system.everest.raised(connector) == [NO_CAPABILITIES]
        for name, value in (("max_voltage_v", 900), ("max_current_a", 50), ("power_kw", 30)):
            assert told(system, 1, NO_CAPABILITIES, after=mark) == []  # all three are needed
            system.psu("ratings", connector=1, **{name: value})
        wait_cleared(system, NO_CAPABILITIES, after=mark)
        assert system.everest.raised(1) == []
        assert system.everest.raised(2) == [NO_CAPABILITIES]
        for error in AT_START:
            assert len(told(system, 1, error, after=mark)) == 1


def test_communication_fault_while_the_link_is_away_or_the_connector_resumes(tmp_path: Path) -> None:
    with rig(tmp_path, connectors=2) as system:
        system.start_driver()
        synchronise(system)
        system.charge(1)
        mark, seen = system.everest.messages.mark(), system.mock.events.mark()
        system.psu("refuse")
        system.psu("placeholder", reply="withhold")
        system.psu("drop")
        for error in AT_START:
            wait_raised(system, error, after=mark)
            wait_raised(system, error, after=mark, connector=2)
        assert told(system, 1, COMMUNICATION_FAULT, after=mark) == ["raise Communication error"]
        system.psu("listen")
        wait_cleared(system, COMMUNICATION_FAULT, after=mark, connector=2)  # READY
        wait_cleared(system, NO_CAPABILITIES, after=mark)
        # Connector 1 is not yet where it was.
        system.wait_power(1, "MODULE_PLACEHOLDER_REQUEST", after=seen)
        assert system.everest.raised(1) == [COMMUNICATION_FAULT]
        system.psu("placeholder", reply="answer")
        system.psu("key", connector=1)
        system.wait_power(1, "CHARGING", 400, after=seen)
        for connector in (1, 2):
            for error in AT_START:
                wait_cleared(system, error, after=mark, connector=connector)
            assert system.everest.raised(connector) == []
            for error in AT_START:
                heard = [text.split()[0] for text in told(system, connector, error, after=mark)]
                assert heard == ["raise", "clear"]


def test_a_psu_that_is_not_running(tmp_path: Path) -> None:
    with rig(tmp_path) as system:
        system.start_driver()
        synchronise(system)
        for running_mode in ("STARTING_UP", "FAULTY", "SLEEPING", "UPGRADING"):
            mark = system.everest.messages.mark()
            system.psu("running_mode", mode=running_mode)
            wait_raised(system, NOT_RUNNING, after=mark)
            assert system.everest.raised(1) == [NOT_RUNNING]
            system.psu("running_mode", mode="RUNNING")
            wait_cleared(system, NOT_RUNNING, after=mark)
            assert [text.split()[0] for text in told(system, 1, NOT_RUNNING, after=mark)] == ["raise", "clear"]


def test_capabilities_of_zero_count_as_not_received(tmp_path: Path) -> None:
    with rig(tmp_path, connectors=2) as system:
        system.start_driver()
        synchronise(system)
        begin = system.everest.messages.mark()
        for name, value in (("max_voltage_v", 1000), ("max_current_a", 100), ("power_kw", 60)):
            mark = system.everest.messages.mark()
            system.psu("ratings", connector=2, **{name: 0})
            wait_raised(system, NO_CAPABILITIES, after=mark, connector=2)
            system.psu("ratings", connector=2, **{name: value})
            wait_cleared(system, NO_CAPABILITIES, after=mark, connector=2)
        assert told(system, 1, NO_CAPABILITIES, after=begin) == []
        assert len(told(system, 2, NO_CAPABILITIES, after=begin)) == 6


# --- vendor warnings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reply", ["refuse", "withhold"])
def test_a_failed_allocation_is_raised_until_the_connector_leaves_running(tmp_path: Path, reply: str) -> None:
    settings = "module_placeholder_allocation_timeout_s = 0.2\n"
    with rig(tmp_path, settings=settings) as system:
        system.start_driver()
        synchronise(system)
        for by_off in (True, False):
            system.psu("placeholder", reply=reply)
            mark = system.everest.messages.mark()
            system.charge(1)
            wait_raised(system, ALLOCATION_FAILED, after=mark)
            assert system.everest.raised(1) == [ALLOCATION_FAILED]
            if by_off:
                system.everest.mode(1, "Off", "Other")
                assert system.settle()["1/working_status"] == 4
            else:
                system.everest.bsp(1, "A")
            wait_cleared(system, ALLOCATION_FAILED, after=mark)
            system.everest.bsp(1, "A")
            system.settle()
            # The next one succeeds.
            system.psu("placeholder", reply="answer")
            system.charge(1)
            system.everest.bsp(1, "A")
            system.settle()
            heard = [text.split()[0] for text in told(system, 1, ALLOCATION_FAILED, after=mark)]
            assert heard == ["raise", "clear"]


ALARM, UNKNOWN = "AlarmState: ALARM", "AlarmState: UNKNOWN"
PSU_ALARMS: list[tuple[str, list[tuple[int, str]]]] = [
    ("PowerUnit/Water", [(1, ALARM), (7, UNKNOWN), (1, ALARM)]),
    ("PowerUnit/HighVoltageDoorStatusSensor", [(2, UNKNOWN)]),
    ("ChargingPowerUnit/PhaseSequenceAbornmalAlarm", [(1, ALARM)]),
    ("ChargingPowerUnit/ModbusTcpCertificate", [(1, "Flags: 0x0001"), (0x8002, "Flags: 0x8002")]),
    ("AcBranch/AcBranch2", [(0x80000001, "Flags: 0x80000001")]),
    ("AcDcRectifier/rectifier_6", [(0x10000, "Flags: 0x00010000"), (1, "Flags: 0x00000001")]),
    ("DcDcChargingModule/DcDcModule12", [(3, "Flags: 0x00000003")]),
    ("CoolingSection/CoolingUnit1", [(0xFFFFFFFF, "Flags: 0xffffffff")]),
    ("PowerDistributionModule/PowerDistributionModule5", [(4, "Flags: 0x00000004")]),
]


def test_psu_alarms_of_each_kind(tmp_path: Path) -> None:
    with rig(tmp_path, connectors=2) as system:
        system.start_driver()
        synchronise(system)
        for name, states in PSU_ALARMS:
            category, _, subcategory = name.partition("/")
            error = ("VendorWarning", name)
            mark = system.everest.messages.mark()
            expected: list[str] = []
            for value, state in states:
                text = f"Category: {category}; Subcategory: {subcategory}; {state}"
                # One whose value changes is cleared and raised again.
                expected += [f"raise {text}", f"clear {text}"]
                latest = system.everest.messages.mark()
                system.psu("alarm", name=name, value=value)
                system.psu("alarm", name=name, value=value)  # the same again is no news
                for connector in (1, 2):
                    assert wait_raised(system, error, after=latest, connector=connector) == text
                    assert system.everest.raised(connector) == [error]
            last = system.everest.messages.mark()
            system.psu("clear_alarm", name=name)
            for connector in (1, 2):
                wait_cleared(system, error, after=last, connector=connector)
                assert told(system, connector, error, after=mark) == expected
                assert system.everest.raised(connector) == []


def test_alarms_that_a_lost_link_takes_along_are_cleared(tmp_path: Path) -> None:
    alarms = ("--alarm", "PowerUnit/Smoke", "--alarm", "AcBranch/AcBranch1=0x10")
    with rig(tmp_path, mock_options=("--ratings-at-once", *alarms)) as system:
        system.start_driver()
        synchronise(system)
        raised = [("VendorWarning", "AcBranch/AcBranch1"), ("VendorWarning", "PowerUnit/Smoke")]
        assert system.everest.raised(1) == raised
        mark = system.everest.messages.mark()
        system.psu("drop")
        for error in raised:
            wait_cleared(system, error, after=mark)
            wait_raised(system, error, after=mark)  # by the next connection


def test_the_journal_that_cannot_be_written(tmp_path: Path) -> None:
    with rig(tmp_path) as system:
        in_the_way = tmp_path / "sessions"
        in_the_way.touch()
        system.launch_driver()
        system.driver.log.wait(lambda line: "journal cannot be written" in line)
        synchronise(system)
        reason = wait_raised(system, JOURNAL_UNAVAILABLE, after=0)
        assert reason
        assert any(reason in line for line in system.driver.log.all())
        assert JOURNAL_UNAVAILABLE in system.everest.raised(1)
        system.wait_stop(1)
        system.charge(1)  # the session goes on
        mark = system.everest.messages.mark()
        in_the_way.unlink()
        wait_cleared(system, JOURNAL_UNAVAILABLE, after=mark)
        assert system.everest.raised(1) == []
        assert system.driver.terminate() == 0
        code, text = system.replay()
        assert code == 0, text


# --- internal error -----------------------------------------------------------------------------------------


def test_a_failed_turn_is_an_internal_error_until_the_next_session_runs(tmp_path: Path) -> None:
    with rig(tmp_path, connectors=2) as system:
        system.start_driver(fault="raise")
        synchronise(system)
        system.charge(1)
        system.charge(2)
        mark, seen = system.everest.messages.mark(), system.mock.events.mark()
        system.everest.setpoint(1, 666, 20)
        assert wait_raised(system, INTERNAL_ERROR, after=mark) == "RuntimeError"
        system.wait_stop(1, after=seen)
        system.everest.mode(1, "Off", "Other")
        assert system.settle()["1/working_status"] == 4
        assert system.everest.raised(1) == [INTERNAL_ERROR]
        seen = system.mock.events.mark()
        system.everest.mode(1, "Export", "Charging")
        system.wait_key(1, after=seen)
        wait_cleared(system, INTERNAL_ERROR, after=mark)
        assert system.requests(1, after=seen)[0] == ("MODULE_PLACEHOLDER_REQUEST", 0, 0)
        assert len(told(system, 1, INTERNAL_ERROR, after=mark)) == 2
        assert told(system, 2, INTERNAL_ERROR, after=mark) == []


# --- capabilities -------------------------------------------------------------------------------------------


def test_capabilities(tmp_path: Path) -> None:
    with rig(tmp_path) as system:
        topic = "power_supply_DC/psu_1/m2e/capabilities"
        everest = system.everest
        # At start, before the PSU said anything, and when it did.
        system.psu("refuse")
        system.launch_driver()
        assert json.loads(everest.wait(topic)) == CAPABILITIES | NOTHING
        system.psu("listen")
        everest.wait_object(topic, dict(CAPABILITIES))

        def change(fields: dict[str, float], **ratings: float) -> None:
            mark = everest.messages.mark()
            system.psu("ratings", **ratings)
            assert everest.wait_object(topic, fields, after=mark) == CAPABILITIES | fields

        change({"max_export_voltage_V": 750.1}, max_voltage_v=750.1)
        change({"max_export_voltage_V": 1000}, max_voltage_v=1000)
        # Current and power are capped by the connector's settings.
        mark = everest.messages.mark()
        system.psu("ratings", max_current_a=300, power_kw=120)
        change({"max_export_current_A": 80}, max_current_a=80)
        capped = [json.loads(text) for name, text in everest.messages.all()[mark:] if name.endswith(topic)]
        assert capped == [CAPABILITIES | {"max_export_current_A": 80}]  # 300 A and 120 kW changed nothing
        change({"max_export_current_A": 100}, max_current_a=300)
        change({"max_export_power_W": 30_000.0}, power_kw=30)
        change({"max_export_power_W": 60_000}, power_kw=90)
        change({"min_export_voltage_V": 150}, min_voltage_v=150)
        change({"min_export_voltage_V": 100}, min_voltage_v=100)
        change({"min_export_current_A": 2}, min_current_a=2)
        change({"min_export_current_A": 1}, min_current_a=1)
        # What is no number counts as 0.
        for words in ([0x7FC0, 0], [0x7F80, 0], [0xFF80, 0]):
            mark = everest.messages.mark()
            system.psu("write", address=0x2100, words=words)
            assert everest.wait_object(topic, {"max_export_voltage_V": 0}, after=mark)
            system.psu("ratings", max_voltage_v=1000)
            everest.wait_object(topic, {"max_export_voltage_V": 1000}, after=mark)
        # Without a link there is nothing.
        mark = everest.messages.mark()
        system.psu("refuse")
        system.psu("drop")
        assert everest.wait_object(topic, dict(NOTHING), after=mark) == CAPABILITIES | NOTHING
