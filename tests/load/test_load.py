"""Four cars charge while the GOOSE interface is flooded and the PSU asks without a pause.

`make load` runs it for 60 s; `make test` for 10 s. LOAD_SECONDS says how long.

    half the time   20 000 frames/s of garbage of all kinds
    the other half  20 000 frames/s that are right in everything but their signature
    all the time    a Modbus peer with 32 requests on their way
    meanwhile       forty setpoints a second, for three connectors; the fourth keeps repeating one request

What floods is nice: on a real site it would run on another machine. A flood that delays something is tried
again, twice: another process that the machine prefers for some milliseconds is no finding.
"""

import contextlib
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fakes.goose_frames import frame_of, reply
from fakes.process_figures import Figures, figures, thirds
from fakes.wire_tap import Arrival, WireTap, repeat_delays_ms
from fusioncharger.messages.goose import PowerRequest
from fusioncharger.messages.inputs import GooseFramesDropped
from fusioncharger.replay.logs import open_logs
from fusioncharger.replay.replayer import replay
from rig import Rig, rig

SECONDS = float(os.environ.get("LOAD_SECONDS", "10"))
FRAMES_PER_S = 20_000
SETPOINT_INTERVAL_S = 0.025
SEGMENT_MIB, KEEP_MIB = 8, 64
ATTEMPTS = 3
FOLDER = Path(__file__).parent
NICE = ["nice", "-n", "5", sys.executable]
MAC = bytes.fromhex("020000000001")


def garbage() -> list[bytes]:
    """GOOSE by its ethertype, and wrong at every place where a frame can be."""
    chance = random.Random(1)
    right = frame_of(reply(5), bytes(range(48)), src=MAC, dst=b"\xff" * 6)
    frames = []
    for _ in range(64):
        frames.append(right[:18] + chance.randbytes(chance.randrange(4, 1400)))  # an APPID by chance
        frames.append(right[:20] + chance.randbytes(chance.randrange(50, 300)))  # its APPID, the rest by chance
        frames.append(right[: chance.randrange(30, len(right) - 1)])
        broken = bytearray(right)
        broken[chance.randrange(20, len(right) - 40)] ^= 0xFF
        frames.append(bytes(broken))
    return frames


def wrongly_signed() -> list[bytes]:
    """Replies to our connectors with a key that nobody has."""
    return [
        frame_of(reply(connector_no), bytes(48 * [n]), st_num=n, src=MAC, dst=b"\xff" * 6)
        for n in range(1, 17)
        for connector_no in (5, 6, 7, 8)
    ]


@contextlib.contextmanager
def modbus_flood(system: Rig) -> Iterator["subprocess.Popen[str]"]:
    """The proxy between driver and mock; the driver's configuration leads to it."""
    command = [*NICE, str(FOLDER / "modbus_flood.py"), str(system.mock_port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as proxy:
        try:
            assert proxy.stdout is not None
            port = int(proxy.stdout.readline())
            text = system.config.read_text()
            text = text.replace(f"psu_port = {system.mock_port}", f"psu_port = {port}")
            journal = f"[journal]\nsegment_MiB = {SEGMENT_MIB}\nkeep_GiB = {KEEP_MIB / 1024}"
            system.config.write_text(text.replace("[journal]", journal))
            yield proxy
        finally:
            proxy.kill()


def tell(proxy: "subprocess.Popen[str]") -> None:
    """Begin to flood, or stop."""
    assert proxy.stdin is not None
    proxy.stdin.write("\n")
    proxy.stdin.flush()


@contextlib.contextmanager
def goose_flood(frames: list[bytes], seconds: float) -> Iterator["subprocess.Popen[str]"]:
    command = [*NICE, str(FOLDER / "goose_flood.py"), "veth0", str(FRAMES_PER_S), str(seconds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as flood:
        try:
            assert flood.stdin is not None
            flood.stdin.write("".join(frame.hex() + "\n" for frame in frames))
            flood.stdin.close()
            yield flood
        finally:
            flood.kill()


class Sampler:
    """Figures of the driver once a second, and the size of its journal."""

    def __init__(self, system: Rig) -> None:
        self.samples: list[Figures] = []
        self.recorder_rss_mib: list[float] = []
        self.journal_mib: list[float] = []
        self._system = system
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.wait(1.0):
            self.samples.append(figures(self._system.driver.popen.pid))
            with contextlib.suppress(OSError):  # a recorder whose segment is full ends
                children = self._system.driver.children()
                self.recorder_rss_mib.append(max(figures(child).rss_mib for child in children))
            sizes = 0
            for path in (self._system.directory / "sessions").iterdir():
                with contextlib.suppress(FileNotFoundError):  # housekeeping is at work
                    sizes += path.stat().st_size
            self.journal_mib.append(sizes / 2**20)


def send_setpoints(system: Rig, seconds: float) -> dict[float, int]:
    """Voltage → when it was published, UTC ns. Each is exact as an f32 and there once."""
    sent = {}
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        n = len(sent)
        voltage_v = 150 + n / 32
        sent[voltage_v] = time.time_ns()
        system.everest.setpoint(1 + n % 3, voltage_v, 20)
        time.sleep(SETPOINT_INTERVAL_S)
    return sent


def latencies_ms(sent: dict[float, int], arrivals: list[Arrival]) -> list[float]:
    arrived: dict[float, int] = {}
    for arrival in arrivals:
        if isinstance(arrival.frame.message, PowerRequest) and arrival.frame.header.sq_num == 0:
            arrived.setdefault(arrival.voltage_v, arrival.at_ns)
    return [(arrived[voltage_v] - at_ns) / 1e6 for voltage_v, at_ns in sent.items()]


def percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def dropped(system: Rig) -> Counter[str]:
    """What the journal says of GOOSE frames that were not taken. The oldest segments may be deleted already."""
    counts: Counter[str] = Counter()
    log = open_logs([system.directory / "sessions"])
    for segment in log.segments:
        with segment.read() as reader:
            for turn in reader.turns():
                if isinstance(turn.input, GooseFramesDropped):
                    counts.update(turn.input.counts)
    return counts


@dataclass(frozen=True)
class Flooded:
    """What was measured under one flood."""

    sent_frames: int
    late_ms: list[float]
    """From each setpoint's publication to its frame."""
    repeats_ms: list[float]
    """How late each retransmission was."""

    def is_in_time(self) -> bool:
        return percentile(self.late_ms, 99) <= 20 and max(self.repeats_ms) <= 50


def flooded(system: Rig, kind: str, frames: list[bytes], seconds: float) -> Flooded:
    """Flood once, and print what came of it."""
    before_s = figures(system.driver.popen.pid).cpu_s
    with WireTap() as tap, goose_flood(frames, seconds) as flood:
        sent = send_setpoints(system, seconds)
        assert flood.stdout is not None
        count = int(flood.stdout.readline())
    arrivals = tap.arrivals()
    measured = Flooded(count, latencies_ms(sent, arrivals), repeat_delays_ms(arrivals))
    cpu = (figures(system.driver.popen.pid).cpu_s - before_s) / seconds
    late, repeats = measured.late_ms, measured.repeats_ms
    print(
        f"\n{kind}: {count} frames ({count / seconds:.0f}/s), driver {cpu:.0%} of a core\n"
        f"  setpoint on MQTT to its frame: p50 {percentile(late, 50):.1f} ms, "
        f"p99 {percentile(late, 99):.1f} ms, max {max(late):.1f} ms (n = {len(late)})\n"
        f"  retransmissions later than they should be: p99 {percentile(repeats, 99):.1f} ms, "
        f"max {max(repeats):.1f} ms (n = {len(repeats)})"
    )
    return measured


def test_floods_delay_nothing_and_fill_nothing(tmp_path: Path) -> None:
    with rig(tmp_path, connectors=4) as system, modbus_flood(system) as proxy:
        system.start_driver()
        for connector in range(1, 5):
            system.charge(connector, voltage_v=100 + connector)
        runs: list[Flooded] = []
        with Sampler(system) as sampler:
            tell(proxy)
            begin_s = time.monotonic()
            for kind, frames in {"garbage": garbage(), "wrongly signed": wrongly_signed()}.items():
                for _ in range(ATTEMPTS):
                    runs.append(flooded(system, kind, frames, SECONDS / 2))
                    if runs[-1].is_in_time():
                        break
                assert runs[-1].is_in_time(), kind
            tell(proxy)
            assert proxy.stdout is not None
            answers = int(proxy.stdout.readline())
            passed_s = time.monotonic() - begin_s
        print(f"Modbus: {answers} requests answered ({answers / passed_s:.0f}/s)")
        assert answers > 300 * passed_s
        check_memory_and_journal(sampler)
        assert system.driver.terminate() == 0
        check_drops(system, sum(run.sent_frames for run in runs), sampler)
        for segment in open_logs([system.directory / "sessions"]).segments[-2:]:
            with segment.read() as reader:
                assert replay(reader).divergence is None


def check_drops(system: Rig, sent_frames: int, sampler: Sampler) -> None:
    """Every frame that was sent is counted, but for what came in the driver's last second; if no segment had to
    be deleted."""
    counts = dropped(system)
    print(f"dropped: {counts.total()} of {sent_frames} frames sent: {dict(counts)}")
    assert counts.total() <= sent_frames
    assert sent_frames > 0.8 * FRAMES_PER_S * SECONDS, "the flood was none"
    first = open_logs([system.directory / "sessions"]).segments[0]
    assert first.header.segment == 1 or max(sampler.journal_mib) > KEEP_MIB / 2, "deleted without need"
    if first.header.segment == 1:
        assert counts.total() > sent_frames - 1.5 * FRAMES_PER_S


def check_memory_and_journal(sampler: Sampler) -> None:
    assert len(sampler.samples) > SECONDS / 2, "the sampler has failed"
    first, last = thirds([sample.rss_mib for sample in sampler.samples])
    print(f"driver: RSS {first:.1f} MiB in the first third, {last:.1f} MiB in the last")
    print(f"recorder: RSS at most {max(sampler.recorder_rss_mib):.1f} MiB")
    print(f"journal: at most {max(sampler.journal_mib):.0f} MiB on the disk (keep: {KEEP_MIB} MiB)")
    assert last - first < 4
    assert max(sampler.recorder_rss_mib) < 64
    assert max(sampler.journal_mib) < KEEP_MIB + 4 * SEGMENT_MIB
