"""Makes the log of so many hours at a dispenser, in minutes: the real core on virtual time, against the mock's
model of the power unit and scripted cars (world/).

    python benchmarks/make_log.py --hours 24 --connectors 4 --seed 1 --compress -o DIRECTORY

The same arguments make the same bytes, as long as the versions of package, Python and libraries are the same.
"""

import argparse
import random
import sys
import time
from pathlib import Path

from world.day import HOUR_S, Day, site_config
from world.recording import Recording

SEGMENT_MIB = 64


def make_log(
    directory: Path,
    *,
    hours: float,
    connectors: int = 4,
    seed: int = 1,
    compress: bool = False,
    segment_mib: float = SEGMENT_MIB,
) -> tuple[list[Path], int, int]:
    """Make a log; its segments, its turns and the charging sessions in it."""
    config = site_config(connectors)
    run_id = random.Random(seed).randbytes(16).hex()
    recording = Recording(
        directory, run_id, config, segment_bytes=round(segment_mib * 2**20), is_compressed=compress
    )
    day = Day(config, recording, seed)
    day.begin()
    show = sys.stderr.isatty()
    step_s = 60.0
    for minute in range(1, int(hours * HOUR_S / step_s) + 1):
        day.run_until(minute * step_s)
        if show and minute % 10 == 0:
            print(f"\r{minute / 60:.1f} h, {day.driver.turns} turns", end="", file=sys.stderr)
    day.run_until(hours * HOUR_S)
    day.end()
    if show:
        print(file=sys.stderr)
    return recording.paths, day.driver.turns, day.site.sessions


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
