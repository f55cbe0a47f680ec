"""Cars and EVerest: charging sessions of varying length on each connector, one after the other.

A session is a generator that yields how many seconds pass until it goes on.
"""

import random
from collections.abc import Callable, Iterator
from functools import partial

from fusioncharger.messages.inputs import (
    BspErrorCleared,
    BspErrorRaised,
    BspEventReceived,
    HeartbeatReceived,
    Input,
    IsolationMeasured,
    ModeRequested,
    PowermeterMeasured,
    SetpointRequested,
)
from fusioncharger.messages.types import BspEvent, ChargingPhase, Mode, RequirementType

from .driver import Calendar
from .power_unit import PowerUnit

HEARTBEAT_S = 1.0
MEASURE_S = 1.0
SETPOINT_S = 1.0
EMERGENCY_STOP = "MREC8EmergencyStop"


class Site:
    """Everything on EVerest's side."""

    def __init__(
        self,
        calendar: Calendar,
        chance: random.Random,
        power_unit: PowerUnit,
        connectors: int,
        feed: Callable[[Input], None],
    ) -> None:
        self._calendar = calendar
        self._chance = chance
        self._power_unit = power_unit
        self._feed = feed
        self._heartbeat_id = 0
        self._connectors = range(1, connectors + 1)
        self.sessions = 0

    def start(self) -> None:
        """Heartbeats, meters and cars, from now on."""
        self._beat()
        for connector in self._connectors:
            self._calendar.after(0.2 * connector, partial(self._measure, connector))
            self._run(self._cars(connector))

    def _run(self, script: Iterator[float]) -> None:
        wait_s = next(script, None)
        if wait_s is not None:
            self._calendar.after(wait_s, lambda: self._run(script))

    def _beat(self) -> None:
        self._heartbeat_id += 1
        for connector in self._connectors:
            self._feed(HeartbeatReceived(connector=connector, heartbeat_id=self._heartbeat_id))
        self._calendar.after(HEARTBEAT_S, self._beat)

    def _measure(self, connector: int) -> None:
        """What is measured is what the power unit was asked for, nearly."""
        demand = self._power_unit.demand(connector)
        if demand is not None and demand.voltage_v:
            voltage_v = round(demand.voltage_v + self._chance.uniform(-0.6, 0.6), 1)
            flows = demand.requirement_type is RequirementType.CHARGING
            current_a = round(demand.current_a * self._chance.uniform(0.985, 1.0), 2) if flows else 0.0
            self._feed(IsolationMeasured(connector=connector, voltage_v=voltage_v))
            self._feed(PowermeterMeasured(connector=connector, voltage_v=voltage_v, current_a=current_a))
        self._calendar.after(MEASURE_S * self._chance.uniform(0.98, 1.02), partial(self._measure, connector))

    # --- a connector's day -----------------------------------------------------------------------------------

    def _cars(self, connector: int) -> Iterator[float]:
        yield self._chance.uniform(15, 600)
        while True:
            self.sessions += 1
            yield from self._session(connector)
            yield self._chance.uniform(120, 1500)

    def _session(self, connector: int) -> Iterator[float]:
        chance = self._chance
        battery_v = chance.uniform(320, 420) if chance.random() < 0.5 else chance.uniform(600, 780)
        self._feed(BspEventReceived(connector=connector, event=BspEvent.B))
        yield chance.uniform(8, 20)
        self._mode(connector, Mode.EXPORT, ChargingPhase.CABLE_CHECK)
        self._set(connector, 500.0, 2.0)
        yield chance.uniform(6, 12)
        self._mode(connector, Mode.OFF, ChargingPhase.CABLE_CHECK)
        yield chance.uniform(2, 4)
        self._mode(connector, Mode.EXPORT, ChargingPhase.PRE_CHARGE)
        self._set(connector, battery_v, 2.0)
        yield chance.uniform(3, 6)
        self._feed(BspEventReceived(connector=connector, event=BspEvent.C))
        self._feed(BspEventReceived(connector=connector, event=BspEvent.POWER_ON))
        self._mode(connector, Mode.EXPORT, ChargingPhase.CHARGING)
        yield from self._charge(connector, battery_v)
        self._mode(connector, Mode.OFF, ChargingPhase.OTHER)
        yield chance.uniform(0.3, 1)
        self._feed(BspEventReceived(connector=connector, event=BspEvent.POWER_OFF))
        self._feed(BspEventReceived(connector=connector, event=BspEvent.B))
        yield chance.uniform(5, 120)
        self._feed(BspEventReceived(connector=connector, event=BspEvent.A))

    def _charge(self, connector: int, battery_v: float) -> Iterator[float]:
        """Current rises in seconds and falls in minutes; the voltage follows the charge."""
        chance = self._chance
        length_s = chance.uniform(240, 3600)
        peak_a = chance.uniform(60, 100)
        stop_at_s = chance.uniform(0, length_s) if chance.random() < 0.05 else length_s
        passed_s = 0.0
        while passed_s < stop_at_s:
            charge = passed_s / length_s
            current_a = min(2.0 + 15.0 * passed_s, peak_a * (1.0 if charge < 0.5 else 1.4 - 0.8 * charge))
            self._set(connector, battery_v * (1.0 + 0.06 * charge) + 2.0, current_a)
            wait_s = SETPOINT_S * chance.uniform(0.96, 1.04)
            passed_s += wait_s
            yield wait_s
        if stop_at_s < length_s:
            error = {"connector": connector, "error_type": EMERGENCY_STOP, "sub_type": ""}
            self._feed(BspErrorRaised(**error))
            yield 0.2
            self._mode(connector, Mode.OFF, ChargingPhase.OTHER)
            yield 30.0
            self._feed(BspErrorCleared(**error))

    def _mode(self, connector: int, mode: Mode, phase: ChargingPhase) -> None:
        self._feed(ModeRequested(connector=connector, mode=mode, charging_phase=phase))

    def _set(self, connector: int, voltage_v: float, current_a: float) -> None:
        volts, amperes = round(voltage_v, 1), round(current_a, 1)
        self._feed(SetpointRequested(connector=connector, voltage_v=volts, current_a=amperes))
