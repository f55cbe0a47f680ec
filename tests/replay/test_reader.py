"""The reader on whole, torn and altered files: what is kept, what is said, and never another exception."""

import re
import zlib
from pathlib import Path

import pytest
from fakes.commands import replay_arguments
from fakes.recorded_session import INPUTS, record_session
from fusioncharger.app.replay_command import DAMAGED, DIVERGED, IDENTICAL, UNSUPPORTED, USAGE, replay_command
from fusioncharger.replay.log_format import SegmentEnd, is_intact, seal, unsealed
from fusioncharger.replay.reader import (
    DamagedLogError,
    Ending,
    EndKind,
    LogError,
    NotALogError,
    Turn,
    UnsupportedFormatError,
    read_log,
)
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

TURNS = len(INPUTS)

MESSAGE_HEAD_BYTES = 31
"""Of an MCAP Message record: opcode, length, channel, sequence and the two times."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A whole log."""
    return record_session(tmp_path_factory.mktemp("session")).read_bytes()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file to write over and over."""
    return tmp_path_factory.mktemp("scratch") / "log.mcap"


def read(path: Path, data: bytes) -> tuple[list[Turn], Ending]:
    path.write_bytes(data)
    with read_log(path) as log:
        turns = list(log.turns())
    assert log.ending is not None
    return turns, log.ending


def exit_code(path: Path, data: bytes) -> int:
    path.write_bytes(data)
    return replay_command(replay_arguments(path))


def altered(data: bytes, position: int, value: int) -> bytes:
    return data[:position] + bytes([value]) + data[position + 1 :]


def payload_at(whole: bytes, beginning: bytes) -> tuple[int, int]:
    """Where the first payload that begins so stands: start, end."""
    start = whole.index(b'{"type":"' + beginning)
    return start, whole.index(b'"}', whole.index(b'"crc32":"', start)) + 2


def renamed(whole: bytes, old: bytes, new: bytes) -> bytes:
    """The log with a tag renamed and the payloads sealed again."""

    def reseal(found: re.Match[bytes]) -> bytes:
        covered = found[1].replace(old, new)
        return covered + b',"crc32":"%08x"}' % zlib.crc32(covered)

    return re.sub(rb'(\{"type":"' + old + rb'[^}]*?),"crc32":"[0-9a-f]{8}"\}', reseal, whole)


def test_seal_covers_all_but_itself() -> None:
    payload = seal(SegmentEnd(goodbye=True))
    assert (
        unsealed(payload)
        == b'{"type":"SegmentEnd","goodbye":true,"lost_bytes":0,"continues":false,"reason":""}'
    )
    assert is_intact(payload)
    for position in range(len(payload)):
        assert not is_intact(altered(payload, position, payload[position] ^ 1))


@pytest.mark.parametrize("kept", range(1, 500))
def test_a_cut_in_the_last_500_bytes_is_damage_that_keeps_turns(whole: bytes, scratch: Path, kept: int) -> None:
    turns, ending = read(scratch, whole[: len(whole) - kept])
    assert ending.kind is EndKind.DAMAGED
    assert len(turns) == ending.last_turn == TURNS
    assert exit_code(scratch, whole[: len(whole) - kept]) == DAMAGED


def test_a_cut_anywhere_keeps_every_turn_before_it(whole: bytes, scratch: Path, capsys) -> None:
    """Whole turns only, more of them the later the cut; and what is kept replays as identical."""
    last = 0
    for size in range(0, len(whole), 97):
        code = exit_code(scratch, whole[:size])
        out = capsys.readouterr().out
        assert code == DAMAGED
        kept = int(out.rpartition("damaged after turn ")[2].partition(":")[0])
        assert last <= kept <= TURNS
        assert kept == 0 or f"identical: {kept} turns" in out
        last = kept


def test_a_cut_between_input_and_outputs_leaves_the_last_turn_incomplete(whole: bytes, scratch: Path) -> None:
    turns, _ = read(scratch, whole[: whole.index(b'{"type":"ModePublished","connector":2')])
    assert [turn.complete for turn in turns] == [False]
    assert len(turns[0].outputs) == 1


def test_an_altered_input_ends_the_reading_before_its_turn(whole: bytes, scratch: Path) -> None:
    position = whole.index(b'"voltage_v":400.0') + len(b'"voltage_v":')
    turns, ending = read(scratch, altered(whole, position, ord("3")))
    number = 1 + next(n for n, message in enumerate(INPUTS) if type(message).__name__ == "SetpointRequested")
    assert len(turns) == number - 1
    assert ending.text == f"the checksum of turn {number}'s input fails"


def test_an_altered_output_is_handed_on_marked(whole: bytes, scratch: Path) -> None:
    start, _ = payload_at(whole, b"ReadAnswered")
    turns, ending = read(scratch, altered(whole, start + 30, ord("~")))
    assert ending.kind is EndKind.GOODBYE
    assert [turn.number for turn in turns for output in turn.outputs if not output.intact] == [4]


def test_a_missing_turn_is_noticed(whole: bytes, scratch: Path) -> None:
    start, end = payload_at(whole, b"BrokerConnected")
    record = start - MESSAGE_HEAD_BYTES
    turns, ending = read(scratch, whole[:record] + whole[end:])
    assert len(turns) == 1
    assert ending.text == "an output of turn 2 stands after the input of turn 1"


@pytest.mark.parametrize(
    ("beginning", "offset", "text"),
    [
        (b"RegistersRead", -8, "the time of turn 4's record is not its input's"),
        (b"ReadAnswered", -20, "an output of turn 5 stands after the input of turn 4"),
        (b"ReadAnswered", -22, "a record is of channel 255, which there is not"),
    ],
)
def test_an_altered_record_head_is_noticed(
    whole: bytes, scratch: Path, beginning: bytes, offset: int, text: str
) -> None:
    """What the payload's checksum does not cover: time, turn and channel."""
    start, _ = payload_at(whole, beginning)
    turns, ending = read(scratch, altered(whole, start + offset, 0xFF if offset == -22 else 5))
    assert ending.text == text
    assert turns[-1].number == (3 if beginning == b"RegistersRead" else 4)


def test_an_output_whose_time_was_altered_is_marked(whole: bytes, scratch: Path) -> None:
    start, _ = payload_at(whole, b"ReadAnswered")
    turns, _ = read(scratch, altered(whole, start - 8, 5))
    assert [output.intact for output in turns[3].outputs] == [False]


def test_a_record_that_the_recorder_never_writes_is_damage(whole: bytes, scratch: Path) -> None:
    attachment = b"\x09" + (40).to_bytes(8, "little") + bytes(40)
    start, _ = payload_at(whole, b"SegmentEnd")
    end = start - MESSAGE_HEAD_BYTES
    turns, ending = read(scratch, whole[:end] + attachment)
    assert len(turns) == TURNS
    assert ending.text == f"the record at byte {end} cannot be read: a record of kind 0x09 does not belong here"


def test_an_altered_header_leaves_nothing(whole: bytes, scratch: Path) -> None:
    start, _ = payload_at(whole, b"SegmentHeader")
    scratch.write_bytes(altered(whole, start + 40, ord("~")))
    with pytest.raises(DamagedLogError, match="segment header"):
        read_log(scratch)


def test_an_altered_end_note_is_damage(whole: bytes, scratch: Path) -> None:
    position = whole.index(b'"goodbye":true') + len(b'"goodbye":')
    turns, ending = read(scratch, altered(whole, position, ord("f")))
    assert len(turns) == TURNS
    assert ending.text == "the checksum of the SegmentEnd note fails"


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", DamagedLogError),
        (b"\x89MCAP", DamagedLogError),
        (b"not a log at all", NotALogError),
        (b"\x89MCAP0\r\n", DamagedLogError),
        (b"\x89MCAP0\r\n\x01" + (8).to_bytes(8, "little") + bytes(8), NotALogError),  # header of no profile
    ],
)
def test_files_that_are_no_log(scratch: Path, data: bytes, error: type[LogError]) -> None:
    scratch.write_bytes(data)
    with pytest.raises(error):
        read_log(scratch)


def test_no_file_and_a_directory_are_no_log(tmp_path: Path) -> None:
    with pytest.raises(NotALogError, match="No such file"):
        read_log(tmp_path / "missing.mcap")
    with pytest.raises(NotALogError, match="Is a directory"):
        read_log(tmp_path)


fuzz = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)


@fuzz
@given(st.data())
def test_bit_flips_end_in_a_documented_way(whole: bytes, scratch: Path, data: st.DataObject) -> None:
    flipped = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        flipped[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert exit_code(scratch, bytes(flipped)) in (IDENTICAL, DIVERGED, USAGE, DAMAGED, UNSUPPORTED)


@fuzz
@given(st.integers(0, 2**16), st.binary(max_size=200), st.integers(0, 300))
@example(0, b"", 10**6)
def test_spliced_garbage_ends_in_a_documented_way(
    whole: bytes, scratch: Path, position: int, garbage: bytes, removed: int
) -> None:
    start = position % len(whole)
    spliced = whole[:start] + garbage + whole[start + removed :]
    assert exit_code(scratch, spliced) in (IDENTICAL, DIVERGED, USAGE, DAMAGED, UNSUPPORTED)


@fuzz
@given(st.binary(max_size=400))
def test_garbage_behind_the_magic_is_damage_or_no_log(scratch: Path, garbage: bytes) -> None:
    assert exit_code(scratch, b"\x89MCAP0\r\n" + garbage) in (USAGE, DAMAGED)


def test_a_record_on_another_channel_is_damage(whole: bytes, scratch: Path) -> None:
    """A channel's topic is not under a checksum of its own: its messages' tags tell."""
    for topic, other in (
        (b"in/everest/Heartbeat", b"xn/everest/Heartbeat"),
        (b"out/everest/Mode", b"out/everesu/Mode"),
    ):
        assert topic in whole
        scratch.write_bytes(whole.replace(topic, other))
        with read_log(scratch) as log:
            turns = list(log.turns())
        assert log.ending is not None
        altered = not all(output.intact for turn in turns for output in turn.outputs)
        assert altered or log.ending.kind is EndKind.DAMAGED


def test_an_unknown_input_of_a_later_version_is_not_supported(whole: bytes, scratch: Path) -> None:
    """Same length, own checksum: as a later version would have written it."""
    scratch.write_bytes(renamed(whole, b"HeartbeatReceived", b"HeartbeatReplaced"))
    with read_log(scratch) as log, pytest.raises(UnsupportedFormatError, match="turn 6's input"):
        list(log.turns())
