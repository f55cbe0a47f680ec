"""The first-key cycle, and the way back to Running after the link failed (behaviour.md §1, §2)."""

import pytest
from core_harness import PSU_MAC, Core, goose, make_config, only
from fusioncharger.messages import inputs, outputs
from fusioncharger.messages.types import ChargingPhase, Mode, RequirementType, WorkingStatus

STOP = (None, 0.0, 0.0)
PLACEHOLDER = (RequirementType.MODULE_PLACEHOLDER_REQUEST, 0.0, 0.0)
CHARGING = (RequirementType.CHARGING, 400.0, 20.0)
FAULT = ("CommunicationFault", "")


def status(core: Core, connector: int = 1) -> WorkingStatus:
    return WorkingStatus(core.read_register(f"{connector}/working_status")[0])


def raised(made: list[outputs.AnyOutput]) -> list[tuple[str, str]]:
    return [(error.error_type, error.sub_type) for error in only(made, outputs.ErrorRaised)]


def cleared(made: list[outputs.AnyOutput]) -> list[tuple[str, str]]:
    return [(error.error_type, error.sub_type) for error in only(made, outputs.ErrorCleared)]


def modes(made: list[outputs.AnyOutput]) -> list[Mode]:
    return [published.mode for published in only(made, outputs.ModePublished)]


def reconnect(core: Core, after_s: float = 0.02) -> list[outputs.AnyOutput]:
    """The link comes back; the Outputs up to the PSU's being READY."""
    mark = len(core.history)
    core.advance(after_s)
    core.connect()
    return core.history[mark:]


# --- first key ------------------------------------------------------------------------------------------------


def test_a_connector_without_a_car_shows_a_plug_in_and_stops_with_the_key() -> None:
    core = Core(make_config(2)).ready()
    core.plug_in(2)
    made = core.write("psu_running_mode", 1)
    assert [report.segments for report in only(made, outputs.ReportSent)] != []
    assert status(core, 1) is WorkingStatus.STANDBY_WITH_CONNECTOR_INSERTED
    assert goose(made) == []  # nothing to sign with
    assert goose(core.key(1)) == [STOP]
    assert status(core, 1) is WorkingStatus.STANDBY
    assert only(core.advance(30), outputs.PowerRequested) == []  # no timer leads anywhere
    assert status(core, 2) is WorkingStatus.STANDBY_WITH_CONNECTOR_INSERTED


def test_it_is_once_per_connection() -> None:
    core = Core().ready()
    core.write("psu_running_mode", 1)
    core.key()
    core.write("psu_running_mode", 2)
    core.write("psu_running_mode", 1)
    assert status(core) is WorkingStatus.STANDBY
    core.disconnect()
    reconnect(core)
    assert status(core) is WorkingStatus.STANDBY
    core.write("psu_running_mode", 1)
    assert status(core) is WorkingStatus.STANDBY_WITH_CONNECTOR_INSERTED


def test_it_ends_without_a_key_after_ten_seconds() -> None:
    core = Core().ready()
    core.write("psu_running_mode", 1)
    core.advance(9.9)
    assert status(core) is WorkingStatus.STANDBY_WITH_CONNECTOR_INSERTED
    made = core.advance(0.2)
    assert status(core) is WorkingStatus.STANDBY
    assert any("no key" in line.text for line in only(made, outputs.LogWritten))
    assert goose(core.key()) == [STOP]  # late, but good for a stop


def test_a_car_that_connects_meanwhile_goes_on_as_its_own_session() -> None:
    core = Core().ready()
    core.write("psu_running_mode", 1)
    core.plug_in()
    assert goose(core.key()) == [PLACEHOLDER]
    core.reply()
    core.setpoint(400, 20)
    assert goose(core.export()) == [CHARGING]
    assert goose(core.advance(11)) == []


def test_without_a_car_nothing_that_everest_says_counts_in_the_cycle() -> None:
    core = Core().ready()
    core.write("psu_running_mode", 1)
    core.setpoint(400, 20)
    core.export()
    assert goose(core.key()) == [STOP]
    core.to_running()
    assert goose(core.advance(1)) == []


def test_a_board_that_says_again_that_there_is_no_car_does_not_end_it() -> None:
    core = Core().ready()
    core.write("psu_running_mode", 1)
    core.plug_out()
    assert goose(core.key()) == [STOP]


def test_a_psu_that_does_not_run_gets_no_cycle() -> None:
    core = Core().ready()
    core.write("psu_running_mode", 3)
    assert status(core) is WorkingStatus.STANDBY


# --- resuming -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outage_s", [0.02, 9.5])
def test_the_last_mode_and_setpoint_are_applied_again_and_then_the_fault_is_cleared(outage_s: float) -> None:
    core = Core().ready().to_charging()
    made = core.disconnect()
    assert goose(made) == [STOP]
    assert FAULT in raised(made)
    assert modes(made) == []
    made = reconnect(core, outage_s)
    assert FAULT not in cleared(made)
    assert status(core) is WorkingStatus.STANDBY_WITH_CONNECTOR_INSERTED
    made = core.key()
    assert goose(made) == [PLACEHOLDER]
    assert FAULT not in cleared(made)
    made = core.reply()
    assert goose(made) == [CHARGING]
    assert cleared(made) == [FAULT]
    power = next(n for n, output in enumerate(made) if isinstance(output, outputs.PowerRequested))
    error = next(n for n, output in enumerate(made) if isinstance(output, outputs.ErrorCleared))
    assert power < error


def test_the_ratings_are_forgotten_and_power_waits_for_new_ones() -> None:
    core = Core().ready().to_charging()
    made = core.disconnect()
    (told,) = only(made, outputs.CapabilitiesPublished)
    assert (told.capabilities.max_export_voltage_V, told.capabilities.max_export_power_W) == (0, 0)
    core.advance(0.02)
    core.connect(rated=False)
    core.key()
    assert goose(core.reply()) == [(RequirementType.CHARGING, 0.0, 0.0)]
    assert goose(core.rate())[-1] == CHARGING


def test_a_setpoint_during_the_outage_counts() -> None:
    core = Core().ready().to_charging()
    core.disconnect()
    core.setpoint(300, 5)
    reconnect(core)
    core.key()
    assert goose(core.reply()) == [(RequirementType.CHARGING, 300.0, 5.0)]


def test_a_long_outage_ends_a_cable_check_that_was_being_stopped() -> None:
    """Found by the simulation: the mode-phase OffCableCheck outlived it."""
    core = Core().ready().to_charging()
    core.feed(inputs.ModeRequested(connector=1, mode=Mode.EXPORT, charging_phase=ChargingPhase.CABLE_CHECK))
    core.feed(inputs.ModeRequested(connector=1, mode=Mode.OFF, charging_phase=ChargingPhase.CABLE_CHECK))
    core.disconnect()
    reconnect(core, 10.5)
    core.key()
    assert goose(core.reply()) == []  # mode-phase Off in Running: still the placeholder request
    assert status(core) is WorkingStatus.CHARGING_STARTING


def test_an_outage_counts_from_a_loss_before_the_mac_came() -> None:
    """Found by the simulation: a key brought the session to Running before the link was READY."""
    core = Core().start()
    core.feed(inputs.PsuConnected(connection=core.connection))
    core.plug_in()
    core.key()
    core.reply()
    core.disconnect()
    core.setpoint(400, 20)
    core.export()
    reconnect(core, 10.5)
    core.key()
    core.reply()
    assert all(current_a == 0 for _, _, current_a in goose(core.history))
    assert only(core.history, outputs.ModePublished)[-1].mode is Mode.OFF


def test_a_connection_that_never_got_ready_is_no_end_of_an_outage() -> None:
    """A key without the MAC brings the session back to Running for a while."""
    core = Core().ready().to_charging()
    core.disconnect()
    core.advance(0.02)
    core.feed(inputs.PsuConnected(connection=core.connection))
    core.advance(9.5)
    core.key()
    assert goose(core.reply()) == [(RequirementType.CHARGING, 0.0, 0.0)]
    assert goose(core.disconnect()) == [STOP]
    assert modes(core.advance(0.4)) == []
    assert modes(core.advance(0.1)) == [Mode.OFF]


@pytest.mark.parametrize("when", ["without link", "without key"])
def test_off_while_resuming_leads_to_completed_with_the_key(when: str) -> None:
    core = Core().ready().to_charging()
    core.disconnect()
    if when == "without link":
        assert modes(core.off()) == [Mode.OFF]
    reconnect(core)
    if when == "without key":
        core.off()
    assert status(core) is WorkingStatus.STANDBY_WITH_CONNECTOR_INSERTED
    made = core.key()
    assert goose(made) == [STOP]
    assert cleared(made) == [FAULT]
    assert status(core) is WorkingStatus.CHARGING_COMPLETE


def test_off_while_resuming_and_waiting_for_the_allocation_leads_to_completed_at_once() -> None:
    core = Core().ready().to_charging()
    core.disconnect()
    reconnect(core)
    core.key()
    assert goose(core.off()) == [STOP]
    assert status(core) is WorkingStatus.CHARGING_COMPLETE


def test_an_export_after_the_off_charges_again() -> None:
    core = Core().ready().to_charging()
    core.disconnect()
    core.off()
    core.setpoint(350, 7)
    core.export()
    reconnect(core)
    core.key()
    assert goose(core.reply()) == [(RequirementType.CHARGING, 350.0, 7.0)]


def test_after_more_than_ten_seconds_it_starts_with_off_and_no_setpoint() -> None:
    core = Core().ready().to_charging()
    core.disconnect()
    assert modes(core.advance(9.9)) == []
    assert modes(core.advance(0.2)) == [Mode.OFF]
    reconnect(core, 5)
    core.key()
    assert goose(core.reply()) == []  # placeholder, 0 V 0 A, as before: Running with mode-phase Off
    assert FAULT in cleared(core.history)
    assert goose(core.export()) == [(RequirementType.CHARGING, 0.0, 0.0)]
    assert goose(core.setpoint(400, 20)) == [CHARGING]


def test_what_everest_asks_for_after_ten_seconds_counts() -> None:
    core = Core().ready().to_charging()
    core.disconnect()
    core.advance(15)
    core.setpoint(200, 3)
    core.export()
    reconnect(core, 20)
    core.key()
    assert goose(core.reply()) == [(RequirementType.CHARGING, 200.0, 3.0)]


def test_a_flapping_link_does_not_start_the_ten_seconds_anew() -> None:
    core = Core().ready().to_charging()
    core.disconnect()
    core.advance(6)
    core.feed(inputs.PsuConnected(connection=core.connection))  # never READY
    core.disconnect()
    assert modes(core.advance(5)) == [Mode.OFF]


def test_a_second_loss_while_resuming_resumes_all_the_same() -> None:
    core = Core().ready().to_charging()
    core.disconnect()
    reconnect(core)
    made = core.disconnect()
    assert goose(made) == [STOP]
    assert raised(made) == [("HardwareFault", "capabilities_not_received")]  # the fault stood all the time
    reconnect(core, 0.05)
    core.key()
    assert goose(core.reply()) == [CHARGING]


def test_the_fault_does_not_last_if_the_psu_gives_no_key() -> None:
    core = Core().ready().to_charging()
    core.disconnect()
    reconnect(core)
    assert FAULT not in cleared(core.advance(8.9))  # 1 s + 5 s + 3 s
    assert FAULT in cleared(core.advance(0.2))
    assert goose(core.key()) == [PLACEHOLDER]


def test_a_completed_connector_stays_completed() -> None:
    core = Core().ready().to_charging()
    core.off()
    assert goose(core.disconnect()) == [STOP]
    assert FAULT in cleared(reconnect(core))
    assert status(core) is WorkingStatus.CHARGING_COMPLETE


def test_a_car_that_leaves_while_resuming_ends_it() -> None:
    core = Core().ready().to_charging()
    core.disconnect()
    assert modes(core.plug_out()) == [Mode.OFF]
    assert FAULT in cleared(reconnect(core))
    core.to_running()
    assert goose(core.export()) == [(RequirementType.CHARGING, 0.0, 0.0)]


def test_everest_lost_while_resuming_leads_to_completed() -> None:
    core = Core().ready().to_charging()
    core.heartbeat(1)
    core.disconnect()
    core.advance(6)
    reconnect(core)
    assert goose(core.key()) == [STOP]
    assert status(core) is WorkingStatus.CHARGING_COMPLETE


def test_a_restarted_psu_with_another_mac_gets_the_request_there() -> None:
    core = Core().ready().to_charging()
    (stop,) = only(core.disconnect(), outputs.StopRequested)
    assert stop.dst == PSU_MAC  # the old one, with the old key
    core.advance(0.02)
    core.feed(inputs.PsuConnected(connection=core.connection))
    other = bytes.fromhex("020000000001")
    core.write("psu_mac", other)
    core.rate()
    core.key()
    (request,) = only(core.reply(), outputs.PowerRequested)
    assert (request.dst, request.voltage_v) == (other, 400.0)


def test_cable_check_is_resumed_with_its_off() -> None:
    core = Core().ready().to_running()
    core.setpoint(500, 2)
    core.export(ChargingPhase.CABLE_CHECK)
    core.disconnect()
    core.mode(Mode.OFF, ChargingPhase.OTHER)  # counts as CableCheck
    reconnect(core)
    core.key()
    assert goose(core.reply()) == [
        (RequirementType.INSULATION_DETECTION_VOLTAGE_OUTPUT_STOPPAGE, 0.0, 0.0),
    ]
