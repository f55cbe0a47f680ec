"""A run of the driver from its start to its end, with what goes wrong in between."""

import random
from collections.abc import Iterator

from fusioncharger.messages.config import Config, parse
from fusioncharger.messages.inputs import (
    BrokerConnected,
    BrokerDisconnected,
    Input,
    ShutdownRequested,
    Started,
)
from fusioncharger.messages.outputs import AnyOutput

from .cars import Site
from .driver import SECOND_NS, Calendar, Driver
from .power_unit import DISPENSER_MAC, UTC_OFFSET_NS, PowerUnit
from .recording import Recording

ALARMS = ("PowerUnit/DoorStatusSensor", "PowerUnit/Smoke", "PowerUnit/Water")
HOUR_S = 3600.0


def site_config(connectors: int) -> Config:
    """A dispenser with all devices."""
    tables = "".join(
        f"""
        [[connectors]]
        global_connector_number = {number}
        max_export_current_A = 100
        max_export_power_W = 60000
        power_supply_DC = "psu_{number}"
        evse_board_support = "bsp_{number}"
        isolation_monitor = "imd_{number}"
        powermeter = "meter_{number}"
        """
        for number in range(1, connectors + 1)
    )
    return parse('ethernet_interface = "eth1"\ntelemetry_topic_prefix = "dispenser/1"\n' + tables, "site.toml")


class Day:
    """World, driver and log, of a seed."""

    def __init__(self, config: Config, recording: Recording, seed: int) -> None:
        self._chance = random.Random(seed)
        self._calendar = Calendar()
        self.driver = Driver(config, self._calendar, recording, self._perform)
        count = len(config.connectors)
        self._power_unit = PowerUnit(self._calendar, self._chance, count, self._feed)
        self.site = Site(self._calendar, self._chance, self._power_unit, count, self._feed)
        self._recording = recording

    def begin(self) -> None:
        """The driver starts, and with it everything else."""
        self._recording.begin(1, 0, self.driver.snapshot())
        self._feed(Started(utc_offset_ns=UTC_OFFSET_NS, goose_mac=DISPENSER_MAC))
        self._calendar.after(0.05, lambda: self._feed(BrokerConnected(session_present=False)))
        self._calendar.after(1.0, self.site.start)
        for trouble in (self._links(), self._alarms(), self._brokers()):
            self._run(trouble)

    def run_until(self, at_s: float) -> None:
        """Let time go by."""
        self._calendar.run_until(int(at_s * SECOND_NS))

    def end(self) -> None:
        """The driver is stopped, and the log closed."""
        self._feed(ShutdownRequested(reason="SIGTERM"))
        self._recording.close()

    def _feed(self, message: Input) -> None:
        self.driver.feed(message)

    def _perform(self, output: AnyOutput) -> None:
        self._power_unit.perform(output)

    # --- what goes wrong -------------------------------------------------------------------------------------

    def _run(self, script: Iterator[float]) -> None:
        wait_s = next(script, None)
        if wait_s is not None:
            self._calendar.after(wait_s, lambda: self._run(script))

    def _links(self) -> Iterator[float]:
        """The link to the power unit breaks, about every three hours."""
        while True:
            yield self._chance.uniform(1, 5) * HOUR_S
            self._power_unit.tell("refuse", for_s=round(self._chance.uniform(0.1, 20), 1))
            self._power_unit.tell("drop")

    def _alarms(self) -> Iterator[float]:
        """The power unit raises an alarm, about every four hours, and clears it."""
        while True:
            yield self._chance.uniform(1, 7) * HOUR_S
            name = self._chance.choice(ALARMS)
            self._power_unit.tell("alarm", name=name)
            yield self._chance.uniform(2, 300)
            self._power_unit.tell("clear_alarm", name=name)

    def _brokers(self) -> Iterator[float]:
        """The broker is gone for a moment, about every six hours."""
        while True:
            yield self._chance.uniform(2, 10) * HOUR_S
            self._feed(BrokerDisconnected(reason="connection lost"))
            yield self._chance.uniform(0.5, 4)
            self._feed(BrokerConnected(session_present=True))
