"""Certificates for tests: a set as `fusioncharger certs` makes it, and what is wrong with others."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fusioncharger.io.certificates import Algorithm, make_set, write_set
from fusioncharger.io.tls import TlsFiles

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)


def make_folder(directory: Path, algorithm: Algorithm = "ec", hostname: str = "psu.local") -> Path:
    write_set(directory, make_set(NOW, algorithm=algorithm, hostname=hostname))
    return directory


def dispenser_files(folder: Path) -> TlsFiles:
    return TlsFiles(*(str(folder / f"{name}.pem") for name in ("psu_ca.crt", "dispenser.crt", "dispenser.key")))


def psu_files(folder: Path) -> TlsFiles:
    names = "dispenser_ca.crt.pem", "psu.crt.pem", "psu.key.pem"
    return TlsFiles(*(str(folder / name) for name in names), names=names)


def make_pem(
    *,
    begins: datetime = NOW - DAY,
    ends: datetime = NOW + 100 * DAY,
    issuer: tuple[bytes, bytes] | None = None,
    is_ca: bool | None = None,
    hosts: tuple[str, ...] = (),
    name: str = "field device",
) -> tuple[bytes, bytes]:
    """Certificate and key (PEM) with as few extensions as possible; `issuer` likewise, None: self-signed.

    `is_ca` None: no basicConstraints at all.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder().subject_name(subject).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(begins).not_valid_after(ends)
    if is_ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    if hosts:
        names = x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts])
        builder = builder.add_extension(names, critical=False)
    if issuer is None:
        certificate = builder.issuer_name(subject).sign(key, hashes.SHA256())
    else:
        issued_by = x509.load_pem_x509_certificate(issuer[0])
        signer = serialization.load_pem_private_key(issuer[1], password=None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        certificate = builder.issuer_name(issued_by.subject).sign(signer, hashes.SHA256())
    return certificate.public_bytes(serialization.Encoding.PEM), key_pem(key)


def key_pem(key: ec.EllipticCurvePrivateKey, password: bytes = b"") -> bytes:
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def put(path: Path, content: bytes, mode: int = 0o600) -> str:
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)
