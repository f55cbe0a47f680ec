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


class Capabilities(Struct, frozen=True, kw_only=True):
    """m2e/capabilities of power_supply_DC (behaviour.md §4). Names and units are the API's."""

    bidirectional: bool = False
    max_export_voltage_V: float = 0.0  # noqa: N815
    min_export_voltage_V: float = 0.0  # noqa: N815
    max_export_current_A: float = 0.0  # noqa: N815
    min_export_current_A: float = 0.0  # noqa: N815
    max_export_power_W: float = 0.0  # noqa: N815
    nominal_max_export_current_A: float = 0.0  # noqa: N815
    nominal_max_export_power_W: float = 0.0  # noqa: N815
    max_import_voltage_V: float = 0.0  # noqa: N815
    min_import_voltage_V: float = 0.0  # noqa: N815
    max_import_current_A: float = 0.0  # noqa: N815
    min_import_current_A: float = 0.0  # noqa: N815
    max_import_power_W: float = 0.0  # noqa: N815
    current_regulation_tolerance_A: float = 1.0  # noqa: N815
    peak_current_ripple_A: float = 0.5  # noqa: N815
    conversion_efficiency_import: float = 0.85
    conversion_efficiency_export: float = 0.9


class IsolationMeasurement(Struct, frozen=True):
    """isolation_measurement of an isolation monitor or of evse_manager."""

    voltage_V: float = 0.0  # noqa: N815


class DcValue(Struct, frozen=True):
    """The DC part of a power meter's voltage_V or current_A."""

    DC: float = 0.0


class PowermeterValues(Struct, frozen=True):
    """powermeter_values of a power meter, powermeter of evse_manager."""

    voltage_V: DcValue = DcValue()  # noqa: N815
    current_A: DcValue = DcValue()  # noqa: N815


class OptionalDcValue(Struct, frozen=True):
    """The DC part of a power meter's voltage_V, None if it has none."""

    DC: float | None = None


class PowermeterVoltages(Struct, frozen=True):
    """What of a powermeter message tells whether it is of a DC meter."""

    voltage_V: OptionalDcValue = OptionalDcValue()  # noqa: N815


class SessionStarted(Struct, frozen=True):
    """session_started of a session_event."""

    reason: str = ""


class SessionEvent(Struct, frozen=True):
    """e2m/session_event of evse_manager."""

    event: str
    session_started: SessionStarted = SessionStarted()


class ErrorOrigin(Struct, frozen=True):
    """Who raised an error: the id of a module in EVerest's configuration."""

    module_id: str


class HistoryError(Struct, frozen=True):
    """e2m/error_raised and e2m/error_cleared of error_history; `type` is `<interface>/<name>`."""

    type: str
    origin: ErrorOrigin
    sub_type: str = ""


class ErrorList(Struct, frozen=True):
    """The reply to m2e/active_errors."""

    errors: tuple[HistoryError, ...]


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
