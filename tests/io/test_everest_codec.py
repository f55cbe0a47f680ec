"""EVerest messages: bytes to Inputs and Outputs to bytes (behaviour.md §7, §8.1)."""

import json
import math
import time

import msgspec
import pytest
from fusioncharger.io.everest_codec import EverestCodec, Publication
from fusioncharger.io.everest_payloads import MAX_NESTING, MAX_PAYLOAD_BYTES
from fusioncharger.messages.config import Config, ConnectorConfig, MqttConfig
from fusioncharger.messages.everest import Capabilities
from fusioncharger.messages.inputs import (
    ActiveErrorsReceived,
    BspError,
    BspErrorCleared,
    BspErrorRaised,
    BspEventReceived,
    HeartbeatReceived,
    ImportSetpointRequested,
    Input,
    IsolationMeasured,
    ModeRequested,
    MqttMessageRejected,
    OverVoltageMeasured,
    PowermeterMeasured,
    SessionEventReceived,
    SetpointRequested,
)
from fusioncharger.messages.outputs import (
    ActiveErrorsRequested,
    CapabilitiesPublished,
    CommunicationChecked,
    ErrorCleared,
    ErrorRaised,
    ModePublished,
    TelemetryPublished,
    VoltageCurrentPublished,
)
from fusioncharger.messages.types import BspEvent, ChargingPhase, Mode
from hypothesis import given
from hypothesis import strategies as st

PSU_1 = "site/everest_api/1/power_supply_DC/psu_1"
PSU_2 = "site/everest_api/1/power_supply_DC/psu_2"
BSP_1 = "site/everest_api/1/evse_board_support/bsp_1"
BSP_2 = "site/everest_api/1/evse_board_support/bsp_2"
IMD_1 = "site/everest_api/1/isolation_monitor/imd_1"
OVM_1 = "site/everest_api/1/over_voltage_monitor/ovm_1"
METER_1 = "site/everest_api/1/powermeter/meter_1"
EVSE_1 = "site/everest_api/1/evse_manager_consumer/evse_1"
EVSE_2 = "site/everest_api/1/evse_manager_consumer/evse_2"
HISTORY = "site/everest_api/1/error_history_consumer/history"
REPLY = f"{HISTORY}/e2m/active_errors/4711"


def connector(number, **devices):
    return ConnectorConfig(
        global_connector_number=number + 4,
        max_export_current_A=100.0,
        max_export_power_W=60_000.0,
        power_supply_DC=f"psu_{number}",
        evse_board_support=f"bsp_{number}",
        **devices,
    )


# Connector 1 has a device of its own for everything, connector 2 nothing but what is built into EVerest.
CONFIG = Config(
    connectors=(
        connector(
            1,
            isolation_monitor="imd_1",
            over_voltage_monitor="ovm_1",
            powermeter="meter_1",
            evse_manager="evse_1",
        ),
        connector(2, evse_manager="evse_2"),
    ),
    mqtt=MqttConfig(topic_prefix="site/"),
    telemetry_topic_prefix="telemetry/here",
    error_history="history",
)
CODEC = EverestCodec(CONFIG, "4711")


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
            ((IMD_1,), ("m2e/isolation_measurement",)),
            ((OVM_1,), ("m2e/voltage_measurement_V",)),
            ((METER_1,), ("m2e/powermeter_values",)),
            ((EVSE_1,), ("e2m/session_event",)),
            ((EVSE_2,), ("e2m/session_event", "e2m/isolation_measurement", "e2m/powermeter")),
            ((HISTORY,), ("e2m/error_raised", "e2m/error_cleared", "e2m/active_errors/4711")),
        )
        for device in devices
        for name in names
    }


def subscribed(config):
    return {topic.removeprefix("everest_api/1/") for topic in EverestCodec(config, "1").subscriptions}


def test_subscribes_to_nothing_that_is_not_there():
    bare = msgspec.structs.replace(connector(1), evse_board_support="")
    assert subscribed(Config(connectors=(bare,))) == {
        f"power_supply_DC/psu_1/e2m/{name}"
        for name in ("mode", "export_voltage_current", "import_voltage_current", "heartbeat")
    }


def test_no_meter_of_evse_manager_where_the_configuration_says_that_there_is_none():
    config = Config(
        connectors=(connector(1, evse_manager="evse"),), HACK_publish_requested_voltage_current=True
    )
    by_manager = {topic for topic in subscribed(config) if topic.startswith("evse_manager_consumer")}
    assert by_manager == {
        "evse_manager_consumer/evse/e2m/session_event",
        "evse_manager_consumer/evse/e2m/isolation_measurement",
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
        (
            f"{IMD_1}/m2e/isolation_measurement",
            b'{"resistance_F_Ohm": 1e6, "voltage_V": 399.5}',
            IsolationMeasured(connector=1, voltage_v=399.5),
        ),
        (
            f"{EVSE_2}/e2m/isolation_measurement",
            b'{"resistance_F_Ohm": 1000000}',
            IsolationMeasured(connector=2, voltage_v=0.0),
        ),
        (
            f"{OVM_1}/m2e/voltage_measurement_V",
            b"500",
            OverVoltageMeasured(connector=1, voltage_v=500.0),
        ),
        (
            f"{METER_1}/m2e/powermeter_values",
            b'{"voltage_V": {"DC": 400, "L1": 230}, "current_A": {"DC": -2.5}, "power_W": {"total": 1}}',
            PowermeterMeasured(connector=1, voltage_v=400.0, current_a=-2.5),
        ),
        (
            f"{EVSE_2}/e2m/powermeter",
            b'{"timestamp": "2026-11-18T11:06:40Z", "voltage_V": {"DC": 0}, "current_A": {"L1": 3}}',
            PowermeterMeasured(connector=2, voltage_v=0.0, current_a=0.0),
        ),
        (
            f"{EVSE_1}/e2m/session_event",
            b'{"event": "SessionStarted", "session_started": {"reason": "EVConnected"}}',
            SessionEventReceived(connector=1, event="SessionStarted", reason="EVConnected"),
        ),
        (
            f"{EVSE_2}/e2m/session_event",
            b'{"event": "SomethingNew", "uuid": "1"}',
            SessionEventReceived(connector=2, event="SomethingNew", reason=""),
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


@pytest.mark.parametrize(
    ("topic", "payload", "expected"),
    [
        (f"{IMD_1}/m2e/isolation_measurement", b'{"voltage_V": null}', "Expected `float`, got `null`"),
        (f"{IMD_1}/m2e/isolation_measurement", b'{"voltage_V": 1e999}', "out of range"),
        (f"{IMD_1}/m2e/isolation_measurement", b'{"voltage_V": NaN}', "JSON is malformed"),
        (f"{IMD_1}/m2e/isolation_measurement", b"400", "Expected `object`, got `int`"),
        (f"{OVM_1}/m2e/voltage_measurement_V", b'{"voltage_V": 400}', "Expected `float`, got `object`"),
        (f"{OVM_1}/m2e/voltage_measurement_V", b"null", "Expected `float`, got `null`"),
        (f"{OVM_1}/m2e/voltage_measurement_V", b"true", "Expected `float`, got `bool`"),
        (f"{OVM_1}/m2e/voltage_measurement_V", b"-Infinity", "JSON is malformed"),
        (f"{OVM_1}/m2e/voltage_measurement_V", b"-1e309", "out of range"),
        (f"{OVM_1}/m2e/voltage_measurement_V", b"9" * 400, "out of range"),
        (f"{OVM_1}/m2e/voltage_measurement_V", b"", "truncated"),
        (
            f"{EVSE_2}/e2m/powermeter",
            b'{"voltage_V": {"L1": 230}, "current_A": {"L1": 9}}',
            "voltage_V.DC is missing",
        ),
        (f"{EVSE_2}/e2m/powermeter", b"{}", "voltage_V.DC is missing: connect a DC meter at the car's side"),
        (f"{METER_1}/m2e/powermeter_values", b'{"voltage_V": 400}', "Expected `object`, got `int`"),
        (f"{METER_1}/m2e/powermeter_values", b'{"current_A": {"DC": "2"}}', "Expected `float`, got `str`"),
        (f"{METER_1}/m2e/powermeter_values", b'{"current_A": {"DC": 1e400}}', "out of range"),
        (f"{EVSE_2}/e2m/powermeter", b'{"voltage_V": {"DC": 1%s}}' % (b"0" * 309), "out of range"),
        (f"{EVSE_1}/e2m/session_event", b'{"uuid": "1"}', "missing required field `event`"),
        (f"{EVSE_1}/e2m/session_event", b'{"event": "A", "session_started": {"reason": 1}}', "Expected `str`"),
        (f"{HISTORY}/e2m/error_raised", b'{"type": "evse_board_support/A"}', "missing required field `origin`"),
        (
            f"{HISTORY}/e2m/error_cleared",
            b'{"type": "a/b", "origin": {}}',
            "missing required field `module_id`",
        ),
        (REPLY, b"[]", "Expected `object`, got `array`"),
        (REPLY, b'{"errors": [{}]}', "missing required field"),
    ],
)
def test_rejects_what_a_device_may_not_say(topic, payload, expected):
    assert expected in reason(topic, payload)


def history_error(error_type, module_id, **more):
    return {"type": error_type, "origin": {"module_id": module_id, "implementation_id": "main"}, **more}


@pytest.mark.parametrize(
    ("name", "kind"), [("error_raised", BspErrorRaised), ("error_cleared", BspErrorCleared)]
)
def test_error_history_tells_of_the_boards(name, kind):
    payload = json.dumps(history_error("evse_board_support/TiltDetected", "bsp_2", sub_type="left")).encode()
    assert decode(f"{HISTORY}/e2m/{name}", payload) == kind(
        connector=2, error_type="TiltDetected", sub_type="left"
    )
    payload = json.dumps(history_error("evse_board_support/EnclosureOpen", "bsp_1")).encode()
    assert decode(f"{HISTORY}/e2m/{name}", payload) == kind(
        connector=1, error_type="EnclosureOpen", sub_type=""
    )


@pytest.mark.parametrize(
    "error",
    [
        history_error("evse_board_support/TiltDetected", "bsp_3"),
        history_error("evse_board_support/TiltDetected", ""),
        history_error("evse_manager/Inoperative", "bsp_1"),
        history_error("TiltDetected", "bsp_1"),
        history_error("", "bsp_1"),
    ],
)
@pytest.mark.parametrize("name", ["error_raised", "error_cleared"])
def test_errors_of_others_are_nothing_to_us(name, error):
    assert decode(f"{HISTORY}/e2m/{name}", json.dumps(error).encode()) is None


def test_a_board_without_an_id_has_no_errors():
    nameless = msgspec.structs.replace(connector(1), evse_board_support="")
    codec = EverestCodec(Config(connectors=(nameless,), error_history="history"), "1")
    payload = json.dumps(history_error("evse_board_support/TiltDetected", "")).encode()
    topic = "everest_api/1/error_history_consumer/history/e2m/error_raised"
    assert codec.decode(topic, payload, retained=False, redelivered=False) is None


def test_the_active_errors_are_the_boards_in_order_and_each_once():
    errors = [
        history_error("evse_board_support/WaterIngressDetected", "bsp_2"),
        history_error("evse_board_support/EnclosureOpen", "bsp_1", sub_type="door"),
        history_error("evse_manager/Inoperative", "bsp_1"),
        history_error("evse_board_support/EnclosureOpen", "elsewhere"),
        history_error("evse_board_support/WaterIngressDetected", "bsp_2", uuid="another"),
        history_error("evse_board_support/EnclosureOpen", "bsp_1"),
    ]
    assert decode(REPLY, json.dumps({"errors": errors}).encode()) == ActiveErrorsReceived(
        errors=(
            BspError(2, "WaterIngressDetected"),
            BspError(1, "EnclosureOpen", "door"),
            BspError(1, "EnclosureOpen"),
        )
    )
    assert decode(REPLY, b'{"errors": []}') == ActiveErrorsReceived(errors=())


def test_the_reply_to_another_process_is_not_ours():
    assert "no such topic" in reason(f"{HISTORY}/e2m/active_errors/4712", b'{"errors": []}')


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        (f"{PSU_1}/e2m/mode", b'{"mode": "Export", "charging_phase": "Charging"}'),
        (f"{OVM_1}/m2e/voltage_measurement_V", b"500"),
        (f"{EVSE_1}/e2m/session_event", b'{"event": "SessionFinished"}'),
        (REPLY, b'{"errors": []}'),
    ],
)
def test_a_retained_message_is_rejected(topic, payload):
    rejected = decode(topic, payload, retained=True)
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
    ["mode", "charging_phase", "voltage_V", "current_A", "DC", "event", "type", "sub_type", "message", "errors"]
)
numbers = st.sampled_from(
    [
        b"400",
        b"-1.5",
        b"1e308",
        b"1e309",
        b"-1e999",
        b"NaN",
        b"Infinity",
        b"9" * 309,
        b"1" + b"0" * 308,
        b"0.1e-999",
    ]
)
number_payloads = numbers | st.builds(
    bytes.replace,
    st.sampled_from(
        [
            b'{"voltage_V": #}',
            b'{"voltage_V": #, "current_A": 1}',
            b'{"voltage_V": {"DC": #}, "current_A": {"DC": #}}',
        ]
    ),
    st.just(b"#"),
    numbers,
)
history_errors = st.builds(
    history_error,
    st.sampled_from(["evse_board_support/TiltDetected", "evse_board_support/", "evse_manager/Inoperative"]),
    st.sampled_from(["bsp_1", "bsp_2", "bsp_3", ""]),
    sub_type=st.text(max_size=3),
)
likely_values = json_values | st.sampled_from(["Off", "Export", "CableCheck", "A", "B", "PowerOn", 0, 400.0])
payloads = st.one_of(
    st.binary(max_size=200),
    number_payloads,
    history_errors.map(lambda value: json.dumps(value).encode()),
    st.lists(history_errors, max_size=4).map(lambda value: json.dumps({"errors": value}).encode()),
    json_values.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(keys, likely_values).map(lambda value: json.dumps(value).encode()),
    st.dictionaries(keys, likely_values).map(
        lambda value: json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")
    ),
)


@given(st.sampled_from(CODEC.subscriptions), payloads, st.booleans())
def test_any_payload_decodes_to_an_input_that_can_be_recorded(topic, payload, redelivered):
    received = decode(topic, payload, redelivered=redelivered)
    if received is None:
        assert topic.startswith(HISTORY)
        return
    values = msgspec.structs.asdict(received).values()
    assert all(math.isfinite(value) for value in values if isinstance(value, float))
    # NaN would come back as None, a lone surrogate would not even encode.
    assert msgspec.json.decode(msgspec.json.encode(received), type=type(received)) == received


@given(st.text(), payloads, st.booleans())
def test_any_topic_gives_an_input(topic, payload, retained):
    assert isinstance(decode(topic, payload, retained=retained), Input)


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
            VoltageCurrentPublished(connector=2, voltage_v=400.5, current_a=0.0),
            Publication(
                f"{PSU_2}/m2e/voltage_current", b'{"voltage_V":400.5,"current_A":0.0}', qos=0, retain=False
            ),
        ),
        (
            ActiveErrorsRequested(),
            Publication(
                f"{HISTORY}/m2e/active_errors",
                b'{"headers":{"replyTo":"%s"}}' % REPLY.encode(),
                qos=1,
                retain=False,
            ),
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


def test_capabilities_have_the_names_of_the_api():
    capabilities = Capabilities(max_export_voltage_V=1000.0, min_export_current_A=1.0)
    publication = CODEC.encode(CapabilitiesPublished(connector=1, capabilities=capabilities))
    assert publication is not None
    assert (publication.topic, publication.qos, publication.retain) == (f"{PSU_1}/m2e/capabilities", 1, False)
    assert json.loads(publication.payload) == msgspec.structs.asdict(capabilities)


def test_nobody_is_asked_for_errors_without_an_error_history():
    assert EverestCodec(Config(connectors=(connector(1),)), "1").encode(ActiveErrorsRequested()) is None


def test_no_telemetry_without_a_prefix():
    codec = EverestCodec(Config(connectors=(connector(1),)), "1")
    assert codec.encode(TelemetryPublished(topic="psu", values={})) is None
