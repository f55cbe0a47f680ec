"""EVerest's MQTT API as values (behaviour.md §8, §7): topic and payload in, Input out, and back. Sans-IO.

    <topic_prefix>everest_api/1/<api>/<module id>/{e2m|m2e}/<name>      <telemetry_topic_prefix>/<topic>
                                 │
    power_supply_DC         e2m/mode, export_voltage_current, import_voltage_current, heartbeat   ──► Input
    evse_board_support      m2e/event, raise_error, clear_error                                   ──► Input
    isolation_monitor       m2e/isolation_measurement                                             ──► Input
    over_voltage_monitor    m2e/voltage_measurement_V                                             ──► Input
    powermeter              m2e/powermeter_values                                                 ──► Input
    evse_manager_consumer   e2m/session_event, isolation_measurement, powermeter                  ──► Input
    error_history_consumer  e2m/error_raised, error_cleared, active_errors/<reply id>             ──► Input
    power_supply_DC         m2e/mode, capabilities, voltage_current, raise_error, clear_error,
                                communication_check                                               ◄── Output
    error_history_consumer  m2e/active_errors                                                     ◄── Output

Rules:
- `decode` takes any bytes and never raises. What does not fit its schema becomes MqttMessageRejected with a
  reason that quotes at most a little of it.
- Messages of the API are never retained. A broker that has one kept it from the past, and a command from the
  past must not start power, nor an old measurement pass for a new one.
- A device of its own goes before what evse_manager tells of the same kind: one source for each measurement.
"""

import msgspec
from msgspec import Struct

from ..messages import everest
from ..messages.config import Config, ConnectorConfig
from ..messages.inputs import Input, MqttMessageRejected
from ..messages.outputs import (
    ActiveErrorsRequested,
    CapabilitiesPublished,
    CommunicationChecked,
    ErrorCleared,
    ErrorRaised,
    ModePublished,
    TelemetryPublished,
    VoltageCurrentPublished,
)
from .everest_payloads import from_device, from_error_history, from_everest, misshapen

EverestOutput = (
    ModePublished
    | ErrorRaised
    | ErrorCleared
    | CommunicationChecked
    | CapabilitiesPublished
    | VoltageCurrentPublished
    | ActiveErrorsRequested
    | TelemetryPublished
)
"""The Outputs that leave over MQTT."""

_MAX_REASON_CHARACTERS = 160


class Publication(Struct, frozen=True):
    """One MQTT message to publish."""

    topic: str
    payload: bytes
    qos: int
    retain: bool


class _Source(Struct, frozen=True):
    """Who speaks on a topic, and what it is called there."""

    api: str
    name: str
    connector: int
    """0: of all connectors."""


class EverestCodec:
    """Decodes and encodes the messages of the modules that a Config names."""

    def __init__(self, config: Config, reply_id: str) -> None:
        """`reply_id` is this process's own: replies to the requests of another one are not for us. It becomes
        a level of a topic."""
        self._topic_prefix = config.mqtt.topic_prefix
        self._telemetry_prefix = config.telemetry_topic_prefix
        self._power_supplies = [connector.power_supply_DC for connector in config.connectors]
        self._error_history = config.error_history
        self._reply_topic = self._topic(
            "error_history_consumer", config.error_history, "e2m", f"active_errors/{reply_id}"
        )
        self._boards = {
            connector.evse_board_support: number
            for number, connector in enumerate(config.connectors, 1)
            if connector.evse_board_support
        }
        self._sources: dict[str, _Source] = {}
        for number, connector in enumerate(config.connectors, 1):
            self._listen_to_connector(number, connector, takes_meter=config.has_meter(connector))
        if config.error_history:
            self._listen("error_history_consumer", config.error_history, "e2m", "error_raised", "error_cleared")
            self._sources[self._reply_topic] = _Source("error_history_consumer", "active_errors", 0)

    def _listen_to_connector(self, number: int, connector: ConnectorConfig, *, takes_meter: bool) -> None:
        self._listen(
            *("power_supply_DC", connector.power_supply_DC, "e2m"),
            *("mode", "export_voltage_current", "import_voltage_current", "heartbeat"),
            connector=number,
        )
        for api, module_id, names in (
            ("evse_board_support", connector.evse_board_support, ("event", "raise_error", "clear_error")),
            ("isolation_monitor", connector.isolation_monitor, ("isolation_measurement",)),
            ("over_voltage_monitor", connector.over_voltage_monitor, ("voltage_measurement_V",)),
            ("powermeter", connector.powermeter, ("powermeter_values",)),
        ):
            self._listen(api, module_id, "m2e", *names, connector=number)
        by_manager = ["session_event"]
        if not connector.isolation_monitor:
            by_manager.append("isolation_measurement")
        if takes_meter and not connector.powermeter:
            by_manager.append("powermeter")
        self._listen("evse_manager_consumer", connector.evse_manager, "e2m", *by_manager, connector=number)

    def _listen(self, api: str, module_id: str, direction: str, *names: str, connector: int = 0) -> None:
        """Take these messages of a module, if there is one."""
        if module_id:
            for name in names:
                topic = self._topic(api, module_id, direction, name)
                self._sources[topic] = _Source(api, name, connector)

    @property
    def subscriptions(self) -> tuple[str, ...]:
        """The topics that `decode` knows."""
        return tuple(self._sources)

    def decode(self, topic: str, payload: bytes, *, retained: bool, redelivered: bool) -> Input | None:
        """What a received message says; None if it is nothing to us. `redelivered` is MQTT's DUP flag."""
        source = self._sources.get(topic)
        if source is None:
            return _rejected(topic, payload, "no such topic is subscribed to")
        if retained:
            return _rejected(topic, payload, "retained: a message of this API is for now or never")
        problem = misshapen(payload)
        if problem:
            return _rejected(topic, payload, problem)
        try:
            match source.api:
                case "power_supply_DC":
                    return from_everest(source.connector, source.name, payload, redelivered=redelivered)
                case "error_history_consumer":
                    return from_error_history(source.name, payload, self._boards)
                case _:
                    return from_device(source.connector, source.name, payload)
        except msgspec.DecodeError as error:
            return _rejected(topic, payload, str(error))

    def encode(self, output: EverestOutput) -> Publication | None:
        """The message that carries an Output; None if the configuration wants no such messages.

        QoS 1 for what stands until it is changed, 0 for what the next second repeats (behaviour.md §8.2).
        """
        match output:
            case ModePublished():
                return self._to_everest(output.connector, "mode", output.mode.value, qos=1)
            case ErrorRaised():
                return self._to_everest(output.connector, "raise_error", _error_of(output), qos=1)
            case ErrorCleared():
                return self._to_everest(output.connector, "clear_error", _error_of(output), qos=1)
            case CommunicationChecked():
                return self._to_everest(output.connector, "communication_check", True, qos=0)  # noqa: FBT003
            case CapabilitiesPublished():
                return self._to_everest(output.connector, "capabilities", output.capabilities, qos=1)
            case VoltageCurrentPublished():
                measured = everest.VoltageCurrent(voltage_V=output.voltage_v, current_A=output.current_a)
                return self._to_everest(output.connector, "voltage_current", measured, qos=0)
            case ActiveErrorsRequested():
                return self._request_active_errors()
            case TelemetryPublished():
                if not self._telemetry_prefix:
                    return None
                # QoS 1: only changes are published, so a lost one would stand wrong in the broker's retained
                # message until the value changes again.
                topic = f"{self._telemetry_prefix}/{output.topic}"
                return Publication(topic, msgspec.json.encode(output.values), qos=1, retain=True)

    def _request_active_errors(self) -> Publication | None:
        if not self._error_history:
            return None
        topic = self._topic("error_history_consumer", self._error_history, "m2e", "active_errors")
        request = {"headers": {"replyTo": self._reply_topic}}
        return Publication(topic, msgspec.json.encode(request), qos=1, retain=False)

    def _to_everest(self, connector: int, name: str, value: object, *, qos: int) -> Publication:
        topic = self._topic("power_supply_DC", self._power_supplies[connector - 1], "m2e", name)
        return Publication(topic, msgspec.json.encode(value), qos, retain=False)

    def _topic(self, api: str, module_id: str, direction: str, name: str) -> str:
        return everest.topic(self._topic_prefix, api, module_id, direction, name)


def _rejected(topic: str, payload: bytes, reason: str) -> MqttMessageRejected:
    # Cut and escaped, because the decoder quotes a wrong enum value, which may hold anything.
    shown = reason[:_MAX_REASON_CHARACTERS].encode("unicode_escape").decode("ascii")
    return MqttMessageRejected(topic=topic, reason=shown, size_bytes=len(payload))


def _error_of(output: ErrorRaised | ErrorCleared) -> everest.Error:
    return everest.Error(type=output.error_type, sub_type=output.sub_type, message=output.message)
