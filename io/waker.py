"""Wakes a thread that waits in a selector: an eventfd, set from any thread, cleared by the one that waits."""

import contextlib
import os


class Waker:
    """`fileno` becomes readable when it is set. Setting never blocks."""

    def __init__(self) -> None:
        self._event_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._is_set = False
        """A wake-up is on its way: what comes meanwhile needs none of its own."""

    def fileno(self) -> int:
        """For the selector."""
        return self._event_fd

    def set(self) -> None:
        """Wake the thread. Whatever it is to find has to be there before."""
        if not self._is_set:
            self._is_set = True
            os.eventfd_write(self._event_fd, 1)

    def clear(self) -> None:
        """In the thread that was woken, before it looks for what there is, so that nothing is overlooked."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._event_fd)
        self._is_set = False

    def close(self) -> None:
        """Nobody is woken any more."""
        self._is_set = True
        if self._event_fd >= 0:
            os.close(self._event_fd)
            self._event_fd = -1
