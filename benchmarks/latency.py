"""How late things happen in the running system: everything is real (processes, mosquitto, TCP, veth, AF_PACKET,
journal on, GOOSE signed), and frames are timed by the kernel as they arrive at the other end of the cable.

Idle: four cars are connected and charge, and nothing else changes. Loaded: EVerest sends setpoints, and the
meters and isolation monitors of all four speak, four times a second.
"""

import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from figures import Figure, spread

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from fakes.wire_tap import Arrival, WireTap
from fusioncharger.messages.inputs import BspErrorCleared, BspErrorRaised, Input, SetpointRequested
from rig import Process, Rig, rig, utc_s

DRIVER = Path(__file__).parent / "driven_driver.py"
THEME = "Latency"
REPEATS = "Retransmissions, lateness"
CONNECTORS = 4
FIRST_CONNECTOR_NO = 5
SETPOINTS = 1000
ALARMS = 100
PLUG_INS = 30
INTERVAL_S = 0.02
"""Between two setpoints: so that caches are cold, and the retransmissions of each are seen."""
LOAD_HZ = 4
MS = 1_000_000
DUE_NS = (0, 2 * MS, 4 * MS, 8 * MS, 16 * MS)
STEADY_NS = 1000 * MS
ENTRY_LIMITS_MS = {"p50": 0.3, "p99": 1.0}
REPEAT_LIMITS_MS = {"p95": 0.5}


def measure(directory: Path, *, quick: bool) -> list[Figure]:
    """The figures; about 2 minutes, or 20 s."""
    share = 0.1 if quick else 1.0
    setpoints = int(SETPOINTS * share)
    with rig(directory, connectors=CONNECTORS) as system:
        driver = _start(system)
        figures = [_plug_ins(system, int(PLUG_INS * share))]
        for connector in range(1, CONNECTORS + 1):
            system.charge(connector, voltage_v=100)
        runs = 0
        for name, load in (("idle", _no_load), ("loaded", _load)):
            taps = []
            for begins, send in (
                ("setpoint on MQTT", lambda voltage_v: _by_mqtt(system, voltage_v)),
                ("core entry", lambda voltage_v: _into_core(driver, voltage_v)),
            ):
                # The former run's last setpoint is still repeated: each has voltages of its own, exact as f32.
                runs += 1
                with WireTap() as tap, load(system):
                    taken_ms = _setpoints(tap, send, setpoints, 200 + runs / 16)
                taps.append(tap)
                limits = ENTRY_LIMITS_MS if begins == "core entry" else None
                figures.append(spread(THEME, f"{begins} → first GOOSE frame, {name}", "ms", taken_ms, limits))
            with load(system):
                alarms_ms = _alarms(system, driver, int(ALARMS * share))
            figures.append(spread(THEME, f"alarm's core entry → report at the PSU, {name}", "ms", alarms_ms))
            figures += _repeats(taps, name)
    return sorted(figures, key=lambda figure: figure.theme != THEME)


def _start(system: Rig) -> Process:
    rounds = system.mock.events.mark()
    driver = Process([str(DRIVER), str(system.config)], events=True)
    system._drivers.append(driver)
    system.everest.wait("telemetry/status", "online")
    system.mock.events.wait(lambda event: event["event"] == "round_done", after=rounds)
    for connector in range(1, CONNECTORS + 1):
        system.wait_stop(connector, after=rounds)
    return driver


# --- what is sent --------------------------------------------------------------------------------------------


def _by_mqtt(system: Rig, voltage_v: float) -> int:
    begin_ns = time.time_ns()
    system.everest.setpoint(1, voltage_v, 20)
    return begin_ns


def _into_core(driver: Process, voltage_v: float) -> int:
    return _put(driver, SetpointRequested(connector=1, voltage_v=voltage_v, current_a=20))


def _put(driver: Process, message: Input) -> int:
    """When it was put into the core's queue, UTC, ns."""
    assert driver.popen.stdin is not None
    mark = driver.events.mark()
    driver.popen.stdin.write(msgspec.json.encode(message).decode() + "\n")
    driver.popen.stdin.flush()
    put_ns: int = driver.events.wait(lambda _: True, after=mark)["put_ns"]
    return put_ns


def _setpoints(tap: WireTap, send: Callable[[float], int], count: int, base_v: float) -> list[float]:
    taken_ms = []
    for number in range(count):
        voltage_v = base_v + number / 4
        begin_ns = send(voltage_v)
        arrival = tap.first(lambda arrival, voltage_v=voltage_v: _is_first_request(arrival, voltage_v))
        taken_ms.append((arrival.at_ns - begin_ns) / MS)
        time.sleep(INTERVAL_S)
    return taken_ms


def _is_first_request(arrival: Arrival, voltage_v: float) -> bool:
    return arrival.voltage_v == voltage_v and arrival.frame.message.connector_no == FIRST_CONNECTOR_NO


def _alarms(system: Rig, driver: Process, count: int) -> list[float]:
    taken_ms = []
    for number in range(count):
        is_raised = number % 2 == 0
        kind = BspErrorRaised if is_raised else BspErrorCleared
        mark = system.mock.events.mark()
        put_ns = _put(driver, kind(connector=1, error_type="EnclosureOpen", sub_type=""))
        wanted = {"door_status_alarm": int(is_raised)}
        report = system.mock.events.wait(
            lambda event, wanted=wanted: (
                event["event"] == "report" and wanted.items() <= event["registers"].items()
            ),
            after=mark,
        )
        taken_ms.append((utc_s(report) - put_ns / 1e9) * 1000)
        time.sleep(INTERVAL_S)
    return taken_ms


def _plug_ins(system: Rig, count: int) -> Figure:
    taken_ms = []
    for _ in range(count):
        mark = system.mock.events.mark()
        begin_s = time.time()
        system.everest.bsp(1, "B")
        taken_ms.append((utc_s(system.wait_key(1, after=mark)) - begin_s) * 1000)
        mark = system.mock.events.mark()
        system.everest.bsp(1, "A")
        system.wait_report({"1/connection_status": 0}, after=mark)
    return spread(THEME, "plug-in on MQTT → key received from the PSU (mock) and acknowledged", "ms", taken_ms)


@contextmanager
def _no_load(_system: Rig) -> Iterator[None]:
    yield


@contextmanager
def _load(system: Rig) -> Iterator[None]:
    """EVerest and the devices of all connectors, each LOAD_HZ times a second, evenly spread."""
    ended = threading.Event()

    def run() -> None:
        step = 0
        while not ended.wait(1 / (LOAD_HZ * CONNECTORS)):
            step += 1
            connector = step % CONNECTORS + 1
            voltage_v = 900 + step % 128 / 2
            if connector > 1:  # the first one's setpoints are the measured ones
                system.everest.setpoint(connector, voltage_v, 30)
            system.everest.imd(connector, voltage_v)
            system.everest.meter(connector, voltage_v, 29.5)
            if step % (LOAD_HZ * CONNECTORS) == 0:
                system.everest.heartbeat(CONNECTORS)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


# --- what comes ----------------------------------------------------------------------------------------------


def _by_message(arrivals: list[Arrival]) -> Iterable[dict[int, int]]:
    """Of each message: sqNum to arrival, UTC ns."""
    found: dict[tuple[int, int], dict[int, int]] = defaultdict(dict)
    for arrival in arrivals:
        header = arrival.frame.header
        found[arrival.frame.message.connector_no, header.st_num][header.sq_num] = arrival.at_ns
    return found.values()


def _repeats(taps: list[WireTap], name: str) -> list[Figure]:
    """How late each retransmission came: the first four counted from the first frame, the others each from the
    one before it."""
    late_ms: dict[int, list[float]] = defaultdict(list)
    for tap in taps:
        for arrivals in _by_message(tap.arrivals()):
            # One that never came would be later than any, and in no percentile.
            assert len(arrivals) == max(arrivals) - min(arrivals) + 1, (
                f"retransmissions are missing: {arrivals}"
            )
            for sq_num, arrival_ns in arrivals.items():
                if 0 < sq_num < len(DUE_NS) and 0 in arrivals:
                    late_ms[sq_num].append((arrival_ns - arrivals[0] - DUE_NS[sq_num]) / MS)
                elif sq_num >= len(DUE_NS) and sq_num - 1 in arrivals:
                    late_ms[len(DUE_NS)].append((arrival_ns - arrivals[sq_num - 1] - STEADY_NS) / MS)
    names = ["", "after 2 ms", "2 ms later", "4 ms later", "8 ms later", "each second"]
    return [
        spread(REPEATS, f"{names[number]}, {name}", "ms", values, REPEAT_LIMITS_MS)
        for number, values in sorted(late_ms.items())
        if len(values) > 1
    ]
