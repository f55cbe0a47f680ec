"""The picture's contents: bands, curves, markers, gaps and turns, from logs whose course is known."""

import base64
import gzip
import itertools
from pathlib import Path

import msgspec
import pytest
from fakes import recorded_session
from fakes.recorded_session import (
    CONFIG,
    INPUTS,
    TURN_NS,
    UTC_NS,
    record_segments,
    record_session,
)
from fusioncharger.actors.runtime import SECOND_NS
from fusioncharger.messages.inputs import (
    BspEventReceived,
    GooseFramesDropped,
    HmacKeyReceived,
    MqttMessageRejected,
    PowermeterMeasured,
    PowerRequestReplyReceived,
    RegistersWritten,
    SetpointRequested,
    ShutdownRequested,
    Started,
    UtcOffsetChanged,
)
from fusioncharger.messages.types import BspEvent
from fusioncharger.replay.log_format import seal
from fusioncharger.replay.logs import open_logs
from fusioncharger.replay.moments import MomentError, parse_moment
from fusioncharger.replay.view.drawing import Picture, draw
from fusioncharger.replay.view.lanes import SYSTEM, Curve, Lane, Tone
from fusioncharger.replay.view.turns import BLOCK_TURNS
from hypothesis import given
from hypothesis import strategies as st

TURN_US = TURN_NS // 1000


def picture(path: Path, **options: str) -> Picture:
    moments = {name: parse_moment(text) for name, text in options.items()}
    return draw(open_logs([path]), **moments)


def bands(drawn: Picture, group: int, key: str) -> list[tuple[int, str]]:
    """Of a lane: in which turn (counted from 0) it changed, and to what; "" for nothing known."""
    (lane,) = (one for one in drawn.collector.timeline.lanes if (one.group, one.key) == (group, key))
    return [
        (at // TURN_US, lane.texts[value] if value >= 0 else "")
        for at, value in zip(lane.at, lane.values, strict=True)
    ]


def curve(drawn: Picture, group: int, key: str) -> list[tuple[int, float | None]]:
    found = [one for one in drawn.collector.timeline.curves if (one.group, one.key) == (group, key)]
    return [(at // TURN_US, value) for one in found for at, value in zip(one.at, one.values, strict=True)]


def events(drawn: Picture) -> list[tuple[int, int, str]]:
    return [(marker.row, marker.group, marker.kind) for marker in drawn.collector.timeline.markers]


def lines(drawn: Picture) -> list[dict]:
    """The turn table, unpacked as the page does it."""
    return [
        msgspec.json.decode(line)
        for block in drawn.collector.table.blocks
        for line in gzip.decompress(base64.b64decode(block)).split(b"\n")
    ]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Picture:
    return picture(record_session(tmp_path_factory.mktemp("session")))


def test_bands_are_the_states_after_each_turn(drawn: Picture) -> None:
    plugged_in = INPUTS.index(BspEventReceived(connector=1, event=BspEvent.B))
    unplugged = INPUTS.index(BspEventReceived(connector=1, event=BspEvent.A))
    assert bands(drawn, 1, "phase") == [
        (0, "CarDisconnected"),
        (plugged_in, "NoKeyYet"),
        (unplugged, "CarDisconnected"),
    ]
    assert bands(drawn, 2, "phase") == [(0, "CarDisconnected")]
    assert bands(drawn, 1, "mode_phase")[1:2] == [(plugged_in + 1, "ExportCableCheck")]
    assert bands(drawn, SYSTEM, "link")[0] == (0, "INITIALIZING")
    assert bands(drawn, SYSTEM, "running_mode") == [(0, "not received")]
    assert bands(drawn, SYSTEM, "broker") == [(0, "not connected yet"), (1, "connected")]


def test_the_table_holds_every_turn_with_its_outputs_and_what_it_changed(drawn: Picture) -> None:
    table = lines(drawn)
    assert [line["n"] for line in table] == list(range(1, len(INPUTS) + 1))
    assert [line["i"]["type"] for line in table] == [type(message).__name__ for message in INPUTS]
    assert list(itertools.accumulate(drawn.collector.table.at)) == [n * TURN_US for n in range(len(INPUTS))]
    assert drawn.replayed == len(INPUTS)
    assert drawn.collector.differing == 0
    plugged_in = table[INPUTS.index(BspEventReceived(connector=1, event=BspEvent.B))]
    assert ["connector/1", "phase", "CarDisconnected", "NoKeyYet"] in plugged_in["d"]
    assert {"StartTimer", "CapabilitiesPublished", "ReportSent"} & {one["type"] for one in plugged_in["o"]}
    mac = next(change for line in table for change in line.get("d", []) if change[1] == "psu_mac")
    assert mac[2:] == ["0x", "0x020001020304"]


def test_a_list_that_grows_or_shrinks_shows_by_what(drawn: Picture) -> None:
    changes = [change for line in lines(drawn) for change in line.get("d", []) if "raised" in change[1]]
    more = next(change for change in changes if change[1] == "raised (more)")
    less = next(change for change in changes if change[1] == "raised (less)")
    assert more[2] is None
    assert more[3]["error_type"] == "CommunicationFault"
    assert less[2]["error_type"]
    assert less[3] is None


def test_setpoints_and_measurements_are_curves(tmp_path: Path) -> None:
    measured = PowermeterMeasured(connector=1, voltage_v=398.5, current_a=3.25)
    unplugged = INPUTS.index(BspEventReceived(connector=1, event=BspEvent.A))
    inputs = (*INPUTS[:unplugged], measured, INPUTS[unplugged])
    drawn = picture(record_session(tmp_path, inputs))
    asked = inputs.index(SetpointRequested(connector=1, voltage_v=400.0, current_a=20.0))
    off = asked + 1
    assert curve(drawn, 1, "setpoint_v") == [(asked, 400.0), (off, None)]
    assert curve(drawn, 1, "setpoint_a") == [(asked, 20.0), (off, None)]
    assert curve(drawn, 1, "output_v") == [(unplugged, 398.5)]
    assert curve(drawn, 1, "output_a") == [(unplugged, 3.25)]
    assert curve(drawn, 2, "setpoint_v") == []


def test_what_went_wrong_is_marked_where_it_happened(tmp_path: Path) -> None:
    mode = RegistersWritten(
        connection=1, transaction_id=3, unit_id=0, function=6, address=0x2006, words=(2,), adu=b""
    )
    epo = RegistersWritten(
        connection=1, transaction_id=4, unit_id=0, function=6, address=0x4004, words=(1,), adu=b""
    )
    refusal = PowerRequestReplyReceived(
        verified=(2,), connector_no=2, charging_sn=0, requirement_type=1, result=1, mode=0, voltage_bits=0,
        current_bits=0, st_num=1, sq_num=0, frame=b"",
    )  # fmt: skip
    inputs = (
        *INPUTS[:5],
        mode,
        epo,
        GooseFramesDropped(counts={"bad signature": 3}),
        MqttMessageRejected(topic="a/<b>", reason="not JSON", size_bytes=7),
        refusal,
        UtcOffsetChanged(utc_offset_ns=UTC_NS + SECOND_NS),
        ShutdownRequested(reason="SIGTERM"),
    )
    drawn = picture(record_session(tmp_path, inputs))
    assert bands(drawn, SYSTEM, "running_mode") == [(0, "not received"), (5, "FAULTY")]
    assert bands(drawn, SYSTEM, "psu_alarms") == [(0, "none"), (6, "PowerUnit/Epo")]
    assert bands(drawn, 1, "errors")[-1][0] == 6
    assert "VendorWarning/PowerUnit/Epo" in bands(drawn, 1, "errors")[-1][1]
    found = events(drawn)
    assert (0, SYSTEM, "begin") in found
    assert {(6, 1, "error"), (6, 2, "error")} <= set(found)
    after = [event for event in found if event[0] > 6]
    assert after[:4] == [(7, SYSTEM, "drop"), (8, SYSTEM, "drop"), (9, 2, "refused"), (10, SYSTEM, "clock")]
    assert (11, SYSTEM, "end") in after


def test_an_error_that_is_told_again_is_no_event(tmp_path: Path) -> None:
    """EVerest is told everything at its first heartbeat (behaviour.md §8.2): all clears of what never was."""
    drawn = picture(record_session(tmp_path))
    marked = [marker for marker in drawn.collector.timeline.markers if marker.kind in {"error", "cleared"}]
    state: dict[tuple[int, str], str] = {}
    for marker in marked:
        name = (marker.group, marker.text.split(" ")[0])
        assert state.get(name, "cleared") != marker.kind
        state[name] = marker.kind
    assert len(marked) < 20


def test_a_turn_that_replays_otherwise_is_marked_with_both_outputs(tmp_path: Path) -> None:
    log = record_session(tmp_path)
    data = log.read_bytes()
    start = data.index(b'{"type":"PsuConnectRequested"')
    end = data.index(b'"}', start) + 2
    other = seal({"type": "PsuConnectRequested", "connection": 9})
    assert len(other) == end - start
    log.write_bytes(data[:start] + other + data[end:])
    drawn = picture(log)
    assert drawn.collector.differing == 1
    (row,) = (row for row, _, kind in events(drawn) if kind == "diverged")
    line = lines(drawn)[row]
    assert {"type": "PsuConnectRequested", "connection": 9} in line["o"]
    assert {"type": "PsuConnectRequested", "connection": 1} in line["r"]


def test_an_altered_output_is_shown_as_it_stands(tmp_path: Path) -> None:
    log = record_session(tmp_path)
    data = log.read_bytes()
    log.write_bytes(
        data.replace(b'"PsuConnectRequested","connection":1', b'"PsuConnectRequested","connection":8', 1)
    )
    drawn = picture(log)
    assert {kind for row, _, kind in events(drawn) if row == 0} >= {"altered", "diverged"}
    texts = [output.get("text", "") for output in lines(drawn)[0]["o"]]
    assert any('"connection":8' in text for text in texts)


def test_a_log_that_does_not_replay_is_drawn_from_what_was_recorded(tmp_path: Path) -> None:
    log = record_session(tmp_path)
    data = log.read_bytes()
    start = data.index(b'{"type":"SegmentHeader"')
    end = data.index(b'"}', data.index(b',"crc32":"', start)) + 2
    header = msgspec.json.decode(data[start:end])
    del header["crc32"]
    # A field of the same length that no version has, in the place of one that all have.
    text = msgspec.json.encode(header).replace(b'"mode_phase":"Off"', b'"mode_phase":"Oof"')
    other = seal(msgspec.Raw(text))
    assert len(other) == end - start
    log.write_bytes(data[:start] + other + data[end:])
    drawn = picture(log)
    assert drawn.replayed == 0
    assert "its turns cannot be replayed here" in drawn.notes[0]
    assert bands(drawn, SYSTEM, "link") == [(2, "connected")]
    assert bands(drawn, 1, "mode")
    assert curve(drawn, 1, "setpoint_v")[0][1] == 400.0
    assert len(lines(drawn)) == len(INPUTS)
    assert all("d" not in line for line in lines(drawn))


def test_a_cut_log_is_drawn_up_to_the_cut(tmp_path: Path) -> None:
    log = record_session(tmp_path)
    data = log.read_bytes()
    log.write_bytes(data[: data.index(b'{"type":"ModeRequested"')])
    drawn = picture(log)
    assert drawn.cut
    assert len(lines(drawn)) == INPUTS.index(next(m for m in INPUTS if type(m).__name__ == "ModeRequested"))
    assert "ends early" in drawn.notes[-1]
    assert events(drawn)[-1][2] == "gap"


def test_between_two_runs_nothing_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    inputs = INPUTS[:10]  # a car is there, with a setpoint
    first = record_session(tmp_path / "first", inputs)
    monkeypatch.setattr(recorded_session, "RUN_ID", "f" * 32)
    monkeypatch.setattr(recorded_session, "UTC_NS", UTC_NS + 10 * SECOND_NS)
    second = record_session(tmp_path / "second", inputs)
    drawn = draw(open_logs([second, first]))
    (gap,) = drawn.collector.timeline.gaps
    assert gap.text == "the driver did not run; it starts again as run ffffffff"
    last, again = len(inputs) - 1, 10 * SECOND_NS // TURN_NS
    assert (gap.begin, gap.end) == (last * TURN_US, again * TURN_US)
    assert bands(drawn, 1, "phase")[1:4] == [(7, "NoKeyYet"), (last, ""), (again, "CarDisconnected")]
    assert bands(drawn, SYSTEM, "broker")[2:] == [
        (last, ""),
        (again, "not connected yet"),
        (again + 1, "connected"),
    ]
    assert curve(drawn, 1, "setpoint_v")[-1] == (again + 9, 400.0)
    assert (last, SYSTEM, "gap") in events(drawn)
    assert [span[:2] for span in drawn.collector.table.spans] == [(0, 1), (len(inputs), 1)]


def test_segments_that_follow_one_another_have_no_gap(tmp_path: Path) -> None:
    record_segments(tmp_path, INPUTS[:8], INPUTS[8:])
    drawn = picture(tmp_path)
    assert drawn.collector.timeline.gaps == []
    assert len(lines(drawn)) == len(INPUTS)
    assert drawn.replayed == len(INPUTS)
    assert len(drawn.collector.table.spans) == 1


def test_a_part_of_a_log_has_the_states_of_the_whole(drawn: Picture, tmp_path: Path) -> None:
    log = record_session(tmp_path)
    part = picture(log, begin="9", until="11")
    assert [line["n"] for line in lines(part)] == [9, 10, 11]
    assert bands(part, 1, "phase") == [(0, "NoKeyYet")]
    assert lines(part)[0]["d"] == lines(drawn)[8]["d"]


def test_a_part_without_turns_is_refused(tmp_path: Path) -> None:
    log = open_logs([record_session(tmp_path)])
    with pytest.raises(MomentError, match="no turn"):
        draw(log, parse_moment("+3600"))


def test_blocks_hold_what_the_page_expects(tmp_path: Path) -> None:
    beats = [GooseFramesDropped(counts={"x": n}) for n in range(BLOCK_TURNS + 5)]
    drawn = picture(record_session(tmp_path, (INPUTS[0], *beats)))
    sizes = [
        gzip.decompress(base64.b64decode(block)).count(b"\n") + 1 for block in drawn.collector.table.blocks
    ]
    assert sizes == [BLOCK_TURNS, 6]
    assert isinstance(INPUTS[0], Started)


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["a", "b", "c", ""]))))
def test_a_lane_says_at_every_moment_what_was_set_last(changes: list[tuple[int, str]]) -> None:
    lane = Lane("key", 1, "name")
    at, truth = 0, {}
    for step, text in changes:
        at += step
        if text:
            lane.set(at, text, Tone.IDLE)
        else:
            lane.clear(at)
        truth[at] = text
    assert lane.at == sorted(set(lane.at))
    shown = dict(zip(lane.at, lane.values, strict=True))
    value, wanted = -1, ""
    for moment in range(at + 1):
        value, wanted = shown.get(moment, value), truth.get(moment, wanted)
        assert (lane.texts[value] if value >= 0 else "") == wanted


@given(st.lists(st.tuples(st.integers(0, 3), st.none() | st.integers(0, 3))))
def test_a_curve_says_at_every_moment_what_was_set_last(changes: list[tuple[int, int | None]]) -> None:
    drawn = Curve("key", 1, "voltage", "name", "V")
    at, truth = 0, {}
    for step, value in changes:
        at += step
        drawn.set(at, value)
        truth[at] = value
    assert drawn.at == sorted(set(drawn.at))
    shown = dict(zip(drawn.at, drawn.values, strict=True))
    held, wanted = None, None
    for moment in range(at + 1):
        held, wanted = shown.get(moment, held), truth.get(moment, wanted)
        assert held == wanted


def test_the_configuration_names_the_connectors(drawn: Picture) -> None:
    assert drawn.connector_nos == tuple(one.global_connector_number for one in CONFIG.connectors)
    assert HmacKeyReceived.__name__ not in drawn.collector.table.types
