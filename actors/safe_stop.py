"""The safe stop after a handler raised (behaviour.md §10). Calls no handler; works on the states alone.

The turn that failed was undone. Instead of it each connector concerned gets mode-phase Off and no setpoint, its
stop request is issued, an open Modbus request is answered with exception 0x04, VendorError / internal_error is
raised, and a timer whose firing failed is started again, so that nothing stands still for good.

Concerned are the connectors that had a message in the failed turn (the turn may have been an Off); all of them,
if PsuLink or DispenserAlarms failed.
"""

from collections.abc import Mapping

from msgspec.structs import replace

from ..messages.config import Config
from ..messages.inputs import Input, ModbusRequestRefused, RegistersRead, RegistersWritten, TimerFired
from ..messages.outputs import (
    AnyOutput,
    ExceptionAnswered,
    LogWritten,
    ModePublished,
    StartTimer,
    TurnFailed,
)
from ..messages.types import ChargingEvent, ConnectorPhase, Level, Mode, ModePhase
from ..telemetry.datapoints import to_psu_topic
from .connector_outputs import error_changes, goose_output, next_st_num
from .connector_state import STOP, ConnectorState, datapoints, faults, registers
from .names import DISPENSER_ALARMS, PSU_LINK, TELEMETRY_PUBLISHER, connector_name
from .psu_link_state import PsuLinkState
from .runtime import SECOND_NS, ActorState, Failure
from .telemetry_publisher import WINDOW_NS, WINDOW_TIMER, TelemetryPublisherState

INTERNAL_FAILURE = 0x04
RETRY_NS = SECOND_NS


def safe_stop(
    config: Config, states: Mapping[str, ActorState], message: Input, failure: Failure
) -> tuple[dict[str, ActorState], tuple[AnyOutput, ...]]:
    """States before the failed turn, its Input, what failed → states and Outputs of the safe stop."""
    safe = dict(states)
    text = f"{failure.actor} failed: {failure.exception_type}: {failure.message}"
    outputs: list[AnyOutput] = [
        TurnFailed(actor=failure.actor, exception_type=failure.exception_type, message=failure.message),
        LogWritten(level=Level.ERROR, connector=0, text=text),
    ]
    for number in range(1, len(config.connectors) + 1):
        name = connector_name(number)
        if failure.actor in (PSU_LINK, DISPENSER_ALARMS) or name in failure.concerned:
            _stop_connector(config, safe, number, message, failure, outputs)
    _answer(message, outputs)
    _restart_timer(safe, message, outputs)
    return safe, tuple(outputs)


def _stop_connector(
    config: Config,
    safe: dict[str, ActorState],
    number: int,
    message: Input,
    failure: Failure,
    outputs: list[AnyOutput],
) -> None:
    state = safe[connector_name(number)]
    if not isinstance(state, ConnectorState):
        raise TypeError(state)
    running = state.phase is ConnectorPhase.RUNNING
    now = replace(
        state,
        phase=ConnectorPhase.COMPLETED if running else state.phase,
        mode_phase=ModePhase.OFF,
        mode=Mode.OFF,
        setpoint=None,
        last_request=None,
        allocation_failed=False,
        internal_error=failure.exception_type,
    )
    if now.psu_mac and (now.key_connection or not config.send_secure_goose):
        now = replace(now, st_num=next_st_num(now), issued=STOP)
        global_number = config.connectors[number - 1].global_connector_number
        outputs.append(goose_output(now, STOP, number, global_number, message.at_ns))
    outputs.append(ModePublished(connector=number, mode=Mode.OFF))
    outputs += error_changes(number, now.raised, faults(now))
    now = replace(now, raised=faults(now))
    safe[connector_name(number)] = now
    _push_registers(safe, now, number, stopped=running)
    _push_datapoints(config, safe, now, number, outputs)


def _push_registers(safe: dict[str, ActorState], now: ConnectorState, number: int, *, stopped: bool) -> None:
    link = safe[PSU_LINK]
    if not isinstance(link, PsuLinkState) or not stopped:
        return
    words = (int(ChargingEvent.START_TO_STOP),)
    event = {f"{number}/charging_event": words}
    values = {f"{number}/{name}": (value,) for name, value in registers(now).items()}
    safe[PSU_LINK] = replace(
        link,
        registers={**link.registers, **values, **event},
        pending_events={**link.pending_events, **event},
        report_due=link.connected,
    )


def _push_datapoints(
    config: Config, safe: dict[str, ActorState], now: ConnectorState, number: int, outputs: list[AnyOutput]
) -> None:
    publisher = safe[TELEMETRY_PUBLISHER]
    if not isinstance(publisher, TelemetryPublisherState) or not config.telemetry_topic_prefix:
        return
    topic = to_psu_topic(config.connectors[number - 1].global_connector_number)
    values = {**publisher.values, topic: {**publisher.values[topic], **datapoints(now)}}
    publisher = replace(publisher, values=values)
    if publisher.broker_connected and WINDOW_TIMER not in publisher.timers:
        timer = publisher.timers_started + 1
        publisher = replace(publisher, timers={**publisher.timers, WINDOW_TIMER: timer}, timers_started=timer)
        outputs.append(
            StartTimer(owner=TELEMETRY_PUBLISHER, name=WINDOW_TIMER, number=timer, delay_ns=WINDOW_NS)
        )
    safe[TELEMETRY_PUBLISHER] = publisher


def _answer(message: Input, outputs: list[AnyOutput]) -> None:
    match message:
        case RegistersRead():
            function = 0x03
        case RegistersWritten() | ModbusRequestRefused():
            function = message.function
        case _:
            return
    outputs.append(
        ExceptionAnswered(
            connection=message.connection,
            transaction_id=message.transaction_id,
            unit_id=message.unit_id,
            function=function,
            exception_code=INTERNAL_FAILURE,
        )
    )


def _restart_timer(safe: dict[str, ActorState], message: Input, outputs: list[AnyOutput]) -> None:
    """The failed turn undid the firing: the timer counts as running still, so it has to fire once more."""
    if not isinstance(message, TimerFired):
        return
    state = safe.get(message.owner)
    if state is not None and state.timers.get(message.name) == message.number:
        outputs.append(
            StartTimer(owner=message.owner, name=message.name, number=message.number, delay_ns=RETRY_NS)
        )
