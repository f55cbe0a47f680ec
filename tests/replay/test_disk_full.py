"""What is in the log when the disk was full: real file systems that are, and what stands before and after."""

import fcntl
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.recorded_session import CONFIG, INPUTS, TURN_NS, UTC_NS, DrivenJournal
from fusioncharger.messages.config import JournalConfig
from fusioncharger.replay.housekeeping import LOCK_NAME
from fusioncharger.replay.logs import open_logs
from fusioncharger.replay.reader import EndKind
from fusioncharger.replay.replayer import replay
from fusioncharger.replay.segment_file import SegmentFile
from msgspec.structs import replace
from small_disk import fill, mounted_disk

FULL = "No space left on device"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted_disk(tmp_path / "disk") as disk:
        yield disk


def test_a_full_disk_leaves_whole_turns_a_closed_file_and_a_named_gap(small_disk: Path) -> None:
    log_directory = small_disk / "log"
    driven = DrivenJournal(log_directory)
    driven.open()
    driven.await_report("ready")
    driven.run(INPUTS * 3)
    hog = fill(small_disk, 100_000)
    while driven.journal.failure is None:
        driven.run()
        driven.journal.read_reports()
    assert driven.journal.failure == f"{log_directory}: {FULL}"
    driven.run()

    # As long as it is full, no new segment is begun.
    assert driven.journal.prepare_replacement(UTC_NS + driven.turn * TURN_NS)
    assert driven.await_report("unavailable").reason.startswith(f"{log_directory}: the disk is full: ")
    assert not driven.begin_segment()

    hog.unlink()
    assert driven.journal.prepare_replacement(UTC_NS + driven.turn * TURN_NS)
    driven.await_report("ready")
    assert driven.begin_segment()
    before_gap, driven_turns = open_logs([log_directory]).segments[0], driven.turn
    driven.run()
    assert driven.journal.close(10.0)

    with before_gap.read() as log:
        found = replay(log)
    assert found.divergence is None
    assert found.turns > len(INPUTS)
    assert log.ending is not None
    assert log.ending.kind is EndKind.GIVEN_UP
    assert log.ending.text.startswith(f"it could not be written any further: {FULL} (")
    after_gap = open_logs([log_directory]).segments[1]
    with after_gap.read() as after:
        again = replay(after)
    assert again.divergence is None
    assert again.turns == len(INPUTS)
    assert after.gap is not None
    assert (after.gap.first_turn, after.gap.last_turn) == (log.ending.last_turn + 1, driven_turns)
    assert after.gap.reason == f"{log_directory}: {FULL}"
    assert not list(log_directory.glob("*.reserve"))


def test_a_full_disk_is_made_room_on_at_the_cost_of_old_segments(small_disk: Path) -> None:
    log_directory = small_disk / "log"
    log_directory.mkdir()
    old = [log_directory / f"2026011{day}T000000Z-01234567-0001.mcap" for day in range(3)]
    for path in old:
        path.write_bytes(bytes(700_000))
    fill(small_disk, 10_000)
    driven = DrivenJournal(log_directory, replace(CONFIG, journal=JournalConfig(keep_GiB=0)))
    driven.open()
    driven.await_report("ready")
    driven.run()
    assert driven.journal.close(10.0)
    assert [path.exists() for path in old] == [False, False, True]
    assert len(open_logs([log_directory]).segments) == 1


def test_nothing_is_given_up_where_it_would_not_be_enough(small_disk: Path) -> None:
    """Something else fills the disk: the old logs stay, and the journal is unavailable."""
    log_directory = small_disk / "log"
    log_directory.mkdir()
    old = [log_directory / f"2026011{day}T000000Z-01234567-0001.mcap" for day in range(3)]
    for path in old:
        path.write_bytes(bytes(300_000))
    fill(small_disk, 0)
    driven = DrivenJournal(log_directory)
    driven.open()
    assert driven.await_report("unavailable").reason.startswith(f"{log_directory}: the disk is full: 0.0 MiB")
    driven.journal.close(10.0)
    assert all(path.exists() for path in old)


def test_a_record_is_whole_or_not_there(tmp_path: Path) -> None:
    """A file that could take part of what was handed over is cut to the last record that is whole."""
    file = SegmentFile(tmp_path / "segment")
    for size in (10, 20, 30):
        file.write(bytes([size]) * size)
        file.end_record()
    file.flush()
    for size in (7, 8, 9):
        file.write(bytes([size]) * size)
        file.end_record()
    part = bytes([7]) * 7 + bytes([8]) * 3
    assert os.write(file._descriptor, part) == len(part)
    file._written += len(part)
    del file._pending[: len(part)]
    assert file.take_back() == (2, 17)
    assert (tmp_path / "segment").stat().st_size == 67
    file.write(b"end")
    file.sync()
    file.close()
    assert (tmp_path / "segment").read_bytes()[-10:] == bytes([7]) * 7 + b"end"
    assert [path.name for path in tmp_path.iterdir()] == ["segment"]


def test_a_disk_that_is_full_when_the_driver_says_goodbye_loses_nothing(small_disk: Path) -> None:
    """The goodbye still goes into the block that the file has; what closes the file does not, but for the room
    that was kept for it."""
    driven = DrivenJournal(small_disk / "log")
    driven.open()
    driven.await_report("ready")
    (path,) = driven.logs
    left_bytes = 0
    while not 250 < left_bytes < 1000:
        before = path.stat().st_size
        driven.run(INPUTS[5:6])
        while path.stat().st_size == before:
            pass
        left_bytes = -path.stat().st_size % os.sysconf("SC_PAGE_SIZE")
    fill(small_disk, 0)
    assert driven.journal.close(10.0)
    (segment,) = open_logs([path]).segments
    assert segment.summary is not None
    assert segment.summary.turns == driven.turn
    with segment.read() as log:
        assert replay(log).turns == driven.turn
    assert log.ending is not None
    assert log.ending.kind is EndKind.GOODBYE


def test_a_segment_that_could_not_even_begin_leaves_the_former_ones_turns_alone(small_disk: Path) -> None:
    """The gap begins with its first turn, not with the first turn of all."""
    (small_disk / "log").mkdir()
    housekeeping = (small_disk / "log" / LOCK_NAME).open("w")
    fcntl.flock(housekeeping, fcntl.LOCK_EX)
    driven = DrivenJournal(small_disk / "log")
    driven.open()
    driven.await_report("ready")
    driven.run()
    assert driven.journal.prepare_replacement(UTC_NS)
    driven.await_report("ready")
    assert driven.journal._replacement is not None
    recorder = driven.journal._replacement.process.pid
    os.kill(recorder, signal.SIGSTOP)
    assert driven.begin_segment()
    driven.run()
    driven.await_report("closed")  # the former one, with the room that was kept for it
    hog = fill(small_disk, 0)
    os.kill(recorder, signal.SIGCONT)
    driven.await_report("unavailable")
    driven.run()
    hog.unlink()
    assert driven.journal.prepare_replacement(UTC_NS)
    driven.await_report("ready")
    assert driven.begin_segment()
    driven.run()
    assert driven.journal.close(10.0)
    assert not open_logs([small_disk / "log"]).unreadable, "what has not even a header is no file"
    housekeeping.close()
    last = open_logs([small_disk / "log"]).segments[-1]
    with last.read() as log:
        assert replay(log).turns == len(INPUTS)
    assert log.gap is not None
    assert (log.gap.first_turn, log.gap.last_turn) == (len(INPUTS) + 1, 3 * len(INPUTS))
