"""Capabilities towards EVerest, and setpoints clamped into them (behaviour.md §1, §4)."""

import math

import pytest
from core_harness import Core, goose, make_config, only
from fusioncharger.messages import outputs
from fusioncharger.messages.config import parse
from fusioncharger.messages.everest import Capabilities
from fusioncharger.messages.types import ChargingPhase, RequirementType
from hypothesis import given
from hypothesis import strategies as st

CHARGING = RequirementType.CHARGING


def told(made: list[outputs.AnyOutput]) -> list[Capabilities]:
    return [output.capabilities for output in only(made, outputs.CapabilitiesPublished)]


def test_they_are_published_at_start_with_the_constants() -> None:
    core = Core()
    core.start()
    (capabilities,) = told(core.history)
    assert capabilities == Capabilities(
        bidirectional=False,
        max_export_power_W=0,
        nominal_max_export_current_A=100,
        nominal_max_export_power_W=60_000,
        current_regulation_tolerance_A=1,
        peak_current_ripple_A=0.5,
        conversion_efficiency_import=0.85,
        conversion_efficiency_export=0.9,
    )


def test_they_follow_the_ratings_and_are_capped_by_the_connector() -> None:
    core = Core().start().connect(rated=False)
    core.rate(max_v=950.5, max_a=250, min_v=50, min_a=0.1, power_kw=90.1)
    last = told(core.history)[-1]
    assert (last.max_export_voltage_V, last.min_export_voltage_V) == (950.5, 50)
    assert (last.max_export_current_A, last.min_export_current_A) == (100, 0.1)  # 0.1, not 0.10000000149
    assert last.max_export_power_W == 60_000
    core.rate(max_a=20.1, power_kw=20.1)
    last = told(core.history)[-1]
    assert (last.max_export_current_A, last.max_export_power_W) == (20.1, 20_100)


def test_an_unchanged_rating_publishes_nothing() -> None:
    core = Core().ready()
    assert told(core.rate()) == []
    assert told(core.write("1/psu_port_available", 1)) == []


def test_each_connector_has_its_own() -> None:
    core = Core(make_config(2)).ready()
    made = core.rate(2, max_a=50)
    assert [output.connector for output in only(made, outputs.CapabilitiesPublished)] == [2]


@pytest.mark.parametrize("words", [(0x7FC0, 0), (0x7F80, 0), (0xFF80, 0)], ids=["NaN", "inf", "-inf"])
def test_a_rating_that_is_no_number_counts_as_zero(words: tuple[int, int]) -> None:
    core = Core().ready()
    made = core.write_words(core.map.by_key["1/max_rated_psu_voltage"].address, words)
    assert told(made)[-1].max_export_voltage_V == 0
    assert [error.sub_type for error in only(made, outputs.ErrorRaised)] == ["capabilities_not_received"]


# --- clamping -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "applied"),
    [
        ((1200, 20), (1000, 20)),
        ((400, 300), (400, 100)),
        ((400, 0.5), (400, 1)),
        ((0, 20), (0, 0)),
        ((400, 0), (0, 0)),
        ((100, 1), (100, 1)),
    ],
)
def test_a_setpoint_is_clamped(wanted: tuple[float, float], applied: tuple[float, float]) -> None:
    core = Core().ready().to_charging(500, 50)
    assert goose(core.setpoint(*wanted)) == [(CHARGING, *applied)]


def test_a_voltage_below_the_minimum_is_refused_and_changes_nothing() -> None:
    core = Core().ready().to_charging(500, 50)
    made = core.setpoint(99, 50)
    assert goose(made) == []
    assert "99 V is less than the PSU's 100.0 V" in only(made, outputs.LogWritten)[0].text
    assert goose(core.setpoint(500, 51)) == [(CHARGING, 500, 51)]


def test_a_rating_that_drops_below_the_setpoint_reissues_at_once() -> None:
    core = Core().ready().to_charging(500, 50)
    assert goose(core.write("1/max_rated_psu_current", 30)) == [(CHARGING, 500, 30)]
    assert goose(core.write("1/max_rated_psu_voltage", 450)) == [(CHARGING, 450, 30)]
    assert goose(core.write("1/max_rated_psu_current", 80)) == [(CHARGING, 450, 50)]  # what EVerest wants
    assert goose(core.write("1/min_rated_psu_voltage", 480)) == [(CHARGING, 0, 0)]
    assert goose(core.write("1/min_rated_psu_voltage", 200)) == [(CHARGING, 450, 50)]
    assert goose(core.write("1/max_rated_psu_voltage", 0)) == [(CHARGING, 0, 0)]


def test_the_connectors_own_current_limit_counts() -> None:
    core = Core(make_config(settings="")).ready().to_charging(500, 500)
    assert goose(core.history)[-1] == (CHARGING, 500, 100)


def test_without_ratings_there_is_no_power() -> None:
    core = Core().start().connect(rated=False).to_charging()
    assert goose(core.history)[-1] == (CHARGING, 0, 0)
    assert goose(core.rate())[-1] == (CHARGING, 400, 20)


def test_a_minimum_above_the_maximum_never_lifts_the_current_over_it() -> None:
    core = Core().ready().to_charging(500, 5)
    core.write("1/max_rated_psu_current", 10)
    assert goose(core.write("1/min_rated_psu_current", 50)) == [(CHARGING, 500, 10)]


AMOUNT = st.floats(min_value=0, max_value=3000, width=32)


@given(
    setpoint=st.tuples(AMOUNT, AMOUNT),
    ratings=st.lists(st.tuples(AMOUNT, AMOUNT, AMOUNT, AMOUNT), min_size=1, max_size=3),
)
def test_nothing_beyond_the_ratings_of_the_moment_is_ever_asked_for(
    setpoint: tuple[float, float], ratings: list[tuple[float, float, float, float]]
) -> None:
    core = Core().ready().to_running()
    core.export(ChargingPhase.PRE_CHARGE)
    core.setpoint(*setpoint)
    for max_v, max_a, min_v, min_a in ratings:
        core.rate(max_v=max_v, max_a=max_a, min_v=min_v, min_a=min_a)
        _, voltage_v, current_a = goose(core.history)[-1]
        assert voltage_v <= max_v
        assert current_a <= min(max_a, 100.0)
        assert (voltage_v == 0) == (current_a == 0)
        assert voltage_v in (0.0, min(setpoint[0], max_v))
        assert voltage_v == 0 or voltage_v >= min_v
        assert math.isfinite(voltage_v + current_a)


def test_the_config_names_are_the_connectors() -> None:
    text = """
    [[connectors]]
    global_connector_number = 1
    max_export_current_A = 32.5
    max_export_power_W = 11000
    power_supply_DC = "psu"
    evse_board_support = "bsp"
    isolation_monitor = "imd"
    """
    core = Core(parse(text, "site.toml")).ready()
    last = told(core.history)[-1]
    assert (last.max_export_current_A, last.max_export_power_W) == (32.5, 11_000)
