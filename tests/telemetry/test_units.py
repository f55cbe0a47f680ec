"""Numbers as telemetry prints them."""

import math
import struct

import pytest
from fusioncharger.telemetry.units import finite, kilo, shortest_f32
from hypothesis import given
from hypothesis import strategies as st


def f32(value: float) -> float:
    return float(struct.unpack(">f", struct.pack(">f", value))[0])


@pytest.mark.parametrize("value", [20.1, 0.1, 230.0, 16777216.0, 3.4028235e38, 1e-45, -7.25, 0.0])
def test_the_shortest_decimal_is_found(value: float) -> None:
    printed = shortest_f32(f32(value))
    assert printed is not None
    assert len(repr(printed)) <= len(repr(value))
    assert f32(printed) == f32(value)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_it_reads_back_to_the_same_f32(value: float) -> None:
    printed = shortest_f32(value)
    assert printed is not None
    assert f32(printed) == value


@given(st.floats(width=32, min_value=-(2.0**120), max_value=2.0**120))
def test_no_decimal_of_fewer_digits_reads_back(value: float) -> None:
    decimals = (float(f"{value:.{digits}g}") for digits in range(1, 10))
    assert shortest_f32(value) == next(decimal for decimal in decimals if f32(decimal) == value)


def test_no_numbers_are_null() -> None:
    for value in (math.nan, math.inf, -math.inf):
        assert shortest_f32(value) is None
        assert finite(value) is None
    assert kilo(None) is None
    assert kilo(1e308) is None
    assert finite(1.5) == 1.5


@pytest.mark.parametrize(("value", "printed"), [(60.1, 60100.0), (12.3456, 12345.6), (0.001, 1.0), (0.0, 0.0)])
def test_kilo_adds_no_digits(value: float, printed: float) -> None:
    assert kilo(value) == printed
