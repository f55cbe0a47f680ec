"""What `check` says of broker and power unit: a real mosquitto, real TCP, real TLS."""

import queue
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from broker import Mosquitto, free_port
from fakes.guarded_broker import Site
from fakes.pki import dispenser_files, make_folder, psu_files
from fusioncharger.app.check_network import TIMEOUT_S, check_broker, check_psu
from fusioncharger.app.check_table import Level, Row
from fusioncharger.io.tls import server_context
from fusioncharger.messages.config import Config, MqttConfig
from msgspec.structs import replace
from requirements import require_program


def check(port: int, username: str = "", password_file: Path | None = None) -> Row:
    started_s = time.monotonic()
    path = "" if password_file is None else str(password_file)
    row = check_broker(MqttConfig(host="127.0.0.1", port=port, username=username, password_file=path))
    assert time.monotonic() - started_s < TIMEOUT_S + 0.5
    return row


def test_a_broker_that_takes_us(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker:
        row = check(broker.port)
    assert row.level is Level.OK
    assert row.detail == f"127.0.0.1:{broker.port}: MQTT 5, login accepted without a user name"


def test_the_login(tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    subprocess.run(
        [require_program("mosquitto_passwd"), "-c", "-b", str(passwords), "driver", "right"], check=True
    )
    passwords.chmod(0o644)
    with Mosquitto(tmp_path, f"allow_anonymous false\npassword_file {passwords}") as broker:
        right, wrong = tmp_path / "right", tmp_path / "wrong"
        right.write_text("right\n")
        wrong.write_text("wrong\n")
        assert "login accepted as 'driver'" in check(broker.port, "driver", right).detail
        for username, password in (("driver", wrong), ("", None), ("driver", None)):
            row = check(broker.port, username, password)
            assert (row.level, "login refused" in row.detail) == (Level.ERROR, True), row
            assert "right" not in row.detail
        row = check(broker.port, "driver", tmp_path / "none")
        assert (row.level, "reachable; login not tried" in row.detail) == (Level.NOT_CHECKED, True)


def test_a_broker_with_tls(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with site.mosquitto as broker:
        guarded = MqttConfig(port=broker.port, **site.access)
        row = check_broker(guarded)
        assert (row.level, row.detail) == (
            Level.OK,
            f"localhost:{broker.port}: MQTT 5, TLSv1.3, login accepted as 'driver'",
        )
        refused = check_broker(replace(guarded, client_cert="", client_key=""))
        assert "the broker refused our certificate: certificate required" in refused.detail
        plain = check_broker(replace(guarded, tls_enabled=False))
        assert "does it want TLS (mqtt.tls_enabled = false)?" in plain.detail
        other_name = check_broker(replace(guarded, host="127.0.0.1"))
        assert "the broker's certificate is not accepted" in other_name.detail
        assert {row.level for row in (refused, plain, other_name)} == {Level.ERROR}
        unusable = check_broker(replace(guarded, ca_cert="none"))
        assert (unusable.level, "login not tried without usable" in unusable.detail) == (
            Level.NOT_CHECKED,
            True,
        )


def test_nothing_is_published_subscribed_to_or_left_behind(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Mosquitto(tmp_path, f"allow_anonymous true\nlog_dest file {log}\nlog_type all") as broker:
        check(broker.port)
        deadline = time.monotonic() + 5
        while "DISCONNECT" not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.01)  # a file that grows tells no one
    said = log.read_text()
    assert "Received DISCONNECT from fusioncharger-check-" in said
    assert not any(word in said for word in ("PUBLISH", "SUBSCRIBE", "Will message"))


def test_no_broker() -> None:
    row = check(free_port())
    assert (row.level, "Connection refused" in row.detail) == (Level.ERROR, True)
    row = check(free_port(), "driver", Path("none"))
    assert row.level is Level.ERROR
    row = check_broker(MqttConfig(host="no.such.host.invalid"))
    assert row.level is Level.ERROR


def test_a_broker_that_is_frozen(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, broker.stopped():
        row = check(broker.port)
    assert (row.level, "does not answer" in row.detail) == (Level.ERROR, True)


@contextmanager
def listener(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server whose every connection `answer` handles."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection, suppress(OSError):
                    answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(5)


@pytest.mark.parametrize("how", ["CONNACK", "hangs up"])
def test_an_old_broker(how: str) -> None:
    def answer(connection: socket.socket) -> None:
        packet = connection.recv(4096)
        version = packet[packet.index(b"MQTT") + 4]
        if version == 4:
            connection.sendall(b"\x20\x02\x00\x00")
            connection.recv(4096)
        elif how == "CONNACK":  # with MQTT 5's reason code, as amqtt sends it
            connection.sendall(b"\x20\x03\x00\x84\x00")

    with listener(answer) as port:
        row = check(port)
    assert (row.level, "only MQTT 3.1.1, login accepted" in row.detail) == (Level.WARNING, True), row


def test_something_else_than_a_broker() -> None:
    with listener(lambda connection: connection.sendall(b"220 mail ready\r\n")) as port:
        row = check(port)
    assert (row.level, "does not answer as an MQTT broker" in row.detail) == (Level.ERROR, True), row


def psu(port: int, folder: Path | None = None, hostname: str = "") -> Row:
    files = dispenser_files(folder) if folder else None
    config = Config(
        connectors=(),
        psu_ip="127.0.0.1",
        psu_port=port,
        tls_enabled=files is not None,
        psu_ca_cert=files.ca if files else "",
        client_cert=files.certificate if files else "",
        client_key=files.key if files else "",
        psu_cert_hostname=hostname,
    )
    started_s = time.monotonic()
    row = check_psu(config, has_certificates=True)
    assert time.monotonic() - started_s < TIMEOUT_S + 0.5
    return row


def test_a_power_unit_without_tls() -> None:
    received: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    with listener(lambda connection: received.put(connection.recv(100))) as port:
        row = psu(port)
        assert received.get(timeout=5) == b""
    assert (row.level, row.detail) == (Level.OK, f"127.0.0.1:{port}: takes connections")
    row = psu(free_port())
    assert (row.level, "Connection refused" in row.detail) == (Level.ERROR, True)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_power_unit_with_tls(tmp_path: Path, version: ssl.TLSVersion) -> None:
    folder, stranger = make_folder(tmp_path / "ours"), make_folder(tmp_path / "stranger")
    context = server_context(psu_files(folder))
    context.maximum_version = version

    def answer(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            secured.recv(1)

    with listener(answer) as port:
        row = psu(port, folder)
        assert (row.level, "both certificates accepted" in row.detail) == (Level.OK, True), row
        assert psu(port, folder, "psu.local").level is Level.OK
        row = psu(port, folder, "other.host")
        assert (row.level, "certificate is not accepted" in row.detail) == (Level.ERROR, True), row
        # Their CA is ours, so that only our certificate does not please.
        (stranger / "psu_ca.crt.pem").write_bytes((folder / "psu_ca.crt.pem").read_bytes())
        row = psu(port, stranger)
        assert (row.level, "unknown ca" in row.detail) == (Level.ERROR, True), row


@pytest.mark.parametrize(
    "answer",
    # The last one holds the connection open and says nothing: nothing comes of it that could be awaited.
    [lambda _: None, lambda connection: connection.sendall(b"\0" * 50), lambda _: time.sleep(1.5)],
    ids=["hangs-up", "modbus", "silent"],
)
def test_a_power_unit_that_does_not_speak_tls(tmp_path: Path, answer: Callable[[socket.socket], None]) -> None:
    folder = make_folder(tmp_path / "ours")
    with listener(answer) as port:
        row = psu(port, folder)
    assert (row.level, "TLS" in row.detail) == (Level.ERROR, True), row


def test_without_certificates_the_handshake_is_not_tried() -> None:
    row = check_psu(Config(connectors=(), tls_enabled=True), has_certificates=False)
    assert row.level is Level.NOT_CHECKED
