"""Tells systemd how the driver is (sd_notify(3), Type=notify): datagrams to the socket in NOTIFY_SOCKET.

    READY=1      the core has finished its first turn
    WATCHDOG=1   the core has finished a turn, and supervision is at work: a few times in WatchdogSec
    STOPPING=1   the driver is ending, and why

- Sent from turns of the core, never by a timer of its own: a core that hangs says nothing, and systemd ends and
  restarts the process after WatchdogSec.
- Nothing here waits: what the socket does not take at once is left out. Without systemd nothing is sent.
"""

import contextlib
import math
import os
import socket
import time
from collections.abc import Callable, MutableMapping
from typing import Self

_SUPERVISION_TIMEOUT_S = 30.0
"""The main thread looks once a second and waits for nothing: beyond this it hangs, on a busy machine, too."""
_PER_TIMEOUT = 4
"""Signs of life in WatchdogSec, if there are turns enough."""


class SystemdNotifier:
    """`turned` is the core thread's, the rest the main thread's."""

    def __init__(
        self, address: str, watchdog_s: float = math.inf, *, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        """`address`: a path, @NAME for an abstract socket, "" for nobody; `watchdog_s`: WatchdogSec."""
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._interval_s = watchdog_s / _PER_TIMEOUT
        self._monotonic_s = monotonic_s
        self._due_s = -math.inf if address else math.inf
        self._is_ready = False
        self._supervised_s = monotonic_s()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if address else None
        if self._socket is not None:
            self._socket.settimeout(0)

    @classmethod
    def of_environment(cls, environment: MutableMapping[str, str]) -> Self:
        """As systemd says in the environment, which is taken out: it is not for processes that we start."""
        address = environment.pop("NOTIFY_SOCKET", "")
        watchdog_us = environment.pop("WATCHDOG_USEC", "")
        process = environment.pop("WATCHDOG_PID", "")
        is_meant = watchdog_us.isdecimal() and process in ("", str(os.getpid()))
        return cls(address, int(watchdog_us) / 1e6 if is_meant and int(watchdog_us) else math.inf)

    def turned(self) -> None:
        """The core has finished a turn."""
        now_s = self._monotonic_s()
        if now_s < self._due_s:
            return
        if now_s - self._supervised_s > _SUPERVISION_TIMEOUT_S:
            return
        self._due_s = now_s + self._interval_s
        if not self._is_ready:
            self._is_ready = True
            self._send("READY=1")
        if self._interval_s < math.inf:
            self._send("WATCHDOG=1")

    def supervised(self) -> None:
        """Supervision has looked after the threads."""
        self._supervised_s = self._monotonic_s()

    def stopping(self, reason: str) -> None:
        """The driver is about to end: its last turns are no sign of life."""
        self._due_s = math.inf
        line = " ".join(reason.split())
        self._send(f"STOPPING=1\nSTATUS=stopping: {line}")

    def close(self) -> None:
        """Nothing is sent any more."""
        self._due_s = math.inf
        if self._socket is not None:
            self._socket.close()

    def _send(self, text: str) -> None:
        if self._socket is not None:
            # The socket is full, or gone with systemd itself: neither is a reason to stop charging.
            with contextlib.suppress(OSError):
                self._socket.sendto(text.encode(errors="replace"), self._address)
