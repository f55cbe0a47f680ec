"""The command line as a user meets it: real processes, and never a traceback for a user's mistake."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.site_toml import CONNECTOR

LOG = Path(__file__).parents[1] / "sessions" / "setpoint-kept-after-off.mcap"


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "fusioncharger", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        cwd=cwd,
    )
    assert "Traceback" not in done.stderr
    return done


def test_help_and_version() -> None:
    done = run("--help")
    assert done.returncode == 0
    for command in ("run", "mock", "demo", "replay"):
        assert command in done.stdout
        assert run(command, "--help").returncode == 0
    assert run("--version").stdout.startswith("fusioncharger ")


@pytest.mark.parametrize("arguments", [(), ("fly",), ("run",), ("replay",), ("run", "--confg", "x")])
def test_usage_errors(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert "usage:" in done.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"\xff\xfe", "not UTF-8 text: byte 0 is 0xff"),
        (b"psu_prot = 1", "unknown key psu_prot; did you mean psu_port?"),
        (b"psu_port = 0\n" + CONNECTOR.encode(), "psu_port: found 0; allowed: a TCP port, 1 to 65535"),
        (CONNECTOR.encode() + b'[mqtt]\npassword_file = "none"', "mqtt.password_file: none cannot be read"),
        (
            CONNECTOR.encode() + b'[mqtt]\ntls_enabled = true\nca_cert = "none.pem"',
            "site.toml: mqtt.ca_cert: none.pem: there is no such file",
        ),
    ],
    ids=["missing", "binary", "unknown-key", "bad-value", "no-password", "no-ca"],
)
def test_a_configuration_that_is_not_usable(tmp_path: Path, content: bytes | None, said: str) -> None:
    file = tmp_path / "site.toml"
    if content is not None:
        file.write_bytes(content)
    done = run("run", "--config", str(file), cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("interface", "said"),
    [
        ("nonsuch0", "no Ethernet interface 'nonsuch0'; there are: "),
        ("udp:x", "udp:"),
        ("lo", "lo is no Ethernet"),
    ],
)
def test_a_goose_interface_that_cannot_be_used(tmp_path: Path, interface: str, said: str) -> None:
    """Exit code 1, not 2: it may come up later, so a service manager should try again."""
    file = tmp_path / "site.toml"
    file.write_text(f'ethernet_interface = "{interface}"\n{CONNECTOR}')
    if interface == "lo" and os.geteuid() != 0:
        said = "no permission"
    done = run("run", "--config", str(file), cwd=tmp_path)
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_output_that_nobody_reads_to_its_end(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "fusioncharger", "replay", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()


def test_output_to_a_disk_that_is_full() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "fusioncharger", "log", "info", str(LOG)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=30,
        )
    assert done.returncode == 1
    assert done.stderr == "standard output: cannot be written: No space left on device\n"


def test_ctrl_c_ends_a_command_without_a_word() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "fusioncharger", "replay", str(LOG), "--speed", "0.001"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()  # it is at work, and waits for the second turn's time
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert said == b""


def test_an_empty_password_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("")
    file = tmp_path / "site.toml"
    file.write_text(CONNECTOR + '[mqtt]\npassword_file = "password"')
    assert "is empty" in run("run", "--config", str(file), cwd=tmp_path).stderr


def test_the_log_as_json_and_a_driver_alone(tmp_path: Path) -> None:
    """Without power unit and broker the driver waits for both, and ends as it should."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    file = tmp_path / "site.toml"
    file.write_text(
        f'ethernet_interface = "udp:0:{port}"\npsu_ip = "127.0.0.1"\npsu_port = {port}\n'
        f'psu_ca_cert = "ca.pem"\n{CONNECTOR}'
        f'[mqtt]\nhost = "127.0.0.1"\nport = {port}\nca_cert = "ca.pem"\n'
        f'[journal]\ndir = "{tmp_path / "sessions"}"\n'
    )
    driver = subprocess.Popen(
        [sys.executable, "-m", "fusioncharger", "run", "--config", str(file), "--log-json"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert driver.stderr is not None
    with driver.stderr:
        lines = []
        for line in driver.stderr:
            lines.append(json.loads(line))
            if "recording" in lines[-1]["text"]:
                driver.terminate()
    assert driver.wait(10) == 0
    assert {"time", "level", "logger", "text"} <= lines[0].keys()
    assert any("link to the PSU failed" in line["text"] for line in lines)
    assert any("development" in line["text"] for line in lines), lines
    warned = [line["text"] for line in lines if "without effect" in line["text"]]
    assert warned == [
        "mqtt.tls_enabled: false: mqtt.ca_cert without effect",
        "tls_enabled: false: psu_ca_cert without effect",
    ]
    (log,) = (tmp_path / "sessions").glob("*.mcap")
    assert run("replay", str(log)).stdout.startswith("identical: ")
