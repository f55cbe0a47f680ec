"""Every kind of payload that we take or publish, against EVerest's AsyncAPI documents (see conftest.py)."""

import functools
import json
import re
from pathlib import Path

import pytest
import yaml
from fusioncharger.actors.dispenser_alarms import CONTACTOR_FAULT_ERROR, DISPENSER_ALARMS_BY_ERROR
from fusioncharger.io.everest_codec import EverestCodec
from fusioncharger.io.everest_payloads import BOARD_ERRORS
from fusioncharger.messages.config import Config, ConnectorConfig
from fusioncharger.messages.everest import Capabilities
from fusioncharger.messages.inputs import (
    ActiveErrorsReceived,
    BspError,
    BspErrorRaised,
    MqttMessageRejected,
    PowermeterMeasured,
    SessionEventReceived,
)
from fusioncharger.messages.outputs import (
    ActiveErrorsRequested,
    CapabilitiesPublished,
    CommunicationChecked,
    ErrorCleared,
    ErrorRaised,
    ModePublished,
    VoltageCurrentPublished,
)
from fusioncharger.messages.types import BspEvent, ChargingPhase, Mode
from jsonschema import Draft7Validator
from referencing import Registry
from referencing.jsonschema import DRAFT7

EVEREST_API = Path(__file__).resolve().parents[3] / "shared" / "everest_api"


class Yaml12Loader(yaml.SafeLoader):
    """The documents are YAML 1.2: only true and false are booleans, `Off` is a string (behaviour.md §8.1)."""


Yaml12Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Yaml12Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), list("tf"))

APIS = (
    "power_supply_DC",
    "evse_board_support",
    "isolation_monitor",
    "over_voltage_monitor",
    "powermeter",
    "error_history_consumer",
    "evse_manager_consumer",
)
DOCUMENTS = {api: yaml.load((EVEREST_API / f"{api}_API.yaml").read_text(), Yaml12Loader) for api in APIS}

# The documents refer to one another by file name. This one is not among the seven; the id tags that it
# describes are nothing that we read.
AUTHORISATION = {"components": {"schemas": {"ProvidedIdToken": {"type": "object"}}}}
REGISTRY = Registry().with_resources(
    [
        *((f"{api}_API.yaml", DRAFT7.create_resource(document)) for api, document in DOCUMENTS.items()),
        ("auth_consumer_API.yaml", DRAFT7.create_resource(AUTHORISATION)),
    ]
)


def connector(number, **devices):
    return ConnectorConfig(
        global_connector_number=number,
        max_export_current_A=100.0,
        max_export_power_W=60_000.0,
        power_supply_DC=f"psu_{number}",
        evse_board_support=f"bsp_{number}",
        evse_manager=f"evse_{number}",
        **devices,
    )


# The first connector has every device, the second takes what evse_manager tells: together, every topic.
CODEC = EverestCodec(
    Config(
        connectors=(
            connector(1, isolation_monitor="imd", over_voltage_monitor="ovm", powermeter="meter"),
            connector(2),
        ),
        error_history="history",
    ),
    "4711",
)


@functools.cache
def message_of(topic):
    """API, and name in its document, of the message on a topic, by the document's channels."""
    _, _, api, _, direction, name, *reply_id = topic.split("/")
    if reply_id:
        return api, f"receive_reply_{name}"
    channels = DOCUMENTS[api]["channels"].values()
    channel = next(channel for channel in channels if channel["address"] == f"{direction}/{name}")
    (reference,) = channel["messages"].values()
    return api, reference["$ref"].rpartition("/")[2]


@functools.cache
def validator_of(topic):
    api, message = message_of(topic)
    reference = f"{api}_API.yaml#/components/messages/{message}/payload"
    return Draft7Validator({"$ref": reference}, registry=REGISTRY)


def fits(topic, payload):
    return validator_of(topic).is_valid(json.loads(payload))


def schemas(api):
    return DOCUMENTS[api]["components"]["schemas"]


def decode(topic, payload):
    return CODEC.decode(topic, payload.encode(), retained=False, redelivered=False)


# --- what we publish ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "output",
    [
        *(ModePublished(connector=1, mode=mode) for mode in Mode),
        ErrorRaised(connector=1, error_type="CommunicationFault", sub_type="", message="Communication error"),
        ErrorRaised(connector=1, error_type="HardwareFault", sub_type="psu_not_running", message=""),
        ErrorRaised(connector=1, error_type="VendorError", sub_type="internal_error", message="KeyError"),
        ErrorCleared(connector=1, error_type="VendorWarning", sub_type="journal_unavailable", message=""),
        CommunicationChecked(connector=1),
        CapabilitiesPublished(connector=1, capabilities=Capabilities()),
        CapabilitiesPublished(connector=2, capabilities=Capabilities(max_export_voltage_V=1000.0)),
        VoltageCurrentPublished(connector=1, voltage_v=400.5, current_a=0.0),
        ActiveErrorsRequested(),
    ],
)
def test_what_we_publish_fits(output):
    publication = CODEC.encode(output)
    assert publication is not None
    assert fits(publication.topic, publication.payload)


def test_we_publish_no_capability_that_the_api_does_not_know():
    assert set(Capabilities.__struct_fields__) <= set(schemas("power_supply_DC")["Capabilities"]["properties"])


def test_the_reply_goes_where_we_listen():
    publication = CODEC.encode(ActiveErrorsRequested())
    assert publication is not None
    assert json.loads(publication.payload)["headers"]["replyTo"] in CODEC.subscriptions


# --- what we take ------------------------------------------------------------------------------------------


def test_off_is_a_string():
    assert schemas("power_supply_DC")["Mode"]["enum"] == [m.value for m in Mode]


def test_the_enumerations_are_complete():
    assert [phase.value for phase in ChargingPhase] == schemas("power_supply_DC")["ChargingPhase"]["enum"]
    board = schemas("evse_board_support")
    assert [event.value for event in BspEvent] == board["BspEvent"]["properties"]["event"]["enum"]


def test_every_error_that_means_an_alarm_is_one_that_a_board_can_raise():
    assert {*DISPENSER_ALARMS_BY_ERROR, CONTACTOR_FAULT_ERROR} <= set(
        schemas("evse_board_support")["ErrorEnum"]["enum"]
    )


@pytest.mark.parametrize("api", ["evse_board_support", "power_supply_DC"])
def test_every_error_type_of_the_documents_is_taken_as_it_is(api):
    for name in schemas(api)["ErrorEnum"]["enum"]:
        received = decode("everest_api/1/evse_board_support/bsp_1/m2e/raise_error", json.dumps({"type": name}))
        assert received == BspErrorRaised(connector=1, error_type=name, sub_type="")


EXAMPLES = [
    (topic, json.dumps(example["payload"]))
    for topic in CODEC.subscriptions
    for api, message in [message_of(topic)]
    for example in DOCUMENTS[api]["components"]["messages"][message].get("examples", ())
]


def test_there_are_examples():
    assert {topic.split("/")[2] for topic, _ in EXAMPLES} >= {
        "power_supply_DC",
        "evse_board_support",
        "isolation_monitor",
        "over_voltage_monitor",
        "powermeter",
    }


@pytest.mark.parametrize(("topic", "payload"), EXAMPLES)
def test_the_documents_examples_are_taken(topic, payload):
    assert not isinstance(decode(topic, payload), MqttMessageRejected)


METER = {"timestamp": "2026-11-18T11:06:40Z", "energy_Wh_import": {"total": 1}}
SESSION = {"uuid": "1", "timestamp": "2026-11-18T11:06:40Z"}
ERROR = {
    "type": BOARD_ERRORS + "TiltDetected",
    "sub_type": "left",
    "description": "The EVSE has been tilted",
    "message": "tilted",
    "origin": {"module_id": "bsp_2", "implementation_id": "main"},
    "timestamp": "2026-11-18T11:06:40Z",
    "uuid": "4711",
    "severity": "High",
    "state": "Active",
}


@pytest.mark.parametrize("event", schemas("evse_manager_consumer")["SessionEventEnum"]["enum"])
@pytest.mark.parametrize("reason", ["", *schemas("evse_manager_consumer")["StartSessionReason"]["enum"]])
def test_every_session_event(event, reason):
    topic = "everest_api/1/evse_manager_consumer/evse_2/e2m/session_event"
    started = {"session_started": {"reason": reason, "meter_value": METER, "id_tag": {}}} if reason else {}
    payload = json.dumps({**SESSION, "event": event, **started})
    assert fits(topic, payload)
    assert decode(topic, payload) == SessionEventReceived(connector=2, event=event, reason=reason)


@pytest.mark.parametrize(
    ("text", "enum"),
    [
        *((event, "SessionEventEnum") for event in ("SessionStarted", "TransactionStarted", "SessionFinished")),
        ("EVConnected", "StartSessionReason"),
    ],
)
def test_what_tells_of_a_car_is_what_evse_manager_says(text, enum):
    assert text in schemas("evse_manager_consumer")[enum]["enum"]


def test_a_whole_error():
    topic = "everest_api/1/error_history_consumer/history/e2m"
    payload = json.dumps(ERROR)
    assert fits(f"{topic}/error_raised", payload)
    assert decode(f"{topic}/error_raised", payload) == BspErrorRaised(
        connector=2, error_type="TiltDetected", sub_type="left"
    )
    payload = json.dumps({"errors": [ERROR]})
    assert fits(f"{topic}/active_errors/4711", payload)
    assert decode(f"{topic}/active_errors/4711", payload) == ActiveErrorsReceived(
        errors=(BspError(2, "TiltDetected", "left"),)
    )


def test_a_dc_meter():
    topic = "everest_api/1/evse_manager_consumer/evse_2/e2m/powermeter"
    payload = json.dumps({**METER, "voltage_V": {"DC": 400.5}, "current_A": {"DC": 2}})
    assert fits(topic, payload)
    assert decode(topic, payload) == PowermeterMeasured(connector=2, voltage_v=400.5, current_a=2.0)


PAYLOADS = [
    *(
        json.dumps({"mode": mode.value, "charging_phase": phase.value})
        for mode in Mode
        for phase in ChargingPhase
    ),
    *(json.dumps({"event": event.value}) for event in BspEvent),
    '{"event": "G"}',
    '{"mode": "off"}',
    '{"mode": "Off", "charging_phase": 1}',
    '{"mode": "Off", "extra": {"a": [1]}}',
    '{"voltage_V": 400.5, "current_A": 0, "extra": null}',
    '{"voltage_V": "400", "current_A": 0}',
    '{"voltage_V": 400}',
    '{"resistance_F_Ohm": 1, "voltage_V": 400}',
    '{"resistance_F_Ohm": 1, "voltage_V": null}',
    '{"resistance_F_Ohm": 1}',
    json.dumps(METER),
    *(
        json.dumps({**METER, key: value})
        for key in ("voltage_V", "current_A")
        for value in ({}, {"DC": 1}, {"DC": 1.5, "L1": 2}, {"DC": "1"}, {"DC": None}, 400, None, [])
    ),
    *(
        json.dumps({**SESSION, "event": "SessionStarted", "session_started": started})
        for started in ({"reason": "EVConnected", "meter_value": METER}, {"reason": 1}, None, "EVConnected")
    ),
    json.dumps(ERROR),
    *(json.dumps({**ERROR, "origin": origin}) for origin in (None, {}, {"module_id": 1}, "bsp_2")),
    *(json.dumps({"errors": errors}) for errors in ([], [ERROR], [ERROR, ERROR], [{}], [1], {}, None)),
    '{"type": "MREC8EmergencyStop"}',
    '{"type": "MREC8EmergencyStop", "sub_type": "s", "message": "m"}',
    '{"type": "MREC8EmergencyStop", "sub_type": 1}',
    '{"type": null}',
    "{}",
    "[]",
    "null",
    "true",
    "7",
    '"7"',
    "7.5",
]

NOT_READ = {"resistance_F_Ohm", "timestamp", "energy_Wh_import", "uuid", "meter_value"}
"""Keys that a schema requires and we do not: what there is, is taken without them."""


def is_forgiven(error, name):
    """Whether a payload is taken although it breaks this rule of its schema."""
    if error.validator == "required":
        return any(f"'{key}' is a required" in error.message for key in NOT_READ)
    # What a later version may say: an event or an error that is unknown here changes nothing.
    open_enum = {"session_event": "event", "raise_error": "type", "clear_error": "type"}.get(name)
    return error.validator == "enum" and list(error.absolute_path) == [open_enum]


@pytest.mark.parametrize("topic", CODEC.subscriptions)
@pytest.mark.parametrize("payload", PAYLOADS)
def test_what_we_take_is_what_the_documents_allow(topic, payload):
    taken = not isinstance(decode(topic, payload), MqttMessageRejected)
    if topic.endswith("/mode") and payload not in ("[]", "null") and "mode" not in payload:
        assert not taken  # the schema requires no mode; without one there is nothing to do
        return
    if topic.endswith("/e2m/powermeter") and '"voltage_V": {"DC"' not in payload:
        assert not taken  # a meter without a DC voltage is not the car's
        return
    name = topic.split("/")[5]
    errors = [
        error
        for error in validator_of(topic).iter_errors(json.loads(payload))
        if not (taken and is_forgiven(error, name))
    ]
    assert taken == (not errors)
