"""`fusioncharger simulate`: runs the core through made-up worlds and checks every turn (docs/simulation.md).

Exit codes: 0 all went well, 1 something failed, 2 usage.
"""

import argparse
import gc
import logging
import multiprocessing
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .simulation.plan import Plan, PlanError, read_plan, to_json
from .simulation.run import Failure, Result, run
from .simulation.shrink import Shrinker
from .simulation.swarm import plan_of

FAILED = 1
USAGE = 2
MINUTES = 30.0
MAX_MINUTES = 100_000.0
SHRINK_S = 60.0
CI_SEEDS = 100
"""So many fixed ones, and so many fresh ones."""
CI_MINUTES = 10.0
FRESH_SEEDS = 10**9
"""Fresh seeds are drawn from so many."""
FAILURES = Path("simulation-failures")
SHOWN_TEXT_CHARACTERS = 6000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `simulate` takes."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--seeds", type=_seeds, metavar="A..B", help="run these seeds, both ends included")
    what.add_argument("--plan", type=Path, metavar="FILE", help="run a plan that was written for a failure")
    what.add_argument(
        "--ci",
        action="store_true",
        help=f"run {CI_SEEDS} fixed and {CI_SEEDS} fresh seeds of {CI_MINUTES:g} minutes",
    )
    parser.add_argument(
        "--minutes", type=_minutes, help=f"simulated minutes a seed; default: {MINUTES:g} (a plan has its own)"
    )
    parser.add_argument("--jobs", type=_jobs, help="processes; default: as many as there are cores")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help=f"where plan and log of a failure go; default: {FAILURES}. With --plan or one seed the log is "
        "written whatever comes of it",
    )
    parser.add_argument(
        "--shrink-seconds",
        type=_seconds,
        default=SHRINK_S,
        metavar="S",
        help=f"try so long to make the plan of a failure smaller; 0: do not; default: {SHRINK_S:g}",
    )
    parser.add_argument("--keep-going", action="store_true", help="run all seeds, whatever fails")


def simulate_command(arguments: argparse.Namespace) -> int:
    """Run, report, shrink; the exit code."""
    if arguments.plan is not None:
        if arguments.minutes is not None:
            print("--minutes: a plan has its own length", file=sys.stderr)
            return USAGE
        try:
            plan = read_plan(arguments.plan)
        except PlanError as error:
            print(error, file=sys.stderr)
            return USAGE
        return _run_one(plan, arguments)
    if arguments.ci:
        fresh = random.SystemRandom().randrange(CI_SEEDS, FRESH_SEEDS)
        seeds = [*range(CI_SEEDS), *range(fresh, fresh + CI_SEEDS)]
        minutes = arguments.minutes or CI_MINUTES
        print(
            f"seeds 0..{CI_SEEDS - 1} and {fresh}..{fresh + CI_SEEDS - 1}, {minutes:g} minutes each", flush=True
        )
    else:
        seeds = list(arguments.seeds)
        minutes = arguments.minutes or MINUTES
    if len(seeds) == 1 and arguments.out is not None:
        return _run_one(plan_of(seeds[0], minutes), arguments)
    return _run_seeds(seeds, minutes, arguments)


# --- options -------------------------------------------------------------------------------------------------


def _seeds(text: str) -> range:
    first, dots, last = text.partition("..")
    try:
        begin = int(first)
        end = int(last) if dots else begin
    except ValueError:
        begin, end = 0, -1
    if begin < 0 or end < begin:
        msg = f"found {text!r}; allowed: a number, or two with the smaller one first: 0..1999"
        raise argparse.ArgumentTypeError(msg)
    return range(begin, end + 1)


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes <= MAX_MINUTES:
        msg = f"found {text!r}; allowed: more than 0, up to {MAX_MINUTES:g}"
        raise argparse.ArgumentTypeError(msg)
    return minutes


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        msg = f"found {text!r}; allowed: 0 or more"
        raise argparse.ArgumentTypeError(msg)
    return seconds


def _jobs(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        msg = f"found {text!r}; allowed: 1 to 1024"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


# --- running -------------------------------------------------------------------------------------------------


def _prepare() -> None:
    """Before the first run of a process."""
    gc.freeze()  # what there is by now is no garbage
    logging.getLogger("pymodbus").setLevel(logging.CRITICAL)  # it says what it cannot read


def _run_seed(minutes: float, seed: int) -> tuple[int, Result]:
    return seed, run(plan_of(seed, minutes))


def _results(seeds: list[int], minutes: float, jobs: int) -> Iterator[tuple[int, Result]]:
    """As they come."""
    if jobs == 1 or len(seeds) == 1:
        _prepare()
        yield from map(partial(_run_seed, minutes), seeds)
        return
    # A fresh interpreter for each worker: what this one has done has no influence.
    with multiprocessing.get_context("spawn").Pool(min(jobs, len(seeds)), _prepare) as pool:
        yield from pool.imap_unordered(partial(_run_seed, minutes), seeds)


def _run_seeds(seeds: list[int], minutes: float, arguments: argparse.Namespace) -> int:
    summary = _Summary()
    failed: list[int] = []
    jobs = arguments.jobs or os.cpu_count() or 1
    for done, (seed, result) in enumerate(_results(seeds, minutes, jobs), 1):
        _show(f"{done} of {len(seeds)} seeds")
        summary.add(result)
        if result.failure is not None:
            failed.append(seed)
            if not arguments.keep_going:
                break
    _show("")
    print(summary.text(), flush=True)
    for seed in sorted(failed):
        _report(plan_of(seed, minutes), f"seed {seed}", arguments)
    return FAILED if failed else 0


def _run_one(plan: Plan, arguments: argparse.Namespace) -> int:
    result = run(plan, arguments.out)
    summary = _Summary()
    summary.add(result)
    print(summary.text(), flush=True)
    print(f"log: sha256 {result.log_sha256}" + (f", in {arguments.out}" if arguments.out else ""))
    if result.failure is None:
        return 0
    _report(plan, f"plan of seed {plan.seed}", arguments)
    return FAILED


def _show(text: str) -> None:
    """How far it is, where somebody looks."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


class _Summary:
    """What a number of runs were like."""

    def __init__(self) -> None:
        self._begin_s = time.monotonic()
        self._results: list[Result] = []
        self._happened: Counter[str] = Counter()

    def add(self, result: Result) -> None:
        """One more run."""
        self._results.append(result)
        self._happened.update(result.happened)

    def text(self) -> str:
        """All of it."""
        results = self._results
        passed_s = time.monotonic() - self._begin_s
        hours = sum(result.seconds for result in results) / 3600
        turns = sum(result.turns for result in results)
        begun = sum(result.charges_begun for result in results)
        done = sum(result.charges_done for result in results)
        settled = sum(result.settled for result in results)
        processes = sum(result.processes for result in results)
        segments = sum(result.segments for result in results)
        raised = sum(result.handlers_raised for result in results)
        by_connectors = Counter(result.connectors for result in results)
        connectors = ", ".join(f"{count} with {number}" for number, count in sorted(by_connectors.items()))
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self._happened.items()))
        return (
            f"{len(results)} runs ({connectors} connectors), {hours:.1f} simulated hours in {passed_s:.1f} s: "
            f"{hours / passed_s * 60:.0f} h/minute\n"
            f"{turns} turns ({turns / len(results):.0f} a run), {processes} driver processes, {segments} "
            f"segments replayed, {raised} handlers raised\n"
            f"{begun} charges begun, {done} of them undisturbed; all well again after {settled} storms\n"
            f"events: {kinds}"
        )


# --- failures ------------------------------------------------------------------------------------------------


def _report(plan: Plan, what: str, arguments: argparse.Namespace) -> None:
    """What failed, how to see it again, and the same made smaller. It is run once more, to get its log."""
    directory = (arguments.out or FAILURES) / f"seed-{plan.seed}"
    failure = run(plan, directory / "log").failure
    if failure is None:
        print(f"{what} failed, and not when it was run again: the simulation itself is not deterministic")
        return
    again = _write_plan(plan, directory / "plan.json")
    print(f"\nFAILED {what}: {_failure_text(failure)}")
    minutes = plan.seconds / 60
    if plan == plan_of(plan.seed, minutes):
        again = f"fusioncharger simulate --seeds {plan.seed} --minutes {minutes:g}"
    print(f"again:   {again}")
    print(f"log:     {directory / 'log'}/process-{failure.process}", flush=True)
    if arguments.shrink_seconds > 0:
        _shrink(plan, failure, directory, arguments.shrink_seconds)


def _shrink(plan: Plan, failure: Failure, directory: Path, shrink_s: float) -> None:
    end_s = time.monotonic() + shrink_s
    tries = 0

    def tried(smallest: Plan) -> None:
        nonlocal tries
        tries += 1
        _show(f"shrinking: {tries} runs, {len(smallest.events)} events")

    shrinker = Shrinker(plan, failure, lambda: time.monotonic() < end_s, tried)
    shrinker.shrink()
    _show("")
    small = shrinker.plan
    run(small, directory / "small-log")
    again = _write_plan(small, directory / "small-plan.json")
    print(
        f"\nsmaller ({tries} runs): {len(small.events)} of {len(plan.events)} events, "
        f"{small.seconds:.1f} of {plan.seconds:.0f} s, {len(small.config.connectors)} connectors: "
        f"{_failure_text(shrinker.failure)}"
    )
    print(f"again:   {again}")
    print(f"log:     {directory / 'small-log'}/process-{shrinker.failure.process}", flush=True)


def _write_plan(plan: Plan, path: Path) -> str:
    """Write it; the command that runs it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(to_json(plan))
    return f"fusioncharger simulate --plan {path}"


def _failure_text(failure: Failure) -> str:
    turn = f"turn {failure.turn} of process {failure.process}" if failure.turn else f"process {failure.process}"
    text = failure.text[:SHOWN_TEXT_CHARACTERS]
    return f"{failure.invariant}\n  at {failure.at_s:.6f} s, {turn}\n  " + text.replace("\n", "\n  ")
