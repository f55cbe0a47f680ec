"""Nothing that was handed over is lost, whatever is killed or cut, and the log says honestly where it ends."""

import fcntl
import io
import json
import os
import random
import struct
import subprocess
import sys
import zlib
from bisect import bisect_right
from pathlib import Path

import pytest
from fakes import killed_driver
from fakes.recorded_session import INPUTS, record_session
from fusioncharger.replay.log_format import SEAL_BYTES, TOPICS
from fusioncharger.replay.logs import Log, open_logs
from fusioncharger.replay.reader import DamagedLogError, EndKind, LogReader
from fusioncharger.replay.replayer import replay

KILLS = 200
TAIL_BYTES = 64 * 1024


def closed(directory: Path) -> Log:
    """The log, once its recorders have ended: they hold their files' locks so long."""
    for path in sorted(directory.glob("*.mcap")):
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
    return open_logs([directory])


def test_a_driver_killed_at_any_moment_loses_no_complete_turn(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print("seed:", seed)
    command = [sys.executable, killed_driver.__file__, str(tmp_path), str(KILLS), str(seed)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    killed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    results = [json.loads(line) for line in killed.stdout.splitlines()]
    assert len(results) == KILLS
    segments = 0
    assert len({result["turn"] for result in results}) > 20, "at different moments"
    for result in results:
        log = closed(Path(result["log"]))
        segments += len(log.segments)
        last_turn = 0
        for segment in log.segments:
            assert segment.header.first_turn == last_turn + 1
            with segment.read() as reader:
                found = replay(reader)
            assert found.divergence is None, result
            assert reader.gap is None
            assert reader.ending is not None
            is_last = segment is log.segments[-1]
            assert reader.ending.kind is (EndKind.DRIVER_DIED if is_last else EndKind.CONTINUES), result
            last_turn = reader.ending.last_turn
        assert last_turn >= result["turn"], "a turn that was handed over whole is lost"
        assert last_turn <= result["turn"] + 1, "a turn that never was"
    lived = sorted(result["turn"] for result in results)
    print(f"turns at the kill: {lived[0]} to {lived[-1]}, segments: {segments}")
    assert segments > KILLS * 1.1, "some were killed after a change of segments"


# --- cut files ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def segment(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A closed segment of about 1 MiB."""
    data = record_session(tmp_path_factory.mktemp("segment"), INPUTS * 40).read_bytes()
    assert 2**20 < len(data) < 1.2 * 2**20, len(data)
    return data


HEAD = struct.Struct("<BQ")
MESSAGE, CHANNEL, DATA_END = 0x05, 0x04, 0x0F


def records(data: bytes) -> list[tuple[int, int, int]]:
    """Kind, begin and end of every record up to the end of the data, found without our reader."""
    found, at = [], 8
    while True:
        kind, length = HEAD.unpack_from(data, at)
        found.append((kind, at, at + HEAD.size + length))
        at += HEAD.size + length
        if kind == DATA_END:
            return found


def topics(data: bytes) -> dict[int, str]:
    """Channel number to topic."""
    known = {}
    for kind, begin, _ in records(data):
        if kind == CHANNEL:
            channel, _, length = struct.unpack_from("<HHI", data, begin + HEAD.size)
            known[channel] = data[begin + HEAD.size + 8 :][:length].decode()
    return known


def check_cut(data: bytes, cut: int, ends_of_inputs: list[int], first: int) -> None:
    """What is read of a cut segment is every turn whose input is whole, and it is said to be cut."""
    with LogReader(io.BytesIO(data[:cut])) as log:
        turns = [turn.number for turn in log.turns()]
    assert turns == list(range(first, first + bisect_right(ends_of_inputs, cut))), cut
    assert log.ending is not None
    if cut < len(data):
        assert log.ending.kind is EndKind.DAMAGED, cut


def ends_of_inputs(data: bytes) -> list[int]:
    """Where each turn's input ends."""
    known = topics(data)
    return [
        end
        for kind, begin, end in records(data)
        if kind == MESSAGE and known[struct.unpack_from("<H", data, begin + HEAD.size)[0]].startswith("in/")
    ]


def test_a_segment_cut_anywhere_in_its_last_64_kib_keeps_every_turn(segment: bytes) -> None:
    """Every one of the 65 536 offsets. So that this takes seconds, what is read each time is the segment
    without its middle: header and channels, and then the last 64 KiB from the beginning of a turn on."""
    all_records = records(segment)
    known = topics(segment)
    header_end = next(
        end
        for kind, begin, end in all_records
        if kind == MESSAGE
        and known[struct.unpack_from("<H", segment, begin + HEAD.size)[0]] == TOPICS["SegmentHeader"]
    )
    inputs = ends_of_inputs(segment)
    tail = next(index for index, end in enumerate(inputs) if end > len(segment) - TAIL_BYTES)
    tail_begin = next(begin for _, begin, end in all_records if end == inputs[tail])
    descriptions = b"".join(
        segment[begin:end]
        for kind, begin, end in all_records
        if kind in {CHANNEL, 0x03} and header_end <= begin < tail_begin
    )
    first = tail + 1
    beginning = segment[:header_end] + descriptions
    old, new = b'"first_turn":1,', f'"first_turn":{first},'.encode()
    shorter = resealed_header(beginning, old, new) + segment[tail_begin:]
    ends = ends_of_inputs(shorter)
    assert len(ends) == len(inputs) - tail
    for cut in range(len(shorter) - TAIL_BYTES + (len(new) - len(old)), len(shorter) + 1):
        check_cut(shorter, cut, ends, first)


def test_a_whole_segment_cut_at_random_keeps_every_turn(segment: bytes) -> None:
    chance = random.Random(4)
    ends = ends_of_inputs(segment)
    for cut in sorted(chance.randrange(len(segment) - TAIL_BYTES, len(segment)) for _ in range(200)):
        check_cut(segment, cut, ends, 1)
    for cut in range(0, 3000, 50):
        try:
            check_cut(segment, cut, ends, 1)
        except DamagedLogError:
            assert cut < ends[0]


def resealed_header(data: bytes, old: bytes, new: bytes) -> bytes:
    """The beginning of a segment with part of its header's JSON replaced."""
    at = data.index(old)
    (begin, end) = next((begin, end) for begin, end in spans(data) if begin < at < end)
    head, payload = data[begin : begin + 31], data[begin + 31 : end]
    covered = payload.replace(old, new, 1)[:-SEAL_BYTES]
    sealed = covered + b',"crc32":"%08x"}' % zlib.crc32(covered)
    record = HEAD.pack(MESSAGE, len(sealed) + 22) + head[9:] + sealed
    return data[:begin] + record + data[end:]


def spans(data: bytes) -> list[tuple[int, int]]:
    found, at = [], 8
    while at < len(data):
        _, length = HEAD.unpack_from(data, at)
        found.append((at, at + HEAD.size + length))
        at += HEAD.size + length
    return found
