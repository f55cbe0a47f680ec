"""Lifts what an older version recorded to the present format: one function per format, applied in a row.

A lift takes a message as JSON object and gives it as the next format has it. It names the types that
it changes; all others stay as they are, byte for byte. Fields that were only added need no lift: they
have defaults. Each format that ever landed has a recording in tests/sessions/, which has to replay for ever.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec import Struct

from .log_format import FORMAT, seal, type_name, unsealed

Fields = dict[str, Any]


class Lift(Struct, frozen=True):
    """From one format to the next."""

    changes: Mapping[str, Callable[[Fields], Fields]]
    """By type: what becomes of a message's fields. The header's format number is seen to."""


LIFTS: Mapping[int, Lift] = MappingProxyType(
    {
        # Format 2 added segments that go on in the next, summaries and compression; no message changed.
        1: Lift({}),
    }
)
"""By the format that is lifted, by one."""


def can_lift(recorded_format: int, lifts: Mapping[int, Lift] = LIFTS) -> bool:
    """Whether logs of that format can be read."""
    return recorded_format <= FORMAT and all(number in lifts for number in range(recorded_format, FORMAT))


class Lifter:
    """Lifts sealed payloads of one format to the present one."""

    def __init__(self, recorded_format: int, lifts: Mapping[int, Lift] = LIFTS) -> None:
        """LookupError if there is no way from that format."""
        self._chain = [lifts[number] for number in range(recorded_format, FORMAT)]
        self._changed = {"SegmentHeader"}.union(*(lift.changes for lift in self._chain))

    def __call__(self, payload: bytes) -> bytes:
        """An intact payload, as the present format has it. NOT_UNDERSTOOD (log_format.py)."""
        name = type_name(payload)
        if name not in self._changed:
            return payload
        fields = msgspec.json.decode(unsealed(payload), type=dict[str, Any])
        for lift in self._chain:
            change = lift.changes.get(str(fields["type"]))
            if change is not None:
                fields = change(fields)
        if name == "SegmentHeader":
            fields["format"] = FORMAT
        return seal(fields)
