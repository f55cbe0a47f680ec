"""A PEM file, examined: what is wrong with it, in words for its owner (tls.py)."""

import os
import ssl
import stat
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from .tls import FileFinding, mode_finding

_ENDS_SOON = timedelta(days=30)
_MAX_FILE_BYTES = 1024 * 1024


class PemFile:
    """One of the files, and what was found in it."""

    def __init__(self, name: str, path: str, now: datetime) -> None:
        self.name = name
        self.path = path
        self.now = now
        self.findings: list[FileFinding] = []
        self.mode = 0

    def _error(self, text: str) -> None:
        self.findings.append(FileFinding(self.name, self.path, "error", text))

    def _warn(self, text: str) -> None:
        self.findings.append(FileFinding(self.name, self.path, "warning", text))

    def _read(self, what: str) -> bytes | None:
        """The content, if it looks like PEM; None after an error."""
        try:
            # Not blocking: the path of a FIFO would be waited for without end.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                self.mode = os.fstat(descriptor).st_mode
                data = file.read(_MAX_FILE_BYTES + 1) if stat.S_ISREG(self.mode) else b""
        except FileNotFoundError:
            where = "" if Path(self.path).is_absolute() else " (it is looked for where the program was started)"
            self._error(f"there is no such file{where}; give the path of {what}")
        except PermissionError:
            self._error("no permission to read it; let the user that the driver runs as read it")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            self._error(f"cannot be read: {reason}; give the path of {what}")
        else:
            if not stat.S_ISREG(self.mode):
                self._error(f"is no file; give the path of {what}")
            elif not data.strip():
                self._error(f"is empty; it has to hold {what}")
            elif len(data) > _MAX_FILE_BYTES:
                self._error(f"is larger than 1 MiB; it has to hold {what} and nothing else")
            elif b"-----BEGIN " not in data:
                self._error(f"is not PEM (no -----BEGIN line); convert it (openssl -outform PEM) to {what}")
            else:
                return data
        return None

    def certificates(self) -> list[x509.Certificate]:
        """The certificates in the file; none after an error, or if only OpenSSL can read them."""
        data = self._read("a PEM certificate")
        if data is None:
            return []
        if b"-----BEGIN CERTIFICATE-----" not in data and b"-----BEGIN X509 CERTIFICATE-----" not in data:
            inside = "a private key, but no certificate" if b"PRIVATE KEY-----" in data else "no certificate"
            self._error(f"holds {inside}; it has to hold a PEM certificate")
            return []
        try:
            return x509.load_pem_x509_certificates(data)
        except ValueError as error:
            try:  # cryptography is stricter than OpenSSL, which is what the handshake uses
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=data.decode("ascii"))
            except (OSError, ValueError):
                self._error("the certificate in it is damaged; copy it again")
            else:
                self._warn(f"the certificate in it is unusual and was not examined: {error}")
            return []

    def check_validity(self, certificates: list[x509.Certificate], *, one_is_enough: bool) -> None:
        """The dates. Of several CAs, for a change from one to the next, one valid is enough."""
        problems = [self._dates(certificate) for certificate in certificates]
        usable = [problem for problem in problems if problem is None or problem.startswith("ends")]
        for problem in problems:
            if problem is None:
                continue
            # After a power cut the clock may stand in the past until it is set: the handshake fails and is
            # tried again by itself, while an error would keep the driver from starting for good.
            is_early = problem.startswith("is not valid before")
            if problem.startswith("ends") or is_early or (one_is_enough and usable):
                self._warn(problem)
            else:
                self._error(problem)

    def _dates(self, certificate: x509.Certificate) -> str | None:
        begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        who = _subject(certificate)
        if ends < self.now:
            return (
                f"has expired on {ends:%Y-%m-%d %H:%M} UTC{who}; renew it (or is the clock wrong: "
                f"{self.now:%Y-%m-%d %H:%M} UTC?)"
            )
        if begins > self.now:
            return (
                f"is not valid before {begins:%Y-%m-%d %H:%M} UTC{who}; the link stays down until "
                f"then; check this machine's clock: {self.now:%Y-%m-%d %H:%M} UTC"
            )
        if ends < self.now + _ENDS_SOON:
            return f"ends soon, on {ends:%Y-%m-%d %H:%M} UTC{who}; renew it, then restart"
        return None

    def check_authorities(self, certificates: Sequence[x509.Certificate]) -> None:
        """Whether they are CAs. One that is among others does no harm."""
        problems = [(certificate, _not_a_ca(certificate)) for certificate in certificates]
        has_ca = any(problem is None for _, problem in problems)
        for certificate, problem in problems:
            if problem is None:
                continue
            # Old CAs have no basicConstraints; a self-signed one still works in most cases.
            is_old_root = problem == _NO_CONSTRAINTS and certificate.issuer == certificate.subject
            text = f"{problem}{_subject(certificate)}; it has to be the CA that signed the peer's certificate"
            if has_ca or is_old_root:
                self._warn(text)
            else:
                self._error(text)

    def check_key(self, chain: list[x509.Certificate], certificate_path: str) -> None:
        """Whether it is the key of the chain's first certificate."""
        data = self._read("a PEM private key")
        if data is None:
            return
        try:
            key = serialization.load_pem_private_key(data, password=None)
        except TypeError:
            self._error("the key is encrypted; decrypt it (openssl pkey -in … -out …), with file mode 0600")
        except (ValueError, UnsupportedAlgorithm):
            inside = "is damaged, or of an unknown kind" if b"PRIVATE KEY-----" in data else "is not in it"
            self._error(f"the private key {inside}; it has to hold an unencrypted PEM private key")
        else:
            if chain and not _belongs(key, chain[0]):
                self._error(
                    f"the key does not belong to the certificate in {certificate_path}; give the two that were "
                    "made together"
                )
            self.findings += mode_finding(self.name, self.path, self.mode, "the key")


_NO_CONSTRAINTS = "does not say whether it is a CA (no basicConstraints)"


def _not_a_ca(certificate: x509.Certificate) -> str | None:
    """Why the certificate is not known to be a CA; None if it is one."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (x509.ExtensionNotFound, ValueError):
        return _NO_CONSTRAINTS
    return None if constraints.ca else "is no CA (basicConstraints CA:FALSE)"


def _subject(certificate: x509.Certificate) -> str:
    try:
        return f" ({certificate.subject.rfc4514_string()})"
    except ValueError:
        return ""


def _belongs(key: PrivateKeyTypes, certificate: x509.Certificate) -> bool:
    try:
        return key.public_key() == certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return True  # not examined: OpenSSL will compare them
