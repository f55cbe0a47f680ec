"""EVerest's MQTT API as values (behaviour.md §8.1, §7): topic and payload in, Input out, and back. Sans-IO.

    <topic_prefix>everest_api/1/<api>/<module id>/{e2m|m2e}/<name>      <telemetry_topic_prefix>/<topic>
                                 │
    power_supply_DC     e2m/mode, export_voltage_current, import_voltage_current, heartbeat   ──► Input
    evse_board_support  m2e/event, raise_error, clear_error                                   ──► Input
    power_supply_DC     m2e/mode, raise_error, clear_error, communication_check               ◄── Output

Rules:
- `decode` takes any bytes and never raises. What does not fit its schema becomes MqttMessageRejected with a
  reason that quotes at most a little of it.
- Its time is linear in the payload: size and nesting are checked before the JSON decoder sees a byte.
- Messages of the API are never retained. A broker that has one kept it from the past, and a command from the
  past must not start power.
- A number is finite: JSON has no NaN and no infinity, and the decoder refuses what is too large for a float.
"""

import re

import msgspec
from msgspec import Struct

from ..messages import everest
from ..messages.config import Config
from ..messages.inputs import (
    BspErrorCleared,
    BspErrorRaised,
    BspEventReceived,
    HeartbeatReceived,
    ImportSetpointRequested,
    Input,
    ModeRequested,
    MqttMessageRejected,
    SetpointRequested,
)
from ..messages.outputs import (
    CommunicationChecked,
    ErrorCleared,
    ErrorRaised,
    ModePublished,
    TelemetryPublished,
)

EverestOutput = ModePublished | ErrorRaised | ErrorCleared | CommunicationChecked | TelemetryPublished
"""The Outputs that leave over MQTT."""

MAX_PAYLOAD_BYTES = 64 * 1024
MAX_NESTING = 32
MAX_HEARTBEAT_ID = 2**64 - 1
_MAX_REASON_CHARACTERS = 160

# A string as a whole (an unterminated one: to the end), so that brackets in it do not count. Every part of
# the pattern may stop anywhere, hence no backtracking.
_STRING_OR_BRACKET = re.compile(rb'"(?:[^"\\]+|\\.)*"?|[\[\]{}]', re.DOTALL)

_FROM_EVEREST = ("mode", "export_voltage_current", "import_voltage_current", "heartbeat")
_FROM_BOARD = ("event", "raise_error", "clear_error")

_mode_request = msgspec.json.Decoder(everest.ModeRequest)
_voltage_current = msgspec.json.Decoder(everest.VoltageCurrent)
_heartbeat = msgspec.json.Decoder(int)
_bsp_event = msgspec.json.Decoder(everest.BspEventMessage)
_error = msgspec.json.Decoder(everest.Error)


class Publication(Struct, frozen=True):
    """One MQTT message to publish."""

    topic: str
    payload: bytes
    qos: int
    retain: bool


class EverestCodec:
    """Decodes and encodes the messages of the connectors that a Config names."""

    def __init__(self, config: Config) -> None:
        self._topic_prefix = config.mqtt.topic_prefix
        self._telemetry_prefix = config.telemetry_topic_prefix
        self._power_supplies = [connector.power_supply_DC for connector in config.connectors]
        self._sources: dict[str, tuple[int, str]] = {}
        for number, connector in enumerate(config.connectors, 1):
            for name in _FROM_EVEREST:
                topic = self._topic("power_supply_DC", connector.power_supply_DC, "e2m", name)
                self._sources[topic] = (number, name)
            for name in _FROM_BOARD:
                topic = self._topic("evse_board_support", connector.evse_board_support, "m2e", name)
                self._sources[topic] = (number, name)

    @property
    def subscriptions(self) -> tuple[str, ...]:
        """The topics that `decode` knows."""
        return tuple(self._sources)

    def decode(self, topic: str, payload: bytes, *, retained: bool, redelivered: bool) -> Input:
        """What a received message says. `redelivered` is MQTT's DUP flag."""
        source = self._sources.get(topic)
        if source is None:
            return _rejected(topic, payload, "no such topic is subscribed to")
        if retained:
            return _rejected(topic, payload, "retained: a message of this API is for now or never")
        misshapen = _misshapen(payload)
        if misshapen:
            return _rejected(topic, payload, misshapen)
        try:
            return _decode(*source, payload, redelivered=redelivered)
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
            case TelemetryPublished():
                if not self._telemetry_prefix:
                    return None
                # QoS 1: only changes are published, so a lost one would stand wrong in the broker's retained
                # message until the value changes again.
                topic = f"{self._telemetry_prefix}/{output.topic}"
                return Publication(topic, msgspec.json.encode(output.values), qos=1, retain=True)

    def _to_everest(self, connector: int, name: str, value: object, *, qos: int) -> Publication:
        topic = self._topic("power_supply_DC", self._power_supplies[connector - 1], "m2e", name)
        return Publication(topic, msgspec.json.encode(value), qos, retain=False)

    def _topic(self, api: str, module_id: str, direction: str, name: str) -> str:
        return everest.topic(self._topic_prefix, api, module_id, direction, name)


def _rejected(topic: str, payload: bytes, reason: str) -> MqttMessageRejected:
    # Cut and escaped, because the decoder quotes a wrong enum value, which may hold anything.
    shown = reason[:_MAX_REASON_CHARACTERS].encode("unicode_escape").decode("ascii")
    return MqttMessageRejected(topic=topic, reason=shown, size_bytes=len(payload))


def _misshapen(payload: bytes) -> str:
    """What is wrong with size, nesting or UTF-8 ("" if nothing): what the JSON decoder does not check, or not
    before it recurses."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        return f"larger than {MAX_PAYLOAD_BYTES} bytes"
    # Counting is far cheaper than scanning, and every honest message ends here.
    if payload.count(b"{") + payload.count(b"[") > MAX_NESTING and _nesting(payload) > MAX_NESTING:
        return f"nested deeper than {MAX_NESTING}"
    try:
        payload.decode("utf-8")  # the decoder skips the strings of unknown keys unchecked
    except UnicodeDecodeError as error:
        return f"not UTF-8 at byte {error.start}"
    return ""


def _nesting(payload: bytes) -> int:
    """How deep the JSON text opens objects and arrays, whether it is valid or not."""
    depth = deepest = 0
    for token in _STRING_OR_BRACKET.finditer(payload):
        byte = payload[token.start()]
        if byte in b"{[":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"}]":
            depth -= 1
    return deepest


def _decode(connector: int, name: str, payload: bytes, *, redelivered: bool) -> Input:
    match name:
        case "mode":
            request = _mode_request.decode(payload)
            return ModeRequested(connector=connector, mode=request.mode, charging_phase=request.charging_phase)
        case "export_voltage_current":
            wanted = _voltage_current.decode(payload)
            return SetpointRequested(
                connector=connector, voltage_v=wanted.voltage_V, current_a=wanted.current_A
            )
        case "import_voltage_current":
            wanted = _voltage_current.decode(payload)
            return ImportSetpointRequested(
                connector=connector, voltage_v=wanted.voltage_V, current_a=wanted.current_A
            )
        case "heartbeat":
            heartbeat_id = _heartbeat.decode(payload)
            if not 0 <= heartbeat_id <= MAX_HEARTBEAT_ID:
                reason = "Expected an unsigned 64 bit integer"
                raise msgspec.ValidationError(reason)
            return HeartbeatReceived(connector=connector, heartbeat_id=heartbeat_id, redelivered=redelivered)
        case "event":
            return BspEventReceived(connector=connector, event=_bsp_event.decode(payload).event)
        case "raise_error":
            error = _error.decode(payload)
            return BspErrorRaised(connector=connector, error_type=error.type, sub_type=error.sub_type)
        case _:
            error = _error.decode(payload)
            return BspErrorCleared(connector=connector, error_type=error.type, sub_type=error.sub_type)


def _error_of(output: ErrorRaised | ErrorCleared) -> everest.Error:
    return everest.Error(type=output.error_type, sub_type=output.sub_type, message=output.message)
