"""Log files, altered, cut, sealed again, compressed: reader, recover, info, time travel, alarms at start.

input   0, file                                  any bytes
        1, form, length, patches …               a true log, cut and altered: what is read of it is true
        2.., steps: operation, its arguments     a log put together from altered records, sealed again
"""

import contextlib
import functools
import shutil
import struct
import tempfile
import zlib
from pathlib import Path

import msgspec
import zstandard
from fakes.recorded_session import RUN_ID, TURN_NS, UTC_NS
from fusioncharger.actors.system import build, snapshot
from fusioncharger.app.log_cat_records import SegmentTail
from fusioncharger.messages.config import Config, ConnectorConfig
from fusioncharger.messages.inputs import (
    BspErrorRaised,
    BspEventReceived,
    GooseFramesDropped,
    PowermeterMeasured,
    PsuConnected,
    Started,
)
from fusioncharger.messages.types import BspEvent
from fusioncharger.replay import recorder
from fusioncharger.replay.last_errors import restore_errors
from fusioncharger.replay.log_format import (
    FORMAT,
    PIPE_HEAD,
    SEAL_BYTES,
    Gap,
    SegmentEnd,
    SegmentHeader,
    json_schema,
    seal,
)
from fusioncharger.replay.log_info import gather, info_text
from fusioncharger.replay.logs import Segment, open_logs
from fusioncharger.replay.reader import LogError, Turn, read_log
from fusioncharger.replay.recorder import SegmentWriter
from fusioncharger.replay.recover import recover
from fusioncharger.replay.session import Session
from fuzz.source import Source
from mcap.opcode import Opcode
from mcap.writer import MCAP0_MAGIC
from msgspec.structs import replace

_folder = tempfile.TemporaryDirectory(
    prefix="fuzz-journal-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None
)
_file = Path(_folder.name) / "20261118T110640Z-01234567-0001.mcap"
_recovered = Path(_folder.name) / "recovered"
_HEAD = struct.Struct("<BQ")
_MESSAGE_BYTES = 22
_MAX_RECORDS = 150

# It is what most of a segment's writing takes here, and always the same.
recorder.json_schema = functools.cache(json_schema)

CONFIG = Config(
    connectors=(
        ConnectorConfig(
            global_connector_number=5,
            max_export_current_A=200.0,
            max_export_power_W=60_000.0,
            power_supply_DC="psu",
            evse_board_support="bsp",
        ),
    )
)
INPUTS = (
    Started(utc_offset_ns=UTC_NS, goose_mac=bytes.fromhex("02000a0b0c0d")),
    BspEventReceived(connector=1, event=BspEvent.B),
    BspErrorRaised(connector=1, error_type="MREC8EmergencyStop", sub_type=""),
    PsuConnected(connection=1),
    PowermeterMeasured(connector=1, voltage_v=400.0, current_a=20.0),
    GooseFramesDropped(counts={"bad_crc": 3}),
    BspEventReceived(connector=1, event=BspEvent.A),
)

Record = tuple[int, bytes]


class MemorySink(bytearray):
    """A file in memory for the recorder's SegmentWriter."""

    def write(self, data: bytes) -> int:
        self += data
        return len(data)

    def tell(self) -> int:
        return len(self)

    def flush(self) -> None:
        pass

    def end_record(self) -> None:
        pass


def recorded() -> bytes:
    """The log of a short session."""
    sink = MemorySink()
    writer = SegmentWriter(sink)
    runtime = build(CONFIG)

    def write(turn: int, message: msgspec.Struct) -> None:
        payload, at_ns = seal(message), turn * TURN_NS
        writer.feed(PIPE_HEAD.pack(len(payload), turn, UTC_NS + at_ns, at_ns) + payload)

    header = SegmentHeader(
        format=FORMAT,
        run_id=RUN_ID,
        segment=1,
        first_turn=1,
        utc_ns=UTC_NS,
        versions={"fusioncharger": "1"},
        config=msgspec.to_builtins(CONFIG),
        snapshot=snapshot(runtime),
    )
    write(1, header)
    write(1, Gap(reason="r", first_turn=1, last_turn=0))
    for number, message in enumerate(INPUTS, 1):
        stamped = replace(message, at_ns=number * TURN_NS)
        write(number, stamped)
        for output in runtime.turn(stamped):
            write(number, output)
    write(len(INPUTS), SegmentEnd(goodbye=True))
    writer.finish()
    return bytes(sink)


def split(log: bytes) -> list[Record]:
    records, at = [], len(MCAP0_MAGIC)
    while at < len(log) - len(MCAP0_MAGIC):
        opcode, length = _HEAD.unpack_from(log, at)
        at += _HEAD.size
        records.append((opcode, log[at : at + length]))
        at += length
    return records


def joined(records: list[Record]) -> bytes:
    return b"".join(_HEAD.pack(opcode, len(content)) + content for opcode, content in records)


def chunk(data: bytes, source: Source) -> Record:
    """The records as a chunk; with a head that does not tell the truth, if the source says so."""
    kind, lie = source.below(4), source.number()
    size, crc = len(data), zlib.crc32(data)
    if kind == 0:
        name, packed = b"", data
    elif kind == 1:  # without its size in the frame
        name, packed = b"zstd", zstandard.ZstdCompressor(write_content_size=False).compress(data)
    else:
        name, packed = b"zstd", zstandard.ZstdCompressor().compress(data)
    if lie & 1:
        size = source.number(8)
    if lie & 2:
        crc ^= source.number()
    if lie & 4:
        packed = patched(packed, source, 3)
    stated = source.number(8) if lie & 8 else len(packed)
    head = struct.pack("<QQQII", 0, 0, size, crc, len(name)) + name + struct.pack("<Q", stated)
    return Opcode.CHUNK, head + packed


def compressed(records: list[Record]) -> bytes:
    head, messages, end = records[:1], records[1:], []
    while messages and messages[-1][0] not in (Opcode.MESSAGE, Opcode.CHANNEL, Opcode.SCHEMA):
        end.insert(0, messages.pop())
    whole = chunk(joined(messages), Source(b"\2"))
    return MCAP0_MAGIC + joined([*head, whole, *end]) + MCAP0_MAGIC


PLAIN = recorded()
RECORDS = split(PLAIN)
COMPRESSED = compressed(RECORDS)


def patched(data: bytes, source: Source, most: int) -> bytes:
    altered = bytearray(data)
    for _ in range(most):
        if not source.left or not altered:
            break
        altered[source.number(2) % len(altered)] ^= source.number()
    return bytes(altered)


def check(data: bytes) -> None:
    source = Source(data)
    match source.below(4):
        case 0:
            check_log(source.rest())
        case 1:
            log = source.choice((PLAIN, COMPRESSED))
            kept = source.number(2)
            altered = patched(log[: kept % len(log)] if kept else log, source, 4)
            turns, error = check_log(altered)
            assert is_true(turns), f"not what was recorded, though checksums are there: {error}"
        case _:
            check_log(assembled(source))


def assembled(source: Source) -> bytes:
    records = list(RECORDS)
    in_chunk = source.below(2) == 1
    while source.left >= 3 and 0 < len(records) <= _MAX_RECORDS:
        place = source.below(len(records))
        opcode, content = records[place]
        match source.below(8):
            case 0:
                del records[place]
            case 1:
                records.insert(source.below(len(records) + 1), records[place])
            case 2:
                records[place] = source.number(), content
            case 3:
                records[place] = opcode, patched(content, source, 2)
            case 4:
                records.insert(place, (source.number(), source.chunk()))
            case 5:
                payload = source.chunk()
                records[place] = opcode, content[:_MESSAGE_BYTES] + sealed(payload)
            case _:
                records[place] = opcode, content[:_MESSAGE_BYTES] + edited(content[_MESSAGE_BYTES:], source)
    if in_chunk and len(records) > 1:
        end = 1 + source.below(len(records))
        records = [records[0], chunk(joined(records[1:end]), source), *records[end:]]
    return MCAP0_MAGIC + joined(records) + MCAP0_MAGIC


def sealed(covered: bytes) -> bytes:
    return covered + b',"crc32":"%08x"}' % zlib.crc32(covered)


def edited(payload: bytes, source: Source) -> bytes:
    """A payload with a piece of its JSON replaced, and a checksum that is right again."""
    covered = payload[:-SEAL_BYTES]
    begin = source.number(2) % (len(covered) + 1)
    length = source.below(32)
    piece = source.choice(
        (b"", b"null", b"-1", b"1e400", b"9" * 30, b'"', b"{}", b"[" * 2000, b'""', b"NaN", source.chunk())
    )
    return sealed(covered[:begin] + piece + covered[begin + length :])


def check_log(log: bytes) -> tuple[list[Turn], str]:
    """Everything that reads a log takes it, or says LogError. The turns, and why there are no more."""
    _file.write_bytes(log)
    turns: list[Turn] = []
    error = ""
    try:
        with read_log(_file) as reader:
            turns.extend(reader.turns())
            assert reader.ending is not None
            error = reader.ending.text
    except LogError as refused:
        error = str(refused)
    check_segment(turns)
    restore_errors(_file.parent, CONFIG)
    return turns, error


def check_segment(turns: list[Turn]) -> None:
    try:
        opened = open_logs([_file])
        info_text(gather(opened, lambda _: None))
    except LogError:
        return
    with contextlib.suppress(LogError):
        for record in SegmentTail(opened.segments[0]).records():
            msgspec.json.encode(record.shown())
    with contextlib.suppress(LogError):
        check_recovered(opened.segments[0], turns)
    try:
        with Session.open(_file) as session:
            for step in session:
                assert step.turn.number
    except LogError:
        pass


def check_recovered(segment: Segment, turns: list[Turn]) -> None:
    """What comes before the damage is what was read before it; what comes behind it is whole."""
    shutil.rmtree(_recovered, ignore_errors=True)
    _recovered.mkdir()
    try:
        kept = recover(segment, _recovered / "log.mcap", lambda _: None)
    except FileExistsError:  # two parts that begin with the same turn
        return
    for number, part in enumerate(kept.parts):
        with read_log(part.path) as reader:
            again = list(reader.turns())
        assert len(again) == part.turns
        if number == 0:
            assert [turn.input for turn in again] == [turn.input for turn in turns[: part.turns]]
    assert not list(_recovered.glob("*.part"))


_truth: list[Turn] = []


def is_true(turns: list[Turn]) -> bool:
    """Whether these are the recorded turns from the first on; at the end some may be missing."""
    if not _truth:
        path = Path(_folder.name) / "truth"
        path.write_bytes(PLAIN)
        with read_log(path) as reader:
            _truth.extend(reader.turns())
        assert len(_truth) == len(INPUTS)
    for turn, true in zip(turns, _truth, strict=False):
        outputs = turn.outputs[: len(true.outputs)]
        if (turn.number, turn.input) != (true.number, true.input):
            return False
        if any(output.intact and output != known for output, known in zip(outputs, true.outputs, strict=False)):
            return False
    return len(turns) <= len(_truth)
