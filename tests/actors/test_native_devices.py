"""Boards that are built into EVerest, and alarms over a restart (behaviour.md §6, §8.3)."""

import pytest
from core_harness import OWN_MAC, UTC_OFFSET_NS, Core, make_config, only
from fusioncharger.messages import inputs, outputs
from fusioncharger.messages.inputs import BspError
from fusioncharger.messages.types import BspEvent, WorkingStatus

HISTORY = 'error_history = "errors"\n'
EPO = BspError(1, "MREC8EmergencyStop", "a")
CONTACTOR = BspError(2, "MREC17EVSEContactorFault")


def status(core: Core) -> WorkingStatus:
    return WorkingStatus(core.read_register("1/working_status")[0])


def session(core: Core, event: str, reason: str = "") -> list[outputs.AnyOutput]:
    return core.feed(inputs.SessionEventReceived(connector=1, event=event, reason=reason))


def asked(made: list[outputs.AnyOutput]) -> int:
    return len(only(made, outputs.ActiveErrorsRequested))


@pytest.mark.parametrize(
    ("event", "reason", "connects"),
    [
        ("SessionStarted", "EVConnected", True),
        ("SessionStarted", "Authorized", False),
        ("TransactionStarted", "", True),
        ("ChargingStarted", "", False),
        ("SessionResumed", "", False),
    ],
)
def test_everests_session_says_that_a_car_is_there(event: str, reason: str, *, connects: bool) -> None:
    core = Core().ready()
    session(core, event, reason)
    assert (status(core) is WorkingStatus.STANDBY_WITH_CONNECTOR_INSERTED) == connects


def test_and_that_it_left() -> None:
    core = Core().ready()
    session(core, "SessionStarted", "EVConnected")
    session(core, "TransactionStarted")  # tells nothing new
    core.key()
    core.reply()
    core.setpoint(400, 20)
    core.export()
    made = session(core, "SessionFinished")
    assert len(only(made, outputs.StopRequested)) == 1
    assert status(core) is WorkingStatus.STANDBY


def test_a_board_that_speaks_for_itself_goes_before() -> None:
    core = Core().ready()
    core.feed(inputs.BspEventReceived(connector=1, event=BspEvent.A))
    session(core, "SessionStarted", "EVConnected")
    assert status(core) is WorkingStatus.STANDBY
    core.plug_in()
    session(core, "SessionFinished")
    assert status(core) is WorkingStatus.STANDBY_WITH_CONNECTOR_INSERTED


def test_active_errors_are_asked_for_until_everest_answers() -> None:
    core = Core(make_config(2, HISTORY)).ready()
    assert asked(core.history) == 0
    assert asked(core.feed(inputs.BrokerConnected(session_present=False))) == 1
    assert asked(core.advance(11)) == 2
    core.feed(inputs.ActiveErrorsReceived(errors=()))
    assert asked(core.advance(20)) == 0
    assert asked(core.heartbeat(1)) == 1  # EVerest is there, or there again
    assert asked(core.heartbeat(1, connector=2)) == 0  # an answer is on its way
    core.feed(inputs.BrokerDisconnected(reason="gone"))
    assert asked(core.advance(20)) == 0


def test_an_everest_that_restarted_is_asked_again() -> None:
    core = Core(make_config(1, HISTORY)).ready()
    core.heartbeat(7)
    core.feed(inputs.ActiveErrorsReceived(errors=()))
    assert asked(core.heartbeat(1)) == 1


def test_without_an_error_history_nobody_is_asked() -> None:
    core = Core().ready()
    assert asked(core.feed(inputs.BrokerConnected(session_present=False)) + core.heartbeat(1)) == 0


def test_the_answer_replaces_what_was_known() -> None:
    core = Core(make_config(2, HISTORY)).ready()
    core.feed(inputs.BspErrorRaised(connector=1, error_type="TiltDetected", sub_type=""))
    made = core.feed(inputs.ActiveErrorsReceived(errors=(EPO, CONTACTOR, BspError(1, "Unheard"))))
    assert len(only(made, outputs.ReportSent)) == 1
    assert core.read(0x3001, 4) == (0, 0, 1, 0)
    assert core.read_register("2/dc_output_contactor_fault") == (1,)
    core.feed(inputs.BspErrorCleared(connector=1, error_type="MREC8EmergencyStop", sub_type="a"))
    assert core.read(0x3001, 4) == (0, 0, 0, 0)


def test_alarms_of_the_former_process_stand_until_the_board_clears_them() -> None:
    core = Core(make_config(2, "telemetry_topic_prefix = 't'\n"))
    made = core.feed(
        inputs.Started(
            utc_offset_ns=UTC_OFFSET_NS,
            goose_mac=OWN_MAC,
            restored_errors=(EPO, CONTACTOR),
            restored_from="20261123.mcap",
        )
    )
    lines = [line for line in only(made, outputs.LogWritten) if "20261123.mcap" in line.text]
    assert [line.connector for line in lines] == [1, 2]
    assert "MREC8EmergencyStop/a was raised when the driver ended" in lines[0].text
    core.connect()
    assert core.read_register("epo_alarm") == (1,)
    assert core.read_register("2/dc_output_contactor_fault") == (1,)
    core.feed(inputs.BrokerConnected(session_present=False))
    shown = {output.topic: output.values for output in only(core.advance(0.02), outputs.TelemetryPublished)}
    assert shown["dispenser/published_alarms"]["epo_alarm"] is True
    core.feed(inputs.BspErrorCleared(connector=1, error_type="MREC8EmergencyStop", sub_type="a"))
    assert core.read_register("epo_alarm") == (0,)
