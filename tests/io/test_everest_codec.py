"""EVerest messages: bytes to Inputs and Outputs to bytes (behaviour.md §7, §8.1)."""

import json
import time

import msgspec
import pytest
from fusioncharger.io.everest_codec import MAX_NESTING, MAX_PAYLOAD_BYTES, EverestCodec, Publication
from fusioncharger.messages.config import Config, ConnectorConfig, MqttConfig
from fusioncharger.messages.inputs import (
    BspErrorCleared,
    BspErrorRaised,
    BspEventReceived,
    HeartbeatReceived,
    ImportSetpointRequested,
    ModeRequested,
    MqttMessageRejected,
    SetpointRequested,
)
from fusioncharger.messages.outputs import (
    CommunicationChecked,
    ErrorCleared,
    ErrorRaised,
    ModePublished,
    TelemetryPublished,
)
from fusioncharger.messages.types import BspEvent, ChargingPhase, Mode
from hypothesis import given
from hypothesis import strategies as st

PSU_1 = "site/everest_api/1/power_supply_DC/psu_1"
PSU_2 = "site/everest_api/1/power_supply_DC/psu_2"
BSP_1 = "site/everest_api/1/evse_board_support/bsp_1"
BSP_2 = "site/everest_api/1/evse_board_support/bsp_2"


def connector(number):
    return ConnectorConfig(
        global_connector_number=number + 4,
        max_export_current_A=100.0,
        max_export_power_W=60_000.0,
        power_supply_DC=f"psu_{number}",
        evse_board_support=f"bsp_{number}",
    )


CONFIG = Config(
    connectors=(connector(1), connector(2)),
    mqtt=MqttConfig(topic_prefix="site/"),
    telemetry_topic_prefix="telemetry/here",
)
CODEC = EverestCodec(CONFIG)


def decode(topic, payload, *, retained=False, redelivered=False):
    return CODEC.decode(topic, payload, retained=retained, redelivered=redelivered)


def reason(topic, payload):
    rejected = decode(topic, payload)
    assert isinstance(rejected, MqttMessageRejected)
    assert rejected.topic == topic
    assert rejected.size_bytes == len(payload)
    return rejected.reason


def test_subscribes_to_everything_of_every_connector():
    assert set(CODEC.subscriptions) == {
        f"{device}/{name}"
        for devices, names in (
            (
                (PSU_1, PSU_2),
                ("e2m/mode", "e2m/export_voltage_current", "e2m/import_voltage_current", "e2m/heartbeat"),
            ),
            ((BSP_1, BSP_2), ("m2e/event", "m2e/raise_error", "m2e/clear_error")),
        )
        for device in devices
        for name in names
    }


@pytest.mark.parametrize(
    ("topic", "payload", "expected"),
    [
        (
            f"{PSU_1}/e2m/mode",
            b'{"mode": "Export", "charging_phase": "PreCharge"}',
            ModeRequested(connector=1, mode=Mode.EXPORT, charging_phase=ChargingPhase.PRE_CHARGE),
        ),
        (
            f"{PSU_2}/e2m/mode",
            b'{"mode": "Off", "unknown": [1]}',
            ModeRequested(connector=2, mode=Mode.OFF, charging_phase=ChargingPhase.OTHER),
        ),
        (
            f"{PSU_2}/e2m/export_voltage_current",
            b'{"voltage_V": 400.5, "current_A": 125}',
            SetpointRequested(connector=2, voltage_v=400.5, current_a=125.0),
        ),
        (
            f"{PSU_1}/e2m/export_voltage_current",
            b'{"voltage_V": -1, "current_A": 0}',
            SetpointRequested(connector=1, voltage_v=-1.0, current_a=0.0),
        ),
        (
            f"{PSU_1}/e2m/import_voltage_current",
            b'{"voltage_V": 400, "current_A": 1e1}',
            ImportSetpointRequested(connector=1, voltage_v=400.0, current_a=10.0),
        ),
        (f"{PSU_1}/e2m/heartbeat", b"0", HeartbeatReceived(connector=1, heartbeat_id=0)),
        (
            f"{PSU_2}/e2m/heartbeat",
            b"18446744073709551615",
            HeartbeatReceived(connector=2, heartbeat_id=2**64 - 1),
        ),
        (f"{BSP_2}/m2e/event", b'{"event": "B"}', BspEventReceived(connector=2, event=BspEvent.B)),
        (
            f"{BSP_1}/m2e/raise_error",
            b'{"type": "MREC8EmergencyStop"}',
            BspErrorRaised(connector=1, error_type="MREC8EmergencyStop", sub_type=""),
        ),
        (
            f"{BSP_1}/m2e/clear_error",
            b'{"type": "SomethingNew", "sub_type": "left", "message": "text"}',
            BspErrorCleared(connector=1, error_type="SomethingNew", sub_type="left"),
        ),
    ],
)
def test_decodes(topic, payload, expected):
    assert decode(topic, payload) == expected


def test_redelivery_is_passed_on():
    assert decode(f"{PSU_1}/e2m/heartbeat", b"7", redelivered=True) == HeartbeatReceived(
        connector=1, heartbeat_id=7, redelivered=True
    )


@pytest.mark.parametrize(
    ("name", "payload", "expected"),
    [
        ("mode", b"{}", "missing required field `mode`"),
        ("mode", b'{"mode": "off"}', "Invalid enum value 'off'"),
        ("mode", b'{"mode": false}', "Expected `str`, got `bool`"),
        ("mode", b'{"mode": "Off", "charging_phase": null}', "Expected `str`, got `null`"),
        ("mode", b'"Off"', "Expected `object`, got `str`"),
        ("mode", b"", "truncated"),
        ("mode", b'{"mode": "Off"', "truncated"),
        ("mode", b'{"mode": "Off"} x', "trailing characters"),
        ("mode", b"Off", "JSON is malformed"),
        ("mode", b'{"mode": "\\ud800"}', ""),
        ("mode", b'\xef\xbb\xbf{"mode": "Off"}', "JSON is malformed"),
        ("mode", b'{"mode": "Off", "unknown": "\xff"}', "not UTF-8 at byte 28"),
        ("export_voltage_current", b'{"voltage_V": 400}', "missing required field `current_A`"),
        ("export_voltage_current", b'{"voltage_V": "400", "current_A": 1}', "Expected `float`, got `str`"),
        ("export_voltage_current", b'{"voltage_V": true, "current_A": 1}', "Expected `float`, got `bool`"),
        ("export_voltage_current", b'{"voltage_V": NaN, "current_A": 1}', "JSON is malformed"),
        ("export_voltage_current", b'{"voltage_V": -Infinity, "current_A": 1}', "JSON is malformed"),
        ("export_voltage_current", b'{"voltage_V": 1e999, "current_A": 1}', "out of range"),
        ("import_voltage_current", b'{"voltage_V": 1, "current_A": -1e999}', "out of range"),
        ("import_voltage_current", b'{"voltage_V": 1, "current_A": 1%s}' % (b"0" * 400), "out of range"),
        ("heartbeat", b"-1", "unsigned 64 bit"),
        ("heartbeat", b"18446744073709551616", "unsigned 64 bit"),
        ("heartbeat", b"9" * 60_000, "out of range"),
        ("heartbeat", b"1.5", "Expected `int`, got `float`"),
        ("heartbeat", b"true", "Expected `int`, got `bool`"),
    ],
)
def test_rejects_what_does_not_fit_its_schema(name, payload, expected):
    assert expected in reason(f"{PSU_1}/e2m/{name}", payload)


@pytest.mark.parametrize(
    ("name", "payload", "expected"),
    [
        ("event", b'{"event": "G"}', "Invalid enum value 'G'"),
        ("event", b"{}", "missing required field `event`"),
        ("raise_error", b'{"sub_type": "x"}', "missing required field `type`"),
        ("raise_error", b'{"type": "EnclosureOpen", "sub_type": null}', "Expected `str`, got `null`"),
        ("clear_error", b'{"type": 3}', "Expected `str`, got `int`"),
    ],
)
def test_rejects_what_a_board_may_not_say(name, payload, expected):
    assert expected in reason(f"{BSP_1}/m2e/{name}", payload)


def test_a_retained_message_is_rejected():
    rejected = decode(f"{PSU_1}/e2m/mode", b'{"mode": "Export", "charging_phase": "Charging"}', retained=True)
    assert isinstance(rejected, MqttMessageRejected)
    assert "retained" in rejected.reason


def test_an_unknown_topic_is_rejected():
    assert "no such topic" in reason("site/everest_api/1/power_supply_DC/psu_3/e2m/mode", b"{}")


def test_size_limit():
    padding = MAX_PAYLOAD_BYTES - len(b'{"mode": "Off"}')
    assert isinstance(decode(f"{PSU_1}/e2m/mode", b'{"mode": "Off"}' + b" " * padding), ModeRequested)
    assert "larger than" in reason(f"{PSU_1}/e2m/mode", b'{"mode": "Off"}' + b" " * (padding + 1))


def nested(levels):
    """An object that is nested `levels` deep, itself included."""
    return b'{"event": "A", "x": ' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


def test_nesting_limit():
    assert isinstance(decode(f"{BSP_1}/m2e/event", nested(MAX_NESTING)), BspEventReceived)
    assert "nested deeper" in reason(f"{BSP_1}/m2e/event", nested(MAX_NESTING + 1))
    assert "nested deeper" in reason(f"{BSP_1}/m2e/event", b"[" * MAX_PAYLOAD_BYTES)


def test_brackets_in_strings_and_side_by_side_are_no_nesting():
    strings = b'{"event": "A", "x": "%s", "y": "\\"%s"}' % (b"[" * 100, b"{" * 100)
    siblings = b'{"event": "A", "x": [%s]}' % b",".join([b"{}"] * 100)
    assert isinstance(decode(f"{BSP_1}/m2e/event", strings), BspEventReceived)
    assert isinstance(decode(f"{BSP_1}/m2e/event", siblings), BspEventReceived)


@pytest.mark.parametrize(
    "unit", [b"[", b"{", b'"', b"\\", b'\\"', b'"\\', b"[]", b'["', b"9", b'{"a":', b"\xff"]
)
def test_the_worst_payloads_take_milliseconds(unit):
    # The brackets lead the scanner in; quadratic behaviour would take minutes.
    payload = (b"[]" * 40 + b'"' + unit * MAX_PAYLOAD_BYTES)[:MAX_PAYLOAD_BYTES]
    started_at = time.perf_counter()
    assert isinstance(decode(f"{BSP_1}/m2e/event", payload), MqttMessageRejected)
    assert isinstance(decode(f"{PSU_1}/e2m/heartbeat", payload), MqttMessageRejected)
    assert time.perf_counter() - started_at < 1.0


def test_a_reason_is_short_printable_ascii():
    text = reason(f"{PSU_1}/e2m/mode", json.dumps({"mode": "\n\x1b[31mé" * 1000}).encode())
    assert text.isascii()
    assert text.isprintable()
    assert len(text) < 1000


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=10,
)
keys = st.sampled_from(
    ["mode", "charging_phase", "voltage_V", "current_A", "event", "type", "sub_type", "message"]
)
likely_values = json_values | st.sampled_from(["Off", "Export", "CableCheck", "A", "B", "PowerOn", 0, 400.0])
payloads = st.one_of(
    st.binary(max_size=200),
    json_values.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(keys, likely_values).map(lambda value: json.dumps(value).encode()),
    st.dictionaries(keys, likely_values).map(
        lambda value: json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")
    ),
)


@given(st.sampled_from(CODEC.subscriptions), payloads, st.booleans())
def test_any_payload_decodes_to_an_input_that_can_be_recorded(topic, payload, redelivered):
    received = decode(topic, payload, redelivered=redelivered)
    # NaN would come back as None, a lone surrogate would not even encode.
    assert msgspec.json.decode(msgspec.json.encode(received), type=type(received)) == received


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (
            ModePublished(connector=2, mode=Mode.OFF),
            Publication(f"{PSU_2}/m2e/mode", b'"Off"', qos=1, retain=False),
        ),
        (
            ErrorRaised(connector=1, error_type="HardwareFault", sub_type="psu_not_running", message=""),
            Publication(
                f"{PSU_1}/m2e/raise_error",
                b'{"type":"HardwareFault","sub_type":"psu_not_running","message":""}',
                qos=1,
                retain=False,
            ),
        ),
        (
            ErrorCleared(connector=1, error_type="VendorError", sub_type="x", message="y"),
            Publication(
                f"{PSU_1}/m2e/clear_error",
                b'{"type":"VendorError","sub_type":"x","message":"y"}',
                qos=1,
                retain=False,
            ),
        ),
        (
            CommunicationChecked(connector=1),
            Publication(f"{PSU_1}/m2e/communication_check", b"true", qos=0, retain=False),
        ),
        (
            TelemetryPublished(topic="connector/5", values={"a": 20.1, "b": None, "c": True, "d": "text"}),
            Publication(
                "telemetry/here/connector/5", b'{"a":20.1,"b":null,"c":true,"d":"text"}', qos=1, retain=True
            ),
        ),
    ],
)
def test_encodes(output, expected):
    assert CODEC.encode(output) == expected


def test_no_telemetry_without_a_prefix():
    codec = EverestCodec(Config(connectors=(connector(1),)))
    assert codec.encode(TelemetryPublished(topic="psu", values={})) is None
