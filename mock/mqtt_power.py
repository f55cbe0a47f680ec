"""What is requested of each connector, on MQTT: `<base>/<connector>/power_request` (behaviour.md §9)."""

import logging
import socket

import msgspec
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from .actions import PowerPublished
from .options import MqttOptions

log = logging.getLogger(__name__)


class MqttPower:
    """Connects, and connects again, for itself; while the broker is away nothing is published."""

    def __init__(self, options: MqttOptions) -> None:
        self._base = options.base_topic.rstrip("/")
        self._broker = f"{options.host}:{options.port}"
        self._is_away = False
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_socket_open = _without_delay
        self._client.on_connect = lambda *_: self._came()
        self._client.on_connect_fail = lambda *_: self._went("cannot be reached")
        self._client.on_disconnect = lambda *_: self._went("is gone")
        self._client.connect_async(options.host, options.port)
        self._client.loop_start()

    def publish(self, power: PowerPublished) -> None:
        """Publish, with QoS 0: what is not sent now is of no interest later."""
        payload = msgspec.json.encode({"voltage": power.voltage_v, "current": power.current_a})
        self._client.publish(f"{self._base}/{power.connector_no}/power_request", payload)

    def close(self) -> None:
        """Disconnect."""
        self._is_away = True  # what follows is no news
        self._client.disconnect()
        self._client.loop_stop()

    def _came(self) -> None:
        self._is_away = False
        log.info("MQTT: connected to %s", self._broker)

    def _went(self, how: str) -> None:
        if not self._is_away:
            self._is_away = True
            log.warning("MQTT: broker %s %s; trying again", self._broker, how)


def _without_delay(_client: paho.Client, _userdata: object, connected: object) -> None:
    # paho leaves Nagle's algorithm on (architecture.md §6).
    if isinstance(connected, socket.socket):
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
