"""Measured voltages: registers, voltage_current towards EVerest, freshness (behaviour.md §5)."""

import struct

import pytest
from core_harness import Core, make_config, only
from fusioncharger.messages import inputs, outputs
from fusioncharger.messages.types import ChargingPhase, Mode


def f32(core: Core, key: str) -> float:
    words = core.read_register(key)
    return float(struct.unpack(">f", struct.pack(">HH", *words))[0])


def shown(made: list[outputs.AnyOutput]) -> list[tuple[float, float]]:
    """voltage_current, as EVerest gets it."""
    return [(output.voltage_v, output.current_a) for output in only(made, outputs.VoltageCurrentPublished)]


def imd(core: Core, voltage_v: float) -> list[outputs.AnyOutput]:
    return core.feed(inputs.IsolationMeasured(connector=1, voltage_v=voltage_v))


def ovm(core: Core, voltage_v: float) -> list[outputs.AnyOutput]:
    return core.feed(inputs.OverVoltageMeasured(connector=1, voltage_v=voltage_v))


def meter(core: Core, voltage_v: float, current_a: float) -> list[outputs.AnyOutput]:
    return core.feed(inputs.PowermeterMeasured(connector=1, voltage_v=voltage_v, current_a=current_a))


def telemetry(core: Core) -> dict[str, outputs.TelemetryValue]:
    """connector/5/dispenser_to_psu as it was published last."""
    core.advance(0.02)
    found = [
        output.values
        for output in only(core.history, outputs.TelemetryPublished)
        if output.topic == "connector/5/dispenser_to_psu"
    ]
    return found[-1]


def online(settings: str = "", *, no_meter: bool = False) -> Core:
    core = Core(make_config(settings="telemetry_topic_prefix = 't'\n" + settings, no_meter=no_meter)).ready()
    core.feed(inputs.BrokerConnected(session_present=False))
    return core


@pytest.mark.parametrize(("source", "wanted"), [("IMD", 401.5), ("OVM", 402.5)])
def test_upstream_voltage(source: str, wanted: float) -> None:
    core = online(f'upstream_voltage_source = "{source}"\n')
    assert f32(core, "1/contactor_upstream_voltage") == 0
    imd(core, 401.5)
    ovm(core, 402.5)
    assert f32(core, "1/contactor_upstream_voltage") == wanted
    assert telemetry(core)["upstream_voltage"] == wanted
    assert f32(core, "1/output_voltage") == 0


def test_the_meter_is_what_everest_and_the_psu_get() -> None:
    core = online()
    assert shown(meter(core, 399.9, -0.25)) == [(399.9, -0.25)]
    assert f32(core, "1/output_voltage") == pytest.approx(399.9)
    assert f32(core, "1/output_current") == -0.25
    assert (telemetry(core)["output_voltage"], telemetry(core)["output_current"]) == (399.9, -0.25)
    assert shown(imd(core, 5) + ovm(core, 6)) == []


def test_each_measurement_is_published_and_the_last_one_again_once_a_second_while_it_is_fresh() -> None:
    core = online()
    core.advance(0.5)
    assert shown(meter(core, 400, 1)) == [(400, 1)]
    assert shown(meter(core, 400, 1)) == [(400, 1)]
    assert shown(core.advance(0.95)) == []  # the second's turn comes half a second after it
    assert shown(core.advance(1)) == [(400, 1)]
    assert shown(core.advance(10)) == [(400, 1)] * 3  # then it is 5 s old
    assert shown(meter(core, 401, 1)) == [(401, 1)]


def test_without_a_meter_nothing_is_published() -> None:
    core = online(no_meter=True).to_charging()
    assert shown(core.advance(3) + imd(core, 400)) == []


# --- the hacks ------------------------------------------------------------------------------------------------

OVM_HACK = "HACK_use_ovm_while_cable_check = true\n"


def test_the_ovm_speaks_while_the_last_request_is_a_cable_check_its_off_included() -> None:
    core = online(OVM_HACK).to_running()
    assert shown(ovm(core, 10)) == []
    assert shown(meter(core, 11, 1)) == [(11, 1)]
    core.setpoint(500, 2)
    core.export(ChargingPhase.CABLE_CHECK)
    assert shown(ovm(core, 480)) == [(480, 0)]
    assert shown(meter(core, 200, 1)) == []
    assert f32(core, "1/output_voltage") == 200  # the registers still take the meter
    core.mode(Mode.OFF, ChargingPhase.OTHER)
    assert shown(ovm(core, 30)) == [(30, 0)]
    assert shown(core.advance(2))[-1] == (30, 0)
    core.export(ChargingPhase.PRE_CHARGE)
    assert shown(ovm(core, 31)) == []
    assert shown(meter(core, 35, 0)) == [(35, 0)]


REQUESTED_HACK = "HACK_publish_requested_voltage_current = true\n"


def test_without_a_meter_the_applied_values_may_stand_for_measured_ones() -> None:
    core = online(REQUESTED_HACK, no_meter=True)
    assert shown(core.advance(1.5)) == [(0, 0)]
    core.plug_in()
    core.setpoint(1200, 20)
    core.export()
    assert shown(core.advance(1)) == [(0, 0)]  # nothing is asked of the PSU before Running
    core.key()
    core.reply()
    assert shown(core.advance(1)) == [(1000, 20)]  # clamped
    core.off()
    assert shown(core.advance(1)) == [(0, 0)]


def test_with_a_meter_the_requested_values_are_not_published() -> None:
    core = online(REQUESTED_HACK).to_charging()
    assert shown(core.advance(3)) == []


# --- freshness ------------------------------------------------------------------------------------------------


def warnings(made: list[outputs.AnyOutput]) -> list[str]:
    return [line.text for line in only(made, outputs.LogWritten) if "silent" in line.text]


def test_a_source_that_falls_silent_while_power_flows() -> None:
    core = online().to_charging()
    imd(core, 400)
    meter(core, 399, 20)
    core.advance(3)
    imd(core, 401)
    made = core.advance(3)
    assert warnings(made) == ["the power meter has been silent for 5 s while power flows"]
    assert telemetry(core)["output_voltage"] is None
    assert telemetry(core)["output_current"] is None
    assert telemetry(core)["upstream_voltage"] == 401
    assert f32(core, "1/output_voltage") == 399  # the register keeps it
    assert shown(core.advance(1.5)) == []
    assert warnings(core.advance(20)) == ["the isolation monitor has been silent for 5 s while power flows"]
    assert telemetry(core)["upstream_voltage"] is None
    meter(core, 398, 19)
    assert telemetry(core)["output_voltage"] == 398


def test_a_source_that_never_spoke_is_named_after_five_seconds_of_power() -> None:
    core = online()
    assert warnings(core.advance(20)) == []
    core.to_running()
    assert warnings(core.advance(20)) == []  # Running, but Off
    core.export()
    assert warnings(core.advance(4.9)) == []
    assert len(warnings(core.advance(1.2))) == 2


def test_a_value_beyond_an_f32_is_no_measurement() -> None:
    core = online().to_charging()
    meter(core, 399, 20)
    assert shown(meter(core, 1e39, 20)) == []
    assert f32(core, "1/output_voltage") == 399
    assert only(core.history, outputs.TurnFailed) == []
