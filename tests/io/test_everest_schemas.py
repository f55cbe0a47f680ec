"""Every kind of payload that we take or publish, against EVerest's AsyncAPI documents (see conftest.py)."""

import json
import re
from pathlib import Path

import pytest
import yaml
from fusioncharger.io.everest_codec import EverestCodec
from fusioncharger.messages.config import Config, ConnectorConfig
from fusioncharger.messages.inputs import MqttMessageRejected
from fusioncharger.messages.outputs import CommunicationChecked, ErrorCleared, ErrorRaised, ModePublished
from fusioncharger.messages.types import BspEvent, ChargingPhase, Mode
from jsonschema import Draft7Validator

EVEREST_API = Path(__file__).resolve().parents[3] / "shared" / "everest_api"


class Yaml12Loader(yaml.SafeLoader):
    """The documents are YAML 1.2: only true and false are booleans, `Off` is a string (behaviour.md §8.1)."""


Yaml12Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Yaml12Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), list("tf"))

DOCUMENTS = {
    api: yaml.load((EVEREST_API / f"{api}_API.yaml").read_text(), Yaml12Loader)
    for api in ("power_supply_DC", "evse_board_support")
}
CONFIG = Config(
    connectors=(
        ConnectorConfig(
            global_connector_number=1,
            max_export_current_A=100.0,
            max_export_power_W=60_000.0,
            power_supply_DC="psu",
            evse_board_support="bsp",
        ),
    )
)
CODEC = EverestCodec(CONFIG)


def schema_of(topic):
    """The payload schema of an API topic, by the document's channels and messages."""
    _, _, api, _, direction, name = topic.split("/")
    document = DOCUMENTS[api]
    channel = next(c for c in document["channels"].values() if c["address"] == f"{direction}/{name}")
    (reference,) = channel["messages"].values()
    message = document["components"]["messages"][reference["$ref"].rpartition("/")[2]]
    return {**message["payload"], "components": document["components"]}


def fits(topic, payload):
    return Draft7Validator(schema_of(topic)).is_valid(json.loads(payload))


def test_off_is_a_string():
    assert DOCUMENTS["power_supply_DC"]["components"]["schemas"]["Mode"]["enum"] == [m.value for m in Mode]


@pytest.mark.parametrize(
    "output",
    [
        *(ModePublished(connector=1, mode=mode) for mode in Mode),
        ErrorRaised(connector=1, error_type="CommunicationFault", sub_type="", message="Communication error"),
        ErrorRaised(connector=1, error_type="HardwareFault", sub_type="psu_not_running", message=""),
        ErrorRaised(connector=1, error_type="VendorError", sub_type="internal_error", message="KeyError"),
        ErrorCleared(connector=1, error_type="VendorWarning", sub_type="journal_unavailable", message=""),
        CommunicationChecked(connector=1),
    ],
)
def test_what_we_publish_fits(output):
    publication = CODEC.encode(output)
    assert publication is not None
    assert fits(publication.topic, publication.payload)


def test_the_enumerations_are_complete():
    supply = DOCUMENTS["power_supply_DC"]["components"]["schemas"]
    board = DOCUMENTS["evse_board_support"]["components"]["schemas"]
    assert [phase.value for phase in ChargingPhase] == supply["ChargingPhase"]["enum"]
    assert [event.value for event in BspEvent] == board["BspEvent"]["properties"]["event"]["enum"]


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


@pytest.mark.parametrize("topic", CODEC.subscriptions)
@pytest.mark.parametrize("payload", PAYLOADS)
def test_what_we_take_is_what_the_documents_allow(topic, payload):
    taken = not isinstance(
        CODEC.decode(topic, payload.encode(), retained=False, redelivered=False), MqttMessageRejected
    )
    if topic.endswith("/mode") and payload not in ("[]", "null") and "mode" not in payload:
        assert not taken  # the schema requires no mode; without one there is nothing to do
    else:
        assert taken == fits(topic, payload)
