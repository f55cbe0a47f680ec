"""Certificates for the mock's TLS tests."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NOW = datetime.now(UTC)


class Authority:
    """A CA that signs what it is asked to."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self.certificate = self._signed(self._name, self._key.public_key(), is_ca=True)

    def write(self, directory: Path, name: str, *, days: int = 365) -> tuple[str, str]:
        """A certificate with that common name, valid for `days`, and its key: the paths of the two."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._signed(_name(name), key.public_key(), is_ca=False, days=days)
        paths = directory / f"{name}.crt.pem", directory / f"{name}.key.pem"
        paths[0].write_bytes(pem(certificate))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        paths[1].chmod(0o600)
        return str(paths[0]), str(paths[1])

    def _signed(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, is_ca: bool, days: int = 365
    ) -> x509.Certificate:
        end = NOW + timedelta(days=days)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(NOW, end) - timedelta(days=1))
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class Site:
    """A PSU's folder of certificates, and dispensers of all kinds."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.psu_ca, self.dispenser_ca = Authority("psu ca"), Authority("dispenser ca")
        (directory / "dispenser_ca.crt.pem").write_bytes(pem(self.dispenser_ca.certificate))
        self.psu_ca.write(directory, "psu")

    def dispenser(
        self,
        *,
        signer: Authority | None = None,
        days: int = 365,
        has_certificate: bool = True,
        trusts: Authority | None = None,
        version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    ) -> ssl.SSLContext:
        """A dispenser's end; one that is right unless something else is said."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.minimum_version = context.maximum_version = version
        context.load_verify_locations(cadata=pem((trusts or self.psu_ca).certificate).decode())
        if has_certificate:
            context.load_cert_chain(
                *(signer or self.dispenser_ca).write(self.directory, "dispenser", days=days)
            )
        return context
