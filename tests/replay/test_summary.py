"""What is in a segment, in short: sessions, alarms, errors; over several segments, too."""

from pathlib import Path

import msgspec
import pytest
from fakes.recorded_session import INPUTS, TURN_NS, UTC_NS, DrivenJournal, record_session
from fusioncharger.messages.inputs import BspEventReceived, PowermeterMeasured
from fusioncharger.messages.types import BspEvent
from fusioncharger.replay.log_format import seal
from fusioncharger.replay.log_info import gather, info_text, summarise
from fusioncharger.replay.logs import open_logs
from fusioncharger.replay.records import RecordReader
from fusioncharger.replay.summary import LIMIT, Summariser, Summary
from fusioncharger.replay.summary_merge import merged
from hypothesis import given, settings
from hypothesis import strategies as st

GOLDEN = Path(__file__).parents[1] / "sessions" / "format-1-demo.mcap"


def nothing(_: int) -> None:
    """No progress bar."""


def of_file(path: Path) -> Summary:
    found, damage = summarise(open_logs([path]).segments[0], nothing)
    assert damage == ""
    return found


def test_a_recorded_demo_has_its_sessions_alarms_and_errors() -> None:
    found = of_file(GOLDEN)
    assert (found.first_turn, found.turns) == (1, 237)
    assert [(each.connector, each.begin_turn, each.outcome) for each in found.sessions] == [
        (1, 41, "completed by EVerest"),
        (2, 46, "completed by EVerest"),
    ]
    # 400 V at 40 A, 650 V at 40 A, for about four seconds
    assert [round(each.metered_wh, 1) for each in found.sessions] == [17.4, 28.1]
    assert [(each.connector, each.name) for each in found.alarms] == [
        (0, "PowerUnit/Smoke"),
        (1, "MREC8EmergencyStop"),
        (2, "MREC8EmergencyStop"),
    ]
    assert len(found.errors) == 12
    assert all(each.end_utc_ns > each.begin_utc_ns for each in found.errors + found.alarms)
    assert found.end is not None
    assert found.end.goodbye
    assert found.odd_records == 0


def test_the_recorder_leaves_the_summary_that_reading_gives(tmp_path: Path) -> None:
    log = open_logs([record_session(tmp_path)])
    (segment,) = log.segments
    assert segment.summary == of_file(segment.path)
    assert segment.summary is not None
    assert segment.summary.turns == len(INPUTS)


def metered(connector: int = 1) -> PowermeterMeasured:
    return PowermeterMeasured(connector=connector, voltage_v=400.0, current_a=10.0)


def recorded(directory: Path, cut: int | None) -> Summary:
    """A session with a meter, recorded in one segment, or in two."""
    inputs = [*INPUTS[:10], *([metered()] * 20), BspEventReceived(connector=1, event=BspEvent.A)]
    driven = DrivenJournal(directory)
    driven.open()
    driven.await_report("ready")
    driven.run(inputs[:cut])
    if cut is not None:
        assert driven.journal.prepare_replacement(UTC_NS)
        driven.await_report("ready")
        assert driven.begin_segment()
        driven.run(inputs[cut:])
    driven.journal.close(10.0)
    log = open_logs([directory])
    assert len(log.segments) == (1 if cut is None else 2)
    info = gather(log, nothing)
    assert info.is_whole
    assert "1 of 1 runs" not in info_text(info) or cut is None
    return info.summary


@pytest.mark.parametrize("cut", [9, 12, 25])
def test_a_session_over_two_segments_is_one(tmp_path: Path, cut: int) -> None:
    whole = recorded(tmp_path / "whole", None)
    parts = recorded(tmp_path / "parts", cut)
    (session,) = whole.sessions
    (joined,) = parts.sessions
    assert session.readings == 20
    assert session.metered_wh == pytest.approx(4000 * 19 * TURN_NS / 3.6e12)
    fields = ("connector", "begin_turn", "begin_utc_ns", "end_utc_ns", "readings", "continued", "outcome")
    assert [getattr(joined, name) for name in fields] == [getattr(session, name) for name in fields]
    # the time between two readings on either side of the cut is nobody's
    assert joined.metered_wh == pytest.approx(session.metered_wh, rel=0.06)
    assert joined.requested_wh == pytest.approx(session.requested_wh)
    assert parts.turns == whole.turns
    assert [(each.connector, each.name) for each in parts.errors] == [
        (each.connector, each.name) for each in whole.errors
    ]


def records() -> list[tuple[str, bytes, int, int, int]]:
    with GOLDEN.open("rb") as file:
        reader = RecordReader(file)
        reader.read_profile()
        return [
            (topic.rpartition("/")[2], payload, turn, at_ns, utc_ns)
            for topic, turn, utc_ns, at_ns, payload in reader.messages()
        ]


RECORDS = records()


@settings(deadline=None)
@given(st.sampled_from(RECORDS), st.binary(max_size=80), st.integers(0, 200))
def test_odd_payloads_are_counted_and_no_more(
    record: tuple[str, bytes, int, int, int], odd: bytes, at: int
) -> None:
    tag, payload, *rest = record
    summariser = Summariser()
    summariser.add(tag, payload[:at] + odd + payload[at + len(odd) :], *rest)
    summariser.add(tag, odd, *rest)
    found = summariser.summary()
    assert found.counts == {tag: 2}
    assert msgspec.json.decode(msgspec.json.encode(found), type=Summary) == found


def test_lists_are_bounded_and_what_is_beyond_is_counted() -> None:
    summariser = Summariser()
    for number in range(LIMIT + 5):
        for text in ("CarDisconnected -> NoKeyYet (car connected)", "NoKeyYet -> CarDisconnected (x)"):
            line = {"type": "LogWritten", "level": "info", "connector": 1, "text": text}
            summariser.add("LogWritten", seal(line), number, number, number)
    found = summariser.summary()
    assert len(found.sessions) == LIMIT
    assert found.beyond == {"sessions": 5}
    both = merged([found, found])
    assert len(both.sessions) == LIMIT
    assert both.beyond == {"sessions": LIMIT + 10}
