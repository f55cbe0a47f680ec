"""What the journal costs the core thread, and how fast the recorder is (architecture.md §4).

    python benchmarks/journal_cost.py [TURNS]

A turn here is one Input and three Outputs, as a setpoint in mid-charge makes them: at 2 000 turns a second
first, then as fast as the core thread can.
"""

import sys
import tempfile
import time
from pathlib import Path

from fusioncharger.actors.system import build, snapshot
from fusioncharger.messages.config import Config, ConnectorConfig
from fusioncharger.messages.inputs import SetpointRequested
from fusioncharger.messages.outputs import LogWritten, PowerRequested, StartTimer
from fusioncharger.messages.types import Level, PowerRequestMode, RequirementType
from fusioncharger.replay.journal import Journal

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


def measure(turns: int, turns_per_s: int | None) -> list[str]:
    """Record so many turns; a row of the table."""
    input_costs_ns, output_costs_ns = [], []
    with tempfile.TemporaryDirectory() as directory:
        journal = Journal(Path(directory), "0123456789abcdef", CONFIG)
        journal.open(snapshot(build(CONFIG)), 1, 0, UTC_NS)
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
            output_costs_ns.append(time.perf_counter_ns() - between_ns)
            input_costs_ns.append(between_ns - start_ns)
        complete = journal.close(120.0)
        seconds = (time.perf_counter_ns() - begin_ns) / 1e9
        size = sum(path.stat().st_size for path in Path(directory).iterdir())
    rate = f"{turns * (1 + len(OUTPUTS)) / seconds:,.0f}"
    return [
        f"{turns_per_s:,}/s" if turns_per_s else "unpaced",
        *(f"{value:.1f}" for costs in (input_costs_ns, output_costs_ns) for value in quantiles_us(costs)),
        rate,
        f"{size / turns:.0f}",
        "yes" if complete else "NO",
    ]


def quantiles_us(costs_ns: list[int]) -> tuple[float, float]:
    """p50 and p99."""
    ordered = sorted(costs_ns)
    return ordered[len(ordered) // 2] / 1000, ordered[len(ordered) * 99 // 100] / 1000


def main() -> None:
    """Print the table."""
    turns = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    head = ["turns", "input p50", "p99", "outputs p50", "p99 (us)", "records/s", "bytes/turn", "complete"]
    rows = [head, measure(turns, TURNS_PER_S), measure(turns, None)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for row in rows:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


if __name__ == "__main__":
    main()
