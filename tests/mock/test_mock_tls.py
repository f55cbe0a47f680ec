"""The mock with a folder of certificates: who is let in, and what is said of who is not."""

import asyncio
import contextlib
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from unittest.mock import create_autospec

import pytest
from fusioncharger.mock import dispenser_link
from fusioncharger.mock.dispenser_link import DispenserLink, LinkOwner
from fusioncharger.mock.tls_session import TlsRefusedError, TlsSession
from mock_bench import COMMAND, TIMEOUT_S, Dispenser, Mock
from mock_certificates import Authority, Site

BOTH = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def secure(start: Callable[..., Mock], site: Site) -> Mock:
    return start(str(site.directory))


def events_of(mock: Mock) -> list[str]:
    return [event["event"] for event in mock.seen]


@pytest.mark.parametrize("version", BOTH)
def test_dispenser_with_its_certificate_is_let_in(secure: Mock, site: Site, version: ssl.TLSVersion) -> None:
    dispenser = Dispenser(secure, site.dispenser(version=version))
    dispenser.requests_until(0x2011)
    dispenser.report(1)
    dispenser.requests_until(0x2115)
    established = secure.wait("tls_established")
    assert established["subject"] == "dispenser"
    assert established["version"] == {BOTH[0]: "TLSv1.2", BOTH[1]: "TLSv1.3"}[version]
    assert secure.wait("connected")["peer"] == established["peer"]
    dispenser.socket.close()
    assert secure.wait("disconnected")["reason"] == "closed by the dispenser"


def test_connections_are_closed_as_tls_wants_it(start: Callable[..., Mock], site: Site) -> None:
    mock = start(str(site.directory), "--control", "-")
    assert mock.seen[0]["tls"] is True
    dispenser = Dispenser(mock, site.dispenser())
    dispenser.requests_until(0x2011)
    mock.wait("round_done")
    mock.told("drop")
    assert dispenser.socket.recv(1) == b""  # an end without close_notify would raise
    assert mock.wait("disconnected")["reason"] == "drop"
    dispenser.socket.close()


NOT_SIGNED = "unknown CA: the dispenser's certificate is not signed by dispenser_ca.crt.pem"
REFUSALS = {
    "none": "no client certificate: the dispenser showed none",
    "another CA": NOT_SIGNED,
    "another CA of the same name": NOT_SIGNED,
    "expired": "the dispenser's certificate is expired",
    "distrusts": "the dispenser does not accept psu.crt.pem: unknown ca",
    "distrusts, the same name": "the dispenser does not accept psu.crt.pem: decrypt error",
}


def wrong_dispenser(site: Site, what: str, version: ssl.TLSVersion) -> ssl.SSLContext:
    match what:
        case "none":
            return site.dispenser(has_certificate=False, version=version)
        case "another CA":
            return site.dispenser(signer=Authority("another ca"), version=version)
        case "another CA of the same name":
            return site.dispenser(signer=Authority("dispenser ca"), version=version)
        case "expired":
            return site.dispenser(days=-1, version=version)
        case "distrusts":
            return site.dispenser(trusts=Authority("another ca"), version=version)
        case _:
            return site.dispenser(trusts=Authority("psu ca"), version=version)


@pytest.mark.parametrize("version", BOTH)
@pytest.mark.parametrize("what", REFUSALS)
def test_wrong_dispenser_is_refused_once_and_the_next_let_in(
    secure: Mock, site: Site, what: str, version: ssl.TLSVersion
) -> None:
    reason = REFUSALS[what]
    with socket.create_connection(("127.0.0.1", secure.port), TIMEOUT_S) as plain:
        host, port = plain.getsockname()
        try:
            with wrong_dispenser(site, what, version).wrap_socket(plain) as tls:
                tls.recv(1)
        except ssl.SSLError as error:
            alert = str(error)
        else:
            alert = ""
    refused = secure.wait("tls_refused")
    assert (refused["peer"], refused["reason"]) == (f"{host}:{port}", reason)
    if not what.startswith("distrusts"):
        assert "alert" in alert.lower()  # the dispenser is told why, too
    good = Dispenser(secure, site.dispenser())
    good.requests_until(0x2011)
    secure.wait("connected")
    good.socket.close()
    assert events_of(secure) == ["listening", "tls_refused", "tls_established", "connected"]
    lines = [line for line in secure.stop().splitlines() if f"{host}:{port}" in line or "rror" in line]
    assert len(lines) == 1
    assert lines[0].endswith(f"WARNING TLS refused: {host}:{port}: {reason}")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (bytes(12), "looks like plain Modbus; this mock speaks TLS only"),
        (b"GET / HTTP/1.1\r\n\r\n", "not TLS at all; this mock speaks TLS only"),
        (b"", "the dispenser closed the connection before the TLS handshake was done"),
    ],
)
def test_what_is_not_tls_is_refused(secure: Mock, said: bytes, reason: str) -> None:
    with socket.create_connection(("127.0.0.1", secure.port), TIMEOUT_S) as plain:
        plain.sendall(said)
        if said:
            with contextlib.suppress(ConnectionResetError):
                assert plain.recv(1) == b""
    assert secure.wait("tls_refused")["reason"] == reason


def test_damaged_handshake_is_refused(secure: Mock) -> None:
    with socket.create_connection(("127.0.0.1", secure.port), TIMEOUT_S) as plain:
        plain.sendall(b"\x16\x03\x01\x00\x04\x01\x00\x00\x00")
        while plain.recv(100):
            pass
    assert secure.wait("tls_refused")["reason"].startswith("TLS: ")


def test_handshake_that_takes_too_long_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispenser_link, "HANDSHAKE_TIMEOUT_S", 0.05)

    async def run() -> str:
        refused: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        owner = create_autospec(LinkOwner)
        owner.tls_refused.side_effect = lambda _link, _peer, reason: refused.set_result(reason)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server = await asyncio.get_running_loop().create_server(
            lambda: DispenserLink(owner, 1, context), "127.0.0.1", 0
        )
        with socket.create_connection(server.sockets[0].getsockname(), TIMEOUT_S):
            reason = await asyncio.wait_for(refused, TIMEOUT_S)
        server.close()
        return reason

    assert asyncio.run(run()) == "no TLS handshake in 0.05 s"


def test_mock_ends_while_a_handshake_is_on(secure: Mock) -> None:
    with socket.create_connection(("127.0.0.1", secure.port), TIMEOUT_S):
        secure.stop()


def test_plain_mock_says_so_to_a_dispenser_with_tls(mock: Mock, site: Site) -> None:
    with (
        socket.create_connection(("127.0.0.1", mock.port), TIMEOUT_S) as plain,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        site.dispenser().wrap_socket(plain)
    reason = "Modbus protocol error: looks like TLS; start the mock with CERT_DIR, or the dispenser without TLS"
    assert mock.wait("disconnected")["reason"] == reason
    good = Dispenser(mock)
    good.requests_until(0x2011)
    good.socket.close()


def test_files_that_are_missing_are_one_line_each_and_exit_code_2(tmp_path: Path) -> None:
    command = [*COMMAND, "--interface", "udp:0", "--port", "0", str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        [name, str(tmp_path / name)] for name in ("dispenser_ca.crt.pem", "psu.crt.pem", "psu.key.pem")
    ]


def test_garbage_never_raises_anything_else(site: Site) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(site.directory / "psu.crt.pem"), str(site.directory / "psu.key.pem"))
    for first in range(256):
        session = TlsSession(context)
        try:
            session.receive(bytes((first,)) + b"\x03\x01\x00\x10" + bytes(range(64)))
        except TlsRefusedError as error:
            assert "\n" not in str(error)  # noqa: PT017


def test_what_is_to_be_sent_on_a_connection_that_was_just_dropped_is_not(
    start: Callable[..., Mock], site: Site, tmp_path: Path
) -> None:
    path = tmp_path / "scenario.toml"
    path.write_text(
        "".join(f"[[step]]\nat = 0.1\n{what}\n" for what in ('do = "drop"', 'do = "send"\nhex = "00"'))
    )
    mock = start(str(site.directory), SCENARIO=str(path))
    dispenser = Dispenser(mock, site.dispenser())
    steps = [mock.wait("step")["do"], mock.wait("step")["do"]]
    assert steps == ["drop", "send"]
    dispenser.socket.close()
    assert "Traceback" not in mock.stop()
