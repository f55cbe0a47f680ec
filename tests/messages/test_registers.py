"""The register table (protocol.md §2.2)."""

import math
import struct

import pytest
from fusioncharger.messages.registers import (
    CONNECTOR_OFFSETS,
    Owner,
    Register,
    RegisterMap,
    Report,
    decode,
    encode,
    zeros,
)
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_no_two_registers_overlap(count: int) -> None:
    taken: dict[int, str] = {}
    for register in RegisterMap(count).registers:
        for address in range(register.address, register.address + register.words):
            assert address not in taken, (register.key, taken.get(address))
            assert address <= 0xFFFF
            taken[address] = register.key


@pytest.mark.parametrize("count", [0, 5])
def test_only_one_to_four_connectors(count: int) -> None:
    with pytest.raises(ValueError, match="1 to 4"):
        RegisterMap(count)


# A few rows of each kind, copied from the specification by hand.
ROWS = [
    ("software_version", 0x0013, 24, Owner.DISPENSER, None),
    ("psu_esn_control_board", 0x011B, 16, Owner.PSU, None),
    ("esn_dispenser", 0x1016, 11, Owner.DISPENSER, None),
    ("time_sync", 0x1024, 2, Owner.DISPENSER, Report.ALWAYS),
    ("total_historic_input_energy", 0x2013, 4, Owner.PSU, None),
    ("psu_mac", 0x2111, 3, Owner.PSU, None),
    ("epo_alarm", 0x3003, 1, Owner.DISPENSER, Report.ALWAYS),
    ("PowerUnit/Epo", 0x4004, 1, Owner.PSU, None),
    ("ChargingPowerUnit/FaultOfInsulationResistanceToGround", 0x4011, 1, Owner.PSU, None),
    ("ChargingPowerUnit/ModbusTcpCertificate", 0x4012, 1, Owner.PSU, None),
    ("AcBranch/AcBranch2", 0x4022, 2, Owner.PSU, None),
    ("AcDcRectifier/rectifier_6", 0x404A, 2, Owner.PSU, None),
    ("DcDcChargingModule/DcDcModule12", 0x4086, 2, Owner.PSU, None),
    ("CoolingSection/CoolingUnit1", 0x40D0, 2, Owner.PSU, None),
    ("PowerDistributionModule/PowerDistributionModule5", 0x40E8, 2, Owner.PSU, None),
    ("1/charging_event", 0x117E, 1, Owner.DISPENSER, Report.AFTER_EVENT),
    ("2/hmac_key", 0x2D15, 24, Owner.PSU, None),
    ("3/working_status", 0x1E0B, 1, Owner.DISPENSER, Report.ALWAYS),
    ("4/dc_output_contactor_fault", 0x3F05, 1, Owner.DISPENSER, Report.ALWAYS),
]


@pytest.mark.parametrize(("key", "address", "words", "owner", "report"), ROWS, ids=[r[0] for r in ROWS])
def test_rows(key: str, address: int, words: int, owner: Owner, report: Report | None) -> None:
    register = RegisterMap(4).by_key[key]
    assert (register.address, register.words, register.owner, register.report) == (
        address,
        words,
        owner,
        report,
    )


def test_alarms_know_whether_they_are_flags() -> None:
    by_key = RegisterMap(1).by_key
    smoke, certificate = by_key["PowerUnit/Smoke"].alarm, by_key["ChargingPowerUnit/ModbusTcpCertificate"].alarm
    assert smoke is not None
    assert not smoke.is_flags
    assert certificate is not None
    assert certificate.is_flags
    assert sum(register.alarm is not None for register in RegisterMap(1).registers) == 45


def test_covered_parts_of_a_range() -> None:
    parts = RegisterMap(1).covered(0x2101, 7)
    assert [(p[0].name, *p[1:]) for p in parts] == [
        ("max_rated_psu_voltage", 1, 0, 1),
        ("max_rated_psu_current", 0, 1, 2),
        ("min_rated_psu_voltage", 0, 4, 2),
        ("min_rated_psu_current", 0, 6, 1),
    ]
    assert RegisterMap(1).at(0x2104) is None
    found = RegisterMap(1).at(0x2103)
    assert found is not None
    assert found[1] == 1


REGISTERS = RegisterMap(4).by_key


@given(st.integers(0, 0xFFFFFFFF))
def test_u32_round_trip(value: int) -> None:
    register = REGISTERS["time_sync"]
    assert decode(register, encode(register, value)) == value


@given(st.floats(width=32))
def test_f32_round_trip(value: float) -> None:
    register = REGISTERS["ac_input_voltage_a"]
    read = decode(register, encode(register, value))
    assert isinstance(read, float)
    assert read == value or (math.isnan(read) and math.isnan(value))


@given(st.floats())
def test_f64_round_trip(value: float) -> None:
    register = REGISTERS["total_historic_input_energy"]
    assert struct.pack(">4H", *encode(register, value)) == struct.pack(">d", value)


@given(st.text(st.characters(min_codepoint=1, max_codepoint=127), max_size=22))
def test_str_round_trip(value: str) -> None:
    register = REGISTERS["esn_dispenser"]
    assert decode(register, encode(register, value)) == value


@given(st.lists(st.integers(0, 0xFFFF), min_size=11, max_size=11))
def test_any_words_can_be_read_as_a_string(words: list[int]) -> None:
    assert isinstance(decode(REGISTERS["esn_dispenser"], tuple(words)), str)


def test_mem_and_u16() -> None:
    mac = bytes.fromhex("f6baef9032b5")
    assert encode(REGISTERS["psu_mac"], mac) == (0xF6BA, 0xEF90, 0x32B5)
    assert decode(REGISTERS["psu_mac"], (0xF6BA, 0xEF90, 0x32B5)) == mac
    assert decode(REGISTERS["epo_alarm"], encode(REGISTERS["epo_alarm"], 1)) == 1
    assert zeros(REGISTERS["psu_mac"]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epo_alarm", 0x10000),
        ("epo_alarm", -1),
        ("epo_alarm", "1"),
        ("time_sync", 2**32),
        ("ac_input_voltage_a", 1e39),
        ("esn_dispenser", "x" * 23),
        ("esn_dispenser", "ü"),
        ("psu_mac", b"12345"),
        ("total_historic_input_energy", b""),
    ],
)
def test_values_that_do_not_fit_are_refused_by_name(key: str, value: float | str | bytes) -> None:
    with pytest.raises(ValueError, match=key):
        encode(REGISTERS[key], value)


def test_offsets() -> None:
    assert CONNECTOR_OFFSETS == (0, 0x0C00, 0x0D00, 0x0E00)
    assert isinstance(REGISTERS["1/hmac_key"], Register)
