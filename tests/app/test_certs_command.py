"""`fusioncharger certs` as a user meets it, and `run` with what it made."""

import json
import re
import socket
import ssl
import subprocess
import sys
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from fakes.link_bench import TIMEOUT_S, Psu
from fakes.pki import psu_files
from fakes.site_toml import CONNECTOR
from fusioncharger.app.cli import main
from fusioncharger.io.certificates import FILES
from fusioncharger.io.modbus_psu_codec import ReadAnswer, Report
from fusioncharger.io.tls import server_context


def config_of(printed: str) -> dict[str, object]:
    """The lines that belong into the configuration."""
    lines = [line.strip() for line in printed.splitlines() if re.match(r"  \w+ = ", line)]
    return tomllib.loads("\n".join(lines))


def test_it_says_what_to_do_with_what_it_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["certs", 'my "certs"']) == 0
    printed = capsys.readouterr().out
    folder = tmp_path / 'my "certs"'
    assert {path.name for path in folder.iterdir()} == FILES.keys()
    for name in FILES:
        assert name in printed
    assert config_of(printed) == {
        "tls_enabled": True,
        "psu_ca_cert": f"{folder}/psu_ca.crt.pem",
        "client_cert": f"{folder}/dispenser.crt.pem",
        "client_key": f"{folder}/dispenser.key.pem",
    }
    assert printed.endswith(f"  fusioncharger mock '{folder}'\n")
    assert "PRIVATE KEY" not in printed


def test_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["certs", "--algorithm", "rsa", "--days", "30", "--hostname", "10.0.0.7", str(tmp_path)]
    assert main(words) == 0
    assert '# psu_cert_hostname = "10.0.0.7"' in capsys.readouterr().out
    leaf = x509.load_pem_x509_certificate((tmp_path / "psu.crt.pem").read_bytes())
    assert abs(leaf.not_valid_after_utc - datetime.now(UTC) - timedelta(days=30)) < timedelta(minutes=1)
    assert "10.0.0.7" in str(leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--days", "0", "found '0'; allowed: 1 to 36500"),
        ("--days", "36501", "allowed: 1 to 36500"),
        ("--days", "9" * 5000, "allowed: 1 to 36500"),
        ("--days", "1.5", "allowed: 1 to 36500"),
        ("--days", "²", "allowed: 1 to 36500"),
        ("--hostname", "a b", "found 'a b'; allowed: a host name"),
        ("--hostname", "", "allowed: a host name"),
        ("--algorithm", "dsa", "invalid choice"),
    ],
)
def test_options_that_are_not_usable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, said: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["certs", str(tmp_path / "new"), option, value])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_existing_files_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "psu.key.pem").write_text("mine")
    assert main(["certs", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert printed.err == (f"{tmp_path}: nothing written, there is already: psu.key.pem; give another folder\n")
    assert printed.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["psu.key.pem"]


def test_folder_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    for folder in tmp_path / "file", tmp_path / "file" / "below", Path("/proc/none"):
        assert main(["certs", str(folder)]) == 2
        printed = capsys.readouterr().err
        assert "nothing written: " in printed
        assert len(printed.splitlines()) == 1


# --- run, with TLS -----------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    """The configuration that `certs` says to use."""
    assert main(["certs", str(tmp_path / "certs")]) == 0
    return config_of(capsys.readouterr().out)


def write_config(tmp_path: Path, settings: dict[str, object], mqtt_port: int = 1) -> Path:
    file = tmp_path / "site.toml"
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    file.write_text(
        "\n".join(lines)
        + f'\n{CONNECTOR}\n[mqtt]\nhost = "127.0.0.1"\nport = {mqtt_port}\n'
        + f"[journal]\ndir = {json.dumps(str(tmp_path / 'sessions'))}\n"
    )
    return file


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"client_key": "/none"},
            "client_key: /none: there is no such file; give the path of a PEM",
        ),
        (
            {"psu_ca_cert": "/dev/null"},
            "psu_ca_cert: /dev/null: is no file; give the path of a PEM",
        ),
        ({"psu_cert_hostname": ".x"}, "psu_cert_hostname: '.x' is no host name; write it as it stands in the"),
    ],
)
def test_files_that_are_not_usable_are_configuration_errors(
    tmp_path: Path,
    site: dict[str, object],
    capsys: pytest.CaptureFixture[str],
    changed: dict[str, object],
    said: str,
) -> None:
    file = write_config(tmp_path, site | changed)
    assert main(["run", "--config", str(file)]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"{file}: {said}")
    assert len(printed.splitlines()) == 1


def test_a_driver_with_tls_and_a_psu(tmp_path: Path, site: dict[str, object]) -> None:
    """A real process: one warning about the key's mode, mutual TLS, requests, answers and reports."""
    Path(str(site["client_key"])).chmod(0o640)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        port = listener.getsockname()[1]
        file = write_config(
            tmp_path,
            site
            | {
                "ethernet_interface": f"udp:0:{port}",
                "psu_ip": "127.0.0.1",
                "psu_port": port,
                "psu_cert_hostname": "psu.local",
            },
        )
        driver = subprocess.Popen(
            [sys.executable, "-m", "fusioncharger", "run", "--config", str(file), "--log-json"],
            stderr=subprocess.PIPE,
            text=True,
        )
        context = server_context(psu_files(tmp_path / "certs"))
        accepted, _ = listener.accept()
        psu = Psu(accepted)
        psu.socket = context.wrap_socket(accepted, server_side=True)
        psu.socket.settimeout(TIMEOUT_S)
        assert isinstance(psu.socket, ssl.SSLSocket)
        assert psu.socket.getpeercert()
        psu.read(1)
        assert psu.receive() == ReadAnswer(1, 0xFF, (1,))
        assert isinstance(psu.receive(), Report)
        driver.terminate()
        _, errors = driver.communicate(timeout=20)
        psu.socket.close()
    assert driver.returncode == 0, errors
    lines = [json.loads(line) for line in errors.splitlines()]
    warnings = [line["text"] for line in lines if line["level"] == "WARNING" and "client_key" in line["text"]]
    assert warnings == [f"client_key: {site['client_key']}: others may read the key (mode 0640); chmod 600 it"]
    assert any(line["text"] == "connected to the PSU" for line in lines)
    assert "PRIVATE KEY" not in errors
