"""What a connector and EVerest tell each other apart from requests: whether EVerest lives, and everything anew
when it may have missed something (behaviour.md §8.2).

Base of the connector: it also holds what every part of it needs, the step of the state machine and the way to
switch off.
"""

from collections.abc import Iterable

from ..messages import inputs
from ..messages.config import Config
from ..messages.internal import EverestSynchronised
from ..messages.outputs import AnyOutput, CapabilitiesPublished, ModePublished
from ..messages.types import ConnectorPhase, Level, Mode, ModePhase
from .connector_outputs import error_synchronisation, faults
from .connector_state import ConnectorState
from .connector_table import TRANSITIONS, Event
from .names import DISPENSER_ALARMS
from .runtime import SECOND_NS, CoreActor, Runtime

ALLOCATION_TIMER = "placeholder_allocation"
FIRST_KEY_TIMER = "first_key"
OUTAGE_TIMER = "outage"
RESUME_TIMER = "resume"
HEARTBEAT_TIMER = "heartbeat"
BROKER_TIMER = "broker"

FIRST_KEY_NS = 10 * SECOND_NS
"""How long the first-key cycle waits for a key (behaviour.md §1)."""
HEARTBEAT_WRAP = 1 << 64


class SupervisedConnector(CoreActor[ConnectorState]):
    """A connector's state machine, and EVerest's supervision."""

    def __init__(
        self, runtime: Runtime, name: str, state: ConnectorState, *, config: Config, number: int
    ) -> None:
        super().__init__(runtime, name, state)
        self._number = number
        self._everest_timeout_ns = int(config.everest_timeout_s * SECOND_NS)

        self._allocation_timeout_ns = int(config.module_placeholder_allocation_timeout_s * SECOND_NS)

    def timer_fired(self, name: str) -> None:
        if name == BROKER_TIMER:
            self._everest_lost("no connection to the broker")
        elif name == HEARTBEAT_TIMER:
            self._check_heartbeat()
        else:
            super().timer_fired(name)

    # --- the state machine ---------------------------------------------------------------------------------

    def _event(self, event: Event, cause: str = "") -> None:
        phase = TRANSITIONS.get((self.state.phase, event))
        if phase is None:
            return
        self.log(
            Level.INFO, f"{self.state.phase.value} -> {phase.value} ({cause or event.value})", self._number
        )
        self.cancel_timer(ALLOCATION_TIMER)
        self.cancel_timer(FIRST_KEY_TIMER)
        self.change(phase=phase)
        match phase:
            case ConnectorPhase.CONNECTED_NO_ALLOCATION:
                self.start_timer(ALLOCATION_TIMER, self._allocation_timeout_ns)
            case ConnectorPhase.FIRST_KEY:
                self.start_timer(FIRST_KEY_TIMER, FIRST_KEY_NS)
            case ConnectorPhase.RUNNING:
                self.change(internal_error="")
                self._resumed()
            case ConnectorPhase.COMPLETED:
                self.change(allocation_failed=False)
                self._resumed()
            case ConnectorPhase.CAR_DISCONNECTED:
                self.change(allocation_failed=False)
                self._resumed()
                self.cancel_timer(OUTAGE_TIMER)
            case ConnectorPhase.NO_KEY_YET:
                self.change(allocation_failed=False)

    def _resumed(self) -> None:
        """There is nothing to resume (any more)."""
        self.cancel_timer(RESUME_TIMER)
        self.change(resuming=False, resume_overdue=False, off_while_resuming=False)

    def _switch_off(self, event: Event) -> None:
        """Mode-phase Off, whatever EVerest asked for; nothing of it is kept, and EVerest is told."""
        self._forget_requests()
        if event is Event.OFF_REQUESTED:
            self._off()
        else:
            self._event(event)
        self._publish_mode()

    def _forget_requests(self) -> None:
        self.change(mode_phase=ModePhase.OFF, mode=Mode.OFF, setpoint=None, last_request=None)

    def _off(self) -> None:
        """Mode-phase Off was asked for. While resuming it leads to Completed once there is a key."""
        if self.state.resuming:
            self.change(off_while_resuming=True)
            self._event(Event.OFF_WHILE_RESUMING)
        else:
            self._event(Event.OFF_REQUESTED)

    # --- EVerest lives, or not -----------------------------------------------------------------------------

    def _heartbeat(self, message: inputs.HeartbeatReceived) -> None:
        last = self.state.heartbeat_id
        if last is None:
            self.change(sync_due=True)
            self.start_timer(HEARTBEAT_TIMER, self._everest_timeout_ns)
        else:
            step = (message.heartbeat_id - last) % HEARTBEAT_WRAP
            if step >= HEARTBEAT_WRAP // 2:
                if message.redelivered:  # an old one that the broker sent again after a reconnect
                    return
                self._everest_lost(f"its heartbeat id went back from {last} to {message.heartbeat_id}")
                self.start_timer(HEARTBEAT_TIMER, self._everest_timeout_ns)
        self.change(
            heartbeat_id=message.heartbeat_id,
            heartbeat_at_ns=self.at_ns,
            heartbeat_seen=True,
            everest_lost=False,
        )
        if self.state.sync_due:
            self._synchronise()

    def _check_heartbeat(self) -> None:
        silent_ns = self.at_ns - self.state.heartbeat_at_ns
        if silent_ns < self._everest_timeout_ns:
            self.start_timer(HEARTBEAT_TIMER, self._everest_timeout_ns - silent_ns)
        else:
            self._everest_lost("no heartbeat")

    def _supervise(self) -> None:
        """Power is asked for: an EVerest that once sent heartbeats has to go on, also after it was lost."""
        if self.state.heartbeat_seen and HEARTBEAT_TIMER not in self.state.timers:
            self.change(heartbeat_at_ns=self.at_ns)
            self.start_timer(HEARTBEAT_TIMER, self._everest_timeout_ns)

    def _everest_lost(self, why: str) -> None:
        self.cancel_timer(HEARTBEAT_TIMER)
        self.change(heartbeat_id=None, sync_due=True)
        if self.state.everest_lost:
            self.change(setpoint=None)  # one that came since
            return
        self.log(Level.WARNING, f"EVerest is lost ({why}): power off until it asks again", self._number)
        self.change(everest_lost=True)
        self._switch_off(Event.OFF_REQUESTED)

    # --- telling EVerest -----------------------------------------------------------------------------------

    def _broker_connected(self) -> None:
        """What was published so far was dropped. An EVerest that sends no heartbeat gets at least this."""
        self.cancel_timer(BROKER_TIMER)
        self.change(sync_due=True)
        self._publish_capabilities()
        self._publish_mode()

    def _broker_disconnected(self) -> None:
        self.start_timer(BROKER_TIMER, self._everest_timeout_ns)

    def _publish_mode(self) -> None:
        self.emit(ModePublished(connector=self._number, mode=self.state.mode))

    def _publish_capabilities(self) -> None:
        now = self.state.capabilities
        self.change(capabilities_told=now)
        self.emit(CapabilitiesPublished(connector=self._number, capabilities=now))

    def _synchronise(self) -> None:
        """Tell EVerest everything, so that nothing that a predecessor raised stays for ever."""
        self._publish_capabilities()
        self._publish_mode()
        now = faults(self.state)
        self._emit_all(error_synchronisation(self._number, now))
        self.change(sync_due=False, raised=now)
        self.tell(DISPENSER_ALARMS, EverestSynchronised())

    def _emit_all(self, made: Iterable[AnyOutput]) -> None:
        for output in made:
            self.emit(output)
