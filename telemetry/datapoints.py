"""Which value stands under which key of which topic, and what each is before anything was received.

Topics are without the configured prefix (behaviour.md §7). N is the global connector number.
"""

from collections.abc import Callable, Mapping, Sequence

from ..messages.outputs import TelemetryValue
from ..messages.registers import Register, Value, decode
from ..messages.types import PsuRunningMode
from .units import finite, kilo, shortest_f32

PSU_TOPIC = "psu"
ALARMS_TOPIC = "dispenser/published_alarms"
CONTACTOR_FAULT_KEY = "dc_output_contactor_fault_alarm"


def from_psu_topic(connector_no: int) -> str:
    """What the PSU says of a connector."""
    return f"connector/{connector_no}"


def to_psu_topic(connector_no: int) -> str:
    """What the dispenser does for a connector."""
    return f"connector/{connector_no}/dispenser_to_psu"


def _f32(value: Value) -> TelemetryValue:
    return shortest_f32(value) if isinstance(value, float) else None


def _f32_kilo(value: Value) -> TelemetryValue:
    return kilo(shortest_f32(value)) if isinstance(value, float) else None


def _f64_kilo(value: Value) -> TelemetryValue:
    return kilo(finite(value)) if isinstance(value, float) else None


def _running_mode(value: Value) -> TelemetryValue:
    names = {int(mode): mode.name for mode in PsuRunningMode}
    return names.get(value, f"UNKNOWN_{value}") if isinstance(value, int) else None


def _availability(value: Value) -> TelemetryValue:
    return "AVAILABLE" if value == 1 else "NOT_AVAILABLE"


_Convert = Callable[[Value], TelemetryValue]

_PSU_KEYS: dict[str, _Convert] = {
    "ac_input_current_a": _f32,
    "ac_input_current_b": _f32,
    "ac_input_current_c": _f32,
    "ac_input_voltage_a": _f32,
    "ac_input_voltage_b": _f32,
    "ac_input_voltage_c": _f32,
    "psu_running_mode": _running_mode,
    "total_historic_input_energy": _f64_kilo,
}
_CONNECTOR_KEYS: dict[str, _Convert] = {
    "max_rated_psu_current": _f32,
    "max_rated_psu_voltage": _f32,
    "min_rated_psu_current": _f32,
    "min_rated_psu_voltage": _f32,
    "psu_port_available": _availability,
    "rated_output_power_psu": _f32_kilo,
}
_TO_PSU_KEYS = (
    "bsp_event",
    CONTACTOR_FAULT_KEY,
    "everest_mode",
    "everest_phase",
    "export_current",
    "export_voltage",
    "output_current",
    "output_voltage",
    "upstream_voltage",
)
_ALARM_KEYS = ("door_status_alarm", "epo_alarm", "tilt_alarm", "water_alarm")


def initial_values(connector_nos: Sequence[int]) -> dict[str, dict[str, TelemetryValue]]:
    """Every topic with every key, as they are before anything was received: null, alarms false."""
    values: dict[str, dict[str, TelemetryValue]] = {PSU_TOPIC: dict.fromkeys(_PSU_KEYS)}
    values[ALARMS_TOPIC] = dict.fromkeys(_ALARM_KEYS, False)
    for connector_no in connector_nos:
        values[from_psu_topic(connector_no)] = dict.fromkeys(_CONNECTOR_KEYS)
        values[to_psu_topic(connector_no)] = {**dict.fromkeys(_TO_PSU_KEYS), CONTACTOR_FAULT_KEY: False}
    return values


def of_psu_register(
    register: Register, words: tuple[int, ...], connector_nos: Sequence[int]
) -> tuple[str, str, TelemetryValue] | None:
    """Topic, key and value of a register that the PSU wrote; None if telemetry does not show it."""
    keys = _CONNECTOR_KEYS if register.connector else _PSU_KEYS
    convert = keys.get(register.name)
    if convert is None:
        return None
    topic = from_psu_topic(connector_nos[register.connector - 1]) if register.connector else PSU_TOPIC
    return topic, register.name, convert(decode(register, words))


def psu_values_unknown(connector_nos: Sequence[int]) -> dict[str, dict[str, TelemetryValue]]:
    """Every value that comes from the PSU, as null: what telemetry shows once the link failed."""
    initial = initial_values(connector_nos)
    return {topic: initial[topic] for topic in (PSU_TOPIC, *map(from_psu_topic, connector_nos))}


def changed_topics(
    values: Mapping[str, Mapping[str, TelemetryValue]],
    published: Mapping[str, Mapping[str, TelemetryValue]],
) -> list[str]:
    """Topics whose object differs from the one published last, in the order of `values`."""
    # Mostly it is the very same object: comparing two equal ones takes much longer.
    return [
        topic
        for topic, known in values.items()
        if (last := published.get(topic)) is not known and last != known
    ]
