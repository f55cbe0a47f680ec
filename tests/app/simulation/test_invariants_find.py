"""The oracle can fail: faults of the driver, made by hand one at a time, and the name by which each is found.

The driver itself is sound; the oracle is shown other Outputs, other states or a timer that never fires.
"""

from typing import Any

import pytest
from core_harness import PSU_MAC, make_config
from fusioncharger.actors.connector import Connector
from fusioncharger.actors.dispenser_alarms import DispenserAlarms
from fusioncharger.messages import inputs, outputs
from fusioncharger.messages.types import (
    BspEvent,
    ChargingPhase,
    ConnectorPhase,
    Mode,
    ModePhase,
    PowerRequestMode,
    RequirementType,
    StopReason,
)
from msgspec.structs import replace
from watched_core import Alter, Do, Made, WatchedCore, added, changed, charging, doubled, dropped, found

GOOSE = (outputs.PowerRequested, outputs.StopRequested)


def power(core: WatchedCore, st_num: int, **fields: Any) -> outputs.PowerRequested:
    """A power request of connector 1."""
    values: dict[str, Any] = {
        "connector": 1,
        "connector_no": 5,
        "dst": PSU_MAC,
        "st_num": st_num,
        "t_ns": core.at_ns,
        "requirement_type": RequirementType.CHARGING,
        "mode": PowerRequestMode.CONSTANT_CURRENT,
        "voltage_v": 400.0,
        "current_a": 20.0,
    }
    return outputs.PowerRequested(**(values | fields))


def lose_everest(core: WatchedCore) -> object:
    core.heartbeat(9)
    return core.heartbeat(3)


def fail(core: WatchedCore) -> object:
    with pytest.MonkeyPatch.context() as patch:

        def handle(_: Any, message: Any) -> None:
            raise RuntimeError(message)

        patch.setattr(Connector, "handle", handle)
        return core.setpoint(410, 20)


# --- stop requests --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "act",
    [
        WatchedCore.plug_out,
        WatchedCore.off,
        WatchedCore.disconnect,
        lose_everest,
        fail,
        lambda core: core.feed(inputs.ShutdownRequested(reason="SIGTERM")),
    ],
    ids=["car left", "Off", "link failed", "EVerest lost", "handler raised", "shutdown"],
)
def test_a_stop_request_that_is_not_issued(act: Do) -> None:
    core = charging()
    core.alter = dropped(outputs.StopRequested)
    found(core, "stop_missing", act)


@pytest.mark.parametrize(
    "act", [WatchedCore.plug_out, WatchedCore.off, WatchedCore.disconnect, lose_everest, fail]
)
def test_power_in_the_turn_that_has_to_stop_it(act: Do) -> None:
    core = charging()

    def alter(_: inputs.Input, made: Made) -> Made:
        return [power(core, o.st_num) if isinstance(o, outputs.StopRequested) else o for o in made]

    core.alter = alter
    found(core, "power_not_asked_for", act)


def test_a_stop_request_for_another_reason() -> None:
    core = charging()
    core.alter = changed(outputs.StopRequested, reason=StopReason.EPO)
    found(core, "stop_reason", WatchedCore.off)


# --- power requests -------------------------------------------------------------------------------------------


def test_power_without_a_car() -> None:
    core = charging()
    core.plug_out()
    core.alter = added(power(core, 5))
    found(core, "power_not_asked_for", lambda core: core.heartbeat(1))


def test_power_while_the_modules_are_allocated() -> None:
    core = charging()
    core.plug_out()
    core.plug_in()
    core.alter = changed(outputs.PowerRequested, voltage_v=400.0, current_a=20.0)
    found(core, "power_not_asked_for", WatchedCore.key)


def test_power_in_a_cable_check_that_is_off() -> None:
    core = charging()
    core.export(ChargingPhase.CABLE_CHECK)
    core.alter = changed(outputs.PowerRequested, voltage_v=400.0, current_a=20.0)
    found(core, "power_not_asked_for", lambda core: core.mode(Mode.OFF, ChargingPhase.CABLE_CHECK))


def test_the_setpoint_of_the_former_session() -> None:
    core = charging()
    core.off()
    core.export()
    core.key()
    core.alter = changed(outputs.PowerRequested, voltage_v=400.0, current_a=20.0)
    found(core, "stale_setpoint", WatchedCore.reply)


@pytest.mark.parametrize(("voltage_v", "current_a"), [(1200.0, 100.0), (1000.0, 300.0)])
def test_a_setpoint_that_is_not_clamped(voltage_v: float, current_a: float) -> None:
    core = charging()
    core.alter = changed(outputs.PowerRequested, voltage_v=voltage_v, current_a=current_a)
    found(core, "beyond_capabilities", lambda core: core.setpoint(1200, 300))


def test_a_setpoint_that_is_clamped_only_once() -> None:
    core = charging()
    core.alter = dropped(*GOOSE)
    found(core, "request_missing", lambda core: core.write("1/max_rated_psu_current", 10))


@pytest.mark.parametrize("fields", [{"voltage_v": 401.0}, {"current_a": 19.0}, {"voltage_v": 0.0}])
def test_another_setpoint_than_everests(fields: dict[str, float]) -> None:
    core = charging()
    core.setpoint(300, 10)
    core.alter = changed(outputs.PowerRequested, **fields)
    found(core, "wrong_request", lambda core: core.setpoint(400, 20))


def test_another_requirement_type_than_the_phase_s() -> None:
    core = charging()
    core.alter = changed(outputs.PowerRequested, requirement_type=RequirementType.CHARGING)
    found(core, "wrong_request", lambda core: core.export(ChargingPhase.PRE_CHARGE))


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("st_num", {"st_num": 9}),
        ("wrong_mac", {"dst": bytes(6)}),
        ("goose_header", {"connector_no": 6}),
        ("goose_header", {"t_ns": 1}),
        ("request_mode", {"mode": PowerRequestMode.CONSTANT_VOLTAGE}),
    ],
)
def test_what_else_stands_in_a_request(name: str, fields: dict[str, Any]) -> None:
    core = charging()
    core.alter = changed(outputs.PowerRequested, **fields)
    found(core, name, lambda core: core.setpoint(410, 20))


def test_two_messages_in_a_turn() -> None:
    core = charging()
    core.alter = doubled(outputs.PowerRequested)
    found(core, "goose_twice", lambda core: core.setpoint(410, 20))


def test_a_message_that_says_nothing_new() -> None:
    core = charging()
    core.alter = added(power(core, 3))
    found(core, "goose_repeated", lambda core: core.setpoint(400, 20))


def test_a_new_key_that_signs_nothing() -> None:
    core = charging()
    core.alter = dropped(*GOOSE)
    found(core, "request_missing", WatchedCore.key)


def test_a_stop_request_with_the_first_key_that_is_not_issued() -> None:
    core = charging()
    core.alter = dropped(*GOOSE)
    found(core, "stop_missing", lambda core: core.key(2))


def test_a_message_before_the_mac_is_known() -> None:
    core = WatchedCore(make_config(1))
    core.start()
    core.feed(inputs.PsuConnected(connection=1))
    core.plug_in()
    placeholder = RequirementType.MODULE_PLACEHOLDER_REQUEST
    core.alter = added(power(core, 1, requirement_type=placeholder, voltage_v=0.0, current_a=0.0))
    found(core, "request_before_mac", WatchedCore.key)


def test_a_message_without_a_key() -> None:
    core = WatchedCore(make_config(1))
    core.ready()
    stop = outputs.StopRequested(
        connector=1, connector_no=5, dst=PSU_MAC, st_num=1, t_ns=0, reason=StopReason.NORMAL
    )
    core.alter = added(stop)
    found(core, "request_without_key", WatchedCore.plug_in)


def test_old_keys_that_go_on_signing() -> None:
    core = charging()
    core.disconnect()
    core.alter = dropped(outputs.GooseSilenced)
    found(core, "not_silenced", lambda core: core.advance(11))


# --- states ---------------------------------------------------------------------------------------------------


def with_state(**fields: Any) -> Any:
    """Another state of connector 1."""
    return lambda states: {**states, "connector/1": replace(states["connector/1"], **fields)}


@pytest.mark.parametrize("verified", [(), (2,)])
def test_a_reply_that_counts_for_a_connector_whose_key_did_not_verify_it(verified: tuple[int, ...]) -> None:
    core = WatchedCore(make_config(2))
    core.ready()
    core.plug_in()
    core.key()
    core.alter_states = with_state(phase=ConnectorPhase.RUNNING)
    found(core, "fsm", lambda core: core.reply(verified=verified))


def test_a_reply_that_counts_although_its_connection_is_lost() -> None:
    core = WatchedCore(make_config(2))
    core.ready()
    core.plug_in()
    former = core.connection
    core.disconnect()
    core.advance(0.1)
    core.connect()
    core.key()
    core.alter_states = with_state(phase=ConnectorPhase.RUNNING)
    found(core, "fsm", lambda core: core.reply(connection=former))


def test_a_key_that_counts_although_its_connection_is_lost() -> None:
    core = WatchedCore(make_config(2))
    core.ready()
    core.plug_in()
    core.disconnect()
    core.alter_states = with_state(phase=ConnectorPhase.CONNECTED_NO_ALLOCATION)
    found(core, "fsm", WatchedCore.key)


def test_a_key_that_counts_for_another_connector() -> None:
    core = WatchedCore(make_config(2))
    core.ready()
    core.plug_in()
    core.alter_states = with_state(phase=ConnectorPhase.CONNECTED_NO_ALLOCATION)
    found(core, "fsm", lambda core: core.key(2))


def test_a_request_without_a_car_that_counts() -> None:
    core = WatchedCore(make_config(1))
    core.ready()
    core.alter_states = with_state(mode_phase=ModePhase.EXPORT_CHARGING)
    found(core, "mode_phase", WatchedCore.export)


def test_a_setpoint_that_an_off_does_not_forget() -> None:
    core = charging()
    kept: Any = core.runtime.states()["connector/1"]
    core.alter_states = with_state(setpoint=kept.setpoint)
    found(core, "setpoint", WatchedCore.off)


def test_a_failure_that_does_not_stop() -> None:
    core = charging()
    core.alter_states = with_state(phase=ConnectorPhase.RUNNING)
    found(core, "failure_did_not_stop", fail)


def test_a_link_that_is_taken_for_ready() -> None:
    core = WatchedCore(make_config(1))
    core.start()
    core.connect()
    ready = core.runtime.states()["psu_link"]
    core.alter_states = lambda states: {**states, "psu_link": ready}
    found(core, "link_phase", WatchedCore.disconnect)


# --- what hangs on timers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "owner", "timer", "prepare", "wait_s"),
    [
        ("allocation_timeout_missed", "connector/2", "placeholder_allocation", "allocate", 8),
        ("first_key_endless", "connector/2", "first_key", "nothing", 12),
        ("everest_lost_ignored", "connector/1", "heartbeat", "beat", 8),
        ("everest_lost_ignored", "connector/1", "broker", "break", 8),
        ("outage_kept_the_request", "connector/1", "outage", "disconnect", 12),
        ("outage_kept_the_request", "connector/1", "outage", "lose twice", 2),
        ("resuming_endless", "connector/1", "resume", "resume", 12),
        ("keys_kept", "psu_link", "forget_psu", "disconnect", 12),
        ("link_silence_ignored", "psu_link", "liveness", "nothing", 62),
        ("report_missing", "psu_link", "report", "nothing", 4),
        ("communication_check", "psu_link", "second", "nothing", 4),
    ],
)
def test_a_timer_that_is_forgotten(name: str, owner: str, timer: str, prepare: str, wait_s: float) -> None:
    core = charging()
    prepared: dict[str, Do] = {
        "allocate": lambda core: (core.plug_in(2), core.key(2)),
        "beat": lambda core: core.heartbeat(1),
        "break": lambda core: (
            core.feed(inputs.BrokerConnected(session_present=False)),
            core.feed(inputs.BrokerDisconnected(reason="gone")),
        ),
        "disconnect": WatchedCore.disconnect,
        "lose twice": WatchedCore.lose_link_twice,
        "resume": lambda core: (core.disconnect(), core.advance(0.02), core.connect()),
        "nothing": lambda _: None,
    }
    prepared[prepare](core)
    assert (owner, timer) in core.timers, sorted(core.timers)

    def forget(core: WatchedCore) -> None:
        for _ in range(int(wait_s * 10)):
            core.timers.pop((owner, timer), None)
            core.advance(0.1)

    found(core, name, forget)


@pytest.mark.parametrize(
    ("name", "owner", "timer"),
    [
        ("fsm", "connector/2", "first_key"),
        ("fsm", "connector/1", "placeholder_allocation"),
    ],
)
def test_a_timer_that_fires_early(name: str, owner: str, timer: str) -> None:
    core = charging()
    core.off()
    core.export()
    core.key()
    core.advance(0.5)
    _, number = core.timers.pop((owner, timer))
    found(core, name, lambda core: core.feed(inputs.TimerFired(owner=owner, name=timer, number=number)))


def test_everest_that_is_lost_too_early() -> None:
    core = charging()
    core.heartbeat(1)
    core.alter_states = with_state(everest_lost=True, mode_phase=ModePhase.OFF)
    found(core, "everest_lost_early", lambda core: core.advance(4.9))


def test_a_link_that_is_given_up_too_early() -> None:
    core = charging("modbus_timeout_s = 5\n")
    core.advance(4)
    core.oracle._link.heard(core.at_ns)
    found(core, "link_given_up_early", lambda core: core.advance(2))


# --- errors, mode and capabilities towards EVerest ------------------------------------------------------------


def test_an_error_that_is_not_raised() -> None:
    core = charging()
    core.alter = dropped(outputs.ErrorRaised, connector=2)
    found(core, "error_not_raised", lambda core: core.write("PowerUnit/Smoke", 1))


def test_an_error_that_is_not_cleared() -> None:
    core = charging()
    core.write("PowerUnit/Smoke", 1)
    core.alter = dropped(outputs.ErrorCleared)
    found(core, "error_not_cleared", lambda core: core.write("PowerUnit/Smoke", 0))


def test_an_error_of_before_the_link_failed_that_is_not_cleared() -> None:
    core = charging()
    core.write("PowerUnit/Smoke", 1)
    core.alter = dropped(outputs.ErrorCleared)
    found(core, "error_not_cleared", WatchedCore.disconnect)


def test_an_error_that_is_raised_twice() -> None:
    core = charging()
    core.alter = doubled(outputs.ErrorRaised)
    found(core, "raised_twice", lambda core: core.write("PowerUnit/Smoke", 1))


def test_an_error_that_is_cleared_twice() -> None:
    core = charging()
    core.write("PowerUnit/Smoke", 1)
    core.alter = doubled(outputs.ErrorCleared)
    found(core, "cleared_unraised", lambda core: core.write("PowerUnit/Smoke", 0))


def test_an_error_that_nobody_knows() -> None:
    core = charging()
    unknown = outputs.ErrorRaised(connector=1, error_type="VendorError", sub_type="x", message="")
    core.alter = added(unknown)
    found(core, "unknown_error", lambda core: core.write("PowerUnit/Smoke", 1))


def test_flags_of_an_alarm_that_are_not_told() -> None:
    core = charging()
    core.alter = changed(outputs.ErrorRaised, message="Category: AcBranch; Subcategory: AcBranch1; Flags: 0x1")
    found(core, "error_message", lambda core: core.write("AcBranch/AcBranch1", 1))


def sync_without(sub_type: str, *kinds: type) -> Alter:
    """A synchronisation that says nothing of an error."""

    def alter(_: inputs.Input, made: Made) -> Made:
        return [o for o in made if not (isinstance(o, kinds) and getattr(o, "sub_type", "") == sub_type)]

    return alter


def test_a_synchronisation_that_leaves_an_error_out() -> None:
    core = charging()
    core.alter = sync_without("DcDcChargingModule/DcDcModule3", outputs.ErrorCleared)
    found(core, "not_synchronised", lambda core: core.heartbeat(1))


def test_a_synchronisation_that_raises_a_warning_at_once() -> None:
    core = charging()
    core.write("PowerUnit/Smoke", 1)
    core.alter = sync_without("PowerUnit/Smoke", outputs.ErrorCleared)
    found(core, "warning_not_cleared_first", lambda core: core.heartbeat(1))


@pytest.mark.parametrize("kind", [outputs.CapabilitiesPublished, outputs.ModePublished])
def test_a_synchronisation_without(kind: type) -> None:
    core = charging()
    core.alter = dropped(kind)
    found(core, "not_synchronised", lambda core: core.heartbeat(1))


def test_no_synchronisation_after_the_broker_was_away() -> None:
    core = charging()
    core.heartbeat(1)
    core.feed(inputs.BrokerDisconnected(reason="gone"))
    core.feed(inputs.BrokerConnected(session_present=True))
    core.alter = dropped(outputs.ErrorRaised, outputs.ErrorCleared)
    found(core, "not_synchronised", lambda core: core.heartbeat(2))


@pytest.mark.parametrize("act", [WatchedCore.off, WatchedCore.export, WatchedCore.plug_out, lose_everest, fail])
def test_a_mode_that_is_not_published(act: Do) -> None:
    core = charging()
    core.alter = dropped(outputs.ModePublished)
    found(core, "not_synchronised" if act is lose_everest else "mode_not_published", act)


def test_a_mode_that_is_not_in_effect() -> None:
    core = charging()
    core.plug_out()
    core.alter = changed(outputs.ModePublished, mode=Mode.EXPORT)
    found(core, "wrong_mode", WatchedCore.export)


def test_capabilities_that_are_not_published_again() -> None:
    core = charging()
    core.alter = dropped(outputs.CapabilitiesPublished)
    found(core, "capabilities", lambda core: core.write("1/max_rated_psu_voltage", 900))


def test_capabilities_beyond_the_connector() -> None:
    core = charging()

    def alter(_: inputs.Input, made: Made) -> Made:
        return [
            replace(o, capabilities=replace(o.capabilities, max_export_power_W=100_000.0))
            if isinstance(o, outputs.CapabilitiesPublished)
            else o
            for o in made
        ]

    core.alter = alter
    found(core, "capabilities", lambda core: core.write("1/rated_output_power_psu", 30))


# --- registers and reports ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "act",
    [
        lambda core: core.feed(inputs.BspErrorRaised(connector=2, error_type="TiltDetected", sub_type="")),
        lambda core: core.feed(inputs.BspEventReceived(connector=1, event=BspEvent.POWER_ON)),
        lambda core: core.plug_out(1),
        WatchedCore.off,
    ],
    ids=["alarm", "contactor", "connection_status", "working_status"],
)
def test_a_change_that_is_not_reported(act: Do) -> None:
    core = charging()
    core.alter = dropped(outputs.ReportSent)
    found(core, "change_not_reported", act)


def test_an_alarm_of_several_boards_that_one_of_them_clears() -> None:
    core = charging()
    for connector, sub_type in ((1, ""), (2, "a"), (2, "b")):
        core.feed(inputs.BspErrorRaised(connector=connector, error_type="TiltDetected", sub_type=sub_type))
    core.feed(inputs.BspErrorCleared(connector=1, error_type="TiltDetected", sub_type=""))

    def cleared(states: Any) -> Any:
        link = states["psu_link"]
        return {**states, "psu_link": replace(link, registers=link.registers | {"tilt_alarm": (0,)})}

    core.alter_states = cleared
    found(
        core,
        "alarm_register",
        lambda core: core.feed(inputs.BspErrorCleared(connector=2, error_type="TiltDetected", sub_type="a")),
    )


def test_an_alarm_that_is_lost_with_a_failed_turn() -> None:
    core = charging()
    before = core.runtime.states()["psu_link"]
    core.alter_states = lambda states: {**states, "psu_link": before}
    with pytest.MonkeyPatch.context() as patch:

        def handle(_: Any, message: Any) -> None:
            raise RuntimeError(message)

        patch.setattr(DispenserAlarms, "handle", handle)
        alarm = inputs.BspErrorRaised(connector=2, error_type="MREC8EmergencyStop", sub_type="")
        found(core, "alarm_register", lambda core: core.feed(alarm))


def test_a_report_of_what_was() -> None:
    core = charging()
    core.advance(1.1)
    before = next(o for o in reversed(core.history) if isinstance(o, outputs.ReportSent))
    core.alter = changed(outputs.ReportSent, segments=before.segments)
    found(core, "report_content", WatchedCore.off)


def test_two_reports_in_a_turn() -> None:
    core = charging()
    core.alter = doubled(outputs.ReportSent)
    found(core, "reported_twice", WatchedCore.off)


def test_a_report_with_another_transaction_id() -> None:
    core = charging()
    core.alter = changed(outputs.ReportSent, transaction_id=77)
    found(core, "report_transaction", WatchedCore.off)


def test_a_register_that_reads_wrong() -> None:
    core = charging()
    core.alter = changed(outputs.ReadAnswered, words=(1,))
    found(core, "read_content", lambda core: core.read_register("1/working_status"))


@pytest.mark.parametrize("alter", [dropped(outputs.ReadAnswered), doubled(outputs.ReadAnswered)])
def test_a_request_without_exactly_one_answer(alter: Alter) -> None:
    core = charging()
    core.alter = alter
    found(core, "answers", lambda core: core.read(0x110B, 1))


def test_keys_of_a_lost_link_that_go_on_verifying() -> None:
    core = charging()
    core.alter = dropped(outputs.HmacKeysRetired)
    found(core, "keys_not_retired", WatchedCore.disconnect)


def test_keys_that_are_forgotten_while_the_link_stands() -> None:
    core = charging()
    core.alter = added(outputs.HmacKeysForgotten(connection=1))
    found(core, "keys_forgotten_early", lambda core: core.heartbeat(1))


# --- liveness -------------------------------------------------------------------------------------------------


def test_a_link_that_does_not_come_back() -> None:
    core = charging()
    core.disconnect()
    found(core, "not_settled", lambda core: core.oracle.settled(core.at_ns))


def test_a_charge_that_does_not_come_back() -> None:
    core = charging()
    core.disconnect()
    core.advance(0.02)
    core.connect()
    found(core, "not_settled", lambda core: core.oracle.settled(core.at_ns))
