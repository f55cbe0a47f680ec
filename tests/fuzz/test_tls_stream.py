"""Modbus in TLS, the driver's end: whatever the cuts between records and segments, the requests that the core
gets are those of the bare stream (protocol.md §2.3)."""

import contextlib
import selectors
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.modbus_stream import decoded
from fusioncharger.io.modbus_codec import DispenserCodec, Request, UnexpectedPdu
from fusioncharger.io.modbus_connection import Connection, ConnectionLostError
from fusioncharger.messages.outputs import ExceptionAnswered
from fuzz.run import CORPUS
from fuzz.source import Source, cut
from fuzz.target_tls import CLIENT, SERVER
from hypothesis import given, settings
from hypothesis import strategies as st

TIMEOUT_S = 5.0


class TlsPsu:
    """The power unit's end, sans-IO, at the other end of a TCP connection."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            driver = socket.create_connection(listener.getsockname())
            self._socket, _ = listener.accept()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = SERVER.wrap_bio(self._incoming, self._outgoing, server_side=True)
        driver.settimeout(0)
        self.driver = CLIENT.wrap_socket(driver, do_handshake_on_connect=False)
        self._shake_hands()

    def _shake_hands(self) -> None:
        ends = [self.driver.do_handshake, self._tls.do_handshake]
        while ends:
            for end in tuple(ends):
                with contextlib.suppress(ssl.SSLWantReadError):
                    end()
                    ends.remove(end)
                self._socket.sendall(self._outgoing.read())
                self._socket.settimeout(0.01)
                with contextlib.suppress(TimeoutError):
                    self._incoming.write(self._socket.recv(65536))

    def records(self, parts: list[bytes]) -> bytes:
        """Each part as a TLS record of its own."""
        for part in parts:
            if part:
                self._tls.write(part)
        return self._outgoing.read()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def close(self) -> None:
        self._socket.close()
        self.driver.close()


@pytest.fixture(scope="module")
def psu() -> Iterator[TlsPsu]:
    made = TlsPsu()
    yield made
    made.close()


def received(psu: TlsPsu, pieces: list[bytes], stream_bytes: int) -> tuple[list[Request], str]:
    """What the driver's end makes of these pieces of TLS, which hold so many bytes; why it ends, if it does."""
    connection = Connection(psu.driver, 1)
    selector = selectors.DefaultSelector()
    selector.register(psu.driver, selectors.EVENT_READ)
    requests: list[Request] = []
    taken, error = 0, ""
    take = connection._codec.receive

    def counted(data: bytes) -> None:
        nonlocal taken
        taken += len(data)
        take(data)

    connection._codec.receive = counted  # type: ignore[method-assign]
    now_s = 0.0
    for number, piece in enumerate(pieces):
        psu.send(piece)
        is_last = number == len(pieces) - 1
        while selector.select(TIMEOUT_S if is_last and taken < stream_bytes else 0):
            connection.receive(selectors.EVENT_READ)
            while not error:
                now_s += 1.0  # no more than MAX_UNEXPECTED are taken in a second
                try:
                    request = connection.next_request(now_s)
                except ConnectionLostError as lost:
                    error = str(lost)
                    connection._unanswered = 0  # so that the rest is read away, for the next example
                    break
                if request is None:
                    break
                requests.append(request)
                if not isinstance(request, UnexpectedPdu):
                    connection.put(ExceptionAnswered(1, request.transaction_id, request.unit_id, 3, 4))
            if is_last and taken >= stream_bytes:
                break
    assert taken == stream_bytes
    return requests, error


INPUTS = sorted((CORPUS / "modbus").iterdir())


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(INPUTS), st.binary(min_size=9, max_size=9), st.binary(min_size=9, max_size=9))
def test_cuts_between_records_and_segments_make_no_difference(
    psu: TlsPsu, path: Path, records: bytes, segments: bytes
) -> None:
    stream = path.read_bytes()[9:]
    expected, why = decoded(DispenserCodec(), [stream])
    pieces = cut(psu.records(cut(stream, Source(records))), Source(segments))
    requests, error = received(psu, [piece for piece in pieces if piece], len(stream))
    assert requests == expected
    assert error == (f"Modbus protocol error: {why}" if why else "")
