"""Looks after the threads: each has to live, and to move (behaviour.md §10).

    look ─► thread dead?          ─► said at once
         ─► no beat since before? ─► nudged: it turns once, if it only had nothing to do
         ─► still none after LOOKS in a row: it hangs, and where it hangs is logged

Looks are counted, not seconds: what held up the main thread is not held against the others.
"""

import logging
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType

from ..io.pulse import Pulse

LOOK_INTERVAL_S = 1.0
LOOKS = 2
"""So a thread that hangs is noticed after 2 to 3 s, as a core that does."""
BLOCKING_LOOKS = 90
"""For a thread that asks a name server: a resolver gives up after 30 s, with several search domains later."""
_SHOWN_CALLS = 8

log = logging.getLogger("fusioncharger.driver")


def _nothing() -> None:
    """A thread that turns at least once a second needs no nudge."""


@dataclass
class Watched:
    """One thread, as supervision sees it. Without a pulse it may hang, but not die."""

    name: str
    is_alive: Callable[[], bool]
    pulse: Pulse | None = None
    nudge: Callable[[], None] = _nothing
    """Lets the thread turn once, and never waits."""
    last_beats: int = field(default=-1, init=False)
    silent_looks: int = field(default=0, init=False)

    def complaint(self) -> str:
        """Look once. What is wrong, or ""."""
        if not self.is_alive():
            return f"the {self.name} thread has died"
        if self.pulse is None:
            return ""
        # Before the beats: who leaves a block adds a beat first.
        limit = BLOCKING_LOOKS if self.pulse.may_block else LOOKS
        if self.pulse.beats != self.last_beats:
            self.last_beats = self.pulse.beats
            self.silent_looks = 0
            return ""
        self.silent_looks += 1
        if self.silent_looks >= limit:
            return f"the {self.name} thread hangs"
        self.nudge()
        return ""


def log_where_threads_are() -> None:
    """One line for each thread: the innermost calls. Reads no source file: the disk may be what hangs."""
    frames = sys._current_frames()  # noqa: SLF001 - the only way to another thread's stack, and documented
    for thread in threading.enumerate():
        log.error("thread %s is in: %s", thread.name, _calls(frames.get(thread.ident or 0)))


def _calls(frame: FrameType | None) -> str:
    calls: list[str] = []
    while frame is not None and len(calls) < _SHOWN_CALLS:
        code = frame.f_code
        file = code.co_filename.rpartition("/")[2]
        calls.append(f"{code.co_qualname} ({file}:{frame.f_lineno})")
        frame = frame.f_back
    return " < ".join(calls)
