"""What comes over MQTT: any payload on every topic of every API that the driver listens to, and on others.

input   topic, flags, payload
"""

import json

import msgspec
from core_harness import make_config
from fusioncharger.io.everest_codec import EverestCodec
from fusioncharger.messages.config import Config, ConnectorConfig
from fusioncharger.messages.inputs import AnyInput, MqttMessageRejected
from fuzz.source import Source

NATIVE = Config(
    connectors=(
        ConnectorConfig(
            global_connector_number=1,
            max_export_current_A=200.0,
            max_export_power_W=60_000.0,
            power_supply_DC="psu_1",
            evse_board_support="bsp_1",
            evse_manager="manager_1",
        ),
    ),
    error_history="history",
)
CODECS = (EverestCodec(make_config(2), "me"), EverestCodec(NATIVE, "me"))
TOPICS = [(codec, topic) for codec in CODECS for topic in codec.subscriptions]
_decoder = msgspec.json.Decoder(AnyInput)
_MAX_RECORD_BYTES = 600


def check(data: bytes) -> None:
    source = Source(data)
    number, flags = source.number(), source.number()
    codec, topic = TOPICS[number % len(TOPICS)]
    if number == 0xFF:  # a topic of the broker's own making
        topic = source.chunk().decode("utf-8", "replace")
    payload = source.rest()
    received = codec.decode(topic, payload, retained=bool(flags & 1), redelivered=bool(flags & 2))
    if received is None:
        return
    record = msgspec.json.encode(received)
    assert _decoder.decode(record) == received, "the journal loses something"
    if isinstance(received, MqttMessageRejected):
        assert len(record) <= len(topic.encode()) * 6 + _MAX_RECORD_BYTES, "the reason quotes too much"
        assert received.reason.isascii()
        return
    assert not flags & 1
    # Another parser has to find it valid, too.
    json.loads(payload, parse_int=str)
    assert msgspec.json.decode(payload, type=msgspec.Raw) is not None
