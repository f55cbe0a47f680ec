"""What telemetry has to show, and when (behaviour.md §7)."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial

from ...messages.config import Config
from ...messages.inputs import BrokerConnected, BrokerDisconnected, Input
from ...messages.outputs import TelemetryPublished, TelemetryValue
from ...messages.registers import decode
from .oracle import EARLY_NS, f32, fail
from .oracle_alarms import AlarmShadow
from .oracle_link import LinkShadow
from .oracle_measured import METER
from .oracle_watch import ConnectorWatch

WINDOW_NS = 10_000_000
LOOK_EVERY_NS = 10_000_000_000
MODES = ("STARTING_UP", "RUNNING", "FAULTY", "SLEEPING", "UPGRADING")
Values = Mapping[str, TelemetryValue]
OPEN: TelemetryValue = "(open)"
"""The specification leaves the value open."""


class TelemetryShadow:
    """The objects as they have to be, and as they were published."""

    def __init__(
        self, config: Config, link: LinkShadow, alarms: AlarmShadow, watches: Sequence[ConnectorWatch]
    ) -> None:
        self._is_on = bool(config.telemetry_topic_prefix)
        self._link, self._alarms = link, alarms
        self.published: list[TelemetryPublished] = []
        """In this turn."""
        self._slack_ns = self._now_ns = self._look_ns = 0
        self._objects: dict[str, Callable[[], Values]] = {
            "psu": self._psu,
            "dispenser/published_alarms": self._dispenser,
        }
        for watch in watches:
            topic = f"connector/{watch.shadow.global_no}"
            self._objects[topic] = partial(self._from_psu, watch)
            self._objects[f"{topic}/dispenser_to_psu"] = partial(self._to_psu, watch)
        self.restart()

    def restart(self) -> None:
        """A new process has published nothing."""
        self._has_broker: bool | None = False
        """None: left open."""
        self._shown: dict[str, Values] = {}
        """By topic, on this connection to the broker."""
        self._shown_ns: dict[str, int] = {}
        self._look_ns = 0
        self._late: dict[str, tuple[Values, int]] = {}
        """What should have been published, and since when that is known."""
        self.published.clear()

    # --- checks ----------------------------------------------------------------------------------------------

    def broker(self, message: Input, *, is_failed: bool) -> None:
        """The broker is there, or is gone. A turn that failed may have forgotten that."""
        if isinstance(message, BrokerConnected | BrokerDisconnected):
            self._has_broker = None if is_failed else isinstance(message, BrokerConnected)
            self._shown.clear()
            self._late.clear()

    def check(self, now_ns: int, slack_ns: int) -> None:
        """What was published in this turn: the object as it is, no more often than the window allows."""
        self._now_ns, self._slack_ns = now_ns, slack_ns
        for output in self.published:
            topic = output.topic
            if not self._is_on or topic not in self._objects:
                fail("telemetry_topic", topic)
            if self._has_broker is False:
                fail("telemetry_without_broker", topic)
            if now_ns - self._shown_ns.get(topic, -WINDOW_NS) + EARLY_NS < WINDOW_NS:
                fail("telemetry_window", f"{topic} comes twice within 10 ms")
            wrong = _differing(output.values, self._objects[topic]())
            if wrong:
                fail("telemetry_content", f"{topic}: {wrong}")
            self._shown[topic], self._shown_ns[topic] = output.values, now_ns
            self._late.pop(topic, None)
        self.published.clear()

    def overdue(self, now_ns: int, slack_ns: int) -> None:
        """What has changed has to be published soon. To look at all objects costs something: that is done every
        now and then, and when something was missing the last time."""
        if not self._is_on or not self._has_broker or (now_ns < self._look_ns and not self._late):
            return
        self._now_ns, self._slack_ns, self._look_ns = now_ns, slack_ns, now_ns + LOOK_EVERY_NS
        for topic, values in self._objects.items():
            wanted = values()
            if topic in self._shown and not _differing(self._shown[topic], wanted):
                self._late.pop(topic, None)
                continue
            before, since_ns = self._late.get(topic, ({}, 0))
            if before != wanted:
                self._late[topic] = wanted, now_ns
            elif now_ns - since_ns > WINDOW_NS + slack_ns:
                fail("telemetry_missing", f"{topic}: {_differing(self._shown.get(topic, {}), wanted)}")

    # --- the objects -----------------------------------------------------------------------------------------

    def _psu(self) -> Values:
        names = [f"ac_input_{what}_{phase}" for what in ("current", "voltage") for phase in "abc"]
        energy_kwh = self._number("total_historic_input_energy")
        mode = self._link.registers.get("psu_running_mode")
        is_known = mode is not None and mode[0] < len(MODES)
        return {name: shortest(self._number(name)) for name in names} | {
            "total_historic_input_energy": None if energy_kwh is None else energy_kwh * 1000,
            "psu_running_mode": None if mode is None else MODES[mode[0]] if is_known else OPEN,
        }

    def _dispenser(self) -> Values:
        names = ("door_status_alarm", "epo_alarm", "tilt_alarm", "water_alarm")
        return {name: self._alarms.registers[name] == (1,) for name in names}

    def _from_psu(self, watch: ConnectorWatch) -> Values:
        number = watch.number
        names = [f"{most}_rated_psu_{what}" for most in ("max", "min") for what in ("current", "voltage")]
        power_kw = shortest(self._number(f"{number}/rated_output_power_psu"))
        port = self._link.registers.get(f"{number}/psu_port_available")
        return {name: shortest(self._number(f"{number}/{name}")) for name in names} | {
            "psu_port_available": None if port is None else "AVAILABLE" if port == (1,) else "NOT_AVAILABLE",
            "rated_output_power_psu": None if power_kw is None else power_kw * 1000,
        }

    def _to_psu(self, watch: ConnectorWatch) -> Values:
        shadow, measured = watch.shadow, watch.measured
        request = shadow.last_request
        applied_v, applied_a = shadow.applied_now()
        # A value that was never sent may be null.
        shadow.was_asked = shadow.was_asked or applied_v > 0
        output_v, output_a = measured.output() or (None, None)
        upstream = measured.upstream()
        meter = measured.silence(METER, self._now_ns, self._slack_ns)
        source = measured.silence(measured.source, self._now_ns, self._slack_ns)
        return {
            "bsp_event": OPEN if shadow.is_bsp_event_open else shadow.bsp_event,
            "dc_output_contactor_fault_alarm": self._alarms.registers[
                f"{watch.number}/dc_output_contactor_fault"
            ]
            == (1,),
            "everest_mode": None if request is None else request[0].value,
            "everest_phase": None if request is None else request[1].value,
            "export_voltage": shortest(applied_v) if shadow.was_asked else OPEN,
            "export_current": shortest(applied_a) if shadow.was_asked else OPEN,
            "output_voltage": _unless(meter, output_v),
            "output_current": _unless(meter, output_a),
            "upstream_voltage": _unless(source, upstream),
        }

    def _number(self, key: str) -> float | None:
        """A register of the power unit; None: not received, or no number."""
        words = self._link.registers.get(key)
        value = None if words is None else decode(self._link.map.by_key[key], words)
        return value if isinstance(value, float) and math.isfinite(value) else None


def _unless(silent: bool | None, value: float | None) -> TelemetryValue:
    """A measured value, null if its source is silent."""
    return None if silent else OPEN if silent is None else shortest(value)


def _differing(got: Values, wanted: Values) -> str:
    """What is not as it has to be; empty: nothing."""
    if got == wanted:
        return ""
    if got.keys() != wanted.keys():
        return f"keys {sorted(got)}"
    return "; ".join(
        f"{key} is {got[key]!r}, has to be {due!r}"
        for key, due in wanted.items()
        if got[key] != due and due is not OPEN and not _is_nearly(got[key], due)
    )


def _is_nearly(got: TelemetryValue, due: TelemetryValue) -> bool:
    """The same number but for what a multiplication by 1000 adds, to a subnormal one most."""
    if not isinstance(due, float):
        return False
    if math.isinf(due):
        return got is None
    return isinstance(got, float) and abs(got - due) <= 1e-12 * abs(due) + 1e-300


@lru_cache(maxsize=4096)
def shortest(value: float | None) -> float | None:
    """The f32 as the number with the fewest digits that reads back to it: 20.1, not 20.100000381."""
    if value is None:
        return None
    candidates = (float(f"{value:.{digits}g}") for digits in range(1, 10))
    return next((candidate for candidate in candidates if f32(candidate) == value), value)
