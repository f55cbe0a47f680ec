"""The certificates that `fusioncharger certs` makes: they verify, shake hands, and their keys stay private."""

import os
import shutil
import ssl
import stat
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID
from fakes.pki import DAY, NOW, dispenser_files, make_folder, psu_files
from fusioncharger.io.certificates import (
    FILES,
    Algorithm,
    CertificatesExistError,
    host_name,
    make_set,
    write_set,
)
from fusioncharger.io.tls import client_context, examine, server_context

ALGORITHMS: list[Algorithm] = ["ec", "rsa"]


def load(folder: Path, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / f"{name}.crt.pem").read_bytes())


@pytest.fixture(scope="session", params=ALGORITHMS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("made") / "set", request.param)


# --- what they are -----------------------------------------------------------------------------------------


def test_chains_verify(folder: Path) -> None:
    """By rules that are stricter than any that a handshake here asks for."""
    for name in "dispenser", "psu":
        store = verification.Store([load(folder, f"{name}_ca")])
        builder = verification.PolicyBuilder().store(store).time(NOW)
        if name == "psu":
            chain = builder.build_server_verifier(x509.DNSName("psu.local")).verify(load(folder, name), [])
        else:
            chain = builder.build_client_verifier().verify(load(folder, name), []).chain
        assert chain == [load(folder, name), load(folder, f"{name}_ca")]


def test_chains_verify_only_in_their_role(folder: Path) -> None:
    for name, other in ("dispenser", "psu_ca"), ("psu", "dispenser_ca"):
        store = verification.Store([load(folder, other)])
        with pytest.raises(verification.VerificationError):
            verification.PolicyBuilder().store(store).time(NOW).build_client_verifier().verify(
                load(folder, name), []
            )


def test_extensions(folder: Path) -> None:
    serials = set()
    for role, usage in ("dispenser", ExtendedKeyUsageOID.CLIENT_AUTH), ("psu", ExtendedKeyUsageOID.SERVER_AUTH):
        ca, leaf = load(folder, f"{role}_ca"), load(folder, role)
        serials |= {ca.serial_number, leaf.serial_number}
        constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints)
        assert (constraints.critical, constraints.value) == (True, x509.BasicConstraints(True, 0))
        ca_usage = ca.extensions.get_extension_for_class(x509.KeyUsage)
        assert ca_usage.critical
        assert ca_usage.value.key_cert_sign
        assert ca_usage.value.crl_sign
        assert not ca_usage.value.digital_signature
        leaf_usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
        assert leaf_usage.digital_signature
        assert leaf_usage.key_encipherment == isinstance(leaf.public_key(), rsa.RSAPublicKey)
        assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        assert list(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [usage]
        ca_id = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
        issuer_id = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        assert issuer_id.key_identifier == ca_id
        for certificate in ca, leaf:
            assert certificate.not_valid_before_utc == NOW - DAY
            assert certificate.not_valid_after_utc == NOW + 3650 * DAY
    assert len(serials) == 4


def test_keys(folder: Path) -> None:
    for name in "dispenser_ca", "dispenser", "psu_ca", "psu":
        key = load(folder, name).public_key()
        if isinstance(key, rsa.RSAPublicKey):
            assert key.key_size == 2048
        else:
            assert isinstance(key, ec.EllipticCurvePublicKey)
            assert key.curve.name == "secp256r1"


def test_host_is_in_the_psus_certificate() -> None:
    for host, expected in (
        ("psu.example", x509.DNSName("psu.example")),
        ("10.1.2.3", x509.IPAddress(ip_address("10.1.2.3"))),
        ("fe80::1", x509.IPAddress(ip_address("fe80::1"))),
    ):
        leaf = x509.load_pem_x509_certificate(make_set(NOW, hostname=host)["psu.crt.pem"])
        assert list(leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value) == [expected]


@pytest.mark.parametrize("name", ["psu", "PSU-1.site.example", "10.0.0.1", "::1", "a" * 63])
def test_host_names(name: str) -> None:
    assert host_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "-a", "a-", "a..b", "a.", "a b", "ü.de", "a/b", "*.x", "a" * 64, "a." * 127 + "aa", "a\n"]
)
def test_host_names_that_are_none(name: str) -> None:
    with pytest.raises(ValueError, match=r"found .*; allowed: a host name"):
        host_name(name)


def test_long_host_name() -> None:
    name = ".".join(["a" * 60] * 4)
    assert make_set(NOW, hostname=host_name(name))


# --- a handshake -------------------------------------------------------------------------------------------


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, hostname: str) -> tuple[object, object]:
    """A whole handshake in memory; who each end takes the other for."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    at_client = client.wrap_bio(to_client, to_server, server_hostname=hostname)
    at_server = server.wrap_bio(to_server, to_client, server_side=True)
    is_done = {at_client: False, at_server: False}
    while not all(is_done.values()):
        for end, done in is_done.items():
            if not done:
                try:
                    end.do_handshake()
                    is_done[end] = True
                except ssl.SSLWantReadError:
                    pass
    found, asked = at_client.getpeercert(), at_server.getpeercert()
    assert found is not None
    assert asked is not None
    return found["subject"], asked["subject"]


def test_both_ends_accept_each_other_even_strictly(folder: Path) -> None:
    client = client_context(dispenser_files(folder), hostname="psu.local")
    server = server_context(psu_files(folder))
    for context in client, server:
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.verify_flags &= ~ssl.VERIFY_X509_PARTIAL_CHAIN
    assert shake_hands(client, server, "psu.local") == (
        ((("commonName", "FusionCharge psu"),),),
        ((("commonName", "FusionCharge dispenser"),),),
    )


def test_the_roles_cannot_be_swapped(folder: Path) -> None:
    """Each certificate is good for one end only, whichever CA the other trusts."""
    server = server_context(psu_files(folder))
    client = client_context(dispenser_files(folder))
    server.load_verify_locations(folder / "psu_ca.crt.pem")
    client.load_cert_chain(folder / "psu.crt.pem", folder / "psu.key.pem")
    with pytest.raises(ssl.SSLCertVerificationError, match="unsuitable certificate purpose"):
        shake_hands(client, server, "psu.local")


# --- the files ---------------------------------------------------------------------------------------------


def test_keys_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_set(tmp_path / "new", make_set(NOW))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    assert {path.name for path in (tmp_path / "new").iterdir()} == FILES.keys()
    for path in (tmp_path / "new").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == (0o600 if ".key." in path.name else 0o644)
    assert examine(dispenser_files(tmp_path / "new"), NOW)[0] == []


def test_keys_are_private_from_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = {}
    real_open = os.open

    def watch(path: Path, flags: int, mode: int = 0o777) -> int:
        descriptor = real_open(path, flags, mode)
        opened[path.name] = stat.S_IMODE(os.fstat(descriptor).st_mode), os.fstat(descriptor).st_size
        return descriptor

    monkeypatch.setattr("fusioncharger.io.certificates.os.open", watch)
    write_set(tmp_path, make_set(NOW))
    assert {name for name, seen in opened.items() if seen == (0o600, 0)} == {n for n in FILES if ".key." in n}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("is_link", [False, True])
def test_nothing_is_overwritten(tmp_path: Path, name: str, is_link: bool) -> None:
    existing = tmp_path / name
    if is_link:
        existing.symlink_to("nowhere")
    else:
        existing.write_text("mine")
    with pytest.raises(CertificatesExistError) as raised:
        write_set(tmp_path, dict.fromkeys(FILES, b"x"))
    assert raised.value.paths == [existing]
    assert list(tmp_path.iterdir()) == [existing]
    assert is_link or existing.read_text() == "mine"


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("is_new", [False, True])
def test_a_failure_half_way_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException, is_new: bool
) -> None:
    calls = []

    def fail(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 5:
            raise failure

    monkeypatch.setattr("fusioncharger.io.certificates.os.fsync", fail)
    folder = tmp_path / "new" if is_new else tmp_path
    with pytest.raises(type(failure)):
        write_set(folder, dict.fromkeys(FILES, b"x"))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_comes_in_between_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "psu.crt.pem").write_text("mine")
    monkeypatch.setattr("fusioncharger.io.certificates.os.path.lexists", lambda _: False)
    with pytest.raises(FileExistsError):
        write_set(tmp_path, dict.fromkeys(FILES, b"x"))
    assert [path.name for path in tmp_path.iterdir()] == ["psu.crt.pem"]
    assert (tmp_path / "psu.crt.pem").read_text() == "mine"


def test_a_certificate_can_be_renewed_with_its_cas_key(folder: Path, tmp_path: Path) -> None:
    """The CA's key belongs to the CA, so it can sign another certificate."""
    copied = shutil.copytree(folder, tmp_path / "copy")
    for name in "dispenser_ca", "psu_ca":
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(
            copied / f"{name}.crt.pem", copied / f"{name}.key.pem"
        )


def test_days() -> None:
    for days in 1, 36_500:
        leaf = x509.load_pem_x509_certificate(make_set(NOW, days=days)["psu.crt.pem"])
        assert leaf.not_valid_after_utc == NOW + timedelta(days=days)
