"""Files and directories as one log, and places in it."""

import errno
from itertools import pairwise
from pathlib import Path

import pytest
from fakes.recorded_session import (
    INPUTS,
    RUN_ID,
    TURN_NS,
    UTC_NS,
    record_segments,
    record_session,
)
from fusioncharger.replay.logs import missing_between, open_logs
from fusioncharger.replay.moments import MomentError, parse_moment, resolve, utc_text
from fusioncharger.replay.reader import DamagedLogError, NotALogError
from fusioncharger.replay.stepping import Stepper
from msgspec.structs import replace

GOLDEN = Path(__file__).parents[1] / "sessions" / "format-1-demo.mcap"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A run of two segments: the second begins when the recorder was replaced."""
    record_segments(tmp_path / "log", INPUTS[:8], INPUTS[8:])
    return tmp_path / "log"


def test_a_directory_and_its_files_are_the_same_log_in_whatever_order(directory: Path) -> None:
    log = open_logs([directory])
    assert [segment.header.segment for segment in log.segments] == [1, 2]
    assert log.segments[1].follows(log.segments[0])
    assert not log.segments[0].follows(log.segments[1])
    files = [segment.path for segment in log.segments]
    again = open_logs([*reversed(files), directory, files[0]])
    assert [segment.path for segment in again.segments] == files


def test_runs_come_by_when_they_began(directory: Path) -> None:
    log = open_logs([GOLDEN, directory])
    assert [[segment.header.run_id[:4] for segment in run] for run in log.runs()] == [
        [RUN_ID[:4]] * 2,
        ["9330"],
    ]


def test_the_larger_copy_of_a_segment_counts(directory: Path) -> None:
    first = open_logs([directory]).segments[0]
    cut = directory / "copy.mcap"
    cut.write_bytes(first.path.read_bytes()[:-200])
    assert open_logs([directory]).segments[0].path == first.path
    assert open_logs([cut, directory]).segments[0].path == first.path


def test_what_is_no_log_is_named(directory: Path, tmp_path: Path) -> None:
    foreign = directory / "foreign.mcap"
    foreign.write_text("something else")
    log = open_logs([directory])
    assert len(log.segments) == 2
    assert log.unreadable == ((foreign, "not a log: not an MCAP file"),)
    with pytest.raises(NotALogError, match=r"foreign\.mcap: not a log"):
        open_logs([foreign])
    with pytest.raises(NotALogError, match=r"there is no file whose name ends in \.mcap"):
        open_logs([tmp_path])
    with pytest.raises(NotALogError, match=r"missing: cannot be read: No such file"):
        open_logs([tmp_path / "missing"])
    foreign.write_bytes(b"")
    with pytest.raises(DamagedLogError, match="the file is empty"):
        open_logs([foreign, tmp_path / "missing"])


@pytest.mark.parametrize(
    ("text", "segment", "turns_before"),
    [
        ("3", 0, 3),
        ("8", 0, 8),
        ("9", 1, 9),
        (f"{RUN_ID[:6]}:10", 1, 10),
        ("+0", 0, 0),
        ("+0.05", 0, 5),
        (utc_text(UTC_NS + 10 * TURN_NS), 1, 10),
        (utc_text(UTC_NS + 10 * TURN_NS).removesuffix("Z"), 1, 10),
        (utc_text(UTC_NS + 10 * TURN_NS)[11:-1], 1, 10),
        ("2999-01-01", 1, len(INPUTS)),
    ],
)
def test_places_in_a_log(directory: Path, text: str, segment: int, turns_before: int) -> None:
    """Every turn up to the place, and none beyond it, is not past it."""
    log = open_logs([directory])
    target = resolve(log, parse_moment(text))
    assert target.segment == segment
    turns = []
    for part in log.segments:
        with part.read() as reader:
            turns += reader.turns()
    assert len([turn for turn in turns if not target.is_past(turn)]) == turns_before


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "10", "1:2:3:4", "2026-13-01", "+", "+1e3", "xyzz:5"])
def test_what_is_no_place(text: str) -> None:
    if text == "10":
        assert parse_moment(text).turn == 10
        return
    with pytest.raises(MomentError, match="is no place in a log"):
        parse_moment(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1999-01-01", "before the log's begin"),
        ("ffff:1", "no run's id begins so"),
        ("0", "begins with turn 1"),
    ],
)
def test_places_that_the_log_does_not_hold(directory: Path, text: str, why: str) -> None:
    with pytest.raises(MomentError, match=why):
        resolve(open_logs([directory]), parse_moment(text))


def test_steps_show_what_a_turn_changed_and_whether_it_differs(tmp_path: Path) -> None:
    path = record_session(tmp_path)
    (segment,) = open_logs([path]).segments
    with segment.read() as log:
        stepper = Stepper(log.header)
        steps = [stepper.step(turn) for turn in log.turns()]
    assert [step.turn.number for step in steps] == list(range(1, len(INPUTS) + 1))
    assert not any(step.differs for step in steps)
    assert all(former.after == step.before for former, step in pairwise(steps))
    assert [step.before for step in steps] != [step.after for step in steps]
    with segment.read() as log:
        first, *_ = log.turns()
    assert Stepper(segment.header).step(first).outputs == tuple(output.message() for output in first.outputs)


def test_turns_that_are_missing_between_two_segments_are_named(directory: Path) -> None:
    first, second = open_logs([directory]).segments
    assert missing_between(first, 8, second) == ""
    assert missing_between(first, 5, second) == f"turns 6 to 8 of run {RUN_ID[:8]} are missing"
    assert missing_between(first, 8, replace(second, header=replace(second.header, segment=3))) == (
        f"segment 2 of run {RUN_ID[:8]} is missing"
    )
    assert missing_between(first, 9, second) == f"turn 9 of run {RUN_ID[:8]} comes twice"
    other_run = replace(second, header=replace(second.header, run_id="f" * 32))
    assert missing_between(first, 3, other_run) == ""


def test_where_the_logs_are_is_said(tmp_path: Path) -> None:
    """As after `make demo`, which records into sessions/demo-<time>."""
    (tmp_path / "sessions" / "demo").mkdir(parents=True)
    with pytest.raises(NotALogError, match=r"no log in here: there is no file whose name ends in \.mcap$"):
        open_logs([tmp_path / "sessions"])
    record_session(tmp_path / "sessions" / "demo")
    with pytest.raises(NotALogError, match=r"ends in \.mcap, but there is in \S+/sessions/demo$"):
        open_logs([tmp_path / "sessions"])


def test_a_bundle_has_to_be_unpacked(tmp_path: Path) -> None:
    (tmp_path / "case.zip").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(NotALogError, match=r"case\.zip: not a log: a zip file, which has to be unpacked first"):
        open_logs([tmp_path / "case.zip"])


def test_a_directory_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)  # root may read any
    with pytest.raises(NotALogError, match=r"cannot be read: Permission denied"):
        open_logs([tmp_path])
