"""TLS on one connection, the PSU's end, sans-IO: bytes in, bytes out (protocol.md §2.3).

    from the socket ──► receive ──► what the dispenser said
    to the socket   ◄── take_output ◄── send

asyncio's own TLS tells a failed handshake in its own log, late or not at all, and closes before the alert is
sent. Here a refusal is one exception with a reason for people, and the alert is in `take_output`.
"""

import contextlib
import ssl

_HANDSHAKE_RECORD = 0x16
_NOT_SIGNED = "unknown CA: the dispenser's certificate is not signed by dispenser_ca.crt.pem"
_CERTIFICATE_REASONS = {
    7: _NOT_SIGNED,  # by a CA of that name, but with another key
    9: "the dispenser's certificate is not valid yet",
    10: "the dispenser's certificate is expired",
    18: _NOT_SIGNED,
    19: _NOT_SIGNED,
    20: _NOT_SIGNED,
    21: _NOT_SIGNED,
    24: "dispenser_ca.crt.pem is no CA",
    26: "the dispenser's certificate is not made for a TLS client",
}
"""By OpenSSL's X509_V_ERR_…"""
_REASONS = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "no client certificate: the dispenser showed none",
    "UNSUPPORTED_PROTOCOL": "the dispenser's TLS is older than 1.2",
    "NO_SHARED_CIPHER": "no cipher that both ends know",
}

_CERTIFICATE_ALERTS = ("unknown ca", "decrypt error", "access denied")
"""What a dispenser says that does not trust us; and all with the word certificate."""


class TlsRefusedError(Exception):
    """The handshake failed, or what came after it is no TLS. The text is for people."""


class TlsSession:
    """The server's end of one TLS connection."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._has_heard = False
        self.is_established = False
        self.has_ended = False
        """The dispenser said that it closes."""

    def receive(self, data: bytes) -> bytes:
        """Take bytes from the socket; what they say, decrypted. TlsRefusedError."""
        if not self._has_heard:
            self._has_heard = True
            if data[0] != _HANDSHAKE_RECORD:
                # A report begins with a transaction id, 0, and the protocol id, 0.
                looks = "looks like plain Modbus" if data[0] == 0 else "not TLS at all"
                raise TlsRefusedError(f"{looks}; this mock speaks TLS only")  # noqa: EM102, TRY003
        self._incoming.write(data)
        said = b""
        try:
            if not self.is_established:
                self._tls.do_handshake()
                self.is_established = True
            while chunk := self._tls.read(65536):
                said += chunk
            self.has_ended = True  # read gives b"" then, where it does not raise
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.has_ended = True
        except ssl.SSLError as error:
            raise TlsRefusedError(_reason(error)) from None
        return said

    def send(self, data: bytes) -> bytes:
        """What to send so that the dispenser gets `data`."""
        self._tls.write(data)
        return self._outgoing.read()

    def take_output(self) -> bytes:
        """What TLS itself has to send: handshake, alert."""
        return self._outgoing.read()

    def close(self) -> bytes:
        """What to send before the connection is closed."""
        with contextlib.suppress(ssl.SSLError):  # the dispenser has not said so, too; we do not wait for it
            self._tls.unwrap()
        return self._outgoing.read()

    def describe(self) -> dict[str, str]:
        """Version, cipher and whose certificate it is."""
        cipher = self._tls.cipher()
        certificate = self._tls.getpeercert() or {}
        names = dict(pair for part in certificate.get("subject", ()) for pair in part)  # type: ignore[misc]
        return {
            "version": str(self._tls.version()),
            "cipher": cipher[0] if cipher else "",
            "subject": str(names.get("commonName", "")),
        }


def _reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        text = f"the dispenser's certificate is not accepted: {error.verify_message}"
        return _CERTIFICATE_REASONS.get(error.verify_code, text)
    reason = error.reason or "unknown reason"
    if reason in _REASONS:
        return _REASONS[reason]
    words = reason.lower().replace("_", " ")
    _, is_alert, alert = words.partition(" alert ")
    if not is_alert:
        return f"TLS: {words}"
    if alert in _CERTIFICATE_ALERTS or "certificate" in alert:
        return f"the dispenser does not accept psu.crt.pem: {alert}"
    return f"the dispenser refused the TLS handshake: {alert}"
