"""The library: every turn with the states around it, and any moment of a log."""

import runpy
import sys
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import pytest
from fakes.recorded_session import INPUTS, RUN_ID, TURN_NS, UTC_NS, DrivenJournal
from fusioncharger.replay import Session
from fusioncharger.replay.log_format import PIPE_HEAD, SegmentHeader, seal
from fusioncharger.replay.logs import Segment, open_logs
from fusioncharger.replay.moments import MomentError, utc_text
from fusioncharger.replay.reader import NotALogError
from fusioncharger.replay.recorder import SegmentWriter
from fusioncharger.replay.records import RecordReader
from msgspec.structs import replace

GOLDEN = Path(__file__).parents[1] / "sessions" / "format-1-demo.mcap"
EXAMPLE = Path(__file__).parents[2] / "docs" / "session_example.py"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two segments, which follow one another; 20 sessions."""
    directory = tmp_path_factory.mktemp("log")
    driven = DrivenJournal(directory, segment_bytes=1)
    driven.open()
    driven.await_report("ready")
    for number in range(20):
        driven.run()
        if number == 9:
            driven.replace_recorder()
    assert driven.journal.close(10.0)
    assert len(open_logs([directory]).segments) == 2
    return directory


TURNS = 20 * len(INPUTS)
SECOND = 10 * len(INPUTS) + 1
"""First turn of the second segment."""


def test_every_turn_comes_once_and_begins_where_the_one_before_it_ended(directory: Path) -> None:
    with Session.open(directory) as session:
        steps = list(session)
    assert [step.turn.number for step in steps] == list(range(1, TURNS + 1))
    assert all(former.after == step.before for former, step in pairwise(steps))
    assert not any(step.differs for step in steps)
    assert steps[0].outputs


def test_any_turn_in_any_order(directory: Path) -> None:
    with Session.open(directory) as session:
        wanted = {step.turn.number: step for step in session}
        for number in (SECOND, 3, 5, 5, 4, SECOND - 1, TURNS, SECOND + 7, 1):
            step = session[number]
            assert (step.turn, step.outputs, step.after) == (
                wanted[number].turn,
                wanted[number].outputs,
                wanted[number].after,
            )
            assert step.before == wanted[number].before


def test_the_state_at_a_time_is_that_after_the_last_turn_before_it(directory: Path) -> None:
    with Session.open(directory) as session:
        for turn in (7, SECOND - 1, SECOND, TURNS):
            between = utc_text(UTC_NS + turn * TURN_NS + TURN_NS // 2)
            assert session.at(between).turn.number == turn
            assert bool(session.remark) == (turn == TURNS)
        assert session["+0.05"].turn.number == 5
        assert session["2999-01-01"].turn.number == TURNS
        end = utc_text(UTC_NS + TURNS * TURN_NS)
        assert session.remark == f"the log ends with turn {TURNS}, at {end}: how it was later is not known"
        assert session[TURNS].turn.number == TURNS
        assert session.remark == ""


@pytest.mark.parametrize(
    ("since", "until", "first", "last"),
    [
        (None, None, 1, TURNS),
        (5, 9, 5, 9),
        (SECOND - 2, SECOND + 2, SECOND - 2, SECOND + 2),
        (SECOND, None, SECOND, TURNS),
        (None, 4, 1, 4),
        ("+0.05", "+0.09", 5, 9),
    ],
)
def test_turns_from_a_moment_to_another(
    directory: Path, since: str | int | None, until: str | int | None, first: int, last: int
) -> None:
    session = Session.open(directory)
    numbers = [step.turn.number for step in session.steps(since, until)]
    assert numbers == list(range(first, last + 1))


@pytest.mark.parametrize("moment", [0, TURNS + 1, "1999-01-01", "nonsense", "+0"])
def test_moments_that_the_log_does_not_have(directory: Path, moment: str | int) -> None:
    with Session.open(directory) as session, pytest.raises(MomentError):
        session[moment]


def test_what_is_no_log_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotALogError, match="there is no file whose name ends in"):
        Session.open(tmp_path)


def test_the_worked_example_prints_what_its_documentation_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["session_example.py", str(GOLDEN)])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    printed = capsys.readouterr().out
    documented = EXAMPLE.read_text().split("prints, for the recording of a demo:\n\n")[1].split('"""')[0]
    assert [line.strip() for line in printed.splitlines()] == [
        line.strip() for line in documented.strip().splitlines()
    ]


def test_a_snapshot_that_is_not_what_the_turns_before_it_led_to_is_said(
    directory: Path, tmp_path: Path
) -> None:
    for path in directory.glob("*.mcap"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with Session.open(directory) as session:
        list(session)
        assert session.mismatch == ""
    second = open_logs([tmp_path]).segments[1]
    state = second.header.snapshot["connector/1"]
    state["heartbeat_seen"] = not state["heartbeat_seen"]
    rewrite(second, second.header)
    with Session.open(tmp_path) as session:
        list(session.steps(SECOND))
        assert session.mismatch == "", "the turns before it have not been looked at"
        assert len(list(session)) == TURNS
        assert session.mismatch == (
            f"diverged before turn {SECOND}: the snapshot in {second.path.name} is not what the turns before "
            "it lead to: connector/1"
        )


def test_of_a_time_between_two_runs_or_in_a_gap_it_is_said_that_nothing_is_known(
    directory: Path, tmp_path: Path
) -> None:
    first, second = open_logs([directory]).segments
    other_run = tmp_path / "other.mcap"
    late_ns = UTC_NS + 3600 * 10**9
    rewrite(
        open_logs([copied(second.path, other_run)]).segments[0],
        replace(second.header, run_id="f" * 32, utc_ns=late_ns),
    )
    in_between = utc_text(UTC_NS + 1800 * 10**9)
    with Session.open(first.path, other_run) as session:
        assert session[in_between].turn.number == SECOND - 1
        assert session.remark.startswith(f"the run ends with turn {SECOND - 1}, at ")
        assert utc_text(late_ns) in session.remark
    third = tmp_path / "third.mcap"
    rewrite(
        open_logs([copied(second.path, third)]).segments[0],
        replace(second.header, segment=3, utc_ns=late_ns),
    )
    with Session.open(first.path, third) as session:
        assert session[in_between].turn.number == SECOND - 1
        assert session.remark.startswith(f"segment 2 of run {RUN_ID[:8]} is missing: how it was after turn ")


def test_a_clock_that_was_set(tmp_path: Path) -> None:
    """Forwards by a day, as on a board without a battery once it hears of the time; then back."""
    day_ns = 86_400 * 10**9
    driven = DrivenJournal(tmp_path)
    driven.open()
    for offset_ns in (0, day_ns, -day_ns):
        for message in INPUTS[5:7]:
            driven.run([message], offset_ns)
    assert driven.journal.close(10.0)
    with Session.open(tmp_path) as session:
        assert session[utc_text(UTC_NS + day_ns // 2)].turn.number == 2
        assert "no such time: the clock was set from " in session.remark
        assert session["+0.035"].turn.number == 3
        assert session.remark == ""
        assert session["+0.055"].turn.number == 5
        assert [step.turn.number for step in session.steps("+0.025", "+0.055")] == [3, 4, 5]
        day_later = utc_text(UTC_NS + day_ns)
        assert [step.turn.number for step in session.steps(day_later)] == [3, 4, 5, 6]


def copied(path: Path, to: Path) -> Path:
    to.write_bytes(path.read_bytes())
    return to


def rewrite(segment: Segment, header: SegmentHeader) -> None:
    """The file again, with another header."""
    with segment.path.open("rb") as file:
        reader = RecordReader(file)
        reader.read_profile()
        messages = list(reader.messages())
    with segment.path.open("wb") as out:
        sink = FileSink(out)
        writer = SegmentWriter(sink)
        for number, (_, turn, utc_ns, at_ns, payload) in enumerate(messages):
            sealed = payload if number else seal(header)
            writer.feed(PIPE_HEAD.pack(len(sealed), turn, utc_ns, at_ns) + sealed)
        writer.finish()


class FileSink:
    """Where SegmentWriter writes to, without a lock."""

    def __init__(self, file: BinaryIO) -> None:
        self.write, self.tell, self.flush = file.write, file.tell, file.flush

    def end_record(self) -> None:
        pass
