"""Topics and the diff."""

from fusioncharger.messages.registers import RegisterMap, encode
from fusioncharger.telemetry.datapoints import changed_topics, initial_values, of_psu_register

REGISTERS = RegisterMap(2).by_key


def test_what_the_psu_writes_and_telemetry_shows() -> None:
    numbers = (5, 9)
    current = REGISTERS["2/max_rated_psu_current"]
    assert of_psu_register(current, encode(current, 20.1), numbers) == (
        "connector/9",
        "max_rated_psu_current",
        20.1,
    )
    port = REGISTERS["1/psu_port_available"]
    assert of_psu_register(port, (0,), numbers) == ("connector/5", "psu_port_available", "NOT_AVAILABLE")
    assert of_psu_register(REGISTERS["psu_mac"], (1, 2, 3), numbers) is None
    assert of_psu_register(REGISTERS["PowerUnit/Epo"], (1,), numbers) is None


def test_the_diff_names_topics_whose_object_differs() -> None:
    values = initial_values([5])
    assert changed_topics(values, {}) == list(values)
    assert changed_topics(values, values) == []
    published = {**values, "psu": {**values["psu"], "psu_running_mode": "RUNNING"}}
    assert changed_topics(values, published) == ["psu"]
