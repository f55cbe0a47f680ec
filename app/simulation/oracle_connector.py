"""Shadow of a connector: states, mode-phases and setpoint, as behaviour.md §1, §2 have them. Every method is an
event of the specification. (What hangs on time: oracle_supervised.py)"""

from ...messages.config import Config
from ...messages.types import ChargingPhase, ConnectorPhase, Mode, ModePhase, RequirementType, WorkingStatus
from .oracle import F32_MAX, SECOND_NS, STOP, Content, f32
from .oracle_table import (
    ALLOCATING,
    CAR_DISCONNECTED,
    COMPLETED,
    EXPORT_PHASES,
    EXPORTS,
    FIRST_KEY,
    NO_KEY_YET,
    OUTAGE_NS,
    REQUIREMENTS,
    RUNNING,
    STATUS,
    WITHOUT_CAR,
    ConnectorSeen,
    apply,
)


class ConnectorShadow:
    """One connector, as the specification says that it has to be."""

    def __init__(self, number: int, config: Config) -> None:
        self.number = number
        self.global_no = config.connectors[number - 1].global_connector_number
        self.limit_a = config.connectors[number - 1].max_export_current_A
        self.allocation_ns = int(config.module_placeholder_allocation_timeout_s * SECOND_NS)
        self.supervision_ns = int(config.everest_timeout_s * SECOND_NS)
        self.must_verify = config.verify_secure_goose
        self.restart()

    def restart(self) -> None:
        """A new process: it knows nothing."""
        self.phase = CAR_DISCONNECTED
        self.mode_phase = ModePhase.OFF
        self.last_request: tuple[Mode, ChargingPhase] | None = None
        self.setpoint: tuple[float, float] | None = None
        self.ratings = (0.0, 0.0, 0.0, 0.0)
        """Max and min V, max and min A, capped by the connector's own limits."""
        self.entered_ns = 0
        self.resuming = False
        self.resume_overdue = False
        self.off_pending = False
        """EVerest said Off while the connector was resuming."""
        self.off_open = False
        """And then Off of a cable check: it is left open whether that changes anything."""
        self.outage_since_ns = 0
        """Since when the link was not READY; a connection that never gets so is no end of an outage."""
        self.in_outage = False
        """With a car: another loss before the link is READY belongs to the same outage."""
        self.link_ready = False
        self.ready_at_ns = 0
        self.request_at_ns = 0
        """When EVerest last sent a mode or a setpoint that counts."""
        self.allocation_failed = False
        self.internal_error = ""
        self.contactor_on = False
        self.board_speaks = False
        self.charging_event: int | None = None
        self.charging_event_free = False
        """Whether the specification does not say if there is a charging_event."""
        self.applied = (0.0, 0.0)
        self.applied_dirty = True
        self.stopped = False
        """Shut down: no power any more, nothing else is compared."""
        self._restart_supervision()
        self._restart_notes()

    def _restart_supervision(self) -> None:
        self.heartbeat_id: int | None = None
        self.clock_open = False
        """A turn failed: it is left open since when, until the next heartbeat."""
        self.is_id_old = False
        """It is of before EVerest was lost: a lower one now may be a restart that is known already."""
        self.clock_ns: int | None = None
        """Since when EVerest's silence counts; None: it does not."""
        self.heartbeat_seen = False
        self.everest_lost = False
        self.may_be_lost = False
        """In this turn EVerest may count as lost (a heartbeat id that stays)."""
        self.broker_gone_ns: int | None = None
        self.broker_clock_ns: int | None = None
        """Since when the broker's absence counts; None: it does not."""
        self.sync_due = True
        self.may_synchronise = False
        """There was a gap in the journal: EVerest may be told everything again."""

    def _restart_notes(self) -> None:
        self.bsp_event: str | None = None
        """The board's last one, as telemetry shows it."""
        self.is_bsp_event_open = False
        """A turn with one failed."""
        self.was_asked = False
        """Whether anything was ever to be applied."""
        self.has_forgotten = False
        """In this turn, what EVerest asked for; or it may have."""
        self.has_restarted = False
        """In this turn it showed that EVerest has begun anew."""
        self.log_due = ""
        """What a line in the process log has to say in this turn."""

    # --- what it looks like ----------------------------------------------------------------------------------

    @property
    def wish(self) -> bool:
        """Whether EVerest wants anything."""
        return self.mode_phase is not ModePhase.OFF or self.setpoint is not None

    @property
    def exports(self) -> bool:
        """Whether the mode in effect is Export."""
        return self.mode_phase in EXPORTS

    @property
    def working_status(self) -> int:
        """Register 0x110B."""
        if self.phase is RUNNING and self.mode_phase is ModePhase.EXPORT_CHARGING:
            return WorkingStatus.CHARGING
        return STATUS[self.phase]

    @property
    def connection_status(self) -> int:
        """Register 0x110D."""
        return 0 if self.phase is CAR_DISCONNECTED else 2

    def content(self) -> Content:
        """What the GOOSE message has to say."""
        if self.stopped:
            return STOP
        if self.phase is ALLOCATING:
            return (RequirementType.MODULE_PLACEHOLDER_REQUEST, 0.0, 0.0)
        if self.phase is not RUNNING:
            return STOP
        requirement, carries = REQUIREMENTS[self.mode_phase]
        if not carries:
            return (requirement, 0.0, 0.0)
        return (requirement, *self.applied_now())

    def applied_now(self) -> tuple[float, float]:
        """V and A: the setpoint clamped into the capabilities."""
        if self.applied_dirty:
            self.applied = apply(self.setpoint, self.ratings)
            self.applied_dirty = False
        return self.applied

    # --- events ----------------------------------------------------------------------------------------------

    def go(self, phase: ConnectorPhase, now_ns: int) -> None:
        """Another state."""
        if phase is RUNNING:
            self.charging_event, self.internal_error = 1, ""
            self.resuming = self.resume_overdue = self.off_pending = self.off_open = False
        else:
            self.charging_event, self.allocation_failed = 0, False
        if FIRST_KEY in (phase, self.phase):
            self.charging_event_free = True
        if phase in (COMPLETED, CAR_DISCONNECTED):
            self.resuming = self.resume_overdue = self.off_pending = self.off_open = False
        if phase is CAR_DISCONNECTED:
            self.in_outage = False
        self.phase, self.entered_ns = phase, now_ns

    def forget(self) -> None:
        """What EVerest asked for."""
        self.has_forgotten = True
        self.mode_phase, self.setpoint, self.last_request = ModePhase.OFF, None, None
        self.applied_dirty = True

    def car_connected(self, now_ns: int) -> None:
        if self.phase in WITHOUT_CAR:
            self.go(NO_KEY_YET, now_ns)

    def car_left(self, now_ns: int) -> None:
        if self.phase not in WITHOUT_CAR:
            self.go(CAR_DISCONNECTED, now_ns)
            self.forget()

    def key_written(self, now_ns: int, seen: ConnectorSeen) -> None:
        if self.phase is FIRST_KEY:
            self.go(CAR_DISCONNECTED, now_ns)
        elif self.phase is NO_KEY_YET:
            completes = seen.phase is COMPLETED if self.off_open else self.off_pending
            self.go(COMPLETED if completes else ALLOCATING, now_ns)

    def allocation_answered(self, now_ns: int, *, failed: bool) -> None:
        """A reply to the placeholder request, or its timeout."""
        if self.phase is ALLOCATING:
            self.go(RUNNING, now_ns)
            self.allocation_failed = failed

    def psu_runs(self, now_ns: int) -> None:
        """The PSU reported RUNNING, the first time on this connection."""
        if self.phase is CAR_DISCONNECTED and not self.stopped:
            self.go(FIRST_KEY, now_ns)

    def mode_requested(self, mode: Mode, phase: ChargingPhase, now_ns: int) -> None:
        if mode is Mode.OFF:
            if self.last_request == (Mode.EXPORT, ChargingPhase.CABLE_CHECK):
                phase = ChargingPhase.CABLE_CHECK
            is_check = phase is ChargingPhase.CABLE_CHECK
            self.setpoint, self.applied_dirty = None, True
            self.mode_phase = ModePhase.OFF_CABLE_CHECK if is_check else ModePhase.OFF
            if not is_check:
                self._off(now_ns)
            self.off_open = is_check and self.off_pending
        elif mode is Mode.EXPORT and phase in EXPORT_PHASES and self.phase not in WITHOUT_CAR:
            self.mode_phase = EXPORT_PHASES[phase]
            self.off_pending = self.off_open = False
            if self.phase is COMPLETED:
                self.go(NO_KEY_YET, now_ns)
        else:
            self.log_due = f"{mode} {phase} is refused"
            return
        self.last_request, self.request_at_ns = (mode, phase), now_ns
        if self.clock_ns is None and self.heartbeat_seen and self.exports:
            self.clock_ns = now_ns
        if self.broker_gone_ns is not None:
            self.broker_clock_ns = None  # it cannot have come over that broker

    def _off(self, now_ns: int) -> None:
        if self.phase is RUNNING or (self.phase is ALLOCATING and self.resuming):
            self.go(COMPLETED, now_ns)
        elif self.phase is NO_KEY_YET and self.resuming:
            self.off_pending = True

    def setpoint_requested(self, voltage_v: float, current_a: float, now_ns: int, seen: ConnectorSeen) -> None:
        if self.phase in WITHOUT_CAR or not (0 <= voltage_v < float("inf") and 0 <= current_a < float("inf")):
            self.log_due = "the setpoint is refused"
            return
        wanted = (f32(voltage_v), f32(current_a))
        max_v, min_v, max_a, _ = self.ratings
        if 0 not in wanted and wanted[0] < min_v and max_v > 0 and max_a > 0:
            self.log_due = "the setpoint is refused"
            return
        is_below = 0 not in wanted and min(wanted[0], max(max_v, 0.0)) < min_v
        # Refused or taken: there is no power either way, or only what the PSU is able to give.
        is_open = is_below or max(wanted) > F32_MAX
        if is_open and (seen.setpoint is None or (seen.setpoint.voltage_v, seen.setpoint.current_a) != wanted):
            return
        self.setpoint, self.applied_dirty, self.request_at_ns = wanted, True, now_ns
        if self.broker_gone_ns is not None:
            self.broker_clock_ns = None  # it cannot have come over that broker

    def rated(self, ratings: tuple[float, float, float, float]) -> None:
        """Capabilities of this moment: max and min V, max and min A."""
        self.ratings, self.applied_dirty = ratings, True

    def link_lost(self, now_ns: int) -> None:
        """The link to the PSU failed."""
        if not self.in_outage and (self.link_ready or self.phase in (ALLOCATING, RUNNING)):
            self.outage_since_ns, self.in_outage = now_ns, self.phase not in WITHOUT_CAR
        self.link_ready = False
        if self.phase in (ALLOCATING, RUNNING):
            self.go(NO_KEY_YET, now_ns)
            self.resuming = True
        elif self.phase is FIRST_KEY:
            self.go(CAR_DISCONNECTED, now_ns)
        self.resume_overdue = False

    def psu_ready(self, now_ns: int) -> None:
        self.link_ready, self.ready_at_ns, self.in_outage = True, now_ns, False
        if self.resuming and now_ns - self.outage_since_ns > OUTAGE_NS + SECOND_NS // 20:
            self.outage_was_long()

    def outage_was_long(self) -> None:
        """More than 10 s: what EVerest asked for before that counts no more."""
        if self.wish and self.request_at_ns < self.outage_since_ns + OUTAGE_NS:
            self.forget()

    def everest_gone(self, now_ns: int) -> None:
        """EVerest is lost."""
        self.forget()
        self.clock_ns = self.broker_clock_ns = None
        self.is_id_old = self.may_synchronise = True
        self._off(now_ns)
