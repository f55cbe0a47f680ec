"""A damaged log is found to be so, and what is recovered of it is a whole one."""

import tempfile
from functools import cache
from pathlib import Path

import pytest
from fakes.recorded_session import record_session
from fusioncharger.app.log_verify_command import check
from fusioncharger.replay.housekeeping import compress
from fusioncharger.replay.logs import open_logs
from fusioncharger.replay.reader import LogError, Turn, read_log
from fusioncharger.replay.recover import recover
from fusioncharger.replay.replayer import replay
from hypothesis import given, settings
from hypothesis import strategies as st


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
    (again,) = open_logs([out]).segments
    assert check(again, nothing).is_whole
    kept = content(out)
    assert len(kept) == recovered.turns
    whole = content(before)
    assert kept[:-1] == whole[: max(0, len(kept) - 1)]
    with again.read() as log:
        assert replay(log).divergence is None
    with pytest.raises(FileExistsError):
        recover(segment, out, nothing)


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


def test_turns_behind_the_damage_are_counted(tmp_path: Path) -> None:
    original = log_bytes(compressed=False)
    at = original.index(b'{"type":"PsuConnected"') + 12
    path = tmp_path / "a.mcap"
    path.write_bytes(original[:at] + b"?" + original[at + 1 :])
    found = recover(open_logs([path]).segments[0], tmp_path / "out.mcap", nothing)
    assert (found.turns, found.lost_inputs) == (2, 11)
    assert 0 < found.lost_bytes < len(original)
