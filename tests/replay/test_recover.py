"""A damaged log is found to be so, and what is recovered of it is a whole one."""

import argparse
import tempfile
import tracemalloc
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from fakes.commands import replay_arguments
from fakes.recorded_session import INPUTS, record_session
from fusioncharger.app.log_info_command import add_arguments as add_info_arguments
from fusioncharger.app.log_info_command import log_info_command as info_command
from fusioncharger.app.log_recover_command import add_arguments, log_recover_command
from fusioncharger.app.log_verify_command import check
from fusioncharger.app.replay_command import replay_command
from fusioncharger.replay.housekeeping import compress
from fusioncharger.replay.logs import missing_between, open_logs
from fusioncharger.replay.reader import EndKind, LogError, Turn, UnsupportedFormatError, read_log
from fusioncharger.replay.recover import recover
from fusioncharger.replay.replayer import replay
from fuzz.target_journal import PLAIN, joined, sealed, split
from hypothesis import given, settings
from hypothesis import strategies as st
from mcap.writer import MCAP0_MAGIC


def nothing(_: int) -> None:
    """No progress bar."""


@cache
def log_bytes(*, compressed: bool) -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = record_session(Path(directory))
        if compressed:
            compress(path)  # the recorder's own housekeeping may have been first
        return path.read_bytes()


def turns(path: Path) -> list[Turn]:
    with read_log(path) as log:
        return list(log.turns())


def content(path: Path) -> list[tuple[object, ...]]:
    return [
        (turn.number, turn.input, [(output.payload, output.intact) for output in turn.outputs])
        for turn in turns(path)
    ]


def check_recovery(directory: Path, damaged: bytes, original: bytes) -> None:
    path, before, out = directory / "damaged.mcap", directory / "before.mcap", directory / "out.mcap"
    path.write_bytes(damaged)
    before.write_bytes(original)
    try:
        (segment,) = open_logs([path]).segments
    except LogError:
        return  # not even its header is whole, which is said
    found = check(segment, nothing)
    if found.is_whole:
        assert content(path) == content(before)
    if found.is_unsupported:
        return
    recovered = recover(segment, out, nothing)
    assert bool(recovered.damage) == (not found.is_whole)
    whole = {turn[0]: turn for turn in content(before)}
    for part in recovered.parts:
        (again,) = open_logs([part.path]).segments
        assert check(again, nothing).is_whole
        kept = content(part.path)
        assert [turn[0] for turn in kept] == list(range(part.first_turn, part.last_turn + 1))
        assert kept[:-1] == [whole[turn[0]] for turn in kept[:-1]]
        for number, message, outputs in kept[-1:]:
            assert message == whole[number][1]
            assert outputs == whole[number][2][: len(outputs)]
        with again.read() as log:
            found_in = replay(log)
            assert found_in.divergence is None
            assert bool(found_in.skipped) == (not part.replays)
            assert (log.gap is not None) == (part is not recovered.parts[0])
    first, *behind = recovered.parts
    for former, part in pairwise(recovered.parts):
        assert former.last_turn < part.first_turn
        assert part.replays == (former.replays and part.first_turn == former.last_turn + 1)
    assert first.path == out
    assert {part.path for part in recovered.parts} == {
        path for path in directory.iterdir() if path.name.startswith("out")
    }
    if not found.is_whole:
        is_cut_between_records = recovered.damage == "the file was not closed"
        assert recovered.lost_bytes or is_cut_between_records or recovered.turns == len(content(before))
    for path in (out, *(part.path for part in behind)):
        with pytest.raises(FileExistsError):
            recover(segment, path, nothing)


@pytest.mark.parametrize("compressed", [False, True])
@settings(deadline=None, max_examples=60)
@given(place=st.floats(0, 1, exclude_max=True), mask=st.integers(1, 255))
def test_a_flipped_byte_is_found_or_changes_nothing(compressed: bool, place: float, mask: int) -> None:
    original = log_bytes(compressed=compressed)
    damaged = bytearray(original)
    damaged[int(place * len(damaged))] ^= mask
    with tempfile.TemporaryDirectory() as directory:
        check_recovery(Path(directory), bytes(damaged), original)


@settings(deadline=None, max_examples=60)
@given(place=st.floats(0, 1))
def test_a_cut_log_is_recovered_up_to_the_cut(place: float) -> None:
    original = log_bytes(compressed=False)
    with tempfile.TemporaryDirectory() as directory:
        check_recovery(Path(directory), original[: int(place * len(original))], original)


def with_noise(data: bytes, at: int) -> bytes:
    return data[:at] + b"?" + data[at + 1 :]


def test_turns_behind_the_damage_are_kept_apart(tmp_path: Path) -> None:
    original = log_bytes(compressed=False)
    path, out = tmp_path / "a.mcap", tmp_path / "out.mcap"
    path.write_bytes(with_noise(original, original.index(b'{"type":"PsuConnected"') + 12))
    found = recover(open_logs([path]).segments[0], out, nothing)
    first, behind = found.parts
    assert (first.path, first.first_turn, first.last_turn) == (out, 1, 2)
    assert (behind.first_turn, behind.last_turn) == (4, 14)
    assert behind.path == tmp_path / "out-from-turn-4.mcap"
    assert 0 < found.lost_bytes < 2000
    with read_log(behind.path) as log:
        assert len(list(log.turns())) == 11
        assert log.header.snapshot == {}
        assert log.gap is not None
        assert (log.gap.first_turn, log.gap.last_turn) == (3, 3)
        assert log.ending is not None
        assert log.ending.kind is EndKind.GOODBYE


def test_what_was_recovered_is_one_log_with_gaps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original = log_bytes(compressed=False)
    path, out = tmp_path / "a.mcap", tmp_path / "out"
    out.mkdir()
    noisy = with_noise(original, original.index(b'{"type":"PsuConnected"') + 12)
    path.write_bytes(with_noise(noisy, noisy.index(b'{"type":"SetpointRequested"') + 12))
    assert log_recover_command(arguments(add_arguments, path, "-o", out)) == 3
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{out}/a.mcap: turns 1 to 2"
    assert said[1] == f"{out}/a-from-turn-4.mcap: turns 4 to 9, to be read, not to be replayed"
    assert said[2].startswith(f"{out}/a-from-turn-11.mcap: turns 11 to 14, ")
    assert said[4].endswith("turns 3 to 3, turns 10 to 10, what came after turn 14, if anything did")
    assert replay_command(replay_arguments(out)) == 3
    said = capsys.readouterr().out.splitlines()
    assert said[1].startswith("gap: turns 3 to 3 of run 01234567 are missing: damaged: ")
    assert said[2].startswith("turns 4 to 9 are not replayed: they were recovered from behind damage")
    assert said[-1].startswith("identical: 2 turns, ")
    assert replay_command(replay_arguments(out, "--at", "5")) == 4
    assert replay_command(replay_arguments(out, "--at", "2")) == 0
    assert info_command(arguments(add_info_arguments, out)) == 0
    assert "12 (first 1)" in capsys.readouterr().out


def test_a_hole_in_the_outputs_of_a_turn(tmp_path: Path) -> None:
    original = log_bytes(compressed=False)
    at = original.index(b'{"type":"LogWritten"', original.index(b'{"type":"PsuConnected"'))
    path, out = tmp_path / "a.mcap", tmp_path / "out.mcap"
    path.write_bytes(with_noise(original, at + 12))
    found = recover(open_logs([path]).segments[0], out, nothing)
    assert [(part.first_turn, part.last_turn) for part in found.parts] == [(1, 3), (4, 14)]
    first, second = open_logs([part.path for part in found.parts]).segments
    assert [part.replays for part in found.parts] == [True, True]
    assert replay_command(replay_arguments(out, found.parts[1].path)) == 0
    assert missing_between(first, 3, second) == "a part of turn 3 of run 01234567 is missing"


def test_a_number_that_was_altered_is_not_believed(tmp_path: Path) -> None:
    """A record's turn is under no checksum."""
    original = log_bytes(compressed=False)
    at = original.index(b'{"type":"HeartbeatReceived"') - 20
    path, out = tmp_path / "a.mcap", tmp_path / "out.mcap"
    path.write_bytes(original[:at] + b"\x00\x01\x00\x00" + original[at + 4 :])
    found = recover(open_logs([path]).segments[0], out, nothing)
    assert [(part.first_turn, part.last_turn) for part in found.parts] == [(1, 5), (7, 14)]


def test_memory_is_bounded_and_a_lost_chunk_costs_no_more(tmp_path: Path) -> None:
    path = record_session(tmp_path / "log", INPUTS * 200)
    assert compress(path)
    size = path.stat().st_size
    data = path.read_bytes()
    middle = data.index(b"\x04\x00\x00\x00zstd", size // 3)
    path.write_bytes(with_noise(data, middle + 100))
    (segment,) = open_logs([path]).segments
    assert segment.summary is not None
    tracemalloc.start()
    found = recover(segment, tmp_path / "out.mcap", nothing)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    first, behind = found.parts
    assert 0 < first.turns < behind.first_turn < behind.last_turn == 200 * len(INPUTS)
    assert peak_bytes < 20e6


def arguments(declare: Callable[[argparse.ArgumentParser], None], *words: str | Path) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    declare(parser)
    return parser.parse_args([str(word) for word in words])


def test_an_output_of_a_later_version_is_said_to_be_unknown(tmp_path: Path) -> None:
    records = split(PLAIN)
    place = next(n for n, (_, payload) in enumerate(records) if b'{"type":"ModePublished",' in payload)
    records[place] = records[place][0], records[place][1][:22] + sealed(b'{"type":"Later"')
    path = tmp_path / "log.mcap"
    path.write_bytes(MCAP0_MAGIC + joined(records) + MCAP0_MAGIC)
    (segment,) = open_logs([path]).segments
    with pytest.raises(UnsupportedFormatError, match="turn 1 has an output of a type that is unknown here"):
        recover(segment, tmp_path / "out.mcap", nothing)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("what", [b"SegmentEnd", b"Gap"])
def test_a_note_that_is_there_twice_is_damage(tmp_path: Path, what: bytes) -> None:
    """Else recovering would count records that are not there."""
    records = split(PLAIN)
    place = next(n for n, (_, payload) in enumerate(records) if b'{"type":"%b",' % what in payload)
    end = next(n for n, (_, payload) in enumerate(records) if b'{"type":"SegmentEnd",' in payload)
    records.insert(end, records[place])
    path = tmp_path / "log.mcap"
    path.write_bytes(MCAP0_MAGIC + joined(records) + MCAP0_MAGIC)
    with read_log(path) as reader:
        kept = len(list(reader.turns()))
    assert reader.ending is not None
    assert reader.ending.kind is EndKind.DAMAGED
    assert "where it does not belong" in reader.ending.text
    (segment,) = open_logs([path]).segments
    assert recover(segment, tmp_path / "out.mcap", nothing).parts[0].turns == kept
    assert content(tmp_path / "out.mcap") == content(path)
