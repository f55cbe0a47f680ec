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

import ssl
import stat
import warnings
from datetime import UTC, datetime
from typing import Literal

from msgspec import Struct


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
    # Here, since it brings the cryptography package: 9 MB of memory, which a link in the clear does not need.
    from .pem_file import PemFile  # noqa: PLC0415

    if now.tzinfo is None:
        now = now.replace(tzinfo=UTC)
    ca = PemFile(files.names[0], files.ca, now)
    certificate = PemFile(files.names[1], files.certificate or "", now)
    key = PemFile(files.names[2], files.key or "", now)
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
