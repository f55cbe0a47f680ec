"""What a turn of the core costs, by kind, on a core that has gone through some minutes of a busy site; and what
handing it over to the recorder costs (journal_cost.py)."""

import gc
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import journal_cost
from figures import Figure, spread
from fusioncharger.messages.inputs import (
    AnyInput,
    HeartbeatReceived,
    PowermeterMeasured,
    RegistersRead,
    RegistersWritten,
    SetpointRequested,
    TimerFired,
)
from fusioncharger.replay.logs import open_logs
from fusioncharger.replay.stepping import recorded_config, restored

THEME = "A turn of the core"
KINDS = {
    SetpointRequested: "setpoint",
    PowermeterMeasured: "power meter's values",
    HeartbeatReceived: "heartbeat",
    RegistersRead: "Modbus read",
    RegistersWritten: "Modbus write",
}
TIMERS = {
    ("psu_link", "report"): "report",
    ("psu_link", "second"): "each second",
    ("telemetry_publisher", "window"): "telemetry published",
}
TURNS = 60_000
QUICK_TURNS = 10_000


def measure(log: list[Path], *, quick: bool) -> list[Figure]:
    """The figures, from the beginning of the log."""
    segment = open_logs(log).segments[0]
    inputs: list[AnyInput] = []
    with segment.read() as reader:
        header = reader.header
        for turn in reader.turns():
            inputs.append(turn.input)
            if len(inputs) == (QUICK_TURNS if quick else TURNS):
                break
    # Each turn's fastest of three rounds: what else happens on the machine only adds to it.
    rounds = [_round(inputs, restored(header, recorded_config(header)).turn) for _ in range(3)]
    costs: dict[str, list[float]] = defaultdict(list)
    for message, *costs_us in zip(inputs, *rounds, strict=True):
        costs[_kind(message)].append(min(costs_us))
        costs["all kinds, as they come"].append(min(costs_us))
    return [
        spread(THEME, name, "us", costs[name])
        for name in (*KINDS.values(), *TIMERS.values(), "all kinds, as they come")
        if len(costs[name]) > 1
    ]


def measure_journal(*, quick: bool) -> list[Figure]:
    """What the journal costs the core thread."""
    paced = journal_cost.measure((2 if quick else 20) * journal_cost.TURNS_PER_S, journal_cost.TURNS_PER_S)
    assert paced.is_complete, "the recorder has not written everything"
    limits = {"p50": 40.0, "p99": 200.0}
    name = f"a turn of an Input and three Outputs, {journal_cost.TURNS_PER_S:,}/s"
    return [
        spread("Hand-over to the recorder", name, "us", paced.turn_us, limits),
        spread("Hand-over to the recorder", "the recorder's lag, looked at every 20 ms", "ms", paced.lags_ms),
    ]


def _round(inputs: Iterable[AnyInput], turn: Callable[[AnyInput], object]) -> list[float]:
    gc.collect()
    gc.freeze()
    costs_us = []
    for message in inputs:
        begin_ns = time.perf_counter_ns()
        turn(message)
        costs_us.append((time.perf_counter_ns() - begin_ns) / 1000)
    return costs_us


def _kind(message: AnyInput) -> str:
    if isinstance(message, TimerFired):
        return TIMERS.get((message.owner, message.name), "other")
    return KINDS.get(type(message), "other")
