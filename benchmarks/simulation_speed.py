"""How fast `fusioncharger simulate` is: whole plans of four connectors, with all that goes wrong in them, every
turn checked, every log replayed; a process for each core, as the command does it."""

import multiprocessing
import os
import time
from collections.abc import Iterator
from itertools import count, islice

from figures import Figure
from fusioncharger.app.simulation.plan import Plan
from fusioncharger.app.simulation.run import Result, run
from fusioncharger.app.simulation.swarm import plan_of

CONNECTORS = 4
MINUTES = 30.0
PLANS = 8
QUICK_MINUTES = 5.0
LIMIT_HOURS_PER_MINUTE = 30.0


def measure(*, quick: bool) -> list[Figure]:
    """The figures."""
    minutes = QUICK_MINUTES if quick else MINUTES
    plans = list(islice(_plans(minutes), PLANS))
    cores = len(os.sched_getaffinity(0))
    with multiprocessing.Pool(cores) as pool:
        begin_s = time.perf_counter()
        results = pool.map(_run, plans, chunksize=1)
        passed_s = time.perf_counter() - begin_s
    hours = sum(result.seconds for result in results) / 3600
    name = f"simulated hours of {CONNECTORS} connectors in a minute, {cores} processes"
    return [
        Figure(
            theme="Simulation",
            name=name,
            unit="h",
            values={"": hours / passed_s * 60},
            at_least={"": LIMIT_HOURS_PER_MINUTE},
        ),
        Figure(
            theme="Simulation",
            name="turns, checked and replayed",
            unit="turns/s",
            values={"": sum(result.turns for result in results) / passed_s},
        ),
    ]


def _plans(minutes: float) -> Iterator[Plan]:
    for seed in count():
        plan = plan_of(seed, minutes)
        if len(plan.config.connectors) == CONNECTORS:
            yield plan


def _run(plan: Plan) -> Result:
    result = run(plan)
    assert result.failure is None, result.failure
    return result
