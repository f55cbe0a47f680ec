"""What `check` says of the machine: real interfaces, real files, real lack of privileges."""

import os
import socket
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from fakes.pki import DAY, NOW, dispenser_files, make_folder, make_pem, put
from fusioncharger.app import check_host
from fusioncharger.app.check_host import (
    check_broker_certificates,
    check_certificates,
    check_interface,
    check_journal,
    check_password,
)
from fusioncharger.app.check_table import Level, Row
from fusioncharger.messages.config import Config, MqttConfig
from msgspec.structs import replace
from netns import ip, network_namespace


def summary(rows: list[Row]) -> list[tuple[str, str]]:
    return [(row.what, row.level.value) for row in rows]


def test_an_interface_that_is_up() -> None:
    with network_namespace():
        interface, raw = check_interface("veth0")
        shown = subprocess.check_output(["ip", "-o", "link", "show", "veth0"], text=True)
    assert (interface.level, raw.level) == (Level.OK, Level.OK)
    assert interface.detail == f"up, link, MAC {shown.split('link/ether ')[1][:17]}"
    assert "root" in raw.detail


@pytest.mark.parametrize(
    ("prepare", "level", "said"),
    [
        (("veth0", "down"), Level.ERROR, "is down (MAC "),
        (("veth1", "down"), Level.WARNING, "is up, but has no link (MAC "),
    ],
)
def test_an_interface_without_a_link(prepare: tuple[str, str], level: Level, said: str) -> None:
    with network_namespace():
        ip("link", "set", *prepare)
        interface, raw = check_interface("veth0")
    assert interface.level is level
    assert said in interface.detail
    # The permission is looked at, whatever the interface is like.
    assert raw.level is Level.OK


def test_interfaces_that_are_none() -> None:
    with network_namespace():
        assert "there is no such interface; there are: lo, veth0, veth1" in check_interface("eth9")[0].detail
        assert check_interface("lo")[0].detail == "is no Ethernet interface"


def test_goose_over_udp() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        (row,) = check_interface(f"udp:{port}:15000")
        assert (row.level, "Address already in use" in row.detail) == (Level.ERROR, True)
    (row,) = check_interface("udp:0:15000")
    assert (row.level, "for development only" in row.detail) == (Level.WARNING, True)
    assert "is no UDP port" in check_interface("udp:x")[0].detail


def with_broker(path: Path | str) -> MqttConfig:
    return MqttConfig(username="driver", password_file=str(path))


def test_the_password_file(tmp_path: Path) -> None:
    assert check_password(MqttConfig()) is None
    file = tmp_path / "password"
    row = check_password(with_broker(file))
    assert row is not None
    assert row.level is Level.ERROR
    assert row.detail == f"{file} cannot be read: No such file or directory"
    for content, said in (("", "is empty"), ("\udcff", "not UTF-8")):
        file.write_text(content, errors="surrogateescape")
        row = check_password(with_broker(file))
        assert row is not None
        assert (row.level, said in row.detail) == (Level.ERROR, True)
    file.write_text("secret\n")
    file.chmod(0o640)
    row = check_password(with_broker(file))
    assert row is not None
    assert row.level is Level.WARNING
    assert "secret" not in row.detail
    file.chmod(0o600)
    row = check_password(with_broker(file))
    assert row is not None
    assert row.level is Level.OK


@pytest.mark.parametrize("kind", ["fifo", "directory", "nul"])
def test_a_password_file_that_is_none(tmp_path: Path, kind: str) -> None:
    path: Path | str = tmp_path / kind
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        Path(path).mkdir()
    else:
        path = "a\0b"
    row = check_password(with_broker(path))
    assert row is not None
    assert row.level is Level.ERROR


def test_the_files_for_the_broker(tmp_path: Path) -> None:
    (row,) = check_broker_certificates(MqttConfig())
    assert (row.level, row.detail) == (Level.OK, "off; the broker is on this machine")
    (row,) = check_broker_certificates(MqttConfig(host="192.168.11.7"))
    assert (row.level, "power requests too" in row.detail) == (Level.WARNING, True)
    ca, certificate, key = make_broker_files(tmp_path)
    guarded = MqttConfig(host="broker", tls_enabled=True, ca_cert=ca)

    def rows_of(**changed: str) -> dict[str, Row]:
        return {row.what: row for row in check_broker_certificates(replace(guarded, **changed))}

    rows = rows_of()
    assert {row.level for row in rows.values()} == {Level.OK}
    assert set(rows) == {"mqtt.ca_cert", "MQTT certificates"}
    rows = rows_of(client_cert=certificate, client_key=key)
    assert set(rows) == {"mqtt.ca_cert", "mqtt.client_cert", "mqtt.client_key", "MQTT certificates"}
    assert {row.level for row in rows.values()} == {Level.OK}
    assert (
        "does not belong to the certificate"
        in rows_of(client_cert=ca, client_key=key)["mqtt.client_key"].detail
    )
    Path(key).chmod(0o644)
    assert (
        "others may read the key" in rows_of(client_cert=certificate, client_key=key)["mqtt.client_key"].detail
    )
    row = rows_of(host="a" * 300)["MQTT TLS"]
    assert (row.level, "mqtt.host: " in row.detail) == (Level.ERROR, True)


def make_broker_files(directory: Path) -> tuple[str, str, str]:
    ca = make_pem(is_ca=True)
    certificate, key = make_pem(issuer=ca)
    return put(directory / "ca", ca[0]), put(directory / "crt", certificate), put(directory / "key", key)


def with_certificates(folder: Path, **settings: object) -> Config:
    files = dispenser_files(folder)
    return Config(
        connectors=(),
        tls_enabled=True,
        psu_ca_cert=files.ca,
        client_cert=files.certificate,
        client_key=files.key,
        **settings,  # type: ignore[arg-type]
    )


def test_certificates_that_are_right(tmp_path: Path) -> None:
    rows = check_certificates(with_certificates(make_folder(tmp_path / "certs"), psu_cert_hostname="psu.local"))
    assert summary(rows) == [
        ("psu_ca_cert", "ok"),
        ("client_cert", "ok"),
        ("client_key", "ok"),
        ("certificates", "ok"),
    ]
    assert "valid until 20" in rows[-1].detail
    assert " days" in rows[-1].detail


def test_certificates_that_are_wrong(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "certs")
    config = with_certificates(folder)
    put(Path(config.client_cert), make_pem(ends=NOW + 3 * DAY)[0])
    Path(config.psu_ca_cert).unlink()
    rows = {row.what: row for row in check_certificates(config)}
    assert rows["psu_ca_cert"].level is Level.ERROR
    assert "there is no such file" in rows["psu_ca_cert"].detail
    assert rows["client_cert"].level is Level.WARNING
    assert "ends soon" in rows["client_cert"].detail
    assert "does not belong to the certificate" in rows["client_key"].detail
    assert rows["certificates"].detail.startswith(f"valid until {NOW + timedelta(days=3):%Y-%m-%d}")


def test_a_host_name_that_is_none(tmp_path: Path) -> None:
    rows = check_certificates(with_certificates(make_folder(tmp_path / "certs"), psu_cert_hostname="a" * 300))
    (row,) = (row for row in rows if row.level is Level.ERROR)
    assert "psu_cert_hostname" in row.detail


def test_without_tls_the_keys_are_readable_on_the_cable() -> None:
    (row,) = check_certificates(Config(connectors=()))
    assert (row.level, "unencrypted" in row.detail) == (Level.OK, True)


def test_the_journals_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = check_journal(str(tmp_path))
    assert (there.level, "free" in there.detail, "will be made" in there.detail) == (Level.OK, True, False)
    new = tmp_path / "a" / "b"
    row = check_journal(str(new))
    assert (row.level, f"{new}: will be made" in row.detail) == (Level.OK, True)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(check_host, "ROOM_BYTES", 2**60)
    row = check_journal(str(tmp_path))
    assert (row.level, "at least" in row.detail) == (Level.WARNING, True)


def test_a_journal_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for path in ("file", "file/below", "dangling"):
        row = check_journal(str(tmp_path / path))
        assert (row.level, "is no directory" in row.detail) == (Level.ERROR, True), path
    # A kernel's file system in which nothing can be made.
    row = check_journal("/proc/sessions")
    assert (row.level, "cannot be written: " in row.detail) == (Level.ERROR, True)
