"""docs/mosquitto.acl in force: a whole charge with nothing denied, and nobody else who can ask for power."""

import contextlib
import itertools
import os
import pwd
import queue
import re
import socket
import subprocess
import tempfile
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from broker import Mosquitto
from fakes.guarded_broker import Site
from fusioncharger.app.run_command import load_config
from fusioncharger.io.everest_codec import EverestCodec
from fusioncharger.io.mqtt_client import MqttClient
from fusioncharger.io.mqtt_connection import Session
from fusioncharger.messages.config import MqttConfig, parse
from fusioncharger.messages.inputs import ModeRequested
from fusioncharger.messages.outputs import ActiveErrorsRequested
from paho.mqtt.enums import CallbackAPIVersion
from requirements import require_program, unavailable
from rig import TIMEOUT_S, Everest, Rig, rig

DOCS = Path(__file__).parents[2] / "docs"
ACCESS_LIST = DOCS / "mosquitto.acl"
USERS = ("fusioncharger", "everest", "devices", "dashboard")
M2E = ("mode", "capabilities", "voltage_current", "raise_error", "clear_error", "communication_check")
LISTEN = "0A"
"""In /proc/net/tcp."""
NOBODY = 65534
GROUP_OF_EVEREST = 64000
"""Some group that nobody is in."""
MODE = "everest_api/1/power_supply_DC/psu_1/e2m/mode"


@contextmanager
def guarded(directory: Path) -> Iterator[tuple[Mosquitto, Path]]:
    """A broker with the access list, whose users have their names as passwords; and its log."""
    passwords, log = directory / "passwords", directory / "mosquitto.log"
    for user in USERS:
        create = [] if passwords.exists() else ["-c"]
        subprocess.run(
            [require_program("mosquitto_passwd"), *create, "-b", str(passwords), user, user], check=True
        )
    settings = f"allow_anonymous false\npassword_file {passwords}\nacl_file {ACCESS_LIST}\n"
    with Mosquitto(directory, f"{settings}log_dest file {log}\nlog_type all") as broker:
        yield broker, log


def denied(log: Path) -> list[str]:
    return [line for line in log.read_text().splitlines() if "Denied" in line or "denied" in line]


def move_to(system: Rig, broker: Mosquitto) -> Everest:
    """Driver and EVerest talk through this broker, as the users that they are; the devices."""
    password = system.directory / "password"
    password.write_text("fusioncharger\n")
    login = f'[mqtt]\nusername = "fusioncharger"\npassword_file = "{password}"\nport = {broker.port}'
    text = re.sub(r"\[mqtt\]\nport = \d+", login, system.config.read_text())
    text = text.replace('"telemetry"', '"dispenser/1"').replace('over_voltage_monitor = "ovm_1"\n', "")
    system.config.write_text(text)
    system.everest.close()
    system.everest = Everest(broker.port, ("everest", "everest"))
    return Everest(broker.port, ("devices", "devices"))


def open_ports(pid: int) -> list[str]:
    """Where others could reach the process: TCP that listens, and any UDP."""
    process = Path(f"/proc/{pid}")
    inodes = set()
    for descriptor in (process / "fd").iterdir():
        with contextlib.suppress(OSError):
            inodes.add(descriptor.readlink().name.removeprefix("socket:").strip("[]"))
    found = []
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in (process / "net" / table).read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if inode in inodes and (state == LISTEN or table.startswith("udp")):
                found.append(f"{table} {local}")
    return found


def test_a_whole_charge_with_the_access_list_in_force(tmp_path: Path) -> None:
    with rig(tmp_path) as system, guarded(tmp_path) as (broker, log):
        devices = move_to(system, broker)
        dashboard = Everest(broker.port, ("dashboard", "dashboard"))
        everest = system.everest
        try:
            system.launch_driver()
            everest.start_heartbeats(1)
            assert dashboard.wait("dispenser/1/status") == "online"
            system.wait_stop(1)
            everest.wait_error(1, "CommunicationFault", raised=False)
            mark = system.mock.events.mark()
            devices.bsp(1, "B")
            system.wait_key(1, after=mark)
            devices.imd(1, 380)
            system.start_power(1, 380, 10)
            devices.meter(1, 380, 10)
            everest.wait_object("m2e/voltage_current", {"voltage_V": 380.0, "current_A": 10.0})
            everest.wait_object("m2e/capabilities", {"max_export_voltage_V": 1000.0})
            dashboard.wait_object("dispenser_to_psu", {"output_voltage": 380.0, "upstream_voltage": 380.0})
            mark = system.mock.events.mark()
            devices.bsp_error(1, "MREC8EmergencyStop", raised=True)
            system.wait_report({"epo_alarm": 1}, after=mark)
            everest.mode(1, "Off", "Other")
            system.wait_stop(1, after=mark)
            everest.wait("psu_1/m2e/mode", '"Off"')
            devices.bsp(1, "A")
            everest.wait("psu_1/m2e/communication_check", "true")
            assert [open_ports(pid) for pid in (system.driver.popen.pid, *system.driver.children())] == [[], []]
            assert open_ports(system.mock.popen.pid), "where there is one it is seen"
            assert system.driver.terminate() == 0
            assert dashboard.wait("dispenser/1/status", "offline") == "offline"
            assert denied(log) == []
            assert not any("the broker denies" in line for line in system.driver.log.all())
            # Everyone hears what is for them, and no more.
            assert {topic.split("/")[4] for topic, _ in everest.messages.all()} == {"m2e"}
            assert {topic.split("/")[0] for topic, _ in dashboard.messages.all()} == {"dispenser"}
            assert devices.messages.all() == []
        finally:
            devices.close()
            dashboard.close()


def publish(port: int, topic: str, payload: str, login: tuple[str, str] | None) -> str:
    """What the broker says to it."""
    answers: list[str] = []
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    if login is not None:
        client.username_pw_set(*login)
    client.on_connect = lambda _c, _u, _f, reason, _p: (
        answers.append(str(reason)) if reason.is_failure else client.publish(topic, payload, 1) and None
    )
    client.on_publish = lambda _c, _u, _m, reason, _p: answers.append(str(reason))
    client.connect("127.0.0.1", port)
    while not answers:
        assert client.loop(TIMEOUT_S) == paho.MQTT_ERR_SUCCESS or answers
    client.disconnect()
    return answers[0]


def test_nobody_but_everest_can_ask_for_power(tmp_path: Path) -> None:
    with rig(tmp_path) as system, guarded(tmp_path) as (broker, log):
        devices = move_to(system, broker)
        devices.close()
        system.launch_driver()
        system.everest.wait("psu_1/m2e/mode")
        payload = '{"mode": "Export", "charging_phase": "Charging"}'
        for login in (*((user, user) for user in USERS if user != "everest"), None, ("everest", "wrong")):
            assert publish(broker.port, MODE, payload, login) == "Not authorized", login
        assert len([line for line in denied(log) if MODE in line]) == len(USERS) - 1
        mark = system.driver.log.mark()
        assert publish(broker.port, MODE, payload, ("everest", "everest")) == "Success"
        system.driver.log.wait(lambda line: "Export" in line, after=mark)
        assert system.driver.terminate() == 0
        assert len([turn for turn in system.turns() if isinstance(turn.input, ModeRequested)]) == 1


def test_a_broker_that_denies_the_driver_is_said_once(tmp_path: Path) -> None:
    with rig(tmp_path) as system, guarded(tmp_path) as (broker, _):
        move_to(system, broker).close()
        system.config.write_text(system.config.read_text().replace('"dispenser/1"', '"elsewhere"'))
        system.launch_driver()
        words = "the broker denies what we publish: Not authorized; its access list has to allow it"
        system.driver.log.wait(lambda line: words in line)
        system.everest.wait("psu_1/m2e/communication_check", "true")
        assert system.driver.terminate() == 0
        assert sum("the broker denies" in line for line in system.driver.log.all()) == 1


def granted(user: str, direction: str) -> set[str]:
    """The topics of a user in the access list."""
    (part,) = re.findall(
        rf"^user {user}\n(.*?)(?=^user |\Z)", ACCESS_LIST.read_text(), re.DOTALL | re.MULTILINE
    )
    return set(re.findall(rf"^topic {direction} (.+)$", part, re.MULTILINE))


def test_the_driver_is_granted_what_the_example_needs_and_no_more() -> None:
    config = load_config(DOCS / "example.toml")
    assert granted("fusioncharger", "read") == set(EverestCodec(config, reply_id="x").subscriptions)
    ids = [connector.power_supply_DC for connector in config.connectors]
    published = {f"everest_api/1/power_supply_DC/{module_id}/m2e/{name}" for module_id in ids for name in M2E}
    assert granted("fusioncharger", "write") == published | {f"{config.telemetry_topic_prefix}/#"}
    assert granted("fusioncharger", "readwrite") == set()


BUILT_IN = """
error_history = "errors"
upstream_voltage_source = "OVM"
[[connectors]]
global_connector_number = 1
max_export_current_A = 1
max_export_power_W = 1
power_supply_DC = "psu_1"
evse_board_support = "bsp_1"
evse_manager = "manager_1"
over_voltage_monitor = "ovm_1"
"""


def test_what_is_offered_for_other_devices_is_what_they_need() -> None:
    """The lines that are a comment, to be taken over by who has such devices."""
    codec = EverestCodec(parse(BUILT_IN, "built in"), reply_id="+")
    offered = {
        direction: set(re.findall(rf"^# topic {direction} (.+)$", ACCESS_LIST.read_text(), re.MULTILINE))
        for direction in ("read", "write")
    }
    assert offered["read"] == set(codec.subscriptions) - granted("fusioncharger", "read")
    request = codec.encode(ActiveErrorsRequested())
    assert request is not None
    assert offered["write"] == {request.topic}


def test_every_kind_of_device_may_say_what_it_is_for() -> None:
    """EVerest's own are not meant: what the driver hears of them comes from EVerest (e2m)."""
    said = granted("fusioncharger", "read") | {
        "everest_api/1/over_voltage_monitor/ovm_1/m2e/voltage_measurement_V"
    }
    kinds = {topic.split("/")[2] for topic in said if "/m2e/" in topic}
    assert granted("devices", "write") == {f"everest_api/1/{kind}/+/m2e/#" for kind in kinds}


@pytest.mark.parametrize("user", [user for user in USERS if user != "everest"])
def test_only_everest_may_write_what_asks_for_power(user: str) -> None:
    assert not any("/e2m/" in topic or topic in ("#", "+/#") for topic in granted(user, "(?:write|readwrite)"))


def may_connect(socket_path: Path, group: int) -> bool:
    """Whether somebody who is nobody, but in this group, gets at the socket."""
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(OSError):
            os.setgroups([])
            os.setgid(group)
            os.setuid(NOBODY)
            socket.socket(socket.AF_UNIX).connect(str(socket_path))
            status = 0
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_documented_socket_is_for_everests_group_alone() -> None:
    """mosquitto as its own user, with the directory as the line for systemd-tmpfiles makes it."""
    text = (DOCS / "security.md").read_text()
    (line,) = re.findall(r"echo '(d /run/everest .*)' > /etc/tmpfiles.d", text)
    _, name, mode, user, group = line.split()
    assert f"listener 0 {name}/mqtt.sock" in text
    assert (user, group) == ("mosquitto", "everest")
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        directory = Path(place) / "everest"
        directory.mkdir()
        try:
            os.chown(directory, pwd.getpwnam(user).pw_uid, GROUP_OF_EVEREST)
        except OSError as error:
            unavailable(f"a directory cannot be given away ({error.strerror}): run as root")
        directory.chmod(int(mode, 8))
        config = Path(place) / "mosquitto.conf"
        config.write_text(f"listener 0 {directory}/mqtt.sock\nallow_anonymous true\n")
        command = [require_program("mosquitto"), "-c", str(config)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as broker:
            try:
                assert broker.stdout is not None
                said = list(itertools.takewhile(lambda line: "running" not in line, broker.stdout))
                assert broker.poll() is None, said
                assert may_connect(directory / "mqtt.sock", GROUP_OF_EVEREST)
                assert not may_connect(directory / "mqtt.sock", GROUP_OF_EVEREST + 1)
            finally:
                broker.kill()


def test_the_documented_broker_lets_everest_and_the_driver_in(tmp_path: Path) -> None:
    """security.md's mosquitto.conf and settings, with the paths of this test."""
    site = Site(tmp_path, ACCESS_LIST.read_text(), user="fusioncharger")
    blocks = re.findall(r"^```\w*\n(.*?)^```", (DOCS / "security.md").read_text(), re.DOTALL | re.MULTILINE)
    (conf,) = (block for block in blocks if "per_listener_settings" in block)
    (settings,) = (block for block in blocks if "[mqtt]" in block)
    port = site.mosquitto.port
    conf = conf.replace("/etc/mosquitto/fusioncharger", str(tmp_path)).replace("8883", str(port))
    site.mosquitto._config.write_text(conf.replace("/run/everest", str(tmp_path)) + "user root\n")
    settings = settings.replace("/etc/fusioncharger/mqtt.password", site.password)
    settings = settings.replace("/etc/fusioncharger/mqtt", str(tmp_path))
    config = tmp_path / "site.toml"
    config.write_text(settings.replace("broker.local", "localhost").replace("8883", str(port)))
    mqtt = MqttConfig(**tomllib.loads(config.read_text())["mqtt"])
    received: queue.Queue[bytes] = queue.Queue()
    online = threading.Event()
    with site.mosquitto:
        client = MqttClient(
            mqtt,
            Session(topics=(MODE,), expiry_s=5),
            on_connected=lambda _present: online.set(),
            on_disconnected=lambda _reason: None,
            on_message=lambda message: received.put(message.payload),
        )
        client.start()
        everest = paho.Client(CallbackAPIVersion.VERSION2, transport="unix")
        everest.connect(str(tmp_path / "mqtt.sock"))
        everest.loop_start()
        try:
            assert online.wait(TIMEOUT_S)
            everest.publish(MODE, b"from EVerest", 1).wait_for_publish(TIMEOUT_S)
            assert received.get(timeout=TIMEOUT_S) == b"from EVerest"
        finally:
            client.close(2.0)
            everest.disconnect()
            everest.loop_stop()
