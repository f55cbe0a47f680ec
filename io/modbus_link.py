"""The link to the PSU: one thread that connects, receives and sends (protocol.md §1, §2).

    core ── handle(Output) ──► deque ─ wake-up ─► thread "modbus" ── sink(Input) ──► core
                                                        │
                                                     socket to the PSU

The dispenser opens the TCP connection, and on it the PSU asks. Here nothing is decided: the core says when to
connect (behaviour.md §2) and what to answer, this thread carries it out and reports what happened.

Rules:
- Outputs of another connection than the present one are ignored: its answers would go to the wrong one.
- Keys end here: the key ring takes them, and the core gets the request with zeros in their place, followed by
  HmacKeyReceived (architecture.md §3).
- The thread blocks when there is nothing to do. It calls whatever may block but one: a host *name* is resolved
  in it, which takes as long as the resolver takes; no connection exists meanwhile.
- With TLS, PsuConnected is sent when the handshake is done. That a PSU refuses our certificate may show only
  after that (tls_handshake.py): as PsuDisconnected.
- What waits in the deque is bounded by what the core may send: an answer to each of MAX_UNANSWERED requests,
  and reports, at most one per turn and none without a connection.
- If the sink raises, the thread ends: `is_alive` says so, and the process has to stop.
"""

import errno
import selectors
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import assert_never

from ..messages.inputs import (
    HmacKeyReceived,
    Input,
    ModbusRequestRefused,
    PsuConnected,
    PsuConnectFailed,
    PsuDisconnected,
    RegistersRead,
    RegistersWritten,
    UnexpectedPduReceived,
)
from ..messages.outputs import (
    ExceptionAnswered,
    PsuConnectRequested,
    PsuDisconnectRequested,
    ReadAnswered,
    ReportSent,
    WriteAnswered,
)
from .key_ring import KeyRing
from .modbus_codec import ReadRequest, RefusedRequest, Request, UnexpectedPdu, WriteRequest
from .modbus_connection import Attempt, Connection, ConnectionLostError
from .pulse import Pulse
from .tls_handshake import Handshake, TlsHandshakeError
from .waker import Waker

LinkOutput = (
    PsuConnectRequested | PsuDisconnectRequested | ReadAnswered | WriteAnswered | ExceptionAnswered | ReportSent
)

_CLOSE_TIMEOUT_S = 2.0
_SHOWN_BYTES = 10
"""Of a PDU that is not understood: MBAP header, function and two bytes more."""


class ModbusLink:
    """`start`, then `handle` Outputs from the core's thread, in the end `close`."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        key_ring: KeyRing,
        sink: Callable[[Input], None],
        connect_timeout_s: float = 1.0,
        tls: ssl.SSLContext | None = None,
        tls_hostname: str = "",
        handshake_timeout_s: float = 10.0,
    ) -> None:
        """`sink` is called in the link's thread. `tls`: encrypt; `tls_hostname`: the name in the PSU's
        certificate, if the context is to check one (tls.py)."""
        self._host = host
        self._port = port
        self._key_ring = key_ring
        self._sink = sink
        self._connect_timeout_s = connect_timeout_s
        self._tls = tls
        self._tls_hostname = tls_hostname
        self._handshake_timeout_s = handshake_timeout_s
        self.pulse = Pulse()
        self._outputs: deque[LinkOutput] = deque()
        self._closing = False
        self._waker = Waker()
        self._thread = threading.Thread(target=self._run, name="modbus", daemon=True)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._waker, selectors.EVENT_READ)
        # Of the thread alone; at most one of the first two is set.
        self._attempt: Attempt | Handshake | None = None
        self._connection: Connection | None = None
        self._watched: tuple[socket.socket, int] | None = None

    def start(self) -> None:
        """Start the thread; it connects when the core asks for it."""
        self._thread.start()

    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def handle(self, output: LinkOutput) -> None:
        """Hand an Output to the thread. Never blocks."""
        self._outputs.append(output)
        self._waker.set()

    def nudge(self) -> None:
        """Let the thread turn once. Never blocks."""
        self._waker.set()

    def close(self) -> bool:
        """Send what was handed over, close the connection (without an Input for it) and end the thread. False
        if the thread hangs."""
        self._closing = True
        self._waker.set()
        if self._thread.is_alive():
            self._thread.join(_CLOSE_TIMEOUT_S)
        if not self._thread.is_alive():
            self._selector.close()
            self._waker.close()
        return not self._thread.is_alive()

    # --- in the thread ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._closing:
                self.pulse.beats += 1
                self._turn()
            self._take_outputs()
        finally:
            self._drop()

    def _turn(self) -> None:
        """Wait until there is something to do, and do it."""
        attempt = self._attempt
        events = self._wait()
        self._take_outputs()
        # An attempt that only began with these Outputs has no events yet.
        if self._attempt is not None and self._attempt is attempt:
            self._advance(self._attempt, is_ready=bool(events))
        if self._connection is not None:
            self._serve(self._connection, events)
        self._watch()

    def _wait(self) -> int:
        """The events of the present socket; 0 if it was the wake-up or the time that ended the wait."""
        events = 0
        for key, mask in self._selector.select(self._timeout_s()):
            if key.fileobj is self._waker:
                self._waker.clear()
            else:
                events = mask
        return events

    def _timeout_s(self) -> float | None:
        wake_at_s = None
        if self._attempt is not None:
            wake_at_s = self._attempt.deadline_s
        elif self._connection is not None:
            wake_at_s = self._connection.resumes_at_s
        return None if wake_at_s is None else max(0.0, wake_at_s - time.monotonic())

    def _watch(self) -> None:
        """Tell the selector what to wait for."""
        present = self._attempt or self._connection
        wanted = (present.socket, present.events) if present is not None and present.events else None
        if wanted == self._watched:
            return
        if self._watched is not None and wanted is not None and self._watched[0] is wanted[0]:
            self._selector.modify(*wanted)
        else:
            if self._watched is not None:
                self._selector.unregister(self._watched[0])
            if wanted is not None:
                self._selector.register(*wanted)
        self._watched = wanted

    def _take_outputs(self) -> None:
        # Those that are here now: what comes meanwhile has a wake-up of its own, and the socket its turn.
        for _ in range(len(self._outputs)):
            output = self._outputs.popleft()
            match output:
                case PsuConnectRequested():
                    self._drop()
                    self._begin(output.connection)
                case PsuDisconnectRequested():
                    present = self._attempt or self._connection
                    if present is not None and present.number == output.connection:
                        self._drop()
                case ReadAnswered() | WriteAnswered() | ExceptionAnswered() | ReportSent():
                    if self._connection is not None and self._connection.number == output.connection:
                        self._connection.put(output)
                case _:
                    assert_never(output)

    def _begin(self, number: int) -> None:
        try:
            with self.pulse.blocking():
                self._attempt = Attempt(number, self._host, self._port, self._connect_timeout_s)
        # getaddrinfo raises ValueError for what cannot be a host name at all.
        except (OSError, ValueError) as error:
            self._report_failure(number, error)

    def _advance(self, attempt: Attempt | Handshake, *, is_ready: bool) -> None:
        try:
            if is_ready and attempt.advance():
                self._go_on(attempt)
            elif time.monotonic() >= attempt.deadline_s:
                raise TimeoutError(errno.ETIMEDOUT, attempt.timeout_text)
        except (OSError, TlsHandshakeError) as error:
            self._drop()
            self._report_failure(attempt.number, error)

    def _go_on(self, attempt: Attempt | Handshake) -> None:
        """From TCP to TLS, or to the connection."""
        if self._tls is not None and isinstance(attempt, Attempt):
            self._attempt = Handshake(attempt, self._tls, self._tls_hostname, self._handshake_timeout_s)
        else:
            self._connection = Connection(attempt.socket, attempt.number)
            self._attempt = None
            self._sink(PsuConnected(connection=attempt.number))

    def _report_failure(self, number: int, error: OSError | ValueError | TlsHandshakeError) -> None:
        text = error.strerror if isinstance(error, OSError) else error
        self._sink(PsuConnectFailed(connection=number, reason=f"{self._host}:{self._port}: {text}"))

    def _serve(self, connection: Connection, events: int) -> None:
        try:
            connection.receive(events)
            while (request := connection.next_request(time.monotonic())) is not None:
                for message in inputs_of(request, connection.number, self._key_ring):
                    self._sink(message)
            connection.flush()
        except ConnectionLostError as lost:
            self._drop()
            self._sink(PsuDisconnected(connection=connection.number, reason=str(lost)))

    def _drop(self) -> None:
        """Close what there is, without a word to the core."""
        if self._attempt is not None:
            self._attempt.socket.close()
        if self._connection is not None:
            self._connection.close()
        self._attempt = None
        self._connection = None


def inputs_of(request: Request, connection: int, key_ring: KeyRing) -> Iterator[Input]:
    """What the core gets of a request: everything but keys."""
    match request:
        case ReadRequest():
            yield RegistersRead(
                connection=connection,
                transaction_id=request.transaction_id,
                unit_id=request.unit_id,
                address=request.address,
                count=request.count,
                adu=request.adu,
            )
        case WriteRequest():
            words, connectors = key_ring.absorb_write(connection, request.address, request.words)
            yield RegistersWritten(
                connection=connection,
                transaction_id=request.transaction_id,
                unit_id=request.unit_id,
                function=request.function,
                address=request.address,
                words=words,
                adu=key_ring.mask_adu(request.adu, request.address, len(words)),
            )
            for connector in connectors:
                yield HmacKeyReceived(connection=connection, connector=connector)
        case RefusedRequest():
            yield ModbusRequestRefused(
                connection=connection,
                transaction_id=request.transaction_id,
                unit_id=request.unit_id,
                function=request.function,
                exception_code=request.exception_code,
                reason=request.reason,
                adu=_without_data(request.adu),
            )
        case UnexpectedPdu():
            yield UnexpectedPduReceived(
                connection=connection, function=request.function, adu=_without_data(request.adu)
            )
        case _:
            assert_never(request)


def _without_data(adu: bytes) -> bytes:
    """A PDU that could not be read may hold a key where no rule finds it: a write with a wrong byte count."""
    return adu[:_SHOWN_BYTES].ljust(len(adu), b"\0")
