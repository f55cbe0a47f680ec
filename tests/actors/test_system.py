"""The core as a whole: whatever Inputs come, it is deterministic, safe, and can be taken up at any turn."""

from typing import Any

import msgspec
import pytest
from core_harness import OWN_MAC, UTC_OFFSET_NS, Core, make_config
from fusioncharger.actors.connector import Connector
from fusioncharger.actors.dispenser_alarms import DispenserAlarms
from fusioncharger.actors.psu_link import PsuLink
from fusioncharger.actors.system import build, restore, snapshot
from fusioncharger.actors.telemetry_publisher import TelemetryPublisher
from fusioncharger.messages import inputs, outputs
from fusioncharger.messages.types import BspEvent, ChargingPhase, ConnectorPhase, Mode
from hypothesis import given, settings
from hypothesis import strategies as st

CONFIG = make_config(
    2, 'telemetry_topic_prefix = "t"\nHACK_use_ovm_while_cable_check = true\nerror_history = "errors"\n'
)

connectors = st.integers(1, 2)
words = st.integers(0, 0xFFFF)
# Whole steps of a session are drawn as often as single Inputs, so that the deep states are reached.
steps = st.one_of(
    st.tuples(st.just("plug_in"), connectors),
    st.tuples(st.just("plug_out"), connectors),
    st.tuples(st.just("key"), connectors),
    st.tuples(st.just("reply"), connectors, st.integers(0, 1)),
    st.tuples(st.just("to_charging"), connectors),
    st.tuples(st.just("off"), connectors),
    st.tuples(st.just("mode"), st.sampled_from(Mode), st.sampled_from(ChargingPhase), connectors),
    st.tuples(st.just("setpoint"), st.floats(-1, 1e39), st.floats(-1, 1e39), connectors),
    st.tuples(st.just("heartbeat"), st.integers(0, 5), connectors),
    st.tuples(st.just("write"), st.integers(0x2000, 0x212F), st.lists(words, min_size=1, max_size=30)),
    st.tuples(st.just("connect")),
    st.tuples(st.just("lose_link")),
    st.tuples(st.just("broker"), st.booleans()),
    st.tuples(st.just("bsp"), st.sampled_from(BspEvent), connectors),
    st.tuples(st.just("error"), st.sampled_from(["TiltDetected", "MREC17EVSEContactorFault"]), connectors),
    st.tuples(st.just("wait"), st.floats(0.001, 12)),
    st.tuples(st.just("running"), st.integers(0, 4)),
    st.tuples(st.just("rating"), connectors, st.sampled_from([0.0, 50.0, 300.0, 1000.0, float("nan")])),
    st.tuples(st.just("psu_alarm"), st.integers(0x4000, 0x40F0), words),
    st.tuples(st.just("measure"), st.sampled_from(["imd", "ovm", "meter"]), st.floats(-1e39, 1e39), connectors),
    st.tuples(
        st.just("session"),
        st.sampled_from(["SessionStarted", "TransactionStarted", "SessionFinished"]),
        connectors,
    ),
    st.tuples(st.just("active_errors"), st.lists(connectors, max_size=3)),
    st.tuples(st.just("restart_psu")),
)


def perform(core: Core, step: tuple[Any, ...]) -> None:  # noqa: C901 - one flat dispatch
    match step:
        case ("reply", connector, result):
            core.reply(connector, result)
        case ("to_charging", connector):
            core.to_charging(connector=connector)
        case ("mode", mode, phase, connector):
            core.mode(mode, phase, connector)
        case ("setpoint", voltage_v, current_a, connector):
            core.setpoint(voltage_v, current_a, connector)
        case ("heartbeat", heartbeat_id, connector):
            core.heartbeat(heartbeat_id, connector)
        case ("write", address, values):
            core.write_words(address, tuple(values))
        case ("connect",):
            core.connect()
        case ("lose_link",):
            core.feed(inputs.PsuDisconnected(connection=core.connection, reason="test"))
        case ("broker", True):
            core.feed(inputs.BrokerConnected(session_present=False))
        case ("broker", False):
            core.feed(inputs.BrokerDisconnected(reason="test"))
        case ("bsp", event, connector):
            core.feed(inputs.BspEventReceived(connector=connector, event=event))
        case ("error", error, connector):
            core.feed(inputs.BspErrorRaised(connector=connector, error_type=error, sub_type=""))
        case ("wait", seconds):
            core.advance(seconds)
        case ("running", mode):
            core.write("psu_running_mode", mode)
        case ("rating", connector, value):
            core.write(f"{connector}/max_rated_psu_voltage", value)
        case ("psu_alarm", address, value):
            core.write_words(address, (value,))
        case ("measure", "imd", value, connector):
            core.feed(inputs.IsolationMeasured(connector=connector, voltage_v=value))
        case ("measure", "ovm", value, connector):
            core.feed(inputs.OverVoltageMeasured(connector=connector, voltage_v=value))
        case ("measure", _, value, connector):
            core.feed(inputs.PowermeterMeasured(connector=connector, voltage_v=value, current_a=value))
        case ("session", event, connector):
            core.feed(inputs.SessionEventReceived(connector=connector, event=event, reason="EVConnected"))
        case ("active_errors", numbers):
            errors = tuple(inputs.BspError(number, "TiltDetected") for number in numbers)
            core.feed(inputs.ActiveErrorsReceived(errors=errors))
        case ("restart_psu",):
            core.disconnect()
            core.advance(1.1)
            core.connect()
            core.write("psu_running_mode", 1)
        case (name, connector):
            getattr(core, name)(connector)


def check_power(core: Core, made: list[outputs.AnyOutput]) -> None:
    """Power is asked for only while Running with an Export mode-phase (behaviour.md §1)."""
    for output in made:
        assert not isinstance(output, outputs.TurnFailed), output
        if isinstance(output, outputs.PowerRequested) and (output.voltage_v or output.current_a):
            state: Any = core.runtime.states()[f"connector/{output.connector}"]
            assert state.phase is ConnectorPhase.RUNNING
            assert state.mode is Mode.EXPORT
            assert state.setpoint is not None
            assert output.voltage_v <= min(state.setpoint.voltage_v, state.capabilities.max_export_voltage_V)
            assert output.current_a <= state.capabilities.max_export_current_A
            assert state.key_connection > state.dead_connection


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, max_size=40))
def test_any_sequence_is_safe_and_deterministic(sequence: list[tuple[Any, ...]]) -> None:
    first, second = Core(CONFIG).ready(), Core(CONFIG).ready()
    for step in sequence:
        already = len(first.history)
        perform(first, step)
        check_power(first, first.history[already:])
        perform(second, step)
    assert first.history == second.history
    encoded = msgspec.json.encode(first.history)
    assert encoded == msgspec.json.encode(second.history)


@settings(max_examples=100, deadline=None)
@given(st.lists(steps, max_size=25), st.lists(steps, max_size=15))
def test_a_snapshot_continues_as_the_original(
    before: list[tuple[Any, ...]], after: list[tuple[Any, ...]]
) -> None:
    original = Core(CONFIG).ready()
    for step in before:
        perform(original, step)
    taken = msgspec.json.decode(msgspec.json.encode(snapshot(original.runtime)))
    resumed = Core(CONFIG, build(CONFIG, restore(taken)))
    resumed.at_ns, resumed.timers = original.at_ns, dict(original.timers)
    resumed.connection, resumed.transaction = original.connection, original.transaction
    assert resumed.runtime.states() == original.runtime.states()
    already = len(original.history)
    for step in after:
        perform(original, step)
        perform(resumed, step)
    assert resumed.history == original.history[already:]


class Fault:
    """Lets the n-th message that any actor handles make its handler raise."""

    def __init__(self, left: int) -> None:
        self.left = left

    def install(self, patch: pytest.MonkeyPatch) -> None:
        for actor in (Connector, PsuLink, DispenserAlarms, TelemetryPublisher):
            original = actor.handle

            def handle(actor_self: Any, message: Any, original: Any = original) -> None:
                self.left -= 1
                if self.left == 0:
                    raise RuntimeError("injected")
                original(actor_self, message)

            patch.setattr(actor, "handle", handle)


def check_stopped(core: Core, made: tuple[outputs.AnyOutput, ...], message: inputs.Input) -> None:
    """After a failed turn the connectors that its Input was for have no power and no wish for it."""
    own = getattr(message, "connector", None)
    alarm = inputs.BspErrorRaised | inputs.BspErrorCleared | inputs.ActiveErrorsReceived
    mine = own and not isinstance(message, alarm)
    broadcast = isinstance(message, inputs.BrokerDisconnected | inputs.PsuDisconnected | inputs.PsuConnected)
    for number in (1, 2):
        if not (broadcast or (mine and own == number)):
            continue
        state: Any = core.runtime.states()[f"connector/{number}"]
        assert (state.mode, state.setpoint, state.phase) in [
            (Mode.OFF, None, ConnectorPhase.COMPLETED),
            (Mode.OFF, None, ConnectorPhase.CAR_DISCONNECTED),
        ]
        if state.psu_mac and state.key_connection:
            last = [o for o in made if getattr(o, "connector", 0) == number and hasattr(o, "st_num")]
            assert isinstance(last[-1], outputs.StopRequested)


@settings(max_examples=200, deadline=None)
@given(st.lists(steps, max_size=25), st.integers(1, 300), st.lists(steps, max_size=15))
def test_a_handler_may_raise_at_any_moment(
    before: list[tuple[Any, ...]], moment: int, after: list[tuple[Any, ...]]
) -> None:
    core = Core(CONFIG).ready()
    turn = core.runtime.turn

    def watched(message: inputs.Input) -> tuple[outputs.AnyOutput, ...]:
        made = turn(message)
        if any(isinstance(output, outputs.TurnFailed) for output in made):
            check_stopped(core, made, message)
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core.runtime, "turn", watched)
        Fault(moment).install(patch)
        for step in before + after:
            perform(core, step)
    # Whatever was hit, the system goes on: the link comes back, and a car can charge.
    core.advance(70)
    core.feed(inputs.PsuDisconnected(connection=core.connection, reason="test"))
    core.advance(3)
    core.connect()
    for number in (1, 2):
        core.rate(number)
    core.plug_out(1)
    core.to_charging(connector=1)
    assert any(isinstance(o, outputs.PowerRequested) and o.voltage_v == 400 for o in core.history[-30:])
    assert sum(isinstance(output, outputs.ReportSent) for output in core.advance(3)) == 3


def test_a_snapshot_of_another_system_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="no actor 'ghost'"):
        restore({"ghost": {}})
    with pytest.raises(msgspec.ValidationError):
        restore({"connector/1": {"phase": "Flying"}})


def test_inputs_and_outputs_survive_the_journal() -> None:
    started = inputs.Started(utc_offset_ns=UTC_OFFSET_NS, goose_mac=OWN_MAC, at_ns=5)
    decoded = msgspec.json.decode(msgspec.json.encode(started), type=inputs.AnyInput)
    assert decoded == started
    core = Core(CONFIG).ready().to_charging()
    core.advance(3)
    for output in core.history:
        assert msgspec.json.decode(msgspec.json.encode(output), type=outputs.AnyOutput) == output


def test_rejected_messages_are_recorded_and_nothing_more() -> None:
    core = Core(CONFIG).ready()
    assert core.feed(inputs.MqttMessageRejected(topic="t", reason="no JSON", size_bytes=3)) == []
