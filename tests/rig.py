"""The whole system for a test: mosquitto, PSU mock and driver as processes, over veth and AF_PACKET, with this
process playing EVerest and the board supports over MQTT.

Everything is awaited: events of the mock come over a pipe, messages of the driver over MQTT, log lines over a
pipe. No test sleeps.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

import msgspec
import paho.mqtt.client as paho
from broker import Mosquitto
from fusioncharger.messages.outputs import AnyOutput, PowerRequested, StopRequested
from fusioncharger.replay.reader import RecordedOutput, Turn, read_log
from netns import network_namespace
from paho.mqtt.enums import CallbackAPIVersion

T = TypeVar("T")
Event = dict[str, Any]

TIMEOUT_S = 10.0
FAULTY_DRIVER = Path(__file__).parent / "fakes" / "faulty_driver.py"


class Feed(Generic[T]):
    """What came so far, and a way to wait for more."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._items: list[T] = []
        self._forgotten = 0

    def add(self, item: T) -> None:
        with self._condition:
            self._items.append(item)
            self._condition.notify_all()

    def all(self) -> list[T]:
        with self._condition:
            return list(self._items)

    def mark(self) -> int:
        """A place to wait from."""
        with self._condition:
            return self._forgotten + len(self._items)

    def forget(self, before: int) -> None:
        """Drop what came before that mark: for tests that last for hours. `all` is without it then."""
        with self._condition:
            count = min(max(0, before - self._forgotten), len(self._items))
            del self._items[:count]
            self._forgotten += count

    def wait(
        self, condition: Callable[[T], bool], *, after: int = 0, timeout_s: float = TIMEOUT_S, what: str = ""
    ) -> T:
        """The first item from `after` on that fits; AssertionError if none comes in time."""
        found: list[T] = []

        def look() -> bool:
            items = self._items[max(0, after - self._forgotten) :]
            found.extend(item for item in items if condition(item))
            return bool(found)

        with self._condition:
            assert self._condition.wait_for(look, timeout_s), (
                f"{what or 'it'} did not come: {self._items[-20:]}"
            )
        return found[0]


def _follow(stream: IO[str], take: Callable[[str], None]) -> threading.Thread:
    def run() -> None:
        with stream:
            for line in stream:
                take(line)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


class Process:
    """A fusioncharger process and its log."""

    def __init__(
        self,
        command: list[str],
        *,
        events: bool = False,
        wrapper: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.log: Feed[str] = Feed()
        self.events: Feed[Event] = Feed()
        self.popen = subprocess.Popen(
            [*wrapper, sys.executable, *command],
            stdin=subprocess.PIPE if events else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        assert self.popen.stdout is not None
        assert self.popen.stderr is not None
        take = (lambda line: self.events.add(json.loads(line))) if events else self.log.add
        self._followers = [_follow(self.popen.stdout, take), _follow(self.popen.stderr, self.log.add)]

    def wait(self, timeout_s: float = TIMEOUT_S) -> int:
        """Its exit code, once it has ended and all it said has been read."""
        code = self.popen.wait(timeout_s)
        if self.popen.stdin is not None:
            self.popen.stdin.close()
        for follower in self._followers:
            follower.join(timeout_s)
        return code

    def terminate(self) -> int:
        """SIGTERM; its exit code."""
        self.popen.terminate()
        return self.wait()

    def kill(self) -> None:
        """SIGKILL, if it runs still."""
        self.popen.kill()
        self.wait()

    def children(self) -> list[int]:
        """Process ids of its children."""
        pid = self.popen.pid
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(child) for child in text.split()]


class Everest:
    """EVerest and the board supports, as far as the driver sees them."""

    def __init__(self, port: int, login: tuple[str, str] | None = None, topics: Sequence[str] = ("#",)) -> None:
        """`login`: user and password; `topics`: what it listens to."""
        self.messages: Feed[tuple[str, str]] = Feed()
        self._subscribed = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.on_connect = lambda client, *_: client.subscribe([(topic, 1) for topic in topics])
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = lambda _client, _data, message: self.messages.add(
            (message.topic, message.payload.decode())
        )
        self._client.on_socket_open = lambda _client, _data, sock: sock.setsockopt(6, 1, 1)  # TCP_NODELAY
        if login is not None:
            self._client.username_pw_set(*login)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._subscribed.wait(TIMEOUT_S)
        self._heartbeat_id = 0
        self._beating = threading.Event()
        self._beater: threading.Thread | None = None

    def close(self) -> None:
        self.stop_heartbeats()
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, topic: str, payload: object, *, raw: bool = False) -> None:
        """Send; `payload` is JSON unless `raw`."""
        text = payload if raw else json.dumps(payload)
        self._client.publish(f"everest_api/1/{topic}", text, qos=1)  # type: ignore[arg-type]

    def bsp(self, connector: int, event: str) -> None:
        self.publish(f"evse_board_support/bsp_{connector}/m2e/event", {"event": event})

    def bsp_error(self, connector: int, error: str, *, raised: bool) -> None:
        name = "raise_error" if raised else "clear_error"
        self.publish(f"evse_board_support/bsp_{connector}/m2e/{name}", {"type": error})

    def mode(self, connector: int, mode: str, phase: str) -> None:
        self.publish(f"power_supply_DC/psu_{connector}/e2m/mode", {"mode": mode, "charging_phase": phase})

    def imd(self, connector: int, voltage_v: float) -> None:
        self.publish(
            f"isolation_monitor/imd_{connector}/m2e/isolation_measurement",
            {"resistance_F_Ohm": 1e6, "voltage_V": voltage_v},
        )

    def ovm(self, connector: int, voltage_v: float) -> None:
        self.publish(f"over_voltage_monitor/ovm_{connector}/m2e/voltage_measurement_V", voltage_v)

    def meter(self, connector: int, voltage_v: float, current_a: float) -> None:
        self.publish(
            f"powermeter/meter_{connector}/m2e/powermeter_values",
            {
                "timestamp": "2026-01-01T00:00:00.000Z",
                "energy_Wh_import": {"total": 0},
                "voltage_V": {"DC": voltage_v},
                "current_A": {"DC": current_a},
            },
        )

    def setpoint(self, connector: int, voltage_v: float, current_a: float) -> None:
        self.publish(
            f"power_supply_DC/psu_{connector}/e2m/export_voltage_current",
            {"voltage_V": voltage_v, "current_A": current_a},
        )

    def raised(self, connector: int, *, after: int = 0) -> list[tuple[str, str]]:
        """Errors of the connector that stand now: (type, sub_type), by what was raised and cleared."""
        standing: dict[tuple[str, str], bool] = {}
        for topic, payload in self.messages.all()[after:]:
            name = topic.rpartition("/")[2]
            if f"/psu_{connector}/m2e/" in topic and name in ("raise_error", "clear_error"):
                error = json.loads(payload)
                standing[error["type"], error["sub_type"]] = name == "raise_error"
        return sorted(key for key, is_raised in standing.items() if is_raised)

    def wait_error(
        self,
        connector: int,
        error_type: str,
        sub_type: str = "",
        *,
        raised: bool = True,
        after: int = 0,
        timeout_s: float = TIMEOUT_S,
    ) -> str:
        """The message of the first raise_error (clear_error) of that kind."""
        name = "raise_error" if raised else "clear_error"

        def fits(message: tuple[str, str]) -> bool:
            if not message[0].endswith(f"power_supply_DC/psu_{connector}/m2e/{name}"):
                return False
            error = json.loads(message[1])
            return (error["type"], error["sub_type"]) == (error_type, sub_type)

        what = f"{name} {error_type}/{sub_type} of connector {connector}"
        found = self.messages.wait(fits, after=after, timeout_s=timeout_s, what=what)
        return str(json.loads(found[1])["message"])

    def wait_object(
        self, topic: str, wanted: dict[str, object], *, after: int = 0, timeout_s: float = TIMEOUT_S
    ) -> dict[str, Any]:
        """The first JSON object on a topic that ends so, in which these keys have these values."""

        def fits(message: tuple[str, str]) -> bool:
            return message[0].endswith(topic) and wanted.items() <= json.loads(message[1]).items()

        found = self.messages.wait(fits, after=after, timeout_s=timeout_s, what=f"{topic} {wanted}")
        value: dict[str, Any] = json.loads(found[1])
        return value

    def heartbeat(self, connectors: int) -> None:
        self._heartbeat_id += 1
        for connector in range(1, connectors + 1):
            self.publish(f"power_supply_DC/psu_{connector}/e2m/heartbeat", self._heartbeat_id)

    def start_heartbeats(self, connectors: int, every_s: float = 0.5) -> None:
        """Heartbeats until stop_heartbeats, as EVerest sends them."""

        def run() -> None:
            while not self._beating.wait(every_s):
                self.heartbeat(connectors)

        self.heartbeat(connectors)
        self._beating.clear()
        self._beater = threading.Thread(target=run, daemon=True)
        self._beater.start()

    def stop_heartbeats(self) -> None:
        self._beating.set()
        if self._beater is not None:
            self._beater.join()
            self._beater = None

    def wait(
        self, topic: str, payload: str | None = None, *, after: int = 0, timeout_s: float = TIMEOUT_S
    ) -> str:
        """Payload of the first message on a topic that ends so (and has that payload)."""
        return self.messages.wait(
            lambda message: message[0].endswith(topic) and payload in (None, message[1]),
            after=after,
            timeout_s=timeout_s,
            what=f"{topic} {payload or ''}",
        )[1]


class Rig:
    """Broker, mock and EVerest run; the driver is started by the test."""

    def __init__(
        self, directory: Path, connectors: int, settings: str, mock_options: Sequence[str], tables: str
    ) -> None:
        self.directory = directory
        self.connectors = connectors
        self.broker = Mosquitto(directory)
        self.broker.start()
        self._mock_options = tuple(mock_options)
        self.mock = self._new_mock(0)
        self.mock_port = self.mock.events.wait(lambda event: event["event"] == "listening")["port"]
        self.config = directory / "site.toml"
        self.config.write_text(self._config_text(settings, self.mock_port, tables))
        self.topics: Sequence[str] = ("#",)
        """What EVerest listens to."""
        self.everest = Everest(self.broker.port, self.topics)
        self._drivers: list[Process] = []
        self._contactor_on = False

    @property
    def driver(self) -> Process:
        return self._drivers[-1]

    def _new_mock(self, port: int) -> Process:
        command = ["-m", "fusioncharger", "mock", *self._mock_options, "--interface", "veth0"]
        return Process([*command, "--port", str(port), "--events", "-", "--control", "-"], events=True)

    def restart_mock(self, *options: str) -> None:
        """Another mock on the same port, with other options; the events start anew."""
        self.mock.kill()
        self._mock_options = options
        self.mock = self._new_mock(self.mock_port)
        self.mock.events.wait(lambda event: event["event"] == "listening")

    def reconnect_everest(self) -> None:
        """EVerest anew, on a broker that was started anew; its messages start anew, too."""
        self.everest.close()
        self.everest = Everest(self.broker.port, self.topics)

    def psu(self, do: str, **fields: object) -> None:
        """Have the mock do something (docs/mock.md) and wait until it is done."""
        mark = self.mock.events.mark()
        assert self.mock.popen.stdin is not None
        self.mock.popen.stdin.write(json.dumps({"do": do, **fields}) + "\n")
        self.mock.popen.stdin.flush()
        done = self.mock.events.wait(lambda event: event["event"] in ("step", "control_error"), after=mark)
        assert done["event"] == "step", done

    def _config_text(self, settings: str, port: int, more: str) -> str:
        tables = "".join(
            f"""
[[connectors]]
global_connector_number = {n + 4}
max_export_current_A = 100
max_export_power_W = 60000
power_supply_DC = "psu_{n}"
evse_board_support = "bsp_{n}"
isolation_monitor = "imd_{n}"
over_voltage_monitor = "ovm_{n}"
powermeter = "meter_{n}"
{more.format(n=n)}"""
            for n in range(1, self.connectors + 1)
        )
        return f"""
ethernet_interface = "veth1"
psu_ip = "127.0.0.1"
psu_port = {port}
telemetry_topic_prefix = "telemetry"
{settings}
[mqtt]
port = {self.broker.port}
[journal]
dir = "{self.directory / "sessions"}"
{tables}"""

    def start_driver(
        self,
        *options: str,
        fault: str = "",
        wrapper: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        first_key: bool = True,
    ) -> Process:
        """Start the driver and wait until it is up: MAC exchanged, first-key cycle over, MQTT connected."""
        program = [str(FAULTY_DRIVER), fault] if fault else ["-m", "fusioncharger", "run"]
        mark = self.everest.messages.mark()
        rounds = self.mock.events.mark()
        self.launch_driver(*options, program=program, wrapper=wrapper, environment=environment)
        self.everest.wait("telemetry/status", "online", after=mark)
        self.mock.events.wait(lambda event: event["event"] == "round_done", after=rounds)
        if first_key:
            for connector in range(1, self.connectors + 1):
                self.wait_stop(connector, after=rounds)
        self.driver.log.wait(lambda line: "recording" in line)
        return self.driver

    def launch_driver(
        self,
        *options: str,
        program: Sequence[str] = ("-m", "fusioncharger", "run"),
        wrapper: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Process:
        """Start the driver and wait for nothing."""
        command = [*program, "--config", str(self.config), *options]
        self._drivers.append(Process(command, wrapper=wrapper, environment=environment))
        return self.driver

    def close(self) -> None:
        self.everest.close()
        for driver in self._drivers:
            driver.kill()
        self.mock.kill()
        self.broker.kill()

    # --- what the PSU saw ----------------------------------------------------------------------------------

    def frames(self, connector: int, *, after: int = 0) -> list[Event]:
        """New GOOSE messages (no repeats) of a connector."""
        return [
            event
            for event in self.mock.events.all()[after:]
            if event["event"] in ("power_request", "stop_request")
            and event["connector_no"] == connector + 4
            and not event["repeat"]
        ]

    def wait_power(
        self,
        connector: int,
        requirement: str,
        voltage_v: float | None = None,
        *,
        after: int = 0,
        timeout_s: float = TIMEOUT_S,
    ) -> Event:
        """The first new power request of that kind (and voltage); repeats do not count (`frames`)."""
        return self.mock.events.wait(
            lambda event: (
                event["event"] == "power_request"
                and event["connector_no"] == connector + 4
                and not event["repeat"]
                and event["requirement_type"] == requirement
                and voltage_v in (None, event["voltage"])
            ),
            after=after,
            timeout_s=timeout_s,
            what=f"power request {requirement} {voltage_v} of connector {connector}",
        )

    def wait_stop(self, connector: int, *, after: int = 0, timeout_s: float = TIMEOUT_S) -> Event:
        """The first new stop request: that of the session before is still repeated when the next one begins."""
        return self.mock.events.wait(
            lambda event: (
                event["event"] == "stop_request"
                and event["connector_no"] == connector + 4
                and not event["repeat"]
            ),
            after=after,
            timeout_s=timeout_s,
            what=f"stop request of connector {connector}",
        )

    def wait_key(self, connector: int, *, after: int = 0) -> Event:
        return self.mock.events.wait(
            lambda event: event["event"] == "key_acknowledged" and event["connector"] == connector,
            after=after,
            what=f"key of connector {connector}",
        )

    def requests(self, connector: int, *, after: int = 0) -> list[tuple[str, float, float]]:
        """What the new GOOSE messages of a connector ask for: kind ("STOP" for a stop request), V, A."""
        return [
            (frame.get("requirement_type", "STOP"), frame.get("voltage", 0.0), frame.get("current", 0.0))
            for frame in self.frames(connector, after=after)
        ]

    def wait_report(
        self, wanted: dict[str, int], *, after: int = 0, timeout_s: float = TIMEOUT_S
    ) -> dict[str, int]:
        """The registers of the first report in which these have these values."""
        found = self.mock.events.wait(
            lambda event: event["event"] == "report" and wanted.items() <= event["registers"].items(),
            after=after,
            timeout_s=timeout_s,
            what=f"report with {wanted}",
        )
        registers: dict[str, int] = found["registers"]
        return registers

    def settle(self, connector: int = 1) -> dict[str, int]:
        """The registers as reported once all that EVerest said before has been handled: a contactor is switched
        and reported at once."""
        self._contactor_on = not self._contactor_on
        mark = self.mock.events.mark()
        self.everest.bsp(connector, "PowerOn" if self._contactor_on else "PowerOff")
        return self.wait_report({f"{connector}/contactor_status": int(self._contactor_on)}, after=mark)

    def charge(self, connector: int, voltage_v: float = 400, current_a: float = 20) -> None:
        """From plug-in to charging."""
        mark = self.mock.events.mark()
        self.everest.bsp(connector, "B")
        self.wait_key(connector, after=mark)
        self.start_power(connector, voltage_v, current_a)

    def start_power(self, connector: int, voltage_v: float, current_a: float) -> None:
        mark = self.mock.events.mark()
        self.everest.setpoint(connector, voltage_v, current_a)
        self.everest.mode(connector, "Export", "Charging")
        self.wait_power(connector, "CHARGING", voltage_v, after=mark)

    # --- the journal ---------------------------------------------------------------------------------------

    def logs(self) -> list[Path]:
        return sorted((self.directory / "sessions").glob("*.mcap"))

    def replay(self, log: Path | None = None) -> tuple[int, str]:
        """Exit code and output of `fusioncharger replay`."""
        path = log or self.logs()[-1]
        done = subprocess.run(
            [sys.executable, "-m", "fusioncharger", "replay", str(path)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return done.returncode, done.stdout + done.stderr

    def turns(self, log: Path | None = None) -> list[Turn]:
        """The turns of a log."""
        with read_log(log or self.logs()[-1]) as reader:
            return list(reader.turns())

    def frames_in_log(self, connector: int) -> list[tuple[str, int]]:
        """Kind and stNum of every GOOSE message of a connector that the log holds."""
        return [
            (type(message).__name__, message.st_num)
            for turn in self.turns()
            for message in map(decoded, turn.outputs)
            if isinstance(message, PowerRequested | StopRequested) and message.connector == connector
        ]


def decoded(output: RecordedOutput) -> AnyOutput:
    """A recorded Output as a value."""
    return msgspec.json.decode(output.payload, type=AnyOutput)


@contextlib.contextmanager
def rig(
    directory: Path,
    connectors: int = 1,
    settings: str = "",
    *,
    mock_options: Sequence[str] = ("--ratings-at-once",),
    tables: str = "",
) -> Iterator[Rig]:
    """The system in a network of its own; everything is ended whatever happens.

    `settings` are further lines of the driver's configuration, `tables` of each connector's, with {n} for its
    number. `mock_options` may begin with CERT_DIR. The mock says its ratings at once, not after 10 s.
    """
    with network_namespace():
        system = Rig(directory, connectors, settings, mock_options, tables)
        try:
            yield system
        finally:
            system.close()


def utc_s(event: Event) -> float:
    """When an event of the mock happened, UTC."""
    return datetime.fromisoformat(event["utc"]).timestamp()
