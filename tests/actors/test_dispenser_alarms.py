"""Alarms (behaviour.md §6), through Inputs and Outputs."""

import pytest
from core_harness import Core, make_config, only
from fusioncharger.actors.dispenser_alarms import MAX_INSTANCES
from fusioncharger.messages import inputs, outputs


def raise_error(core: Core, connector: int, error: str, sub_type: str = "") -> list[outputs.AnyOutput]:
    return core.feed(inputs.BspErrorRaised(connector=connector, error_type=error, sub_type=sub_type))


def clear_error(core: Core, connector: int, error: str, sub_type: str = "") -> list[outputs.AnyOutput]:
    return core.feed(inputs.BspErrorCleared(connector=connector, error_type=error, sub_type=sub_type))


def reported(made: list[outputs.AnyOutput]) -> dict[int, int]:
    (report,) = only(made, outputs.ReportSent)
    return {s.address + n: word for s in report.segments for n, word in enumerate(s.words)}


@pytest.mark.parametrize(
    ("error", "address"),
    [
        ("EnclosureOpen", 0x3001),
        ("WaterIngressDetected", 0x3002),
        ("MREC8EmergencyStop", 0x3003),
        ("TiltDetected", 0x3004),
    ],
)
def test_a_dispenser_alarm_is_set_until_the_last_board_clears_it(error: str, address: int) -> None:
    core = Core(make_config(2)).ready()
    assert reported(raise_error(core, 1, error))[address] == 1
    assert only(raise_error(core, 2, error), outputs.ReportSent) == []
    assert only(clear_error(core, 1, error), outputs.ReportSent) == []
    assert core.read(address, 1) == (1,)
    assert reported(clear_error(core, 2, error))[address] == 0


def test_a_contactor_fault_is_its_connectors() -> None:
    core = Core(make_config(2)).ready()
    made = reported(raise_error(core, 2, "MREC17EVSEContactorFault"))
    assert made[0x3D05] == 1
    assert made[0x3105] == 0
    assert reported(clear_error(core, 2, "MREC17EVSEContactorFault"))[0x3D05] == 0


def test_several_instances_count_until_each_is_cleared() -> None:
    core = Core().ready()
    raise_error(core, 1, "EnclosureOpen", "front")
    raise_error(core, 1, "EnclosureOpen", "back")
    assert raise_error(core, 1, "EnclosureOpen", "back") == []
    assert only(clear_error(core, 1, "EnclosureOpen", "front"), outputs.ReportSent) == []
    assert reported(clear_error(core, 1, "EnclosureOpen", "back"))[0x3001] == 0
    assert clear_error(core, 1, "EnclosureOpen", "back") == []


def test_it_is_said_once_when_a_board_makes_up_instances() -> None:
    """Those beyond the limit are not kept: the alarm is set, and ends with the ones that are."""
    core = Core().ready()
    raise_error(core, 1, "TiltDetected", "0")
    for number in range(1, MAX_INSTANCES - 1):
        assert raise_error(core, 1, "TiltDetected", f"{number}") == []
    (line,) = only(raise_error(core, 1, "TiltDetected", "the last"), outputs.LogWritten)
    assert line.text == (
        "TiltDetected is raised with 100 sub_types: no more of them are kept, and the alarm ends when these "
        "are cleared"
    )
    assert raise_error(core, 1, "TiltDetected", "one more") == []
    assert clear_error(core, 1, "TiltDetected", "one more") == []
    clear_error(core, 1, "TiltDetected", "the last")
    for number in range(1, MAX_INSTANCES - 1):
        assert clear_error(core, 1, "TiltDetected", f"{number}") == []
    assert reported(clear_error(core, 1, "TiltDetected", "0"))[0x3004] == 0


def test_other_errors_change_nothing() -> None:
    core = Core().ready()
    assert raise_error(core, 1, "VendorError") == []
    assert clear_error(core, 1, "VendorError") == []


def test_an_alarm_stops_nothing_by_itself() -> None:
    core = Core().ready().to_charging()
    assert only(raise_error(core, 1, "MREC8EmergencyStop"), outputs.StopRequested) == []
