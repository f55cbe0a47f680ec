"""What a segment holds, in short: made by the recorder while it writes, so that `log info` need not read it whole.

Summaries of consecutive segments can be merged. Nothing here may raise on what it is fed: the recording goes on
whatever its summary is worth.
"""

from msgspec import Struct


class Summary(Struct, frozen=True):
    """What is in a segment, or in several that follow one another."""

    first_turn: int = 0
    """0 and no turns: nothing was recorded."""
    turns: int = 0
    first_utc_ns: int = 0
    last_utc_ns: int = 0
    first_at_ns: int = 0
    """Monotonic time since the start of the process."""
    last_at_ns: int = 0
    counts: dict[str, int] = {}
    """Messages by type."""


class Summariser:
    """Makes the Summary of a segment from its records, one by one."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def add(self, tag: str, payload: bytes, turn: int, at_ns: int, utc_ns: int) -> None:
        """A record, in its order: type, sealed payload, turn, and the times of its turn."""
        self._counts[tag] = self._counts.get(tag, 0) + 1

    def summary(self) -> Summary:
        """Of all that was added."""
        return Summary(counts=dict(self._counts))
