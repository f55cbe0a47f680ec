"""Which messages `log cat` prints."""

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase

from ..replay.log_format import TOPICS
from ..replay.logs import Log
from ..replay.moments import Part
from .log_cat_records import Record


class FilterError(ValueError):
    """What was asked for cannot be. The text is for the user."""


def type_names(patterns: Sequence[str]) -> frozenset[str] | None:
    """The topics that the patterns mean, by type or by topic; None: all. FilterError."""
    if not patterns:
        return None
    found: set[str] = set()
    for pattern in patterns:
        matches = {
            topic for name, topic in TOPICS.items() if fnmatchcase(name, pattern) or fnmatchcase(topic, pattern)
        }
        if not matches:
            lower = {name.lower(): name for name in TOPICS}
            near = difflib.get_close_matches(pattern.lower(), lower, n=1, cutoff=0.4)
            hint = f"; did you mean {lower[near[0]]}?" if near else ""
            msg = f"--type {pattern}: there is no such message type{hint}"
            raise FilterError(msg)
        found |= matches
    return frozenset(found)


class Filter:
    """By type, connector, and place in the log."""

    def __init__(self, topics: frozenset[str] | None, connector: int | None, part: Part) -> None:
        self._topics = topics
        self._connector = connector
        self._since = part.first
        self._until = part.last
        self.first_segment = part.first.segment if part.first else 0
        """Where to begin reading."""
        self.has_begun = False
        """A message came by that is not before that place in the log, of whatever type."""

    def is_past_segment(self, log: Log, index: int) -> bool:
        """Whether nothing is wanted of this segment and those after it."""
        until = self._until
        if until is None or until.turn is None or index <= until.segment:
            return False
        return log.segments[index].header.run_id != log.segments[until.segment].header.run_id

    def is_past(self, record: Record, index: int) -> bool:
        """Whether nothing is wanted from this record on."""
        until = self._until
        if until is None or not record.topic.startswith("in/") or index < until.segment:
            return False
        return until.is_behind(record.turn, record.utc_ns, record.at_ns)

    def takes(self, record: Record, index: int) -> bool:
        """Whether it is to be printed."""
        since = self._since
        if since is not None and index == since.segment:
            if since.is_before(record.turn, record.utc_ns, record.at_ns):
                return False
            if record.topic.startswith("journal/SegmentHeader"):
                return False
        self.has_begun = True
        if self._topics is not None and record.topic not in self._topics:
            return False
        return self._connector is None or _concerns(record, self._connector)


def _concerns(record: Record, connector: int) -> bool:
    fields = record.fields()
    if "connector" in fields:
        return bool(fields["connector"] == connector)
    name = f"connector/{connector}"
    if "owner" in fields:
        return bool(fields["owner"] == name)
    numbers = record.global_number
    number = numbers[connector - 1] if connector <= len(numbers) else connector
    if "connector_no" in fields:
        return bool(fields["connector_no"] == number)
    topic = str(fields.get("topic", ""))
    return topic == f"connector/{number}" or topic.startswith(f"connector/{number}/")
