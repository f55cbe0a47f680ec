"""A turn in which a handler raised: undone by the runtime, then a safe stop (behaviour.md §10).

What the Input would have changed is lost, but for what the world does not say again: the boards' errors, the
contactor, a car that left. Of the rest the specification leaves open which of the two a part keeps: the states
are taken over here, after a check that they are safe and one of the two.
"""

from ...messages import inputs
from ...messages.outputs import TurnFailed
from ...messages.types import BspEvent
from .oracle import fail
from .oracle_table import ALLOCATING, COMPLETED, NO_KEY_YET, RUNNING, WITHOUT_CAR, ConnectorSeen
from .oracle_watch import ConnectorWatch

ALL = ("psu_link", "dispenser_alarms")
"""Actors whose failure concerns every connector."""


def concerns(watch: ConnectorWatch, failure: TurnFailed) -> bool:
    """Whether the connector has to stop: because it failed, or because it did stop."""
    if failure.actor in (watch.name, *ALL) or watch.messages or watch.modes:
        return True
    return any(said.sub_type == "internal_error" for said in watch.said)


def is_car_leaving(message: inputs.Input, watch: ConnectorWatch) -> bool:
    """Whether the Input says that the connector's car left."""
    if isinstance(message, inputs.BspEventReceived):
        return message.connector == watch.number and message.event is BspEvent.A
    if isinstance(message, inputs.SessionEventReceived) and not watch.shadow.board_speaks:
        return message.connector == watch.number and message.event == "SessionFinished"
    return False


def take_over(
    watch: ConnectorWatch, seen: ConnectorSeen, message: inputs.Input, failure: TurnFailed, now_ns: int
) -> None:
    """The connector stopped."""
    shadow = watch.shadow
    _check_stopped(watch, seen, message)
    if seen.phase is not shadow.phase:
        shadow.go(seen.phase, now_ns)
    shadow.charging_event_free = True
    shadow.forget()
    shadow.resuming = shadow.resume_overdue = shadow.off_pending = shadow.in_outage = False
    shadow.internal_error = failure.exception_type
    watch.goose.stop_again(is_needed=True)
    watch.mode_due = True
    watch.is_dirty = True


def take_over_details(
    watch: ConnectorWatch, seen: ConnectorSeen, message: inputs.Input, connection: int
) -> None:
    """What a failed turn may have kept of its Input, of any connector."""
    shadow = watch.shadow
    is_mine = getattr(message, "connector", 0) == watch.number
    if is_mine and isinstance(message, inputs.BspEventReceived):
        if message.event in (BspEvent.POWER_ON, BspEvent.POWER_OFF):
            shadow.contactor_on = message.event is BspEvent.POWER_ON
        shadow.board_speaks = shadow.is_bsp_event_open = True
    is_key = is_mine and isinstance(message, inputs.HmacKeyReceived) and message.connection == connection
    if is_key and seen.key_connection == connection:
        watch.goose.key_written(connection)
    if isinstance(message, inputs.HeartbeatReceived | inputs.BrokerConnected | inputs.BrokerDisconnected):
        shadow.sync_due = seen.sync_due
        shadow.heartbeat_id = seen.heartbeat_id
        shadow.clock_ns, shadow.clock_open = None, True
        shadow.broker_clock_ns = None
    shadow.everest_lost = seen.everest_lost
    watch.is_dirty = True


def _check_stopped(watch: ConnectorWatch, seen: ConnectorSeen, message: inputs.Input) -> None:
    shadow = watch.shadow
    if seen.phase in (RUNNING, ALLOCATING):
        fail("failure_did_not_stop", f"{watch.name} is in {seen.phase}")
    left = is_car_leaving(message, watch)
    if left or shadow.phase in WITHOUT_CAR:
        allowed = seen.phase in WITHOUT_CAR
    else:
        allowed = seen.phase in (COMPLETED, NO_KEY_YET)
    if not allowed:
        fail("fsm", f"{watch.name} is in {seen.phase} after a failure in {shadow.phase}")
