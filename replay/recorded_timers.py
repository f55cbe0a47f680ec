"""Timers' numbers, where this version counts them otherwise than the recorded one did.

A StartTimer carries a number, and TimerFired brings it back: one that is not the number of the last start is
ignored (actors/runtime.py). Once this version has started a timer more, or one less, its numbers are not the
recorded ones any more, and every later TimerFired of the log would be ignored.

So a TimerFired that counted in the recorded run counts here, too, if the timer runs here: it gets the number
that the timer has here. One that did not count there (cancelled or restarted while it was on its way) does not
count here either. As long as nothing differs, the numbers are the recorded ones.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from msgspec.structs import replace

from ..actors.runtime import ActorState
from ..messages.inputs import Input, TimerFired
from ..messages.outputs import CancelTimer, StartTimer
from .reader import RecordedOutput, Turn

NOT_RUNNING = 0
"""No start has this number."""

_TAGS = tuple(f'{{"type":"{kind.__name__}"'.encode() for kind in (StartTimer, CancelTimer))


class RecordedTimers:
    """The timers that ran in the recorded run."""

    def __init__(self, snapshot: Mapping[str, Any]) -> None:
        """`snapshot`: of the segment's header."""
        self._numbers: dict[tuple[str, str], int] = {}
        """By owner and name."""
        self.restart(snapshot)

    def restart(self, snapshot: Mapping[str, Any]) -> None:
        """Another segment begins."""
        self._numbers = {
            (owner, name): number
            for owner, state in snapshot.items()
            for name, number in state.get("timers", {}).items()
        }

    def input(self, turn: Turn, states: Mapping[str, ActorState]) -> Input:
        """The turn's Input, as it is to be given to a core with these states."""
        fired = turn.input
        if not isinstance(fired, TimerFired):
            return fired
        key = fired.owner, fired.name
        counts = self._numbers.get(key) == fired.number
        if counts:
            del self._numbers[key]
        owner = states.get(fired.owner)
        running = owner.timers.get(fired.name, NOT_RUNNING) if owner is not None else NOT_RUNNING
        if counts == (running == fired.number):
            return fired
        return replace(fired, number=running if counts else NOT_RUNNING)

    def take(self, outputs: tuple[RecordedOutput, ...]) -> None:
        """What the recorded turn said of timers. UnsupportedFormatError."""
        for told in timer_outputs(outputs):
            if isinstance(told, StartTimer):
                self._numbers[told.owner, told.name] = told.number
            else:
                self._numbers.pop((told.owner, told.name), None)


def timer_outputs(outputs: tuple[RecordedOutput, ...]) -> Iterator[StartTimer | CancelTimer]:
    """Those that are about timers. UnsupportedFormatError."""
    for output in outputs:
        if output.intact and output.payload.startswith(_TAGS):
            told = output.message()
            if isinstance(told, StartTimer | CancelTimer):
                yield told
