"""Where turns stand on the picture's time axis, whatever the machine's clock did."""

from fusioncharger.messages.inputs import BrokerConnected
from fusioncharger.replay.moments import utc_text
from fusioncharger.replay.reader import Turn
from fusioncharger.replay.view.time_axis import TimeAxis

S = 10**9
TODAY = 1_795_000_000 * S
WRONG = 100 * S
"""1970: a clock without a battery."""


def turn(utc_ns: int, at_s: float) -> Turn:
    return Turn(1, round(at_s * S), utc_ns, BrokerConnected(session_present=False), (), complete=True)


def placed(axis: TimeAxis, *turns: tuple[int, float]) -> list[float]:
    """Of a run: each turn's second on the axis, by its UTC and its monotonic second."""
    axis.begin_run()
    return [axis.place(turn(utc_ns, at_s))[0] / 1e6 for utc_ns, at_s in turns]


def test_runs_stand_at_their_utc_and_turns_on_the_monotonic_clock() -> None:
    axis = TimeAxis()
    assert placed(axis, (TODAY, 5.0), (TODAY + S, 6.0), (TODAY + 4 * S, 7.0)) == [0.0, 1.0, 2.0]
    assert placed(axis, (TODAY + 60 * S, 0.5), (TODAY + 61 * S, 1.5)) == [60.0, 61.0]
    assert axis.begin_utc_ns == TODAY
    assert axis.remarks == []


def test_a_clock_that_is_set_in_the_first_run_dates_all_of_it() -> None:
    axis = TimeAxis()
    assert placed(axis, (WRONG, 5.0), (WRONG + S, 6.0), (TODAY, 7.0), (TODAY + S, 8.0)) == [0.0, 1.0, 2.0, 3.0]
    assert axis.begin_utc_ns == TODAY - 2 * S
    (remark,) = axis.remarks
    assert utc_text(TODAY) in remark


def test_a_later_run_with_a_wrong_clock_follows_the_former_until_the_clock_is_set() -> None:
    axis = TimeAxis()
    placed(axis, (TODAY, 0.0), (TODAY + 10 * S, 10.0))
    assert placed(axis, (WRONG, 3.0), (WRONG + 2 * S, 5.0)) == [11.0, 13.0]
    at_us, why = axis.place(turn(TODAY + 100 * S, 6.0))
    assert at_us == 100_000_000
    assert "the clock was set" in why
    assert axis.place(turn(TODAY + 101 * S, 7.0)) == (101_000_000, "")
    assert axis.begin_utc_ns == TODAY
    (remark,) = axis.remarks
    assert "drawn directly after" in remark


def test_no_picture_spans_years_because_a_clock_did() -> None:
    axis = TimeAxis()
    placed(axis, (WRONG, 0.0), (WRONG + 10 * S, 10.0))
    assert placed(axis, (TODAY, 1.0), (TODAY + S, 2.0)) == [11.0, 12.0]
    assert axis.begin_utc_ns == TODAY - 11 * S
    assert len(axis.remarks) == 1


def test_a_clock_that_is_set_back_tears_nothing() -> None:
    axis = TimeAxis()
    assert placed(axis, (TODAY, 0.0), (WRONG, 1.0), (WRONG + S, 2.0)) == [0.0, 1.0, 2.0]
    assert axis.begin_utc_ns == TODAY
