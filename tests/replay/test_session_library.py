"""The library: every turn with the states around it, and any moment of a log."""

import runpy
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from fakes.recorded_session import INPUTS, TURN_NS, UTC_NS, DrivenJournal
from fusioncharger.replay import Session
from fusioncharger.replay.logs import open_logs
from fusioncharger.replay.moments import MomentError, utc_text
from fusioncharger.replay.reader import NotALogError

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
            assert driven.journal.prepare_replacement(UTC_NS + driven.turn * TURN_NS)
            driven.await_report("ready")
            assert driven.begin_segment()
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
        assert session["+0.05"].turn.number == 5
        assert session["2999-01-01"].turn.number == TURNS


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
