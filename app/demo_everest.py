"""EVerest and the board support in the demo: what they publish, and what they hear from the driver."""

import json
import socket
import threading
from collections.abc import Callable

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from ..messages.everest import topic
from ..messages.types import BspEvent, ChargingPhase, Mode

HEARTBEAT_S = 1.0
TELEMETRY_PREFIX = "fusioncharger"


def power_supply_id(connector: int) -> str:
    """Module id of the connector's power_supply_DC_API."""
    return f"power_supply_{connector}"


def board_id(connector: int) -> str:
    """Module id of the connector's evse_board_support_API."""
    return f"board_{connector}"


def monitor_id(connector: int) -> str:
    """Module id of the connector's isolation_monitor_API."""
    return f"monitor_{connector}"


def meter_id(connector: int) -> str:
    """Module id of the connector's powermeter_API."""
    return f"meter_{connector}"


class Everest:
    """Everything is published with QoS 1; what is heard is kept by topic, the newest only."""

    def __init__(self, port: int, connectors: tuple[int, ...]) -> None:
        self._connectors = connectors
        self._heard: dict[str, bytes] = {}
        self._changed = threading.Condition()
        self._ended = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, "everest")
        self._client.on_socket_open = _without_delay
        self._client.on_connect = lambda client, *_: client.subscribe(
            [("everest_api/1/power_supply_DC/+/m2e/#", 1), (f"{TELEMETRY_PREFIX}/#", 1)]
        )
        self._client.on_message = self._receive
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._heartbeat = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def start_heartbeat(self) -> None:
        """Once a second from now on."""
        self._heartbeat.start()

    def close(self) -> None:
        """Ends the heartbeat and the connection."""
        self._ended.set()
        self._client.disconnect()
        self._client.loop_stop()

    def request(self, connector: int, mode: Mode, phase: ChargingPhase) -> None:
        """e2m/mode."""
        self._to_supply(connector, "mode", {"mode": mode.value, "charging_phase": phase.value})

    def set_power(self, connector: int, voltage_v: float, current_a: float) -> None:
        """e2m/export_voltage_current."""
        self._to_supply(connector, "export_voltage_current", {"voltage_V": voltage_v, "current_A": current_a})

    def board_event(self, connector: int, event: BspEvent) -> None:
        """m2e/event of the board."""
        self._from_board(connector, "event", {"event": event.value})

    def raise_error(self, connector: int, error_type: str) -> None:
        """m2e/raise_error of the board."""
        self._from_board(connector, "raise_error", {"type": error_type})

    def clear_error(self, connector: int, error_type: str) -> None:
        """m2e/clear_error of the board."""
        self._from_board(connector, "clear_error", {"type": error_type})

    def forget(self, topic_name: str) -> None:
        """Only what comes from now on counts for wait_until."""
        with self._changed:
            self._heard.pop(topic_name, None)

    def wait_until(self, topic_name: str, fits: Callable[[object], bool], timeout_s: float) -> bool:
        """Whether the newest message (JSON, or text) on the topic fits in time."""
        with self._changed:
            return self._changed.wait_for(
                lambda: topic_name in self._heard and fits(_value(self._heard[topic_name])), timeout_s
            )

    def _beat(self) -> None:
        heartbeat_id = 0
        while not self._ended.wait(HEARTBEAT_S if heartbeat_id else 0.0):
            heartbeat_id += 1
            for connector in self._connectors:
                self._to_supply(connector, "heartbeat", heartbeat_id)

    def _to_supply(self, connector: int, name: str, value: object) -> None:
        self._publish(topic("", "power_supply_DC", power_supply_id(connector), "e2m", name), value)

    def _from_board(self, connector: int, name: str, value: object) -> None:
        self._publish(topic("", "evse_board_support", board_id(connector), "m2e", name), value)

    def _publish(self, topic_name: str, value: object) -> None:
        self._client.publish(topic_name, json.dumps(value), qos=1)

    def _receive(self, _client: paho.Client, _userdata: object, message: paho.MQTTMessage) -> None:
        with self._changed:
            self._heard[message.topic] = bytes(message.payload)
            self._changed.notify_all()


def from_supply(connector: int, name: str) -> str:
    """The topic on which EVerest hears from the connector's driver."""
    return topic("", "power_supply_DC", power_supply_id(connector), "m2e", name)


def _value(payload: bytes) -> object:
    try:
        return json.loads(payload)
    except ValueError:
        return payload.decode(errors="replace")


def _without_delay(_client: paho.Client, _userdata: object, sock: object) -> None:
    assert isinstance(sock, socket.socket)  # noqa: S101 - paho's type also allows TLS and websockets
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
