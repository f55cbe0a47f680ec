"""Enumerations shared by Inputs, Outputs and actor states.

Values that stand on the wire are IntEnums with the wire's number (protocol.md §2.2, §3.2);
everything else is a string enum, so that a log reads well.
"""

from enum import Enum, IntEnum


class Named(Enum):
    """A string enum. Its members are compared by identity, so their hash may be the object's: Enum's own is
    Python code, and the tables of the state machine are looked up in every turn."""

    __hash__ = object.__hash__


class ConnectorPhase(Named):
    """State of a connector (behaviour.md §1)."""

    CAR_DISCONNECTED = "CarDisconnected"
    FIRST_KEY = "FirstKey"
    """No car: a plug-in is only shown to the PSU, to get a key and to stop what may still run."""
    NO_KEY_YET = "NoKeyYet"
    CONNECTED_NO_ALLOCATION = "ConnectedNoAllocation"
    RUNNING = "Running"
    COMPLETED = "Completed"


class ModePhase(Named):
    """What EVerest wants of a connector, mode and charging phase in one (behaviour.md §1)."""

    OFF = "Off"
    EXPORT_CABLE_CHECK = "ExportCableCheck"
    OFF_CABLE_CHECK = "OffCableCheck"
    EXPORT_PRECHARGE = "ExportPrecharge"
    EXPORT_CHARGING = "ExportCharging"


class Mode(Enum):
    """`mode` of EVerest's power_supply_DC interface."""

    OFF = "Off"
    EXPORT = "Export"
    IMPORT = "Import"
    FAULT = "Fault"


class ChargingPhase(Enum):
    """`charging_phase` of EVerest's power_supply_DC interface."""

    OTHER = "Other"
    CABLE_CHECK = "CableCheck"
    PRE_CHARGE = "PreCharge"
    CHARGING = "Charging"


class BspEvent(Enum):
    """`event` of EVerest's evse_board_support interface; A..F are the states of IEC 61851-1."""

    A = "A"
    B = "B"
    C = "C"
    D = "D"
    E = "E"
    F = "F"
    POWER_ON = "PowerOn"
    POWER_OFF = "PowerOff"
    DISCONNECTED = "Disconnected"


class LinkPhase(Enum):
    """Communication state of the link to the PSU (behaviour.md §2)."""

    UNINITIALIZED = "UNINITIALIZED"
    INITIALIZING = "INITIALIZING"
    READY = "READY"
    FAILED = "FAILED"


class Level(Enum):
    """Severity of a process log line."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class WorkingStatus(IntEnum):
    """Register 0x110B."""

    STANDBY = 0
    STANDBY_WITH_CONNECTOR_INSERTED = 1
    CHARGING = 3
    CHARGING_COMPLETE = 4
    FAULT = 5
    DISPENSER_UPGRADE = 7
    CHARGING_STARTING = 8


class ConnectionStatus(IntEnum):
    """Register 0x110D."""

    NOT_CONNECTED = 0
    SEMI_CONNECTED = 1
    FULL_CONNECTED = 2


class ConnectorType(IntEnum):
    """Register 0x1104."""

    CCS1 = 1
    CCS2 = 2
    CHADEMO = 3
    GB = 4


class ChargingEvent(IntEnum):
    """Register 0x117E."""

    START_TO_STOP = 0
    STOP_TO_START = 1


class PsuRunningMode(IntEnum):
    """Register 0x2006."""

    STARTING_UP = 0
    RUNNING = 1
    FAULTY = 2
    SLEEPING = 3
    UPGRADING = 4


class RequirementType(IntEnum):
    """`requirement_type` of a GOOSE power request (protocol.md §3.2)."""

    MODULE_PLACEHOLDER_REQUEST = 1
    INSULATION_DETECTION_VOLTAGE_OUTPUT = 2
    INSULATION_DETECTION_VOLTAGE_OUTPUT_STOPPAGE = 3
    PRECHARGE_VOLTAGE_OUTPUT = 4
    CHARGING = 5


class PowerRequestMode(IntEnum):
    """`mode` of a GOOSE power request (protocol.md §3.2). The dispenser sends CONSTANT_CURRENT."""

    NONE = 0
    CONSTANT_VOLTAGE = 1
    CONSTANT_CURRENT = 2


class StopReason(IntEnum):
    """`reason` of a GOOSE stop request (protocol.md §3.2)."""

    NORMAL = 0x1000
    CONNECTOR_DISCONNECTED = 0x1001
    NOT_PROPERLY_INSERTED = 0x1002
    INSULATION_FAULT = 0x1003
    EPO = 0x1004
    VEHICLE_CHARGER_MISMATCH = 0x1005
    OTHER_CHARGER_FAULT = 0x1006
    OTHER_VEHICLE_FAULT = 0x1007
    BMS_NOT_CONNECTED = 0x1008
    POWER_UNIT_CANNOT_CHARGE = 0x1009
