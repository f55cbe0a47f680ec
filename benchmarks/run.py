"""All figures of docs/performance.md: `make bench` (about 6 minutes), `make bench QUICK=1` (a minute: that
everything can still be measured, no more). As root, or in `unshare -Urn`.

    python benchmarks/run.py [--quick] [--only THEME …] [--hours H] [-o RESULTS.json] [--docs DOCUMENT]

Prints what was measured beside the limits, as Markdown tables, and keeps it as JSON with the machine's facts.
The exit code is 1 only if something could not be measured: on a busy machine times mean little, and the table
says what exceeds.
"""

import argparse
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import codec_cost
import core_cost
import footprint
import latency
import modbus_speed
import replay_speed
import simulation_speed
from figures import Figure, machine, table, write
from make_log import make_log

LOG_HOURS = 2.0
QUICK_LOG_HOURS = 0.1
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
RESULTS = Path(__file__).parent / "results.json"


def main() -> int:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer of everything")
    parser.add_argument(
        "--only", nargs="+", choices=list(_themes()), metavar="THEME", help=", ".join(_themes())
    )
    parser.add_argument("--hours", type=float, help=f"of the log that is replayed; default: {LOG_HOURS:g}")
    parser.add_argument("-o", "--out", type=Path, default=RESULTS, metavar="FILE")
    parser.add_argument("--docs", type=Path, metavar="FILE", help="put the table into this document as well")
    arguments = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: what was started is ended
        signal.signal(number, signal.default_int_handler)
    hours = arguments.hours or (QUICK_LOG_HOURS if arguments.quick else LOG_HOURS)
    facts = machine()
    figures: list[Figure] = []
    failed: list[str] = []
    for name, measure in _themes().items():
        if arguments.only and name not in arguments.only:
            continue
        print(f"{name} …", file=sys.stderr, flush=True)
        try:
            with tempfile.TemporaryDirectory() as directory:
                figures += measure(Path(directory), hours, arguments.quick)
        except Exception:  # noqa: BLE001 - the other figures are not lost for it
            traceback.print_exc()
            failed.append(name)
    print(f"{_machine_line(facts)}\n")
    print(table(figures))
    write(arguments.out, facts, figures)
    if arguments.docs:
        _put_into(arguments.docs, f"{_machine_line(facts)}\n\n{table(figures)}")
    if failed:
        print(f"\ncould not be measured: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _machine_line(facts: dict[str, object]) -> str:
    cores = f"{facts['cores']} cores"
    return ", ".join(
        str(part) for part in (facts["cpu"], cores, facts["system"], facts["python"], facts["commit"])
    )


def _put_into(document: Path, text: str) -> None:
    """Replace what stands between the two marks."""
    before, begin, rest = document.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin, f"{document} has no {BEGIN}"
    assert end, f"{document} has no {END}"
    document.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def _themes() -> dict[str, Callable[[Path, float, bool], list[Figure]]]:
    return {
        "codec": lambda _directory, _hours, quick: codec_cost.measure(quick=quick),
        "journal": lambda _directory, _hours, quick: core_cost.measure_journal(quick=quick),
        "log": _log,
        "simulation": lambda _directory, _hours, quick: simulation_speed.measure(quick=quick),
        "modbus": lambda directory, _hours, quick: modbus_speed.measure(directory, quick=quick),
        "latency": lambda directory, _hours, quick: latency.measure(directory, quick=quick),
        "footprint": lambda directory, _hours, quick: footprint.measure(directory, quick=quick),
    }


def _log(directory: Path, hours: float, quick: bool) -> list[Figure]:
    """Turns by kind, and replay: of the same log."""
    paths, _, _ = make_log(directory / "log", hours=hours, compress=True)
    return core_cost.measure(paths, quick=quick) + replay_speed.measure(paths, hours)


if __name__ == "__main__":
    sys.exit(main())
