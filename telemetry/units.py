"""Numbers as telemetry prints them: SI units, shortest decimals, null for what is no number."""

import math
from decimal import Decimal
from functools import lru_cache

from ..messages.goose import bits_of_float, float_of_bits

KILO = Decimal(1000)
SMALLEST_NORMAL_F32 = 2.0**-126


def shortest_f32(value: float) -> float | None:
    """The f32 as the float with the shortest decimal that reads back to the same f32: 20.1, not
    20.100000381. None if it is NaN or infinite."""
    if not math.isfinite(value):
        return None
    # Zero is not looked up: its two signs are equal, and are not the same text.
    return _shortest_f32(value) if value else value


@lru_cache(maxsize=4096)
def _shortest_f32(value: float) -> float:
    bits = bits_of_float(value)
    # Six digits say less than an f32 holds. So what reads back with them is the shortest decimal already, and
    # where it does not, fewer digits do not either; the subnormal ones hold less, and are tried from one on.
    for digits in range(6 if abs(value) >= SMALLEST_NORMAL_F32 else 1, 10):
        candidate = float(f"{value:.{digits}g}")
        try:
            if bits_of_float(candidate) == bits:
                return candidate
        except OverflowError:
            continue  # rounded up beyond the largest f32
    return float_of_bits(bits)


def finite(value: float) -> float | None:
    """The value, None if it is NaN or infinite."""
    return value if math.isfinite(value) else None


def kilo(value: float | None) -> float | None:
    """kW to W, kWh to Wh, without what a binary multiplication adds: 60.1 becomes 60100.0."""
    if value is None:
        return None
    return finite(float(Decimal(repr(value)) * KILO))
