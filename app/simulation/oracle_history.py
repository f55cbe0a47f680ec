"""When error_history has to be asked which errors there are (behaviour.md §8.3)."""

from ...messages.config import Config
from .oracle import SECOND_NS, fail

REPEAT_NS = 6 * SECOND_NS
"""An EVerest that ended may take a question with it; it is asked again."""


class HistoryShadow:
    """What was asked, and what has to be."""

    def __init__(self, config: Config) -> None:
        self._is_there = bool(config.error_history)
        self.restart()

    def restart(self) -> None:
        """A new process."""
        self.asked = False
        """In this turn."""
        self._waits = False
        """Asked, and not answered yet."""
        self.is_due = False
        """In this turn it has to be asked."""
        self._due_ns: int | None = None
        """When it has to be asked at the latest."""
        self._is_open = False
        """A turn failed: what is known of all this is left open until it is asked again."""

    # --- events ----------------------------------------------------------------------------------------------

    def broker_changed(self, *, is_there: bool) -> None:
        """The connection to the broker stands, or is gone, and the question with it."""
        self.is_due = is_there and not self._waits
        self._waits = self._waits and is_there
        self._due_ns = None

    def everest_restarted(self, now_ns: int) -> None:
        """EVerest has begun anew."""
        if self._waits:
            self._due_ns = now_ns + REPEAT_NS
        else:
            self.is_due = True

    def answered(self) -> None:
        """It has said which errors there are."""
        self._waits, self._due_ns = False, None

    def failed(self) -> None:
        """A turn failed."""
        self._is_open = True

    # --- checks ----------------------------------------------------------------------------------------------

    def check(self) -> None:
        """What was asked in this turn."""
        if self.asked:
            if not self._is_there:
                fail("active_errors_requested", "there is no error_history")
            self._waits, self._is_open, self._due_ns = True, False, None
        elif self.is_due and self._is_there and not self._is_open:
            fail("active_errors_not_requested", "after a start, a reconnect, or a restart of EVerest")
        self.asked = self.is_due = False

    def overdue(self, late_ns: int) -> None:
        """InvariantViolated if it should have been asked again by this time."""
        if self._due_ns is not None and self._is_there and late_ns > self._due_ns and not self._is_open:
            fail("active_errors_not_requested", "after a restart of EVerest")
