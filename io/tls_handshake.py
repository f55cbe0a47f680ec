"""The TLS handshake on a connected socket, without blocking, and TLS's errors in words (protocol.md §2.3).

Who finds what when a certificate does not please:

    we refuse the PSU's     do_handshake raises, and OpenSSL sends the PSU an alert
    the PSU refuses ours    TLS 1.2: do_handshake raises with the PSU's alert
                            TLS 1.3: our handshake is done before the PSU has seen our certificate; the alert
                            comes with the first bytes that are received on the established connection

Texts are the same for every try, so that a PSU that stays out of reach is logged once: no addresses, no numbers
of OpenSSL's source lines.
"""

import contextlib
import errno
import re
import selectors
import socket
import ssl
import struct
import time
from typing import Protocol

from msgspec import Struct

_BYTES_RECEIVED = struct.Struct("@128xQ")
"""tcpi_bytes_received in Linux's struct tcp_info; the end of the stream counts as one."""

ALERT_RECORD = b"\x15\x03"
"""How a TLS alert begins, where Modbus was expected."""


class Peer(Struct, frozen=True):
    """The other end, and what the user calls the settings for it."""

    name: str
    ca: str
    certificate: str
    hostname: str
    switch: str

    @property
    def closed(self) -> str:
        """It ended the connection in the regular way."""
        return f"closed by {self.name}"


PSU = Peer(
    name="the PSU",
    ca="psu_ca_cert",
    certificate="client_cert",
    hostname="psu_cert_hostname",
    switch="tls_enabled",
)
CLOSED = PSU.closed

_CERTIFICATE_ALERTS = {
    "bad certificate": "",
    "unsupported certificate": " (is it the dispenser's, made for a TLS client?)",
    "certificate revoked": "",
    "certificate expired": "",
    "certificate unknown": "",
    "unknown ca": " ({peer.name} needs the CA that signed {peer.certificate})",
    "access denied": "",
    "certificate required": " (it has seen none)",
    "no certificate": " (it has seen none)",
}

# OpenSSL's numbers of what it has against a certificate (X509_V_ERR_...), and what to do about it.
_CLOCK = "renew it, or set this machine's clock"
_WRONG_CA = "{peer.ca} has to be the CA that signed it"
_VERIFY_HINTS = {
    7: _WRONG_CA,
    9: _CLOCK,
    10: _CLOCK,
    18: _WRONG_CA,
    19: _WRONG_CA,
    20: _WRONG_CA,
    21: _WRONG_CA,
    24: "{peer.ca} is no CA",
    26: "it is not made for a TLS server",
    62: "{peer.hostname} has to be a name in it",
    64: "{peer.hostname} has to be an address in it",
}

# What OpenSSL makes of bytes that are no TLS, depending on them and on its version.
_NOT_TLS = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "INVALID_ALERT", "RECORD_LAYER_FAILURE"}
_MAYBE_NO_TLS = "it may not speak TLS ({peer.switch} = true)"


class TlsHandshakeError(Exception):
    """The handshake has failed; the text says why."""


class TcpConnected(Protocol):
    """What comes before a handshake (modbus_connection.py)."""

    number: int
    socket: socket.socket


class Handshake:
    """One handshake, as the client. `advance` whenever `socket` is ready for `events`."""

    def __init__(
        self, connected: TcpConnected, context: ssl.SSLContext, hostname: str, timeout_s: float
    ) -> None:
        """Takes the socket over. TlsHandshakeError if the connection is gone already."""
        self.number = connected.number
        self.deadline_s = time.monotonic() + timeout_s
        self.events = selectors.EVENT_WRITE
        self._timeout_s = timeout_s
        try:
            self.socket = context.wrap_socket(
                connected.socket, do_handshake_on_connect=False, server_hostname=hostname or None
            )
        except (OSError, ValueError) as error:
            connected.socket.close()
            raise TlsHandshakeError(handshake_text(error, heard=False)) from error

    def advance(self) -> bool:
        """As far as it goes now; True when it is done. TlsHandshakeError."""
        try:
            self.socket.do_handshake()
        except ssl.SSLWantReadError:
            self.events = selectors.EVENT_READ
        except ssl.SSLWantWriteError:
            self.events = selectors.EVENT_WRITE
        except (OSError, ValueError) as error:
            raise TlsHandshakeError(handshake_text(error, heard=has_heard(self.socket))) from error
        else:
            return True
        return False

    @property
    def timeout_text(self) -> str:
        """What to say at the deadline."""
        text = f"no TLS handshake in {self._timeout_s:g} s"
        if has_heard(self.socket):
            return text
        return f"{text}: the PSU says nothing; {_MAYBE_NO_TLS.format(peer=PSU)}"


def has_heard(connected: socket.socket) -> bool:
    """Whether the peer has sent anything. The kernel knows; we may not, as OpenSSL reads on its own."""
    info = connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_RECEIVED.size)
    received_bytes: int = _BYTES_RECEIVED.unpack(info)[0]
    return received_bytes > 1


def check_socket(secured: ssl.SSLSocket) -> None:
    """OSError if the connection is broken (reset, timed out). Python's ssl may take that for an end of file."""
    with contextlib.suppress(BlockingIOError):
        # SSLSocket.recv would decrypt, this looks at the socket below.
        socket.socket.recv(secured, 1, socket.MSG_PEEK)


def handshake_text(error: OSError | ValueError, *, heard: bool, peer: Peer = PSU) -> str:
    """Why a handshake failed. `heard`: the peer has sent something."""
    match error:
        case ssl.SSLCertVerificationError():
            hint = _VERIFY_HINTS.get(error.verify_code)
            text = f"{peer.name}'s certificate is not accepted: {error.verify_message.rstrip('.')}"
            return f"{text}; {hint.format(peer=peer)}" if hint else text
        case ssl.SSLEOFError() | ssl.SSLZeroReturnError() | ConnectionError() | OSError(errno=errno.ENOTCONN):
            if heard:
                return (
                    f"{peer.name} ended the TLS handshake without a reason; it may not accept our certificate"
                )
            maybe = _MAYBE_NO_TLS.format(peer=peer)
            return f"{peer.name} closed the connection instead of a TLS handshake; {maybe}"
        case ssl.SSLError(reason=reason) if reason in _NOT_TLS:
            return f"{peer.name} does not speak TLS ({peer.switch} = true)"
        case ssl.SSLError():
            return established_text(error, alert_of="the TLS handshake", peer=peer)
        case OSError():
            return f"TLS handshake: {error.strerror}"
        case _:
            return f"TLS handshake: {error}"


def established_text(error: OSError, *, alert_of: str = "the TLS connection", peer: Peer = PSU) -> str:
    """Why a connection ended."""
    if isinstance(error, ssl.SSLEOFError):
        return peer.closed
    if not isinstance(error, ssl.SSLError):
        return error.strerror or type(error).__name__
    # Python knows no `reason` for codes that are younger than itself; then OpenSSL's words are in the text.
    words = error.reason or re.sub(r"^\[.*?\] | \(_ssl\.c:\d+\)$", "", error.strerror or "unknown error")
    words = words.lower().replace("_", " ")
    alert = re.search(r"\balert (.+)", words)
    if alert is None:
        return f"TLS failure: {words}"
    if alert[1] in _CERTIFICATE_ALERTS:
        hint = _CERTIFICATE_ALERTS[alert[1]].format(peer=peer)
        return f"{peer.name} refused our certificate: {alert[1]}{hint}"
    return f"{peer.name} refused {alert_of}: {alert[1]}"
