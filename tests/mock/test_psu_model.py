"""The PSU model on a time of the test's own: what it asks when, and what it makes of GOOSE."""

import pytest
from fusioncharger.io.modbus_psu_codec import ExceptionAnswer, ReadAnswer, WriteAnswer
from fusioncharger.messages.goose import bits_of_float
from fusioncharger.messages.outputs import Segment
from fusioncharger.messages.types import RequirementType
from fusioncharger.mock.actions import Action, DisconnectAsked, PowerPublished, ReplySent
from fusioncharger.mock.commands import command_from
from fusioncharger.mock.dispenser_session import KEY
from fusioncharger.mock.psu_state import PsuState
from fusioncharger.mock.scenario import Scenario, Step
from model_bench import DISPENSER, MAC, PLACEHOLDER, SECOND_NS, STOP, Bench, power


def round_of(connector_count: int, *, energy: float = 0.0, current: float = 0.0) -> list[object]:
    """What a round without ratings asks."""
    return [
        ("06", "psu_running_mode", 1),
        ("10", "psu_mac", MAC),
        *(("read", f"{connector}/working_status", None) for connector in range(1, connector_count + 1)),
        ("10", "total_historic_input_energy", energy),
        *(("10", f"ac_input_voltage_{phase}", 230.0) for phase in "abc"),
        *(("10", f"ac_input_current_{phase}", pytest.approx(current)) for phase in "abc"),
    ]


# --- rounds ------------------------------------------------------------------------------------------------


def test_first_round_follows_the_number_of_connectors_at_once() -> None:
    bench = Bench(connector_count=2)
    bench.connect()
    assert bench.take_asked() == [("read", "charging_connectors_count", None), *round_of(2)]
    assert [event.event for event in bench.events] == ["connected", "connectors_counted", "round_done"]
    assert bench.events[0].details == {"peer": "peer 1"}


def test_requests_count_their_transactions_from_zero() -> None:
    bench = Bench()
    bench.connect()
    assert [asked.transaction_id for asked in bench.asked] == list(range(11))


def test_round_every_5_s_and_ratings_from_the_third() -> None:
    bench = Bench(connector_count=2)
    bench.connect()
    bench.take_asked()
    bench.run_until(5 * SECOND_NS - 1)
    assert bench.take_asked() == []
    bench.run_until(5 * SECOND_NS)
    assert bench.take_asked() == round_of(2)
    bench.run_until(10 * SECOND_NS)
    third = bench.take_asked()
    assert third[2:16] == [
        rating
        for connector in (1, 2)
        for rating in (
            ("10", f"{connector}/max_rated_psu_voltage", 1000.0),
            ("10", f"{connector}/max_rated_psu_current", 100.0),
            ("10", f"{connector}/min_rated_psu_voltage", 100.0),
            ("10", f"{connector}/min_rated_psu_current", 1.0),
            ("10", f"{connector}/rated_output_power_psu", 60.0),
            ("06", f"{connector}/psu_port_available", 1),
            ("read", f"{connector}/working_status", None),
        )
    ]
    assert third[:2] + third[16:] == [row for row in round_of(2) if row[0] != "read"]
    bench.run_until(15 * SECOND_NS)
    assert len(bench.take_asked()) == len(third)


def test_ratings_at_once() -> None:
    bench = Bench(psu=PsuState(mac=MAC, first_round_with_ratings=1))
    bench.connect()
    asked = [row[1] for row in bench.take_asked()]
    assert asked[3:9] == [
        "1/max_rated_psu_voltage",
        "1/max_rated_psu_current",
        "1/min_rated_psu_voltage",
        "1/min_rated_psu_current",
        "1/rated_output_power_psu",
        "1/psu_port_available",
    ]


def test_alarms_from_the_start_follow_the_mac_in_the_first_round() -> None:
    bench = Bench(psu=PsuState(mac=MAC, alarms={"PowerUnit/Water": 1, "AcBranch/AcBranch1": 0x80}))
    bench.connect()
    assert bench.take_asked()[3:5] == [("06", "PowerUnit/Water", 1), ("10", "AcBranch/AcBranch1", 0x80)]
    bench.run_until(5 * SECOND_NS)
    assert bench.take_asked() == round_of(1)


def test_global_number_is_read_while_charging() -> None:
    bench = Bench()
    bench.values |= {0x110B: 3, 0x110E: 7}
    bench.connect()
    asked = bench.take_asked()
    assert asked[asked.index(("read", "1/working_status", None)) + 1] == ("read", "1/connector_no", None)
    assert bench.take_events("connector_identified") == [{"peer": "peer 1", "connector": 1, "connector_no": 7}]


def test_each_dispenser_has_its_own_rounds() -> None:
    bench = Bench()
    bench.connect(1)
    bench.run_until(2 * SECOND_NS)
    bench.connect(2)
    bench.asked.clear()
    bench.run_until(5 * SECOND_NS)
    assert {asked.connection for asked in bench.asked} == {1}
    bench.asked.clear()
    bench.run_until(7 * SECOND_NS)
    assert {asked.connection for asked in bench.asked} == {2}
    bench.perform(bench.model.disconnected(1, "closed"))
    bench.perform(bench.model.disconnected(2, "closed"))
    assert bench.model.due_ns is None
    assert bench.take_events("disconnected") == [
        {"peer": "peer 1", "reason": "closed"},
        {"peer": "peer 2", "reason": "closed"},
    ]


def test_same_history_gives_the_same_actions() -> None:
    def history() -> list[Action]:
        bench = Bench(connector_count=4)
        bench.connect()
        bench.report(Segment(0x110B, (1,)))
        bench.goose(PLACEHOLDER, 1)
        bench.run_until(30 * SECOND_NS)
        return [*bench.asked, *bench.events, *bench.others]

    assert history() == history()


# --- answers that go wrong ---------------------------------------------------------------------------------


def test_one_request_at_a_time() -> None:
    bench = Bench()
    bench.perform(bench.model.connected(1, "peer 1", 0), answer=False)
    bench.report(Segment(0x110B, (1,)), answer=False)
    assert len(bench.asked) == 1
    bench.answer(bench.asked[0], answer=False)
    assert len(bench.asked) == 2


def test_no_answer_for_5_s_ends_the_connection() -> None:
    bench = Bench()
    bench.perform(bench.model.connected(1, "peer 1", 0), answer=False)
    bench.run_until(5 * SECOND_NS)
    assert bench.others == [DisconnectAsked(1, "no answer to a request for 5 s")]
    assert bench.model.due_ns is None


def test_round_is_left_out_while_the_last_one_is_not_done() -> None:
    bench = Bench()
    bench.perform(bench.model.connected(1, "peer 1", 0), answer=False)
    bench.answer(bench.asked[-1], answer=False)
    bench.now_ns = 4 * SECOND_NS
    bench.answer(bench.asked[-1], answer=False)
    asked = len(bench.asked)
    bench.perform(bench.model.timer(5 * SECOND_NS), answer=False)
    assert len(bench.asked) == asked
    bench.answer(bench.asked[-1])
    assert [row[1] for row in bench.take_asked()].count("psu_running_mode") == 1


def test_refused_request_is_observed_and_the_next_one_goes_out() -> None:
    bench = Bench()
    bench.perform(bench.model.connected(1, "peer 1", 0), answer=False)
    bench.answer(bench.asked[-1], answer=False)
    bench.perform(bench.model.received(1, ExceptionAnswer(1, 0xFF, 0x06, 4), 0), answer=False)
    assert bench.take_events("request_refused") == [
        {
            "peer": "peer 1",
            "function": 6,
            "address": 0x2006,
            "register": "psu_running_mode",
            "exception_code": 4,
        }
    ]
    assert bench.take_asked()[-1][1] == "psu_mac"


@pytest.mark.parametrize(
    "event",
    [
        ReadAnswer(1, 0xFF, (1,)),  # another transaction
        WriteAnswer(0, 0xFF, 0x06, 0x1015, 1),  # another function
        ExceptionAnswer(0, 0xFF, 0x06, 1),
    ],
)
def test_answer_to_what_was_not_asked_is_observed_only(
    event: ReadAnswer | WriteAnswer | ExceptionAnswer,
) -> None:
    bench = Bench()
    bench.perform(bench.model.connected(1, "peer 1", 0), answer=False)
    bench.perform(bench.model.received(1, event, 0), answer=False)
    assert len(bench.asked) == 1
    assert len(bench.take_events("unexpected_answer")) == 1


@pytest.mark.parametrize(
    "event", [ReadAnswer(0, 0xFF, (0,)), ReadAnswer(0, 0xFF, ()), ExceptionAnswer(0, 0xFF, 3, 4)]
)
def test_dispenser_whose_connectors_cannot_be_counted_is_left(event: ReadAnswer | ExceptionAnswer) -> None:
    bench = Bench()
    bench.perform(bench.model.connected(1, "peer 1", 0), answer=False)
    bench.perform(bench.model.received(1, event, 0))
    (left,) = bench.others
    assert isinstance(left, DisconnectAsked)


# --- reports and keys --------------------------------------------------------------------------------------


def test_report_is_observed_with_its_registers_by_name() -> None:
    bench = Bench()
    bench.connect()
    bench.report(
        Segment(0x1024, (0x6B03, 0xB702)),
        Segment(0x3001, (0, 0, 1, 0)),
        Segment(0x1D0B, (8,)),  # connector 2
        Segment(0x114D, (0x0200, 0, 2)),
        Segment(0x110B, ()),
        Segment(0x1102, (1, 2)),  # half a register
    )
    (report,) = bench.take_events("report")
    assert report == {
        "peer": "peer 1",
        "transaction_id": 3,
        "registers": {
            "time_sync": 0x6B03B702,
            "door_status_alarm": 0,
            "water_alarm": 0,
            "epo_alarm": 1,
            "tilt_alarm": 0,
            "2/working_status": 8,
            "1/mac_address": "020000000002",
        },
    }


def test_key_is_written_each_time_a_connector_enters_inserted() -> None:
    bench = Bench(connector_count=2)
    bench.connect()
    bench.take_asked()
    written = []
    for status in 0, 1, 1, 8, 3, 4, 1, 0, 1:
        bench.report(Segment(0x1D0B, (status,)))
        written.append(bench.take_asked())
    key = [("10", "2/hmac_key", KEY)]
    assert written == [[], key, [], [], [], [], key, [], key]
    assert bench.take_events("key_written") == [{"peer": "peer 1", "connector": 2, "key": "fixed"}] * 3


def test_key_is_written_if_the_first_report_shows_inserted() -> None:
    bench = Bench()
    bench.connect()
    bench.take_asked()
    bench.report(Segment(0x110B, (1,)))
    assert bench.take_asked() == [("10", "1/hmac_key", KEY)]


def test_key_goes_before_the_rest_of_a_round() -> None:
    bench = Bench()
    bench.perform(bench.model.connected(1, "peer 1", 0), answer=False)
    bench.answer(bench.asked[-1], answer=False)  # the round begins
    bench.report(Segment(0x110B, (1,)), answer=False)
    bench.answer(bench.asked[-1])
    assert [row[1] for row in bench.take_asked()][:4] == [
        "charging_connectors_count",
        "psu_running_mode",
        "1/hmac_key",
        "psu_mac",
    ]
    assert len(bench.take_events("key_acknowledged")) == 1


# --- GOOSE -------------------------------------------------------------------------------------------------


def test_frames_are_observed_and_repeats_marked() -> None:
    bench = Bench()
    bench.goose(power(), 1)
    bench.goose(power(), 1, sq_num=1)
    bench.goose(STOP, 2)
    first, repeat = (event.details for event in bench.events[:2])
    assert first == {
        "src": "02:00:00:00:00:02",
        "connector_no": 5,
        "st_num": 1,
        "sq_num": 0,
        "message_utc": 101.5,
        "repeat": False,
        "requirement_type": "CHARGING",
        "mode": "CONSTANT_CURRENT",
        "voltage": 400.0,
        "current": 57.5,
    }
    assert (repeat["sq_num"], repeat["repeat"]) == (1, True)
    (stop,) = bench.take_events("stop_request")
    assert (stop["reason"], stop["repeat"]) == ("NORMAL", False)


def test_each_new_placeholder_request_is_answered_once() -> None:
    bench = Bench()
    bench.goose(PLACEHOLDER, 1)
    bench.goose(PLACEHOLDER, 1, sq_num=1)
    bench.goose(power(), 2)
    bench.goose(PLACEHOLDER, 3)
    bench.goose(PLACEHOLDER, 3, src=MAC[:5] + b"\x09")
    replies = [action for action in bench.others if isinstance(action, ReplySent)]
    assert [(reply.st_num, reply.sq_num, reply.dst) for reply in replies] == [
        (1, 0, DISPENSER),
        (2, 0, DISPENSER),
        (3, 0, MAC[:5] + b"\x09"),
    ]
    message = replies[0].message
    assert (message.connector_no, message.requirement_type, message.result) == (5, 1, 0)
    assert (message.voltage_bits, message.current_bits, message.mode) == (bits_of_float(0.0), 0, 2)
    assert [event["st_num"] for event in bench.take_events("placeholder_reply")] == [1, 2, 3]


@pytest.mark.parametrize("number", [0, 13, 65535])
def test_frame_of_an_impossible_connector_is_dropped(number: int) -> None:
    bench = Bench()
    bench.goose(power(connector_no=number), 1)
    assert bench.others == []
    assert bench.take_events("goose_dropped") == [{"reason": "wrong_connector", "connector_no": number}]


def test_drawn_power_shows_in_the_ac_input_and_the_energy() -> None:
    bench = Bench()
    bench.connect()
    bench.goose(power(), 1)  # 23 kW
    bench.goose(power(connector_no=6), 1)
    bench.goose(power(RequirementType.PRECHARGE_VOLTAGE_OUTPUT, connector_no=7), 1)
    bench.take_asked()
    bench.run_until(5 * SECOND_NS)
    energy = pytest.approx(46 * 5 / 3600)
    assert bench.take_asked() == round_of(1, energy=energy, current=46_000 / 230 / 3)


def test_power_ends_with_a_stop_request() -> None:
    bench = Bench()
    bench.connect()
    bench.goose(power(), 1)
    bench.run_until(1 * SECOND_NS)
    bench.goose(STOP, 2)
    bench.take_asked()
    bench.run_until(5 * SECOND_NS)
    assert bench.take_asked() == round_of(1, energy=pytest.approx(23 / 3600))


def test_power_ends_when_frames_stay_away_for_the_time_allowed_to_live() -> None:
    bench = Bench()
    bench.connect()
    bench.goose(power(), 1)
    bench.run_until(14 * SECOND_NS)
    bench.take_asked()
    bench.run_until(15 * SECOND_NS)
    asked = bench.take_asked()
    assert asked[-1] == ("10", "ac_input_current_c", 0.0)
    assert asked[-7] == ("10", "total_historic_input_energy", pytest.approx(230 / 3600))


def test_power_that_is_no_number_draws_nothing() -> None:
    bench = Bench()
    bench.connect()
    bench.goose(power(voltage_v=float("nan")), 1)
    bench.goose(power(voltage_v=float("inf"), connector_no=6), 1)
    bench.take_asked()
    bench.run_until(5 * SECOND_NS)
    assert bench.take_asked() == round_of(1)


def test_power_is_published_on_change_at_once_and_unchanged_once_a_second() -> None:
    bench = Bench()
    published = []
    # (at ms, message, stNum)
    for at_ms, message, st_num in (
        (0, power(), 1),
        (2, power(), 1),
        (12, power(current_a=20.0), 2),
        (500, power(RequirementType.PRECHARGE_VOLTAGE_OUTPUT, current_a=20.0), 3),
        (1010, power(current_a=20.0), 3),
        (1500, STOP, 4),
        (2498, STOP, 4),
    ):
        bench.now_ns = at_ms * 1_000_000
        bench.goose(message, st_num)
        published += [(at_ms, action) for action in bench.others if isinstance(action, PowerPublished)]
        bench.others.clear()
    assert published == [
        (0, PowerPublished(5, 400.0, 57.5)),
        (12, PowerPublished(5, 400.0, 20.0)),
        (1010, PowerPublished(5, 400.0, 20.0)),
        (1500, PowerPublished(5, 0.0, 0.0)),
        (2498, PowerPublished(5, 0.0, 0.0)),
    ]


@pytest.mark.parametrize(("voltage_v", "current_a"), [(3e38, 3e38), (-400.0, 50.0), (3e38, -3e38)])
def test_a_request_that_no_car_makes_leaves_the_grid_as_it_is_or_at_its_limit(
    voltage_v: float, current_a: float
) -> None:
    """Found by fuzzing: a negative product, or a scenario's rating without measure, fitted no register."""
    bench = Bench(
        scenario=Scenario("connected", (Step(1, 1.0, command_from({"do": "ratings", "power_kw": 3e38})),))
    )
    bench.connect()
    bench.run_until(2 * SECOND_NS)
    bench.goose(power(voltage_v=voltage_v, current_a=current_a), 1)
    bench.take_asked()
    bench.run_until(7 * SECOND_NS)
    drawn_a = {name: value for _, name, value in bench.take_asked() if str(name).startswith("ac_input_current")}
    assert len(drawn_a) == 3
    assert all(0 <= value < 1e10 for value in drawn_a.values())
