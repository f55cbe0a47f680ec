"""Our record parser against the mcap package's, on plain and on compressed files, whole and altered."""

import io
from pathlib import Path

import pytest
from fusioncharger.replay import records
from fusioncharger.replay.records import Message, RecordError, RecordReader, read_metadata
from hypothesis import example, given
from hypothesis import strategies as st
from mcap.records import Channel
from mcap.records import Message as McapMessage
from mcap.stream_reader import StreamReader
from mcap.writer import CompressionType, IndexType, Writer

GOLDEN = Path(__file__).parents[1] / "sessions" / "format-1-demo.mcap"


def reference(data: bytes) -> list[Message]:
    """What the package reads."""
    topics: dict[int, str] = {}
    found: list[Message] = []
    for record in StreamReader(io.BytesIO(data)).records:
        if isinstance(record, Channel):
            topics[record.id] = record.topic
        elif isinstance(record, McapMessage):
            topic = topics[record.channel_id]
            found.append((topic, record.sequence, record.log_time, record.publish_time, record.data))
    return found


def read(data: bytes) -> list[Message]:
    reader = RecordReader(io.BytesIO(data))
    assert reader.read_profile() == "fusioncharger"
    return list(reader.messages())


def compressed(
    data: bytes, compression: CompressionType = CompressionType.ZSTD, chunk_bytes: int = 9_000
) -> bytes:
    out = io.BytesIO()
    writer = Writer(out, chunk_size=chunk_bytes, compression=compression)
    writer.start("fusioncharger")
    channels: dict[str, int] = {}
    for topic, sequence, log_time, publish_time, payload in reference(data):
        if topic not in channels:
            schema = writer.register_schema(topic, "jsonschema", b"{}")
            channels[topic] = writer.register_channel(topic, "json", schema)
        writer.add_message(channels[topic], log_time, payload, publish_time, sequence)
    writer.add_metadata("note", {"json": '{"a":1}'})
    writer.finish()
    return out.getvalue()


@pytest.fixture(scope="module")
def plain() -> bytes:
    return GOLDEN.read_bytes()


@pytest.fixture(scope="module")
def chunked(plain: bytes) -> bytes:
    return compressed(plain)


@pytest.mark.parametrize("read_bytes", [1, 100, 4096, 2**20])
def test_reads_what_the_package_reads(plain: bytes, monkeypatch: pytest.MonkeyPatch, read_bytes: int) -> None:
    monkeypatch.setattr(records, "READ_BYTES", read_bytes)
    assert read(plain) == reference(plain)


@pytest.mark.parametrize("compression", [CompressionType.ZSTD, CompressionType.NONE])
def test_reads_chunks(plain: bytes, compression: CompressionType) -> None:
    data = compressed(plain, compression)
    assert read(data) == reference(plain)
    assert (len(data) < len(plain) / 3) == (compression is CompressionType.ZSTD)


def test_a_compression_that_the_recorder_never_uses_is_damage(plain: bytes) -> None:
    with pytest.raises(RecordError, match="compression 'lz4'"):
        read(compressed(plain, CompressionType.LZ4))


def test_metadata_is_found_through_the_index_and_on_the_way(chunked: bytes, plain: bytes) -> None:
    assert read_metadata(io.BytesIO(chunked), "note") == {"json": '{"a":1}'}
    assert read_metadata(io.BytesIO(chunked), "other") is None
    assert read_metadata(io.BytesIO(plain), "note") is None
    reader = RecordReader(io.BytesIO(chunked))
    reader.read_profile()
    assert reader.metadata == {}
    assert list(reader.messages())
    assert reader.metadata == {"note": {"json": '{"a":1}'}}


@given(st.integers(0, 250_000))
@example(0)
def test_metadata_of_a_cut_file_is_none(cut: int) -> None:
    data = GOLDEN.read_bytes()
    if cut < len(data):
        assert read_metadata(io.BytesIO(data[:cut]), "note") is None


@given(st.floats(0, 1), st.integers(0, 255))
def test_no_altered_byte_of_a_chunk_alters_a_message(chunked: bytes, where: float, value: int) -> None:
    """It is damage, or it is where no message is; what was read before it is as it was."""
    position = 8 + int(where * (len(chunked) - 9))
    whole = reference(chunked)
    found: list[Message] = []
    reader = RecordReader(io.BytesIO(chunked[:position] + bytes([value]) + chunked[position + 1 :]))
    try:
        reader.read_profile()
        found.extend(reader.messages())
    except RecordError:
        assert found == whole[: len(found)]
    else:
        assert [message[1:] for message in found] == [message[1:] for message in whole]


@given(st.floats(0, 1))
def test_a_cut_file_keeps_what_is_whole(plain: bytes, where: float) -> None:
    cut = 60 + int(where * (len(plain) - 61))
    reader = RecordReader(io.BytesIO(plain[:cut]))
    reader.read_profile()
    found: list[Message] = []
    with pytest.raises(RecordError, match=r"the file (ends inside a record|was not closed)"):
        found.extend(reader.messages())
    assert reader.whole_bytes <= cut


def test_a_length_beyond_all_bounds_takes_no_memory() -> None:
    reader = RecordReader(io.BytesIO(GOLDEN.read_bytes()[:8] + b"\x01" + (2**62).to_bytes(8, "little")))
    with pytest.raises(RecordError, match="a length of 4611686018427387904 bytes"):
        reader.read_profile()


def test_without_an_index_there_is_no_metadata() -> None:
    out = io.BytesIO()
    writer = Writer(out, use_chunking=False, index_types=IndexType.NONE)
    writer.start("fusioncharger")
    writer.add_metadata("note", {"json": "1"})
    writer.finish()
    assert read_metadata(io.BytesIO(out.getvalue()), "note") is None
