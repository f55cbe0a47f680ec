"""What the journal costs the core thread, and how fast the recorder is (architecture.md §4).

    python benchmarks/journal_cost.py [SECONDS]

A turn here is one Input and three Outputs, as a setpoint in mid-charge makes them: at 2 000 turns a second for
so long (60 s), with the changes to the next segment that it brings, then as fast as the core thread can. The
recorder's lag is from handing a turn over to its being in the file, looked at every 20 ms.
"""

import fcntl
import sys
import tempfile
import threading
import time
from pathlib import Path

from fusioncharger.actors.system import build, snapshot
from fusioncharger.messages.config import Config, ConnectorConfig
from fusioncharger.messages.inputs import SetpointRequested
from fusioncharger.messages.outputs import LogWritten, PowerRequested, StartTimer
from fusioncharger.messages.types import Level, PowerRequestMode, RequirementType
from fusioncharger.replay.housekeeping import LOCK_NAME
from fusioncharger.replay.journal import Journal
from msgspec import Struct

TURNS_PER_S = 2_000
UTC_NS = 1_795_000_000_000_000_000

CONFIG = Config(
    connectors=(
        ConnectorConfig(
            global_connector_number=1,
            max_export_current_A=200.0,
            max_export_power_W=60_000.0,
            power_supply_DC="psu_1",
            evse_board_support="bsp_1",
        ),
    )
)

OUTPUTS = (
    PowerRequested(
        connector=1,
        connector_no=1,
        dst=bytes(6),
        st_num=12,
        t_ns=UTC_NS,
        requirement_type=RequirementType.CHARGING,
        mode=PowerRequestMode.CONSTANT_CURRENT,
        voltage_v=400.0,
        current_a=125.0,
    ),
    StartTimer(owner="connector/1", name="allocation", number=4, delay_ns=5_000_000_000),
    LogWritten(level=Level.INFO, connector=1, text="400 V, 125 A requested"),
)


class Watch:
    """Looks at how much is in the files, in a thread of its own."""

    def __init__(self, directory: Path) -> None:
        self.samples: list[tuple[int, int]] = []
        """When, and bytes in all segments."""
        self._directory = directory
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            size = sum(path.stat().st_size for path in self._directory.glob("*.mcap"))
            self.samples.append((time.perf_counter_ns(), size))

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


class Recorded(Struct):
    """What so many turns cost."""

    rate: str
    turns: int
    input_us: list[float]
    """Of each turn, handing the Input over."""
    turn_us: list[float]
    """Input and Outputs."""
    switches_us: list[float]
    lags_ms: list[float]
    records_per_s: float
    bytes_per_turn: float
    is_complete: bool

    def row(self) -> list[str]:
        """Of the table."""
        return [
            self.rate,
            f"{self.turns:,}",
            *(f"{value:.1f}" for costs in (self.input_us, self.turn_us) for value in _quantiles(costs)),
            f"{len(self.switches_us)}: {max(self.switches_us, default=0):.0f}",
            f"{max(self.lags_ms, default=0.0):.0f}",
            f"{self.records_per_s:,.0f}",
            f"{self.bytes_per_turn:.0f}",
            "yes" if self.is_complete else "NO",
        ]


def measure(turns: int, turns_per_s: int | None) -> Recorded:
    """Record so many turns."""
    turn_costs_ns, input_costs_ns, switch_costs_ns = [], [], []
    handed_over_ns = [0]
    runtime = build(CONFIG)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with (directory / LOCK_NAME).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # nothing is compressed: the files' sizes are looked at
            journal = Journal(directory, "0123456789abcdef", CONFIG)
            journal.open(snapshot(runtime), 1, 0, UTC_NS)
            watch = Watch(directory)
            begin_ns = time.perf_counter_ns()
            for turn in range(1, turns + 1):
                if turns_per_s:
                    wait_s = (begin_ns + turn * 10**9 // turns_per_s - time.perf_counter_ns()) / 1e9
                    time.sleep(max(0.0, wait_s))
                at_ns = time.perf_counter_ns()
                message = SetpointRequested(connector=1, voltage_v=400.0, current_a=125.0, at_ns=at_ns)
                start_ns = time.perf_counter_ns()
                journal.record_input(turn, UTC_NS + at_ns, message)
                between_ns = time.perf_counter_ns()
                journal.record_outputs(turn, at_ns, UTC_NS + at_ns, OUTPUTS)
                end_ns = time.perf_counter_ns()
                turn_costs_ns.append(end_ns - start_ns)
                input_costs_ns.append(between_ns - start_ns)
                handed_over_ns.append(end_ns)
                if turn % 2000 == 0:  # what the main thread does, once in a while
                    journal.read_reports()
                    if journal.is_due(0) and not journal.is_prepared:
                        journal.prepare_replacement(UTC_NS + turn)
                    if journal.is_ready:
                        start_ns = time.perf_counter_ns()
                        assert journal.begin_segment(snapshot(runtime), turn + 1, at_ns, UTC_NS + at_ns)
                        switch_costs_ns.append(time.perf_counter_ns() - start_ns)
            complete = journal.close(120.0)
            seconds = (time.perf_counter_ns() - begin_ns) / 1e9
            watch.stop()
            size = sum(path.stat().st_size for path in directory.glob("*.mcap"))
    lags_ms = []
    for when_ns, bytes_there in watch.samples:
        there = min(turns, bytes_there * turns // size)
        if there and when_ns < handed_over_ns[-1]:
            waiting = next((at for at in handed_over_ns[there + 1 :] if at <= when_ns), when_ns)
            lags_ms.append((when_ns - waiting) / 1e6)
    return Recorded(
        rate=f"{turns_per_s:,}/s" if turns_per_s else "unpaced",
        turns=turns,
        input_us=[cost / 1000 for cost in input_costs_ns],
        turn_us=[cost / 1000 for cost in turn_costs_ns],
        switches_us=[cost / 1000 for cost in switch_costs_ns],
        lags_ms=lags_ms,
        records_per_s=turns * (1 + len(OUTPUTS)) / seconds,
        bytes_per_turn=size / turns,
        is_complete=complete,
    )


def _quantiles(costs: list[float]) -> tuple[float, float]:
    """p50 and p99."""
    ordered = sorted(costs)
    return ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]


def main() -> None:
    """Print the table."""
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    head = ["rate", "turns", "input p50", "p99", "turn p50", "p99 (us)", "switches: us", "lag (ms)"]
    head += ["records/s", "bytes/turn", "complete"]
    rows = [head, measure(seconds * TURNS_PER_S, TURNS_PER_S).row(), measure(20_000, None).row()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for row in rows:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


if __name__ == "__main__":
    main()
