"""What becomes of old segments: compressed, deleted in time, and never one that is needed."""

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakes.recorded_session import INPUTS, DrivenJournal, record_session
from fusioncharger.replay.housekeeping import (
    SECONDS_PER_DAY,
    compress,
    delete_old,
    keep_house,
    make_room,
    segments,
)
from fusioncharger.replay.keep import Keep
from fusioncharger.replay.logs import open_logs
from fusioncharger.replay.reader import EndKind
from fusioncharger.replay.records import RecordReader
from fusioncharger.replay.replayer import replay
from small_disk import fill, mounted_disk

NOW_S = 1_800_000_000.0


def name(number: int) -> str:
    return f"20261118T{number:06}Z-01234567-0001.mcap"


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return record_session(tmp_path_factory.mktemp("session"), INPUTS * 20).read_bytes()


def plain(directory: Path, count: int, recording: bytes) -> list[Path]:
    """Segments, a day apart from one another; the last one is of now."""
    paths = []
    for number in range(count):
        path = directory / name(number)
        path.write_bytes(recording)
        age_s = (count - 1 - number) * SECONDS_PER_DAY
        os.utime(path, (NOW_S - age_s, NOW_S - age_s))
        paths.append(path)
    return paths


def messages(path: Path) -> list[object]:
    with path.open("rb") as file:
        reader = RecordReader(file)
        reader.read_profile()
        return list(reader.messages())


def test_a_compressed_segment_holds_the_same_and_replays(tmp_path: Path, recording: bytes) -> None:
    (path,) = plain(tmp_path, 1, recording)
    before, status = messages(path), path.stat()
    (segment,) = open_logs([path]).segments
    assert compress(path)
    assert path.stat().st_size < len(recording) / 3
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    assert messages(path) == before
    (compressed,) = open_logs([path]).segments
    assert (compressed.header, compressed.summary) == (segment.header, segment.summary)
    assert compressed.summary is not None
    with compressed.read() as log:
        assert replay(log).turns == 20 * len(INPUTS)
    assert log.ending is not None
    assert log.ending.kind is EndKind.GOODBYE
    assert not compress(path), "twice"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("cut_bytes", [1, 300])
def test_a_segment_that_was_not_closed_stays_as_it_is(tmp_path: Path, recording: bytes, cut_bytes: int) -> None:
    path = tmp_path / name(1)
    path.write_bytes(recording[:-cut_bytes])
    assert not compress(path)
    assert path.read_bytes() == recording[:-cut_bytes]
    assert list(tmp_path.iterdir()) == [path]


def test_a_segment_that_is_being_written_is_left_alone(tmp_path: Path, recording: bytes) -> None:
    paths = plain(tmp_path, 3, recording)
    with paths[0].open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert not compress(paths[0])
        assert delete_old(tmp_path, Keep(total_bytes=1), NOW_S) == [paths[1]]
    assert segments(tmp_path) == [paths[0], paths[2]]


def test_the_oldest_go_beyond_the_size_that_is_kept(tmp_path: Path, recording: bytes) -> None:
    paths = plain(tmp_path, 5, recording)
    assert delete_old(tmp_path, Keep(total_bytes=3 * len(recording)), NOW_S) == paths[:2]
    assert delete_old(tmp_path, Keep(total_bytes=3 * len(recording)), NOW_S) == []
    assert delete_old(tmp_path, Keep(total_bytes=1), NOW_S) == paths[2:4]
    assert segments(tmp_path) == paths[4:], "the newest stays, whatever its size"


def test_the_oldest_go_beyond_the_age_that_is_kept(tmp_path: Path, recording: bytes) -> None:
    paths = plain(tmp_path, 5, recording)
    assert delete_old(tmp_path, Keep(days=2.5), NOW_S) == paths[:2]
    assert delete_old(tmp_path, Keep(), NOW_S) == []


def test_a_log_from_before_the_clock_was_set_has_no_age(tmp_path: Path, recording: bytes) -> None:
    """As on a board without a battery whose driver ended before it heard of the time: the youngest of all."""
    paths = plain(tmp_path, 3, recording)
    os.utime(paths[2], (60, 60))
    assert delete_old(tmp_path, Keep(days=1.5), NOW_S) == [paths[0]]
    assert delete_old(tmp_path, Keep(total_bytes=len(recording)), NOW_S) == [paths[2]], "the size counts"


def test_files_of_others_are_not_touched(tmp_path: Path, recording: bytes) -> None:
    foreign = [tmp_path / "case.mcap", tmp_path / "notes.txt", tmp_path / f"{name(0)}.bak", tmp_path / "x.part"]
    for path in foreign:
        path.write_bytes(recording)
        os.utime(path, (0, 0))
    paths = plain(tmp_path, 2, recording)
    keep_house(tmp_path, Keep(total_bytes=1, days=1), NOW_S)
    assert sorted(tmp_path.iterdir()) == sorted([*foreign, paths[1]])
    assert all(path.read_bytes() == recording for path in foreign)


def test_what_a_power_cut_left_half_done_is_removed(tmp_path: Path, recording: bytes) -> None:
    paths = plain(tmp_path, 2, recording)
    (tmp_path / f"{name(0)}.part").write_bytes(b"half")
    (tmp_path / f"{name(1)}.reserve").write_bytes(bytes(100))
    (tmp_path / f"{name(7)}.part").write_bytes(b"its segment is gone")
    keep_house(tmp_path, Keep(), NOW_S)
    assert sorted(tmp_path.iterdir()) == paths
    assert all(path.stat().st_size < len(recording) for path in paths), "and both are compressed"


def test_no_room_is_made_where_it_would_not_be_enough(tmp_path: Path, recording: bytes) -> None:
    paths = plain(tmp_path, 3, recording)
    make_room(tmp_path, Keep(), 1)
    with pytest.raises(OSError, match=r"the disk is full: .* MiB are free, .* MiB are needed"):
        make_room(tmp_path, Keep(), 2**60)
    assert segments(tmp_path) == paths
    with pytest.raises(OSError, match="the disk is full"):
        make_room(tmp_path, Keep(total_bytes=1), 2**60)
    assert segments(tmp_path) == paths[2:], "what is not to be kept goes all the same"


def run(directory: Path) -> subprocess.CompletedProcess[str]:
    """As the recorder starts it; a process of its own, since it gives up its priority."""
    command = [sys.executable, "-m", "fusioncharger.replay.housekeeping", str(directory), *Keep().arguments()]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_one_at_a_time(tmp_path: Path, recording: bytes) -> None:
    (path,) = plain(tmp_path, 1, recording)
    with (tmp_path / ".housekeeping.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert run(tmp_path).returncode == 0
    assert path.read_bytes() == recording
    assert run(tmp_path).returncode == 0
    assert path.stat().st_size < len(recording)


def test_a_directory_that_is_gone_needs_no_house_keeping(tmp_path: Path) -> None:
    done = run(tmp_path / "gone")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_directory_that_cannot_be_kept_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run(tmp_path / "file")
    assert done.returncode == 1
    assert done.stderr == f"{tmp_path}/file: Not a directory\n"


def test_the_recorder_leaves_compressed_segments_behind(tmp_path: Path) -> None:
    driven = DrivenJournal(tmp_path)
    driven.open()
    driven.run(INPUTS * 20)
    assert driven.journal.close(10.0)
    (path,) = driven.logs
    size = path.stat().st_size
    deadline_s = time.monotonic() + 20
    while path.stat().st_size == size or (tmp_path / f"{path.name}.part").exists():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    assert len(messages(path)) > 20 * len(INPUTS)


def test_no_log_is_given_up_so_that_it_can_be_compressed(tmp_path: Path, recording: bytes) -> None:
    with mounted_disk(tmp_path / "disk") as disk:
        paths = plain(disk, 2, recording)
        hog = fill(disk, 0)
        keep_house(disk, Keep(), NOW_S)
        assert [path.read_bytes() == recording for path in paths] == [True, True]
        hog.unlink()
        keep_house(disk, Keep(), NOW_S)
        assert [path.stat().st_size < len(recording) for path in paths] == [True, True]
