"""One dispenser's TCP connection to the mock, with TLS or without: bytes to events, requests to bytes.

accepted ──plain──────────────────────────────► connected ──► received … ──► disconnected
   └──────TLS──► handshake (at most 10 s) ──────────┘
                      └──► tls_refused, once, with a reason; nothing else is said of this connection
"""

import asyncio
import contextlib
import socket
import ssl
import struct
from typing import Protocol

from ..io.modbus_adu import ModbusProtocolError
from ..io.modbus_psu_codec import Answer, PsuCodec
from .tls_session import TlsRefusedError, TlsSession

HANDSHAKE_TIMEOUT_S = 10.0
_CLIENT_HELLO = b"\x16\x03"
_LOOKS_LIKE_TLS = "looks like TLS; start the mock with CERT_DIR, or the dispenser without TLS"
_RESET = struct.pack("ii", 1, 0)
"""struct linger: close at once, with RST."""


class LinkOwner(Protocol):
    """Who is told what happens on a connection."""

    def connected(self, link: "DispenserLink", peer: str) -> None:
        """A dispenser is there, its TLS handshake done."""

    def received(self, link: "DispenserLink", event: Answer) -> None:
        """It answered or reported."""

    def disconnected(self, link: "DispenserLink", reason: str) -> None:
        """The connection is gone."""

    def tls_refused(self, link: "DispenserLink", peer: str, reason: str) -> None:
        """The connection is gone before it was connected."""


class DispenserLink(asyncio.Protocol):
    """One connection."""

    def __init__(self, owner: LinkOwner, connection: int, context: ssl.SSLContext | None) -> None:
        self.connection = connection
        self.codec = PsuCodec()
        self.peer = ""
        self._owner = owner
        self._tls = None if context is None else TlsSession(context)
        self._transport: asyncio.Transport | None = None
        self._handshake_timer: asyncio.TimerHandle | None = None
        self._first_bytes = b""
        self._is_connected = False
        self._reason = ""
        """Why we closed; empty as long as we did not."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: accepted."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - asyncio's own promise for TCP
        self._transport = transport
        host, port = transport.get_extra_info("peername")[:2]
        self.peer = f"{host}:{port}"
        if self._tls is None:
            self._connect()
        else:
            loop = asyncio.get_running_loop()
            self._handshake_timer = loop.call_later(HANDSHAKE_TIMEOUT_S, self._handshake_timed_out)

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes came."""
        if self._reason:
            return  # we closed it
        if self._tls is None:
            self._plain_received(data)
            return
        try:
            said = self._tls.receive(data)
        except TlsRefusedError as error:
            self._write(self._tls.take_output())  # the alert
            self.close(str(error), gently=True)
            return
        self._write(self._tls.take_output())
        if self._tls.is_established and not self._is_connected:
            self._connect()
        if said:
            self._plain_received(said)
        if self._tls.has_ended and self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the connection is gone."""
        self._cancel_handshake_timer()
        reason = self._reason or (str(exc) if exc else "")
        if self._is_connected:
            self._owner.disconnected(self, reason or "closed by the dispenser")
        else:
            closed = "the dispenser closed the connection before the TLS handshake was done"
            self._owner.tls_refused(self, self.peer, reason or closed)

    def tls_details(self) -> dict[str, str] | None:
        """Version, cipher and subject; None without TLS."""
        return None if self._tls is None else self._tls.describe()

    def send(self, adu: bytes) -> None:
        """Send a request, unless the connection is being closed."""
        if self._reason:
            return
        self._write(adu if self._tls is None else self._tls.send(adu))

    def close(self, reason: str, *, reset: bool = False, gently: bool = False) -> None:
        """Close the connection; `connection_lost` follows. `gently`: after what is still to be sent."""
        if self._transport is None or self._reason:
            return
        self._reason = reason
        if reset:
            with contextlib.suppress(OSError):
                tcp: socket.socket = self._transport.get_extra_info("socket")
                tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        elif self._tls is not None and self._is_connected:
            self._write(self._tls.close())
        if gently and not reset:
            self._transport.close()
        else:
            self._transport.abort()  # waits for no peer that does not read

    def _connect(self) -> None:
        self._cancel_handshake_timer()
        self._is_connected = True
        self._owner.connected(self, self.peer)

    def _plain_received(self, data: bytes) -> None:
        self._first_bytes = (self._first_bytes + data[:2])[:2]
        self.codec.receive(data)
        try:
            while (event := self.codec.next_event()) is not None:
                self._owner.received(self, event)
        except ModbusProtocolError as error:
            reason = f"Modbus protocol error: {error}"
            if self._first_bytes == _CLIENT_HELLO:
                reason = f"Modbus protocol error: {_LOOKS_LIKE_TLS}"
            self.close(reason)

    def _write(self, data: bytes) -> None:
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _handshake_timed_out(self) -> None:
        self.close(f"no TLS handshake in {HANDSHAKE_TIMEOUT_S:g} s")

    def _cancel_handshake_timer(self) -> None:
        if self._handshake_timer is not None:
            self._handshake_timer.cancel()
            self._handshake_timer = None
