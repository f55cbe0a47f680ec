"""The MQTT client as the driver uses it, and its log, to be awaited (tests/io/conftest.py: `start`, `log`)."""

import logging
import queue
import threading

from fusioncharger.io.mqtt_client import MqttClient
from fusioncharger.io.mqtt_connection import Session
from fusioncharger.messages.config import MqttConfig

TIMEOUT_S = 5.0
TOPIC = "to/us"
STATUS = "prefix/status"


class Log(logging.Handler):
    """Log lines of the client, to be awaited."""

    def __init__(self):
        super().__init__()
        self.lines = []
        self._changed = threading.Condition()

    def emit(self, record):
        with self._changed:
            self.lines.append(record.getMessage())
            self._changed.notify_all()

    def count(self, text):
        return sum(text in line for line in self.lines)

    def wait_for(self, text, count=1):
        with self._changed:
            assert self._changed.wait_for(lambda: self.count(text) >= count, TIMEOUT_S), self.lines


class Driver:
    """The client under test, with everything it reports in one queue."""

    def __init__(self, port, *, topics=(TOPIC,), expiry_s=5.0, on_message=None, host="127.0.0.1", **mqtt):
        self.events = queue.Queue()
        self.client = MqttClient(
            MqttConfig(host=host, port=port, **mqtt),
            Session(topics=topics, expiry_s=expiry_s, status_topic=STATUS),
            on_connected=lambda present: self.events.put(("connected", present)),
            on_disconnected=lambda reason: self.events.put(("disconnected", reason)),
            on_message=on_message or (lambda m: self.events.put(("message", m.payload))),
        )
        self.client.start()

    def get(self):
        return self.events.get(timeout=TIMEOUT_S)

    def expect(self, *events):
        for event in events:
            assert self.get() == event

    def expect_loss(self):
        kind, reason = self.get()
        assert kind == "disconnected"
        return reason

    def publish(self, payload, qos=1):
        return self.client.publish("from/us", payload, qos, retain=False)
