"""Errors towards EVerest: what has to stand, and what EVerest was told (behaviour.md §3, §8.2)."""

from collections.abc import Sequence

from ...messages.outputs import ErrorCleared, ErrorRaised
from .oracle import fail

Key = tuple[str, str]
"""type, sub_type."""
ANY = "*"
"""A message that the specification leaves open."""

COMMUNICATION: Key = ("CommunicationFault", "")
NOT_RUNNING: Key = ("HardwareFault", "psu_not_running")
NO_CAPABILITIES: Key = ("HardwareFault", "capabilities_not_received")
ALLOCATION: Key = ("VendorWarning", "module_placeholder_allocation_failed")
INTERNAL: Key = ("VendorError", "internal_error")
JOURNAL: Key = ("VendorWarning", "journal_unavailable")
OWN_ERRORS = (COMMUNICATION, NOT_RUNNING, NO_CAPABILITIES, ALLOCATION, INTERNAL, JOURNAL)


class ErrorLedger:
    """What EVerest was told of a connector's errors."""

    def __init__(self, number: int, alarm_keys: Sequence[str]) -> None:
        self._number = number
        self._known = frozenset({*OWN_ERRORS, *(("VendorWarning", key) for key in alarm_keys)})
        self.told: dict[Key, str] = {}

    def restart(self) -> None:
        """A new process has told nothing."""
        self.told = {}

    def take(self, said: Sequence[ErrorRaised | ErrorCleared]) -> None:
        """What was said in a turn. Every raise has one clear."""
        for output in said:
            key = (output.error_type, output.sub_type)
            if key not in self._known:
                fail("unknown_error", f"connector {self._number}: {key}")
            if isinstance(output, ErrorRaised):
                if key in self.told:
                    fail("raised_twice", f"connector {self._number}: {key}")
                self.told[key] = output.message
            elif self.told.pop(key, None) is None:
                fail("cleared_unraised", f"connector {self._number}: {key}")

    def synchronise(self, said: Sequence[ErrorRaised | ErrorCleared]) -> None:
        """What was said in a turn that tells EVerest everything: each error of §3, warnings cleared first."""
        raised: dict[Key, str] = {}
        cleared: set[Key] = set()
        for output in said:
            key = (output.error_type, output.sub_type)
            if key not in self._known:
                fail("unknown_error", f"connector {self._number}: {key}")
            if isinstance(output, ErrorCleared):
                cleared.add(key)
                raised.pop(key, None)
                continue
            if key[0] == "VendorWarning" and key not in cleared:
                fail("warning_not_cleared_first", f"connector {self._number}: {key}")
            if key in raised:
                fail("raised_twice", f"connector {self._number}: {key}")
            raised[key] = output.message
        unsaid = self._known - raised.keys() - cleared
        if unsaid:
            fail("not_synchronised", f"connector {self._number}: {sorted(unsaid)[:3]}")
        self.told = raised

    def compare(self, wanted: dict[Key, str]) -> None:
        """What was told has to be what stands."""
        if self.told.keys() != wanted.keys():
            missing = sorted(wanted.keys() - self.told.keys())
            surplus = sorted(self.told.keys() - wanted.keys())
            name = "error_not_raised" if missing else "error_not_cleared"
            fail(name, f"connector {self._number}: not raised {missing}, not cleared {surplus}")
        for key, message in wanted.items():
            if message is not ANY and self.told[key] != message:
                fail(
                    "error_message",
                    f"connector {self._number}: {key} says {self.told[key]!r}, has to say {message!r}",
                )
