"""`replay --step`: commands from a pipe, and what they print."""

import io
from pathlib import Path

import pytest
from fakes.commands import replay_arguments
from fakes.recorded_session import INPUTS, UTC_NS, record_session
from fusioncharger.app.replay_command import replay_command
from fusioncharger.app.replay_step import KEPT, Stepping
from fusioncharger.messages.inputs import HeartbeatReceived
from fusioncharger.replay.conditions import ConditionError, parse_condition
from fusioncharger.replay.session import Session

EVENT_B, SETPOINT, PLUGGED_OUT = 8, 10, 12
"""Turns of recorded_session.INPUTS."""


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory):
    return record_session(tmp_path_factory.mktemp("step"))


@pytest.fixture
def said(log, monkeypatch, capsys):
    def run(*commands: str, since: str | None = None) -> list[str]:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{command}\n" for command in commands)))
        options = ["--from", since] if since else []
        assert replay_command(replay_arguments(log, "--step", *options)) == 0
        return capsys.readouterr().out.splitlines()

    return run


def turns(lines: list[str]) -> list[int | str]:
    return [int(line.split()[0]) if line.split()[0].isdigit() else line for line in lines]


def test_next_back_and_goto(said) -> None:
    assert turns(said("n", "", "n 2", "b", "b 2", "g 9", "b", "q", "n")) == [1, 2, 3, 4, 5, 4, 3, 2, 9, 8]


def test_the_ends_of_the_log_are_said_and_one_stays_there(said) -> None:
    last = len(INPUTS)
    assert turns(said("b", "n")) == [1, "the log begins here", 2]
    assert turns(said(f"g {last}", "n", "b")) == [1, last, "the log ends here", last - 1]


def test_from_is_where_it_begins_and_one_can_go_back_from_there(said) -> None:
    assert turns(said("b 2", since="6")) == [6, 5, 4]


@pytest.mark.parametrize(
    ("condition", "turn"),
    [
        ("input is SetpointRequested", SETPOINT),
        ("input.connector == 1 and input is BspEventReceived", EVENT_B),
        ("connector/1.phase == NoKeyYet", EVENT_B),
        ("connector/1.phase != CarDisconnected", EVENT_B),
        ('connector/1.bsp_event == "A"', PLUGGED_OUT),
        ("connector/1.setpoint.voltage_v >= 400", SETPOINT),
        ("connector/1.setpoint.voltage_v > 400", None),
        ("connector/1.phase > 3", None),
        ("output is TurnFailed", None),
        ("differs", None),
    ],
)
def test_next_where_a_condition_holds(said, condition: str, turn: int | None) -> None:
    assert turns(said(f"w {condition}")) == [1, turn or "not until the log's end"]


def test_a_condition_on_states_stops_where_it_becomes_true(said) -> None:
    lines = said("w connector/1.phase == NoKeyYet", "w connector/1.phase == NoKeyYet")
    assert turns(lines) == [1, EVENT_B, "not until the log's end"]


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        ("__import__('os')", "is not understood"),
        ("input is Setpoint", "did you mean"),
        ("output is SetpointRequested", "there is no output"),
        ("connector/1.phasee == x", "did you mean phase?"),
        ("connector/9.phase == x", "there is no actor 'connector/9'"),
        ("input is Started and connector/1.nothing == 1", "there is no 'nothing'"),
        ("", "is not understood"),
    ],
)
def test_a_wrong_condition_is_explained_and_moves_nothing(said, condition: str, text: str) -> None:
    first, explained, following = said(f"w {condition}", "n")
    assert text in explained
    assert turns([first, following]) == [1, 2]


def test_states_and_the_diff_of_a_turn(said) -> None:
    lines = said(f"g {EVENT_B}", "p connector/1", "p nobody", "d")
    assert any("NoKeyYet" in line for line in lines)
    assert any(line.startswith("there is no actor 'nobody'; there are: connector/1, ") for line in lines)
    assert not any(line == "connector/2" for line in lines)
    assert any(line.startswith("!   phase") and "CarDisconnected" in line for line in lines)
    assert not any("diverged" in line for line in lines)


def test_what_is_no_command_or_moment(said) -> None:
    assert said("x", "n many", "g nowhere", "g 999")[1:] == [
        "'x' is no command; h shows those that there are",
        "'many' is no number of turns",
        *said("g nowhere")[1:],
        *said("g 999")[1:],
    ]
    assert "no place in a log" in said("g nowhere")[1]
    assert "no such turn" in said("g 999")[1]


def test_going_back_further_than_is_kept_replays_from_the_snapshot(tmp_path) -> None:
    beats = [HeartbeatReceived(connector=1, heartbeat_id=number) for number in range(KEPT + 50)]
    path = record_session(tmp_path, (*INPUTS, *beats))
    with Session.open(path) as session:
        stepping = Stepping(session, None)
        forwards = []
        while (step := stepping.forward()) is not None:
            forwards.append((step.turn.number, step.after))
        for number, after in reversed(forwards[:-1]):
            back = stepping.back()
            assert back is not None
            assert (back.turn.number, back.after) == (number, after)
            if number == forwards[-1][0] - KEPT - 20:
                break


def test_a_condition_says_what_it_takes() -> None:
    with pytest.raises(ConditionError, match=r"write: connector/1\.phase == Running"):
        parse_condition("anything")


def test_runs_of_the_driver_are_told_apart(tmp_path, monkeypatch) -> None:
    """Turns of the same number in two runs: back and goto stay in the right one."""
    monkeypatch.setattr("fakes.recorded_session.RUN_ID", "aaaa" * 8)
    one = record_session(tmp_path / "1")
    monkeypatch.setattr("fakes.recorded_session.RUN_ID", "bbbb" * 8)
    monkeypatch.setattr("fakes.recorded_session.UTC_NS", UTC_NS + 10**12)
    other = record_session(tmp_path / "2")
    with Session.open(one, other) as session:
        stepping = Stepping(session, None)
        seen = [(step.turn.number, step.turn.utc_ns) for step in iter(stepping.forward, None)]
        assert [number for number, _ in seen] == [*range(1, len(INPUTS) + 1)] * 2
        stepping.go_to("aaaa:5")
        back = [stepping.back(), stepping.back()]
        assert [(step.turn.number, step.turn.utc_ns) for step in back if step] == [seen[3], seen[2]]
        stepping.go_to("bbbb:1")
        assert stepping.back() is None
        stepping.go_to("aaaa:14")
        following = stepping.forward()
        assert following is not None
        assert (following.turn.number, following.turn.utc_ns) == seen[len(INPUTS)]
        back_again = stepping.back()
        assert back_again is not None
        assert back_again.turn.number == len(INPUTS)


def test_back_stays_in_its_run_where_runs_are_numbered_alike(log, monkeypatch) -> None:
    """The second run in the log begins in mid-run, behind the first one's last turn."""
    monkeypatch.setattr("fusioncharger.app.replay_step.KEPT", 3)
    in_mid_run = Path(__file__).parents[1] / "sessions" / "after-a-gap-in-mid-charge.mcap"
    with Session.open(in_mid_run, log) as session:
        first, second = (segment.header.run_id for segment in session.log.segments)
        begin = session.log.segments[1].header.first_turn
        assert session.log.segments[0].header.first_turn < begin
        stepping = Stepping(session, None)
        while (step := stepping.forward()) is not None and step.turn.number < begin + 5:
            pass
        found = [stepping.back() for _ in range(5)]
        assert [(each.run_id, each.turn.number) for each in found if each] == [
            (second, begin + 4 - n) for n in range(5)
        ]
        assert found[-1] is not None
        assert first != second


def test_a_time_after_the_end_is_said_to_be(said) -> None:
    end, turn = said("g 2999-01-01")[1:]
    assert end.startswith(f"the log ends with turn {len(INPUTS)}, at ")
    assert turns([turn]) == [len(INPUTS)]
