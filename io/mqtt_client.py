"""The way to the MQTT broker: connects, subscribes, reconnects for ever (behaviour.md §8.2).

    thread "mqtt":   one connection ─► on_connected, on_message, … ─► loss ─► on_disconnected
                        ▲                                               │
                        └────────────── 10 ms … 1 s, for ever ──────────┘

Rules:
- The thread is ours, and nobody else calls paho (mqtt_connection.py): whatever a malformed packet makes paho
  raise ends a connection, never the thread. A callback that raises ends nothing.
- The broker keeps our session over a short loss: one client id per process, clean start only until the first
  connection stands, session expiry = everest_timeout_s. So an Off that was sent during a blip arrives.
- MQTT 5 first, at every loss anew. A broker that only speaks 3.1.1 says so in its CONNACK, or hangs up, or
  does not answer (amqtt); then 3.1.1 is tried, with a clean session, because 3.1.1 knows no expiry: its kept
  session would bring commands of hours ago.
- Password and TLS files are read anew for each connection (mqtt_access.py). TLS changes nothing of the above.
- `publish` hands the message to the thread and returns; while the broker is away it drops it.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable
from typing import ParamSpec

import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTProtocolVersion

from ..messages.config import MqttConfig
from .mqtt_access import BrokerAccess, BrokerAccessError, load_access
from .mqtt_connection import MqttConnection, Session
from .pulse import Pulse
from .waker import Waker

log = logging.getLogger(__name__)
_P = ParamSpec("_P")

FIRST_RETRY_S = 0.01
LAST_RETRY_S = 1.0
LEAVING_S = 0.05
"""Kept of `close`'s time for the thread's end."""
STABLE_AFTER_S = 10.0
"""A connection that stood this long starts the backoff anew."""


class MqttClient:
    """Connects, subscribes, reconnects. The callbacks run on its thread; what they raise is logged."""

    def __init__(
        self,
        broker: MqttConfig,
        session: Session,
        *,
        on_connected: Callable[[bool], None],
        on_disconnected: Callable[[str], None],
        on_message: Callable[[paho.MQTTMessage], None],
    ) -> None:
        """`on_connected` gets MQTT's session-present flag, `on_disconnected` the reason."""
        self._broker = broker
        self._session = session
        self._on_connected = on_connected
        self._on_disconnected = on_disconnected
        self._on_message = on_message
        self._client_id = f"fusioncharger-{uuid.uuid4().hex}"
        self.pulse = Pulse()
        self._waker = Waker()
        self._connection: MqttConnection | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)
        self._spoke_mqtt_5 = False
        self._said_old_broker = False
        self._said_denied = False
        """On this connection."""
        self._complaint = ""

    def start(self) -> None:
        """Connects in the background, however long that takes."""
        self._thread.start()

    def is_alive(self) -> bool:
        """Whether the network thread lives; from start() to close() it must."""
        return self._thread.is_alive()

    def publish(self, topic: str, payload: bytes, qos: int, *, retain: bool) -> bool:
        """Hands a message to the network thread. False: dropped, as the broker is away or too slow."""
        connection = self._connection
        return connection is not None and connection.publish(topic, payload, qos, retain=retain)

    def close(self, timeout_s: float) -> None:
        """Says offline, waits until the broker has everything, disconnects; all within `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        self._closing.set()
        connection = self._connection
        if connection is not None:
            connection.finish(timeout_s - LEAVING_S)
        if self._thread.is_alive():
            self._thread.join(max(0.0, deadline - time.monotonic()))
        if not self._thread.is_alive():
            self._waker.close()

    def _run(self) -> None:
        version = MQTTProtocolVersion.MQTTv5
        delay_s = FIRST_RETRY_S
        while not self._closing.is_set():
            self.pulse.beats += 1
            started_at = time.monotonic()
            try:
                with self.pulse.blocking():  # a disk may be slow, too
                    access = load_access(self._broker)
            except BrokerAccessError as error:
                self._complain("; ".join(str(error).splitlines()))
                self._closing.wait(LAST_RETRY_S)
                continue
            connection = self._serve_one_connection(version, access)
            is_too_old = version is MQTTProtocolVersion.MQTTv5 and self._is_too_old(connection)
            if not is_too_old and not connection.is_online:
                self._complain(connection.loss)
            del connection  # its descriptors are not to outlive it as long as the next one stands
            if is_too_old:
                version = MQTTProtocolVersion.MQTTv311
                continue
            version = MQTTProtocolVersion.MQTTv5
            if time.monotonic() - started_at >= STABLE_AFTER_S:
                delay_s = FIRST_RETRY_S
            self._closing.wait(delay_s)
            delay_s = min(2 * delay_s, LAST_RETRY_S)

    def _serve_one_connection(self, version: MQTTProtocolVersion, access: BrokerAccess) -> MqttConnection:
        connection = MqttConnection(
            self._broker,
            access,
            self._session,
            self._client_id,
            version,
            clean_start=not self._spoke_mqtt_5,
            on_online=_guarded(self._report_connected),
            on_message=_guarded(self._on_message),
            pulse=self.pulse,
            waker=self._waker,
            on_denied=self._report_denied,
        )
        self._said_denied = False
        self._connection = connection
        if self._closing.is_set():  # close() may have looked for a connection before there was this one
            return connection
        try:
            connection.serve()
        except OSError as error:
            connection.loss = str(error)
        except Exception as error:
            connection.loss = f"{type(error).__name__}: {error}"
            if connection.loss != self._complaint:
                log.exception("MQTT: the connection failed")
        self._connection = None
        if connection.is_online and not self._closing.is_set():
            log.warning("MQTT: connection lost: %s", connection.loss)
            _guarded(self._on_disconnected)(connection.loss)
        return connection

    def _report_connected(self, version: MQTTProtocolVersion, session_present: bool) -> None:
        self._complaint = ""
        if version is MQTTProtocolVersion.MQTTv5:
            self._spoke_mqtt_5 = True
        elif not self._said_old_broker:
            self._said_old_broker = True
            log.warning("MQTT: the broker only speaks 3.1.1: what is sent during a short loss will not arrive")
        log.info(
            "MQTT: connected to %s:%d%s",
            self._broker.host,
            self._broker.port,
            ", session kept" if session_present else "",
        )
        self._on_connected(session_present)

    def _report_denied(self, reason: str) -> None:
        if not self._said_denied:
            self._said_denied = True
            log.warning(
                "MQTT: the broker denies what we publish: %s; its access list has to allow it "
                "(docs/mosquitto.acl)",
                reason,
            )

    def _is_too_old(self, connection: MqttConnection) -> bool:
        # A frozen broker, or a proxy before one that is down, looks just the same as an old one. But who has
        # spoken MQTT 5 is not old: 3.1.1 with the same client id would end the session that is to survive.
        return connection.version_refused or (connection.is_unanswered and not self._spoke_mqtt_5)

    def _complain(self, text: str) -> None:
        """Once, not at every attempt."""
        if text != self._complaint and not self._closing.is_set():
            self._complaint = text
            log.warning("MQTT: broker %s:%d: %s; trying on", self._broker.host, self._broker.port, text)


def _guarded(callback: Callable[_P, None]) -> Callable[_P, None]:
    def guarded(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            callback(*args, **kwargs)
        except Exception:  # whatever it is, the connection that others depend on goes on
            log.exception("MQTT: a callback failed")

    return guarded
