"""What is in a segment, in short: sessions, alarms, errors; over several segments, too."""

from pathlib import Path

import msgspec
import pytest
from fakes.recorded_session import INPUTS, TURN_NS, DrivenJournal, record_session
from fusioncharger.messages.inputs import (
    BspEventReceived,
    Input,
    ModeRequested,
    PowermeterMeasured,
    SessionEventReceived,
    ShutdownRequested,
    TimerFired,
)
from fusioncharger.messages.outputs import ErrorRaised, ModePublished, PowerRequested, TurnFailed
from fusioncharger.messages.types import BspEvent, ChargingPhase, Mode, PowerRequestMode, RequirementType
from fusioncharger.replay.log_format import SegmentEnd, seal
from fusioncharger.replay.log_info import gather, info_text, summarise
from fusioncharger.replay.logs import open_logs
from fusioncharger.replay.records import RecordReader
from fusioncharger.replay.summary import LIMIT, Summariser, Summary
from fusioncharger.replay.summary_merge import merged
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

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
        driven.replace_recorder()
        driven.run(inputs[cut:])
    driven.journal.close(10.0)
    log = open_logs([directory])
    assert len(log.segments) == (1 if cut is None else 2)
    info = gather(log, nothing)
    assert info.is_whole
    assert f"files     {'1 segment' if cut is None else '2 segments'} of 1 run, " in info_text(info)
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
        for event in (BspEvent.B, BspEvent.A):
            payload = seal(BspEventReceived(connector=1, event=event))
            summariser.add("BspEventReceived", payload, number, number, number)
    found = summariser.summary()
    assert len(found.sessions) == LIMIT
    assert found.beyond == {"sessions": 5}
    both = merged([found, found])
    assert len(both.sessions) == LIMIT
    assert both.beyond == {"sessions": LIMIT + 10}


CAR = BspEventReceived(connector=1, event=BspEvent.B)
GONE = BspEventReceived(connector=1, event=BspEvent.A)
NATIVE_CAR = SessionEventReceived(connector=1, event="SessionStarted", reason="EVConnected")
NATIVE_GONE = SessionEventReceived(connector=1, event="SessionFinished")
EXPORT = ModeRequested(connector=1, mode=Mode.EXPORT, charging_phase=ChargingPhase.CHARGING)
OFF = ModeRequested(connector=1, mode=Mode.OFF, charging_phase=ChargingPhase.OTHER)
OFF_TOLD = ModePublished(connector=1, mode=Mode.OFF)
LINK_LOST = ErrorRaised(connector=1, error_type="CommunicationFault", sub_type="", message="")
FAILED = TurnFailed(actor="connector/1", exception_type="ValueError", message="")
TIMER = TimerFired(owner="connector/1", name="heartbeat", number=1)
SHUTDOWN = ShutdownRequested(reason="SIGTERM")


def asked(requirement_type: RequirementType) -> PowerRequested:
    return PowerRequested(
        connector=1,
        connector_no=1,
        dst=bytes(6),
        st_num=1,
        t_ns=0,
        requirement_type=requirement_type,
        mode=PowerRequestMode.CONSTANT_CURRENT,
        voltage_v=400.0,
        current_a=10.0,
    )


READY = asked(RequirementType.MODULE_PLACEHOLDER_REQUEST)
CHARGE = asked(RequirementType.CHARGING)


@pytest.mark.parametrize(
    ("messages", "outcome"),
    [
        ((CAR, EXPORT, READY, CHARGE, OFF, OFF_TOLD, GONE), "completed by EVerest"),
        ((CAR, EXPORT, READY, CHARGE, GONE), "car left"),
        ((CAR, GONE), "car left before charging"),
        ((CAR, EXPORT, READY, GONE), "car left before charging"),
        ((CAR, EXPORT, READY, OFF, OFF_TOLD, GONE), "car left before charging"),
        ((CAR, EXPORT, READY, CHARGE, OFF, EXPORT, READY, CHARGE, GONE), "car left"),
        ((CAR, EXPORT, READY, CHARGE, TIMER, LINK_LOST, GONE), "link lost"),
        ((CAR, EXPORT, READY, CHARGE, TIMER, LINK_LOST, TIMER, READY, CHARGE, GONE), "car left"),
        ((CAR, EXPORT, READY, CHARGE, OFF, OFF_TOLD, TIMER, LINK_LOST, GONE), "completed by EVerest"),
        ((CAR, TIMER, LINK_LOST, GONE), "car left before charging"),
        ((CAR, EXPORT, READY, CHARGE, TIMER, OFF_TOLD, GONE), "stopped: EVerest was lost"),
        (
            (CAR, EXPORT, READY, CHARGE, TIMER, OFF_TOLD, EXPORT, READY, CHARGE, OFF, GONE),
            "completed by EVerest",
        ),
        ((CAR, EXPORT, READY, CHARGE, TIMER, FAILED, OFF_TOLD, GONE), "stopped: a turn failed"),
        ((CAR, EXPORT, READY, CHARGE, OFF, FAILED, OFF_TOLD, TIMER, OFF_TOLD, GONE), "completed by EVerest"),
        ((CAR, OFF_TOLD, EXPORT, CHARGE), "still charging"),
        ((CAR, EXPORT, READY), "not charging yet"),
        ((CAR, EXPORT, CHARGE, OFF), "completed, car still there"),
        ((CAR, EXPORT, CHARGE, TIMER, LINK_LOST), "link lost, car still there"),
        ((CAR, EXPORT, CHARGE, TIMER, OFF_TOLD), "stopped: EVerest was lost, car still there"),
        ((CAR, EXPORT, CHARGE, SHUTDOWN, OFF_TOLD, SegmentEnd(goodbye=True)), "driver ended"),
        ((CAR, EXPORT, CHARGE, SegmentEnd(goodbye=False)), "driver ended without goodbye"),
        ((NATIVE_CAR, EXPORT, CHARGE, OFF, NATIVE_GONE), "completed by EVerest"),
        ((CAR, EXPORT, CHARGE, NATIVE_GONE), "still charging"),
    ],
)
def test_how_a_session_ended_is_told_from_inputs_and_outputs(
    messages: tuple[Struct, ...], outcome: str
) -> None:
    summariser = Summariser()
    turn = 0
    for message in messages:
        turn += isinstance(message, Input)
        summariser.add(type(message).__name__, seal(message), turn, turn, turn)
    found = summariser.summary()
    assert [session.outcome for session in found.sessions] == [outcome]
    assert found.odd_records == 0
