"""Modbus from the PSU: what the link makes of any bytes, however TCP (or TLS, which carries the same) cuts
them.

input   cuts, then the stream
"""

import msgspec
from fakes.modbus_stream import decoded
from fusioncharger.io.key_ring import KeyRing
from fusioncharger.io.modbus_codec import DispenserCodec, ReadRequest, WriteRequest
from fusioncharger.io.modbus_link import inputs_of
from fusioncharger.messages.inputs import AnyInput
from fusioncharger.messages.registers import CONNECTOR_OFFSETS
from fuzz.source import Source, cut

KEY_WORDS = {
    address for offset in CONNECTOR_OFFSETS for address in range(offset + 0x2115, offset + 0x2115 + 24)
}
_decoder = msgspec.json.Decoder(AnyInput)


def check(data: bytes) -> None:
    source = Source(data)
    places = Source(source.take(9))
    stream = source.rest()
    events, error = decoded(DispenserCodec(), [stream])
    assert decoded(DispenserCodec(), cut(stream, places)) == (events, error), (
        "how the stream is cut makes a difference"
    )
    assert stream.startswith(b"".join(event.adu for event in events)), "bytes were lost or made up"

    ring = KeyRing(4)
    for event in events:
        for message in inputs_of(event, 1, ring):
            assert _decoder.decode(msgspec.json.encode(message)) == message, "the journal loses something"
        match event:
            case ReadRequest():
                assert 1 <= event.count <= 125
            case WriteRequest():
                assert 1 <= len(event.words) <= 123
                check_no_key(event, KeyRing(4))


def check_no_key(event: WriteRequest, ring: KeyRing) -> None:
    """What the core gets of a write holds no word of a key, neither as words nor as bytes."""
    written = next(iter(inputs_of(event, 1, ring)))
    data_at = 10 if event.function == 0x06 else 13
    for place, word in enumerate(event.words):
        is_key = event.address + place in KEY_WORDS
        expected = 0 if is_key else word
        assert written.words[place] == expected
        start = data_at + 2 * place
        assert written.adu[start : start + 2] == expected.to_bytes(2, "big")
    assert len(written.adu) == len(event.adu)
