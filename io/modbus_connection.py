"""One connection to the PSU: TCP in the making (`Attempt`), and established (`Connection`).

Between the two comes tls_handshake.py, where TLS is on. The frames are the same then (protocol.md §2.3), but a
TLS socket is not quite a socket:
- Bytes that it has decrypted and not handed out make no selector wake, so `receive` always takes them all.
- Receiving may have to wait until the socket takes bytes, and sending until some came (a renegotiation, a new
  key). So each of the two directions notes what it waits for.
- A send that has to wait has to be tried again with the same bytes, though they may have moved and become more:
  `_pending` only grows at its end meanwhile.

Rules, which protect the core from a PSU that misbehaves:
- Never more than MAX_UNANSWERED requests are in the hands of the core. Beyond that neither the codec nor the
  socket is read, and TCP holds the PSU back.
- Of requests, MAX_PER_INTERVAL are taken in any 10 ms (5 000/s; a PSU asks a few), so that neither the core nor
  the recorder is kept busy with nothing else, and the journal grows by some 5 MB/s at most.
- PDUs that are never answered (protocol.md §2) would get around that: of these, MAX_UNEXPECTED are taken in
  any second, and then nothing is read until the second is over.
- A PSU that does not read what we send is given up when MAX_PENDING_BYTES wait for it.
- Only the thread of modbus_link.py calls this, and only this calls the socket's send and recv.
"""

import contextlib
import errno
import os
import selectors
import socket
import ssl
import time
from collections import deque

from ..messages.outputs import ExceptionAnswered, ReadAnswered, ReportSent, WriteAnswered
from .modbus_adu import ModbusProtocolError
from .modbus_codec import DispenserCodec, Request, UnexpectedPdu
from .tls_handshake import ALERT_RECORD, CLOSED, check_socket, established_text

MAX_UNANSWERED = 8
"""So many turns may a command of EVerest's have to wait for; a PSU that asks one by one needs 1."""
MAX_UNEXPECTED = 32
MAX_PER_INTERVAL = 50
INTERVAL_S = 0.01
MAX_PENDING_BYTES = 256 * 1024

_RECEIVE_BYTES = 64 * 1024
_KEEPALIVE_IDLE_S = 5
_KEEPALIVE_INTERVAL_S = 5
_USER_TIMEOUT_MS = 10_000
"""Data (or a keepalive) that is not acknowledged for this long ends the connection. A report is sent every
second, so a PSU that lost its power is noticed after this, and not after the kernel's 15 minutes."""

Answer = ReadAnswered | WriteAnswered | ExceptionAnswered


class ConnectionLostError(Exception):
    """The connection is of no more use; the text says why."""


class Attempt:
    """A TCP connection in the making: each address of the host in turn, until the deadline for all of them."""

    def __init__(self, number: int, host: str, port: int, timeout_s: float) -> None:
        """OSError or ValueError if there is nothing to connect to."""
        self.number = number
        self.deadline_s = time.monotonic() + timeout_s
        self.timeout_text = f"no answer in {timeout_s:g} s"
        self.events = selectors.EVENT_WRITE
        self._addresses = deque(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        self.socket = self._next_socket()
        """Writable when the attempt is decided."""

    def advance(self) -> bool:
        """When the socket is ready. True: connected. False: the next address is tried. OSError: all were."""
        error = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        # A reset comes after connecting; who has the connection says so, in the same words each time.
        if error in (0, errno.ECONNRESET):
            return True
        self.socket.close()
        if not self._addresses:
            raise OSError(error, os.strerror(error))
        self.socket = self._next_socket()
        return False

    def _next_socket(self) -> socket.socket:
        """A socket that connects to the next address that lets it try."""
        while True:
            family, kind, protocol, _, address = self._addresses.popleft()
            try:
                candidate = socket.socket(family, kind, protocol)
            except OSError:  # no such address family on this machine
                if not self._addresses:
                    raise
                continue
            candidate.settimeout(0)
            error = candidate.connect_ex(address)
            if error in (0, errno.EINPROGRESS):
                return candidate
            candidate.close()
            if not self._addresses:
                raise OSError(error, os.strerror(error))


class Connection:
    """`number` is the core's count of connections, which every Input and Output of this connection carries."""

    def __init__(self, connected: socket.socket, number: int) -> None:
        """`connected` may be an SSLSocket whose handshake is done."""
        self.number = number
        self.socket = connected
        """For the selector; nobody else sends or receives on it."""
        self._codec = DispenserCodec()
        self._pending = bytearray()
        self._unanswered = 0
        self._unexpected = 0
        """PDUs without an answer in the second that ends at _second_ends_s."""
        self._second_ends_s = 0.0
        self._taken = 0
        """Requests in the interval that ends at _interval_ends_s."""
        self._interval_ends_s = 0.0
        self._receive_event = selectors.EVENT_READ
        self._send_event = selectors.EVENT_WRITE
        self._first_bytes = b""
        """The first two that were received."""
        # Without TCP_NODELAY an answer that follows a report waits about 44 ms (protocol.md §2).
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_S)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_INTERVAL_S)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)

    @property
    def events(self) -> int:
        """What to wait for; 0: nothing."""
        events = self._receive_event if self._wants_to_receive else 0
        return events | (self._send_event if self._pending else 0)

    @property
    def resumes_at_s(self) -> float | None:
        """When to call `next_request` again although nothing happened (monotonic); None for never."""
        if self._unexpected >= MAX_UNEXPECTED:
            return self._second_ends_s
        return self._interval_ends_s if self._taken >= MAX_PER_INTERVAL else None

    @property
    def _wants_to_receive(self) -> bool:
        """Whether a request may be handed to the core now."""
        return (
            self._unanswered < MAX_UNANSWERED
            and self._unexpected < MAX_UNEXPECTED
            and self._taken < MAX_PER_INTERVAL
        )

    def receive(self, events: int) -> None:
        """Read what there is into the codec, if `events` say so. ConnectionLostError if the PSU is gone."""
        if not (events & self._receive_event and self._wants_to_receive):
            return
        self._receive_event = selectors.EVENT_READ
        try:
            if isinstance(self.socket, ssl.SSLSocket):
                check_socket(self.socket)
            self._take(self.socket.recv(_RECEIVE_BYTES))
            # The rest of a record, so 16 KiB at most.
            while isinstance(self.socket, ssl.SSLSocket) and self.socket.pending():
                self._take(self.socket.recv(_RECEIVE_BYTES))
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        except ssl.SSLWantWriteError:
            self._receive_event = selectors.EVENT_WRITE
        except OSError as error:
            raise ConnectionLostError(self._lost_text(error)) from error

    def _take(self, data: bytes) -> None:
        if not data:
            raise ConnectionLostError(self._lost_text(None))
        if len(self._first_bytes) < len(ALERT_RECORD):
            self._first_bytes = (self._first_bytes + data)[: len(ALERT_RECORD)]
        self._codec.receive(data)

    def next_request(self, now_s: float) -> Request | None:
        """The next request for the core, if there is one and the core may have it. ConnectionLostError."""
        if now_s >= self._second_ends_s:
            self._unexpected = 0
            self._second_ends_s = now_s + 1.0
        if now_s >= self._interval_ends_s:
            self._taken = 0
            self._interval_ends_s = now_s + INTERVAL_S
        if not self._wants_to_receive:
            return None
        try:
            request = self._codec.next_event()
        except ModbusProtocolError as error:
            reason = f"Modbus protocol error: {error}"
            if self._first_bytes == ALERT_RECORD and not isinstance(self.socket, ssl.SSLSocket):
                reason = "the PSU wants TLS (tls_enabled = false): it sent a TLS alert"
            raise ConnectionLostError(reason) from error
        if isinstance(request, UnexpectedPdu):
            self._unexpected += 1
        elif request is not None:
            self._unanswered += 1
            self._taken += 1
        return request

    def put(self, output: Answer | ReportSent) -> None:
        """Encode an answer or a report; `flush` sends it."""
        if not isinstance(output, ReportSent):
            self._unanswered -= 1
        self._pending += self._codec.encode(output)

    def flush(self) -> None:
        """Send as much as the socket takes. ConnectionLostError."""
        self._send_event = selectors.EVENT_WRITE
        try:
            while self._pending:
                del self._pending[: self.socket.send(self._pending)]
        except (BlockingIOError, ssl.SSLWantWriteError):
            pass
        except ssl.SSLWantReadError:
            self._send_event = selectors.EVENT_READ
        except OSError as error:
            raise ConnectionLostError(self._lost_text(error)) from error
        if len(self._pending) > MAX_PENDING_BYTES:
            reason = f"the PSU does not read: {len(self._pending)} bytes wait to be sent"
            raise ConnectionLostError(reason)

    def close(self) -> None:
        """Send what the socket still takes, and close it."""
        with contextlib.suppress(ConnectionLostError):
            self.flush()
        if isinstance(self.socket, ssl.SSLSocket):
            # close_notify, if the socket takes it; the PSU's own is not waited for.
            with contextlib.suppress(OSError, ValueError):
                self.socket.unwrap()
        self.socket.close()

    def _lost_text(self, error: OSError | None) -> str:
        """Why the connection ended; None: the PSU closed it."""
        is_parted = error is None or isinstance(error, ConnectionError | ssl.SSLEOFError)
        if self._first_bytes or not is_parted:
            return CLOSED if error is None else established_text(error)
        # Who does not agree on TLS, or on a certificate, may part without a word, with a reset or without.
        if isinstance(self.socket, ssl.SSLSocket):
            return f"{CLOSED} right after the TLS handshake; it may not accept our certificate"
        return f"{CLOSED} before its first request; it may want TLS (tls_enabled = false)"
