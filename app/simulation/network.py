"""The cables between driver and power unit, and what is wrong with them."""

from collections.abc import Callable
from functools import partial

from msgspec import Struct

from .virtual_time import SECOND_NS, Calendar, Chance

WIRE_NS = 400_000
"""What each way takes at least, and twice that at most, while all is well."""


class Trouble(Struct):
    """Times are the calendar's, in ns."""

    stalled_until_ns: int = 0
    """Nothing gets through on Modbus; what is sent comes later."""
    slow_until_ns: int = 0
    slow_s: float = 0.0
    """Bytes take up to so much longer …"""
    splits: bool = False
    """… and come in pieces."""
    goose_until_ns: int = 0
    goose_lost: float = 0.0
    """Probability that a GOOSE frame is lost …"""
    goose_twice: float = 0.0
    """… or comes twice …"""
    goose_slow_s: float = 0.0
    """… and how much longer it takes at most."""


class Network:
    """Takes bytes and frames to the other end."""

    def __init__(self, calendar: Calendar, chance: Chance) -> None:
        self.trouble = Trouble()
        self._calendar = calendar
        self._chance = chance

    def mend(self) -> None:
        """All is well."""
        self.trouble = Trouble()

    @property
    def is_stalled(self) -> bool:
        """Whether nothing gets through on Modbus."""
        return self._calendar.now_ns < self.trouble.stalled_until_ns

    def soon(self, action: Callable[[], None]) -> None:
        """After one way."""
        self._calendar.at(self._calendar.now_ns + WIRE_NS + self._chance.below(WIRE_NS), action)

    def pieces(self, data: bytes, after_ns: int) -> list[tuple[int, bytes]]:
        """When which of the bytes arrive; not before `after_ns`, for they keep their order."""
        now_ns, trouble = self._calendar.now_ns, self.trouble
        slow_ns = int(trouble.slow_s * SECOND_NS) if now_ns < trouble.slow_until_ns else 0
        parts = [data]
        if slow_ns and trouble.splits and len(data) > 1:
            at = 1 + self._chance.below(len(data) - 1)
            parts = [data[:at], data[at:]]
        arriving = []
        for part in parts:
            due_ns = now_ns + WIRE_NS + self._chance.below(WIRE_NS + slow_ns)
            after_ns = max(after_ns, due_ns, trouble.stalled_until_ns)
            arriving.append((after_ns, part))
        return arriving

    def take_frame(self, arrive: Callable[[], None]) -> bool:
        """Let a GOOSE frame go over the cable. False if it is lost."""
        trouble = self.trouble
        if self._calendar.now_ns >= trouble.goose_until_ns:
            self.soon(arrive)
            return True
        if self._chance.happens(trouble.goose_lost):
            return False
        for _ in range(1 + self._chance.happens(trouble.goose_twice)):
            self._calendar.after(self._chance.uniform(0, trouble.goose_slow_s), partial(self.soon, arrive))
        return True
