"""How the driver gets to the broker: password and TLS, from the files that [mqtt] names (docs/security.md).

Rules:
- The files are read anew for every connection: what is mended or renewed takes effect at the next try, without
  a restart.
- Every text names setting and file, none a password.
- The broker's certificate has to chain to `ca_cert` and to be for `host`; our own is optional.
"""

import contextlib
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from ..messages.config import MqttConfig
from .tls import FileFinding, TlsFiles, TlsFilesError, client_context, examine, mode_finding
from .tls_handshake import Peer, established_text, handshake_text, has_heard

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

BROKER = Peer(
    name="the broker",
    ca="mqtt.ca_cert",
    certificate="mqtt.client_cert",
    hostname="mqtt.host",
    switch="mqtt.tls_enabled",
)


class BrokerAccess(Struct, frozen=True):
    """What a connection needs."""

    password: str | None
    tls: ssl.SSLContext | None

    def __repr__(self) -> str:
        return "BrokerAccess(…)"


class BrokerAccessError(Exception):
    """The files cannot be used. One problem a line: `mqtt.<key>: <path> …`."""


class BrokerTlsError(OSError):
    """There is no TLS connection with the broker; the text says why."""


def load_access(broker: MqttConfig) -> BrokerAccess:
    """What the files hold now. BrokerAccessError."""
    tls = None
    if broker.tls_enabled:
        try:
            tls = client_context(tls_files(broker), hostname=broker.host, hostname_from=BROKER.hostname)
        except TlsFilesError as error:
            raise BrokerAccessError(str(error)) from None
        tls.sslsocket_class = BrokerSocket
    return BrokerAccess(load_password(broker), tls)


def load_password(broker: MqttConfig) -> str | None:
    """The first line of the password file; None without one. BrokerAccessError."""
    path = broker.password_file
    if not path:
        return None
    try:
        # Reading a FIFO would wait for its other end.
        is_none = Path(path).exists() and not Path(path).is_file()
        lines = [] if is_none else Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:  # a path with a NUL is a ValueError
        reason = error.strerror if isinstance(error, OSError) else str(error)
        reason = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else reason
        msg = f"mqtt.password_file: {path} cannot be read: {reason}"
        raise BrokerAccessError(msg) from None
    if is_none:
        msg = f"mqtt.password_file: {path} is no file"
        raise BrokerAccessError(msg)
    if not lines or not lines[0]:
        what = "begins with an empty line" if lines else "is empty"
        msg = f"mqtt.password_file: {path} {what}; its first line has to be the password"
        raise BrokerAccessError(msg)
    return lines[0]


def findings(broker: MqttConfig) -> list[FileFinding]:
    """What is wrong with the files, and does not keep the driver from connecting today."""
    found = examine(tls_files(broker), datetime.now(UTC))[0] if broker.tls_enabled else []
    if broker.password_file:
        with contextlib.suppress(OSError, ValueError):
            mode = Path(broker.password_file).stat().st_mode
            found += mode_finding("mqtt.password_file", broker.password_file, mode, "the password")
    return found


def tls_files(broker: MqttConfig) -> TlsFiles:
    """The PEM files."""
    return TlsFiles(
        ca=broker.ca_cert,
        certificate=broker.client_cert or None,
        key=broker.client_key or None,
        names=(BROKER.ca, BROKER.certificate, "mqtt.client_key"),
    )


class BrokerSocket(ssl.SSLSocket):
    """Keeps the words for what went wrong, where paho only says that the connection is lost."""

    failure = ""
    """Why the connection ended, once it has for a reason of TLS's."""

    def do_handshake(self, block: bool = False) -> None:
        """BrokerTlsError."""
        try:
            super().do_handshake(block)
        except TimeoutError:
            self._fail(f"no TLS handshake in {self.gettimeout() or 0:g} s")
        except (OSError, ValueError) as error:
            self._fail(handshake_text(error, heard=has_heard(self), peer=BROKER))

    def _fail(self, text: str) -> None:
        self.close()
        raise BrokerTlsError(text) from None

    def send(self, data: "ReadableBuffer", flags: int = 0) -> int:
        """Who refused us and closed the connection said why before: that is still to be read."""
        try:
            return super().send(data, flags)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError:
            with contextlib.suppress(OSError):
                self.recv(1)
            raise

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """With TLS 1.3 the broker refuses our certificate only here."""
        try:
            return super().recv(buflen, flags)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            self.failure = established_text(error, peer=BROKER)
            raise
