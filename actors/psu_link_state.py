"""What the link to the PSU knows, and what it starts with (behaviour.md §1, protocol.md §2)."""

from collections.abc import Iterable

from msgspec.structs import replace

from ..messages.config import Config
from ..messages.internal import Ratings
from ..messages.outputs import Segment
from ..messages.registers import Owner, Register, RegisterMap, Report, decode, encode, zeros
from ..messages.types import ConnectorType, LinkPhase
from ..telemetry.units import finite, kilo, shortest_f32
from .connector_state import ConnectorState
from .connector_state import registers as connector_registers
from .runtime import MILLISECOND_NS, SECOND_NS, ActorState

SECOND_TIMER = "second"
REPORT_TIMER = "report"
RECONNECT_TIMER = "reconnect"
LIVENESS_TIMER = "liveness"
FORGET_TIMER = "forget_psu"
FORGET_AFTER_NS = 10 * SECOND_NS
BACKOFF_MIN_NS = 10 * MILLISECOND_NS
MANUFACTURER = 0x0002
MODEL = 0x0080


class PsuLinkState(ActorState, frozen=True, kw_only=True):
    """Everything the link knows."""

    phase: LinkPhase = LinkPhase.UNINITIALIZED
    connection: int = 0
    """Number of the present or last connection."""
    connected: bool = False
    backoff_ns: int = BACKOFF_MIN_NS
    ready_at_ns: int = 0
    heard_at_ns: int = 0
    """When the last complete ADU came, or the connection was asked for."""
    losses: tuple[tuple[int, int], ...] = ()
    """Connections that were lost, and until when (ns) their MAC and keys may be used for sending."""
    registers: dict[str, tuple[int, ...]] = {}
    """Register key to its words. hmac_key is never here."""
    pending_events: dict[str, tuple[int, ...]] = {}
    """charging_event registers that the next report has to show."""
    report_due: bool = False
    next_transaction_id: int = 0
    utc_offset_ns: int = 0
    said_failures: tuple[str, ...] = ()
    """Why the link failed since it was ready last, as far as the process log says so."""
    quiet_until_ns: dict[str, int] = {}
    """Kinds of warning that were written lately, and until when they are not written again."""


def initial_state(config: Config) -> PsuLinkState:
    """The image with every dispenser register's start value (behaviour.md §1)."""
    register_map = RegisterMap(len(config.connectors))
    values: dict[str, int | float | str | bytes] = {
        "manufacturer": MANUFACTURER,
        "model": MODEL,
        "protocol_version": config.protocol_version,
        "hardware_version": config.hardware_version,
        "software_version": config.software_version,
        "charging_connectors_count": len(config.connectors),
        "esn_dispenser": config.esn,
    }
    for number, connector in enumerate(config.connectors, 1):
        values[f"{number}/connector_type"] = int(ConnectorType.CCS2)
        values[f"{number}/maximum_rated_charge_current"] = connector.max_export_current_A
        values[f"{number}/rated_output_power_connector"] = connector.max_export_power_W / 1000
        values[f"{number}/connector_no"] = connector.global_connector_number
        values[f"{number}/electronic_lock_status"] = 1
    image = {}
    for register in register_map.registers:
        if register.owner is Owner.DISPENSER:
            value = values.get(register.key)
            image[register.key] = zeros(register) if value is None else encode(register, value)
    for number in range(1, len(config.connectors) + 1):
        image |= {f"{number}/{name}": words for name, words in connector_registers(ConnectorState()).items()}
    return PsuLinkState(registers=image)


def image(state: PsuLinkState, register: Register, at_ns: int) -> tuple[int, ...]:
    """The words that a register has now; zeros if it was never written."""
    if register.key == "time_sync":
        utc_s = (at_ns + state.utc_offset_ns) // SECOND_NS
        return encode(register, utc_s & 0xFFFFFFFF)
    return state.registers.get(register.key) or zeros(register)


RATING_REGISTERS = (
    "max_rated_psu_voltage",
    "min_rated_psu_voltage",
    "max_rated_psu_current",
    "min_rated_psu_current",
    "rated_output_power_psu",
)


def ratings(state: PsuLinkState, registers: RegisterMap, number: int) -> Ratings:
    """A connector's ratings; what was not received, or is no finite number, counts as 0 (behaviour.md §4)."""

    def value(name: str) -> float:
        register = registers.by_key[f"{number}/{name}"]
        found = decode(register, state.registers.get(register.key) or zeros(register))
        return (finite(found) or 0.0) if isinstance(found, float) else 0.0

    voltage_max, voltage_min, current_max, current_min, power_kw = map(value, RATING_REGISTERS)
    power_w = kilo(shortest_f32(power_kw)) or 0.0
    return Ratings(voltage_max, voltage_min, current_max, current_min, max(0.0, power_w))


def alarms(state: PsuLinkState, registers: RegisterMap) -> dict[str, int]:
    """The PSU's alarm registers that are not 0, by address."""
    found = {}
    for register in registers.registers:
        words = state.registers.get(register.key)
        if register.alarm is not None and words is not None and any(words):
            value = decode(register, words)
            found[register.key] = value if isinstance(value, int) else 0
    return found


def reported_registers(registers: RegisterMap) -> list[tuple[Register, bool]]:
    """What an unsolicited report may hold, in its order, and whether it always does."""
    return [
        (register, register.report is Report.ALWAYS)
        for register in registers.registers
        if register.report is not None
    ]


def reported(
    state: PsuLinkState, registers: Iterable[tuple[Register, bool]], at_ns: int
) -> tuple[Segment, ...]:
    """The contents of an unsolicited report (protocol.md §2.1)."""
    shown = []
    for register, is_always in registers:
        if is_always:
            shown.append((register.address, image(state, register, at_ns)))
        elif register.key in state.pending_events:
            shown.append((register.address, state.pending_events[register.key]))
    return merged(shown)


def without_psu(state: PsuLinkState, registers: RegisterMap) -> PsuLinkState:
    """The state once the link failed: what the PSU wrote, and what it was to be told, is forgotten."""
    own = {
        key: words for key, words in state.registers.items() if registers.by_key[key].owner is Owner.DISPENSER
    }
    return replace(
        state, phase=LinkPhase.FAILED, connected=False, registers=own, pending_events={}, report_due=False
    )


def merged(shown: Iterable[tuple[int, tuple[int, ...]]]) -> tuple[Segment, ...]:
    """Registers (address, words) as a report's segments: adjacent ones become one (protocol.md §2.1)."""
    segments: list[tuple[int, list[int]]] = []
    end = -1
    for address, words in shown:
        if address == end:
            segments[-1][1].extend(words)
        else:
            segments.append((address, list(words)))
        end = address + len(words)
    return tuple(Segment(address, tuple(words)) for address, words in segments)
