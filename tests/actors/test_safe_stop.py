"""A handler that raises (behaviour.md §10). The fault is injected into an actor's class; everything else goes
through Inputs and Outputs."""

from collections.abc import Callable
from typing import Any

import pytest
from core_harness import Core, goose, make_config, only
from fusioncharger.actors.connector import Connector
from fusioncharger.actors.dispenser_alarms import DispenserAlarms
from fusioncharger.actors.psu_link import PsuLink
from fusioncharger.actors.telemetry_publisher import TelemetryPublisher
from fusioncharger.messages import inputs, outputs
from fusioncharger.messages.internal import DatapointsChanged, LinkLost, RegistersChanged
from fusioncharger.messages.outputs import Segment
from fusioncharger.messages.types import BspEvent, Level, Mode, RequirementType

Inject = Callable[..., None]
STOP = (None, 0.0, 0.0)
TRIGGER_V = 666.0


@pytest.fixture
def inject(monkeypatch: pytest.MonkeyPatch) -> Inject:
    """Let an actor's method raise when a condition on its first argument holds."""

    def patch(actor: type, method: str, condition: Callable[[Any], bool]) -> None:
        original = getattr(actor, method)

        def faulty(self: Any, *arguments: Any) -> Any:
            if condition(arguments[0] if arguments else self):
                raise RuntimeError("injected")
            return original(self, *arguments)

        monkeypatch.setattr(actor, method, faulty)

    return patch


def is_trigger(message: Any) -> bool:
    return isinstance(message, inputs.SetpointRequested) and message.voltage_v == TRIGGER_V


def test_the_connector_stops_and_the_other_one_charges_on(inject: Inject) -> None:
    inject(Connector, "handle", is_trigger)
    core = Core(make_config(2)).ready().to_charging(connector=1).to_charging(connector=2)
    made = core.setpoint(TRIGGER_V, 1, connector=1)
    assert made[0] == outputs.TurnFailed(actor="connector/1", exception_type="RuntimeError", message="injected")
    assert goose(made) == [STOP]
    assert only(made, outputs.StopRequested)[0].connector == 1
    assert outputs.ModePublished(connector=1, mode=Mode.OFF) in made
    assert [(e.connector, e.error_type, e.sub_type, e.message) for e in only(made, outputs.ErrorRaised)] == [
        (1, "VendorError", "internal_error", "RuntimeError")
    ]
    assert any(line.level is Level.ERROR for line in only(made, outputs.LogWritten))
    assert goose(core.setpoint(410, 20, connector=2)) == [(RequirementType.CHARGING, 410.0, 20.0)]
    (report,) = only(made, outputs.ReportSent)
    words = {s.address + n: word for s in report.segments for n, word in enumerate(s.words)}
    assert words[0x110B] == 4  # CHARGING_COMPLETE
    assert words[0x117E] == 0  # START_TO_STOP


def test_the_error_is_cleared_when_the_next_session_runs(inject: Inject) -> None:
    inject(Connector, "handle", is_trigger)
    core = Core().ready().to_charging()
    core.setpoint(TRIGGER_V, 1)
    core.export()
    core.key()
    (cleared,) = only(core.reply(), outputs.ErrorCleared)
    assert (cleared.error_type, cleared.sub_type) == ("VendorError", "internal_error")
    assert goose(core.setpoint(400, 20)) == [(RequirementType.CHARGING, 400.0, 20.0)]


def test_a_second_failure_raises_the_error_once(inject: Inject) -> None:
    inject(Connector, "handle", is_trigger)
    core = Core().ready().to_charging()
    core.setpoint(TRIGGER_V, 1)
    made = core.setpoint(TRIGGER_V, 1)
    assert only(made, outputs.ErrorRaised) == []
    assert goose(made) == [STOP]


def test_without_a_key_no_stop_request_can_be_sent(inject: Inject) -> None:
    inject(Connector, "handle", is_trigger)
    core = Core().ready()
    core.plug_in()
    made = core.setpoint(TRIGGER_V, 1)
    assert goose(made) == []
    assert len(only(made, outputs.ErrorRaised)) == 1


def once(kind: type) -> Callable[[Any], bool]:
    """True for the first message of that kind."""
    left = [True]
    return lambda message: isinstance(message, kind) and bool(left) and left.pop()


@pytest.mark.parametrize(
    "message",
    [
        inputs.ShutdownRequested(reason="test"),
        inputs.BrokerDisconnected(reason="test"),
        inputs.JournalLost(reason="test"),
        inputs.UtcOffsetChanged(utc_offset_ns=0),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_turn_that_went_to_several_stops_all_of_them(inject: Inject, message: inputs.Input) -> None:
    inject(Connector, "handle", once(type(message)))
    core = Core(make_config(3)).ready()
    for connector in (1, 2, 3):
        core.to_charging(connector=connector)
    assert [stop.connector for stop in only(core.feed(message), outputs.StopRequested)] == [1, 2, 3]


@pytest.mark.parametrize("where", [PsuLink, Connector])
def test_a_lost_link_that_could_not_be_handled_is_given_up(inject: Inject, where: type) -> None:
    inject(where, "handle", once(inputs.PsuDisconnected if where is PsuLink else LinkLost))
    core = Core(make_config(2, 'telemetry_topic_prefix = "t"\n')).ready()
    core.to_charging(connector=1).to_charging(connector=2)
    made = core.feed(inputs.PsuDisconnected(connection=1, reason="closed"))
    assert [stop.connector for stop in only(made, outputs.StopRequested)] == [1, 2]
    assert only(made, outputs.HmacKeysRetired) == [outputs.HmacKeysRetired(connection=1)]
    core.feed(inputs.HmacKeyReceived(connection=1, connector=1))  # late, of the lost connection
    assert only(core.advance(1.1), outputs.PsuConnectRequested) == [outputs.PsuConnectRequested(connection=2)]
    core.connect()
    assert len(only(core.advance(3), outputs.ReportSent)) == 3
    assert only(core.advance(10), outputs.HmacKeysForgotten) == [outputs.HmacKeysForgotten(connection=1)]


def test_a_connection_that_could_not_be_handled_is_given_up(inject: Inject) -> None:
    inject(PsuLink, "handle", once(inputs.PsuConnected))
    core = Core().start()
    made = core.feed(inputs.PsuConnected(connection=1))
    assert [output.connection for output in only(made, outputs.PsuDisconnectRequested)] == [1]
    core.advance(1.1)
    core.connect()
    core.to_charging()
    assert len(only(core.advance(3), outputs.ReportSent)) == 3


def test_a_car_that_left_in_a_failed_turn_is_gone(inject: Inject) -> None:
    inject(Connector, "handle", once(inputs.BspEventReceived))
    core = Core().ready()
    core.plug_in()  # fails: the car is not taken for connected
    core.to_charging()
    inject(Connector, "handle", once(inputs.BspEventReceived))
    made = core.plug_out()
    assert goose(made) == [STOP]
    (report,) = only(made, outputs.ReportSent)
    words = {s.address + n: word for s in report.segments for n, word in enumerate(s.words)}
    assert (words[0x110B], words[0x110D]) == (0, 0)
    assert goose(core.export()) == []


@pytest.mark.parametrize(("event", "word"), [(BspEvent.POWER_ON, 1), (BspEvent.POWER_OFF, 0), (BspEvent.C, 1)])
def test_contactors_are_kept(inject: Inject, event: BspEvent, word: int) -> None:
    core = Core().ready().to_charging()
    core.feed(inputs.BspEventReceived(connector=1, event=BspEvent.POWER_ON))
    inject(Connector, "handle", once(inputs.BspEventReceived))
    core.feed(inputs.BspEventReceived(connector=1, event=event))
    assert core.read_register("1/contactor_status") == (word,)


def test_a_key_that_came_in_a_failed_turn_signs_the_stop(inject: Inject) -> None:
    inject(Connector, "handle", once(inputs.HmacKeyReceived))
    core = Core().ready()
    core.plug_in()
    assert goose(core.key()) == [STOP]
    core.export()  # a new session: the PSU is asked for a key again
    assert core.read_register("1/working_status") == (1,)
    core.key()
    assert len(only(core.reply(), outputs.ErrorCleared)) == 1


@pytest.mark.parametrize("where", [DispenserAlarms, PsuLink, TelemetryPublisher])
def test_an_alarm_is_kept_and_everything_stops(inject: Inject, where: type) -> None:
    kind = {
        DispenserAlarms: inputs.BspErrorRaised,
        PsuLink: RegistersChanged,
        TelemetryPublisher: DatapointsChanged,
    }
    core = Core(make_config(2, 'telemetry_topic_prefix = "t"\n')).ready()
    core.feed(inputs.BrokerConnected(session_present=False))
    core.to_charging(connector=1).to_charging(connector=2)
    core.advance(0.1)
    inject(where, "handle", once(kind[where]))
    made = core.feed(inputs.BspErrorRaised(connector=1, error_type="MREC8EmergencyStop", sub_type=""))
    assert [stop.connector for stop in only(made, outputs.StopRequested)] == [1, 2]
    (report,) = only(made, outputs.ReportSent)
    assert Segment(0x3001, (0, 0, 1, 0)) in report.segments
    values = {o.topic: o.values for o in only(core.advance(0.02), outputs.TelemetryPublished)}
    assert values["dispenser/published_alarms"]["epo_alarm"] is True
    core.feed(inputs.BspErrorCleared(connector=1, error_type="MREC8EmergencyStop", sub_type=""))
    assert core.read_register("epo_alarm") == (0,)


def test_after_a_failure_in_mid_allocation_power_needs_a_new_session(inject: Inject) -> None:
    inject(Connector, "handle", is_trigger)
    core = Core().ready()
    core.plug_in()
    core.key()
    assert goose(core.setpoint(TRIGGER_V, 1)) == [STOP]
    assert goose(core.heartbeat(1)) == []
    assert goose(core.reply()) == []
    assert goose(core.advance(6)) == []
    assert core.read_register("1/working_status") == (4,)


@pytest.mark.parametrize("actor", [PsuLink, DispenserAlarms])
def test_a_part_that_all_depend_on_stops_all(inject: Inject, actor: type) -> None:
    if actor is PsuLink:
        inject(PsuLink, "handle", lambda m: isinstance(m, inputs.UnexpectedPduReceived))
        trigger: inputs.Input = inputs.UnexpectedPduReceived(connection=1, function=0x41, adu=b"")
    else:
        inject(DispenserAlarms, "handle", lambda m: isinstance(m, inputs.BspErrorRaised))
        trigger = inputs.BspErrorRaised(connector=1, error_type="TiltDetected", sub_type="")
    core = Core(make_config(2)).ready().to_charging(connector=1).to_charging(connector=2)
    made = core.feed(trigger)
    assert [stop.connector for stop in only(made, outputs.StopRequested)] == [1, 2]
    assert len(only(made, outputs.ErrorRaised)) == 2


def test_an_off_that_fails_in_telemetry_still_stops(inject: Inject) -> None:
    # The turn is undone as a whole, so the Off is: the safe stop has to do what it asked for.
    inject(TelemetryPublisher, "handle", lambda m: getattr(m, "values", {}).get("everest_mode") == "Off")
    core = Core(make_config(2, 'telemetry_topic_prefix = "t"\n')).ready()
    core.feed(inputs.BrokerConnected(session_present=False))
    core.to_charging(connector=1).to_charging(connector=2)
    core.advance(0.02)
    made = core.off(connector=1)
    assert [stop.connector for stop in only(made, outputs.StopRequested)] == [1]
    values = {o.topic: o.values for o in only(core.advance(0.02), outputs.TelemetryPublished)}
    assert values["connector/5/dispenser_to_psu"]["export_voltage"] == 0.0


@pytest.mark.parametrize("request_kind", ["read", "write"])
def test_an_open_request_is_answered_with_internal_failure(inject: Inject, request_kind: str) -> None:
    inject(PsuLink, "_from_psu", lambda message: not isinstance(message, inputs.PsuConnected))
    core = Core().start()
    core.feed(inputs.PsuConnected(connection=1))
    if request_kind == "read":
        made = core.feed(
            inputs.RegistersRead(connection=1, transaction_id=9, unit_id=3, address=0, count=1, adu=b"")
        )
        function = 3
    else:
        made = core.write_words(0x2006, (1,), 0x06)
        function = 6
    (answer,) = only(made, outputs.ExceptionAnswered)
    assert (answer.function, answer.exception_code) == (function, 4)


def test_a_request_of_a_connection_that_is_gone_is_not_answered(inject: Inject) -> None:
    """The core gave the connection up for its silence, and the link's thread had read the request before."""
    core = Core(make_config(settings="modbus_timeout_s = 2\n")).ready()
    (given_up,) = only(core.advance(2.005), outputs.PsuDisconnectRequested)
    inject(PsuLink, "_from_psu", once(inputs.RegistersWritten))
    made = core.feed(
        inputs.RegistersWritten(
            connection=given_up.connection,
            transaction_id=9,
            unit_id=3,
            function=6,
            address=0x2006,
            words=(1,),
            adu=b"",
        )
    )
    assert len(only(made, outputs.TurnFailed)) == 1
    assert only(made, outputs.ExceptionAnswered) == []


def test_a_key_of_a_connection_that_is_gone_does_not_sign(inject: Inject) -> None:
    core = Core().ready()
    core.plug_in()
    dead = core.connection
    core.disconnect()
    inject(Connector, "handle", once(inputs.HmacKeyReceived))
    made = core.feed(inputs.HmacKeyReceived(connection=dead, connector=1))
    assert len(only(made, outputs.TurnFailed)) == 1
    assert goose(made) == []


def test_a_timer_whose_firing_failed_fires_again(inject: Inject) -> None:
    failures = [True]
    inject(PsuLink, "timer_fired", lambda name: name == "report" and bool(failures) and failures.pop())
    core = Core().ready()
    assert only(core.advance(1.1), outputs.ReportSent) == []
    assert len(only(core.advance(1.1), outputs.ReportSent)) == 1
    assert len(only(core.advance(3), outputs.ReportSent)) == 3


def test_a_heartbeat_timer_whose_handler_raises_stops(inject: Inject) -> None:
    inject(Connector, "timer_fired", lambda name: name == "heartbeat")
    core = Core().ready().to_charging()
    core.heartbeat(1)
    made = core.advance(5.1)
    assert goose(made) == [STOP]


def test_an_actor_that_gets_a_timer_it_does_not_have() -> None:
    core = Core()
    for owner in ("psu_link", "connector/1", "telemetry_publisher"):
        state = core.runtime.states()[owner]
        assert state.timers == {}
        assert core.feed(inputs.TimerFired(owner=owner, name="unknown", number=1)) == []
