"""TLS: the PEM files, examined and loaded (protocol.md §2.3).

`client_context` is for the dispenser's end, `server_context` for the PSU's (the mock). Both ends present a
certificate, and each accepts only one that chains to the CA it was given. Towards the MQTT broker the
dispenser's own certificate is optional (mqtt_access.py).

Rules:
- `examine` says everything that is wrong with the files in words for their owner, before a peer does so with an
  alert. What it calls an error keeps a context from being made; a warning does not.
- A context holds what the files held when it was made. A renewed certificate takes effect with a restart.
- Certificates in the field lack newer extensions, so VERIFY_X509_STRICT is off; and whatever stands in the CA
  file is trusted, be it a root or an intermediate CA (VERIFY_X509_PARTIAL_CHAIN). Python's defaults for these
  two differ from version to version, so both are set here.
"""

import os
import ssl
import stat
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from msgspec import Struct

_ENDS_SOON = timedelta(days=30)
_MAX_FILE_BYTES = 1024 * 1024


class TlsFiles(Struct, frozen=True):
    """Paths of PEM files."""

    ca: str
    """The CA (or several) that the peer's certificate has to chain to."""
    certificate: str | None
    """Our certificate, and after it the intermediate CAs if there are any. None, as is `key`: we have none."""
    key: str | None
    names: tuple[str, str, str] = ("psu_ca_cert", "client_cert", "client_key")
    """What the user calls the three, for messages."""


class FileFinding(Struct, frozen=True):
    """Something that is wrong with a file."""

    name: str
    """Of TlsFiles.names."""
    path: str
    severity: Literal["error", "warning"]
    text: str
    """What is wrong; what to do."""


class TlsFilesError(Exception):
    """These files cannot be used. One problem a line: `<name>: <path>: <what is wrong>; <what to do>`."""


def examine(files: TlsFiles, now: datetime) -> tuple[list[FileFinding], datetime | None]:
    """What is wrong with the files, and when the first of the certificates (ours or the CA) ends; None if no
    certificate could be read. Never raises."""
    if now.tzinfo is None:
        now = now.replace(tzinfo=UTC)
    ca = _File(files.names[0], files.ca, now)
    certificate = _File(files.names[1], files.certificate or "", now)
    key = _File(files.names[2], files.key or "", now)
    with warnings.catch_warnings():
        # cryptography warns of oddities in certificates that OpenSSL accepts.
        warnings.simplefilter("ignore")
        authorities = ca.certificates()
        ca.check_validity(authorities, one_is_enough=True)
        ca.check_authorities(authorities)
        chain = []
        if files.certificate is not None:
            chain = certificate.certificates()
            certificate.check_validity(chain, one_is_enough=False)
            key.check_key(chain, files.certificate)
    findings = ca.findings + certificate.findings + key.findings
    if not _errors(findings):
        # What only OpenSSL knows: its security level, for one, depends on the machine's configuration.
        findings += _load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), files)
    ends = [found.not_valid_after_utc for found in (*authorities, *chain)]
    return findings, min(ends, default=None)


def mode_finding(name: str, path: str, mode: int, what: str) -> list[FileFinding]:
    """A warning, if others than its owner may read a file that holds a secret (`what`)."""
    if not stat.S_IMODE(mode) & 0o077:
        return []
    text = f"others may read {what} (mode {stat.S_IMODE(mode):04o}); chmod 600 it"
    return [FileFinding(name, path, "warning", text)]


def client_context(
    files: TlsFiles, *, hostname: str = "", hostname_from: str = "psu_cert_hostname"
) -> ssl.SSLContext:
    """The dispenser's end. With `hostname` the peer's certificate has to be for it (the same name is then
    needed to open a connection); without, its names are not looked at. `hostname_from` is what the user calls
    it. TlsFilesError."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, files)
    context.check_hostname = bool(hostname)
    if hostname:
        try:
            context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=hostname)
        except (ValueError, TypeError):
            msg = f"{hostname_from}: {hostname!r} is no host name; write it as it stands in the certificate"
            raise TlsFilesError(msg) from None
    return context


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """The PSU's end: a dispenser without a certificate that chains to `files.ca` is refused. TlsFilesError."""
    return _context(ssl.PROTOCOL_TLS_SERVER, files)


def _context(protocol: int, files: TlsFiles) -> ssl.SSLContext:
    findings, _ = examine(files, datetime.now(UTC))
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    errors = _errors(findings) or _load(context, files)
    if errors:
        raise TlsFilesError("\n".join(f"{error.name}: {error.path}: {error.text}" for error in errors))
    return context


def _errors(findings: list[FileFinding]) -> list[FileFinding]:
    return [finding for finding in findings if finding.severity == "error"]


def _load(context: ssl.SSLContext, files: TlsFiles) -> list[FileFinding]:
    """Load the files into the context; what OpenSSL has against them."""
    try:
        context.load_verify_locations(cafile=files.ca)
    except (OSError, ValueError) as error:
        return [FileFinding(files.names[0], files.ca, "error", f"OpenSSL refuses it: {_openssl_text(error)}")]
    if files.certificate is None:
        return []
    try:
        # Without a password OpenSSL would ask for one on the terminal.
        context.load_cert_chain(files.certificate, files.key, password="")
    except (OSError, ValueError) as error:
        text = f"OpenSSL refuses it, or its key: {_openssl_text(error)}"
        return [FileFinding(files.names[1], files.certificate, "error", text)]
    return []


def _openssl_text(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        words = error.reason.lower().replace("_", " ")
        weak = "too small" in words or "too weak" in words
        return f"{words}; make it anew with {'a stronger key or hash' if weak else '`fusioncharger certs`'}"
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


class _File:
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
