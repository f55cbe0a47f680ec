"""The picture of a log that is too long to show every turn: bands, thinned curves, turns that mattered."""

import base64
import gzip
from pathlib import Path

import msgspec
import pytest
from fakes.recorded_session import INPUTS, TURN_NS, record_session
from fusioncharger.messages.inputs import (
    GooseFramesDropped,
    HeartbeatReceived,
    IsolationMeasured,
    PowermeterMeasured,
)
from fusioncharger.replay.logs import Log, open_logs
from fusioncharger.replay.moments import MomentError, parse_moment
from fusioncharger.replay.view import timeline
from fusioncharger.replay.view.drawing import Picture, TooLongError, draw
from fusioncharger.replay.view.lanes import Curve, Lane
from hypothesis import given
from hypothesis import strategies as st

BEATS = 600
"""Turns in which nothing happens that a person would look for."""
LAST = PowermeterMeasured(connector=1, voltage_v=10.0, current_a=0.0)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Log:
    """A session, readings that rise, silence for 6 s, a last reading."""
    readings = [IsolationMeasured(connector=1, voltage_v=100.0 + n) for n in range(100)]
    beats = [HeartbeatReceived(connector=2, heartbeat_id=n) for n in range(BEATS)]
    return open_logs([record_session(tmp_path_factory.mktemp("session"), (*INPUTS, *readings, *beats, LAST))])


def lines(drawn: Picture) -> list[dict]:
    return [
        msgspec.json.decode(line)
        for block in drawn.collector.table.blocks
        for line in gzip.decompress(base64.b64decode(block)).split(b"\n")
    ]


def bands(drawn: Picture) -> list[Lane]:
    return drawn.collector.timeline.lanes


def test_its_bands_are_those_of_the_whole_picture(log: Log) -> None:
    whole, overview = draw(log), draw(log, turn_limit=len(INPUTS))
    assert not whole.collector.is_overview
    assert overview.collector.is_overview
    assert bands(overview) == bands(whole)
    assert overview.collector.axis.end_us == whole.collector.axis.end_us
    assert overview.collector.turns == whole.collector.turns == len(INPUTS) + 100 + BEATS + 1
    assert overview.replayed == whole.replayed


def test_its_table_has_the_turns_that_changed_a_band_or_are_marked(log: Log) -> None:
    whole, overview = draw(log), draw(log, turn_limit=len(INPUTS))
    everything, shown = {line["n"]: line for line in lines(whole)}, lines(overview)
    assert 0 < len(shown) <= len(INPUTS)
    assert [line["n"] for line in shown] == sorted(line["n"] for line in shown)
    assert all(everything[line["n"]] == line for line in shown)
    changed_us = {at for lane in bands(whole) for at in lane.at}
    at_us = [sum(overview.collector.table.at[: row + 1]) for row in range(len(shown))]
    assert changed_us <= set(at_us)
    markers = [(marker.at, marker.kind, marker.text) for marker in whole.collector.timeline.markers]
    assert [(m.at, m.kind, m.text) for m in overview.collector.timeline.markers] == markers
    assert all(at_us[marker.row] == marker.at for marker in overview.collector.timeline.markers)


def test_it_names_its_turns_as_they_are_numbered(log: Log) -> None:
    overview = draw(log, turn_limit=len(INPUTS))
    spans = {row: number for row, number, _ in overview.collector.table.spans}
    number = 0
    for row, line in enumerate(lines(overview)):
        number = spans.get(row, number + 1)
        assert line["n"] == number


def test_what_it_lacks_is_said(log: Log) -> None:
    (note,) = draw(log, turn_limit=len(INPUTS)).notes
    assert f"an overview of {len(INPUTS) + 100 + BEATS + 1} turns" in note
    assert "--from 10:00:00 --until 11:00:00" in note
    assert "curves" not in note  # none was thinned
    assert draw(log).notes == ()


def test_curves_are_thinned_and_events_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "CURVE_POINTS", 16)
    monkeypatch.setattr(timeline, "MARKERS_OF_A_KIND", 3)
    readings = [IsolationMeasured(connector=1, voltage_v=100.0 + n) for n in range(200)]
    dropped = [GooseFramesDropped(counts={"old": 1})] * 5
    log = open_logs([record_session(tmp_path, (*INPUTS, *readings, *dropped))])
    overview = draw(log, turn_limit=len(INPUTS) + 5)
    (curve,) = (one for one in overview.collector.timeline.curves if one.key == "imd_v")
    assert len(curve.at) <= 16
    assert {100.0, 299.0} <= set(curve.values)
    kinds = [marker.kind for marker in overview.collector.timeline.markers]
    assert kinds.count("drop") == 3
    assert f"curves show of each {curve.stretch_us / 1e6:g} s the first, least, greatest" in overview.notes[0]
    assert "2 more events of the kind 'drop' are not marked." in overview.notes


def test_too_many_changes_are_refused_with_advice(log: Log) -> None:
    with pytest.raises(TooLongError, match=r"--from .* --until"):
        draw(log, turn_limit=5)
    assert len(lines(draw(log, until=parse_moment("5"), turn_limit=5))) == 5


def test_progress_ends_where_the_log_does_although_it_is_read_twice(log: Log, tmp_path: Path) -> None:
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(log.segments[0].path.read_bytes()[:-2000])  # how many turns it has, no summary tells
    told: list[int] = []
    assert draw(open_logs([cut]), advance=told.append, turn_limit=len(INPUTS)).collector.is_overview
    assert min(told) < 0
    assert 0 < sum(told) <= cut.stat().st_size


@pytest.mark.parametrize(("begin", "until"), [("9", "3"), ("+5", "+1")])
def test_a_part_that_ends_before_it_begins(log: Log, begin: str, until: str) -> None:
    with pytest.raises(MomentError, match=f"from {begin} until {until}".replace("+", r"\+")):
        draw(log, parse_moment(begin), parse_moment(until))


def test_a_part_after_the_end_is_told_when_the_log_ended(log: Log) -> None:
    with pytest.raises(MomentError, match=r"begins at 20\S+Z with turn 1 and ends at 20\S+Z"):
        draw(log, parse_moment("+3600"))


def test_a_reading_is_held_for_5_s_and_no_longer(log: Log) -> None:
    (imd,) = (one for one in draw(log).collector.timeline.curves if one.key == "imd_v")
    read_us = (len(INPUTS) + 99) * TURN_NS // 1000
    assert (imd.at[-2], imd.values[-2]) == (read_us, 199.0)
    assert (imd.at[-1], imd.values[-1]) == (read_us + 5_000_000, None)


def test_a_reading_that_is_told_again_goes_on() -> None:
    curve = Curve("key", 1, "voltage", "name", "V", hold_us=5)
    for at_us in (0, 4, 8):
        curve.set(at_us, 1.0)
    curve.set(20, 1.0)
    curve.expire(25)
    assert list(zip(curve.at, curve.values, strict=True)) == [(0, 1.0), (13, None), (20, 1.0)]
    curve.expire(26)
    assert (curve.at[-1], curve.values[-1]) == (25, None)


@given(
    st.lists(st.tuples(st.integers(1, 10**6), st.none() | st.integers(-9, 9)), min_size=1, max_size=200),
    st.integers(8, 24),
)
def test_a_thinned_curve_keeps_its_extremes_its_end_and_its_breaks(
    steps: list[tuple[int, int | None]], limit: int
) -> None:
    whole, thinned = Curve("k", 1, "p", "n", "V"), Curve("k", 1, "p", "n", "V", limit=limit)
    at_us = 0
    for step_us, value in steps:
        at_us += step_us
        whole.set(at_us, value)
        thinned.set(at_us, value)
    assert len(thinned.at) <= limit
    points = dict(zip(whole.at, whole.values, strict=True))
    assert all(points[at] == value for at, value in zip(thinned.at, thinned.values, strict=True))
    assert thinned.at == sorted(set(thinned.at))
    if whole.at:
        assert (thinned.at[0], thinned.at[-1]) == (whole.at[0], whole.at[-1])
        known = [value for value in whole.values if value is not None]
        assert max(known) == max(value for value in thinned.values if value is not None)
        assert (None in thinned.values) == (None in whole.values)
        if None not in whole.values:
            assert min(known) == min(value for value in thinned.values if value is not None)
