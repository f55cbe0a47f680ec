"""The figures of docs/performance.md: `make bench` (about 2 minutes; as root, or in `unshare -Urn`).

    start     process start to the first Modbus connection
    idle      CPU of driver and recorder, car unplugged, PSU connected, broker connected
    latency   a setpoint on MQTT, and the same setpoint entering the core, to the first GOOSE frame with it

Everything is real: processes, mosquitto, TCP, veth, AF_PACKET, journal on. Frames are timed by the kernel as
they arrive at the other end of the cable.
"""

import os
import socket
import statistics
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from fusioncharger.app.driver import Driver
from fusioncharger.app.process_log import ProcessLog
from fusioncharger.app.run_command import load_config
from fusioncharger.io.goose_codec import GooseError, decode
from fusioncharger.messages.goose import PowerRequest
from fusioncharger.messages.inputs import SetpointRequested
from rig import Process, Rig, rig

STARTS = 10
IDLE_S = 60.0
SETPOINTS = 1000
INTERVAL_S = 0.02
SO_TIMESTAMPNS = 35
ETH_P_ALL = 0x0003
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        start_s(Path(directory))
    with tempfile.TemporaryDirectory() as directory:
        idle(Path(directory))
    with tempfile.TemporaryDirectory() as directory:
        latency_from_mqtt(Path(directory))
    with tempfile.TemporaryDirectory() as directory:
        latency_from_core(Path(directory))


def start_s(directory: Path) -> None:
    times = []
    with rig(directory) as system:
        for _ in range(STARTS):
            mark = system.mock.events.mark()
            begin_ns = time.monotonic_ns()
            driver = Process(["-m", "fusioncharger", "run", "--config", str(system.config)])
            system.mock.events.wait(lambda event: event["event"] == "connected", after=mark)
            times.append((time.monotonic_ns() - begin_ns) / 1e9)
            driver.kill()
    row("process start to first Modbus connection", times, "s", digits=3)


def cpu_s(pids: list[int]) -> float:
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS_PER_S


def idle(directory: Path) -> None:
    with rig(directory) as system:
        driver = system.start_driver()
        time.sleep(15)  # the mock's first three rounds are over, and with them its first writing of the ratings
        pids = [driver.popen.pid, *driver.children()]
        before_s, begin_s = [cpu_s([pid]) for pid in pids], time.monotonic()
        time.sleep(IDLE_S)
        elapsed_s = time.monotonic() - begin_s
        used = [(cpu_s([pid]) - before) / elapsed_s * 100 for pid, before in zip(pids, before_s, strict=True)]
        print(
            f"idle over {elapsed_s:.0f} s: {sum(used):.2f} % of one core "
            f"(driver {used[0]:.2f} %, recorder {sum(used[1:]):.2f} %)"
        )


class FrameTimer:
    """Notes when the first frame with a voltage arrives at veth0, by the kernel's clock."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._socket.bind(("veth0", 0))
        self._socket.settimeout(0.2)
        self.arrived: dict[float, tuple[int, int]] = {}
        """Voltage → (arrival, the message's own t), UTC ns."""
        self._condition = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._closing:
            try:
                frame, extra, _, address = self._socket.recvmsg(2048, 256)
            except TimeoutError:
                continue
            if address[2] == socket.PACKET_OUTGOING:
                continue
            seconds, nanoseconds = struct.unpack("qq", extra[0][2])
            try:
                decoded = decode(frame)
            except GooseError:
                continue
            if isinstance(decoded.message, PowerRequest):
                header = decoded.header
                t_ns = header.t_seconds * 10**9 + header.t_fraction * 10**9 // 2**24
                with self._condition:
                    arrival_ns = seconds * 10**9 + nanoseconds
                    self.arrived.setdefault(decoded.message.voltage_v, (arrival_ns, t_ns))
                    self._condition.notify_all()

    def wait(self, voltage_v: float) -> tuple[int, int]:
        with self._condition:
            assert self._condition.wait_for(lambda: voltage_v in self.arrived, 5), voltage_v
            return self.arrived[voltage_v]

    def close(self) -> None:
        self._closing = True
        self._thread.join()
        self._socket.close()


def send_setpoints(send: Callable[[float], None]) -> tuple[list[float], list[float]]:
    """Milliseconds from `send` and from the message's own t to each frame."""
    timer = FrameTimer()
    from_send, from_turn = [], []
    try:
        for n in range(SETPOINTS):
            voltage_v = 200 + n * 0.25  # exact as f32
            begin_ns = time.time_ns()
            send(voltage_v)
            arrival_ns, t_ns = timer.wait(voltage_v)
            from_send.append((arrival_ns - begin_ns) / 1e6)
            from_turn.append((arrival_ns - t_ns) / 1e6)
            time.sleep(INTERVAL_S)
    finally:
        timer.close()
    return from_send, from_turn


def latency_from_mqtt(directory: Path) -> None:
    with rig(directory) as system:
        system.start_driver()
        system.charge(1, voltage_v=100)
        from_mqtt, from_turn = send_setpoints(lambda voltage_v: system.everest.setpoint(1, voltage_v, 20))
    row("setpoint published on MQTT to its GOOSE frame", from_mqtt, "ms")
    row("  of that: from the stamp of its turn", from_turn, "ms")


def latency_from_core(directory: Path) -> None:
    """The driver in this process, so that the moment of entering the core is known."""
    with rig(directory) as system:
        driver = in_process_driver(system)
        try:
            system.charge(1, voltage_v=100)

            def put(voltage_v: float) -> None:
                driver._core.put(SetpointRequested(connector=1, voltage_v=voltage_v, current_a=20))

            from_core, _ = send_setpoints(put)
        finally:
            driver.stop()
    row("setpoint put into the core's queue to its GOOSE frame", from_core, "ms")


def in_process_driver(system: Rig) -> Driver:
    rounds = system.mock.events.mark()
    driver = Driver(load_config(system.config), None, ProcessLog("warning", as_json=False))
    driver.start()
    system.everest.wait("telemetry/status", "online")
    system.mock.events.wait(lambda event: event["event"] == "round_done", after=rounds)
    return driver


def row(name: str, values: list[float], unit: str, digits: int = 2) -> None:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    print(
        f"{name}: p50 {cuts[49]:.{digits}f} {unit}, p99 {cuts[98]:.{digits}f} {unit}, "
        f"max {max(values):.{digits}f} {unit} (n={len(values)})",
        flush=True,
    )


if __name__ == "__main__":
    main()
