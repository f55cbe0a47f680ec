"""`fusioncharger log info|cat|verify|recover`, as a person uses them."""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fakes.recorded_session import INPUTS, TURN_NS, UTC_NS, DrivenJournal, record_segments, record_session
from fusioncharger.app.cli import main
from fusioncharger.replay.directory_lock import LOCK_NAME as DRIVER_LOCK
from fusioncharger.replay.moments import NS_PER_S, utc_text

GOLDEN = Path(__file__).parents[1] / "sessions" / "format-1-demo.mcap"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A run of two segments."""
    record_segments(tmp_path / "log", INPUTS[:8], INPUTS[8:])
    return tmp_path / "log"


def lines(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, object]]:
    assert main(["log", "cat", *words]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_info_tells_of_sessions_alarms_and_segments(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["log", "info", str(GOLDEN)]) == 0
    text = capsys.readouterr().out
    assert "turns     237" in text
    assert "0.028 kWh  power meter  completed by EVerest" in text
    assert "MREC8EmergencyStop" in text
    assert "gaps: none" in text
    assert "closed by the driver" in text
    assert "files     1 segment of 1 run, 0.2 MiB" in text
    assert main(["log", "info", "--json", str(GOLDEN)]) == 0
    assert json.loads(capsys.readouterr().out)["summary"]["turns"] == 237


def test_info_says_where_a_log_is_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(GOLDEN.read_bytes()[:150_000])
    assert main(["log", "info", str(cut)]) == 0
    assert "cut: the file ends inside a record" in capsys.readouterr().out


def test_info_says_what_is_missing_between_segments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, second, _ = record_segments(tmp_path, INPUTS[:4], INPUTS[4:6], INPUTS[6:])
    assert main(["log", "info", str(tmp_path)]) == 0
    assert "not in the log" not in capsys.readouterr().out
    second.unlink()
    assert main(["log", "info", str(tmp_path)]) == 0
    assert "not in the log: turns 5 to 6 of run 01234567 are missing\n" in capsys.readouterr().out


def test_info_says_where_the_clock_was_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second run begins with a clock that is two minutes behind, which is set during the third."""
    jumps_ns = ((0, 0), (-120, -120), (-60, 30 * 3600))
    for number, (before_s, after_s) in enumerate(jumps_ns):
        driven = DrivenJournal(tmp_path, run_id=f"{number}" * 32)
        driven.turn = number * 1000
        driven.open(before_s * NS_PER_S)
        driven.await_report("ready")
        driven.run(INPUTS[:6], before_s * NS_PER_S)
        driven.run(INPUTS[6:], after_s * NS_PER_S)
        assert driven.journal.close(10.0)
    assert main(["log", "info", str(tmp_path)]) == 0
    clock = [line for line in capsys.readouterr().out.splitlines() if line.startswith("clock")]
    assert clock == [
        "clock     set forward by 30 h 01 min during run 22222222",
        "clock     run 00000000 begins before run 22222222 has ended: it may be the earlier one",
    ]


def test_info_says_nothing_of_a_clock_that_is_right(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["log", "info", str(directory)]) == 0
    assert "clock" not in capsys.readouterr().out


def test_cat_prints_every_message_of_all_segments(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = lines(capsys, str(directory))
    inputs = [line for line in found if str(line["topic"]).startswith("in/")]
    assert [line["turn"] for line in inputs] == list(range(1, len(INPUTS) + 1))
    assert [line["type"] for line in inputs] == [type(message).__name__ for message in INPUTS]
    assert inputs[0]["goose_mac"] == "02000a0b0c0d"
    assert lines(capsys, "--follow", str(directory)) == found  # the driver said goodbye


@contextmanager
def following(path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "fusioncharger", "log", "cat", "--follow", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_follow_ends_when_driver_and_recorder_were_killed(tmp_path: Path) -> None:
    log = record_session(tmp_path)
    log.write_bytes(log.read_bytes()[:-3000])
    with log.open("rb") as recorder:
        fcntl.flock(recorder, fcntl.LOCK_EX)
        with following(log) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            while json.loads(process.stdout.readline())["turn"] < len(INPUTS) - 1:
                pass
            assert process.poll() is None
            fcntl.flock(recorder, fcntl.LOCK_UN)
            assert process.wait(20) == 3
            said = process.stderr.read()
    assert said.startswith(f"{log}: damaged after turn ")
    assert "; nobody writes it any more: driver and recorder have ended" in said


def test_follow_ends_when_no_driver_is_there_to_begin_the_next_segment(directory: Path) -> None:
    first, second = sorted(directory.glob("*.mcap"))
    second.unlink()
    with (directory / DRIVER_LOCK).open("w") as driver:
        fcntl.flock(driver, fcntl.LOCK_EX)
        with following(directory) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            while json.loads(process.stdout.readline())["type"] != "SegmentEnd":
                pass
            assert process.poll() is None
            fcntl.flock(driver, fcntl.LOCK_UN)
            assert process.wait(20) == 0
            assert process.stderr.read() == f"{first}: no driver is there any more to go on with it\n"


def test_cat_filters(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = str(directory)
    assert {line["turn"] for line in lines(capsys, log, "--turn", "7..10")} == {7, 8, 9, 10}
    assert {line["turn"] for line in lines(capsys, log, "--turn", "9")} == {9}
    assert {line["turn"] for line in lines(capsys, log, "--since", "13")} >= {13, 14}
    assert [line["turn"] for line in lines(capsys, log, "--turn", "..2", "--type", "in/*")] == [1, 2]
    found = lines(capsys, log, "--type", "Setpoint*", "--type", "in/bsp/*")
    assert {line["type"] for line in found} == {"SetpointRequested", "BspEventReceived"}
    one = lines(capsys, log, "--connector", "2", "--type", "HeartbeatReceived")
    assert [line["connector"] for line in one] == [2, 2]


@pytest.mark.parametrize("words", [("--turn", "99.."), ("--since", "2999-01-01"), ("--since", "+60")])
def test_cat_says_what_there_is_where_nothing_is(
    directory: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, str]
) -> None:
    begin, end = utc_text(UTC_NS), utc_text(UTC_NS + len(INPUTS) * TURN_NS)
    said = f"nothing there; the log begins at {begin} with turn 1 and ends at {end} with turn {len(INPUTS)}\n"
    assert main(["log", "cat", str(directory), *words]) == 2
    assert capsys.readouterr() == ("", said)
    cut = max(directory.glob("*.mcap"))
    cut.write_bytes(cut.read_bytes()[:-3000])
    assert main(["log", "cat", str(directory), *words]) == 3
    assert f"nothing there; the log begins at {begin} with turn 1 and ends at " in capsys.readouterr().err


def test_cat_of_a_part_without_a_message_of_that_type_is_empty(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lines(capsys, str(directory), "--turn", "1..3", "--type", "SetpointRequested") == []
    assert main(["log", "cat", str(directory), "--turn", "9..8"]) == 2
    assert capsys.readouterr().err == "the part ends before it begins: from 9 until 8\n"


def test_an_unknown_type_gets_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["log", "cat", str(GOLDEN), "--type", "SetpointReqested"]) == 2
    assert "did you mean SetpointRequested?" in capsys.readouterr().err


def test_verify_finds_a_missing_segment(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["log", "verify", str(directory)]) == 0
    assert f"whole: {len(INPUTS)} turns" in capsys.readouterr().out
    driven = sorted(directory.glob("*.mcap"))
    cut = driven[0].read_bytes()[:-3000]
    driven[0].write_bytes(cut)
    assert main(["log", "verify", str(directory)]) == 3
    text = capsys.readouterr().out
    assert "damaged after turn" in text


def test_recover_says_what_was_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut, out = tmp_path / "cut.mcap", tmp_path / "out.mcap"
    cut.write_bytes(GOLDEN.read_bytes()[:150_000])
    assert main(["log", "recover", str(cut), "-o", str(out)]) == 3
    text = capsys.readouterr().out
    assert "turns 1 to 179" in text
    assert "lost: 131 bytes; what came after turn 179, if anything did" in text
    assert main(["log", "verify", str(out)]) == 0
    assert main(["log", "recover", str(cut), "-o", str(out)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["log", "recover", str(cut), "-o", str(tmp_path / "nowhere" / "out.mcap")]) == 2
    assert capsys.readouterr().err.endswith("nowhere/out.mcap: cannot be written: No such file or directory\n")
    assert main(["log", "recover", str(GOLDEN), "-o", str(tmp_path / "whole.mcap")]) == 0


@pytest.mark.parametrize("subcommand", ["info", "cat", "verify"])
def test_what_is_no_log_is_an_error_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], subcommand: str
) -> None:
    foreign = tmp_path / "foreign.mcap"
    foreign.write_text("something else")
    fifo = tmp_path / "fifo.mcap"
    os.mkfifo(fifo)
    for path, text in (
        (tmp_path / "missing.mcap", "No such file"),
        (tmp_path, "not a log"),
        (foreign, "not a log"),
        (fifo, "not a log: a device, FIFO or socket, and not a file"),
        (Path("/dev/null"), "not a log: a device"),
    ):
        assert main(["log", subcommand, str(path)]) == 2
        error = capsys.readouterr().err
        assert text in error
        assert str(path) in error
