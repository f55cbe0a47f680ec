"""The oracle can fail, second part: measurements, telemetry, answers, intervals, what is told twice or
not at all. (test_invariants_find.py has the rest, and says how.)"""

from typing import Any

import pytest
from core_harness import make_config
from fusioncharger.messages import inputs, outputs
from fusioncharger.messages.types import ChargingPhase, ConnectorPhase, Mode
from msgspec.structs import replace
from watched_core import Alter, Do, Made, WatchedCore, added, changed, charging, doubled, dropped, found

METER, OVM, IMD = inputs.PowermeterMeasured, inputs.OverVoltageMeasured, inputs.IsolationMeasured
TELEMETRY = 'telemetry_topic_prefix = "t"\n'
HISTORY = 'error_history = "errors"\n'


def last(core: WatchedCore, kind: type[Any]) -> Any:
    """The Output of that kind that came last."""
    return next(output for output in reversed(core.history) if isinstance(output, kind))


def watched(settings: str) -> WatchedCore:
    """Charging, and the broker is there."""
    core = charging(settings)
    core.feed(inputs.BrokerConnected(session_present=False))
    core.advance(0.1)
    return core


# --- measurements ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "alter"),
    [
        ("measurement_not_published", dropped(outputs.VoltageCurrentPublished)),
        ("voltage_current", changed(outputs.VoltageCurrentPublished, voltage_v=0.0)),
        ("voltage_current_twice", doubled(outputs.VoltageCurrentPublished)),
    ],
)
def test_a_measurement_that_everest_gets_wrong(name: str, alter: Alter) -> None:
    core = charging()
    core.alter = alter
    found(core, name, lambda core: core.measure(METER))


def test_a_measurement_of_a_device_that_everest_does_not_get() -> None:
    core = charging()
    core.alter = added(outputs.VoltageCurrentPublished(connector=1, voltage_v=400.0, current_a=0.0))
    found(core, "voltage_current", lambda core: core.measure(OVM))


def test_the_slow_meter_in_a_cable_check() -> None:
    core = charging("HACK_use_ovm_while_cable_check = true\n")
    core.export(ChargingPhase.CABLE_CHECK)
    core.mode(Mode.OFF)
    core.alter = added(outputs.VoltageCurrentPublished(connector=1, voltage_v=400.0, current_a=20.0))
    found(core, "voltage_current", lambda core: core.measure(METER))


def test_a_measurement_that_is_not_repeated() -> None:
    core = charging()
    core.measure(METER)
    core.alter = dropped(outputs.VoltageCurrentPublished)
    found(core, "voltage_current_missing", lambda core: core.advance(4.8))


def test_a_measurement_that_is_too_old() -> None:
    core = charging()
    core.measure(METER)
    core.advance(5.5)
    core.alter = added(outputs.VoltageCurrentPublished(connector=1, voltage_v=400.0, current_a=20.0))
    found(core, "voltage_current", lambda core: core.heartbeat(1))


def test_the_applied_values_before_they_apply() -> None:
    core = WatchedCore(make_config(2, "HACK_publish_requested_voltage_current = true\n", no_meter=True))
    core.ready().to_charging()
    core.alter = changed(outputs.VoltageCurrentPublished, voltage_v=401.0)
    found(core, "voltage_current", lambda core: core.advance(1.1))


@pytest.mark.parametrize(
    ("kind", "register"),
    [(METER, "output_voltage"), (METER, "output_current"), (IMD, "contactor_upstream_voltage")],
)
def test_a_register_that_does_not_follow(kind: type[inputs.Input], register: str) -> None:
    core = charging()

    def kept(states: Any) -> Any:
        link = states["psu_link"]
        return {**states, "psu_link": replace(link, registers=link.registers | {f"1/{register}": (0, 0)})}

    core.alter_states = kept
    found(core, "measured_register", lambda core: core.measure(kind))


def test_a_silence_that_nobody_hears_of() -> None:
    core = charging()
    core.alter = dropped(outputs.LogWritten)
    found(core, "silence_not_said", lambda core: core.advance(8))


# --- telemetry ------------------------------------------------------------------------------------------------


def test_an_object_of_what_was() -> None:
    core = watched(TELEMETRY)
    core.setpoint(410, 20)
    core.advance(0.1)
    before = last(core, outputs.TelemetryPublished)
    assert before.topic == "connector/5/dispenser_to_psu"
    core.alter = changed(outputs.TelemetryPublished, values=before.values)
    found(core, "telemetry_content", lambda core: (core.setpoint(420, 20), core.advance(0.1)))


@pytest.mark.parametrize("act", [WatchedCore.off, WatchedCore.disconnect])
def test_an_object_that_is_not_published(act: Do) -> None:
    core = watched(TELEMETRY)
    core.alter = dropped(outputs.TelemetryPublished)
    found(core, "telemetry_missing", lambda core: (act(core), core.advance(15)))


def test_a_value_that_is_not_the_shortest() -> None:
    core = watched(TELEMETRY)

    def long(_: inputs.Input, made: Made) -> Made:
        return [
            replace(o, values=o.values | {"ac_input_voltage_a": 20.100000381})
            if isinstance(o, outputs.TelemetryPublished)
            else o
            for o in made
        ]

    core.alter = long
    found(core, "telemetry_content", lambda core: (core.write("ac_input_voltage_a", 20.1), core.advance(0.1)))


def test_an_object_while_the_broker_is_away() -> None:
    core = watched(TELEMETRY)
    object_ = last(core, outputs.TelemetryPublished)
    core.feed(inputs.BrokerDisconnected(reason="gone"))
    core.alter = added(object_)
    found(core, "telemetry_without_broker", WatchedCore.off)


def test_each_change_of_a_burst() -> None:
    core = watched(TELEMETRY)
    core.alter = doubled(outputs.TelemetryPublished)
    found(core, "telemetry_window", lambda core: (core.off(), core.advance(0.1)))


# --- answers --------------------------------------------------------------------------------------------------


def test_the_answer_to_another_write() -> None:
    core = charging()
    core.alter = changed(outputs.WriteAnswered, value=1)
    found(core, "answers", lambda core: core.write("1/max_rated_psu_voltage", 900))


def test_another_exception_than_the_one_that_is_due() -> None:
    core = charging()
    core.alter = changed(outputs.ExceptionAnswered, exception_code=3)
    found(core, "answers", lambda core: core.write_words(0xFFFF, (0, 0)))


# --- intervals ------------------------------------------------------------------------------------------------


def test_a_report_too_many() -> None:
    core = charging()
    core.advance(1.2)
    report = last(core, outputs.ReportSent)
    core.alter = added(replace(report, transaction_id=report.transaction_id + 1))
    found(core, "report_interval", lambda core: core.heartbeat(1))


def test_a_communication_check_too_many() -> None:
    core = charging()
    core.alter = doubled(outputs.CommunicationChecked)
    found(core, "communication_check", lambda core: core.advance(1.1))


def test_a_connection_that_is_asked_for_at_once() -> None:
    core = charging()
    core.alter = added(outputs.PsuConnectRequested(connection=2))
    found(core, "backoff", WatchedCore.disconnect)


def test_a_connection_that_is_not_asked_for() -> None:
    core = charging()
    core.disconnect()
    core.alter = dropped(outputs.PsuConnectRequested)
    found(core, "backoff", lambda core: core.advance(2))


def test_a_backoff_that_does_not_grow() -> None:
    core = charging()
    core.disconnect()
    for _ in range(4):
        core.advance(1)
        core.feed(inputs.PsuConnectFailed(connection=core.connection, reason="refused"))
    request = outputs.PsuConnectRequested(connection=core.connection + 1)
    core.advance(0.05)
    core.alter = added(request)
    found(core, "backoff", lambda core: core.heartbeat(1))


# --- what is told twice, or not -------------------------------------------------------------------------------


def test_a_mode_that_is_told_twice() -> None:
    core = charging()
    core.alter = doubled(outputs.ModePublished)
    found(core, "mode_repeated", WatchedCore.off)


def test_capabilities_that_are_told_for_no_reason() -> None:
    core = charging()
    core.heartbeat(1)
    core.alter = added(last(core, outputs.CapabilitiesPublished))
    found(core, "capabilities_repeated", lambda core: core.heartbeat(2))


def test_a_shutdown_that_everest_does_not_hear_of() -> None:
    core = charging()
    core.alter = dropped(outputs.ModePublished)
    found(core, "mode_not_published", lambda core: core.feed(inputs.ShutdownRequested(reason="SIGTERM")))


def test_error_history_that_is_not_asked() -> None:
    core = charging(HISTORY)
    core.alter = dropped(outputs.ActiveErrorsRequested)
    found(
        core,
        "active_errors_not_requested",
        lambda core: core.feed(inputs.BrokerConnected(session_present=False)),
    )


def test_error_history_that_is_not_asked_after_everests_restart() -> None:
    core = watched(HISTORY)
    core.feed(inputs.ActiveErrorsReceived(errors=()))
    core.heartbeat(9)
    core.alter = dropped(outputs.ActiveErrorsRequested)
    found(core, "active_errors_not_requested", lambda core: (core.heartbeat(3), core.advance(8)))


@pytest.mark.parametrize(
    "act",
    [
        lambda core: core.setpoint(-400, 20),
        lambda core: core.setpoint(50, 20),
        lambda core: core.mode(Mode.IMPORT, ChargingPhase.CHARGING),
        lambda core: core.export(connector=2),
        lambda core: core.feed(inputs.ImportSetpointRequested(connector=1, voltage_v=400.0, current_a=1.0)),
    ],
    ids=["negative", "below the minimum", "Import", "no car", "import setpoint"],
)
def test_a_refusal_that_is_not_logged(act: Do) -> None:
    core = charging()
    core.alter = dropped(outputs.LogWritten)
    found(core, "not_logged", act)


def test_a_first_key_that_does_not_come() -> None:
    core = WatchedCore(make_config(2))
    core.ready().write("psu_running_mode", 1)
    core.advance(9.5)
    assert core.runtime.states()["connector/2"].phase is ConnectorPhase.FIRST_KEY
    core.advance(2)
    assert core.runtime.states()["connector/2"].phase is ConnectorPhase.CAR_DISCONNECTED
    core.disconnect()
    core.advance(0.1)
    core.connect().write("psu_running_mode", 1)
    core.alter = dropped(outputs.LogWritten)
    found(core, "not_logged", lambda core: core.advance(11))


def test_restored_alarms_that_are_not_logged() -> None:
    core = WatchedCore(make_config(2))
    core.alter = dropped(outputs.LogWritten)
    errors = (inputs.BspError(1, "TiltDetected", ""),)
    found(
        core,
        "not_logged",
        lambda core: core.feed(inputs.Started(utc_offset_ns=0, goose_mac=bytes(6), restored_errors=errors)),
    )
