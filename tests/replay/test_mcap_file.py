"""The MCAP file that the recorder writes: byte for byte mcap's own."""

from io import BytesIO

from fusioncharger.replay.mcap_file import McapFile
from hypothesis import given
from hypothesis import strategies as st
from mcap.writer import IndexType, Writer

U64 = st.integers(0, 2**64 - 1)
MESSAGES = st.tuples(
    st.sampled_from(("a", "b", "c")), U64, st.binary(max_size=300), U64, st.integers(0, 2**32 - 1)
)
METADATA = st.tuples(
    st.text(max_size=5), st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=3)
)


@given(st.lists(MESSAGES, max_size=8), st.lists(METADATA, max_size=2))
def test_the_bytes_are_those_of_mcaps_own_writer(messages, metadata):
    ours, theirs = BytesIO(), BytesIO()
    file = McapFile(ours, "profile")
    writer = Writer(
        theirs, use_chunking=False, index_types=IndexType.METADATA, repeat_schemas=False, repeat_channels=False
    )
    writer.start("profile")
    channels: dict[str, tuple[int, int]] = {}
    for name, log_ns, data, publish_ns, sequence in messages:
        if name not in channels:
            schema = f"schema of {name}", "jsonschema", b"{}"
            number = writer.register_channel(f"topic/{name}", "json", writer.register_schema(*schema))
            channels[name] = file.add_channel(f"topic/{name}", "json", schema), number
        our_channel, their_channel = channels[name]
        file.add_message(our_channel, log_ns, data, publish_ns, sequence)
        writer.add_message(their_channel, log_ns, data, publish_ns, sequence)
        assert ours.getvalue() == theirs.getvalue()
    for name, values in metadata:
        file.add_metadata(name, values)
        writer.add_metadata(name, values)
    file.finish()
    writer.finish()
    assert ours.getvalue() == theirs.getvalue()
