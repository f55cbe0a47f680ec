"""The errors of a connector towards EVerest: which there are, and their texts (behaviour.md §3)."""

from msgspec import Struct

from ..messages.registers import Alarm, RegisterMap

COMMUNICATION_FAULT = ("CommunicationFault", "")
PSU_NOT_RUNNING = ("HardwareFault", "psu_not_running")
CAPABILITIES_NOT_RECEIVED = ("HardwareFault", "capabilities_not_received")
INTERNAL_ERROR = ("VendorError", "internal_error")
ALLOCATION_FAILED = ("VendorWarning", "module_placeholder_allocation_failed")
JOURNAL_UNAVAILABLE = ("VendorWarning", "journal_unavailable")

ALARMS: dict[str, Alarm] = {
    register.key: register.alarm for register in RegisterMap(1).registers if register.alarm is not None
}
"""Register key to the alarm it means, by address. Every connector raises them."""

CATALOGUE: tuple[tuple[str, str], ...] = (
    COMMUNICATION_FAULT,
    PSU_NOT_RUNNING,
    CAPABILITIES_NOT_RECEIVED,
    INTERNAL_ERROR,
    ALLOCATION_FAILED,
    JOURNAL_UNAVAILABLE,
    *(("VendorWarning", key) for key in ALARMS),
)
"""Every (type, sub_type) that can be raised; a synchronisation states each (behaviour.md §8.2)."""


class Fault(Struct, frozen=True):
    """An error that has to be raised."""

    error_type: str
    sub_type: str
    message: str


def alarm_fault(key: str, value: int) -> Fault:
    """The error for a PSU alarm register that is not 0."""
    alarm = ALARMS[key]
    if not alarm.is_flags:
        state = f"AlarmState: {'ALARM' if value == 1 else 'UNKNOWN'}"
    elif alarm.name == "ModbusTcpCertificate":
        state = f"Flags: 0x{value:04x}"
    else:
        state = f"Flags: 0x{value:08x}"
    return Fault("VendorWarning", key, f"Category: {alarm.category}; Subcategory: {alarm.name}; {state}")
