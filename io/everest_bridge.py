"""EVerest, the boards and the telemetry: messages on MQTT become Inputs, Outputs become messages.

What a message means is everest_codec.py's, how it travels is mqtt_client.py's (behaviour.md §8).
Threads: Inputs go to the sink on the MQTT thread; `handle` is called on the core's and does not block.
"""

import logging
import time
import uuid
from collections.abc import Callable

import paho.mqtt.client as paho

from ..messages.config import Config
from ..messages.inputs import BrokerConnected, BrokerDisconnected, Input, MqttMessageRejected
from .everest_codec import EverestCodec, EverestOutput
from .mqtt_client import MqttClient
from .mqtt_connection import Session
from .pulse import Pulse

log = logging.getLogger(__name__)

REJECTIONS_SHOWN_PER_SECOND = 3


class EverestBridge:
    """The driver's side of MQTT. `sink` is the core's input queue: thread-safe, and it does not block."""

    def __init__(self, config: Config, sink: Callable[[Input], None]) -> None:
        self._codec = EverestCodec(config, reply_id=uuid.uuid4().hex)
        self._sink = sink
        self._rejections = _RejectionLog()
        prefix = config.telemetry_topic_prefix
        self._client = MqttClient(
            config.mqtt,
            Session(
                topics=self._codec.subscriptions,
                expiry_s=config.everest_timeout_s,
                status_topic=f"{prefix}/status" if prefix else "",
            ),
            on_connected=lambda session_present: sink(BrokerConnected(session_present=session_present)),
            on_disconnected=lambda reason: sink(BrokerDisconnected(reason=reason)),
            on_message=self._receive,
        )

    @property
    def rejected_count(self) -> int:
        """Messages that did not fit their schema, since the start."""
        return self._rejections.count

    @property
    def pulse(self) -> Pulse:
        """Of the MQTT thread, which turns at least once a second."""
        return self._client.pulse

    def start(self) -> None:
        """Connects in the background."""
        self._client.start()

    def handle(self, output: EverestOutput) -> None:
        """Publishes what the core decided. While the broker is away it is dropped: the core synchronises when
        the connection stands again (behaviour.md §8.2)."""
        message = self._codec.encode(output)
        if message is not None and not self._client.publish(
            message.topic, message.payload, message.qos, retain=message.retain
        ):
            log.debug("MQTT: not sent: %s", message.topic)

    def close(self, timeout_s: float) -> None:
        """Lets out what is on its way, says offline, disconnects; all within `timeout_s`."""
        self._client.close(timeout_s)

    def is_alive(self) -> bool:
        """Whether the MQTT thread lives; from start() to close() it must."""
        return self._client.is_alive()

    def _receive(self, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:  # no broker that keeps to MQTT sends one
            topic = "(not UTF-8)"
        received = self._codec.decode(
            topic, bytes(message.payload), retained=message.retain, redelivered=message.dup
        )
        if isinstance(received, MqttMessageRejected):
            for rejected in self._rejections.add(received, time.monotonic()):
                log.warning(
                    "MQTT: message rejected: %s (%d bytes): %s",
                    rejected.topic,
                    rejected.size_bytes,
                    rejected.reason,
                )
                self._sink(rejected)
        elif received is not None:
            self._sink(received)


class _RejectionLog:
    """What is logged and recorded of rejected messages: a few a second, then how many more there were. A flood
    of garbage must fill neither the log nor the core's queue."""

    def __init__(self) -> None:
        self.count = 0
        self._second = 0
        self._in_second = 0

    def add(self, rejected: MqttMessageRejected, now_s: float) -> list[MqttMessageRejected]:
        """What to log and record now."""
        shown = []
        self.count += 1
        if int(now_s) != self._second:
            hidden = self._in_second - REJECTIONS_SHOWN_PER_SECOND
            if hidden > 0:
                reason = f"{hidden} more messages rejected in a second"
                shown.append(MqttMessageRejected(topic=rejected.topic, reason=reason, size_bytes=0))
            self._second = int(now_s)
            self._in_second = 0
        self._in_second += 1
        if self._in_second <= REJECTIONS_SHOWN_PER_SECOND:
            shown.append(rejected)
        return shown
