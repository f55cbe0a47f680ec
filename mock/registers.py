"""Modbus requests about registers of the table (messages/registers.py), and segments read back by name."""

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from msgspec import Struct

from ..io.modbus_adu import READ, WRITE, WRITE_SINGLE
from ..messages.registers import Register, RegisterMap, Value, decode, encode

REGISTERS = RegisterMap(4)
"""With the most connectors that a dispenser can have: addresses do not depend on their number."""

ALARMS: dict[str, Register] = {
    register.key: register for register in REGISTERS.registers if register.alarm is not None
}
"""The PSU's alarm registers, by name: `PowerUnit/Water`."""

RAW = "raw"
"""Name of a request that is about an address, not a register."""


class Request(Struct, frozen=True):
    """A request that waits to be sent."""

    function: int
    address: int
    count: int
    words: tuple[int, ...] = ()
    """Empty for a read."""
    connector: int = 0
    """Local number that it is about, 0 for none."""
    name: str = ""
    """Name of the register."""


def read(name: str, connector: int = 0) -> Request:
    """Read a register; `connector` is a local number, 0 for a register of the whole dispenser."""
    register = _register(name, connector)
    return Request(READ, register.address, register.words, (), connector, name)


def write(name: str, value: Value, connector: int = 0) -> Request:
    """Write a register."""
    register = _register(name, connector)
    # As the captures have it: 0x06 for u16, and 0x10, one value at a time, for the rest.
    function = WRITE_SINGLE if register.kind == "u16" else WRITE
    return Request(function, register.address, register.words, encode(register, value), connector, name)


def write_words(address: int, words: tuple[int, ...]) -> Request:
    """Write words wherever it is."""
    return Request(WRITE, address, len(words), words, 0, RAW)


@lru_cache(maxsize=4096)
def by_name(address: int, words: tuple[int, ...]) -> Mapping[str, str | int | float]:
    """The registers that stand in a segment, by key; bytes as hex. A report says the same again and again."""
    values: dict[str, str | int | float] = {}
    for register, _, position, count in REGISTERS.covered(address, len(words)):
        if count == register.words:
            value = decode(register, words[position : position + count])
            values[register.key] = value.hex() if isinstance(value, bytes) else value
    return MappingProxyType(values)


def _register(name: str, connector: int) -> Register:
    return REGISTERS.by_key[f"{connector}/{name}" if connector else name]
