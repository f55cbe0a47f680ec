"""A set of certificates for mutual TLS (protocol.md §2.3): two CAs, and what each signs.

    dispenser_ca ── signs ── dispenser   TLS client: presents itself to the PSU, which trusts dispenser_ca
    psu_ca ──────── signs ── psu         TLS server: presents itself to the dispenser, which trusts psu_ca

Rules:
- They pass VERIFY_X509_STRICT, although our own contexts do not ask for it: a PSU may.
- A private key is never readable by others, not even before its file is complete.
- A set is written as a whole or not at all, and nothing is overwritten: a key that is in use cannot be replaced
  by accident.
"""

import contextlib
import ipaddress
import os
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

Algorithm = Literal["ec", "rsa"]
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

DEFAULT_HOSTNAME = "psu.local"
MAX_DAYS = 36_500

FILES = {
    "dispenser_ca.crt.pem": "CA of the dispenser, for the PSU",
    "dispenser_ca.key.pem": "its key: needed only to make another dispenser.crt.pem, keep it elsewhere",
    "dispenser.crt.pem": "certificate of the dispenser",
    "dispenser.key.pem": "its key",
    "psu_ca.crt.pem": "CA of the PSU, for the dispenser",
    "psu_ca.key.pem": "its key: needed only to make another psu.crt.pem, keep it elsewhere",
    "psu.crt.pem": "certificate of the PSU",
    "psu.key.pem": "its key",
}

_BACKDATED = timedelta(days=1)
"""The other end's clock may be behind, or show local time."""
_RSA_BITS = 2048
_KEY_MODE = 0o600
_CERTIFICATE_MODE = 0o644
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*")


class CertificatesExistError(Exception):
    """Nothing was written, because of these files."""

    def __init__(self, paths: list[Path]) -> None:
        super().__init__(", ".join(map(str, paths)))
        self.paths = paths


def host_name(text: str) -> str:
    """`text`, if a certificate can be for it: a host name or an IP address. ValueError."""
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(text))
    if len(text) > 253 or not _HOST_NAME.fullmatch(text):
        msg = f"found {text!r}; allowed: a host name (letters, digits, hyphens, dots) or an IP address"
        raise ValueError(msg)
    return text


def make_set(
    now: datetime, *, algorithm: Algorithm = "ec", days: int = 3650, hostname: str = DEFAULT_HOSTNAME
) -> dict[str, bytes]:
    """The content (PEM) of each of FILES, valid for `days` from `now` (aware). `hostname` is the PSU's."""
    now = now.replace(microsecond=0)
    validity = now - _BACKDATED, now + timedelta(days=days)
    content: dict[str, bytes] = {}
    for name, usage, host in (
        ("dispenser", ExtendedKeyUsageOID.CLIENT_AUTH, "dispenser.local"),
        ("psu", ExtendedKeyUsageOID.SERVER_AUTH, hostname),
    ):
        ca_key, key = _new_key(algorithm), _new_key(algorithm)
        ca_name = _name(f"FusionCharge {name} CA")
        ca = _authority(ca_name, ca_key, validity)
        leaf = _leaf(_name(f"FusionCharge {name}"), key, ca_name, ca_key, validity, usage, host)
        content[f"{name}_ca.crt.pem"] = ca.public_bytes(serialization.Encoding.PEM)
        content[f"{name}_ca.key.pem"] = _pem(ca_key)
        content[f"{name}.crt.pem"] = leaf.public_bytes(serialization.Encoding.PEM)
        content[f"{name}.key.pem"] = _pem(key)
    return content


def write_set(directory: Path, content: Mapping[str, bytes]) -> None:
    """Write every file, or none: CertificatesExistError, OSError."""
    paths = {directory / name: data for name, data in content.items()}
    if existing := [path for path in paths if os.path.lexists(path)]:
        raise CertificatesExistError(existing)
    is_new = not directory.exists()
    written: list[Path] = []
    try:
        if is_new:
            directory.mkdir(mode=0o700, parents=True)
        for path, data in paths.items():
            mode = _KEY_MODE if path.name.endswith(".key.pem") else _CERTIFICATE_MODE
            # With O_EXCL it is our file, and no link to another; what came in between is kept.
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            written.append(path)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(descriptor)
    except BaseException:  # Ctrl-C as well: half a set of certificates is worse than none
        for path in written:
            path.unlink(missing_ok=True)
        if is_new:
            with contextlib.suppress(OSError):  # not made, or not ours alone
                directory.rmdir()
        raise


def _new_key(algorithm: Algorithm) -> PrivateKey:
    if algorithm == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS)
    return ec.generate_private_key(ec.SECP256R1())


def _pem(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _authority(name: x509.Name, key: PrivateKey, validity: tuple[datetime, datetime]) -> x509.Certificate:
    builder = _builder(name, key, name, key, validity)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
    return builder.sign(key, hashes.SHA256())


def _leaf(
    name: x509.Name,
    key: PrivateKey,
    ca_name: x509.Name,
    ca_key: PrivateKey,
    validity: tuple[datetime, datetime],
    usage: ObjectIdentifier,
    host: str,
) -> x509.Certificate:
    try:
        alternative: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        alternative = x509.DNSName(host)
    # RSA keys may also encrypt the session's secret (TLS 1.2 without Diffie-Hellman).
    key_usage = _key_usage(digital_signature=True, key_encipherment=isinstance(key, rsa.RSAPrivateKey))
    builder = _builder(name, key, ca_name, ca_key, validity)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(key_usage, critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
    return builder.sign(ca_key, hashes.SHA256())


def _builder(
    name: x509.Name,
    key: PrivateKey,
    issuer: x509.Name,
    issuer_key: PrivateKey,
    validity: tuple[datetime, datetime],
) -> x509.CertificateBuilder:
    authority_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity[0])
        .not_valid_after(validity[1])
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(authority_id, critical=False)
    )


def _key_usage(
    *,
    digital_signature: bool = False,
    key_encipherment: bool = False,
    key_cert_sign: bool = False,
    crl_sign: bool = False,
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=key_encipherment,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )
