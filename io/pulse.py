"""A sign of life of one thread, for the supervision (app/supervision.py, behaviour.md §10).

A thread that lives may still hang: in a lock, in a driver of the kernel, in a library. So each counts the turns
of its loop, which costs next to nothing and needs neither clock nor lock; who supervises compares, and lets the
thread turn once if it had nothing to do.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class Pulse:
    """Written by its thread alone, read by any."""

    __slots__ = ("beats", "may_block")

    def __init__(self) -> None:
        self.beats = 0
        """Turns of the thread's loop. The thread adds 1 in each, and `blocking` at its end."""
        self.may_block = False
        """The thread is where waiting is not ours to limit: a name server's answer."""

    @contextmanager
    def blocking(self) -> Iterator[None]:
        """While the thread is in the block, it may take as long as a resolver does.

        The block's end is a sign of life: how long it took is not held against what comes after it.
        """
        self.may_block = True
        try:
            yield
        finally:
            self.beats += 1
            self.may_block = False
