"""The disk of the journal fills up during a charge, and is emptied: real driver, mock, broker and tmpfs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fusioncharger.replay.logs import open_logs
from fusioncharger.replay.reader import EndKind
from fusioncharger.replay.replayer import replay
from rig import Rig, rig
from small_disk import fill, mounted_disk
from test_rows_errors import JOURNAL_UNAVAILABLE, wait_cleared, wait_raised


@pytest.fixture
def system(tmp_path: Path) -> Iterator[Rig]:
    with mounted_disk(tmp_path / "sessions"), rig(tmp_path) as system:
        yield system


def test_a_charge_goes_on_while_the_disk_is_full(system: Rig) -> None:
    disk = system.directory / "sessions"
    system.start_driver()
    system.charge(1)  # without a heartbeat, so that EVerest is not missed while the disk is full
    mark = system.everest.messages.mark()
    hog = fill(disk, leave_bytes=20_000)
    setpoints = 0
    while JOURNAL_UNAVAILABLE not in system.everest.raised(1):
        setpoints += 1
        mock_mark = system.mock.events.mark()
        system.everest.setpoint(1, 300 + setpoints % 100, 10)
        system.wait_power(1, "CHARGING", 300 + setpoints % 100, after=mock_mark)
    reason = wait_raised(system, JOURNAL_UNAVAILABLE, after=mark)
    assert reason == f"{disk}: No space left on device"
    mock_mark = system.mock.events.mark()
    system.everest.setpoint(1, 410, 11)
    system.wait_power(1, "CHARGING", 410, after=mock_mark)

    mark = system.everest.messages.mark()
    hog.unlink()
    wait_cleared(system, JOURNAL_UNAVAILABLE, after=mark)
    mock_mark = system.mock.events.mark()
    system.everest.setpoint(1, 420, 12)
    system.wait_power(1, "CHARGING", 420, after=mock_mark)
    assert system.everest.raised(1) == []
    assert system.driver.terminate() == 0

    before, after = open_logs([disk]).segments
    with before.read() as log:
        found = replay(log)
    assert found.divergence is None
    assert log.ending is not None
    assert log.ending.kind is EndKind.GIVEN_UP
    with after.read() as log:
        again = replay(log)
    assert again.divergence is None
    assert again.turns > 0
    assert log.gap is not None
    assert log.gap.first_turn == found.turns + 1
    assert log.gap.last_turn == after.header.first_turn - 1
    assert log.gap.last_turn >= log.gap.first_turn
    assert log.gap.reason == reason
    assert log.ending is not None
    assert log.ending.kind is EndKind.GOODBYE


def test_a_second_driver_on_the_same_directory_does_not_start(tmp_path: Path) -> None:
    with rig(tmp_path) as system:
        system.start_driver()
        first = system.driver
        system.launch_driver()
        second = system.driver
        assert second.wait() == 1
        (line,) = second.log.all()
        assert (
            f"journal.dir: {tmp_path}/sessions is in use by another driver (process {first.popen.pid})" in line
        )
        assert first.terminate() == 0
