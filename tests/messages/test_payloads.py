"""GOOSE values and EVerest topics."""

import struct

import pytest
from fusioncharger.messages.everest import topic
from fusioncharger.messages.goose import bits_of_float, float_of_bits, t_of_utc_ns
from hypothesis import given
from hypothesis import strategies as st


@given(st.integers(0, 0xFFFFFFFF))
def test_bits_of_any_f32_that_is_a_number(bits: int) -> None:
    value = float_of_bits(bits)
    if value == value:
        assert bits_of_float(value) == bits


def test_too_large_for_f32() -> None:
    with pytest.raises(OverflowError):
        bits_of_float(1e39)


@given(st.integers(0, 2**63 - 1))
def test_t_is_the_time_cut_to_its_unit(utc_ns: int) -> None:
    seconds, fraction = t_of_utc_ns(utc_ns)
    assert 0 <= seconds < 2**32
    assert 0 <= fraction < 2**24
    whole_s, rest_ns = divmod(utc_ns, 10**9)
    assert seconds == whole_s % 2**32
    assert 0 <= rest_ns - fraction * 10**9 / 2**24 < 10**9 / 2**24 + 1


def test_t_of_a_captured_frame() -> None:
    # 4898947 / 2^24 s
    assert t_of_utc_ns(1_795_405_582_292_000_000) == (1_795_405_582, 4_898_947)
    assert struct.pack(">I", 1_795_405_582).hex() == "6b03b70e"


def test_topics() -> None:
    assert topic("", "powermeter", "meter_1", "m2e", "powermeter_values") == (
        "everest_api/1/powermeter/meter_1/m2e/powermeter_values"
    )
    assert topic("site/", "x", "y", "e2m", "mode") == "site/everest_api/1/x/y/e2m/mode"
