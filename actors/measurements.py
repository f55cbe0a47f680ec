"""Measured voltages and currents of a connector, and how fresh they are (behaviour.md §5). Pure.

    isolation monitor ─┬─► upstream voltage (register 0x1113)
    over-voltage monitor ┘
    power meter ─────────► output voltage, current (0x1107, 0x1109), and voltage_current towards EVerest

The PSU measures no voltage, so a source that falls silent is dangerous: what it said last must not look new.
"""

from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ..messages.config import Config
from ..messages.everest import VoltageCurrent
from ..messages.outputs import TelemetryValue
from .capabilities import as_f32
from .runtime import MILLISECOND_NS, SECOND_NS

FRESH_NS = 5 * SECOND_NS
REPEAT_AFTER_NS = 900 * MILLISECOND_NS
"""Published again by the second's turn, unless a measurement came within this time before it."""

IMD = "isolation monitor"
OVM = "over-voltage monitor"
METER = "power meter"


class Sources(Struct, frozen=True):
    """Which devices count for what, by the configuration."""

    upstream: str
    has_meter: bool
    ovm_while_cable_check: bool
    publish_requested: bool

    @property
    def supervised(self) -> tuple[str, ...]:
        """The devices that must not fall silent while power flows."""
        found = [self.upstream]
        if self.ovm_while_cable_check and OVM not in found:
            found.append(OVM)
        if self.has_meter:
            found.append(METER)
        return tuple(found)


def sources(config: Config, number: int) -> Sources:
    """Of the connector with that local number."""
    has_meter = config.has_meter(config.connectors[number - 1])
    return Sources(
        upstream=IMD if config.upstream_voltage_source == "IMD" else OVM,
        has_meter=has_meter,
        ovm_while_cable_check=config.HACK_use_ovm_while_cable_check,
        publish_requested=config.HACK_publish_requested_voltage_current and not has_meter,
    )


class Reading(Struct, frozen=True):
    """What a device said last, as it said it."""

    voltage_v: float
    current_a: float
    at_ns: int


class Measurements(Struct, frozen=True):
    """All that is measured at a connector."""

    readings: dict[str, Reading] = {}
    """By device."""
    upstream_v: float | None = None
    """None: never measured. f32, as the registers show it."""
    output_v: float | None = None
    output_a: float | None = None
    upstream_silent: bool = False
    output_silent: bool = False
    silent: tuple[str, ...] = ()
    """Devices that have been silent for too long while power flowed."""
    supplying_since_ns: int | None = None
    """Since when power may flow; None: it does not."""
    told_at_ns: int = 0
    """When EVerest was told a measured value last."""

    def datapoints(self) -> dict[str, TelemetryValue]:
        """What telemetry shows: null for what was never measured or is too old."""
        return {
            "output_voltage": None if self.output_silent else self.output_v,
            "output_current": None if self.output_silent else self.output_a,
            "upstream_voltage": None if self.upstream_silent else self.upstream_v,
        }


def measured(state: Measurements, devices: Sources, device: str, reading: Reading) -> Measurements:
    """A device spoke. OverflowError if a value is beyond an f32: that is no measurement."""
    voltage_v, current_a = as_f32(reading.voltage_v), as_f32(reading.current_a)
    changes: dict[str, Any] = {"readings": {**state.readings, device: reading}}
    if device in state.silent:
        changes["silent"] = tuple(other for other in state.silent if other != device)
    if device == devices.upstream:
        changes |= {"upstream_v": voltage_v, "upstream_silent": False}
    if device == METER:
        changes |= {"output_v": voltage_v, "output_a": current_a, "output_silent": False}
    return replace(state, **changes)


def newly_silent(state: Measurements, devices: Sources, at_ns: int) -> tuple[str, ...]:
    """Devices that are due while power flows, and have just been silent for too long."""
    since_ns = state.supplying_since_ns
    if since_ns is None:
        return ()
    found = []
    for device in devices.supervised:
        reading = state.readings.get(device)
        heard_ns = max(reading.at_ns, since_ns) if reading else since_ns
        if device not in state.silent and at_ns - heard_ns >= FRESH_NS:
            found.append(device)
    return tuple(found)


def with_silent(state: Measurements, devices: Sources, found: tuple[str, ...]) -> Measurements:
    """These devices have fallen silent."""
    silent = (*state.silent, *found)
    return replace(
        state, silent=silent, upstream_silent=devices.upstream in silent, output_silent=METER in silent
    )


def device_for_everest(devices: Sources, *, cable_check: bool) -> str:
    """Whose value EVerest gets as voltage_current; "" if nobody's. `cable_check`: the last request's phase."""
    if cable_check and devices.ovm_while_cable_check:
        return OVM
    return METER if devices.has_meter else ""


def value_for_everest(state: Measurements, device: str, at_ns: int) -> VoltageCurrent | None:
    """The device's last value, as EVerest gets it. None if there is none that is fresh."""
    reading = state.readings.get(device)
    if reading is None or at_ns - reading.at_ns >= FRESH_NS:
        return None
    return VoltageCurrent(reading.voltage_v, 0.0 if device == OVM else reading.current_a)
