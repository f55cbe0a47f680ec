"""The mock's variables (behaviour.md §9), row by row, with the real driver where one can tell."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from fusioncharger.io.goose_codec import encode
from fusioncharger.io.goose_port import open_port
from fusioncharger.messages.goose import GooseHeader, StopRequest
from fusioncharger.messages.types import StopReason
from rig import Process, Rig, rig

PREFIX = "FUSION_CHARGER_MOCK_"
PLAIN = "send_secure_goose = false\n"
TAKES_PLAIN = "verify_secure_goose = false\nallow_insecure_goose = true\n"


def mock_by_variables(system: Rig) -> Process:
    """A mock in the place of the rig's, told by the environment alone."""
    system.mock.kill()
    system.mock = Process(
        ["-m", "fusioncharger", "mock", "--events", "-", "--control", "-", "--ratings-at-once"], events=True
    )
    return system.mock


# --- hmac ----------------------------------------------------------------------------------------------


def test_unsigned_goose_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PREFIX + "DISABLE_SEND_HMAC", "1")
    monkeypatch.setenv(PREFIX + "DISABLE_VERIFY_HMAC", "true")
    settings = PLAIN + TAKES_PLAIN + "module_placeholder_allocation_timeout_s = 60\n"
    with rig(tmp_path, settings=settings) as system:
        system.start_driver()
        system.charge(1)  # takes a reply, the timeout is far away
        system.everest.mode(1, "Off", "Other")
        system.wait_stop(1)
        assert system.settle()["1/working_status"] == 4
        assert not any(event["event"] == "goose_dropped" for event in system.mock.events.all())
        warnings = [line for line in system.driver.log.all() if "WARNING" in line]
        assert any("without verification" in line for line in warnings), warnings


def test_a_mock_that_verifies_takes_no_plain_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PREFIX + "DISABLE_VERIFY_HMAC", "false")
    with rig(tmp_path, settings=PLAIN) as system:
        system.start_driver(first_key=False)
        mark = system.mock.events.mark()
        system.everest.bsp(1, "B")
        system.wait_key(1, after=mark)
        system.mock.events.wait(lambda event: event["event"] == "goose_dropped", after=mark)
        assert system.frames(1) == []


@pytest.mark.parametrize("sends_plain", [True, False])
def test_a_driver_that_verifies_takes_no_plain_reply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, sends_plain: bool
) -> None:
    monkeypatch.setenv(PREFIX + "DISABLE_SEND_HMAC", "1" if sends_plain else "0")
    settings = "module_placeholder_allocation_timeout_s = 0.3\n"
    with rig(tmp_path, settings=settings) as system:
        system.start_driver()
        mark = system.everest.messages.mark()
        system.charge(1)
        failed = "VendorWarning", "module_placeholder_allocation_failed"
        if sends_plain:
            system.everest.wait_error(1, *failed, after=mark)
            system.driver.log.wait(lambda line: "GOOSE frames dropped" in line)
        else:
            assert system.driver.terminate() == 0  # all that it had to say has been said
            assert failed not in system.everest.raised(1, after=mark)


@pytest.mark.parametrize("verifies", [True, False])
def test_wrongly_signed_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, verifies: bool) -> None:
    monkeypatch.setenv(PREFIX + "DISABLE_VERIFY_HMAC", "0" if verifies else "1")
    with rig(tmp_path) as system:
        port = open_port("veth1")
        try:
            message = StopRequest(5, StopReason.NORMAL)
            header = GooseHeader(1, 0, 1_800_000_000, 0)
            wrong = bytes(range(48))
            frame = encode(
                message, header, dst=b"\xff" * 6, src=port.mac, vlan_id=0, vlan_priority=5, key=wrong
            )
            port.send(frame)
        finally:
            port.close()
        kinds = ("goose_dropped", "stop_request")
        found = system.mock.events.wait(lambda event: event["event"] in kinds)
        assert found["event"] == ("goose_dropped" if verifies else "stop_request")


# --- interface, port -----------------------------------------------------------------------------------


def test_interface_and_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with rig(tmp_path) as system:
        system.config.write_text(system.config.read_text().replace('"veth1"', '"veth0"'))
        monkeypatch.setenv(PREFIX + "ETH", "veth1")  # the other way round than the default
        monkeypatch.setenv(PREFIX + "PORT", str(system.mock_port))
        listening = mock_by_variables(system).events.wait(lambda event: event["event"] == "listening")
        assert listening["port"] == system.mock_port
        system.start_driver()
        system.charge(1)


def test_interface_and_port_that_nobody_named(tmp_path: Path) -> None:
    with rig(tmp_path) as system:
        text = system.config.read_text()
        system.config.write_text(text.replace(f"psu_port = {system.mock_port}", "psu_port = 8502"))
        listening = mock_by_variables(system).events.wait(lambda event: event["event"] == "listening")
        assert listening["port"] == 8502
        system.start_driver()  # on veth1, the other end of veth0
        system.charge(1)


# --- power requests on MQTT ----------------------------------------------------------------------------


def restart_publishing(system: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PREFIX + "MQTT_HOST", "127.0.0.1")
    monkeypatch.setenv(PREFIX + "MQTT_PORT", str(system.broker.port))
    system.restart_mock("--ratings-at-once")
    system.mock.log.wait(lambda line: "MQTT: connected" in line)
    system.start_driver()


def requests(system: Rig) -> dict[str, list[dict[str, Any]]]:
    """What was requested, by topic."""
    found: dict[str, list[dict[str, Any]]] = {}
    for topic, text in system.everest.messages.all():
        if topic.endswith("power_request"):
            found.setdefault(topic, []).append(json.loads(text))
    return found


def test_power_requests_are_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with rig(tmp_path) as system:
        restart_publishing(system, monkeypatch)
        topic = "fusion_charger_mock/5/power_request"
        everest = system.everest
        everest.wait(topic, '{"voltage":0.0,"current":0.0}')
        mark = everest.messages.mark()
        system.charge(1, 400, 20)
        everest.wait_object(topic, {"voltage": 400, "current": 20}, after=mark, timeout_s=0.9)  # at once
        # Unchanged, once a second.
        again = everest.messages.mark()
        everest.wait_object(topic, {"voltage": 400, "current": 20}, after=again, timeout_s=2)
        changed = everest.messages.mark()
        everest.setpoint(1, 410, 21)
        everest.wait_object(topic, {"voltage": 410, "current": 21}, after=changed, timeout_s=0.9)
        everest.mode(1, "Off", "Other")
        everest.wait_object(topic, {"voltage": 0, "current": 0}, after=changed, timeout_s=0.9)
        ((published, told),) = requests(system).items()
        assert published == topic
        assert all(set(said) == {"voltage", "current"} for said in told)
        values = [(said["voltage"], said["current"]) for said in told]
        assert list(dict.fromkeys(values)) == [(0, 0), (400, 20), (410, 21)]
        assert values.count((400, 20)) == 2


def test_power_requests_are_published_under_another_topic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PREFIX + "MQTT_BASE_TOPIC", "bench/psu/")
    with rig(tmp_path) as system:
        assert requests(system) == {}
        restart_publishing(system, monkeypatch)
        system.charge(1, 400, 20)
        system.everest.wait_object("bench/psu/5/power_request", {"voltage": 400, "current": 20})
        assert set(requests(system)) == {"bench/psu/5/power_request"}


# --- what no variable can be ---------------------------------------------------------------------------

WRONG: list[tuple[dict[str, str], str]] = [
    ({"DISABLE_SEND_HMAC": "yes"}, "DISABLE_SEND_HMAC: found 'yes'; allowed: 1, true, 0, false"),
    ({"DISABLE_VERIFY_HMAC": "TRUE"}, "DISABLE_VERIFY_HMAC: found 'TRUE'; allowed: 1, true, 0, false"),
    ({"DISABLE_VERIFY_HMAC": ""}, "DISABLE_VERIFY_HMAC: found ''; allowed: 1, true, 0, false"),
    ({"ETH": "veth7"}, "veth7"),
    ({"PORT": "65536"}, "PORT: found '65536'; allowed: 0 to 65535"),
    ({"MQTT_HOST": "127.0.0.1"}, "allowed: both or none"),
    ({"MQTT_PORT": "1883"}, "allowed: both or none"),
    ({"MQTT_HOST": "127.0.0.1", "MQTT_PORT": "http"}, "MQTT_PORT: found 'http'; allowed: 1 to 65535"),
    (
        {"MQTT_HOST": "127.0.0.1", "MQTT_PORT": "1883", "MQTT_BASE_TOPIC": "a/#"},
        "MQTT_BASE_TOPIC: found 'a/#'; allowed: an MQTT topic without + or #",
    ),
]


def test_a_wrong_value_is_a_clear_error() -> None:
    with contextlib.ExitStack() as started:
        mocks = []
        for variables, complaint in WRONG:  # all at once
            with pytest.MonkeyPatch.context() as environment:
                for name, value in variables.items():
                    environment.setenv(PREFIX + name, value)
                mock = Process(["-m", "fusioncharger", "mock"])
            started.callback(mock.kill)
            mocks.append((mock, complaint))
        for mock, complaint in mocks:
            assert mock.wait() != 0, complaint
            assert any(complaint in line for line in mock.log.all()), mock.log.all()
            assert not any("Traceback" in line for line in mock.log.all())
