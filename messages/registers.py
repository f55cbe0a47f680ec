"""The register table of protocol.md §2.2: one table, from which everything about a register comes.

    address  ──► Register (name, kind, owner, report flag, alarm name) ──► words ◄──► value

A connector's registers stand at base + offset by *local* connector number. A register is named by its key,
`psu_running_mode` or `1/working_status` (connector 1), and its value in the register image is a tuple of words.
All multi-word values are ABCD: plain big-endian over consecutive registers.
"""

import struct
from enum import Enum
from functools import lru_cache

from msgspec import Struct

CONNECTOR_OFFSETS = (0x0000, 0x0C00, 0x0D00, 0x0E00)
"""Address offset of the registers of connector 1, 2, 3, 4."""

Value = int | float | str | bytes


class Owner(Enum):
    """Who writes a register. The other side only reads it."""

    DISPENSER = "D"
    PSU = "P"


class Report(Enum):
    """Whether a register stands in the unsolicited report (protocol.md §2.1)."""

    ALWAYS = "R"
    AFTER_EVENT = "E"


class Alarm(Struct, frozen=True):
    """What a PSU alarm register means (protocol.md §2.2, 0x4000 and up)."""

    category: str
    name: str
    is_flags: bool
    """True: bit flags. False: 0 normal, 1 alarm."""


class Register(Struct, frozen=True):
    """One row of the table, at its place in the address space."""

    key: str
    name: str
    """The row's name, without the connector."""
    connector: int
    """Local number; 0 for a register of the whole dispenser."""
    address: int
    kind: str
    """u16, u32, f32, f64, str or mem."""
    words: int
    owner: Owner
    report: Report | None = None
    alarm: Alarm | None = None


_WORDS = {"u16": 1, "u32": 2, "f32": 2, "f64": 4}

# address, kind, owner and report flag, name; str and mem say their bytes: "str 48".
_DISPENSER_ROWS = """
0x0000 u16     D   manufacturer
0x0001 u16     D   model
0x0002 u16     D   protocol_version
0x0004 u16     D   hardware_version
0x0013 str_48  D   software_version
0x0100 u16     P   psu_manufacturer
0x0101 u16     P   psu_protocol_version
0x0102 u16     P   psu_hardware_version
0x0103 str_48  P   psu_software_version
0x011B str_32  P   psu_esn_control_board
0x1015 u16     D   charging_connectors_count
0x1016 str_22  D   esn_dispenser
0x1024 u32     D R time_sync
0x2006 u16     P   psu_running_mode
0x2007 f32     P   ac_input_voltage_a
0x2009 f32     P   ac_input_voltage_b
0x200B f32     P   ac_input_voltage_c
0x200D f32     P   ac_input_current_a
0x200F f32     P   ac_input_current_b
0x2011 f32     P   ac_input_current_c
0x2013 f64     P   total_historic_input_energy
0x2111 mem_6   P   psu_mac
0x3001 u16     D R door_status_alarm
0x3002 u16     D R water_alarm
0x3003 u16     D R epo_alarm
0x3004 u16     D R tilt_alarm
"""

_CONNECTOR_ROWS = """
0x1100 f64     D   total_energy_charged
0x1104 u16     D   connector_type
0x1105 f32     D   maximum_rated_charge_current
0x1107 f32     D   output_voltage
0x1109 f32     D   output_current
0x110B u16     D R working_status
0x110D u16     D R connection_status
0x110E u16     D   connector_no
0x1113 f32     D   contactor_upstream_voltage
0x114D mem_6   D   mac_address
0x1154 u16     D R contactor_status
0x1156 u16     D R electronic_lock_status
0x117E u16     D E charging_event
0x2100 f32     P   max_rated_psu_voltage
0x2102 f32     P   max_rated_psu_current
0x2105 f32     P   min_rated_psu_voltage
0x2107 f32     P   min_rated_psu_current
0x2109 f32     D   rated_output_power_connector
0x2115 mem_48  P   hmac_key
0x212D f32     P   rated_output_power_psu
0x212F u16     P   psu_port_available
0x3105 u16     D R dc_output_contactor_fault
0x3115 u16     D R inverse_connection_dispenser_inlet_cable
"""

# The spelling of the names is the one that EVerest users know from their logs.
_POWER_UNIT_ALARMS = ("HighVoltageDoorStatusSensor", "DoorStatusSensor", "Water", "Smoke", "Epo")
_CHARGING_POWER_UNIT_ALARMS = (
    "UnknownSystemType",
    "PowerDetectionException",
    "SyncrhonizationCableStatusFaultOfEnergyRoutingBoard",
    "SoftStartFault",
    "SoftStartModuleCommunicationFailure",
    "SoftStartModuleOverloaded",
    "SoftStartModuleFault",
    "SoftStartModuleOvertemperature",
    "SoftStartModuleUndertemperature",
    "SoftStartModuleDisconnectionFailure",
    "PhaseSequenceAbornmalAlarm",
    "PowerDistributionModuleCommunicationFailure",
    "FaultOfInsulationResistanceToGround",
)
# First address, step, kind, category, names.
_ALARM_RANGES: tuple[tuple[int, int, str, str, tuple[str, ...]], ...] = (
    (0x4000, 1, "u16", "PowerUnit", _POWER_UNIT_ALARMS),
    (0x4005, 1, "u16", "ChargingPowerUnit", _CHARGING_POWER_UNIT_ALARMS),
    (0x4012, 1, "u16_flags", "ChargingPowerUnit", ("ModbusTcpCertificate",)),
    (0x4020, 2, "u32_flags", "AcBranch", ("AcBranch1", "AcBranch2")),
    (0x4040, 2, "u32_flags", "AcDcRectifier", tuple(f"rectifier_{n}" for n in range(1, 7))),
    (0x4070, 2, "u32_flags", "DcDcChargingModule", tuple(f"DcDcModule{n}" for n in range(1, 13))),
    (0x40D0, 2, "u32_flags", "CoolingSection", ("CoolingUnit1",)),
    (
        0x40E0,
        2,
        "u32_flags",
        "PowerDistributionModule",
        tuple(f"PowerDistributionModule{n}" for n in range(1, 6)),
    ),
)


def _rows(table: str, connector: int) -> list[Register]:
    registers = []
    for line in table.strip().splitlines():
        address, kind, owner, *rest = line.split()
        kind, _, size = kind.partition("_")
        name = rest[-1]
        registers.append(
            Register(
                key=f"{connector}/{name}" if connector else name,
                name=name,
                connector=connector,
                address=int(address, 16) + (CONNECTOR_OFFSETS[connector - 1] if connector else 0),
                kind=kind,
                words=int(size) // 2 if size else _WORDS[kind],
                owner=Owner(owner),
                report=Report(rest[0]) if len(rest) == 2 else None,
            )
        )
    return registers


def _alarm_rows() -> list[Register]:
    registers = []
    for first, step, kind_and_flags, category, names in _ALARM_RANGES:
        kind, _, flags = kind_and_flags.partition("_")
        for index, name in enumerate(names):
            key = f"{category}/{name}"
            registers.append(
                Register(
                    key=key,
                    name=key,
                    connector=0,
                    address=first + step * index,
                    kind=kind,
                    words=_WORDS[kind],
                    owner=Owner.PSU,
                    alarm=Alarm(category, name, bool(flags)),
                )
            )
    return registers


class RegisterMap:
    """All registers of a dispenser with `connector_count` (1..4) connectors; immutable after construction."""

    def __init__(self, connector_count: int) -> None:
        if not 1 <= connector_count <= len(CONNECTOR_OFFSETS):
            msg = f"connector_count is {connector_count}; allowed: 1 to {len(CONNECTOR_OFFSETS)}"
            raise ValueError(msg)
        dispenser = _rows(_DISPENSER_ROWS, 0) + _alarm_rows()
        dispenser.sort(key=lambda register: register.address)
        registers = dispenser
        for connector in range(1, connector_count + 1):
            registers = registers + _rows(_CONNECTOR_ROWS, connector)
        self.registers: tuple[Register, ...] = tuple(registers)
        """Dispenser registers by address, then connector 1, 2, … each by address: the report's order."""
        self.by_key = {register.key: register for register in registers}
        self.covered = lru_cache(maxsize=512)(self._covered)
        """See there. A PSU always asks for the same ranges."""
        self._by_address = {
            register.address + word: (register, word)
            for register in registers
            for word in range(register.words)
        }

    def at(self, address: int) -> tuple[Register, int] | None:
        """The register that covers the address, and which of its words; None if there is none."""
        return self._by_address.get(address)

    def _covered(self, address: int, count: int) -> tuple[tuple[Register, int, int, int], ...]:
        """Which registers a range of `count` words touches: (register, its first touched word, where in the
        range that word stands, number of words)."""
        parts: list[tuple[Register, int, int, int]] = []
        for position in range(count):
            found = self._by_address.get(address + position)
            if found is None:
                continue
            register, word = found
            if parts and parts[-1][0] is register:
                part = parts[-1]
                parts[-1] = (register, part[1], part[2], part[3] + 1)
            else:
                parts.append((register, word, position, 1))
        return tuple(parts)


def encode(register: Register, value: Value) -> tuple[int, ...]:
    """A value as the register's words.

    str is NUL padded, mem must have its exact size. ValueError if the value does not fit the register.
    """
    try:
        raw = _encode_bytes(register, value)
    except (struct.error, OverflowError, UnicodeEncodeError) as error:
        msg = f"register {register.key} ({register.kind}) cannot hold {value!r}: {error}"
        raise ValueError(msg) from None
    return struct.unpack(f">{register.words}H", raw)


def _encode_bytes(register: Register, value: Value) -> bytes:
    size = 2 * register.words
    match register.kind, value:
        case "u16", int():
            return struct.pack(">H", value)
        case "u32", int():
            return struct.pack(">I", value)
        case "f32", int() | float():
            return struct.pack(">f", value)
        case "f64", int() | float():
            return struct.pack(">d", value)
        case "str", str():
            raw = value.encode("ascii")
        case "mem", bytes():
            raw = value
        case _:
            msg = f"register {register.key} ({register.kind}) cannot hold a {type(value).__name__}"
            raise ValueError(msg)
    if len(raw) > size or (register.kind == "mem" and len(raw) != size):
        msg = f"register {register.key} has {size} bytes, the value has {len(raw)}"
        raise ValueError(msg)
    return raw.ljust(size, b"\0")


def decode(register: Register, words: tuple[int, ...]) -> Value:
    """The value of a register's words. Floats may be NaN or infinite; bytes of a str that are not ASCII read
    as backslash escapes."""
    raw = struct.pack(f">{len(words)}H", *words)
    match register.kind:
        case "u16":
            return words[0]
        case "u32":
            return int.from_bytes(raw, "big")
        case "f32":
            return float(struct.unpack(">f", raw)[0])
        case "f64":
            return float(struct.unpack(">d", raw)[0])
        case "str":
            return raw.split(b"\0", 1)[0].decode("ascii", "backslashreplace")
        case _:
            return raw


def zeros(register: Register) -> tuple[int, ...]:
    """The words of a register that was never written."""
    return (0,) * register.words
