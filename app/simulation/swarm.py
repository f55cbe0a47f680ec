"""The plan of a seed: configuration, world, and what goes wrong.

Each seed draws which kinds of fault there are at all, and how often each: so that some runs are calm and long,
some suffer one thing over and over, and some everything at once. Faults come in storms. After a storm
everything is mended, and all must be well again (`Settles`).
"""

import random

import msgspec

from ...messages.config import Config, of_table
from . import plan as planned
from .kinds import KINDS, Draw
from .plan import AnyEvent, Plan, Site

CALM_AFTER_STORM_S = 40.0
"""Settling takes 35 s (world.py)."""
START_S = 5.0
WITHOUT_HEARTBEATS = 0.2
"""Of all EVerests."""


def plan_of(seed: int, minutes: float) -> Plan:
    """The plan that a seed stands for."""
    rng = random.Random(seed)  # noqa: S311 - seeded on purpose
    heartbeats = rng.random() >= WITHOUT_HEARTBEATS
    config = _config(rng, heartbeats=heartbeats)
    seconds = minutes * 60
    site = _site(rng, config, heartbeats=heartbeats)
    return Plan(
        seed=seed,
        seconds=seconds,
        config=config,
        site=site,
        events=_events(rng, config, seconds, heartbeats=heartbeats),
    )


# --- the dispenser -------------------------------------------------------------------------------------------


def _config(rng: random.Random, *, heartbeats: bool) -> Config:
    # Heartbeats have to come within the timeout, and each is a turn: with them it is long more often than not.
    timeouts = (1, 4, 9, 28, 58) if heartbeats else (1, 1, 1, 1, 1)
    count = rng.choices((1, 2, 3, 4), (68, 20, 5, 7))[0]
    source = rng.choice(("IMD", "IMD", "OVM"))
    ovm_hack = rng.random() < 0.3
    publish_hack = rng.random() < 0.3
    native = rng.random() < 0.25
    history = rng.random() < 0.35
    metered = rng.random() < 0.75
    numbers = rng.sample(range(1, 13), count)
    connectors = []
    for number in range(1, count + 1):
        connector: dict[str, object] = {
            "global_connector_number": numbers[number - 1],
            "max_export_current_A": rng.choice((32.0, 100.0, 125.5, 500.0)),
            "max_export_power_W": rng.choice((20_000.0, 60_000.0, 150_000.0)),
            "power_supply_DC": f"psu_{number}",
            "evse_board_support": f"bsp_{number}",
        }
        if native:
            connector["evse_manager"] = f"manager_{number}"
            if not history and rng.random() < 0.5:
                del connector["evse_board_support"]
        elif source == "IMD" or rng.random() < 0.5:
            connector["isolation_monitor"] = f"imd_{number}"
        if source == "OVM" or ovm_hack or rng.random() < 0.3:
            connector["over_voltage_monitor"] = f"ovm_{number}"
        if metered and not native:
            connector["powermeter"] = f"meter_{number}"
        connectors.append(connector)
    table: dict[str, object] = {
        "connectors": connectors,
        "upstream_voltage_source": source,
        "HACK_use_ovm_while_cable_check": ovm_hack,
        "HACK_publish_requested_voltage_current": publish_hack,
        "module_placeholder_allocation_timeout_s": rng.choice((0.05, 1.0, 5.0, 5.0, 8.0)),
        "modbus_timeout_s": rng.choices((30.0, 60.0, 120.0), (10, 30, 60))[0],
        "everest_timeout_s": rng.choices((1.0, 3.0, 5.0, 15.0, 30.0), timeouts)[0],
        "telemetry_topic_prefix": "" if rng.random() < 0.1 else "dispenser/1",
        "error_history": "history" if history else "",
        "send_secure_goose": rng.random() < 0.95,
        "verify_secure_goose": rng.random() < 0.9,
        "allow_insecure_goose": rng.random() < 0.3,
        "goose_replay_protection": rng.choice(("off", "observe", "enforce")),
    }
    # Twice, so that a number is written as it would be read: 24.0, not 24.
    return of_table(msgspec.to_builtins(of_table(table, "simulation")), "simulation")


def _site(rng: random.Random, config: Config, *, heartbeats: bool) -> Site:
    # What comes again and again costs most of the time: a driver's two timers make 2 turns a second already. So
    # rates are low, and lower with many connectors, but for what a seed is lively in.
    lively = rng.choice(("", "", "", "", "", "", "heartbeat", "measure", "setpoint", "psu"))
    slow = max(1.0, len(config.connectors) * 0.6)
    heartbeat_s = 2.0 * slow if lively == "heartbeat" else rng.choice((10.0, 13.0)) * slow
    psu_round_s = 12.0 * slow if lively == "psu" else rng.choice((45.0, 60.0, 90.0))
    # An EVerest or a PSU that is not lost speaks within its timeout.
    psu_round_s = min(psu_round_s, config.modbus_timeout_s * 0.8)
    return Site(
        heartbeat_s=min(heartbeat_s, config.everest_timeout_s / 2.2),
        heartbeats=heartbeats,
        measure_s=1.0 if lively == "measure" else rng.choice((4.8, 4.8, 12.0)),
        setpoint_s=slow if lively == "setpoint" else rng.choice((5.0, 10.0, 20.0)) * slow,
        psu_round_s=psu_round_s,
        psu_first_round_with_ratings=rng.choice((1, 2)) if psu_round_s <= 24 else 1,
        psu_noise=rng.random() < 0.2,
        psu_signs=config.verify_secure_goose or not config.allow_insecure_goose or rng.random() < 0.5,
        own_keys=rng.random() < 0.8,
        stops_on_errors=rng.random() < 0.5,
    )


# --- what happens --------------------------------------------------------------------------------------------


def _events(rng: random.Random, config: Config, seconds: float, *, heartbeats: bool) -> tuple[AnyEvent, ...]:
    events: list[AnyEvent] = []
    for connector in range(1, len(config.connectors) + 1):
        events += _sessions(rng, connector, seconds)
    events += [
        planned.JournalRotates(at_s=round(rng.uniform(1, seconds), 3)) for _ in range(rng.choice((0, 1, 1, 2)))
    ]
    events += _storms(rng, config, seconds, heartbeats=heartbeats)
    inside = (event for event in events if event.at_s < seconds)
    return tuple(sorted(inside, key=lambda event: event.at_s))


def _sessions(rng: random.Random, connector: int, seconds: float) -> list[AnyEvent]:
    """Cars, one after the other, with breaks."""
    events: list[AnyEvent] = []
    break_s = rng.choice((30.0, 120.0, 400.0))
    charge_s = rng.choice((30.0, 100.0, 300.0))
    at_s = rng.uniform(1, 60)
    while at_s < seconds:
        length_s = round(rng.uniform(0.1, 1.5) * charge_s, 1)
        event = planned.Session(
            at_s=round(at_s, 3), connector=connector, seed=rng.getrandbits(32), charge_s=length_s
        )
        events.append(event)
        at_s += 40 + length_s + rng.uniform(0.1, 2) * break_s
    return events


def _storms(rng: random.Random, config: Config, seconds: float, *, heartbeats: bool) -> list[AnyEvent]:
    """Faults of the kinds that this seed has, in storms with a calm after each."""
    draw = Draw(rng, config)
    share = rng.choice((0.0, 0.1, 0.25, 0.25, 0.5, 0.5, 0.8))
    weights = {kind: rng.choice((1, 1, 3, 10)) for kind in KINDS if rng.random() < share}
    if weights and not heartbeats:
        weights["broker_lost"] = 10  # all that such an EVerest can be lost by
    per_minute = rng.choice((0.3, 1.0, 2.0, 4.0, 8.0)) if weights else 0.0
    events: list[AnyEvent] = []
    at_s = START_S
    while at_s < seconds - CALM_AFTER_STORM_S:
        length_s = rng.choice((20.0, 60.0, 180.0, 400.0))
        end_s = min(at_s + length_s, seconds - CALM_AFTER_STORM_S)
        if weights:
            fault_s = at_s + rng.expovariate(per_minute / 60)
            while fault_s < end_s:
                kind = rng.choices(list(weights), list(weights.values()))[0]
                events += [event for event in KINDS[kind](draw, round(fault_s, 6)) if event.at_s < end_s]
                fault_s += rng.expovariate(per_minute / 60)
        events.append(planned.Settles(at_s=round(end_s, 6)))
        at_s = end_s + CALM_AFTER_STORM_S
    return events
