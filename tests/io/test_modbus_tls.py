"""The link over TLS: real handshakes, between the link and a test that is the PSU."""

import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes.link_bench import TIMEOUT_S, Bench, Psu
from fakes.pki import DAY, NOW, dispenser_files, make_folder, make_pem, psu_files, put
from fusioncharger.io.certificates import Algorithm
from fusioncharger.io.modbus_connection import MAX_UNANSWERED
from fusioncharger.io.modbus_link import ModbusLink
from fusioncharger.io.modbus_psu_codec import ReadAnswer, Report
from fusioncharger.io.tls import client_context, server_context
from fusioncharger.messages.inputs import Input, PsuConnected, PsuConnectFailed, PsuDisconnected, RegistersRead
from fusioncharger.messages.outputs import (
    PsuConnectRequested,
    PsuDisconnectRequested,
    ReadAnswered,
    ReportSent,
    Segment,
)
from msgspec.structs import replace

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
REPORT = ReportSent(connection=1, transaction_id=0, segments=(Segment(0x110B, (1,)),))


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two sets that have nothing to do with each other, and one with RSA keys."""
    base = tmp_path_factory.mktemp("certificates")
    algorithms: dict[str, Algorithm] = {"ec": "ec", "other": "ec", "rsa": "rsa"}
    return {name: make_folder(base / name, algorithm) for name, algorithm in algorithms.items()}


@pytest.fixture
def folder(folders: dict[str, Path]) -> Path:
    return folders["ec"]


class TlsBench(Bench):
    """Both ends with the certificates of one folder, if nothing else is said."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.client = client_context(dispenser_files(folder))
        self.server = server_context(psu_files(folder))

    def use(self, version: ssl.TLSVersion) -> None:
        self.server.maximum_version = self.server.minimum_version = version

    def start_tls(self, hostname: str = "", handshake_timeout_s: float = TIMEOUT_S) -> ModbusLink:
        return self.start(tls=self.client, tls_hostname=hostname, handshake_timeout_s=handshake_timeout_s)

    def accept_tls(self) -> Psu:
        """The handshake from the PSU's side; ssl.SSLError."""
        psu = self.accept()
        secured = self.server.wrap_socket(
            psu.socket, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=False
        )
        psu.socket = secured
        secured.do_handshake()
        return psu

    def connected_tls(self, connection: int = 1) -> tuple[ModbusLink, Psu]:
        link = self.start_tls()
        link.handle(PsuConnectRequested(connection=connection))
        psu = self.accept_tls()
        assert self.next() == PsuConnected(connection=connection)
        return link, psu

    def failed(self, hostname: str = "") -> str:
        """A handshake that fails; the reason at our end, without the address."""
        self.start_tls(hostname).handle(PsuConnectRequested(connection=1))
        with contextlib.suppress(ssl.SSLError):
            self.accept_tls()
        return self.reason_of(self.next())

    def reason_of(self, failed: Input) -> str:
        assert isinstance(failed, PsuConnectFailed), failed
        address = f"127.0.0.1:{self.port}: "
        assert failed.reason.startswith(address)
        return failed.reason.removeprefix(address)

    def check_recovery(self, link: ModbusLink, connection: int = 2) -> None:
        """The next attempt works."""
        link.handle(PsuConnectRequested(connection=connection))
        psu = self.accept_tls()
        assert self.next() == PsuConnected(connection=connection)
        ask(self, link, psu)


@pytest.fixture
def bench(folder: Path) -> Iterator[TlsBench]:
    bench = TlsBench(folder)
    yield bench
    bench.close()


def answered(request: Input, *words: int) -> ReadAnswered:
    assert isinstance(request, RegistersRead)
    return ReadAnswered(
        connection=request.connection,
        transaction_id=request.transaction_id,
        unit_id=request.unit_id,
        words=words,
    )


def ask(bench: Bench, link: ModbusLink, psu: Psu, transaction_id: int = 7) -> None:
    psu.read(transaction_id)
    link.handle(answered(bench.next(), 4))
    assert psu.receive() == ReadAnswer(transaction_id, 0xFF, (4,))


# --- Modbus over TLS ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["ec", "rsa"])
@pytest.mark.parametrize("version", VERSIONS)
def test_requests_answers_and_reports(
    folders: dict[str, Path], algorithm: str, version: ssl.TLSVersion
) -> None:
    with contextlib.closing(TlsBench(folders[algorithm])) as bench:
        bench.use(version)
        link, psu = bench.connected_tls()
        assert isinstance(psu.socket, ssl.SSLSocket)
        certificate = psu.socket.getpeercert()
        assert certificate is not None
        assert certificate["subject"] == ((("commonName", "FusionCharge dispenser"),),)
        assert psu.socket.version() == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]
        for number in range(20):
            ask(bench, link, psu, number)
            link.handle(replace(REPORT, transaction_id=number))
            assert isinstance(psu.receive(), Report)


def test_options_of_the_socket(bench: TlsBench) -> None:
    link, _ = bench.connected_tls()
    connection = link._connection
    assert connection is not None
    options = (socket.TCP_NODELAY, socket.TCP_KEEPIDLE, socket.TCP_USER_TIMEOUT)
    assert [connection.socket.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [1, 5, 10_000]
    assert connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


@pytest.mark.parametrize("version", VERSIONS)
def test_large_bursts_one_way_and_the_other(bench: TlsBench, version: ssl.TLSVersion) -> None:
    """Several full records at once, and always more requests than the core may have."""
    bench.use(version)
    link, psu = bench.connected_tls()
    count = 4000
    psu.send(*(psu.codec.read(number, 0xFF, 0x1015, 1) for number in range(count)))
    for number in range(count):
        request = bench.next()
        assert isinstance(request, RegistersRead)
        assert request.transaction_id == number
        assert bench.inputs.qsize() < MAX_UNANSWERED
        link.handle(answered(request, *[number] * 100))
    for number in range(count):
        assert psu.receive() == ReadAnswer(number, 0xFF, (number,) * 100)


def test_sending_goes_on_where_the_socket_was_full(bench: TlsBench) -> None:
    bench.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    link, psu = bench.connected_tls()
    connection = link._connection
    assert connection is not None
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    count = 600  # about 120 KB: more than fits the sockets, and less than what makes the link give up
    for number in range(count):
        link.handle(ReportSent(connection=1, transaction_id=number, segments=(Segment(0, (number,) * 100),)))
    for number in range(count):
        report = psu.receive()
        assert isinstance(report, Report)
        assert report.devices[0].segments == (Segment(0, (number,) * 100),)


def test_psu_that_does_not_read_is_given_up(bench: TlsBench) -> None:
    link, psu = bench.connected_tls()
    bench.expect_given_up(link, psu)


class MemoryPsu:
    """A PSU that makes TLS's bytes in memory, so that the test says how they travel."""

    def __init__(self, bench: TlsBench, chunk_bytes: int) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = bench.server.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.psu = bench.accept()
        self.psu.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.chunk_bytes = chunk_bytes
        while True:
            try:
                self.tls.do_handshake()
                return  # its last bytes stay in `outgoing`
            except ssl.SSLWantReadError:
                self.travel()
                self.incoming.write(self.psu.socket.recv(65536))

    def travel(self) -> None:
        data = self.outgoing.read()
        for start in range(0, len(data), self.chunk_bytes):
            self.psu.socket.sendall(data[start : start + self.chunk_bytes])


@pytest.mark.parametrize("chunk_bytes", [1, 7, 1_000_000])
@pytest.mark.parametrize("version", VERSIONS)
def test_records_in_pieces_and_all_at_once(bench: TlsBench, version: ssl.TLSVersion, chunk_bytes: int) -> None:
    """With the largest piece, the end of the handshake and the first requests come together."""
    bench.use(version)
    bench.start_tls().handle(PsuConnectRequested(connection=1))
    peer = MemoryPsu(bench, chunk_bytes)
    for number in range(20):
        # Two requests in three records.
        adus = peer.psu.codec.read(2 * number, 0xFF, 1, 1) + peer.psu.codec.read(2 * number + 1, 0xFF, 2, 1)
        for part in adus[:5], adus[5:15], adus[15:]:
            peer.tls.write(part)
    peer.travel()
    assert bench.next() == PsuConnected(connection=1)
    for number in range(MAX_UNANSWERED):
        request = bench.next()
        assert isinstance(request, RegistersRead)
        assert (request.transaction_id, request.address) == (number, 1 + number % 2)


# --- certificates that do not please -----------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_psu_of_another_ca(bench: TlsBench, folders: dict[str, Path], version: ssl.TLSVersion) -> None:
    good = bench.server
    bench.server = server_context(
        replace(psu_files(folders["other"]), ca=str(folders["ec"] / "dispenser_ca.crt.pem"))
    )
    bench.use(version)
    assert bench.failed() == (
        "the PSU's certificate is not accepted: unable to get local issuer certificate; psu_ca_cert has to be "
        "the CA that signed it"
    )
    bench.server = good
    bench.check_recovery(bench.links[0])


def _psu_certificate(bench: TlsBench, folder: Path, tmp_path: Path, begins: float, ends: float) -> None:
    """A PSU certificate of the right CA with other dates, in days from now."""
    issuer = (folder / "psu_ca.crt.pem").read_bytes(), (folder / "psu_ca.key.pem").read_bytes()
    pem, key = make_pem(
        begins=NOW + begins * DAY, ends=NOW + ends * DAY, issuer=issuer, hosts=("psu.local", "other.local")
    )
    # Not by server_context, which would refuse the dates.
    bench.server.load_cert_chain(put(tmp_path / "crt", pem), put(tmp_path / "key", key))


@pytest.mark.parametrize(
    ("begins", "ends", "said"),
    [(-9, -1, "certificate has expired"), (1, 9, "certificate is not yet valid")],
)
def test_dates_of_the_psus_certificate(
    bench: TlsBench, folder: Path, tmp_path: Path, begins: int, ends: int, said: str
) -> None:
    _psu_certificate(bench, folder, tmp_path, begins, ends)
    assert bench.failed() == (
        f"the PSU's certificate is not accepted: {said}; renew it, or set this machine's clock"
    )


def test_self_signed_psu(bench: TlsBench, tmp_path: Path) -> None:
    pem, key = make_pem()
    bench.server.load_cert_chain(put(tmp_path / "crt", pem), put(tmp_path / "key", key))
    assert bench.failed().startswith(
        "the PSU's certificate is not accepted: self-signed certificate; psu_ca_cert"
    )


def test_field_certificate_without_newer_extensions(bench: TlsBench, folder: Path, tmp_path: Path) -> None:
    _psu_certificate(bench, folder, tmp_path, -1, 9)
    link, psu = bench.connected_tls()
    ask(bench, link, psu)


def test_intermediate_ca_alone_is_trusted(bench: TlsBench, folder: Path, tmp_path: Path) -> None:
    root = make_pem(is_ca=True, name="root")
    between = make_pem(is_ca=True, name="between", issuer=root)
    leaf, key = make_pem(issuer=between)
    bench.server.load_cert_chain(put(tmp_path / "crt", leaf + between[0]), put(tmp_path / "key", key))
    bench.client = client_context(replace(dispenser_files(folder), ca=put(tmp_path / "ca", between[0])))
    bench.connected_tls()


def test_hostname_is_pinned_only_if_asked_for(bench: TlsBench, folder: Path, tmp_path: Path) -> None:
    _psu_certificate(bench, folder, tmp_path, -1, 9)
    bench.client = client_context(dispenser_files(folder), hostname="third.local")
    assert bench.failed(hostname="third.local") == (
        "the PSU's certificate is not accepted: Hostname mismatch, certificate is not valid for 'third.local'; "
        "psu_cert_hostname has to be a name in it"
    )
    bench.client = client_context(dispenser_files(folder), hostname="other.local")
    bench.start_tls(hostname="other.local").handle(PsuConnectRequested(connection=2))
    bench.accept_tls()
    assert bench.next() == PsuConnected(connection=2)


def test_hostname_may_be_an_address(folder: Path, tmp_path: Path) -> None:
    with contextlib.closing(TlsBench(make_folder(tmp_path / "ip", hostname="10.1.2.3"))) as bench:
        for connection, hostname in enumerate(("10.1.2.4", "10.1.2.3"), 1):
            bench.client.check_hostname = True
            bench.start_tls(hostname).handle(PsuConnectRequested(connection=connection))
            with contextlib.suppress(ssl.SSLError):
                bench.accept_tls()
            if connection == 1:
                assert "psu_cert_hostname has to be an address in it" in bench.reason_of(bench.next())
        assert bench.next() == PsuConnected(connection=2)


def _refused(bench: TlsBench, version: ssl.TLSVersion) -> str:
    """What the core gets when the PSU does not accept our certificate."""
    bench.use(version)
    link = bench.start_tls()
    link.handle(PsuConnectRequested(connection=1))
    with pytest.raises(ssl.SSLError):
        bench.accept_tls()
    if version is ssl.TLSVersion.TLSv1_2:
        return bench.reason_of(bench.next())
    assert bench.next() == PsuConnected(connection=1)
    bench.psus[-1].socket.close()
    lost = bench.next()
    assert isinstance(lost, PsuDisconnected)
    return lost.reason


@pytest.mark.parametrize("version", VERSIONS)
def test_dispenser_of_another_ca(bench: TlsBench, folders: dict[str, Path], version: ssl.TLSVersion) -> None:
    bench.client = client_context(
        replace(dispenser_files(folders["other"]), ca=str(folders["ec"] / "psu_ca.crt.pem"))
    )
    assert _refused(bench, version) == (
        "the PSU refused our certificate: unknown ca (the PSU needs the CA that signed client_cert)"
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_dispenser_without_a_certificate(bench: TlsBench, folder: Path, version: ssl.TLSVersion) -> None:
    bench.client = ssl.create_default_context(cafile=str(folder / "psu_ca.crt.pem"))
    bench.client.check_hostname = False
    expected = {
        ssl.TLSVersion.TLSv1_2: "the PSU refused the TLS handshake: handshake failure",
        ssl.TLSVersion.TLSv1_3: "the PSU refused our certificate: certificate required (it has seen none)",
    }
    assert _refused(bench, version) == expected[version]


@pytest.mark.parametrize("version", VERSIONS)
def test_psus_certificate_as_ours(bench: TlsBench, folder: Path, version: ssl.TLSVersion) -> None:
    bench.server.load_verify_locations(folder / "psu_ca.crt.pem")
    bench.client.load_cert_chain(folder / "psu.crt.pem", folder / "psu.key.pem")
    assert _refused(bench, version) == (
        "the PSU refused our certificate: unsupported certificate (is it the dispenser's, made for a TLS "
        "client?)"
    )


def test_psu_that_parts_after_the_handshake_without_a_word(bench: TlsBench) -> None:
    _, psu = bench.connected_tls()
    psu.socket.close()
    reason = "closed by the PSU right after the TLS handshake; it may not accept our certificate"
    assert bench.next() == PsuDisconnected(connection=1, reason=reason)


def test_tls_versions_that_are_too_old(bench: TlsBench) -> None:
    # No protocol version in common, as with a PSU that only speaks TLS 1.1.
    bench.client.minimum_version = ssl.TLSVersion.TLSv1_3
    bench.use(ssl.TLSVersion.TLSv1_2)
    assert bench.failed() == "the PSU refused the TLS handshake: protocol version"


# --- peers that do not speak TLS ---------------------------------------------------------------------------


NO_TLS = "the PSU does not speak TLS (tls_enabled = true)"
CLOSED = "the PSU closed the connection instead of a TLS handshake; it may not speak TLS (tls_enabled = true)"


@pytest.mark.parametrize(
    ("misbehave", "reason"),
    [
        (lambda psu: psu.read(1), NO_TLS),
        (lambda psu: psu.send(b"\x16\x03\x03\xff\xff"), "TLS failure: "),
        (lambda psu: psu.send(b"HTTP/1.0 400 Bad Request\r\n\r\n"), NO_TLS),
        (lambda psu: psu.socket.recv(65536), CLOSED),
        (lambda psu: (psu.socket.recv(65536), psu.reset()), CLOSED),
        (lambda psu: psu.reset(), CLOSED),
    ],
    ids=["request", "length", "http", "close", "reset", "reset-first"],
)
def test_peer_without_tls(bench: TlsBench, misbehave: Callable[[Psu], object], reason: str) -> None:
    link = bench.start_tls()
    link.handle(PsuConnectRequested(connection=1))
    psu = bench.accept()
    misbehave(psu)
    with contextlib.suppress(OSError):
        psu.socket.shutdown(socket.SHUT_WR)
    said = bench.reason_of(bench.next())
    assert said.startswith(reason), said
    bench.check_recovery(link)


@pytest.mark.parametrize("transaction_id", [0, 1, 0x1503, 0x1501, 0xFFFF])
def test_first_request_of_a_plain_psu(bench: TlsBench, transaction_id: int) -> None:
    link = bench.start_tls()
    link.handle(PsuConnectRequested(connection=1))
    bench.accept().read(transaction_id)
    assert bench.reason_of(bench.next()) == NO_TLS


def test_end_amid_the_handshake(bench: TlsBench) -> None:
    bench.server.set_ciphers("ECDHE+AESGCM")
    bench.use(ssl.TLSVersion.TLSv1_2)
    link = bench.start_tls()
    link.handle(PsuConnectRequested(connection=1))
    psu = bench.accept()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = bench.server.wrap_bio(incoming, outgoing, server_side=True)
    incoming.write(psu.socket.recv(65536))
    with pytest.raises(ssl.SSLWantReadError):
        server.do_handshake()
    psu.send(outgoing.read())
    assert psu.socket.recv(65536).startswith(b"\x16\x03")  # our certificate, and it does not please
    psu.socket.close()
    reason = "the PSU ended the TLS handshake without a reason; it may not accept our certificate"
    assert bench.reason_of(bench.next()) == reason


def test_silent_peer(bench: TlsBench) -> None:
    link = bench.start_tls(handshake_timeout_s=0.05)
    link.handle(PsuConnectRequested(connection=1))
    bench.accept()
    assert bench.reason_of(bench.next()) == (
        "no TLS handshake in 0.05 s: the PSU says nothing; it may not speak TLS (tls_enabled = true)"
    )
    link.close()
    bench.check_recovery(bench.start_tls())


def test_peer_that_stalls_in_the_handshake(bench: TlsBench) -> None:
    link = bench.start_tls(handshake_timeout_s=0.1)
    link.handle(PsuConnectRequested(connection=1))
    psu = bench.accept()
    psu.send(b"\x16\x03\x03\x10\x00\x02")
    assert bench.reason_of(bench.next()) == "no TLS handshake in 0.1 s"
    psu.expect_end()


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x03\x10\x00\x02"])
def test_stalled_handshake_blocks_neither_disconnect_nor_close(bench: TlsBench, said: bytes) -> None:
    link = bench.start_tls(handshake_timeout_s=60)
    link.handle(PsuConnectRequested(connection=1))
    psu = bench.accept()
    psu.send(said)
    assert psu.socket.recv(65536).startswith(b"\x16\x03")  # the link waits for our answer to it
    link.handle(PsuDisconnectRequested(connection=1, reason="liveness"))
    psu.expect_end()
    link.handle(PsuConnectRequested(connection=2))
    stalled = bench.accept()
    assert stalled.socket.recv(65536).startswith(b"\x16\x03")
    began_s = time.monotonic()
    link.close()
    assert time.monotonic() - began_s < 1.0
    assert not link.is_alive()
    stalled.expect_end()
    assert bench.inputs.empty()


def test_plain_link_and_a_psu_with_tls(bench: TlsBench) -> None:
    link = bench.start()
    link.handle(PsuConnectRequested(connection=1))
    psu = bench.accept()
    assert bench.next() == PsuConnected(connection=1)
    link.handle(REPORT)
    with pytest.raises(ssl.SSLError):
        bench.server.wrap_socket(psu.socket, server_side=True)
    lost = bench.next()
    assert isinstance(lost, PsuDisconnected)
    # OpenSSL 3.0 closes without an alert if the first bytes are not TLS at all.
    assert "want" in lost.reason
    assert "TLS" in lost.reason
    assert "tls_enabled = false" in lost.reason


@pytest.mark.parametrize(
    "pieces", [(b"\x15\x03\x03\x00\x02\x02\x46",), (b"\x15", b"\x03\x01\x00\x02", b"\x02\x46")]
)
def test_plain_link_and_an_alert(bench: TlsBench, pieces: tuple[bytes, ...]) -> None:
    _, psu = bench.connected()
    for piece in pieces:
        psu.send(piece)
    reason = "the PSU wants TLS (tls_enabled = false): it sent a TLS alert"
    assert bench.next() == PsuDisconnected(connection=1, reason=reason)


# --- the end of a connection -------------------------------------------------------------------------------


def test_close_says_goodbye_after_what_was_handed_over(bench: TlsBench) -> None:
    link, psu = bench.connected_tls()
    link.handle(REPORT)
    link.close()
    assert isinstance(psu.receive(), Report)
    assert psu.socket.recv(1) == b""  # close_notify; without it this would be an SSLEOFError


def test_close_does_not_wait_for_a_psu_that_does_not_read(bench: TlsBench) -> None:
    link, psu = bench.connected_tls()
    psu.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection = link._connection
    assert connection is not None
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    for number in range(1000):
        link.handle(ReportSent(connection=1, transaction_id=number, segments=(Segment(0, (0,) * 100),)))
    began_s = time.monotonic()
    link.close()
    assert time.monotonic() - began_s < 1.0
    assert not link.is_alive()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (lambda psu: psu.socket.unwrap(), "closed by the PSU"),
        (lambda psu: psu.socket.shutdown(socket.SHUT_WR), "closed by the PSU"),
        (lambda psu: psu.reset(), "Connection reset by peer"),
        (lambda psu: socket.socket.send(psu.socket, b"garbage"), "TLS failure: wrong version number"),
        (
            lambda psu: psu.send(b"\0\1\0\2\0\6"),
            "Modbus protocol error: protocol id is not 0 in the MBAP header",
        ),
    ],
    ids=["close_notify", "ragged", "reset", "garbage", "protocol"],
)
def test_reasons_of_an_end(
    bench: TlsBench, version: ssl.TLSVersion, part: Callable[[Psu], object], reason: str
) -> None:
    bench.use(version)
    link, psu = bench.connected_tls()
    ask(bench, link, psu)
    psu.socket.settimeout(0.05)  # unwrap waits for the answer
    with contextlib.suppress(OSError):
        part(psu)
    lost = bench.next()
    assert isinstance(lost, PsuDisconnected)
    assert lost.reason.startswith(reason)
    bench.check_recovery(link)


def test_reasons_are_the_same_each_time(bench: TlsBench, folders: dict[str, Path]) -> None:
    bench.server = server_context(psu_files(folders["other"]))
    link = bench.start_tls()
    reasons = set()
    for connection in range(1, 4):
        link.handle(PsuConnectRequested(connection=connection))
        with contextlib.suppress(ssl.SSLError):
            bench.accept_tls()
        reasons.add(bench.reason_of(bench.next()))
    assert len(reasons) == 1
