"""Shadow of a connector's measurements: registers, voltage_current, and what is too old (behaviour.md §5)."""

import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ...messages.config import Config
from ...messages.inputs import Input, IsolationMeasured, OverVoltageMeasured, PowermeterMeasured
from ...messages.outputs import VoltageCurrentPublished
from ...messages.types import ChargingPhase
from .oracle import EARLY_NS, F32_MAX, SECOND_NS, f32, fail
from .oracle_connector import ConnectorShadow
from .oracle_table import RUNNING

FRESH_NS = 5 * SECOND_NS
REPEAT_NS = (SECOND_NS // 2, 2 * SECOND_NS)
"""Once a second, from a timer that does not know when a measurement came."""
IMD = "isolation monitor"
OVM = "over-voltage monitor"
METER = "power meter"
MEASURED = (IsolationMeasured, OverVoltageMeasured, PowermeterMeasured)
_DEVICES = {IsolationMeasured: IMD, OverVoltageMeasured: OVM, PowermeterMeasured: METER}
_WORDS = struct.Struct(">HH")
_F32 = struct.Struct(">f")


class Reading(NamedTuple):
    """What a device said."""

    voltage_v: float
    current_a: float
    at_ns: int


class MeasuredShadow:
    """What the devices of a connector said, and what has to be made of it."""

    def __init__(self, shadow: ConnectorShadow, config: Config) -> None:
        settings = config.connectors[shadow.number - 1]
        self._shadow = shadow
        self._name = f"connector/{shadow.number}"
        self._has_meter = config.has_meter(settings)
        self._ovm_in_cable_check = config.HACK_use_ovm_while_cable_check
        self._publishes_requested = config.HACK_publish_requested_voltage_current and not self._has_meter
        self._supervised = [
            IMD if config.upstream_voltage_source == "IMD" else OVM,
            *([METER] if self._has_meter else []),
        ]
        self.restart()

    def restart(self) -> None:
        """A new process: nothing was measured."""
        self.readings: dict[str, Reading] = {}
        self.warned: set[str] = set()
        """Devices whose silence was said."""
        self._silent: set[str] = set()
        """Devices that may count as silent."""
        self._supplying_ns: int | None = None
        """Since when power may flow; None: it does not."""
        self._words = self._words_now()
        """Registers that the power unit reads."""
        self._registers_seen: object = None
        """What was checked last."""
        self._device_since_ns = self._told_ns = 0
        self._device = self.device

    @property
    def source(self) -> str:
        """Which device measures the upstream voltage."""
        return self._supervised[0]

    @property
    def device(self) -> str:
        """Whose value EVerest gets; empty: nobody's."""
        request = self._shadow.last_request
        if self._ovm_in_cable_check and request is not None and request[1] is ChargingPhase.CABLE_CHECK:
            return OVM
        return METER if self._has_meter else ""

    # --- events ----------------------------------------------------------------------------------------------

    def measured(self, message: IsolationMeasured | OverVoltageMeasured | PowermeterMeasured) -> None:
        """A device spoke. What no f32 can hold is no measurement."""
        current_a = message.current_a if isinstance(message, PowermeterMeasured) else 0.0
        if max(abs(f32(message.voltage_v)), abs(f32(current_a))) > F32_MAX:
            return
        device = _DEVICES[type(message)]
        self.readings[device] = Reading(message.voltage_v, current_a, message.at_ns)
        self._words = self._words_now()
        self._registers_seen = None
        self._silent.discard(device)
        self.warned.discard(device)

    def follow(self, now_ns: int) -> None:
        """The connector's state may have changed: power may flow, or does no more."""
        supplies = self._shadow.phase is RUNNING and self._shadow.exports
        if supplies != (self._supplying_ns is not None):
            self._look(now_ns)
            self._supplying_ns = now_ns if supplies else None
        if self.device != self._device:
            self._device, self._device_since_ns = self.device, now_ns

    def silence(self, device: str, now_ns: int, slack_ns: int) -> bool | None:
        """Whether the device counts as silent; None: it may."""
        self._look(now_ns)
        if device not in self._silent:
            return False
        return True if self._silent_ns(device, now_ns) > FRESH_NS + SECOND_NS + slack_ns else None

    def _look(self, now_ns: int) -> None:
        for device in self._supervised:
            if self._silent_ns(device, now_ns) + EARLY_NS >= FRESH_NS:
                self._silent.add(device)

    def _silent_ns(self, device: str, now_ns: int) -> int:
        """For how long it has been silent while power may flow."""
        if self._supplying_ns is None:
            return 0
        reading = self.readings.get(device)
        return now_ns - (self._supplying_ns if reading is None else max(reading.at_ns, self._supplying_ns))

    # --- checks ----------------------------------------------------------------------------------------------

    def output(self) -> tuple[float, float] | None:
        """V and A at the car; None: never measured."""
        reading = self.readings.get(METER)
        return None if reading is None else (f32(reading.voltage_v), f32(reading.current_a))

    def upstream(self) -> float | None:
        """V after the PSU; None: never measured."""
        reading = self.readings.get(self.source)
        return None if reading is None else f32(reading.voltage_v)

    def _words_now(self) -> dict[str, tuple[int, ...]]:
        voltage_v, current_a = self.output() or (0.0, 0.0)
        return {
            f"{self._shadow.number}/output_voltage": _words_of(voltage_v),
            f"{self._shadow.number}/output_current": _words_of(current_a),
            f"{self._shadow.number}/contactor_upstream_voltage": _words_of(self.upstream() or 0.0),
        }

    def check_registers(self, registers: Mapping[str, tuple[int, ...]]) -> None:
        """A register keeps the last value, however old it is."""
        if registers is self._registers_seen:
            return
        self._registers_seen = registers
        for key, words in self._words.items():
            if registers.get(key) != words:
                fail("measured_register", f"{key} is not what was measured last")

    def check(self, message: Input, published: Sequence[VoltageCurrentPublished], *, is_failed: bool) -> None:
        """What was published in this turn."""
        if len(published) > 1:
            fail("voltage_current_twice", f"{self._name}: {published}")
        reading = self.readings.get(self._device)
        is_measurement = isinstance(message, MEASURED) and _DEVICES[type(message)] == self._device
        is_new = is_measurement and not is_failed and reading is not None and reading.at_ns == message.at_ns
        if is_new and not published:
            fail("measurement_not_published", f"{self._name}: {message}")
        if not published:
            return
        said = (published[0].voltage_v, published[0].current_a)
        if not self._device:
            self._check_requested(said)
        elif reading is None or said != reading[:2] or message.at_ns - reading.at_ns >= FRESH_NS + EARLY_NS:
            fail("voltage_current", f"{self._name}: {said}, the {self._device} said {reading}")
        is_same = self._told_ns >= self._device_since_ns
        if is_same and not is_new and message.at_ns - self._told_ns + EARLY_NS < REPEAT_NS[0]:
            fail("voltage_current_repeated", f"{self._name}: {said} again too soon")
        self._told_ns = message.at_ns

    def _check_requested(self, said: tuple[float, float]) -> None:
        """The applied values stand for a measurement. What is not asked of the power unit may count as 0."""
        shadow = self._shadow
        if not self._publishes_requested:
            fail("voltage_current", f"{self._name}: {said}, and nothing measures it")
        asked = shadow.content()[1:]
        allowed = (asked,) if shadow.phase is RUNNING or not shadow.exports else (asked, shadow.applied_now())
        if said not in allowed:
            fail("voltage_current", f"{self._name}: {said}, applied is {asked}")

    def overdue(self, now_ns: int, slack_ns: int) -> None:
        """InvariantViolated if something should have been said by now."""
        device = self._device
        if (device or self._publishes_requested) and (
            now_ns > max(self._told_ns, self._device_since_ns) + REPEAT_NS[1] + slack_ns
        ):
            reading = self.readings.get(device)
            if not device or (reading is not None and now_ns - reading.at_ns < FRESH_NS):
                fail("voltage_current_missing", f"{self._name}: nothing published for more than 2 s")
        limit_ns = now_ns - FRESH_NS - SECOND_NS - slack_ns
        if self._supplying_ns is None or self._supplying_ns > limit_ns:
            return
        for device in self._supervised:
            reading = self.readings.get(device)
            if (reading is None or reading.at_ns < limit_ns) and device not in self.warned:
                fail("silence_not_said", f"{self._name}: the {device} has been silent for more than 5 s")


def _words_of(value: float) -> tuple[int, ...]:
    return _WORDS.unpack(_F32.pack(value))
