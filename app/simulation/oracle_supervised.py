"""Shadow of a connector, second part: EVerest's supervision, and what hangs on the driver's timers.

What a timer of the driver does shows in its state only; `observe` takes it over when its time has come, and
`overdue` says what should have come by now (behaviour.md §1, §2, §8.2).
"""

from ...messages.types import ModePhase
from .oracle import EARLY_NS, SECOND_NS, fail
from .oracle_connector import ConnectorShadow
from .oracle_table import (
    ALLOCATING,
    CAR_DISCONNECTED,
    FIRST_KEY,
    FIRST_KEY_NS,
    OUTAGE_NS,
    RUNNING,
    ConnectorSeen,
)


class SupervisedShadow(ConnectorShadow):
    """A connector that is supervised, and whose time goes by."""

    def heartbeat(self, heartbeat_id: int, now_ns: int, *, redelivered: bool) -> bool:
        """True if EVerest is owed a synchronisation."""
        last = self.heartbeat_id
        if redelivered and last is not None and heartbeat_id <= last:
            # No sign of a restart; whether it is one of life is left open, until the next one.
            self.clock_ns, self.clock_open = now_ns, True
            return False
        is_lower = last is not None and heartbeat_id < last and last - heartbeat_id < 2**63
        self.has_restarted = went_back = is_lower and not self.is_id_old
        self.may_be_lost = self.has_forgotten = last is not None and heartbeat_id <= last
        due = self.sync_due or self.everest_lost or went_back
        if went_back:
            self.everest_gone(now_ns)
        self.heartbeat_id = heartbeat_id
        self.clock_ns, self.heartbeat_seen, self.sync_due = now_ns, True, False
        self.may_synchronise = self.is_id_old = self.clock_open = False
        return due

    def broker_changed(self, *, is_there: bool, now_ns: int) -> None:
        """The connection to the broker stands, or is gone."""
        if is_there:
            self.broker_gone_ns = self.broker_clock_ns = None
            self.sync_due = True
        elif self.broker_gone_ns is None:
            self.broker_gone_ns = self.broker_clock_ns = now_ns

    # --- what hangs on the driver's timers -------------------------------------------------------------------

    def observe(self, seen: ConnectorSeen, now_ns: int) -> None:
        """Take over what the driver did on its own, if it was time for it."""
        if seen.phase is not self.phase:
            age_ns = now_ns - self.entered_ns + EARLY_NS
            if self.phase is ALLOCATING and seen.phase is RUNNING and age_ns >= self.allocation_ns:
                self.allocation_answered(now_ns, failed=True)
            elif self.phase is FIRST_KEY and seen.phase is CAR_DISCONNECTED and age_ns >= FIRST_KEY_NS:
                self.go(CAR_DISCONNECTED, now_ns)
                self.log_due = "no first key"
        if seen.everest_lost and not self.everest_lost:
            if not self._is_silent(now_ns):
                fail("everest_lost_early", f"connector {self.number}")
            self.everest_gone(now_ns)
        elif self.wish and seen.mode_phase is ModePhase.OFF and seen.setpoint is None:
            if not self.link_ready and self._outage_ns(now_ns) >= OUTAGE_NS:
                self.in_outage = False  # it has been told; said of resuming connectors only, but safe
                self.forget()
            elif self.wish and self._is_silent(now_ns):
                self.everest_gone(now_ns)
        self.may_synchronise = self.may_synchronise or seen.everest_lost
        self.everest_lost, self.may_be_lost = seen.everest_lost, False
        if self.resuming and self.link_ready and seen.resume_overdue:
            self.resume_overdue = now_ns + EARLY_NS >= self._resume_limit_ns()

    def overdue(self, late_ns: int) -> None:
        """InvariantViolated if the driver should have done something by itself at this time, and did not."""
        if self.phase is ALLOCATING and late_ns > self.entered_ns + self.allocation_ns:
            fail("allocation_timeout_missed", f"connector {self.number}")
        if self.phase is FIRST_KEY and late_ns > self.entered_ns + FIRST_KEY_NS:
            fail("first_key_endless", f"connector {self.number}")
        if self.wish:
            clocks = (self.clock_ns if self.heartbeat_seen and self.exports else None, self.broker_clock_ns)
            if any(clock is not None and late_ns > clock + self.supervision_ns for clock in clocks):
                fail("everest_lost_ignored", f"connector {self.number}: {self.mode_phase}")
            long_ago = self.request_at_ns < self.outage_since_ns + OUTAGE_NS
            if self.resuming and not self.link_ready and long_ago and self._outage_ns(late_ns) > OUTAGE_NS:
                fail("outage_kept_the_request", f"connector {self.number}")
        if self.resuming and self.link_ready and not self.resume_overdue and late_ns > self._resume_limit_ns():
            fail("resuming_endless", f"connector {self.number}")

    def _outage_ns(self, now_ns: int) -> int:
        return now_ns + EARLY_NS - self.outage_since_ns

    def _resume_limit_ns(self) -> int:
        return self.ready_at_ns + 4 * SECOND_NS + self.allocation_ns

    def _is_silent(self, now_ns: int) -> bool:
        limit_ns = now_ns + EARLY_NS - self.supervision_ns
        heartbeat = self.heartbeat_seen and (
            self.clock_open or self.clock_ns is None or self.clock_ns <= limit_ns
        )
        broker = self.broker_gone_ns is not None and self.broker_gone_ns <= limit_ns
        return heartbeat or broker or self.may_be_lost
