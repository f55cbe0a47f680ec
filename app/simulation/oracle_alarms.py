"""Shadow of the alarms: what the boards have raised, and the registers that show it (behaviour.md §6)."""

from collections.abc import Iterable

from ...messages.inputs import BspError

DISPENSER_ALARMS = {
    "EnclosureOpen": "door_status_alarm",
    "WaterIngressDetected": "water_alarm",
    "MREC8EmergencyStop": "epo_alarm",
    "TiltDetected": "tilt_alarm",
}
CONTACTOR_FAULT = "MREC17EVSEContactorFault"
KNOWN = frozenset({*DISPENSER_ALARMS, CONTACTOR_FAULT})


class AlarmShadow:
    """The errors of all boards that matter here."""

    def __init__(self, connectors: int) -> None:
        self._connectors = connectors
        self.errors: set[tuple[int, str, str]] = set()
        self.registers = self._registers()

    def replace(self, errors: Iterable[BspError]) -> bool:
        """All that the boards have. True if a register changes."""
        self.errors = {
            (error.connector, error.error_type, error.sub_type)
            for error in errors
            if error.error_type in KNOWN and 1 <= error.connector <= self._connectors
        }
        return self._changed()

    def change(self, connector: int, error_type: str, sub_type: str, *, is_raised: bool) -> bool:
        """An instance of an error comes or goes. True if a register changes."""
        if error_type not in KNOWN or not 1 <= connector <= self._connectors:
            return False
        error = (connector, error_type, sub_type)
        if is_raised:
            self.errors.add(error)
        else:
            self.errors.discard(error)
        return self._changed()

    def _changed(self) -> bool:
        before, self.registers = self.registers, self._registers()
        return before != self.registers

    def _registers(self) -> dict[str, tuple[int, ...]]:
        """Each alarm register: 1 if any board has any instance of its error."""
        raised = {error_type for _, error_type, _ in self.errors}
        faults = {connector for connector, error_type, _ in self.errors if error_type == CONTACTOR_FAULT}
        words: dict[str, tuple[int, ...]] = {
            key: (int(error in raised),) for error, key in DISPENSER_ALARMS.items()
        }
        for number in range(1, self._connectors + 1):
            words[f"{number}/dc_output_contactor_fault"] = (int(number in faults),)
        return words
