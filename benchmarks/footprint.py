"""What the driver costs while nothing happens, and how long it takes to start.

Idle: car unplugged, power unit and broker connected, a report each second, EVerest's heartbeat each second.
Memory is what the kernel counts as resident for driver and recorder, pages that they share with each other and
with others counted in full.
"""

import subprocess
import sys
import time
from pathlib import Path

from figures import Figure, spread

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from rig import Process, Rig, rig

IDLE = "Idle"
STARTS = 10
IDLE_S = 30.0
SETTLE_S = 15.0
"""The mock's first three rounds are over by then, and with them its first writing of the ratings."""
CPU_LIMIT_PERCENT = 0.5
RSS_LIMIT_MB = 90.0
SITES = ((1, False), (4, False), (1, True), (4, True))
"""Connectors, TLS."""


def measure(directory: Path, *, quick: bool) -> list[Figure]:
    """The figures; about 3 minutes, or 30 s."""
    figures = [_start(directory / "start", 2 if quick else STARTS)]
    # One after the other: each at work chills the others' caches, which costs a fifth more.
    for connectors, has_tls in SITES:
        figures += _idle(directory, connectors, has_tls=has_tls, quick=quick)
    return figures


def _start(directory: Path, count: int) -> Figure:
    directory.mkdir()
    times_s = []
    with rig(directory) as system:
        for _ in range(count):
            mark = system.mock.events.mark()
            begin_ns = time.monotonic_ns()
            driver = Process(["-m", "fusioncharger", "run", "--config", str(system.config)])
            system.mock.events.wait(lambda event: event["event"] == "connected", after=mark)
            times_s.append((time.monotonic_ns() - begin_ns) / 1e9)
            driver.kill()
    return spread("Start", "process start → first Modbus connection", "s", times_s)


def _idle(directory: Path, connectors: int, *, has_tls: bool, quick: bool) -> list[Figure]:
    place = directory / f"{connectors}-{has_tls}"
    place.mkdir()
    settings, certificates = "", ()
    if has_tls:
        subprocess.run(
            [sys.executable, "-m", "fusioncharger", "certs", str(place / "pem")],
            capture_output=True,
            check=True,
        )
        settings = f"""
tls_enabled = true
psu_ca_cert = "{place}/pem/psu_ca.crt.pem"
client_cert = "{place}/pem/dispenser.crt.pem"
client_key = "{place}/pem/dispenser.key.pem"
"""
        certificates = (str(place / "pem"),)
    options = ("--ratings-at-once", *certificates)
    with rig(place, connectors=connectors, settings=settings, mock_options=options) as system:
        system.start_driver()
        system.everest.start_heartbeats(connectors, 1.0)
        return _watch(system, connectors, has_tls=has_tls, quick=quick)


def _watch(system: Rig, connectors: int, *, has_tls: bool, quick: bool) -> list[Figure]:
    time.sleep(2 if quick else SETTLE_S)
    driver = system.driver
    (recorder,) = [pid for pid in driver.children() if "recorder" in Path(f"/proc/{pid}/cmdline").read_text()]
    pids = {"driver": driver.popen.pid, "recorder": recorder}
    begin_s, before_s = time.monotonic(), {name: _cpu_s(pid) for name, pid in pids.items()}
    time.sleep(4 if quick else IDLE_S)
    elapsed_s = time.monotonic() - begin_s
    cpu = {name: (_cpu_s(pid) - before_s[name]) / elapsed_s * 100 for name, pid in pids.items()}
    rss = {name: _rss_mb(pid) for name, pid in pids.items()}
    at = f"{connectors} connector{'s' if connectors > 1 else ''}, {'TLS' if has_tls else 'plain'}"
    return [
        Figure(
            theme=IDLE,
            name=f"CPU, {at}",
            unit="% of one core",
            values={"": sum(cpu.values()), **cpu},
            at_most={"": CPU_LIMIT_PERCENT},
        ),
        Figure(
            theme=IDLE,
            name=f"memory, {at}",
            unit="MB",
            values={"": sum(rss.values()), **rss},
            at_most={"": RSS_LIMIT_MB},
        ),
    ]


def _cpu_s(pid: int) -> float:
    """Of all threads there are, to the ns (/proc/PID/stat counts 10 ms)."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def _rss_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Rss:")) * 1024 / 1e6
