"""EVerest's side: its charging logic, cars, board supports, monitors and meters.

A charge is a generator that yields how many seconds pass until it goes on; what happens to it meanwhile
(EVerest learns that the driver switched off, the car leaves) wakes it and makes it end.
"""

import random
from collections.abc import Callable, Iterator
from functools import partial

from msgspec import Struct

from ...messages.config import Config
from ...messages.inputs import (
    ActiveErrorsReceived,
    BspError,
    BspErrorCleared,
    BspErrorRaised,
    BspEventReceived,
    HeartbeatReceived,
    ImportSetpointRequested,
    Input,
    IsolationMeasured,
    ModeRequested,
    OverVoltageMeasured,
    PowermeterMeasured,
    SessionEventReceived,
    SetpointRequested,
)
from ...messages.outputs import ActiveErrorsRequested, AnyOutput, ErrorRaised, ModePublished, PowerRequested
from ...messages.types import BspEvent, ChargingPhase, Mode, RequirementType
from .mqtt import Mqtt
from .plan import Session, Site
from .virtual_time import SECOND_NS, Calendar, Chance

BEYOND_F32 = 1e39


class Lane(Struct):
    """A connector, as EVerest sees it."""

    number: int
    has_board: bool
    """A board support of its own; else only evse_manager tells of cars."""
    has_manager: bool
    charge: Iterator[float] | None = None
    """What is going on."""
    planned: int = 0
    """Number of the planned step of it that counts."""
    has_car: bool = False
    interrupted: str = ""
    """Why the charge has to end."""
    wants_power: bool = False
    """EVerest has asked for power, and not for its end."""
    silent_until_ns: int = 0


class Everest:
    """Everything on EVerest's side."""

    def __init__(
        self,
        config: Config,
        site: Site,
        calendar: Calendar,
        chance: Chance,
        mqtt: Mqtt,
        demand: Callable[[int], PowerRequested | None],
    ) -> None:
        """`demand`: what the power unit was asked to deliver to a connector."""
        self._config = config
        self._site = site
        self._calendar = calendar
        self._chance = chance
        self._mqtt = mqtt
        self._demand = demand
        self._heartbeat_id = 0
        self._is_alive = True
        self._quiet_until_ns = 0
        """No heartbeat before."""
        self._held_until_ns = 0
        """No charge goes on before."""
        self._history_silent_until_ns = 0
        self._errors: list[BspError] = []
        """What the board supports have raised and not cleared."""
        self._lanes = {
            number: Lane(
                number,
                bool(connector.evse_board_support) and not connector.evse_manager,
                bool(connector.evse_manager),
            )
            for number, connector in enumerate(config.connectors, 1)
        }
        self.charges_begun = 0
        self.charges_done = 0
        if site.heartbeats:
            self._beat()
        for number in self._lanes:
            calendar.after(0.2 * number, partial(self._measure, number))

    # --- what happens ----------------------------------------------------------------------------------------

    def car_comes(self, event: Session) -> None:
        """A car comes to a connector that is free."""
        if self._calendar.now_ns < self._held_until_ns:
            self._calendar.at(self._held_until_ns, partial(self.car_comes, event))
            return
        lane = self._lanes[event.connector]
        if lane.charge is None and not lane.has_car:
            self._begin(lane, self._whole_session(lane, event))

    def unplug(self, connector: int) -> None:
        """The car is gone."""
        lane = self._lanes[connector]
        if lane.has_car:
            self._car(lane, is_there=False)
            self._interrupt(lane, "the car has left")

    def restart(self, for_s: float) -> None:
        """EVerest is gone for a while, and begins anew."""
        self._is_alive = False
        for lane in self._lanes.values():
            lane.wants_power = False
            self._interrupt(lane, "EVerest has ended")
        self._calendar.after(for_s, self._begin_anew)

    def be_quiet(self, for_s: float) -> None:
        """No heartbeats for a while."""
        self._quiet_until_ns = self._calendar.now_ns + int(for_s * SECOND_NS)

    def silence_devices(self, connector: int, for_s: float) -> None:
        """No measurements for a while."""
        self._lanes[connector].silent_until_ns = self._calendar.now_ns + int(for_s * SECOND_NS)

    def silence_history(self, for_s: float) -> None:
        """No answers of error_history for a while."""
        self._history_silent_until_ns = self._calendar.now_ns + int(for_s * SECOND_NS)

    def mend(self) -> None:
        """All is well."""
        self._begin_anew()
        self._quiet_until_ns = self._history_silent_until_ns = 0
        for lane in self._lanes.values():
            lane.silent_until_ns = 0

    def hold(self, until_ns: int) -> None:
        """Let all charges stand as they are."""
        self._held_until_ns = until_ns

    def board_says(self, connector: int, event: BspEvent) -> None:
        """An event of a board support, or what evse_manager makes of it."""
        lane = self._lanes[connector]
        if lane.has_board:
            self._mqtt.send(f"board {connector}", BspEventReceived(connector=connector, event=event))
        elif lane.has_manager and self._is_alive and event in {BspEvent.A, BspEvent.B}:
            is_there = event is BspEvent.B
            name, reason = ("SessionStarted", "EVConnected") if is_there else ("SessionFinished", "")
            self._mqtt.send(
                f"board {connector}", SessionEventReceived(connector=connector, event=name, reason=reason)
            )

    def board_fails(self, connector: int, error_type: str, sub_type: str, for_s: float) -> None:
        """A board support raises an error, and clears it some time later."""
        error = BspError(connector, error_type, sub_type)
        if error in self._errors or not self._lanes[connector].has_board:
            return
        self._errors.append(error)
        raised = BspErrorRaised(connector=connector, error_type=error_type, sub_type=sub_type)
        self._mqtt.send(f"board {connector}", raised)

        def clear() -> None:
            self._errors.remove(error)
            cleared = BspErrorCleared(connector=connector, error_type=error_type, sub_type=sub_type)
            self._mqtt.send(f"board {connector}", cleared)

        self._calendar.after(for_s, clear)

    def ask_oddly(self, connector: int, what: str) -> None:
        """EVerest asks for, or a device says, what makes no sense."""
        match what:
            case "import":
                self._mode(connector, Mode.IMPORT, ChargingPhase.CHARGING)
            case "fault":
                self._mode(connector, Mode.FAULT, ChargingPhase.OTHER)
            case "export_other":
                self._mode(connector, Mode.EXPORT, ChargingPhase.OTHER)
            case "import_setpoint":
                message = ImportSetpointRequested(connector=connector, voltage_v=400.0, current_a=10.0)
                self._say(connector, message)
            case "negative_setpoint":
                self._set(connector, -400.0, 10.0)
            case "huge_setpoint":
                self._set(connector, 1e6 if self._chance.happens(0.5) else BEYOND_F32, 1e6)
            case "low_setpoint":
                self._set(connector, 1.5, 10.0)
            case "zero_setpoint":
                self._set(connector, 0.0, 0.0)
            case "off":
                self._mode(connector, Mode.OFF, ChargingPhase.OTHER)
            case "off_cable_check":
                self._mode(connector, Mode.OFF, ChargingPhase.CABLE_CHECK)
            case "export":
                self._mode(connector, Mode.EXPORT, ChargingPhase.CHARGING)
            case "huge_measurement":
                huge = PowermeterMeasured(connector=connector, voltage_v=BEYOND_F32, current_a=1.0)
                self._mqtt.send(f"device {connector}", huge)

    def perform(self, output: AnyOutput) -> None:
        """What the driver says to EVerest."""
        match output:
            case ModePublished(mode=Mode.OFF):
                self._mqtt.to_world(partial(self._told_off, output.connector))
            case ErrorRaised() if self._site.stops_on_errors and output.error_type != "VendorWarning":
                why = f"{output.error_type} {output.sub_type}"
                self._mqtt.to_world(partial(self._told_error, output.connector, why))
            case ActiveErrorsRequested():
                self._mqtt.to_world(self._answer_errors)

    # --- EVerest ---------------------------------------------------------------------------------------------

    def _begin_anew(self) -> None:
        if not self._is_alive:
            self._is_alive = True
            self._heartbeat_id = 0
            for lane in self._lanes.values():
                if lane.has_car and self._chance.happens(0.5):
                    self._begin(lane, self._rest_of_session(lane, self._chance.below(2**32)))

    def _beat(self) -> None:
        if self._is_alive and self._calendar.now_ns >= self._quiet_until_ns:
            self._heartbeat_id += 1
            for number in self._lanes:
                beat = HeartbeatReceived(connector=number, heartbeat_id=self._heartbeat_id)
                self._mqtt.send(f"heartbeat {number}", beat)
        self._calendar.after(self._site.heartbeat_s, self._beat)

    def _told_off(self, connector: int) -> None:
        lane = self._lanes[connector]
        if lane.wants_power:
            self._interrupt(lane, "the driver has switched off")

    def _told_error(self, connector: int, why: str) -> None:
        lane = self._lanes[connector]
        if lane.wants_power:
            self._interrupt(lane, why)

    def _answer_errors(self) -> None:
        if self._is_alive and self._calendar.now_ns >= self._history_silent_until_ns:
            self._mqtt.send("history", ActiveErrorsReceived(errors=tuple(self._errors)))

    def _say(self, connector: int, message: Input) -> None:
        if self._is_alive:
            self._mqtt.send(f"everest {connector}", message)

    def _mode(self, connector: int, mode: Mode, phase: ChargingPhase) -> None:
        self._lanes[connector].wants_power = mode is Mode.EXPORT
        self._say(connector, ModeRequested(connector=connector, mode=mode, charging_phase=phase))

    def _set(self, connector: int, voltage_v: float, current_a: float) -> None:
        volts, amperes = round(voltage_v, 1), round(current_a, 1)
        self._say(connector, SetpointRequested(connector=connector, voltage_v=volts, current_a=amperes))

    # --- devices ---------------------------------------------------------------------------------------------

    def _car(self, lane: Lane, *, is_there: bool) -> None:
        lane.has_car = is_there
        self.board_says(lane.number, BspEvent.B if is_there else BspEvent.A)

    def _measure(self, number: int) -> None:
        """What is measured is what the power unit was asked for, nearly."""
        chance = self._chance
        demand = self._demand(number)
        is_silent = self._calendar.now_ns < self._lanes[number].silent_until_ns
        if demand is not None and demand.voltage_v and not is_silent:
            connector = self._config.connectors[number - 1]
            voltage_v = round(demand.voltage_v + chance.uniform(-0.6, 0.6), 1)
            flows = demand.requirement_type is RequirementType.CHARGING
            current_a = round(demand.current_a * chance.uniform(0.985, 1.0), 2) if flows else 0.0
            if connector.measures_isolation:
                self._mqtt.send(f"imd {number}", IsolationMeasured(connector=number, voltage_v=voltage_v))
            if connector.over_voltage_monitor:
                self._mqtt.send(f"ovm {number}", OverVoltageMeasured(connector=number, voltage_v=voltage_v))
            if self._config.has_meter(connector):
                meter = PowermeterMeasured(connector=number, voltage_v=voltage_v, current_a=current_a)
                self._mqtt.send(f"meter {number}", meter)
        self._calendar.after(self._site.measure_s * chance.uniform(0.98, 1.02), partial(self._measure, number))

    # --- charges ---------------------------------------------------------------------------------------------

    def _begin(self, lane: Lane, charge: Iterator[float]) -> None:
        lane.charge = charge
        lane.interrupted = ""
        self._go_on(lane)

    def _go_on(self, lane: Lane) -> None:
        """The next step of a lane's charge."""
        assert lane.charge is not None  # noqa: S101 - narrows the type
        wait_s = next(lane.charge, None)
        if wait_s is None:
            lane.charge = None
        else:
            self._plan_step(lane, wait_s)

    def _plan_step(self, lane: Lane, wait_s: float) -> None:
        lane.planned += 1
        number = lane.planned

        def step() -> None:
            if lane.planned != number or lane.charge is None:
                return
            if self._calendar.now_ns < self._held_until_ns:
                self._plan_step(lane, (self._held_until_ns - self._calendar.now_ns) / SECOND_NS + 0.01)
            else:
                self._go_on(lane)

        self._calendar.after(wait_s, step)

    def _interrupt(self, lane: Lane, why: str) -> None:
        """Something ends the charge, soon."""
        if lane.charge is not None and not lane.interrupted:
            lane.interrupted = why
            self._plan_step(lane, self._chance.uniform(0.02, 0.5))

    def _whole_session(self, lane: Lane, event: Session) -> Iterator[float]:
        """From the car's coming to its leaving."""
        rng = random.Random(event.seed)  # noqa: S311 - seeded on purpose
        self._car(lane, is_there=True)
        yield rng.uniform(1, 12)
        yield from self._charge(lane, event.seed, event.charge_s)
        for _ in range(2):
            if lane.interrupted and lane.has_car and self._is_alive and rng.random() < 0.6:
                yield rng.uniform(1, 15)
                lane.interrupted = ""
                yield from self._charge(lane, rng.getrandbits(32), event.charge_s / 2)
        yield rng.uniform(1, 30)
        if lane.has_car:
            self._car(lane, is_there=False)

    def _rest_of_session(self, lane: Lane, seed: int) -> Iterator[float]:
        """An EVerest that has begun anew finds a car."""
        yield 2.0
        yield from self._charge(lane, seed, 60.0)
        yield 5.0
        if lane.has_car:
            self._car(lane, is_there=False)

    def _charge(self, lane: Lane, seed: int, charge_s: float) -> Iterator[float]:
        """From cable check to the end of power, or to what interrupts it."""
        rng = random.Random(seed)  # noqa: S311 - seeded on purpose
        number = lane.number
        battery_v = rng.uniform(320, 420) if rng.random() < 0.5 else rng.uniform(600, 780)
        self.charges_begun += 1
        for mode, phase, voltage_v, wait_s in (
            (Mode.EXPORT, ChargingPhase.CABLE_CHECK, 500.0, rng.uniform(4, 12)),
            (Mode.OFF, ChargingPhase.CABLE_CHECK, 0.0, rng.uniform(1, 4)),
            (Mode.EXPORT, ChargingPhase.PRE_CHARGE, battery_v, rng.uniform(2, 6)),
        ):
            if not lane.interrupted:
                self._mode(number, mode, phase)
                if voltage_v:
                    self._set(number, voltage_v, 2.0)
                yield wait_s
        if not lane.interrupted:
            self.board_says(number, BspEvent.C)
            self.board_says(number, BspEvent.POWER_ON)
            self._mode(number, Mode.EXPORT, ChargingPhase.CHARGING)
            yield from self._deliver(lane, rng, battery_v, charge_s)
        if not lane.interrupted:
            self.charges_done += 1
        if lane.wants_power:
            self._mode(number, Mode.OFF, ChargingPhase.OTHER)
        yield rng.uniform(0.3, 1)
        self.board_says(number, BspEvent.POWER_OFF)
        if lane.has_car:
            self.board_says(number, BspEvent.B)

    def _deliver(self, lane: Lane, rng: random.Random, battery_v: float, charge_s: float) -> Iterator[float]:
        """Current rises in seconds and falls in minutes; the voltage follows the charge."""
        peak_a = rng.uniform(60, 100)
        passed_s = 0.0
        while passed_s < charge_s and not lane.interrupted:
            charge = passed_s / charge_s
            current_a = min(2.0 + 15.0 * passed_s, peak_a * (1.0 if charge < 0.5 else 1.4 - 0.8 * charge))
            self._set(lane.number, battery_v * (1.0 + 0.06 * charge) + 2.0, current_a)
            wait_s = self._site.setpoint_s * rng.uniform(0.96, 1.04)
            passed_s += wait_s
            yield wait_s
