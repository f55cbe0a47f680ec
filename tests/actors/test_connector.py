"""The connector (behaviour.md §1, §8.2), through Inputs and Outputs."""

import struct

import pytest
from core_harness import PSU_MAC, UTC_OFFSET_NS, Core, goose, make_config, only
from fusioncharger.actors.connector_state import ConnectorState, differs_in_notes_only
from fusioncharger.actors.connector_table import TRANSITIONS, Event, diagram, outward
from fusioncharger.messages import inputs, outputs
from fusioncharger.messages.registers import RegisterMap
from fusioncharger.messages.types import (
    BspEvent,
    ChargingPhase,
    ConnectionStatus,
    ConnectorPhase,
    Level,
    Mode,
    ModePhase,
    RequirementType,
    StopReason,
    WorkingStatus,
)

STOP = (None, 0.0, 0.0)
PLACEHOLDER = (RequirementType.MODULE_PLACEHOLDER_REQUEST, 0.0, 0.0)


ALARM_KEYS = [register.key for register in RegisterMap(1).registers if register.alarm]


def status(core: Core, connector: int = 1) -> WorkingStatus:
    return WorkingStatus(core.read_register(f"{connector}/working_status")[0])


def to_phase(core: Core, phase: ConnectorPhase) -> None:
    """Bring connector 1 there."""
    if phase is ConnectorPhase.CAR_DISCONNECTED:
        return
    if phase is ConnectorPhase.FIRST_KEY:
        core.write("psu_running_mode", 1)
        return
    core.plug_in()
    if phase is ConnectorPhase.NO_KEY_YET:
        return
    core.key()
    if phase is ConnectorPhase.CONNECTED_NO_ALLOCATION:
        return
    core.reply()
    if phase is ConnectorPhase.RUNNING:
        return
    core.off()


def cause(core: Core, event: Event) -> None:
    match event:
        case Event.CAR_CONNECTED:
            core.plug_in()
        case Event.CAR_DISCONNECTED:
            core.plug_out()
        case Event.KEY_RECEIVED:
            core.key()
        case Event.ALLOCATION_ENDED:
            core.reply()
        case Event.OFF_REQUESTED:
            core.off()
        case Event.EXPORT_REQUESTED:
            core.export()
        case Event.OFF_WHILE_RESUMING:
            core.disconnect()
            core.off()
        case Event.LINK_LOST:
            core.disconnect()
        case Event.PSU_RUNNING:
            core.write("psu_running_mode", 0)
            core.write("psu_running_mode", 1)
        case Event.FIRST_KEY_TIMEOUT:
            core.advance(10.01)


def phase_of(core: Core) -> ConnectorPhase:
    state = core.runtime.states()["connector/1"]
    return state.phase  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("phase", ConnectorPhase)
@pytest.mark.parametrize("event", Event)
def test_every_event_in_every_state(phase: ConnectorPhase, event: Event) -> None:
    # behaviour.md §1, written out once more: what is not here changes nothing.
    expected = {
        (ConnectorPhase.CAR_DISCONNECTED, Event.CAR_CONNECTED): ConnectorPhase.NO_KEY_YET,
        (ConnectorPhase.NO_KEY_YET, Event.KEY_RECEIVED): ConnectorPhase.CONNECTED_NO_ALLOCATION,
        (ConnectorPhase.CONNECTED_NO_ALLOCATION, Event.ALLOCATION_ENDED): ConnectorPhase.RUNNING,
        (ConnectorPhase.RUNNING, Event.OFF_REQUESTED): ConnectorPhase.COMPLETED,
        (ConnectorPhase.COMPLETED, Event.EXPORT_REQUESTED): ConnectorPhase.NO_KEY_YET,
        (ConnectorPhase.CONNECTED_NO_ALLOCATION, Event.LINK_LOST): ConnectorPhase.NO_KEY_YET,
        (ConnectorPhase.RUNNING, Event.LINK_LOST): ConnectorPhase.NO_KEY_YET,
        (ConnectorPhase.CAR_DISCONNECTED, Event.PSU_RUNNING): ConnectorPhase.FIRST_KEY,
        (ConnectorPhase.FIRST_KEY, Event.CAR_CONNECTED): ConnectorPhase.NO_KEY_YET,
        (ConnectorPhase.FIRST_KEY, Event.CAR_DISCONNECTED): ConnectorPhase.FIRST_KEY,
        (ConnectorPhase.FIRST_KEY, Event.KEY_RECEIVED): ConnectorPhase.CAR_DISCONNECTED,
        (ConnectorPhase.FIRST_KEY, Event.LINK_LOST): ConnectorPhase.CAR_DISCONNECTED,
        (ConnectorPhase.FIRST_KEY, Event.FIRST_KEY_TIMEOUT): ConnectorPhase.CAR_DISCONNECTED,
        # What these consist of: a lost link, or time, in which more happens than the one event.
        (ConnectorPhase.FIRST_KEY, Event.OFF_WHILE_RESUMING): ConnectorPhase.CAR_DISCONNECTED,
        (ConnectorPhase.CONNECTED_NO_ALLOCATION, Event.OFF_WHILE_RESUMING): ConnectorPhase.NO_KEY_YET,
        (ConnectorPhase.RUNNING, Event.OFF_WHILE_RESUMING): ConnectorPhase.NO_KEY_YET,
        (ConnectorPhase.CONNECTED_NO_ALLOCATION, Event.FIRST_KEY_TIMEOUT): ConnectorPhase.RUNNING,
    }
    core = Core().ready()
    to_phase(core, phase)
    assert phase_of(core) is phase
    cause(core, event)
    wanted = ConnectorPhase.CAR_DISCONNECTED if event is Event.CAR_DISCONNECTED else phase
    assert phase_of(core) is expected.get((phase, event), wanted)


def test_the_diagram_shows_every_transition() -> None:
    lines = diagram().splitlines()
    assert lines[0] == "stateDiagram-v2"
    assert len(lines) == 2 + len(TRANSITIONS)
    assert "    Running --> Completed: mode-phase Off" in lines


@pytest.mark.parametrize(
    ("mode", "phase", "mode_phase", "requirement", "shown"),
    [
        (Mode.EXPORT, ChargingPhase.CABLE_CHECK, ModePhase.EXPORT_CABLE_CHECK, 2, 8),
        (Mode.EXPORT, ChargingPhase.PRE_CHARGE, ModePhase.EXPORT_PRECHARGE, 4, 8),
        (Mode.EXPORT, ChargingPhase.CHARGING, ModePhase.EXPORT_CHARGING, 5, 3),
    ],
)
def test_running_export(
    mode: Mode, phase: ChargingPhase, mode_phase: ModePhase, requirement: int, shown: int
) -> None:
    core = Core().ready().to_running()
    core.setpoint(400, 20)
    assert goose(core.mode(mode, phase)) == [(RequirementType(requirement), 400.0, 20.0)]
    assert status(core) == shown
    assert outward(ConnectorPhase.RUNNING, mode_phase).working_status == shown


def test_off_after_export_cable_check_is_off_cable_check() -> None:
    core = Core().ready().to_running()
    core.setpoint(500, 1)
    core.export(ChargingPhase.CABLE_CHECK)
    stoppage = RequirementType.INSULATION_DETECTION_VOLTAGE_OUTPUT_STOPPAGE
    assert goose(core.off()) == [(stoppage, 0.0, 0.0)]  # whatever phase the Off names
    assert phase_of(core) is ConnectorPhase.RUNNING
    assert status(core) is WorkingStatus.CHARGING_STARTING
    # The last request was Off by then, so a further Off is a plain one.
    assert goose(core.off()) == [STOP]
    assert status(core) is WorkingStatus.CHARGING_COMPLETE


def test_explicit_off_cable_check() -> None:
    core = Core().ready().to_running()
    made = core.mode(Mode.OFF, ChargingPhase.CABLE_CHECK)
    assert goose(made) == [(RequirementType.INSULATION_DETECTION_VOLTAGE_OUTPUT_STOPPAGE, 0.0, 0.0)]


def test_a_whole_session_on_the_outside() -> None:
    core = Core().ready()
    assert status(core) is WorkingStatus.STANDBY
    assert core.read_register("1/connection_status") == (ConnectionStatus.NOT_CONNECTED,)
    assert goose(core.plug_in()) == []  # no key yet: nothing can be signed
    assert status(core) is WorkingStatus.STANDBY_WITH_CONNECTOR_INSERTED
    assert core.read_register("1/connection_status") == (ConnectionStatus.FULL_CONNECTED,)
    made = core.key()
    assert goose(made) == [PLACEHOLDER]
    (request,) = only(made, outputs.PowerRequested)
    assert (request.connector, request.connector_no, request.dst, request.st_num) == (1, 5, PSU_MAC, 1)
    assert request.t_ns == core.at_ns + UTC_OFFSET_NS
    assert request.mode == 2
    assert status(core) is WorkingStatus.CHARGING_STARTING
    assert goose(core.reply()) == []  # Running, mode-phase Off: still the placeholder
    core.setpoint(400, 20)
    assert goose(core.export()) == [(RequirementType.CHARGING, 400.0, 20.0)]
    assert status(core) is WorkingStatus.CHARGING
    assert goose(core.setpoint(410, 21)) == [(RequirementType.CHARGING, 410.0, 21.0)]
    assert goose(core.setpoint(410, 21)) == []  # equal: no new message
    made = core.off()
    assert goose(made) == [STOP]
    (stop,) = only(made, outputs.StopRequested)
    assert (stop.st_num, stop.reason) == (4, StopReason.NORMAL)
    assert status(core) is WorkingStatus.CHARGING_COMPLETE
    assert goose(core.plug_out()) == []
    assert status(core) is WorkingStatus.STANDBY


def test_a_second_charge_on_one_plug_in() -> None:
    core = Core().ready().to_charging()
    core.off()
    assert goose(core.export()) == []
    assert status(core) is WorkingStatus.STANDBY_WITH_CONNECTOR_INSERTED
    core.setpoint(350, 10)
    assert goose(core.key()) == [PLACEHOLDER]
    assert goose(core.reply()) == [(RequirementType.CHARGING, 350.0, 10.0)]


def test_off_in_running_completes_also_when_it_was_off() -> None:
    core = Core().ready().to_running()
    assert goose(core.off()) == [STOP]
    assert status(core) is WorkingStatus.CHARGING_COMPLETE


def test_a_new_session_starts_without_the_former_setpoint_and_request() -> None:
    core = Core().ready().to_charging()
    assert goose(core.plug_out()) == [STOP]
    core.plug_in()
    core.key()
    core.reply()
    assert goose(core.export()) == [(RequirementType.CHARGING, 0.0, 0.0)]


@pytest.mark.parametrize("phase", [ChargingPhase.CABLE_CHECK, ChargingPhase.CHARGING])
def test_export_without_a_car_is_refused(phase: ChargingPhase) -> None:
    core = Core().ready()
    made = core.export(phase)
    assert "refused: no car" in only(made, outputs.LogWritten)[0].text
    assert only(made, outputs.ModePublished) == [outputs.ModePublished(connector=1, mode=Mode.OFF)]
    core.to_running()
    assert goose(core.setpoint(400, 20)) == []  # it was not remembered either


@pytest.mark.parametrize(
    ("mode", "phase"),
    [
        (Mode.EXPORT, ChargingPhase.OTHER),
        (Mode.IMPORT, ChargingPhase.CHARGING),
        (Mode.FAULT, ChargingPhase.OTHER),
    ],
)
def test_requests_that_change_nothing(mode: Mode, phase: ChargingPhase) -> None:
    core = Core().ready().to_charging()
    made = core.mode(mode, phase)
    assert goose(made) == []
    assert only(made, outputs.LogWritten)[0].level is Level.WARNING
    assert only(made, outputs.ModePublished) == [outputs.ModePublished(connector=1, mode=Mode.EXPORT)]


# --- setpoint -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("voltage_v", "current_a"), [(-1, 10), (400, -0.1), (1e39, 1), (400, 3.5e38)], ids=str)
def test_a_bad_setpoint_changes_nothing(voltage_v: float, current_a: float) -> None:
    core = Core().ready().to_charging()
    made = core.setpoint(voltage_v, current_a)
    assert goose(made) == []
    assert "setpoint refused" in only(made, outputs.LogWritten)[0].text
    assert goose(core.setpoint(401, 20)) == [(RequirementType.CHARGING, 401.0, 20.0)]


def test_setpoints_are_rounded_to_f32_and_have_no_negative_zero() -> None:
    core = Core().ready().to_charging(400.1, 20.0)
    (made,) = only(core.setpoint(400.2, 20.1), outputs.PowerRequested)
    assert made.voltage_v == struct.unpack(">f", struct.pack(">f", 400.2))[0]
    assert made.current_a == struct.unpack(">f", struct.pack(">f", 20.1))[0]
    (made,) = only(core.setpoint(400.2, -0.0), outputs.PowerRequested)
    assert struct.pack(">ff", made.voltage_v, made.current_a) == bytes(8)


def test_a_setpoint_without_a_car_is_refused() -> None:
    core = Core().ready()
    assert "no car" in only(core.setpoint(400, 20), outputs.LogWritten)[0].text
    core.to_running()
    assert goose(core.export()) == [(RequirementType.CHARGING, 0.0, 0.0)]


def test_a_setpoint_is_taken_while_off() -> None:
    core = Core().ready()
    core.plug_in()
    core.setpoint(300, 5)
    core.key()
    core.reply()
    assert goose(core.export()) == [(RequirementType.CHARGING, 300.0, 5.0)]


def test_every_off_forgets_the_setpoint() -> None:
    core = Core().ready().to_running()
    core.setpoint(300, 5)
    core.mode(Mode.OFF, ChargingPhase.CABLE_CHECK)
    assert goose(core.export()) == [(RequirementType.CHARGING, 0.0, 0.0)]


def test_import_setpoints_are_refused() -> None:
    core = Core().ready().to_charging()
    made = core.feed(inputs.ImportSetpointRequested(connector=1, voltage_v=300, current_a=5))
    assert goose(made) == []
    assert "import" in only(made, outputs.LogWritten)[0].text


# --- placeholder allocation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["refused", "timeout"])
def test_a_failed_allocation_still_runs_and_warns(how: str) -> None:
    core = Core(make_config(settings="module_placeholder_allocation_timeout_s = 3\n")).ready()
    core.plug_in()
    core.key()
    if how == "refused":
        made = core.reply(result=1)
    else:
        assert only(core.advance(2.9), outputs.ErrorRaised) == []
        made = core.advance(0.2)
    (raised,) = only(made, outputs.ErrorRaised)
    assert (raised.error_type, raised.sub_type) == ("VendorWarning", "module_placeholder_allocation_failed")
    assert phase_of(core) is ConnectorPhase.RUNNING
    core.export()
    (cleared,) = only(core.off(), outputs.ErrorCleared)
    assert (cleared.error_type, cleared.sub_type) == (raised.error_type, raised.sub_type)


def test_an_answer_in_time_stops_the_timeout() -> None:
    core = Core().ready().to_running()
    assert only(core.advance(20), outputs.ErrorRaised) == []


def test_only_a_placeholder_reply_counts() -> None:
    core = Core().ready()
    core.plug_in()
    core.key()
    core.reply(requirement_type=RequirementType.CHARGING)
    assert phase_of(core) is ConnectorPhase.CONNECTED_NO_ALLOCATION


def test_a_reply_that_the_own_key_did_not_verify_does_not_count() -> None:
    core = Core().ready()
    core.plug_in()
    core.key()
    core.reply(verified=(2,))
    assert phase_of(core) is ConnectorPhase.CONNECTED_NO_ALLOCATION
    trusting = Core(make_config(settings="verify_secure_goose = false\n")).ready()
    trusting.plug_in()
    trusting.key()
    trusting.reply(verified=())
    assert phase_of(trusting) is ConnectorPhase.RUNNING


def test_a_reply_that_a_key_of_a_lost_connection_verified_does_not_count() -> None:
    """It was verified before the link failed, and its thread was overtaken by the link's (behaviour.md §2)."""
    core = Core().ready()
    core.plug_in()
    core.key()
    former = core.connection
    core.disconnect()
    core.advance(0.1)
    core.connect()
    core.key()
    core.reply(connection=former)
    core.reply(result=1, connection=former)
    assert phase_of(core) is ConnectorPhase.CONNECTED_NO_ALLOCATION
    core.reply()
    assert phase_of(core) is ConnectorPhase.RUNNING


def test_a_reply_for_a_connector_that_there_is_not_changes_nothing() -> None:
    core = Core(make_config(2)).ready()
    core.plug_in()
    core.key()
    reply = inputs.PowerRequestReplyReceived(
        verified=(1,),
        connector_no=12,
        charging_sn=0,
        requirement_type=1,
        result=0,
        mode=0,
        voltage_bits=0x7FC00000,
        current_bits=0,
        st_num=0,
        sq_num=0,
        frame=b"",
    )
    assert core.feed(reply) == []
    assert phase_of(core) is ConnectorPhase.CONNECTED_NO_ALLOCATION


# --- GOOSE: when a message is issued --------------------------------------------------------------------------


def test_a_new_key_issues_the_message_again() -> None:
    core = Core().ready().to_charging()
    assert goose(core.key()) == [(RequirementType.CHARGING, 400.0, 20.0)]
    core.plug_out()
    assert goose(core.key()) == [STOP]  # in CarDisconnected as well


def test_nothing_is_sent_before_the_mac_is_known() -> None:
    core = Core().start()
    core.feed(inputs.PsuConnected(connection=1))
    core.rate()
    core.to_charging()
    assert goose(core.history) == []
    assert goose(core.write("psu_mac", PSU_MAC)) == [(RequirementType.CHARGING, 400.0, 20.0)]
    assert goose(core.write("psu_mac", PSU_MAC)) == []  # the same one again
    other = bytes.fromhex("020000000001")
    made = core.write("psu_mac", other)
    assert only(made, outputs.PowerRequested)[0].dst == other


def test_without_signing_no_key_is_needed() -> None:
    core = Core(make_config(settings="send_secure_goose = false\n"))
    core.start()
    core.feed(inputs.PsuConnected(connection=1))
    assert goose(core.write("psu_mac", PSU_MAC)) == [STOP]
    core.plug_in()
    assert goose(core.key()) == [PLACEHOLDER]


def test_connectors_count_stnum_on_their_own() -> None:
    core = Core(make_config(2)).ready()
    core.to_charging(connector=1)
    made = core.feed(inputs.BspEventReceived(connector=2, event=BspEvent.B)) + core.key(2)
    (request,) = only(made, outputs.PowerRequested)
    assert (request.connector, request.connector_no, request.st_num) == (2, 6, 1)


def test_events_that_change_nothing_for_the_psu() -> None:
    core = Core().ready().to_charging()
    for event in (BspEvent.C, BspEvent.D, BspEvent.E, BspEvent.F, BspEvent.DISCONNECTED):
        assert goose(core.feed(inputs.BspEventReceived(connector=1, event=event))) == []
    assert phase_of(core) is ConnectorPhase.RUNNING


def test_contactor_status() -> None:
    core = Core().ready()
    assert core.read_register("1/contactor_status") == (0,)
    core.feed(inputs.BspEventReceived(connector=1, event=BspEvent.POWER_ON))
    assert core.read_register("1/contactor_status") == (1,)
    core.feed(inputs.BspEventReceived(connector=1, event=BspEvent.POWER_OFF))
    assert core.read_register("1/contactor_status") == (0,)


def test_inputs_for_a_connector_that_there_is_not_change_nothing() -> None:
    core = Core().ready()
    assert core.feed(inputs.BspEventReceived(connector=4, event=BspEvent.B)) == []
    assert core.feed(inputs.TimerFired(owner="connector/4", name="heartbeat", number=1)) == []


# --- link loss ------------------------------------------------------------------------------------------------


def lose_link(core: Core) -> list[outputs.AnyOutput]:
    return core.feed(inputs.PsuDisconnected(connection=core.connection, reason="closed"))


def test_link_loss_stops_power_in_the_same_turn() -> None:
    core = Core(make_config(2)).ready().to_charging()
    made = lose_link(core)
    assert goose(made) == [STOP]
    assert only(made, outputs.HmacKeysRetired) == [outputs.HmacKeysRetired(connection=1)]
    assert only(made, outputs.ModePublished) == []  # what EVerest asked for still stands
    assert phase_of(core) is ConnectorPhase.NO_KEY_YET


def test_link_loss_issues_a_stop_request_again_where_one_is_running() -> None:
    core = Core().ready().to_charging()
    core.off()
    assert goose(lose_link(core)) == [STOP]
    assert phase_of(core) is ConnectorPhase.COMPLETED


def test_after_link_loss_power_comes_only_after_a_new_key_and_allocation() -> None:
    core = Core().ready().to_charging()
    lose_link(core)
    core.advance(0.02)
    core.connect()
    assert goose(core.setpoint(410, 20)) == []
    assert goose(core.key()) == [PLACEHOLDER]
    assert goose(core.reply()) == [(RequirementType.CHARGING, 410.0, 20.0)]


def test_a_key_of_the_lost_connection_does_not_count() -> None:
    core = Core().ready()
    core.plug_in()
    lose_link(core)
    core.feed(inputs.HmacKeyReceived(connection=1, connector=1))
    assert phase_of(core) is ConnectorPhase.NO_KEY_YET


def test_old_key_and_mac_are_forgotten_after_ten_seconds() -> None:
    core = Core().ready().to_charging()
    lose_link(core)
    assert only(core.advance(9.9), outputs.GooseSilenced) == []
    made = core.advance(0.2)
    assert only(made, outputs.GooseSilenced) == [outputs.GooseSilenced(connector=1)]
    assert only(made, outputs.HmacKeysForgotten)[0].connection >= 1


def test_a_link_that_fails_again_and_again_does_not_keep_old_keys() -> None:
    core = Core().ready().to_charging()
    lose_link(core)
    for _ in range(4):
        core.advance(2)
        core.feed(inputs.PsuConnected(connection=core.connection))
        lose_link(core)
    made = core.advance(2)
    assert only(made, outputs.GooseSilenced) == [outputs.GooseSilenced(connector=1)]
    assert only(made, outputs.HmacKeysForgotten)[0] == outputs.HmacKeysForgotten(connection=1)
    later = only(core.advance(10), outputs.HmacKeysForgotten)
    assert [output.connection for output in later] == [2, 3, 4, 5]


def test_what_came_over_the_new_connection_is_not_forgotten() -> None:
    core = Core(make_config(2)).ready()
    core.to_charging()
    core.to_charging(connector=2)
    lose_link(core)
    core.advance(0.02)
    core.connect()
    core.key(1)
    core.reply(1)
    made = core.advance(10)
    assert only(made, outputs.GooseSilenced) == [outputs.GooseSilenced(connector=2)]
    assert only(made, outputs.HmacKeysForgotten) == [outputs.HmacKeysForgotten(connection=1)]
    assert goose(core.setpoint(300, 3)) == [(RequirementType.CHARGING, 300.0, 3.0)]


# --- supervision of EVerest -----------------------------------------------------------------------------------


def test_no_heartbeat_ever_is_no_loss() -> None:
    core = Core().ready().to_charging()
    assert goose(core.advance(50)) == []


def test_silence_of_the_heartbeat_stops_power() -> None:
    core = Core().ready().to_charging()
    core.heartbeat(1)
    core.advance(3)
    core.heartbeat(2)
    assert goose(core.advance(4.9)) == []
    made = core.advance(0.2)
    assert goose(made) == [STOP]
    assert outputs.ModePublished(connector=1, mode=Mode.OFF) in made
    assert goose(core.advance(50)) == []
    # Only a new request starts power again: here a whole new session on this plug-in.
    assert goose(core.export()) == []
    core.key()
    assert goose(core.reply()) == [(RequirementType.CHARGING, 0.0, 0.0)]


def test_power_asked_for_after_a_loss_is_supervised_again() -> None:
    core = Core().ready().to_charging()
    core.heartbeat(1)
    core.advance(6)
    core.setpoint(300, 3)
    core.export()
    core.key()
    assert goose(core.reply()) == [(RequirementType.CHARGING, 300.0, 3.0)]
    assert goose(core.advance(6)) == [STOP]  # no heartbeat came back


@pytest.mark.parametrize(("first", "second", "lost"), [(7, 8, False), (7, 6, True), (2**64 - 1, 0, False)])
def test_heartbeat_ids(first: int, second: int, lost: bool) -> None:
    core = Core().ready().to_charging()
    core.heartbeat(first)
    made = core.heartbeat(second)
    assert (goose(made) == [STOP]) is lost
    # An id that went back means a new EVerest: it is told everything at once, and supervised.
    assert bool(only(made, outputs.ErrorCleared)) is lost
    core.export()
    core.key()
    core.reply()
    assert goose(core.advance(6)) == [STOP]


def test_a_redelivered_heartbeat_is_no_restart() -> None:
    core = Core().ready().to_charging()
    core.heartbeat(7)
    core.heartbeat(8)
    assert goose(core.heartbeat(7, redelivered=True)) == []
    assert goose(core.heartbeat(9)) == []


def test_a_broker_away_too_long_stops_power() -> None:
    core = Core().ready()
    core.feed(inputs.BrokerConnected(session_present=False))
    core.to_charging()
    core.feed(inputs.BrokerDisconnected(reason="killed"))
    core.advance(4.5)
    core.feed(inputs.BrokerConnected(session_present=True))
    assert goose(core.advance(10)) == []  # a blip
    core.feed(inputs.BrokerDisconnected(reason="killed"))
    assert goose(core.advance(4.9)) == []
    assert goose(core.advance(0.2)) == [STOP]


def lose_everest(core: Core) -> None:
    core.feed(inputs.BrokerDisconnected(reason="killed"))
    core.advance(6)
    core.feed(inputs.BrokerConnected(session_present=False))


def test_a_setpoint_between_two_losses_is_forgotten() -> None:
    core = Core().ready()
    core.feed(inputs.BrokerConnected(session_present=False))
    core.to_charging()
    lose_everest(core)
    assert goose(core.setpoint(350, 30)) == []
    lose_everest(core)
    made = [*core.export(), *core.key(), *core.reply()]
    assert phase_of(core) is ConnectorPhase.RUNNING
    assert goose(made)[-1] == (RequirementType.CHARGING, 0, 0)
    assert goose(core.setpoint(360, 20)) == [(RequirementType.CHARGING, 360, 20)]


def test_lost_twice_is_said_once() -> None:
    core = Core().ready()
    core.feed(inputs.BrokerConnected(session_present=False))
    core.to_charging()
    core.heartbeat(1)
    core.feed(inputs.BrokerDisconnected(reason="killed"))
    made = core.advance(20)
    assert len([line for line in only(made, outputs.LogWritten) if "EVerest is lost" in line.text]) == 1


def test_synchronisation_states_every_error() -> None:
    core = Core().ready()
    core.feed(inputs.JournalLost(reason="disk full"))
    made = core.heartbeat(1)
    assert outputs.ModePublished(connector=1, mode=Mode.OFF) in made
    said = [
        (type(output).__name__, output.sub_type)
        for output in made
        if isinstance(output, outputs.ErrorCleared | outputs.ErrorRaised)
    ]
    assert said[:7] == [
        ("ErrorCleared", ""),
        ("ErrorRaised", "psu_not_running"),
        ("ErrorCleared", "capabilities_not_received"),
        ("ErrorCleared", "internal_error"),
        ("ErrorCleared", "module_placeholder_allocation_failed"),
        ("ErrorCleared", "journal_unavailable"),  # a warning is cleared first, then raised
        ("ErrorRaised", "journal_unavailable"),
    ]
    assert said[7:] == [("ErrorCleared", key) for key in ALARM_KEYS]
    assert only(core.heartbeat(2), outputs.ErrorCleared) == []
    core.feed(inputs.BrokerDisconnected(reason="blip"))
    core.feed(inputs.BrokerConnected(session_present=True))
    assert only(core.heartbeat(3), outputs.ErrorRaised) != []


def test_a_journal_that_cannot_be_written_is_a_warning() -> None:
    core = Core(make_config(2)).ready()
    core.heartbeat(1)
    made = core.feed(inputs.JournalLost(reason="disk full"))
    assert [(error.connector, error.message) for error in only(made, outputs.ErrorRaised)] == [
        (1, "disk full"),
        (2, "disk full"),
    ]
    made = core.feed(inputs.JournalLost(reason="recorder died"))
    assert len(only(made, outputs.ErrorCleared)) == len(only(made, outputs.ErrorRaised)) == 2
    made = core.feed(inputs.JournalRestored())
    assert len(only(made, outputs.ErrorCleared)) == 2


def test_communication_check_once_a_second() -> None:
    core = Core(make_config(2)).ready()
    made = only(core.advance(10), outputs.CommunicationChecked)
    assert len(made) == 20
    assert {output.connector for output in made} == {1, 2}


def test_the_mode_is_published_at_start() -> None:
    core = Core(make_config(2)).start()
    assert only(core.history, outputs.ModePublished) == [
        outputs.ModePublished(connector=1, mode=Mode.OFF),
        outputs.ModePublished(connector=2, mode=Mode.OFF),
    ]


# --- shutdown -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ConnectorPhase)
def test_shutdown_stops_in_every_state(phase: ConnectorPhase) -> None:
    core = Core().ready()
    core.key()  # of an earlier session: a stop request can be signed in every state
    to_phase(core, phase)
    core.export()
    made = core.feed(inputs.ShutdownRequested(reason="SIGTERM"))
    assert goose(made) == [STOP]
    assert outputs.ModePublished(connector=1, mode=Mode.OFF) in made
    assert goose(core.key()) in ([STOP], [])


def test_utc_steps_reach_the_messages() -> None:
    core = Core().ready()
    core.feed(inputs.UtcOffsetChanged(utc_offset_ns=UTC_OFFSET_NS + 5))
    core.plug_in()
    (request,) = only(core.key(), outputs.PowerRequested)
    assert request.t_ns == core.at_ns + UTC_OFFSET_NS + 5


def drive_a_charge(core: Core) -> list[outputs.AnyOutput]:
    """Measurements and heartbeats between all that changes messages and errors."""
    made: list[outputs.AnyOutput] = []
    steps = [
        lambda: core.start().connect().rate() or [],
        lambda: core.write("psu_running_mode", 1),
        core.plug_in,
        core.key,
        core.reply,
        lambda: core.export(ChargingPhase.CHARGING),
        lambda: core.setpoint(400, 20),
        lambda: core.setpoint(410, 20),
        lambda: core.write(ALARM_KEYS[0], 1),
        lambda: core.write("1/max_rated_psu_current", 15.0),
        core.disconnect,
        lambda: core.connect().key(),
        core.off,
        core.plug_out,
    ]
    for number, step in enumerate(steps):
        made += step() or []
        for message in (
            inputs.HeartbeatReceived(connector=1, heartbeat_id=number + 1),
            inputs.PowermeterMeasured(connector=1, voltage_v=400.0 + number, current_a=19.5),
            inputs.IsolationMeasured(connector=1, voltage_v=401.0 + number),
            inputs.HeartbeatReceived(connector=1, heartbeat_id=number + 1),
        ):
            made += core.feed(message)
        made += core.advance(0.5)
    return made


def test_a_turn_of_measurements_says_nothing_less_for_being_short(monkeypatch: pytest.MonkeyPatch) -> None:
    short = drive_a_charge(Core())
    skipped: list[bool] = []

    def never(before: ConnectorState, now: ConnectorState) -> bool:
        skipped.append(differs_in_notes_only(before, now))
        return False

    monkeypatch.setattr("fusioncharger.actors.connector.differs_in_notes_only", never)
    assert drive_a_charge(Core()) == short
    assert skipped.count(True) > 30
    assert skipped.count(False) > 10
    assert {type(output) for output in short} >= {
        outputs.PowerRequested,
        outputs.StopRequested,
        outputs.ErrorRaised,
    }
