"""The link to the PSU (protocol.md §2, behaviour.md §2), through Inputs and Outputs."""

import pytest
from core_harness import OWN_MAC, PSU_MAC, SECOND_NS, UTC_OFFSET_NS, Core, make_config, only
from fusioncharger.messages import inputs, outputs
from fusioncharger.messages.registers import encode
from fusioncharger.messages.types import BspEvent


def reports(made: list[outputs.AnyOutput]) -> list[outputs.ReportSent]:
    return only(made, outputs.ReportSent)


def shown(report: outputs.ReportSent) -> dict[int, int]:
    return {
        segment.address + offset: word
        for segment in report.segments
        for offset, word in enumerate(segment.words)
    }


# --- the register image ---------------------------------------------------------------------------------------


def test_start_values_are_there_before_any_event() -> None:
    settings = 'esn = "ESN1"\nsoftware_version = "1.2.3"\nprotocol_version = 7\nhardware_version = 8\n'
    core = Core(make_config(2, settings)).start()
    core.feed(inputs.PsuConnected(connection=1))
    expected: dict[str, int | float | str | bytes] = {
        "manufacturer": 2,
        "model": 0x80,
        "protocol_version": 7,
        "hardware_version": 8,
        "software_version": "1.2.3",
        "charging_connectors_count": 2,
        "esn_dispenser": "ESN1",
        "door_status_alarm": 0,
        "epo_alarm": 0,
        "2/total_energy_charged": 0.0,
        "2/connector_type": 2,
        "2/maximum_rated_charge_current": 100.0,
        "2/output_voltage": 0.0,
        "2/output_current": 0.0,
        "2/working_status": 0,
        "2/connection_status": 0,
        "2/connector_no": 6,
        "2/contactor_upstream_voltage": 0.0,
        "2/mac_address": OWN_MAC,
        "2/contactor_status": 0,
        "2/electronic_lock_status": 1,
        "2/rated_output_power_connector": 60.0,
        "2/dc_output_contactor_fault": 0,
        "2/inverse_connection_dispenser_inlet_cable": 0,
    }
    for key, value in expected.items():
        assert core.read_register(key) == encode(core.map.by_key[key], value), key


def test_reads_over_gaps_and_parts_of_registers() -> None:
    core = Core().ready()
    assert core.read(0x0000, 5) == (2, 0x80, 1, 0, 1)
    assert core.read(0x3000, 3) == (0, 0, 0)
    assert core.read(0x1106, 1) == (0,)  # low word of 100.0 as f32
    assert core.read(0x1105, 1) == (0x42C8,)
    assert core.read(0xFFFF, 1) == (0,)


def test_reports_without_a_change_differ_in_time_sync_alone() -> None:
    core = Core().start().connect()
    first, second = (only(core.advance(1), outputs.ReportSent)[-1].segments for _ in range(2))
    assert first[1:] == second[1:]
    assert (first[0].address, second[0].address) == (0x1024, 0x1024)
    assert second[0].words[1] == first[0].words[1] + 1
    core.plug_in()
    assert only(core.history, outputs.ReportSent)[-1].segments[1:] != first[1:]


def test_time_sync_follows_utc() -> None:
    core = Core().ready()
    core.advance(10)
    seconds = (core.at_ns + 1_000_000 + UTC_OFFSET_NS) // SECOND_NS
    assert core.read_register("time_sync") == (seconds >> 16, seconds & 0xFFFF)
    core.feed(inputs.UtcOffsetChanged(utc_offset_ns=0))
    assert core.read_register("time_sync") == (0, core.at_ns // SECOND_NS)


@pytest.mark.parametrize("function", [0x06, 0x10])
def test_writes_are_acknowledged(function: int) -> None:
    core = Core().ready()
    (answer,) = only(core.write_words(0x2006, (1,), function), outputs.WriteAnswered)
    assert answer == outputs.WriteAnswered(
        connection=1, transaction_id=7, unit_id=0xFF, function=function, address=0x2006, value=1
    )
    assert core.read_register("psu_running_mode") == (1,)


def test_a_partial_write_changes_just_those_words() -> None:
    core = Core().ready()
    core.write("1/max_rated_psu_voltage", 1000.0)
    core.write_words(0x2101, (0x1234,))
    assert core.read_register("1/max_rated_psu_voltage") == (0x447A, 0x1234)
    core.write_words(0x2102, (0x4248,))  # never written before: the rest is zero
    assert core.read_register("1/max_rated_psu_current") == (0x4248, 0)


def test_one_write_over_several_registers_and_gaps() -> None:
    core = Core().ready()
    core.write_words(0x2100, (1, 2, 3, 4, 5, 6, 7, 8, 9))
    assert core.read(0x2100, 9) == (1, 2, 3, 4, 0, 6, 7, 8, 9)


def test_writes_to_what_is_not_the_psus_have_no_effect() -> None:
    core = Core().ready()
    assert only(core.write_words(0x0000, (9,)), outputs.WriteAnswered) != []
    assert only(core.write_words(0x0500, (9,)), outputs.WriteAnswered) != []
    assert core.read(0x0000, 1) == (2,)
    assert core.read(0x0500, 1) == (0,)


def test_the_key_is_never_in_the_image() -> None:
    core = Core().ready()
    core.write_words(0x2115, (0xFFFF,) * 24)
    assert core.read(0x2115, 24) == (0,) * 24


@pytest.mark.parametrize(("address", "count"), [(0xFFFF, 2), (0xFFF0, 17)])
def test_ranges_must_not_wrap(address: int, count: int) -> None:
    core = Core().ready()
    made = core.write_words(address, (0,) * count)
    assert [answer.exception_code for answer in only(made, outputs.ExceptionAnswered)] == [2]
    made = core.feed(
        inputs.RegistersRead(connection=1, transaction_id=9, unit_id=3, address=address, count=count, adu=b"")
    )
    assert only(made, outputs.ExceptionAnswered) == [
        outputs.ExceptionAnswered(connection=1, transaction_id=9, unit_id=3, function=3, exception_code=2)
    ]


def test_refused_requests_get_their_exception() -> None:
    core = Core().ready()
    made = core.feed(
        inputs.ModbusRequestRefused(
            connection=1,
            transaction_id=4,
            unit_id=0,
            function=0x2B,
            exception_code=1,
            reason="unknown function 0x2b",
            adu=b"",
        )
    )
    assert only(made, outputs.ExceptionAnswered) == [
        outputs.ExceptionAnswered(connection=1, transaction_id=4, unit_id=0, function=0x2B, exception_code=1)
    ]


def test_reports_and_answers_from_the_psu_are_never_answered() -> None:
    core = Core().ready()
    made = core.feed(inputs.UnexpectedPduReceived(connection=1, function=0x41, adu=b""))
    assert [type(output) for output in made] == [outputs.LogWritten]


# --- reports --------------------------------------------------------------------------------------------------


def test_the_first_report_comes_one_second_after_connecting() -> None:
    core = Core().start()
    core.feed(inputs.PsuConnected(connection=1))
    assert reports(core.advance(0.99)) == []
    (report,) = reports(core.advance(0.02))
    assert report.transaction_id == 0
    assert [r.transaction_id for r in reports(core.advance(3))] == [1, 2, 3]
    seconds = (UTC_OFFSET_NS + SECOND_NS) // SECOND_NS
    assert [(segment.address, segment.words) for segment in report.segments] == [
        (0x1024, (seconds >> 16, seconds & 0xFFFF)),
        (0x3001, (0, 0, 0, 0)),
        (0x110B, (0,)),
        (0x110D, (0,)),
        (0x1154, (0,)),
        (0x1156, (1,)),
        (0x3105, (0,)),
        (0x3115, (0,)),
    ]


def test_a_report_with_four_connectors_has_at_most_199_bytes() -> None:
    core = Core(make_config(4)).ready()
    for connector in (1, 2, 3, 4):
        core.plug_in(connector)
        core.key(connector)
    for connector in (1, 2, 3, 4):
        core.reply(connector)  # a charging_event that no report has shown yet
    (report,) = reports(core.advance(1))
    assert {0x117E, 0x1D7E, 0x1E7E, 0x1F7E} <= shown(report).keys()
    head_bytes = 1 + 1 + 2 + 1 + 2 + 2 + 2  # function, 0x91, length, response, devices, location, segments
    pdu_bytes = head_bytes + sum(4 + 2 * len(segment.words) for segment in report.segments)
    assert pdu_bytes <= 199


def test_changes_are_reported_at_once_and_restart_the_second() -> None:
    core = Core().ready()
    core.advance(0.5)
    (report,) = reports(core.plug_in())
    assert shown(report)[0x110B] == 1
    assert shown(report)[0x110D] == 2
    assert reports(core.advance(0.99)) == []
    assert len(reports(core.advance(0.02))) == 1
    (report,) = reports(core.feed(inputs.BspEventReceived(connector=1, event=BspEvent.POWER_ON)))
    assert shown(report)[0x1154] == 1


def test_the_report_follows_the_answer_of_its_turn() -> None:
    core = Core().ready()
    core.plug_in()
    made = core.key()
    order = [type(output).__name__ for output in made]
    assert order.index("PowerRequested") < order.index("ReportSent")


def test_a_charging_event_stands_in_the_next_report_only() -> None:
    core = Core().ready()
    (report,) = reports(core.plug_in())
    assert shown(report)[0x117E] == 0
    core.key()
    assert reports(core.reply()) == []  # working_status stays CHARGING_STARTING
    (report,) = reports(core.advance(1))
    assert shown(report)[0x117E] == 1
    (report,) = reports(core.advance(1))
    assert 0x117E not in shown(report)


def test_nothing_is_reported_while_not_connected() -> None:
    core = Core().start()
    assert reports(core.plug_in()) == []
    core.connect()
    (report,) = reports(core.advance(1))
    assert 0x117E not in shown(report)  # of a former connection, or of none: forgotten
    assert shown(report)[0x110B] == 1


# --- the link's life ------------------------------------------------------------------------------------------


def test_reconnect_backs_off_from_10_ms_to_1_s_for_ever() -> None:
    core = Core().start()
    assert only(core.history, outputs.PsuConnectRequested) == [outputs.PsuConnectRequested(connection=1)]
    delays = []
    for _ in range(12):
        made = core.feed(inputs.PsuConnectFailed(connection=core.connection, reason="refused"), 0)
        (timer,) = [t for t in only(made, outputs.StartTimer) if t.name == "reconnect"]
        delays.append(timer.delay_ns // 1_000_000)
        assert len(only(core.advance(timer.delay_ns / SECOND_NS), outputs.PsuConnectRequested)) == 1
    assert delays == [10, 20, 40, 80, 160, 320, 640, 1000, 1000, 1000, 1000, 1000]
    assert core.connection == 13


def test_backoff_starts_anew_after_ten_seconds_of_ready() -> None:
    def delay_after(core: Core) -> int:
        made = core.feed(inputs.PsuDisconnected(connection=core.connection, reason="closed"), 0)
        (timer,) = [t for t in only(made, outputs.StartTimer) if t.name == "reconnect"]
        core.advance(timer.delay_ns / SECOND_NS)
        return timer.delay_ns // 1_000_000

    core = Core().ready()
    core.advance(5)
    assert delay_after(core) == 10
    core.connect()
    core.advance(9)
    assert delay_after(core) == 20
    core.connect()
    core.advance(10)
    assert delay_after(core) == 10


def test_a_refused_connection_is_logged_once_and_stops_nothing_again() -> None:
    core = Core().ready().to_charging()
    core.feed(inputs.PsuDisconnected(connection=1, reason="closed"))
    core.advance(0.02)
    made = core.feed(inputs.PsuConnectFailed(connection=2, reason="refused"))
    assert only(made, outputs.StopRequested) == []
    assert [line.text for line in only(made, outputs.LogWritten)] == [
        "link to the PSU failed: refused; trying again"
    ]
    core.advance(0.04)
    made = core.feed(inputs.PsuConnectFailed(connection=3, reason="refused"))
    assert only(made, outputs.LogWritten) == []
    core.advance(0.08)
    core.connect()
    core.feed(inputs.PsuDisconnected(connection=4, reason="closed"))
    core.advance(0.16)
    made = core.feed(inputs.PsuConnectFailed(connection=5, reason="refused"))
    assert len(only(made, outputs.LogWritten)) == 1  # a new series


def test_silence_fails_the_link() -> None:
    core = Core(make_config(settings="modbus_timeout_s = 5\n")).ready().to_charging()
    core.advance(3)
    core.write("psu_running_mode", 1)
    made = core.advance(4.9)
    assert only(made, outputs.PsuDisconnectRequested) == []
    made = core.advance(0.2)
    assert only(made, outputs.PsuDisconnectRequested)[0].connection == 1
    assert len(only(made, outputs.StopRequested)) == 1
    # What the link still says of that connection comes too late.
    assert core.feed(inputs.PsuDisconnected(connection=1, reason="closed"), 0) == []


def test_what_belongs_to_a_former_connection_is_ignored() -> None:
    core = Core().ready()
    core.feed(inputs.PsuDisconnected(connection=1, reason="closed"))
    core.advance(0.02)
    core.feed(inputs.PsuConnected(connection=2))
    late = inputs.RegistersRead(connection=1, transaction_id=1, unit_id=1, address=0, count=1, adu=b"")
    assert core.feed(late) == []


def test_what_the_psu_wrote_is_forgotten_with_the_link() -> None:
    core = Core().ready()
    core.write("psu_running_mode", 1)
    core.write("1/max_rated_psu_voltage", 1000.0)
    core.feed(inputs.PsuDisconnected(connection=1, reason="closed"))
    core.advance(0.02)
    core.feed(inputs.PsuConnected(connection=2))
    assert core.read_register("psu_running_mode") == (0,)
    assert core.read_register("1/max_rated_psu_voltage") == (0, 0)
    assert core.read_register("psu_mac") == (0, 0, 0)
    # The same MAC counts as known anew.
    assert "MAC" in only(core.write("psu_mac", PSU_MAC), outputs.LogWritten)[0].text


def test_an_all_zero_mac_is_none() -> None:
    core = Core().start()
    core.feed(inputs.PsuConnected(connection=1))
    assert only(core.write("psu_mac", bytes(6)), outputs.LogWritten) == []


def test_dropped_frames_are_logged_once_a_minute() -> None:
    core = Core().ready()
    made = core.feed(inputs.GooseFramesDropped(counts={"bad_hmac": 3}))
    assert "bad_hmac: 3" in only(made, outputs.LogWritten)[0].text
    assert core.feed(inputs.GooseFramesDropped(counts={"bad_hmac": 4}), 1) == []
    core.write("psu_running_mode", 1)
    assert only(core.feed(inputs.GooseFramesDropped(counts={"bad_crc": 1}), 59.5), outputs.LogWritten) != []


def test_frames_played_again_are_logged_with_the_first_of_them() -> None:
    core = Core().ready()
    observed = inputs.GooseFramesDropped(counts={}, suspected={"replayed": 2}, example="connector 5: stNum 3")
    (line,) = only(core.feed(observed), outputs.LogWritten)
    assert line.text.startswith(
        "GOOSE frames accepted that look played again (replayed: 2; connector 5: stNum 3); further ones"
    )
    assert only(core.feed(observed), outputs.LogWritten) == []
    enforced = inputs.GooseFramesDropped(counts={"replayed": 2}, example="connector 5: stNum 3")
    (line,) = only(core.feed(enforced), outputs.LogWritten)
    assert line.text.startswith("GOOSE frames dropped (replayed: 2; connector 5: stNum 3); further ones")


def test_connecting_and_the_tls_handshake_may_take_longer_than_the_link_may_be_silent() -> None:
    """They have limits of their own; silence counts from the connection on."""
    core = Core(make_config(settings="modbus_timeout_s = 2\n")).start()
    assert not only(core.advance(9.0), outputs.PsuDisconnectRequested)
    core.connect()
    assert core.connection == 1
    assert not only(core.advance(1.9), outputs.PsuDisconnectRequested)
    (given_up,) = only(core.advance(2.5), outputs.PsuDisconnectRequested)
    assert given_up.reason == "nothing received for 2 s"
