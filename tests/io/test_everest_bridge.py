"""The bridge between MQTT and the core, against a real broker (behaviour.md §8)."""

import contextlib
import json
import logging
import queue
import time

import paho.mqtt.client as paho
import pytest
from broker import Mosquitto
from fusioncharger.io.everest_bridge import REJECTIONS_SHOWN_PER_SECOND, EverestBridge
from fusioncharger.messages.config import Config, ConnectorConfig, MqttConfig
from fusioncharger.messages.everest import Capabilities
from fusioncharger.messages.inputs import (
    ActiveErrorsReceived,
    BrokerConnected,
    BrokerDisconnected,
    BspError,
    HeartbeatReceived,
    ModeRequested,
    MqttMessageRejected,
    OverVoltageMeasured,
)
from fusioncharger.messages.outputs import (
    ActiveErrorsRequested,
    CapabilitiesPublished,
    ModePublished,
    TelemetryPublished,
    VoltageCurrentPublished,
)
from fusioncharger.messages.types import ChargingPhase, Mode
from test_mqtt_client import TIMEOUT_S, Peer

PSU = "everest_api/1/power_supply_DC/psu"
HISTORY = "everest_api/1/error_history_consumer/history"


@pytest.fixture
def broker(tmp_path):
    with Mosquitto(tmp_path) as mosquitto:
        yield mosquitto


@pytest.fixture
def inputs():
    return queue.Queue()


def config(broker):
    return Config(
        connectors=(
            ConnectorConfig(
                global_connector_number=1,
                max_export_current_A=100.0,
                max_export_power_W=60_000.0,
                power_supply_DC="psu",
                evse_board_support="bsp",
                over_voltage_monitor="ovm",
            ),
        ),
        error_history="history",
        mqtt=MqttConfig(host="127.0.0.1", port=broker.port),
        telemetry_topic_prefix="telemetry",
    )


@contextlib.contextmanager
def running(broker, inputs):
    bridge = EverestBridge(config(broker), inputs.put)
    bridge.start()
    yield bridge
    bridge.close(2.0)
    assert not bridge.is_alive()


@pytest.fixture
def bridge(broker, inputs):
    with running(broker, inputs) as bridge:
        assert inputs.get(timeout=TIMEOUT_S) == BrokerConnected(session_present=False)
        yield bridge


def test_messages_become_inputs_and_outputs_messages(broker, bridge, inputs):
    assert bridge.is_alive()
    with Peer(broker.port, f"{PSU}/m2e/#", "telemetry/#") as peer:
        assert peer.get()[:2] == ("telemetry/status", b"online")  # retained, or just on its way
        peer.publish(f"{PSU}/e2m/heartbeat", b"1")
        assert inputs.get(timeout=TIMEOUT_S) == HeartbeatReceived(connector=1, heartbeat_id=1)
        peer.publish(f"{PSU}/e2m/mode", b'{"mode": "Export", "charging_phase": "CableCheck"}')
        assert inputs.get(timeout=TIMEOUT_S) == ModeRequested(
            connector=1, mode=Mode.EXPORT, charging_phase=ChargingPhase.CABLE_CHECK
        )
        bridge.handle(ModePublished(connector=1, mode=Mode.EXPORT))
        assert peer.get() == (f"{PSU}/m2e/mode", b'"Export"', False)
        bridge.handle(TelemetryPublished(topic="connector/1", values={"x": 1.5}))
        assert peer.get() == ("telemetry/connector/1", b'{"x":1.5}', False)


def test_measurements_and_what_is_measured(broker, bridge, inputs):
    with Peer(broker.port, f"{PSU}/m2e/#") as peer:
        peer.publish("everest_api/1/over_voltage_monitor/ovm/m2e/voltage_measurement_V", b"399.5")
        assert inputs.get(timeout=TIMEOUT_S) == OverVoltageMeasured(connector=1, voltage_v=399.5)
        bridge.handle(CapabilitiesPublished(connector=1, capabilities=Capabilities()))
        topic, payload, _ = peer.get()
        assert topic == f"{PSU}/m2e/capabilities"
        assert json.loads(payload)["bidirectional"] is False
        bridge.handle(VoltageCurrentPublished(connector=1, voltage_v=1.5, current_a=0.0))
        assert peer.get() == (f"{PSU}/m2e/voltage_current", b'{"voltage_V":1.5,"current_A":0.0}', False)


def test_active_errors_are_asked_for_and_answered(broker, bridge, inputs):
    origin = {"module_id": "bsp", "implementation_id": "main"}
    error = {"type": "evse_board_support/EnclosureOpen", "origin": origin}
    with Peer(broker.port, f"{HISTORY}/m2e/#") as peer:
        bridge.handle(ActiveErrorsRequested())
        topic, payload, _ = peer.get()
        assert topic == f"{HISTORY}/m2e/active_errors"
        peer.publish(
            f"{HISTORY}/e2m/error_raised", json.dumps({**error, "type": "x/Other"}).encode()
        )  # nothing
        peer.publish(json.loads(payload)["headers"]["replyTo"], json.dumps({"errors": [error]}).encode())
        assert inputs.get(timeout=TIMEOUT_S) == ActiveErrorsReceived(errors=(BspError(1, "EnclosureOpen"),))


def test_each_process_has_replies_of_its_own(broker, bridge, inputs):
    with Peer(broker.port, f"{HISTORY}/m2e/#") as peer, running(broker, inputs) as other:
        assert inputs.get(timeout=TIMEOUT_S) == BrokerConnected(session_present=False)
        bridge.handle(ActiveErrorsRequested())
        other.handle(ActiveErrorsRequested())
        assert peer.get()[1] != peer.get()[1]


def test_a_retained_command_starts_nothing(broker, inputs):
    with Peer(broker.port) as peer:
        peer.publish(f"{PSU}/e2m/mode", b'{"mode": "Export", "charging_phase": "Charging"}', retain=True)
    with running(broker, inputs):
        received = [inputs.get(timeout=TIMEOUT_S) for _ in range(2)]
    assert BrokerConnected(session_present=False) in received
    assert any(isinstance(input_, MqttMessageRejected) for input_ in received)


def test_a_flood_of_rejected_messages_is_counted_and_shown_sparingly(broker, bridge, inputs, caplog):
    caplog.set_level(logging.WARNING)
    begin_s = time.monotonic()
    with Peer(broker.port) as peer:
        for _ in range(100):
            peer.publish(f"{PSU}/e2m/mode", b"Off")
        # What comes after the flood says that it was worked off.
        peer.publish(f"{PSU}/e2m/heartbeat", b"1")
        received = []
        while not received or not isinstance(received[-1], HeartbeatReceived):
            received.append(inputs.get(timeout=TIMEOUT_S))
    assert bridge.rejected_count == 100
    shown = [message for message in received if isinstance(message, MqttMessageRejected)]
    seconds = int(time.monotonic() - begin_s) + 2
    assert 1 <= len(shown) <= seconds * (REJECTIONS_SHOWN_PER_SECOND + 1)
    assert len([record for record in caplog.records if "rejected" in record.getMessage()]) == len(shown)


def test_the_broker_away_blocks_nothing(broker, bridge, inputs):
    broker.kill()
    assert isinstance(inputs.get(timeout=TIMEOUT_S), BrokerDisconnected)
    bridge.handle(ModePublished(connector=1, mode=Mode.EXPORT))
    broker.start()
    with Peer(broker.port, f"{PSU}/m2e/#") as peer:
        assert inputs.get(timeout=TIMEOUT_S) == BrokerConnected(session_present=False)
        bridge.handle(ModePublished(connector=1, mode=Mode.OFF))
        assert peer.get() == (f"{PSU}/m2e/mode", b'"Off"', False)


def test_a_topic_that_is_not_utf_8_is_a_rejected_message():
    """No broker that keeps to MQTT sends one; as an exception it was neither counted nor shown sparingly."""
    received = []
    bridge = EverestBridge(Config(connectors=()), received.append)
    for _ in range(100):
        bridge._receive(paho.MQTTMessage(topic=b"everest_api/\xff"))
    assert bridge.rejected_count == 100
    assert len(received) <= 2 * REJECTIONS_SHOWN_PER_SECOND + 1
    assert received[0].topic == "(not UTF-8)"
