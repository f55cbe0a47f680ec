"""`replay` on several segments, and what it shows of a moment and of some turns."""

import fcntl
import json
import zlib
from pathlib import Path

import pytest
from fakes.commands import replay_arguments
from fakes.other_version import publish_modes_with_a_field_more
from fakes.recorded_session import INPUTS, UTC_NS, DrivenJournal, record_session
from fusioncharger.app.replay_command import DAMAGED, DIVERGED, IDENTICAL, USAGE, replay_command
from fusioncharger.replay.housekeeping import LOCK_NAME
from fusioncharger.replay.logs import open_logs
from fusioncharger.replay.moments import utc_text

BEGIN = utc_text(UTC_NS)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A run of three segments, which nobody compresses."""
    directory = tmp_path / "log"
    (tmp_path / "live").mkdir()
    lock = (tmp_path / "live" / LOCK_NAME).open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    driven = DrivenJournal(tmp_path / "live", segment_bytes=1)
    driven.open()
    driven.await_report("ready")
    for number in range(3):
        driven.run()
        if number < 2:
            driven.replace_recorder()
    assert driven.journal.close(10.0)
    directory.mkdir()
    for segment in open_logs([tmp_path / "live"]).segments:
        (directory / segment.path.name).write_bytes(segment.path.read_bytes())
    lock.close()
    return directory


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    code = replay_command(replay_arguments(*words))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_directory_is_one_log(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, directory)
    assert (code, err) == (IDENTICAL, "")
    (verdict,) = out.splitlines()
    assert verdict.startswith(f"identical: {3 * len(INPUTS)} turns, ")
    files = sorted(directory.iterdir())
    assert run(capsys, *reversed(files)) == (code, out, err)
    code, out, _ = run(capsys, files[1])
    assert (code, out.split(", ")[0]) == (IDENTICAL, f"identical: {len(INPUTS)} turns")


def with_other_snapshot(second: Path) -> None:
    """Of a segment: a car is there."""
    data = second.read_bytes()
    begin = data.index(b'{"type":"SegmentHeader"')
    end = data.index(b',"crc32":"', begin)
    other_phase = b'"phase":"NoKeyYet"       '
    changed = data[begin:end].replace(b'"phase":"CarDisconnected"', other_phase, 1)
    assert changed != data[begin:end]
    sealed = changed + b',"crc32":"%08x"}' % zlib.crc32(changed)
    second.write_bytes(data[:begin] + sealed + data[end + 20 :])


def test_a_snapshot_that_is_not_what_the_turns_lead_to_is_a_divergence(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, second, _ = sorted(directory.iterdir())
    with_other_snapshot(second)
    code, out, _ = run(capsys, directory)
    assert code == DIVERGED
    assert out == (
        f"diverged before turn {len(INPUTS) + 1}: the snapshot in {second.name} is not what the turns before "
        "it lead to: connector/1\n"
    )


def test_damage_in_one_of_several_is_said_and_the_rest_is_replayed(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = min(directory.iterdir())
    first.write_bytes(first.read_bytes()[:-3000])
    code, out, _ = run(capsys, directory)
    assert code == DAMAGED
    assert out.splitlines()[-1].startswith("damaged after turn ")
    assert f"{first.name}: the file ends inside a record" in out


def test_the_whole_state_at_a_moment(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, directory, "--at", str(len(INPUTS) + 10))
    assert code == IDENTICAL
    lines = out.splitlines()
    assert lines[0] == f"after turn {len(INPUTS) + 10}, at 2026-11-18T11:06:40.240000Z"
    assert [line for line in lines if line and not line.startswith(" ")][1:] == [
        "connector/1",
        "connector/2",
        "dispenser_alarms",
        "psu_link",
        "telemetry_publisher",
    ]
    assert any(line.split() == ["phase", '"NoKeyYet"'] for line in lines)
    assert any(line.split() == ["voltage_v", "400.0"] for line in lines)
    code, out, _ = run(capsys, directory, "--at", "+0.24", "--json")
    found = json.loads(out)
    assert (code, found["turn"], found["at_s"]) == (IDENTICAL, len(INPUTS) + 10, 0.24)
    assert found["states"]["connector/1"]["setpoint"] == {"voltage_v": 400.0, "current_a": 20.0}


def test_some_turns_a_line_each(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    number = len(INPUTS)
    code, out, _ = run(capsys, directory, "--from", str(number), "--until", str(number + 2), "--speed", "1000")
    assert code == IDENTICAL
    assert [line.split()[0] for line in out.splitlines()] == [str(number + n) for n in range(3)]
    assert " Started utc_offset_ns=" in out
    assert run(capsys, directory, "--from", "2999-01-01")[0] == USAGE


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--at", "x"), "'x' is no place in a log; write a turn"),
        (
            ("--at", "9999"),
            f"9999: the log has no such turn; the log begins at {BEGIN} with turn 1 and ends at ",
        ),
        (("--at", "1999-01-01"), "1999-01-01 is before the log's begin"),
        (("--speed", "0"), "--speed: more than 0 is needed"),
        (("--from", "9999"), f"no turn there; the log begins at {BEGIN} with turn 1 and ends at "),
        (("--from", "10", "--until", "5"), "the part ends before it begins: from 10 until 5"),
        (("--json",), "--json goes with --at MOMENT"),
        (("--json", "--from", "2"), "--json goes with --at MOMENT"),
        (("--at", "3", "--from", "2"), "--from does not go with --at"),
        (("--step", "--until", "2"), "--until does not go with --step"),
        (
            ("--until", "5", "--set", "module_placeholder_allocation_timeout_s=2"),
            "--set does not go with --until",
        ),
        (("--set", "module_placeholder_allocation_timeout_s=2", "--first"), "--first does not go with --set"),
    ],
)
def test_what_cannot_be_shown_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    code, out, err = run(capsys, record_session(tmp_path), *words)
    assert (code, out) == (USAGE, "")
    (line,) = err.splitlines()
    assert line.startswith(said)


def test_what_goes_together_is_not_refused(capsys: pytest.CaptureFixture[str]) -> None:
    log = Path(__file__).parents[1] / "sessions" / "format-1-demo.mcap"
    for words in (
        ("--until", "5", "--speed", "1000"),
        ("--from", "2", "--until", "5", "--speed", "1000"),
        ("--first", "--accept-new-fields"),
        ("--set", "module_placeholder_allocation_timeout_s=5", "--accept-new-fields"),
    ):
        code, _, err = run(capsys, log, *words)
        assert (code, err) == (IDENTICAL, "")


def test_files_that_are_no_logs_are_named_and_left_out(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (directory / "foreign.mcap").write_text("something")
    code, out, err = run(capsys, directory)
    assert code == IDENTICAL
    assert out.startswith("identical: ")
    assert err == f"{directory}/foreign.mcap: left out: not a log: not an MCAP file\n"


def test_a_segment_that_is_missing_is_said(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, _, third = sorted(directory.iterdir())
    number = len(INPUTS)
    code, out, _ = run(capsys, first, third)
    assert code == IDENTICAL
    gap, verdict = out.splitlines()
    assert gap.startswith(f"gap: turns {number + 1} to {2 * number} of run ")
    assert verdict.startswith(f"identical: {2 * number} turns, ")


def with_other_text(data: bytes) -> bytes:
    """An output's 60000.0 written as 6.000e4: the same as JSON, and not what the driver wrote."""
    at = data.index(b"60000.0", data.index(b'{"type":"CapabilitiesPublished"'))
    return data[:at] + b"6.000e4" + data[at + 7 :]


def test_an_output_that_was_rewritten_to_mean_the_same_is_not_identical(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = record_session(tmp_path)
    log.write_bytes(with_other_text(log.read_bytes()))
    code, out, _ = run(capsys, log)
    assert code == DIVERGED
    assert "CapabilitiesPublished of connector 1: other (the text)" in out
    assert "damaged after turn 14: the checksum of output " in out


def test_damage_is_said_also_of_a_log_that_differs(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, _ = sorted(directory.iterdir())
    second.unlink()
    first.write_bytes(first.read_bytes()[:-3000])
    publish_modes_with_a_field_more(monkeypatch)
    code, out, _ = run(capsys, directory)
    assert code == DIVERGED
    assert "\ngap: turns " in out
    assert "compared up to there" in out
    code, out, _ = run(capsys, directory, "--accept-new-fields")
    assert code == DAMAGED
    assert out.splitlines()[-1].startswith("damaged after turn ")
    assert "\ngap: turns " in out


def test_a_time_that_the_log_does_not_tell_of_is_said_to_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, record_session(tmp_path), "--at", "2999-01-01")
    assert (code, out.splitlines()[0].split(",")[0]) == (IDENTICAL, f"after turn {len(INPUTS)}")
    assert err.startswith(f"the log ends with turn {len(INPUTS)}, at ")


def test_turns_beside_a_snapshot_that_is_not_what_they_lead_to(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, second, _ = sorted(directory.iterdir())
    with_other_snapshot(second)
    code, out, _ = run(capsys, directory, "--from", "1")
    assert code == DIVERGED
    assert out.splitlines()[-1].startswith(f"diverged before turn {len(INPUTS) + 1}: the snapshot in ")
