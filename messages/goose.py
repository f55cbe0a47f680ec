"""The three GOOSE messages, as values (protocol.md §3.2). The wire format is in io/goose_codec.py.

f32 fields that were received are kept as raw bits, because they may be NaN; `float_of_bits` reads them.
"""

import struct
from typing import ClassVar

from msgspec import Struct

from .types import PowerRequestMode, RequirementType, StopReason

UNUSED = 0xFFFF
"""Value of every data entry that carries nothing, charging_sn among them."""


class PowerRequest(Struct, frozen=True):
    """Dispenser to PSU: 8 entries."""

    app_id: ClassVar[int] = 0x0001
    reference: ClassVar[str] = "CC/0$GO$PowerRequest"

    connector_no: int
    """Global number, 1..12."""
    requirement_type: RequirementType
    mode: PowerRequestMode
    voltage_v: float
    current_a: float
    charging_sn: int = UNUSED


class StopRequest(Struct, frozen=True):
    """Dispenser to PSU: 5 entries. On the wire it is called ShutdownRequest."""

    app_id: ClassVar[int] = 0x3002
    reference: ClassVar[str] = "CC/0$GO$ShutdownRequest"

    connector_no: int
    reason: StopReason
    charging_sn: int = UNUSED


class PowerRequestReply(Struct, frozen=True):
    """PSU to dispenser: 9 entries. Enumerations stay numbers: a PSU may send others than we know."""

    app_id: ClassVar[int] = 0x3001
    reference: ClassVar[str] = "CC/0$GO$PowerRequestReply"

    connector_no: int
    requirement_type: int
    result: int
    """0 success, 1 failure."""
    mode: int
    voltage_bits: int
    current_bits: int
    charging_sn: int = UNUSED


GooseMessage = PowerRequest | StopRequest | PowerRequestReply


class GooseHeader(Struct, frozen=True):
    """The APDU's header fields that vary (goCbRef, datSet and goID follow from the message)."""

    st_num: int
    sq_num: int
    t_seconds: int
    """UTC, seconds since 1970, u32."""
    t_fraction: int
    """u24, unit 2^-24 s."""
    t_quality: int = 10
    time_allowed_to_live_ms: int = 10_000
    simulation: bool = False
    conf_rev: int = 1
    nds_com: bool = False


_F32 = struct.Struct(">f")
_U32 = struct.Struct(">I")


def float_of_bits(bits: int) -> float:
    """The f32 that has these 32 bits; may be NaN or infinite."""
    return float(_F32.unpack(_U32.pack(bits))[0])


def bits_of_float(value: float) -> int:
    """The 32 bits of a value as f32. OverflowError if it is too large for one."""
    return int(_U32.unpack(_F32.pack(value))[0])


def t_of_utc_ns(utc_ns: int) -> tuple[int, int]:
    """UTC in ns as the GOOSE `t`: (seconds u32, fraction u24 in units of 2^-24 s)."""
    seconds, rest_ns = divmod(utc_ns, 1_000_000_000)
    return seconds & 0xFFFFFFFF, (rest_ns << 24) // 1_000_000_000
