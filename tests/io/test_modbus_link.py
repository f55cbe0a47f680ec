"""The link over real TCP sockets: the test is the PSU, and the core is a queue."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from fakes.link_bench import Bench
from fusioncharger.io.modbus_connection import (
    INTERVAL_S,
    MAX_PER_INTERVAL,
    MAX_UNANSWERED,
    MAX_UNEXPECTED,
)
from fusioncharger.io.modbus_link import ModbusLink
from fusioncharger.io.modbus_psu_codec import ExceptionAnswer, ReadAnswer, Report, WriteAnswer
from fusioncharger.messages.inputs import (
    HmacKeyReceived,
    Input,
    ModbusRequestRefused,
    PsuConnected,
    PsuConnectFailed,
    PsuDisconnected,
    RegistersRead,
    RegistersWritten,
    UnexpectedPduReceived,
)
from fusioncharger.messages.outputs import (
    ExceptionAnswered,
    PsuConnectRequested,
    PsuDisconnectRequested,
    ReadAnswered,
    ReportSent,
    Segment,
    WriteAnswered,
)

KEY = bytes(range(1, 49))
KEY_WORDS = tuple(int.from_bytes(KEY[n : n + 2], "big") for n in range(0, 48, 2))


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
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


REPORT = ReportSent(connection=1, transaction_id=0, segments=(Segment(0x110B, (1,)),))


# --- requests and answers ----------------------------------------------------------------------------------


def test_request_comes_as_input_and_the_answer_goes_out(bench: Bench) -> None:
    link, psu = bench.connected()
    psu.read(5)
    request = bench.next()
    adu = bytes.fromhex("000500000006ff0310150001")
    assert request == RegistersRead(
        connection=1, transaction_id=5, unit_id=0xFF, address=0x1015, count=1, adu=adu
    )
    link.handle(answered(request, 4))
    assert psu.receive() == ReadAnswer(5, 0xFF, (4,))


def test_host_may_be_a_name(bench: Bench) -> None:
    _, psu = bench.connected(host="localhost")
    psu.read(1)
    assert isinstance(bench.next(), RegistersRead)


def test_single_and_multiple_writes(bench: Bench) -> None:
    link, psu = bench.connected()
    psu.send(psu.codec.write_single(1, 0xFF, 0x2006, 1), psu.codec.write(2, 0, 0x2111, (1, 2, 3)))
    single, multiple = bench.next(), bench.next()
    assert isinstance(single, RegistersWritten)
    assert (single.function, single.address, single.words) == (0x06, 0x2006, (1,))
    assert isinstance(multiple, RegistersWritten)
    assert (multiple.function, multiple.unit_id, multiple.words) == (0x10, 0, (1, 2, 3))
    for written, value in (single, 1), (multiple, 3):
        link.handle(
            WriteAnswered(
                connection=1,
                transaction_id=written.transaction_id,
                unit_id=written.unit_id,
                function=written.function,
                address=written.address,
                value=value,
            )
        )
    assert psu.receive() == WriteAnswer(1, 0xFF, 0x06, 0x2006, 1)
    assert psu.receive() == WriteAnswer(2, 0, 0x10, 0x2111, 3)


def test_report_goes_out(bench: Bench) -> None:
    link, psu = bench.connected()
    link.handle(REPORT)
    report = psu.receive()
    assert isinstance(report, Report)
    assert report.devices[0].segments == REPORT.segments


def test_refused_request_is_told_and_answered(bench: Bench) -> None:
    link, psu = bench.connected()
    psu.send(bytes.fromhex("000900000003ff0410"))
    assert bench.next() == ModbusRequestRefused(
        connection=1,
        transaction_id=9,
        unit_id=0xFF,
        function=0x04,
        exception_code=1,
        reason="unknown function 0x04",
        adu=bytes.fromhex("000900000003ff0410"),
    )
    link.handle(ExceptionAnswered(connection=1, transaction_id=9, unit_id=0xFF, function=4, exception_code=1))
    assert psu.receive() == ExceptionAnswer(9, 0xFF, 0x04, 1)


def test_unexpected_pdu_is_told(bench: Bench) -> None:
    _, psu = bench.connected()
    adu = bytes.fromhex("000000000003ff4191")
    psu.send(adu)
    assert bench.next() == UnexpectedPduReceived(connection=1, function=0x41, adu=adu)


# --- keys --------------------------------------------------------------------------------------------------


def test_key_is_masked_and_told_right_after_its_write(bench: Bench) -> None:
    _, psu = bench.connected()
    psu.send(psu.codec.write(1, 0xFF, 0x2115, KEY_WORDS))
    written, received = bench.next(), bench.next()
    assert isinstance(written, RegistersWritten)
    assert written.words == (0,) * 24
    assert written.adu == bytes.fromhex("000100000037ff1021150018 30") + bytes(48)
    assert received == HmacKeyReceived(connection=1, connector=1)
    assert bench.key_ring.signing_key(1) == KEY


def test_single_write_of_a_key_word_is_masked_too(bench: Bench) -> None:
    _, psu = bench.connected()
    psu.send(psu.codec.write_single(1, 0xFF, 0x2D15, 0x1234))
    written = bench.next()
    assert isinstance(written, RegistersWritten)
    assert (written.words, written.adu) == ((0,), bytes.fromhex("000100000006ff062d150000"))
    assert bench.next() == HmacKeyReceived(connection=1, connector=2)


@pytest.mark.parametrize("function", [0x10, 0x17, 0x90])
def test_key_in_a_pdu_that_is_not_understood_is_hidden(bench: Bench, function: int) -> None:
    _, psu = bench.connected()
    # Byte count 1 too large for a write, and no layout at all for the others.
    pdu = bytes((function,)) + bytes.fromhex("2115 0018 31") + KEY
    psu.send(b"\0\1\0\0" + (len(pdu) + 1).to_bytes(2, "big") + b"\xff" + pdu)
    told = bench.next()
    assert isinstance(told, ModbusRequestRefused | UnexpectedPduReceived)
    assert len(told.adu) == len(pdu) + 7
    assert told.adu[:10] == b"\0\1\0\0\0\x37\xff" + pdu[:3]
    assert told.adu[10:] == bytes(len(told.adu) - 10)


# --- many requests -----------------------------------------------------------------------------------------


def test_core_never_has_more_than_the_limit_of_requests(bench: Bench) -> None:
    link, psu = bench.connected()
    count = 10 * MAX_UNANSWERED
    # One write: most of these requests are in the link's buffer when the limit is reached.
    psu.send(*(psu.codec.read(number, 0xFF, 0x1015, 1) for number in range(count)))
    unanswered = [bench.next() for _ in range(MAX_UNANSWERED)]
    link.handle(REPORT)
    assert isinstance(psu.receive(), Report)  # the link did its work up to here, so no request is on its way
    assert bench.inputs.empty()
    for number in range(count):
        link.handle(answered(unanswered.pop(0), 4))
        assert psu.receive() == ReadAnswer(number, 0xFF, (4,))
        if number + MAX_UNANSWERED < count:
            unanswered.append(bench.next())
            assert bench.inputs.empty()


def test_backpressure_reaches_the_psu(bench: Bench) -> None:
    _, psu = bench.connected()
    request = psu.codec.read(1, 0xFF, 0x1015, 1)
    psu.socket.settimeout(0.2)
    with pytest.raises(TimeoutError):
        psu.socket.sendall(request * 2_000_000)
    assert bench.inputs.qsize() == MAX_UNANSWERED


def test_a_psu_that_asks_without_a_pause_is_slowed_down(bench: Bench) -> None:
    link, psu = bench.connected()
    count = 10 * MAX_PER_INTERVAL
    psu.send(*(psu.codec.read(number, 0xFF, 0x1015, 1) for number in range(count)))
    begin_s = time.monotonic()
    for _ in range(count):
        link.handle(answered(bench.next(), 4))
    taken_s = time.monotonic() - begin_s
    # The first interval may have begun before the first request.
    assert taken_s > (count / MAX_PER_INTERVAL - 2) * INTERVAL_S
    assert [psu.receive() for _ in range(count)] == [ReadAnswer(n, 0xFF, (4,)) for n in range(count)]


def test_pdus_without_an_answer_are_taken_slowly(bench: Bench) -> None:
    link, psu = bench.connected()
    adu = bytes.fromhex("000000000002ff41")
    psu.send(*[adu] * (MAX_UNEXPECTED + 1))
    for _ in range(MAX_UNEXPECTED):
        bench.next()
    link.handle(REPORT)
    psu.receive()
    assert bench.inputs.empty()
    assert bench.next() == UnexpectedPduReceived(connection=1, function=0x41, adu=adu)  # a second later


def test_psu_that_does_not_read_is_given_up(bench: Bench) -> None:
    link, psu = bench.connected()
    bench.expect_given_up(link, psu)


# --- the end of a connection -------------------------------------------------------------------------------


def test_protocol_error_ends_the_connection_after_what_came_before(bench: Bench) -> None:
    _, psu = bench.connected()
    psu.send(psu.codec.read(1, 0xFF, 0x1015, 1), b"\0\1\0\2\0\6")
    assert isinstance(bench.next(), RegistersRead)
    assert bench.next() == PsuDisconnected(
        connection=1,
        reason="Modbus protocol error: protocol id is not 0 in the MBAP header at byte 12 of the stream",
    )
    psu.expect_end()


def test_end_of_stream_is_told(bench: Bench) -> None:
    _, psu = bench.connected()
    psu.read(1)
    bench.next()
    psu.socket.close()
    assert bench.next() == PsuDisconnected(connection=1, reason="closed by the PSU")


def test_psu_that_parts_without_a_request_may_want_tls(bench: Bench) -> None:
    _, psu = bench.connected()
    psu.socket.close()
    reason = "closed by the PSU before its first request; it may want TLS (tls_enabled = false)"
    assert bench.next() == PsuDisconnected(connection=1, reason=reason)


def test_reset_is_told(bench: Bench) -> None:
    _, psu = bench.connected()
    psu.read(1)
    bench.next()
    psu.reset()
    assert bench.next() == PsuDisconnected(connection=1, reason="Connection reset by peer")


def test_disconnect_on_request_is_not_told(bench: Bench) -> None:
    link, psu = bench.connected()
    link.handle(REPORT)
    link.handle(PsuDisconnectRequested(connection=1, reason="liveness timeout"))
    assert isinstance(psu.receive(), Report)
    psu.expect_end()
    link.handle(PsuConnectRequested(connection=2))
    bench.accept()
    assert bench.next() == PsuConnected(connection=2)


def test_outputs_of_a_former_connection_are_ignored(bench: Bench) -> None:
    link, psu = bench.connected()
    psu.read(1)
    request = bench.next()
    psu.socket.close()
    assert isinstance(bench.next(), PsuDisconnected)
    link.handle(answered(request, 1))  # while there is no connection
    link.handle(PsuConnectRequested(connection=2))
    psu = bench.accept()
    assert bench.next() == PsuConnected(connection=2)
    link.handle(answered(request, 1))
    link.handle(PsuDisconnectRequested(connection=1, reason="late"))
    psu.read(2)
    link.handle(answered(bench.next(), 2))
    assert psu.receive() == ReadAnswer(2, 0xFF, (2,))


def test_close_sends_what_was_handed_over(bench: Bench) -> None:
    link, psu = bench.connected()
    link.handle(REPORT)
    link.close()
    assert isinstance(psu.receive(), Report)
    psu.expect_end()
    assert bench.inputs.empty()
    link.handle(REPORT)  # a late turn of the core


def test_link_that_never_started_can_be_closed(bench: Bench) -> None:
    link = ModbusLink(host="127.0.0.1", port=1, key_ring=bench.key_ring, sink=bench.inputs.put)
    link.close()
    assert not link.is_alive()


# --- connecting --------------------------------------------------------------------------------------------


def test_refused_connect_is_told_and_the_next_one_works(bench: Bench) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound but not listening: nobody else gets the port
        port = bound.getsockname()[1]
        link = bench.start(port=port)
        link.handle(PsuConnectRequested(connection=1))
        assert bench.next() == PsuConnectFailed(connection=1, reason=f"127.0.0.1:{port}: Connection refused")
        bound.listen()
        link.handle(PsuConnectRequested(connection=2))
        assert bench.next() == PsuConnected(connection=2)


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port that answers no SYN: its queue of connections that nobody accepts is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        waiting = []
        while True:
            client = socket.socket()
            client.settimeout(0.1)
            waiting.append(client)
            try:
                client.connect(listener.getsockname())
            except TimeoutError:
                break
        yield listener.getsockname()[1]
        for client in waiting:
            client.close()


@pytest.mark.parametrize(
    "useless",
    [
        (socket.AF_INET, ("127.0.0.1", 1)),  # refused, which shows later
        (socket.AF_INET, ("255.255.255.255", 1)),  # refused at once
        (12345, ("127.0.0.1", 1)),  # a family that the machine does not have
    ],
)
def test_every_address_of_a_host_is_tried(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, useless: tuple[int, tuple[str, int]]
) -> None:
    addresses = [useless, useless, (socket.AF_INET, ("127.0.0.1", bench.port))]
    rows = [(family, socket.SOCK_STREAM, 0, "", address) for family, address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: list(rows))
    link = bench.start("psu.example")
    link.handle(PsuConnectRequested(connection=1))
    assert bench.next() == PsuConnected(connection=1)
    del rows[2]
    link.handle(PsuConnectRequested(connection=2))
    failed = bench.next()
    assert isinstance(failed, PsuConnectFailed)
    assert failed.connection == 2


def test_connect_that_is_not_done_in_time_fails(bench: Bench, deaf_port: int) -> None:
    link = bench.start(port=deaf_port)
    link.handle(PsuConnectRequested(connection=1))
    assert bench.next() == PsuConnectFailed(connection=1, reason=f"127.0.0.1:{deaf_port}: no answer in 0.2 s")


def test_disconnect_request_ends_a_connect_that_is_not_done(bench: Bench, deaf_port: int) -> None:
    link = bench.start(port=deaf_port)
    link.handle(PsuConnectRequested(connection=1))
    link.handle(PsuDisconnectRequested(connection=1, reason="shutdown"))
    link.handle(PsuConnectRequested(connection=2))
    failed = bench.next()
    assert isinstance(failed, PsuConnectFailed)
    assert failed.connection == 2


@pytest.mark.parametrize("host", ["host.invalid", "a..b", "x" * 300, "nul\0"])
def test_host_that_cannot_be_resolved_is_a_failed_connect(bench: Bench, host: str) -> None:
    link = bench.start(host=host)
    link.handle(PsuConnectRequested(connection=1))
    failed = bench.next()
    assert isinstance(failed, PsuConnectFailed)
    assert failed.reason.startswith(f"{host}:{bench.port}: ")
    assert link.is_alive()


def test_thread_ends_if_the_sink_raises(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    raised = []
    monkeypatch.setattr(threading, "excepthook", lambda arguments: raised.append(arguments.exc_value))
    failure = RuntimeError("queue full")

    def sink(_: Input) -> None:
        raise failure

    link = bench.start(sink=sink)
    link.handle(PsuConnectRequested(connection=1))
    bench.accept().expect_end()  # the connection ends with the thread
    link.close()
    assert raised == [failure]
