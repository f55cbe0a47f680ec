"""Telemetry: keeps every topic's object and publishes the ones that really changed (behaviour.md §7).

A change opens a window of 10 ms; at its end each topic that then differs from what was published last is
published once, so a burst is one message. While the broker is away only the newest state is kept. After each
connect every topic is published once: a broker that restarted has lost the retained objects, and what was
on its way when the connection broke may be lost.
"""

from typing import Any

from ..messages.config import Config
from ..messages.inputs import BrokerConnected, BrokerDisconnected
from ..messages.internal import DatapointsChanged
from ..messages.outputs import TelemetryPublished, TelemetryValue
from ..telemetry.datapoints import changed_topics, initial_values
from .runtime import MILLISECOND_NS, ActorState, CoreActor, Runtime

WINDOW_TIMER = "window"
WINDOW_NS = 10 * MILLISECOND_NS


class TelemetryPublisherState(ActorState, frozen=True, kw_only=True):
    """Every topic's object, as it is and as it was published last."""

    broker_connected: bool = False
    values: dict[str, dict[str, TelemetryValue]] = {}
    published: dict[str, dict[str, TelemetryValue]] = {}


def initial_state(config: Config) -> TelemetryPublisherState:
    """All topics, nothing received, nothing published."""
    connector_nos = [connector.global_connector_number for connector in config.connectors]
    return TelemetryPublisherState(values=initial_values(connector_nos))


class TelemetryPublisher(CoreActor[TelemetryPublisherState]):
    """Publishes nothing at all if telemetry_topic_prefix is empty."""

    def __init__(self, runtime: Runtime, name: str, state: TelemetryPublisherState, *, config: Config) -> None:
        super().__init__(runtime, name, state)
        self._enabled = bool(config.telemetry_topic_prefix)

    def handle(self, message: Any) -> None:
        if not self._enabled:
            return
        match message:
            case DatapointsChanged(topic=topic, values=values):
                known = self.state.values
                self.change(values={**known, topic: {**known[topic], **values}})
            case BrokerConnected():
                self.change(broker_connected=True, published={})
            case BrokerDisconnected():
                self.change(broker_connected=False)

    def timer_fired(self, name: str) -> None:
        if name != WINDOW_TIMER:
            super().timer_fired(name)
        if not self.state.broker_connected:
            return
        for topic in changed_topics(self.state.values, self.state.published):
            values = self.state.values[topic]
            self.emit(TelemetryPublished(topic=topic, values=values))
            self.change(published={**self.state.published, topic: values})

    def end_turn(self) -> None:
        if not self.state.broker_connected or WINDOW_TIMER in self.state.timers:
            return
        if self.state.values is self.before.values and self.state.published:
            return  # nothing new since the window before
        if changed_topics(self.state.values, self.state.published):
            self.start_timer(WINDOW_TIMER, WINDOW_NS)
