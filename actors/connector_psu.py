"""A connector's dealings with the power unit: link, MAC, keys, placeholder allocation, the first-key cycle, and
the way back to Running after the link failed (behaviour.md §1, §2).

    link lost in Running ─► NoKeyYet, resuming ─ READY, key, allocation ─► Running: mode-phase, setpoint apply,
                                │                                          CommunicationFault is cleared
                                └─ 10 s without link: nothing that was asked for before is applied any more
"""

from typing import Any

from ..messages import inputs
from ..messages.config import Config
from ..messages.internal import (
    LinkLost,
    PsuAlarmsChanged,
    PsuForgotten,
    PsuMacKnown,
    PsuRunningModeChanged,
    RatingsChanged,
)
from ..messages.outputs import GooseSilenced
from ..messages.types import ConnectorPhase, Level, ModePhase, PsuRunningMode, RequirementType
from .capabilities import capabilities, nothing_received
from .connector_state import ConnectorState, has_car, without_link
from .connector_supervision import (
    ALLOCATION_TIMER,
    FIRST_KEY_TIMER,
    OUTAGE_TIMER,
    RESUME_TIMER,
    SupervisedConnector,
)
from .connector_table import Event
from .runtime import SECOND_NS, Runtime

OUTAGE_NS = 10 * SECOND_NS
"""After a longer outage nothing that EVerest asked for before it is applied again (behaviour.md §2)."""
RESUME_MARGIN_NS = 4 * SECOND_NS
"""CommunicationFault while resuming lasts at most this and the allocation's timeout after READY (§3)."""


class ConnectorAtPsu(SupervisedConnector):
    """A connector as the power unit sees it."""

    def __init__(
        self, runtime: Runtime, name: str, state: ConnectorState, *, config: Config, number: int
    ) -> None:
        super().__init__(runtime, name, state, config=config, number=number)
        self._config = config.connectors[number - 1]
        self._send_secure = config.send_secure_goose
        self._verify_secure = config.verify_secure_goose

    def _handle_psu(self, message: Any) -> None:
        match message:
            case inputs.PowerRequestReplyReceived():
                self._reply(message)
            case inputs.HmacKeyReceived(connection=connection):
                self._key(connection)
            case PsuMacKnown(connection=connection, mac=mac):
                self._mac_known(connection, mac)
            case PsuRunningModeChanged(connection=connection, mode=mode):
                self._running_mode(connection, mode)
            case RatingsChanged(ratings=ratings):
                self.change(capabilities=capabilities(ratings, self._config))
            case PsuAlarmsChanged(alarms=alarms):
                self.change(psu_alarms=alarms)
            case LinkLost(connection=connection):
                self._link_lost(connection)
            case PsuForgotten(connection=connection):
                self._forget_psu(connection)

    def timer_fired(self, name: str) -> None:
        if name == ALLOCATION_TIMER:
            self.log(Level.WARNING, "no answer to the module placeholder request", self._number)
            self.change(allocation_failed=True)
            self._event(Event.ALLOCATION_ENDED, "timeout")
        elif name == FIRST_KEY_TIMER:
            self.log(Level.WARNING, "the PSU gave no key while no car was there", self._number)
            self._event(Event.FIRST_KEY_TIMEOUT)
        elif name == OUTAGE_TIMER:
            self._outage_is_long()
        elif name == RESUME_TIMER:
            self.log(Level.WARNING, "the PSU does not take up the charge again", self._number)
            self.change(resume_overdue=True)
        else:
            super().timer_fired(name)

    def _mac_known(self, connection: int, mac: bytes) -> None:
        was_ready = self.state.link_ready
        self.change(psu_mac=mac, mac_connection=connection, reissue=True, link_ready=True)
        if not was_ready:
            self.cancel_timer(OUTAGE_TIMER)
            if self.state.resuming:
                self.start_timer(RESUME_TIMER, self._allocation_timeout_ns + RESUME_MARGIN_NS)

    def _running_mode(self, connection: int, mode: int) -> None:
        self.change(psu_running_mode=mode)
        if mode == PsuRunningMode.RUNNING and self.state.first_key_connection != connection:
            self.change(first_key_connection=connection)
            self._event(Event.PSU_RUNNING)

    def _key(self, connection: int) -> None:
        if connection <= self.state.dead_connection:
            return
        self.change(key_connection=connection, reissue=True)
        self._event(Event.KEY_RECEIVED)
        if self.state.off_while_resuming:
            self._off()

    def _reply(self, message: inputs.PowerRequestReplyReceived) -> None:
        if message.requirement_type != RequirementType.MODULE_PLACEHOLDER_REQUEST:
            return
        if self._verify_secure and self._number not in message.verified:
            return
        if 0 < message.connection <= self.state.dead_connection:
            return  # verified before the link failed; it got here after the next connection's key
        if self.state.phase is ConnectorPhase.CONNECTED_NO_ALLOCATION:
            if message.result != 0:
                self.log(Level.WARNING, "the PSU refused the module placeholder request", self._number)
            self.change(allocation_failed=message.result != 0)
            self._event(Event.ALLOCATION_ENDED, "placeholder reply")

    def _link_lost(self, connection: int) -> None:
        """Power stops at once; what EVerest asked for is kept, to be applied when the link is back."""
        in_session = self.state.phase in (ConnectorPhase.CONNECTED_NO_ALLOCATION, ConnectorPhase.RUNNING)
        # A key may come, and a session go on, before the MAC does: then there was no link_ready in between.
        is_outage_new = OUTAGE_TIMER not in self.state.timers and (self.state.link_ready or in_session)
        if is_outage_new and has_car(self.state):
            self.start_timer(OUTAGE_TIMER, OUTAGE_NS)
        self.change(dead_connection=connection, **without_link(nothing_received(self._config)))
        self.cancel_timer(RESUME_TIMER)
        if has_car(self.state):
            self.change(reissue=True, resuming=self.state.resuming or in_session)
        self._event(Event.LINK_LOST)

    def _outage_is_long(self) -> None:
        is_off = self.state.mode_phase is ModePhase.OFF and self.state.setpoint is None
        if has_car(self.state) and not is_off:
            self.log(Level.WARNING, "no link for 10 s: power off until EVerest asks again", self._number)
            self._forget_requests()
            self._publish_mode()

    def _forget_psu(self, connection: int) -> None:
        """What came over this connection or a former one may not be used for sending any more."""
        could_send = self._can_send()
        if self.state.mac_connection <= connection:
            self.change(psu_mac=b"", mac_connection=0)
        if self.state.key_connection <= connection:
            self.change(key_connection=0)
        if could_send and not self._can_send() and self.state.issued is not None:
            self.change(issued=None)
            self.emit(GooseSilenced(connector=self._number))

    def _can_send(self) -> bool:
        return bool(self.state.psu_mac) and (not self._send_secure or self.state.key_connection > 0)
