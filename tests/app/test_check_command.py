"""`check` as a user meets it: a real process, its table, its exit code."""

import ctypes
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from broker import Mosquitto, free_port
from fakes import site_toml
from netns import network_namespace

CONNECTOR = site_toml.CONNECTOR + 'powermeter = "meter_1"\n'
_PR_CAPBSET_DROP = 24
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH, _CAP_NET_RAW = 1, 2, 13


def run(
    *arguments: str, prepare: Callable[[], None] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "fusioncharger", "check", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        preexec_fn=prepare,
        cwd=cwd,
    )
    assert "Traceback" not in done.stderr
    return done


def table(done: subprocess.CompletedProcess[str]) -> dict[str, tuple[str, str]]:
    """What → (result, detail); the columns begin where the headings do."""
    head, *lines = done.stdout.splitlines()
    result, detail = head.index("result"), head.index("detail")
    rows = [line for line in lines if line][:-1]
    return {row[:result].strip(): (row[result:detail].strip(), row[detail:]) for row in rows}


def as_unprivileged() -> None:
    """Root without what makes it root: no raw sockets, no files of others (their mode is 0)."""
    libc = ctypes.CDLL(None)
    for capability in (_CAP_NET_RAW, _CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH):
        libc.prctl(_PR_CAPBSET_DROP, capability)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--config",),
        ("--config", "a", "--everest", "b"),
        ("--everest", "a"),
        ("--config", "a", "--module", "b"),
        ("--everest", "a", "--module", "b", "--probe-psu"),
        ("--no-such-option",),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert "usage:" in done.stderr
    assert done.stdout == ""


def test_help_warns_of_the_probe() -> None:
    assert "second dispenser" in " ".join(run("--help").stdout.split())


def test_everything_right(tmp_path: Path) -> None:
    with network_namespace(), Mosquitto(tmp_path) as broker, socket.create_server(("127.0.0.1", 0)) as psu:
        file = tmp_path / "site.toml"
        file.write_text(
            'ethernet_interface = "veth0"\nesn = "1"\npsu_ip = "127.0.0.1"\n'
            f"psu_port = {psu.getsockname()[1]}\n{CONNECTOR}"
            f'[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\n[journal]\ndir = "{tmp_path}"\n'
        )
        unprobed = run("--config", str(file))
        psu.settimeout(0.1)
        with pytest.raises(TimeoutError):
            psu.accept()
        probed = run("--config", str(file), "--probe-psu")
        psu.accept()[0].close()
    assert unprobed.returncode == probed.returncode == 0, unprobed.stdout
    rows = table(unprobed)
    assert rows.pop("power unit") == ("-", "not probed (--probe-psu)")
    assert {level for level, _ in rows.values()} == {"ok"}
    assert list(rows) == [
        "file",
        "TOML",
        "settings",
        "connectors",
        "connector 1",
        "interface veth0",
        "raw Ethernet frames",
        "TLS",
        "MQTT TLS",
        "broker",
        "journal",
    ]
    assert unprobed.stdout.endswith("\nno errors, no warnings\n")
    assert "\x1b" not in unprobed.stdout
    assert table(probed)["power unit"][0] == "ok"
    assert {path.name for path in tmp_path.iterdir()} == {"site.toml", "mosquitto.conf"}


def test_everything_wrong(tmp_path: Path) -> None:
    """One look shows all of it."""
    (tmp_path / "file").write_text("")
    file = tmp_path / "site.toml"
    file.write_text(
        'ethernet_interface = "nonsuch0"\npsu_prot = 1\npsu_ip = "127.0.0.1"\n'
        f"psu_port = {free_port()}\ngoose_vlan_id = 5000\n{CONNECTOR}"
        f'[mqtt]\nhost = "127.0.0.1"\nport = {free_port()}\nusername = "x"\npassword_file = "none"\n'
        f'[journal]\ndir = "{tmp_path / "file"}"\n'
    )
    done = run("--config", str(file), "--probe-psu", cwd=tmp_path)
    assert done.returncode == 1
    assert "unknown key psu_prot; did you mean psu_port?" in done.stdout
    assert "goose_vlan_id: found 5000" in done.stdout
    rows = table(done)
    wrong = {what for what, (level, _) in rows.items() if level == "error"}
    assert wrong == {"setting", "interface nonsuch0", "password file", "broker", "power unit", "journal"}
    assert done.stdout.endswith("\n7 errors, 1 warning\n")


def test_certificates_that_are_not_named_are_said_once(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text(f"tls_enabled = true\n{CONNECTOR}")
    done = run("--config", str(file))
    keys = ("psu_ca_cert", "client_cert", "client_key")
    assert [done.stdout.count(f"{key} is missing; tls_enabled") for key in keys] == [1, 1, 1]
    assert not set(keys) & set(table(done))


def test_what_depends_on_a_wrong_value_is_not_checked(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text(
        f"ethernet_interface = 1\npsu_ip = 1\ntls_enabled = 1\n{CONNECTOR}"
        "[mqtt]\nport = 0\n[journal]\ndir = 1\n"
    )
    rows = table(run("--config", str(file), "--probe-psu"))
    for what in ("interface", "certificates", "broker", "power unit", "journal"):
        assert rows[what] == ("-", "its settings have to be mended first")
    file.write_text("not TOML")
    done = run("--config", str(file))
    assert done.returncode == 1
    assert table(done)["TOML"] == (
        "error",
        "Expected '=' after a key in a key/value pair (at line 1, column 5)",
    )
    assert table(done)["interface, certificates, broker, power unit, journal"][0] == "-"


def test_a_user_without_privileges(tmp_path: Path) -> None:
    """As the service's user would be without the unit's AmbientCapabilities, with files of someone else."""
    secret, locked = tmp_path / "password", tmp_path / "locked"
    secret.write_text("secret\n")
    secret.chmod(0)
    locked.mkdir(0o500)
    with network_namespace():
        file = tmp_path / "site.toml"
        file.write_text(
            f'ethernet_interface = "veth0"\n{CONNECTOR}[mqtt]\nhost = "127.0.0.1"\nport = {free_port()}\n'
            f'username = "x"\npassword_file = "{secret}"\n[journal]\ndir = "{locked / "sessions"}"\n'
        )
        done = run("--config", str(file), prepare=as_unprivileged)
    assert done.returncode == 1
    rows = table(done)
    level, detail = rows["raw Ethernet frames"]
    assert level == "error"
    assert "AmbientCapabilities=CAP_NET_RAW" in detail
    assert "setcap cap_net_raw+ep" in detail
    assert rows["interface veth0"][0] == "ok"
    assert rows["password file"] == ("error", f"{secret} cannot be read: Permission denied")
    assert rows["journal"][0] == "error"
    assert "Permission denied" in rows["journal"][1]


def test_it_imports_nothing_that_only_the_demo_has(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text(CONNECTOR)
    code = (
        "import sys; from fusioncharger.app.cli import main; "
        f"main(['check', '--config', {str(file)!r}]); "
        "print([name for name in ('rich', 'amqtt', 'yaml') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.splitlines()[-1] == "[]"
