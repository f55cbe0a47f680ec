"""What reading and replaying a long log cost (docs/performance.md).

    python benchmarks/make_log.py --hours 24 -o DIRECTORY
    python benchmarks/replay_speed.py DIRECTORY

Two tables: the commands as a user runs them, on the whole log, with their largest memory; and the parts of a
replay in this process, on the log's first segment, each by itself.
"""

import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from figures import Figure
from fusioncharger.messages.inputs import AnyInput
from fusioncharger.replay.log_format import is_intact
from fusioncharger.replay.logs import Log, Segment, open_logs
from fusioncharger.replay.reader import LogReader
from fusioncharger.replay.replayer import replay
from fusioncharger.replay.stepping import recorded_config, restored
from msgspec import Struct

KIB = 1024
MIB = 2**20
REPLAY_LIMIT = 50_000.0
MEMORY_LIMIT_MIB = 300.0
AT_LIMIT_S = 5.0
INFO_LIMIT_S = 20.0


def _timed(work: Callable[[], object]) -> float:
    """CPU time: what others do on the machine meanwhile does not count."""
    begin_s = time.process_time()
    work()
    return time.process_time() - begin_s


def _read_records(segment: Segment) -> list[tuple[str, bytes]]:
    """Topic and payload of every record but the header."""
    with segment.read() as log:
        return [(message[0], message[4]) for message in _rest(log)]


def _rest(log: LogReader) -> list[tuple[str, int, int, int, bytes]]:
    return list(log._messages)


def parts(segment: Segment) -> list[list[str]]:
    """Rows: what, seconds, turns/s, records/s."""
    records = _read_records(segment)
    with segment.read() as log:
        header, inputs = log.header, [turn.input for turn in log.turns()]
    payloads = [payload for topic, payload in records if topic.startswith("in/")]
    decoder = msgspec.json.Decoder(AnyInput)
    runtime = restored(header, recorded_config(header))
    gc.collect()
    gc.freeze()  # else every collection goes through all that is held here

    def only_read() -> None:
        with segment.read() as log:
            for _ in log._messages:
                pass

    def only_check() -> None:
        for _, payload in records:
            is_intact(payload)

    def only_decode() -> None:
        for payload in payloads:
            decoder.decode(payload)

    def only_act() -> None:
        turn = runtime.turn
        for message in inputs:
            turn(message)

    def read_turns() -> None:
        with segment.read() as log:
            for _ in log.turns():
                pass

    def whole() -> None:
        with segment.read() as log:
            found = replay(log)
            assert found.divergence is None
            assert found.turns == len(inputs)

    works: list[tuple[str, Callable[[], object]]] = [
        ("reading records", only_read),
        ("checking CRCs", only_check),
        ("decoding inputs", only_decode),
        ("reading turns (the three above)", read_turns),
        ("actors", only_act),
        ("replay (all of it, and comparing)", whole),
    ]
    rows = [["part", "s", "turns/s", "records/s"]]
    for name, work in works:
        seconds = _timed(work)
        rows.append([name, f"{seconds:.2f}", f"{len(inputs) / seconds:,.0f}", f"{len(records) / seconds:,.0f}"])
    return rows


def commands(log: Log, paths: list[Path]) -> list[list[str]]:
    """Rows: command, seconds, largest memory, exit code and its last line."""
    first, last = log.segments[0], log.segments[-1]
    middle = (first.header.first_turn + last.header.first_turn) // 2
    names = [str(path) for path in paths]
    rows = [["command", "s", "MiB", "exit", "says last"]]
    for shown, arguments in (
        ("replay LOG", ["replay", *names]),
        (f"replay LOG --at {middle}", ["replay", *names, "--at", str(middle)]),
        ("log info LOG", ["log", "info", *names]),
    ):
        run = _run(arguments)
        rows.append([shown, f"{run.seconds:.1f}", f"{run.rss_mib:.0f}", str(run.code), run.said])
    return rows


class _Run(Struct):
    """What a command took, its exit code and its last line."""

    seconds: float
    cpu_s: float
    rss_mib: float
    code: int
    said: str


def _run(arguments: list[str]) -> _Run:
    begin_s = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "fusioncharger", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    last = ""
    for line in process.stdout:
        last = line.rstrip() or last
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    return _Run(
        seconds=time.perf_counter() - begin_s,
        cpu_s=usage.ru_utime + usage.ru_stime,
        rss_mib=usage.ru_maxrss * KIB / MIB,
        code=process.returncode,
        said=last[:60],
    )


def measure(paths: list[Path], hours: float) -> list[Figure]:
    """The figures of `make bench`."""
    log = open_logs(paths)
    theme = f"A log of {hours:g} h at four connectors"
    turns = _turns(log)
    found = []
    middle = log.segments[0].header.first_turn + turns // 2
    names = [str(path) for path in paths]
    for shown, arguments, limit_s in (
        ("replay", ["replay", *names], None),
        ("replay --at the middle", ["replay", *names, "--at", str(middle)], AT_LIMIT_S),
        ("log info", ["log", "info", *names], INFO_LIMIT_S),
    ):
        run = _run(arguments)
        assert run.code == 0, run.said
        if limit_s is None:
            rates = {"": turns / run.seconds, "by CPU time": turns / run.cpu_s}
            limits = {"": REPLAY_LIMIT}
            name = f"{shown}, process start included"
            found.append(Figure(theme=theme, name=name, unit="turns/s", values=rates, at_least=limits))
            limits = {"": MEMORY_LIMIT_MIB}
            name = f"{shown}, memory"
            found.append(Figure(theme=theme, name=name, unit="MiB", values={"": run.rss_mib}, at_most=limits))
        else:
            limits = {"": limit_s}
            found.append(Figure(theme=theme, name=shown, unit="s", values={"": run.seconds}, at_most=limits))
    for name, _, turns_per_s, _ in parts(log.segments[0])[1:]:
        rate = float(turns_per_s.replace(",", ""))
        found.append(Figure(theme=theme, name=name, unit="turns/s", values={"": rate}))
    return found


def _turns(log: Log) -> int:
    with log.segments[-1].read() as reader:
        last = sum(1 for _ in reader.turns())
    return log.segments[-1].header.first_turn + last - log.segments[0].header.first_turn


def show(rows: list[list[str]]) -> None:
    """Print a table."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:4], widths[1:4], strict=False)]
        print("  ".join([*cells, *row[4:]]))
    print()


def main() -> int:
    """Print the tables."""
    paths = [Path(argument) for argument in sys.argv[1:]]
    if not paths:
        print(__doc__, file=sys.stderr)
        return 2
    log = open_logs(paths)
    size_mib = sum(segment.size_bytes for segment in log.segments) / MIB
    print(f"{len(log.segments)} segments, {size_mib:.0f} MiB\n")
    # First, while this process is small: a child's largest memory begins with what its parent had.
    show(commands(log, paths))
    print("on the first segment:\n")
    show(parts(log.segments[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
