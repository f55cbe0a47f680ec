"""Endurance: `make soak` (10 minutes; MINUTES=N). Real driver, mock and mosquitto, at 60 times the usual rate.

    four connectors    charge one short session after the other, with all that belongs to one
    the devices        each measures 60 times a second
    every 10 s         in turn: the link is cut, the broker restarts, EVerest restarts, the PSU restarts
    the journal        small segments, so that it rotates all the time, and keeps few of them

Memory, descriptors, threads and processes of the driver are sampled once a second and have to stay as they are.
In the end each connector charges once more without a fault, nothing failed meanwhile, and the whole log (closed
segments are linked into an archive before they can be deleted) replays as identical.
"""

import contextlib
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from fakes.process_figures import figures, thirds
from fakes.tcp_proxy import TcpProxy
from rig import Rig, rig

MINUTES = float(os.environ.get("SOAK_MINUTES", "10"))
CONNECTORS = 4
MEASUREMENTS_PER_S = 60
DISTURBANCE_INTERVAL_S = 10.0
SEGMENT_MIB, KEEP_MIB = 4, 16
RSS_GROWTH_MIB = 3.0
"""From the first third to the last; the allocator's own ups and downs are about 1 MiB."""
WARM_UP_SAMPLES = 60
"""Until every kind of thing has happened once, memory grows by some 2 MiB; a quarter of a short run at most."""
WAIT_S = 5.0


class Sessions:
    """A thread for each connector, which charges session after session."""

    def __init__(self, system: Rig) -> None:
        self.completed = 0
        self.aborted = 0
        """By a disturbance."""
        self._system = system
        self._closing = threading.Event()
        self._counting = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, args=(connector,), daemon=True)
            for connector in range(1, CONNECTORS + 1)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._closing.set()
        for thread in self._threads:
            thread.join()

    def _run(self, connector: int) -> None:
        for n in itertools.count():
            if self._closing.is_set():
                return
            try:
                charge_once(self._system, connector, n)
                with self._counting:
                    self.completed += 1
            except AssertionError:
                with self._counting:
                    self.aborted += 1
                self._system.everest.mode(connector, "Off", "Other")
                self._system.everest.bsp(connector, "A")
                self._closing.wait(0.5)


def charge_once(system: Rig, connector: int, n: int) -> None:
    """From plug-in to plug-out. AssertionError if something does not come in time."""
    everest, mark = system.everest, system.mock.events.mark()
    everest.bsp(connector, "B")
    system.wait_key(connector, after=mark)
    voltage_v = 300 + n % 400
    for phase, requirement in (
        ("CableCheck", "INSULATION_DETECTION_VOLTAGE_OUTPUT"),
        ("PreCharge", "PRECHARGE_VOLTAGE_OUTPUT"),
        ("Charging", "CHARGING"),
    ):
        everest.setpoint(connector, voltage_v, 10)
        everest.mode(connector, "Export", phase)
        system.wait_power(connector, requirement, voltage_v, after=mark, timeout_s=WAIT_S)
    everest.bsp(connector, "PowerOn")
    for step in range(1, 6):
        everest.setpoint(connector, voltage_v + step, 20)
        system.wait_power(connector, "CHARGING", voltage_v + step, after=mark, timeout_s=WAIT_S)
    everest.bsp(connector, "PowerOff")
    mark = system.mock.events.mark()
    everest.mode(connector, "Off", "Other")
    system.wait_stop(connector, after=mark, timeout_s=WAIT_S)
    mark = system.mock.events.mark()
    everest.bsp(connector, "A")
    # Reported as STANDBY (0): what comes next is the next car's.
    system.wait_report({f"{connector}/working_status": 0}, after=mark, timeout_s=WAIT_S)


class Sampler:
    """Once a second: the driver's figures, its recorders' memory; and closed segments go into the archive."""

    def __init__(self, system: Rig, archive: Path) -> None:
        self.rss_mib: list[float] = []
        self.descriptors: list[float] = []
        self.threads: list[float] = []
        self.children: list[float] = []
        self.recorder_rss_mib: list[float] = []
        self.errors: list[str] = []
        """What the driver logged as such."""
        self._system = system
        self._archive = archive
        self._sessions = system.directory / "sessions"
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._archive.mkdir()
        self._thread.start()

    def stop(self) -> None:
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.wait(1.0):
            self._sample()
            self.archive()
            self.read_log()
            self._system.mock.events.forget(self._system.mock.events.mark() - 20_000)
            self._system.everest.messages.forget(self._system.everest.messages.mark() - 20_000)

    def _sample(self) -> None:
        now = figures(self._system.driver.popen.pid)
        children = self._system.driver.children()
        self.rss_mib.append(now.rss_mib)
        self.descriptors.append(now.descriptors)
        self.threads.append(now.threads)
        self.children.append(len(children))
        for child in children:
            with contextlib.suppress(OSError):  # its segment is full: it ends
                if b"replay.recorder" in Path(f"/proc/{child}/cmdline").read_bytes():
                    self.recorder_rss_mib.append(figures(child).rss_mib)

    def read_log(self) -> None:
        log = self._system.driver.log
        mark = log.mark()
        self.errors += [line for line in log.all() if " ERROR " in line]
        log.forget(mark)

    def archive(self) -> None:
        """Link what is there; a segment that was compressed meanwhile takes the plain one's place."""
        for path in self._sessions.glob("*.mcap"):
            linked = self._archive / path.name
            with contextlib.suppress(FileNotFoundError):  # deleted just now: it was linked before
                if not linked.exists() or linked.stat().st_ino != path.stat().st_ino:
                    linked.unlink(missing_ok=True)
                    linked.hardlink_to(path)


def print_and_check(sampler: Sampler, minutes: float) -> None:
    """Flat: the last third against the first, after a minute."""
    assert len(sampler.rss_mib) > minutes * 20, "the sampler has failed"
    for name, values, unit, limit in (
        ("driver RSS", sampler.rss_mib, "MiB", RSS_GROWTH_MIB),
        ("driver descriptors", sampler.descriptors, "", 2.0),
        ("driver threads", sampler.threads, "", 0.5),
        ("recorder processes", sampler.children, "", 0.5),
        ("recorder RSS", sampler.recorder_rss_mib, "MiB", RSS_GROWTH_MIB),
    ):
        first, last = thirds(values[min(WARM_UP_SAMPLES, len(values) // 4) :])
        slope_per_h = (last - first) / (minutes * 2 / 3) * 60
        print(
            f"{name}: {first:.1f} {unit} in the first third, {last:.1f} in the last, "
            f"{slope_per_h:+.1f} an hour; {min(values):.0f} to {max(values):.0f} (n = {len(values)})"
        )
        assert last - first <= limit, name


def disturbances(system: Rig, proxy: TcpProxy) -> list[tuple[str, Callable[[], None]]]:
    def cut_link() -> None:
        proxy.cut()
        proxy.restore()

    def restart_broker() -> None:
        system.everest.stop_heartbeats()
        system.broker.kill()
        system.broker.start()
        restart_everest()

    def restart_everest() -> None:
        system.reconnect_everest()
        system.everest.start_heartbeats(CONNECTORS)

    def restart_psu() -> None:
        system.restart_mock("--ratings-at-once")

    return [
        ("link cut", cut_link),
        ("broker restarted", restart_broker),
        ("EVerest restarted", restart_everest),
        ("PSU restarted", restart_psu),
    ]


def configure(system: Rig, psu_port: int) -> None:
    text = system.config.read_text().replace(f"psu_port = {system.mock_port}", f"psu_port = {psu_port}")
    journal = f"[journal]\nsegment_MiB = {SEGMENT_MIB}\nkeep_GiB = {KEEP_MIB / 1024}"
    system.config.write_text(text.replace("[journal]", journal))
    system.topics = ("telemetry/status", "everest_api/1/power_supply_DC/+/m2e/mode")


def test_endurance(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    with rig(tmp_path, connectors=CONNECTORS) as system, TcpProxy(system.mock_port) as proxy:
        configure(system, proxy.port)
        system.reconnect_everest()
        measuring = [sys.executable, str(Path(__file__).parent / "measurements.py"), str(system.broker.port)]
        devices = subprocess.Popen([*measuring, str(CONNECTORS), str(MEASUREMENTS_PER_S)])
        try:
            system.start_driver()
            system.everest.start_heartbeats(CONNECTORS)
            sessions, sampler = Sessions(system), Sampler(system, archive)
            sessions.start()
            sampler.start()
            done = disturb_until(system, proxy, time.monotonic() + MINUTES * 60)
            sessions.stop()
        finally:
            devices.kill()
            devices.wait()
        sampler.stop()
        print(f"\n{sessions.completed} sessions, {sessions.aborted} aborted by {done} disturbances")
        for connector in range(1, CONNECTORS + 1):
            charge_once(system, connector, 0)
        assert system.driver.terminate() == 0
        sampler.archive()
        print_and_check(sampler, MINUTES)
        assert sessions.completed > 100 * MINUTES
        assert sessions.aborted <= 2 * CONNECTORS * done
        sampler.read_log()
        assert sampler.errors == []
        check_log(system, archive)


def disturb_until(system: Rig, proxy: TcpProxy, end_s: float) -> int:
    """How many there were. The last 10 s are without."""
    all_of_them = itertools.cycle(disturbances(system, proxy))
    for count in itertools.count():
        if time.monotonic() + DISTURBANCE_INTERVAL_S >= end_s:
            time.sleep(max(0.0, end_s - time.monotonic()))
            return count
        time.sleep(DISTURBANCE_INTERVAL_S)
        assert system.driver.popen.poll() is None, system.driver.log.all()[-20:]
        next(all_of_them)[1]()
    raise AssertionError


def check_log(system: Rig, archive: Path) -> None:
    """The archive replays, and so does what was kept, which begins at a later snapshot."""
    kept = list((system.directory / "sessions").glob("*.mcap"))
    archived = list(archive.glob("*.mcap"))
    print(f"{len(archived)} segments, {len(kept)} of them kept")
    assert len(archived) > 5 * MINUTES
    assert len(kept) < len(archived) or MINUTES < 2, "nothing was deleted"
    for directory in (archive, system.directory / "sessions"):
        begin_s = time.monotonic()
        command = [sys.executable, "-m", "fusioncharger", "replay", str(directory)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        print(f"{done.stdout.strip()} ({time.monotonic() - begin_s:.0f} s)")
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.startswith("identical")
