"""The PEM files: everything that can be wrong with them, and what the contexts ask for."""

import os
import ssl
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fakes.pki import DAY, NOW, dispenser_files, key_pem, make_folder, make_pem, psu_files, put
from fusioncharger.io.tls import FileFinding, TlsFiles, TlsFilesError, client_context, examine, server_context
from msgspec.structs import replace


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "certs")


@pytest.fixture
def files(folder: Path) -> TlsFiles:
    return dispenser_files(folder)


def only(files: TlsFiles, now: datetime = NOW) -> FileFinding:
    findings, _ = examine(files, now)
    assert len(findings) == 1, findings
    return findings[0]


def test_nothing_is_wrong_with_a_set(folder: Path) -> None:
    for files in dispenser_files(folder), psu_files(folder):
        assert examine(files, NOW) == ([], NOW + 3650 * DAY)
    assert examine(files, NOW.replace(tzinfo=None))[0] == []


def test_what_the_contexts_ask_for(folder: Path) -> None:
    for context in client_context(dispenser_files(folder)), server_context(psu_files(folder)):
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
        assert not context.verify_flags & ssl.VERIFY_X509_STRICT
        assert not context.check_hostname
    assert client_context(dispenser_files(folder), hostname="psu.local").check_hostname


def test_hostname_that_is_none(files: TlsFiles) -> None:
    for hostname in ".psu", "psu\0", "ä" * 70:
        with pytest.raises(TlsFilesError, match=r"psu_cert_hostname: .* is no host name; write it as"):
            client_context(files, hostname=hostname)


# --- files that are not usable -----------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty; it has to hold a PEM"),
        (b" \n", "is empty; it has to hold a PEM"),
        (b"\x30\x82\x01\x0a", "is not PEM (no -----BEGIN line); convert it"),
        (b"x" * (1024 * 1024 + 1), "is larger than 1 MiB"),
    ],
)
def test_content_that_is_none(files: TlsFiles, place: int, content: bytes, said: str) -> None:
    path = (files.ca, files.certificate, files.key)[place]
    Path(path).write_bytes(content)
    found = only(files)
    assert (found.name, found.path, found.severity) == (files.names[place], path, "error")
    assert said in found.text


@pytest.mark.parametrize("place", [0, 1, 2])
def test_files_that_cannot_be_read(files: TlsFiles, place: int, tmp_path: Path) -> None:
    field = ("ca", "certificate", "key")[place]
    os.mkfifo(tmp_path / "fifo")
    for path, said in (
        (str(tmp_path / "none"), "there is no such file; give the path of"),
        ("none.pem", "there is no such file (it is looked for where the program was started)"),
        (str(tmp_path), "give the path of"),
        (str(tmp_path / "fifo"), "is no file; give the path of"),
        (str(tmp_path / "fifo" / "x"), "cannot be read: Not a directory"),
        ("nul\0", "embedded null"),
        ("", "there is no such file"),
    ):
        found = only(replace(files, **{field: path}))
        assert (found.name, found.path, found.severity) == (files.names[place], path, "error")
        assert said in found.text


def test_no_permission(files: TlsFiles, folder: Path) -> None:
    folder.chmod(0)
    # root may read everything, so it steps down for a moment.
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        findings, ends = examine(files, NOW)
    finally:
        if user == 0:
            os.seteuid(0)
        folder.chmod(0o700)
    assert [found.name for found in findings] == list(files.names)
    assert all(found.text.startswith("no permission to read it; ") for found in findings)
    assert ends is None


def test_every_problem_is_told_at_once(files: TlsFiles) -> None:
    broken = replace(files, ca="/none/ca", key="/none/key")
    with pytest.raises(TlsFilesError) as raised:
        client_context(broken)
    lines = str(raised.value).splitlines()
    assert [line.partition("; ")[0] for line in lines] == [
        "psu_ca_cert: /none/ca: there is no such file",
        "client_key: /none/key: there is no such file",
    ]


def test_names_of_the_mock_are_used(folder: Path) -> None:
    (folder / "psu.key.pem").unlink()
    with pytest.raises(TlsFilesError, match=r"^psu.key.pem: /.*/psu.key.pem: there is no such file"):
        server_context(psu_files(folder))


# --- the wrong content -------------------------------------------------------------------------------------


def test_key_where_a_certificate_should_be(files: TlsFiles) -> None:
    found = only(replace(files, certificate=files.key))
    assert found.text == "holds a private key, but no certificate; it has to hold a PEM certificate"
    assert only(replace(files, key=files.certificate)).text.startswith("the private key is not in it; ")


def test_damaged_content(files: TlsFiles, tmp_path: Path) -> None:
    certificate = Path(files.certificate).read_bytes()
    cut = put(tmp_path / "cut", certificate[:-60] + b"\n-----END CERTIFICATE-----\n")
    assert only(replace(files, certificate=cut)).text == "the certificate in it is damaged; copy it again"
    assert only(replace(files, ca=cut)).name == "psu_ca_cert"
    key = put(tmp_path / "key", Path(files.key).read_bytes()[:-60] + b"\n-----END PRIVATE KEY-----\n")
    assert only(replace(files, key=key)).text.startswith("the private key is damaged, or of an unknown kind")


def test_key_of_another_certificate(files: TlsFiles, folder: Path) -> None:
    found = only(replace(files, key=str(folder / "psu.key.pem")))
    assert found.name == "client_key"
    assert f"does not belong to the certificate in {files.certificate}; " in found.text


def test_encrypted_key(files: TlsFiles, tmp_path: Path) -> None:
    key = serialization.load_pem_private_key(Path(files.key).read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    path = put(tmp_path / "encrypted", key_pem(key, b"secret"))
    assert only(replace(files, key=path)).text.startswith("the key is encrypted; decrypt it ")


def test_old_formats_of_keys(files: TlsFiles, tmp_path: Path) -> None:
    key = serialization.load_pem_private_key(Path(files.key).read_bytes(), None)
    old = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    # As `openssl ecparam -genkey` writes it, and with the certificate in the same file.
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    for content in old, parameters + old, Path(files.certificate).read_bytes() + old:
        put(tmp_path / "key", content)
        usable = replace(files, key=str(tmp_path / "key"))
        assert examine(usable, NOW)[0] == []
        client_context(usable)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_key_that_others_may_read_is_a_warning(files: TlsFiles, mode: int) -> None:
    Path(files.key).chmod(mode)
    found = only(files)
    assert (found.name, found.severity) == ("client_key", "warning")
    assert found.text == f"others may read the key (mode {mode:04o}); chmod 600 it"
    client_context(files)


# --- dates -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "severity", "said"),
    [
        (NOW - 2 * DAY, "warning", "is not valid before"),
        (NOW + 3650 * DAY - timedelta(days=29), "warning", "ends soon"),
        (NOW + 3651 * DAY, "error", "has expired"),
    ],
)
def test_dates_of_ca_and_certificate(files: TlsFiles, now: datetime, severity: str, said: str) -> None:
    findings, ends = examine(files, now)
    assert [(found.name, found.severity) for found in findings] == [
        ("psu_ca_cert", severity),
        ("client_cert", severity),
    ]
    assert all(found.text.startswith(said) for found in findings)
    assert ends == NOW + 3650 * DAY


def test_one_of_several_cas_may_be_outdated(files: TlsFiles, tmp_path: Path) -> None:
    old, _ = make_pem(begins=NOW - 9 * DAY, ends=NOW - DAY, is_ca=True, name="old CA")
    bundle = replace(files, ca=put(tmp_path / "bundle", old + Path(files.ca).read_bytes()))
    found = only(bundle)
    assert (found.severity, found.text.split(" on ")[0]) == ("warning", "has expired")
    assert "(CN=old CA)" in found.text
    assert examine(bundle, NOW)[1] == NOW - DAY
    client_context(bundle)


def test_every_certificate_of_a_chain_has_to_be_valid(files: TlsFiles, tmp_path: Path) -> None:
    root = make_pem(is_ca=True, name="root")
    between = make_pem(is_ca=True, name="between", issuer=root, ends=NOW - DAY / 2)
    leaf, key = make_pem(issuer=between)
    chained = TlsFiles(files.ca, put(tmp_path / "chain", leaf + between[0]), put(tmp_path / "key", key))
    assert only(chained).text.startswith("has expired on ")


# --- CAs ---------------------------------------------------------------------------------------------------


def test_certificate_in_the_place_of_its_ca(files: TlsFiles, folder: Path) -> None:
    found = only(replace(files, ca=str(folder / "psu.crt.pem")))
    assert (found.name, found.severity) == ("psu_ca_cert", "error")
    assert found.text.startswith(
        "is no CA (basicConstraints CA:FALSE) (CN=FusionCharge psu); it has to be the CA"
    )


@pytest.mark.parametrize(("is_self_signed", "severity"), [(True, "warning"), (False, "error")])
def test_ca_without_basic_constraints(
    files: TlsFiles, tmp_path: Path, is_self_signed: bool, severity: str
) -> None:
    issuer = None if is_self_signed else make_pem(is_ca=True, name="root")
    ca = put(tmp_path / "ca", make_pem(issuer=issuer)[0])
    found = only(replace(files, ca=ca))
    assert found.severity == severity
    assert found.text.startswith("does not say whether it is a CA (no basicConstraints)")


def test_leaf_beside_its_ca_does_no_harm(files: TlsFiles, folder: Path, tmp_path: Path) -> None:
    both = (folder / "psu.crt.pem").read_bytes() + Path(files.ca).read_bytes()
    assert only(replace(files, ca=put(tmp_path / "both", both))).severity == "warning"


def test_what_only_openssl_refuses_is_an_error_too(
    files: TlsFiles, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object, **__: object) -> None:
        error = ssl.SSLError(1, "[SSL: EE_KEY_TOO_SMALL] ee key too small (_ssl.c:1)")
        error.reason = "EE_KEY_TOO_SMALL"
        raise error

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", refuse)
    found = only(files)
    assert (found.name, found.severity) == ("client_cert", "error")
    assert found.text == (
        "OpenSSL refuses it, or its key: ee key too small; make it anew with a stronger key or hash"
    )
    with pytest.raises(TlsFilesError, match="ee key too small"):
        client_context(files)


def test_certificate_that_only_openssl_can_read_is_used(
    files: TlsFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: bytes) -> None:
        raise ValueError("unusual")

    monkeypatch.setattr("fusioncharger.io.pem_file.x509.load_pem_x509_certificates", refuse)
    findings, ends = examine(files, NOW)
    assert [(found.severity, found.text) for found in findings] == [
        ("warning", "the certificate in it is unusual and was not examined: unusual")
    ] * 2
    assert ends is None
    client_context(files)


_Make = Callable[[TlsFiles], ssl.SSLContext]


@pytest.mark.parametrize("make", [client_context, server_context])
def test_no_question_on_the_terminal(make: _Make, files: TlsFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key may have been encrypted between examining and loading."""
    key = serialization.load_pem_private_key(Path(files.key).read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    Path(files.key).write_bytes(key_pem(key, b"secret"))
    monkeypatch.setattr("fusioncharger.io.tls.examine", lambda *_: ([], None))
    with pytest.raises(TlsFilesError, match=r"client_cert: .*OpenSSL refuses it"):
        make(files)
