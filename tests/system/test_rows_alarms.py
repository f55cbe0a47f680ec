"""The dispenser's alarms (behaviour.md §6), row by row, and over a restart of the driver alone."""

from pathlib import Path

from fusioncharger.messages.inputs import BspErrorCleared, BspErrorRaised
from fusioncharger.messages.outputs import ReportSent
from rig import Rig, decoded, rig

OF_THE_DISPENSER = {
    "EnclosureOpen": "door_status_alarm",
    "WaterIngressDetected": "water_alarm",
    "MREC8EmergencyStop": "epo_alarm",
    "TiltDetected": "tilt_alarm",
}
CONTACTOR_FAULT = "MREC17EVSEContactorFault"
REGISTERS = (
    *OF_THE_DISPENSER.values(),
    "1/dc_output_contactor_fault",
    "2/dc_output_contactor_fault",
)


def alarms(registers: dict[str, int]) -> set[str]:
    """The alarms that a report shows."""
    return {name for name in REGISTERS if registers[name] == 1}


def error(system: Rig, connector: int, name: str, sub_type: str, *, raised: bool) -> None:
    what = "raise_error" if raised else "clear_error"
    topic = f"evse_board_support/bsp_{connector}/m2e/{what}"
    system.everest.publish(topic, {"type": name, "sub_type": sub_type, "message": "as the board says"})


def test_every_alarm_and_its_scope_reported_at_once(tmp_path: Path) -> None:
    with rig(tmp_path, connectors=2) as system:
        system.start_driver()
        everest = system.everest
        for name, register in OF_THE_DISPENSER.items():
            # Set by the first board, cleared by the last.
            everest.bsp_error(1, name, raised=True)
            assert alarms(system.settle()) == {register}
            everest.bsp_error(2, name, raised=True)
            everest.bsp_error(1, name, raised=False)
            assert alarms(system.settle()) == {register}
            everest.bsp_error(2, name, raised=False)
            assert alarms(system.settle()) == set()
        everest.bsp_error(2, CONTACTOR_FAULT, raised=True)
        assert alarms(system.settle()) == {"2/dc_output_contactor_fault"}
        everest.bsp_error(1, CONTACTOR_FAULT, raised=True)
        everest.bsp_error(2, CONTACTOR_FAULT, raised=False)
        assert alarms(system.settle()) == {"1/dc_output_contactor_fault"}
        everest.bsp_error(1, CONTACTOR_FAULT, raised=False)
        everest.bsp_error(1, "MREC2GroundFailure", raised=True)  # nothing that the PSU has to know
        assert alarms(system.settle()) == set()
        assert system.driver.terminate() == 0
        # A report goes out in the turn of each change, and only then.
        reported = [
            any(isinstance(output, ReportSent) for output in map(decoded, turn.outputs))
            for turn in system.turns()
            if isinstance(turn.input, BspErrorRaised | BspErrorCleared)
        ]
        assert reported == [True, False, False, True] * 4 + [True] * 4 + [False]


def test_several_instances_of_an_error_count_as_one_until_each_is_cleared(tmp_path: Path) -> None:
    with rig(tmp_path, connectors=2) as system:
        system.start_driver()
        for name, register in (*OF_THE_DISPENSER.items(), (CONTACTOR_FAULT, "1/dc_output_contactor_fault")):
            error(system, 1, name, "left", raised=True)
            error(system, 1, name, "right", raised=True)
            error(system, 1, name, "right", raised=True)
            error(system, 1, name, "left", raised=False)
            assert alarms(system.settle()) == {register}
            error(system, 1, name, "", raised=False)  # another instance, which was never raised
            assert alarms(system.settle()) == {register}
            error(system, 1, name, "right", raised=False)
            assert alarms(system.settle()) == set()


def test_an_alarm_changes_nothing_in_goose(tmp_path: Path) -> None:
    with rig(tmp_path) as system:
        system.start_driver()
        system.charge(1)
        mark = system.mock.events.mark()
        for name in (*OF_THE_DISPENSER, CONTACTOR_FAULT):
            system.everest.bsp_error(1, name, raised=True)
        registers = system.settle()
        assert len([name for name in REGISTERS if registers.get(name) == 1]) == 5
        assert registers["1/working_status"] == 3
        system.everest.setpoint(1, 410, 20)
        system.wait_power(1, "CHARGING", 410, after=mark)
        assert system.requests(1, after=mark) == [("CHARGING", 410, 20)]


def test_alarms_outlive_a_restart_of_the_driver_alone(tmp_path: Path) -> None:
    with rig(tmp_path, connectors=2) as system:
        system.start_driver()
        error(system, 1, "EnclosureOpen", "door", raised=True)
        error(system, 2, CONTACTOR_FAULT, "", raised=True)
        error(system, 1, "TiltDetected", "", raised=True)
        error(system, 1, "TiltDetected", "", raised=False)
        both = {"door_status_alarm", "2/dc_output_contactor_fault"}
        assert alarms(system.settle()) == both
        system.driver.kill()

        mark, messages = system.mock.events.mark(), system.everest.messages.mark()
        system.start_driver()
        first = system.mock.events.wait(lambda event: event["event"] == "report", after=mark)
        assert alarms(first["registers"]) == both
        for name, connector in (("EnclosureOpen/door", 1), (CONTACTOR_FAULT, 2)):
            system.driver.log.wait(
                lambda line, name=name, connector=connector: (
                    f"connector {connector}: {name} was raised when the driver ended" in line
                )
            )
        system.everest.wait_object(
            "dispenser/published_alarms", {"door_status_alarm": True, "tilt_alarm": False}, after=messages
        )
        # Until the board clears them.
        error(system, 2, CONTACTOR_FAULT, "", raised=False)
        assert alarms(system.settle()) == {"door_status_alarm"}
        assert system.driver.terminate() == 0

        # Also after an orderly end; and without them where that is wanted.
        mark = system.mock.events.mark()
        system.start_driver()
        first = system.mock.events.wait(lambda event: event["event"] == "report", after=mark)
        assert alarms(first["registers"]) == {"door_status_alarm"}
        system.driver.kill()
        mark = system.mock.events.mark()
        system.start_driver("--forget-alarms")
        first = system.mock.events.wait(lambda event: event["event"] == "report", after=mark)
        assert alarms(first["registers"]) == set()
        assert not any("was raised when" in line for line in system.driver.log.all())
