"""Messages between actors. They live within one turn and are never recorded: replay makes them again."""

from msgspec import Struct

from .outputs import TelemetryValue
from .types import ChargingEvent


class Internal(Struct, frozen=True, kw_only=True):
    """Base of all messages between actors."""


class RegistersChanged(Internal, frozen=True):
    """To PsuLink: registers that the sender owns have new values."""

    values: dict[str, tuple[int, ...]]
    """Register key to its words."""


class ChargingEventOccurred(Internal, frozen=True):
    """To PsuLink: a charging_event to report once (protocol.md §2.2, 0x117E)."""

    connector: int
    event: ChargingEvent


class PsuMacKnown(Internal, frozen=True):
    """To the connectors: the PSU's MAC for GOOSE became known, or is another one."""

    connection: int
    mac: bytes


class LinkLost(Internal, frozen=True):
    """To the connectors: the link to the PSU failed (behaviour.md §2)."""

    connection: int


class PsuForgotten(Internal, frozen=True):
    """To the connectors: what is left of this connection (MAC, keys) may not be used any more."""

    connection: int


class PsuRunningModeChanged(Internal, frozen=True):
    """To the connectors: the PSU reported its running mode (register 0x2006), another than before."""

    connection: int
    mode: int


class Ratings(Struct, frozen=True):
    """What the PSU can give a connector: finite, exactly as the f32 registers say, 0 where they say nothing."""

    max_voltage_v: float = 0.0
    min_voltage_v: float = 0.0
    max_current_a: float = 0.0
    min_current_a: float = 0.0
    max_power_w: float = 0.0


class RatingsChanged(Internal, frozen=True):
    """To a connector: its ratings (registers 0x2100..0x2107, 0x212D)."""

    ratings: Ratings


class PsuAlarmsChanged(Internal, frozen=True):
    """To the connectors: all PSU alarm registers that are not 0 (0x4000 and up)."""

    alarms: dict[str, int]
    """Register key (`PowerUnit/Water`) to value, in the registers' order."""


class EverestSynchronised(Internal, frozen=True):
    """To DispenserAlarms: EVerest was told everything, for it is new or may have missed something."""


class SecondPassed(Internal, frozen=True):
    """To the connectors: once a second."""


class DatapointsChanged(Internal, frozen=True):
    """To TelemetryPublisher: values of a telemetry topic, in the units of behaviour.md §7."""

    topic: str
    values: dict[str, TelemetryValue]
