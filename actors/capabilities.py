"""What the power unit can give a connector, and what that makes of a setpoint (behaviour.md §1, §4). Pure."""

import struct
from functools import lru_cache

from msgspec import Struct
from msgspec.structs import replace

from ..messages.config import ConnectorConfig
from ..messages.everest import Capabilities
from ..messages.internal import Ratings
from ..telemetry.units import shortest_f32


class Setpoint(Struct, frozen=True):
    """Voltage and current that EVerest commanded, or that are applied; not negative, exact as f32."""

    voltage_v: float
    current_a: float


NO_POWER = Setpoint(0.0, 0.0)

_F32 = struct.Struct("<f")


@lru_cache(maxsize=4096)
def as_f32(value: float) -> float:
    """The nearest f32, zero without its sign. OverflowError if it is too large for one."""
    return float(_F32.unpack(_F32.pack(value + 0.0))[0])  # + 0.0: no negative zero on the wire


def nothing_received(connector: ConnectorConfig) -> Capabilities:
    """The capabilities while the PSU's ratings are not known: nothing can be given."""
    return Capabilities(
        nominal_max_export_current_A=connector.max_export_current_A,
        nominal_max_export_power_W=connector.max_export_power_W,
    )


def capabilities(ratings: Ratings, connector: ConnectorConfig) -> Capabilities:
    """What EVerest is told: the PSU's ratings, current and power capped by the connector's settings."""
    return replace(
        nothing_received(connector),
        max_export_voltage_V=_shown(ratings.max_voltage_v),
        min_export_voltage_V=_shown(ratings.min_voltage_v),
        max_export_current_A=min(_shown(ratings.max_current_a), connector.max_export_current_A),
        min_export_current_A=min(_shown(ratings.min_current_a), connector.max_export_current_A),
        max_export_power_W=min(ratings.max_power_w, connector.max_export_power_W),
    )


def are_received(now: Capabilities) -> bool:
    """Whether power can be given at all (behaviour.md §3, capabilities_not_received)."""
    return now.max_export_voltage_V > 0 and now.max_export_current_A > 0 and now.max_export_power_W > 0


def is_below_minimum(setpoint: Setpoint, now: Capabilities) -> bool:
    """Whether power is wanted at a voltage that the PSU cannot give because it is too low."""
    wants_power = setpoint.voltage_v > 0 and setpoint.current_a > 0
    return wants_power and setpoint.voltage_v < as_f32(now.min_export_voltage_V)


def clamped(setpoint: Setpoint, now: Capabilities) -> Setpoint:
    """The setpoint as it may go to the PSU. Never above a maximum, whatever a minimum says."""
    max_v, max_a = as_f32(now.max_export_voltage_V), as_f32(now.max_export_current_A)
    if max_v <= 0 or max_a <= 0 or setpoint.voltage_v <= 0 or setpoint.current_a <= 0:
        return NO_POWER
    at_least_a = as_f32(now.min_export_current_A)
    if not (setpoint.voltage_v <= max_v and at_least_a <= setpoint.current_a <= max_a):
        setpoint = Setpoint(min(setpoint.voltage_v, max_v), min(max(setpoint.current_a, at_least_a), max_a))
    return NO_POWER if is_below_minimum(setpoint, now) else setpoint


def _shown(value: float) -> float:
    """An f32 as the decimal that stands for it: 20.1, not 20.100000381. What is negative counts as 0."""
    return max(0.0, shortest_f32(value) or 0.0)
