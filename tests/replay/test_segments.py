"""The journal over many segments: nothing is lost between them, and each can be replayed by itself."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.recorded_session import CONFIG, INPUTS, TURN_NS, UTC_NS, DrivenJournal
from fusioncharger.actors.system import restore
from fusioncharger.messages.config import JournalConfig
from fusioncharger.replay.directory_lock import DirectoryInUseError, DirectoryLock
from fusioncharger.replay.logs import open_logs
from fusioncharger.replay.reader import EndKind
from fusioncharger.replay.replayer import replay
from msgspec.structs import replace
from small_disk import fill, mounted_disk

HOUR_NS = 3_600_000_000_000


def rotate(driven: DrivenJournal) -> None:
    """What the main thread does, at once."""
    if driven.journal.is_due(driven.turn * TURN_NS):
        driven.replace_recorder()


def test_segments_follow_one_another_without_a_gap(tmp_path: Path) -> None:
    driven = DrivenJournal(tmp_path, segment_bytes=20_000)
    driven.open()
    driven.await_report("ready")
    for _ in range(20):
        driven.run()
        rotate(driven)
    assert driven.journal.close(10.0)
    log = open_logs([tmp_path])
    assert len(log.segments) > 3
    assert [segment.header.segment for segment in log.segments] == list(range(1, len(log.segments) + 1))
    numbers: list[int] = []
    states = None
    for segment in log.segments:
        if states is not None:
            assert restore(segment.header.snapshot) == states
        with segment.read() as reader:
            found = replay(reader)
            assert found.divergence is None
            assert reader.gap is None
            assert reader.ending is not None
            is_last = segment is log.segments[-1]
            assert reader.ending.kind is (EndKind.GOODBYE if is_last else EndKind.CONTINUES)
            numbers += range(segment.header.first_turn, segment.header.first_turn + found.turns)
            states = found.states
    assert numbers == list(range(1, 20 * len(INPUTS) + 1))


def test_a_segment_is_due_by_its_size_and_by_its_age(tmp_path: Path) -> None:
    config = replace(CONFIG, journal=JournalConfig(segment_hours=2))
    driven = DrivenJournal(tmp_path, config, segment_bytes=10_000)
    assert not driven.journal.is_due(0)
    driven.open()
    driven.await_report("ready")
    assert not driven.journal.is_due(2 * HOUR_NS - 1)
    assert driven.journal.is_due(2 * HOUR_NS)
    while not driven.journal.is_due(0):
        driven.run()
    assert driven.journal.prepare_replacement(UTC_NS)
    assert driven.journal.is_prepared
    driven.await_report("ready")
    assert driven.begin_segment()
    assert not driven.journal.is_due(0)
    assert not driven.journal.is_prepared
    driven.journal.close(10.0)


def test_a_recorder_that_hangs_is_waited_for_and_nothing_is_lost(tmp_path: Path) -> None:
    """The next segment is begun only when all that waits for the former one is on its way."""
    driven = DrivenJournal(tmp_path, segment_bytes=1)
    driven.open()
    driven.await_report("ready")
    recorder = driven.journal._recorder
    assert recorder is not None
    os.kill(recorder.process.pid, signal.SIGSTOP)
    while not driven.journal.waiting_bytes:
        driven.run()
    assert driven.journal.prepare_replacement(UTC_NS)
    driven.await_report("ready")
    assert not driven.begin_segment()
    assert driven.journal.is_ready
    os.kill(recorder.process.pid, signal.SIGCONT)
    while not driven.begin_segment():
        driven.run(INPUTS[3:4])
    driven.run()
    assert driven.journal.close(10.0)
    first, second = open_logs([tmp_path]).segments
    with first.read() as reader:
        turns = sum(1 for _ in reader.turns())
    assert reader.ending is not None
    assert reader.ending.kind is EndKind.CONTINUES
    assert second.header.first_turn == turns + 1
    with second.read() as reader:
        assert sum(1 for _ in reader.turns()) == len(INPUTS)
    assert reader.gap is None


def test_a_segment_goes_on_while_the_next_one_cannot_be_begun(tmp_path: Path) -> None:
    with mounted_disk(tmp_path / "disk") as disk:
        driven = DrivenJournal(disk / "log", segment_bytes=1)
        driven.open()
        driven.await_report("ready")
        fill(disk, 600_000)
        assert driven.journal.prepare_replacement(UTC_NS)
        assert "the disk is full: " in driven.await_report("unavailable").reason
        assert driven.journal.failure is None
        assert not driven.journal.is_prepared
        driven.run()
        assert driven.journal.close(10.0)
        (segment,) = open_logs([disk / "log"]).segments
        with segment.read() as reader:
            assert replay(reader).turns == len(INPUTS)


def test_a_directory_that_vanishes_is_noticed_and_made_again(tmp_path: Path) -> None:
    """Else all would be written into a file that has no name any more, and close would find nothing wrong."""
    driven = DrivenJournal(tmp_path / "log")
    driven.open()
    driven.await_report("ready")
    shutil.rmtree(tmp_path / "log")
    driven.run()
    assert driven.await_report("unavailable").reason == f"{tmp_path}/log: No such file or directory"
    assert driven.journal.failure is not None
    driven.run()
    assert driven.journal.prepare_replacement(UTC_NS)
    driven.await_report("ready")
    assert driven.begin_segment()
    driven.run()
    assert driven.journal.close(10.0)
    (segment,) = open_logs([tmp_path / "log"]).segments
    with segment.read() as reader:
        assert replay(reader).divergence is None
    assert reader.gap is not None
    assert (reader.gap.first_turn, reader.gap.last_turn) == (1, 2 * len(INPUTS)), "what was deleted is missing"


def test_a_directory_that_another_driver_has_made_anew_is_left_alone(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path / "log")
    lock.take()
    driven = DrivenJournal(tmp_path / "log", lock=lock)
    driven.open()
    driven.await_report("ready")
    shutil.rmtree(tmp_path / "log")
    other = DirectoryLock(tmp_path / "log")
    other.take()
    driven.run()
    driven.await_report("unavailable")
    assert not driven.journal.prepare_replacement(UTC_NS)
    assert driven.journal.failure is not None
    assert f"log is in use by another driver (process {os.getpid()})" in driven.journal.failure
    assert not list((tmp_path / "log").glob("*.mcap"))
    other.release()
    assert driven.journal.prepare_replacement(UTC_NS)
    driven.await_report("ready")
    assert driven.begin_segment()
    with pytest.raises(DirectoryInUseError):
        other.take()
    assert driven.journal.close(10.0)
    lock.release()


# --- one driver to a directory -----------------------------------------------------------------------------


def test_a_directory_is_one_drivers(tmp_path: Path) -> None:
    first, second = DirectoryLock(tmp_path / "log"), DirectoryLock(tmp_path / "log")
    first.take()
    with pytest.raises(
        DirectoryInUseError, match=rf"log is in use by another driver \(process {os.getpid()}\)"
    ):
        second.take()
    first.release()
    second.take()
    second.release()


def test_a_killed_driver_leaves_no_lock(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom fusioncharger.replay.directory_lock import DirectoryLock\n"
        "DirectoryLock(Path(sys.argv[1])).take()\nprint('taken', flush=True)\nsys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == b"taken\n"
        with pytest.raises(DirectoryInUseError, match=f"process {driver.pid}"):
            DirectoryLock(tmp_path).take()
        driver.kill()
    lock = DirectoryLock(tmp_path)
    lock.take()
    lock.release()


def test_a_lock_is_renewed_where_the_directory_was_made_anew(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path / "log")
    lock.take()
    lock.renew()
    shutil.rmtree(tmp_path / "log")
    lock.renew()
    with pytest.raises(DirectoryInUseError):
        DirectoryLock(tmp_path / "log").take()
    lock.release()


def test_a_directory_that_cannot_be_written_is_no_error_yet(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    lock = DirectoryLock(tmp_path / "file" / "log")
    lock.take()
    lock.release()
