"""Telemetry (behaviour.md §7), through Inputs and Outputs."""

from core_harness import Core, make_config, only
from fusioncharger.messages import inputs, outputs
from fusioncharger.messages.outputs import TelemetryValue

PREFIX = 'telemetry_topic_prefix = "site/psu"\n'


def published(made: list[outputs.AnyOutput]) -> dict[str, dict[str, TelemetryValue]]:
    found = only(made, outputs.TelemetryPublished)
    topics = [output.topic for output in found]
    assert len(topics) == len(set(topics))
    return {output.topic: output.values for output in found}


def online(connectors: int = 1) -> Core:
    core = Core(make_config(connectors, PREFIX)).ready()
    core.feed(inputs.BrokerConnected(session_present=False))
    core.advance(0.02)
    return core


def test_everything_is_published_once_at_the_beginning() -> None:
    core = Core(make_config(2, PREFIX)).start()
    core.feed(inputs.BrokerConnected(session_present=False))
    made = published(core.advance(0.02))
    assert list(made) == [
        "psu",
        "dispenser/published_alarms",
        "connector/5",
        "connector/5/dispenser_to_psu",
        "connector/6",
        "connector/6/dispenser_to_psu",
    ]
    assert made["psu"] == dict.fromkeys(
        [
            "ac_input_current_a",
            "ac_input_current_b",
            "ac_input_current_c",
            "ac_input_voltage_a",
            "ac_input_voltage_b",
            "ac_input_voltage_c",
            "psu_running_mode",
            "total_historic_input_energy",
        ]
    )
    assert set(made["dispenser/published_alarms"].values()) == {False}
    assert made["connector/5/dispenser_to_psu"]["dc_output_contactor_fault_alarm"] is False
    assert made["connector/5/dispenser_to_psu"]["export_voltage"] is None
    assert published(core.advance(50)) == {}


def test_a_burst_is_one_message_of_si_units() -> None:
    core = online()
    core.write("psu_running_mode", 1)
    core.write("ac_input_voltage_a", 230.1)
    core.write("total_historic_input_energy", 12.3456)
    core.write("1/rated_output_power_psu", 60.1)
    core.write("1/psu_port_available", 1)
    made = published(core.advance(0.02))
    assert set(made) == {"psu", "connector/5"}
    assert made["psu"]["psu_running_mode"] == "RUNNING"
    assert made["psu"]["ac_input_voltage_a"] == 230.1
    assert made["psu"]["total_historic_input_energy"] == 12345.6
    assert made["connector/5"]["rated_output_power_psu"] == 60100.0
    assert made["connector/5"]["psu_port_available"] == "AVAILABLE"


def test_a_value_that_did_not_change_is_not_published() -> None:
    core = online()
    core.write("psu_running_mode", 1)
    core.advance(0.02)
    core.write("psu_running_mode", 1)
    assert published(core.advance(0.02)) == {}
    core.write("psu_running_mode", 2)
    core.write("psu_running_mode", 1)  # back again within the window
    assert published(core.advance(0.02)) == {}
    core.write("psu_running_mode", 9)
    assert published(core.advance(0.02))["psu"]["psu_running_mode"] == "UNKNOWN_9"


def test_what_the_dispenser_does() -> None:
    core = online().to_charging(400.1, 20)
    values = published(core.advance(0.02))["connector/5/dispenser_to_psu"]
    assert values["bsp_event"] == "B"
    assert (values["everest_mode"], values["everest_phase"]) == ("Export", "Charging")
    assert (values["export_voltage"], values["export_current"]) == (400.1, 20.0)
    core.feed(inputs.BspErrorRaised(connector=1, error_type="MREC17EVSEContactorFault", sub_type=""))
    core.feed(inputs.BspErrorRaised(connector=1, error_type="TiltDetected", sub_type=""))
    made = published(core.advance(0.02))
    assert made["connector/5/dispenser_to_psu"]["dc_output_contactor_fault_alarm"] is True
    assert made["dispenser/published_alarms"]["tilt_alarm"] is True


def test_values_of_the_psu_become_null_with_the_link() -> None:
    core = online()
    core.write("psu_running_mode", 1)
    core.write("1/max_rated_psu_current", 100.0)
    core.advance(0.02)
    core.feed(inputs.PsuDisconnected(connection=1, reason="closed"))
    made = published(core.advance(0.02))
    assert set(made["psu"].values()) == {None}
    assert set(made["connector/5"].values()) == {None}


def test_values_that_are_no_numbers_are_null() -> None:
    core = online()
    core.write_words(0x2007, (0x7FC0, 0))
    core.write_words(0x2013, (0x7FF0, 0, 0, 0))
    core.write_words(0x212D, (0x7F80, 0))
    core.write("ac_input_current_a", 1.5)
    made = published(core.advance(0.02))
    assert made["psu"]["ac_input_voltage_a"] is None
    assert made["psu"]["total_historic_input_energy"] is None
    assert made["connector/5"]["rated_output_power_psu"] is None


def test_while_the_broker_is_away_only_the_newest_state_is_kept() -> None:
    core = online()
    core.write("psu_running_mode", 0)
    core.feed(inputs.BrokerDisconnected(reason="gone"), 0)
    for mode in (1, 2, 3):
        core.write("psu_running_mode", mode)
    assert published(core.advance(1)) == {}
    core.feed(inputs.BrokerConnected(session_present=True))
    made = published(core.advance(0.02))
    assert made["psu"]["psu_running_mode"] == "SLEEPING"
    # Everything once: what was on its way when the connection broke may be lost.
    assert len(made) == 4
    assert published(core.advance(1)) == {}


def test_nothing_is_published_without_a_prefix() -> None:
    core = Core().ready()
    core.feed(inputs.BrokerConnected(session_present=False))
    core.to_charging()
    assert published(core.advance(1)) == {}
