"""Makes the plan of a failure smaller: what can be left out so that the same invariant still fails.

In turn, and again as long as anything helps: a shorter time; fewer connectors; halves, quarters, … of the
events, down to single ones (delta debugging).
"""

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from .plan import AnyEvent, Plan
from .run import Failure, run

MARGIN_S = 0.001


class Shrinker:
    """Shrinks one plan, as long as `may_go_on` says so; `tried` is told of every run."""

    def __init__(
        self, plan: Plan, failure: Failure, may_go_on: Callable[[], bool], tried: Callable[[Plan], None]
    ) -> None:
        self.plan = plan
        """The smallest one so far that fails."""
        self.failure = failure
        """How it fails."""
        self._may_go_on = may_go_on
        self._tried = tried

    def shrink(self) -> None:
        """As far as it goes."""
        self._shorten()
        while self._may_go_on():
            before = self.plan
            self._drop_connectors()
            self._drop_events()
            self._shorten()
            if self.plan == before:
                return

    def _try(self, candidate: Plan) -> bool:
        """Whether it fails the same way; then it is the smallest one."""
        if not self._may_go_on():
            return False
        self._tried(self.plan)
        failure = run(candidate).failure
        if failure is None or failure.invariant != self.failure.invariant:
            return False
        self.plan, self.failure = candidate, failure
        return True

    def _shorten(self) -> None:
        """What comes after the failure does not matter. A journal is looked at when all is over."""
        end_s = self.failure.at_s + MARGIN_S
        if end_s < self.plan.seconds:
            events = tuple(event for event in self.plan.events if event.at_s <= end_s)
            self._try(replace(self.plan, seconds=end_s, events=events))
        while self.failure.turn == 0 and self._may_go_on():
            half_s = self.plan.seconds / 2
            events = tuple(event for event in self.plan.events if event.at_s <= half_s)
            if half_s < 1 or not self._try(replace(self.plan, seconds=half_s, events=events)):
                return

    def _drop_connectors(self) -> None:
        """The last ones: numbers of the others stay as they are."""
        while (count := len(self.plan.config.connectors)) > 1:
            config = replace(self.plan.config, connectors=self.plan.config.connectors[:-1])
            events = tuple(event for event in self.plan.events if _connector_of(event) < count)
            if not self._try(replace(self.plan, config=config, events=events)):
                return

    def _drop_events(self) -> None:
        parts = 2
        while self.plan.events and self._may_go_on():
            size = max(1, len(self.plan.events) // parts)
            if self._drop_one_part(size):
                continue
            if size == 1:
                return
            parts *= 2

    def _drop_one_part(self, size: int) -> bool:
        """Go through the events, part by part. Whether any could be left out."""
        dropped = False
        begin = 0
        while begin < len(self.plan.events):
            events: Sequence[AnyEvent] = self.plan.events
            kept = (*events[:begin], *events[begin + size :])
            if self._try(replace(self.plan, events=kept)):
                dropped = True
            else:
                begin += size
            if not self._may_go_on():
                return False
        return dropped


def _connector_of(event: AnyEvent) -> int:
    """The connector that the event is about; 0 for none."""
    told = getattr(event, "command", {})
    connector = getattr(event, "connector", 0) or told.get("connector") or 0
    return int(connector)
