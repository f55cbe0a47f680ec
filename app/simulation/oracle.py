"""What the oracle's parts share: the error that they raise, and what a GOOSE message says.

The oracle is written from behaviour.md and protocol.md, never from the actors' code. It follows the Inputs with
a shadow of its own and compares the driver's Outputs and states with it.

Rules:
- Where the specification leaves room, the oracle takes over what the driver chose, within what is allowed.
- A driver may be late by LATE_NS for what hangs on a timer (SLACK_NS if a turn failed lately: a timer whose
  turn failed fires again a second later), never early.
- A failed turn (TurnFailed) is undone by the runtime: then the states are taken over after a check that they
  are safe (oracle_failure.py).
"""

import struct
from typing import NoReturn

from ...messages.types import RequirementType

SECOND_NS = 1_000_000_000
LATE_NS = 100_000_000
"""How late a timer's effect may be."""
SLACK_NS = 1_500_000_000
"""The same, and for how long, after a turn that failed."""
EARLY_NS = 1_000
"""Rounding of delays in seconds."""

Content = tuple[RequirementType | None, float, float]
"""What a GOOSE message says: requirement_type (None: a stop request), V, A."""
STOP: Content = (None, 0.0, 0.0)
F32_ULP = 1.2e-7
"""Relative."""
F32_MAX = 3.4028234663852886e38

_F32 = struct.Struct(">f")


class InvariantViolated(Exception):  # noqa: N818 - it says what happened, as Inputs do
    """The driver did what the specification forbids, or did not do what it demands."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name
        """Short and stable: what tests and shrinkers go by."""
        self.text = text


def fail(name: str, text: str) -> NoReturn:
    """Raise it."""
    raise InvariantViolated(name, text)


def f32(value: float) -> float:
    """The nearest f32; a value beyond all f32 stays as it is. Never a negative zero."""
    try:
        return float(_F32.unpack(_F32.pack(value))[0]) + 0.0
    except OverflowError:
        return value
