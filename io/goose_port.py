"""Where GOOSE frames leave and arrive: whole Ethernet frames as bytes (protocol.md §3, architecture.md §6).

| `interface` | port | for |
|---|---|---|
| `eth0` | raw socket on that interface (af_packet_port.py) | the field; needs CAP_NET_RAW |
| `udp:LOCAL`, `udp:LOCAL:PEER` | UDP on 127.0.0.1 (udp_port.py) | development without privileges |
"""

import math
import select
from typing import Protocol

from .waker import Waker


class GoosePortError(Exception):
    """The port cannot be opened. The text is for the user and says what to do."""


class GoosePort(Protocol):
    """A place to send and receive Ethernet frames. One thread may receive while others send."""

    @property
    def mac(self) -> bytes:
        """Own MAC, 6 bytes: the source of what is sent."""

    def send(self, frame: bytes) -> None:
        """Send now, never wait. OSError if that cannot be (interface down, queue full)."""

    def receive(self, timeout_s: float) -> bytes | None:
        """The next frame, or None after `timeout_s` (math.inf: no limit) or an `interrupt`.

        Frames that this port sent do not come back. OSError if the interface went down; a later call works
        again when it is up.
        """

    def interrupt(self) -> None:
        """Let the `receive` that waits now, or the next one that would, return None. For any thread."""

    def take_drop_count(self) -> int:
        """How many frames the kernel dropped since the last call because nobody received them in time."""

    def close(self) -> None:
        """Close the socket. No other thread may be using the port."""


def open_port(interface: str) -> GoosePort:
    """The port that `interface` names. GoosePortError."""
    if interface.startswith("udp:"):
        from .udp_port import open_udp_port  # noqa: PLC0415 - a field device never needs it

        return open_udp_port(interface)
    from .af_packet_port import open_af_packet_port  # noqa: PLC0415 - scapy takes 0.2 s to import

    return open_af_packet_port(interface)


class ReadableWait:
    """Waits until a socket is readable, and can be interrupted from another thread."""

    def __init__(self, socket_fd: int) -> None:
        self._waker = Waker()
        self._poll = select.poll()
        self._poll.register(socket_fd, select.POLLIN)
        self._poll.register(self._waker, select.POLLIN)

    def wait(self, timeout_s: float) -> bool:
        """True: readable, or the socket has an error to tell. False: timeout or interrupt."""
        timeout_ms = None if math.isinf(timeout_s) else math.ceil(timeout_s * 1000)
        ready = [fd for fd, _ in self._poll.poll(timeout_ms)]
        if self._waker.fileno() in ready:
            self._waker.clear()
            return False
        return bool(ready)

    def interrupt(self) -> None:
        """End the wait that is on, or the next one."""
        self._waker.set()

    def close(self) -> None:
        """Give the file descriptor back."""
        self._waker.close()
