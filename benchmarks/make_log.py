"""Makes the log of so many hours at a dispenser, in minutes: a calm day in the simulation's world
(app/simulation/), with a car after the other, and now and then something that goes wrong.

    python benchmarks/make_log.py --hours 24 --connectors 4 --seed 1 --compress -o DIRECTORY

The same arguments make the same bytes, as long as the versions of package, Python and libraries are the same.
"""

import argparse
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from fusioncharger.app.simulation.plan import (
    AnyEvent,
    BoardError,
    BrokerLost,
    LinkCut,
    Odd,
    Plan,
    Psu,
    Session,
    Site,
)
from fusioncharger.app.simulation.recording import InDirectory
from fusioncharger.app.simulation.world import World
from fusioncharger.messages.config import Config, parse

SEGMENT_MIB = 64
HOUR_S = 3600.0
ALARMS = ("PowerUnit/DoorStatusSensor", "PowerUnit/Smoke", "PowerUnit/Water")
EMERGENCY_STOP = "MREC8EmergencyStop"
AROUND_CHARGE_S = 70.0
"""What a session has besides the charge, at most."""


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


def day(hours: float, connectors: int, seed: int) -> Plan:
    """The plan of a calm day."""
    rng = random.Random(seed)
    seconds = hours * HOUR_S
    events: list[AnyEvent] = []
    for connector in range(1, connectors + 1):
        events += _cars(rng, connector, seconds)
    for trouble in (_links(rng), _alarms(rng), _brokers(rng)):
        for event in trouble:
            if event.at_s >= seconds:
                break
            events.append(event)
    events.sort(key=lambda event: event.at_s)
    return Plan(seed=seed, seconds=seconds, config=site_config(connectors), site=Site(), events=tuple(events))


def _cars(rng: random.Random, connector: int, seconds: float) -> Iterator[AnyEvent]:
    """One after the other. Every twentieth charge ends with the emergency stop."""
    at_s = rng.uniform(15, 600)
    while at_s < seconds:
        charge_s = rng.uniform(240, 3600)
        yield Session(at_s=at_s, connector=connector, seed=rng.getrandbits(32), charge_s=charge_s)
        if rng.random() < 0.05:
            stop_s = at_s + 40 + rng.uniform(0, charge_s)
            yield BoardError(at_s=stop_s, connector=connector, error_type=EMERGENCY_STOP, for_s=30.0)
            yield Odd(at_s=stop_s + 0.2, connector=connector, what="off")
        at_s += AROUND_CHARGE_S + charge_s + rng.uniform(120, 1500)


def _links(rng: random.Random) -> Iterator[AnyEvent]:
    """The link to the power unit breaks, about every three hours."""
    at_s = 0.0
    while True:
        at_s += rng.uniform(1, 5) * HOUR_S
        yield Psu(at_s=at_s, command={"do": "refuse", "for_s": round(rng.uniform(0.1, 20), 1)})
        yield LinkCut(at_s=at_s)


def _alarms(rng: random.Random) -> Iterator[AnyEvent]:
    """The power unit raises an alarm, about every four hours, and clears it."""
    at_s = 0.0
    while True:
        at_s += rng.uniform(1, 7) * HOUR_S
        name = rng.choice(ALARMS)
        yield Psu(at_s=at_s, command={"do": "alarm", "name": name})
        yield Psu(at_s=at_s + rng.uniform(2, 300), command={"do": "clear_alarm", "name": name})


def _brokers(rng: random.Random) -> Iterator[AnyEvent]:
    """The broker is gone for a moment, about every six hours."""
    at_s = 0.0
    while True:
        at_s += rng.uniform(2, 10) * HOUR_S
        yield BrokerLost(at_s=at_s, for_s=rng.uniform(0.5, 4), keeps=True)


def make_log(
    directory: Path,
    *,
    hours: float,
    connectors: int = 4,
    seed: int = 1,
    compress: bool = False,
    segment_mib: float = SEGMENT_MIB,
) -> tuple[list[Path], int, int]:
    """Make a log; its segments, its turns and the charges in it."""
    target = InDirectory(directory, is_compressed=compress)
    plan = day(hours, connectors, seed)
    world = World(plan, targets=lambda: target, segment_bytes=round(segment_mib * 2**20))
    show = sys.stderr.isatty()
    step_s = 60.0
    for minute in range(1, int(plan.seconds / step_s) + 1):
        world.run_until(minute * step_s)
        if show and minute % 10 == 0:
            print(f"\r{minute / 60:.1f} h, {world.turns} turns", end="", file=sys.stderr)
    world.run_until(plan.seconds)
    world.end()
    if show:
        print(file=sys.stderr)
    return target.paths, world.turns, world.everest.charges_begun


def main() -> int:
    """Make the log and say what it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--connectors", type=int, default=4, choices=range(1, 5))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--compress", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--segment-MiB", type=float, default=SEGMENT_MIB, dest="segment_mib")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR")
    arguments = parser.parse_args()
    if arguments.out.exists() and any(arguments.out.iterdir()):
        print(f"{arguments.out}: not empty; name a new directory", file=sys.stderr)
        return 2
    begin_s = time.perf_counter()
    paths, turns, sessions = make_log(
        arguments.out,
        hours=arguments.hours,
        connectors=arguments.connectors,
        seed=arguments.seed,
        compress=arguments.compress,
        segment_mib=arguments.segment_mib,
    )
    seconds = time.perf_counter() - begin_s
    size_mib = sum(path.stat().st_size for path in paths) / 2**20
    print(
        f"{arguments.out}: {arguments.hours:g} h, {turns} turns ({turns / arguments.hours / HOUR_S:.1f}/s), "
        f"{sessions} charging sessions, {len(paths)} segments, {size_mib:.0f} MiB, made in {seconds:.0f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
