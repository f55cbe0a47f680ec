"""Payloads of the EVerest API that the driver takes or publishes (behaviour.md §8.1), and their topics.

The schemas are those of EVerest's AsyncAPI documents: unknown keys are ignored, a missing sub_type is "".
"""

from msgspec import Struct

from .types import BspEvent, ChargingPhase, Mode


class ModeRequest(Struct, frozen=True):
    """e2m/mode of power_supply_DC. The schema requires nothing; without a mode there is nothing to do."""

    mode: Mode
    charging_phase: ChargingPhase = ChargingPhase.OTHER


class VoltageCurrent(Struct, frozen=True):
    """e2m/export_voltage_current and e2m/import_voltage_current of power_supply_DC."""

    voltage_V: float  # noqa: N815 - the key's name in the API
    current_A: float  # noqa: N815


class Error(Struct, frozen=True):
    """raise_error and clear_error, of evse_board_support as well as of power_supply_DC."""

    type: str
    sub_type: str = ""
    message: str = ""


class BspEventMessage(Struct, frozen=True):
    """m2e/event of evse_board_support."""

    event: BspEvent


def topic(prefix: str, api: str, module_id: str, direction: str, name: str) -> str:
    """The MQTT topic of an API message; `direction` is e2m or m2e, as EVerest sees it."""
    return f"{prefix}everest_api/1/{api}/{module_id}/{direction}/{name}"
