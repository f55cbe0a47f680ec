"""Commands and scenarios on the PSU model, on a time of the test's own."""

from itertools import count

import pytest
from fusioncharger.messages.outputs import Segment
from fusioncharger.messages.types import PsuRunningMode
from fusioncharger.mock.actions import DisconnectAsked, ListenAsked, ReplySent, WriteAsked
from fusioncharger.mock.commands import command_from
from fusioncharger.mock.dispenser_session import KEY
from fusioncharger.mock.psu_state import PlaceholderPolicy, PsuState
from fusioncharger.mock.scenario import Scenario, Step
from model_bench import DISPENSER, MAC, PLACEHOLDER, SECOND_NS, Bench, power

IDENTITY = {0x110E: 5, 0x114D: 0x0200, 0x114E: 0, 0x114F: 2}
"""The dispenser's registers that say how GOOSE knows its connector 1."""


def connected(connector_count: int = 1) -> Bench:
    bench = Bench(connector_count)
    bench.connect()
    bench.take_asked()
    bench.events.clear()
    return bench


# --- values ------------------------------------------------------------------------------------------------


def test_alarm_is_written_at_once_and_not_again() -> None:
    bench = connected()
    bench.tell("alarm", name="DcDcChargingModule/DcDcModule3", value=0x8001)
    assert bench.take_asked() == [("10", "DcDcChargingModule/DcDcModule3", 0x8001)]
    assert bench.events[-1].details == {
        "source": "control",
        "do": "alarm",
        "name": "DcDcChargingModule/DcDcModule3",
        "value": 0x8001,
        "dispensers": 1,
    }
    bench.run_until(5 * SECOND_NS)
    assert "DcDcChargingModule/DcDcModule3" not in [row[1] for row in bench.take_asked()]


def test_who_connects_later_gets_the_alarms_that_are_set() -> None:
    bench = Bench()
    bench.tell("alarm", name="PowerUnit/Water")
    bench.tell("alarm", name="PowerUnit/Epo")
    bench.tell("clear_alarm", name="PowerUnit/Water")
    assert bench.events[-1].details["dispensers"] == 0
    bench.connect()
    alarms = [row for row in bench.take_asked() if row[1].startswith("PowerUnit")]
    assert alarms == [("06", "PowerUnit/Epo", 1)]


def test_clear_alarm_without_a_name_clears_all_that_are_set() -> None:
    bench = connected()
    bench.tell("alarm", name="PowerUnit/Water")
    bench.tell("alarm", name="AcBranch/AcBranch2", value=4)
    bench.take_asked()
    bench.tell("clear_alarm")
    assert bench.take_asked() == [("06", "PowerUnit/Water", 0), ("10", "AcBranch/AcBranch2", 0)]
    bench.tell("clear_alarm")
    assert bench.take_asked() == []


def test_running_mode_is_written_at_once_and_in_each_round() -> None:
    bench = connected()
    bench.tell("running_mode", mode="FAULTY")
    assert bench.take_asked() == [("06", "psu_running_mode", PsuRunningMode.FAULTY)]
    bench.run_until(5 * SECOND_NS)
    assert bench.take_asked()[0] == ("06", "psu_running_mode", PsuRunningMode.FAULTY)


def test_value_that_still_waits_in_a_round_does_not_undo_a_newer_one() -> None:
    bench = Bench(psu=PsuState(mac=MAC, alarms={"PowerUnit/Water": 1}))
    bench.perform(bench.model.connected(1, "peer 1", 0), answer=False)
    bench.answer(bench.asked[-1], answer=False)  # the round begins, and the alarm waits
    bench.tell("clear_alarm", name="PowerUnit/Water")
    bench.answer(bench.asked[-1])
    assert [row for row in bench.take_asked() if row[1] == "PowerUnit/Water"] == [("06", "PowerUnit/Water", 0)]


def test_ratings_are_written_at_once_and_told_from_then_on() -> None:
    bench = connected(connector_count=2)
    bench.tell("ratings", connector=2, max_voltage_v=500, power_kw=float("nan"))
    asked = bench.take_asked()
    assert [row[:2] for row in asked] == [("10", "2/max_rated_psu_voltage"), ("10", "2/rated_output_power_psu")]
    bench.tell("ratings", max_current_a=200)
    assert bench.take_asked() == [
        ("10", "1/max_rated_psu_current", 200.0),
        ("10", "2/max_rated_psu_current", 200.0),
    ]
    bench.run_until(10 * SECOND_NS)
    third = {row[1]: row[2] for row in bench.take_asked()}
    assert (third["1/max_rated_psu_voltage"], third["2/max_rated_psu_voltage"]) == (1000.0, 500.0)
    assert (third["1/max_rated_psu_current"], third["2/max_rated_psu_current"]) == (200.0, 200.0)


def test_rating_of_all_replaces_that_of_a_connector() -> None:
    bench = connected(connector_count=2)
    bench.tell("ratings", connector=2, max_voltage_v=500)
    bench.tell("ratings", max_voltage_v=800)
    assert bench.psu.ratings_at(1) == bench.psu.ratings_at(2)


@pytest.mark.parametrize("power_kw", [float("nan"), 0.0, -1.0])
def test_power_is_rated(power_kw: float) -> None:
    bench = connected()
    bench.tell("ratings", power_kw=power_kw)
    bench.goose(power(), 1)
    bench.run_until(5 * SECOND_NS)
    assert bench.take_asked()[-1] == ("10", "ac_input_current_c", 0.0)


def test_port_of_a_connector() -> None:
    bench = connected(connector_count=2)
    bench.tell("port_available", available=False, connector=2)
    bench.tell("port_available", available=False, connector=4)  # this dispenser has none
    assert bench.take_asked() == [("06", "2/psu_port_available", 0)]
    bench.tell("port_available", available=True)
    assert bench.take_asked() == [("06", "1/psu_port_available", 1), ("06", "2/psu_port_available", 1)]
    bench.tell("port_available", available=False, connector=1)
    bench.take_asked()
    bench.run_until(10 * SECOND_NS)
    ports = [row[1:] for row in bench.take_asked() if row[1].endswith("port_available")]
    assert ports == [("1/psu_port_available", 0), ("2/psu_port_available", 1)]


def test_words_anywhere() -> None:
    bench = connected()
    bench.tell("write", address=0x2008, words=[1, 2])
    assert bench.asked == [WriteAsked(1, 11, 0x10, 0x2008, (1, 2))]
    assert [event.event for event in bench.events] == ["step", "write_acknowledged"]
    assert bench.events[0].details["words"] == (1, 2)


# --- placeholder -------------------------------------------------------------------------------------------


def test_placeholder_requests_are_answered_refused_or_not_answered() -> None:
    bench = Bench(psu=PsuState(mac=MAC, placeholder=PlaceholderPolicy.REFUSE))
    bench.goose(PLACEHOLDER, 1)
    bench.tell("placeholder", reply="withhold", connector_no=5)
    bench.goose(PLACEHOLDER, 2)
    bench.tell("placeholder", reply="answer")  # for all, connector 5 too
    bench.goose(PLACEHOLDER, 3)
    replies = [action for action in bench.others if isinstance(action, ReplySent)]
    assert [(reply.st_num, reply.message.result, reply.key) for reply in replies] == [(1, 1, KEY), (2, 0, KEY)]
    names = [event.event for event in bench.events if event.event.startswith("placeholder")]
    assert names == ["placeholder_reply", "placeholder_withheld", "placeholder_reply"]


# --- keys --------------------------------------------------------------------------------------------------


def test_each_plug_in_has_its_own_key_if_keys_are_random() -> None:
    numbers = count(1)
    bench = Bench(new_key=lambda: bytes((next(numbers),)) * 48)
    bench.values |= IDENTITY
    bench.connect()
    bench.take_asked()
    assert bench.model.accepted_keys(DISPENSER, 5, 0) == ()
    for status in 1, 0, 1:
        bench.report(Segment(0x110B, (status,)))
    first, second = b"\1" * 48, b"\2" * 48
    assert bench.take_asked() == [
        ("read", "1/connector_no", None),
        ("read", "1/mac_address", None),
        ("10", "1/hmac_key", first),
        ("10", "1/hmac_key", second),  # who it is, is known by now
    ]
    assert bench.model.accepted_keys(DISPENSER, 5, SECOND_NS) == (second,)
    bench.goose(PLACEHOLDER, 1)
    (reply,) = (action for action in bench.others if isinstance(action, ReplySent))
    assert reply.key == second
    written = [event.details["key"] for event in bench.events if event.event == "key_written"]
    assert written == ["own", "own"]


def test_former_key_counts_until_the_new_one_is_acknowledged() -> None:
    numbers = count(1)
    bench = Bench(new_key=lambda: bytes((next(numbers),)) * 48)
    bench.values |= IDENTITY
    bench.connect()
    bench.report(Segment(0x110B, (1,)))
    bench.report(Segment(0x110B, (0,)))
    bench.asked.clear()
    bench.report(Segment(0x110B, (1,)), answer=False)
    assert bench.model.accepted_keys(DISPENSER, 5, SECOND_NS) == (b"\2" * 48, b"\1" * 48)
    bench.answer(bench.asked[-1])
    assert bench.model.accepted_keys(DISPENSER, 5, SECOND_NS) == (b"\2" * 48,)


def test_random_key_outlives_the_connection() -> None:
    bench = Bench(new_key=lambda: b"\7" * 48)
    bench.values |= IDENTITY
    bench.connect()
    bench.report(Segment(0x110B, (1,)))
    bench.perform(bench.model.disconnected(1, "closed"))
    assert bench.model.accepted_keys(DISPENSER, 5, SECOND_NS) == (b"\7" * 48,)


def test_key_command() -> None:
    bench = connected()
    bench.values |= IDENTITY
    bench.report(Segment(0x110B, (1,)))
    bench.take_asked()
    bench.tell("key", connector=1)
    bench.tell("key", connector=1, key="zero")
    assert bench.take_asked() == [("10", "1/hmac_key", KEY), ("10", "1/hmac_key", bytes(48))]
    assert bench.model.accepted_keys(DISPENSER, 5, SECOND_NS) == (KEY,)
    own = bytes(range(48))
    bench.tell("key", connector=1, key=own.hex())
    bench.tell("key", connector=1)
    assert bench.take_asked() == [
        ("read", "1/connector_no", None),
        ("read", "1/mac_address", None),
        ("10", "1/hmac_key", own),
        ("10", "1/hmac_key", own),
    ]
    assert bench.model.accepted_keys(DISPENSER, 5, SECOND_NS) == (own,)
    bench.tell("key", connector=1, key="new")
    assert bench.model.accepted_keys(DISPENSER, 5, SECOND_NS) == (KEY,)
    assert [event.details["key"] for event in bench.events if event.event == "key_written"] == [
        "fixed",
        "fixed",
        "zero",
        "own",
        "own",
        "fixed",
    ]


def test_key_command_for_a_connector_that_is_not_there_does_nothing() -> None:
    bench = connected()
    bench.tell("key", connector=2)
    assert bench.take_asked() == []


# --- connections -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("do", "reset"), [("drop", False), ("reset", True)])
def test_all_connections_are_closed(do: str, *, reset: bool) -> None:
    bench = Bench()
    bench.connect(1)
    bench.connect(2)
    bench.tell(do)
    assert bench.others == [DisconnectAsked(1, do, reset), DisconnectAsked(2, do, reset)]
    bench.take_asked()
    bench.report(Segment(0x110B, (1,)))  # on its way while the connection ended
    assert bench.take_asked() == []
    assert bench.model.due_ns is None


def test_silent_psu_asks_nothing_and_catches_up() -> None:
    bench = connected()
    bench.run_until(1 * SECOND_NS)
    bench.tell("silence", for_s=11)
    bench.report(Segment(0x110B, (1,)))
    bench.tell("alarm", name="PowerUnit/Water")
    bench.run_until(12 * SECOND_NS - 1)
    assert bench.take_asked() == []
    assert "report" in [event.event for event in bench.events]
    bench.run_until(12 * SECOND_NS)
    asked = [row[1] for row in bench.take_asked()]
    assert asked[:3] == ["1/hmac_key", "PowerUnit/Water", "psu_running_mode"]
    assert asked.count("psu_running_mode") == 1
    bench.run_until(15 * SECOND_NS)
    assert bench.take_asked()[0][1] == "psu_running_mode"  # the rounds keep their time
    assert "silence_ended" in [event.event for event in bench.events]


def test_silence_without_end_is_ended_by_0_s_and_counts_for_who_connects_meanwhile() -> None:
    bench = Bench()
    bench.tell("silence")
    bench.connect()
    assert bench.take_asked() == []
    assert bench.model.due_ns is None
    bench.tell("silence", for_s=0)
    assert bench.take_asked()[0][1] == "charging_connectors_count"


def test_answer_during_silence_counts_and_a_missing_one_ends_the_connection() -> None:
    bench = Bench()
    bench.perform(bench.model.connected(1, "peer 1", 0), answer=False)
    bench.tell("silence", for_s=60)
    bench.answer(bench.asked[-1])
    assert len(bench.asked) == 1
    bench.run_until(20 * SECOND_NS)
    assert bench.others == []


def test_port_is_closed_until_listen_or_for_a_while() -> None:
    bench = connected()
    bench.tell("refuse")
    bench.run_until(4 * SECOND_NS)
    assert bench.others == [ListenAsked(accept=False)]
    bench.tell("listen")
    bench.tell("refuse", for_s=2)
    bench.run_until(6 * SECOND_NS - 1)
    assert bench.others[1:] == [ListenAsked(accept=True), ListenAsked(accept=False)]
    bench.run_until(6 * SECOND_NS)
    assert bench.others[3:] == [ListenAsked(accept=True)]
    bench.run_until(20 * SECOND_NS)
    assert len(bench.others) == 4


def test_restart_forgets_keys_and_may_change_the_mac() -> None:
    bench = Bench(new_key=lambda: b"\7" * 48)
    bench.values |= IDENTITY
    bench.connect()
    bench.report(Segment(0x110B, (1,)))
    bench.goose(PLACEHOLDER, 1)
    bench.others.clear()
    bench.tell("restart", mac="02:00:00:00:00:99", for_s=2)
    assert bench.others == [DisconnectAsked(1, "the PSU restarts", reset=True), ListenAsked(accept=False)]
    assert bench.model.accepted_keys(DISPENSER, 5, 0) == ()
    bench.perform(bench.model.disconnected(1, "the PSU restarts"))
    bench.goose(PLACEHOLDER, 2)
    assert bench.events[-1].details == {"reason": "restarting"}
    bench.run_until(2 * SECOND_NS)
    assert bench.others[2:] == [ListenAsked(accept=True)]
    bench.take_asked()
    bench.connect(2)
    assert ("10", "psu_mac", bytes.fromhex("020000000099")) in bench.take_asked()
    bench.goose(PLACEHOLDER, 3)
    (reply,) = (action for action in bench.others if isinstance(action, ReplySent))
    assert reply.st_num == 1


def test_restart_without_a_pause_keeps_the_port_open() -> None:
    bench = connected()
    bench.tell("restart")
    assert bench.others == [DisconnectAsked(1, "the PSU restarts", reset=True)]
    bench.goose(power(), 1)
    assert bench.events[-1].event == "power_request"


# --- scenario ----------------------------------------------------------------------------------------------


def test_scenario_counts_from_the_first_connect() -> None:
    alarm = command_from({"do": "alarm", "name": "PowerUnit/Smoke"})
    clear = command_from({"do": "clear_alarm"})
    bench = Bench(scenario=Scenario("connected", (Step(2, 1.0, alarm), Step(1, 1.5, clear))))
    bench.model.listening(0)
    bench.run_until(3 * SECOND_NS)
    bench.connect()
    bench.take_asked()
    bench.run_until(4 * SECOND_NS - 1)
    assert bench.take_asked() == []
    bench.run_until(4 * SECOND_NS)
    assert bench.take_asked() == [("06", "PowerUnit/Smoke", 1)]
    bench.run_until(5 * SECOND_NS)
    assert bench.take_asked() == [("06", "PowerUnit/Smoke", 0)]
    steps = [event.details for event in bench.events if event.event == "step"]
    assert steps[0] == {
        "source": "scenario",
        "step": 2,
        "do": "alarm",
        "name": "PowerUnit/Smoke",
        "value": 1,
        "dispensers": 1,
    }
    assert steps[1] == {"source": "scenario", "step": 1, "do": "clear_alarm", "dispensers": 1}


def test_scenario_counts_from_the_start_if_it_says_so() -> None:
    bench = Bench(scenario=Scenario("start", (Step(1, 1.0, command_from({"do": "refuse"})),)))
    bench.model.listening(0)
    bench.run_until(SECOND_NS)
    assert bench.others == [ListenAsked(accept=False)]
