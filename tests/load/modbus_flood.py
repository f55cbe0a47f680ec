"""A PSU that asks as fast as it can: a proxy between driver and mock, which puts reads of its own among the
mock's requests, and keeps their answers. `modbus_flood.py MOCK_PORT`

    driver ◄── requests of the mock, whole, and WINDOW reads that are always waiting for an answer ── mock

Prints its port. From a line on standard input until the next it floods; then it prints how many answers came.
"""

import contextlib
import select
import socket
import struct
import sys

WINDOW = 32
"""As many as the driver takes before it has answered."""
FIRST_OF_OURS = 0x8000
"""The mock's transaction ids count from 1."""
READ_OF_20 = struct.pack(">BBHH", 0xFF, 0x03, 0x1100, 20)


class Stream:
    """Cuts whole ADUs out of a socket's bytes."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self._rest = b""

    def read(self) -> list[bytes] | None:
        """None: the connection is closed."""
        data = self.socket.recv(1 << 18)
        if not data:
            return None
        data = self._rest + data
        adus, start = [], 0
        while len(data) - start >= 6:
            end = start + 6 + int.from_bytes(data[start + 4 : start + 6], "big")
            if end > len(data):
                break
            adus.append(data[start:end])
            start = end
        self._rest = data[start:]
        return adus


def serve(driver: Stream, mock: Stream) -> None:
    """One connection, as long as it stands."""
    flooding = False
    waiting = asked = answered = 0
    while True:
        if flooding and waiting < WINDOW:
            requests = b""
            for _ in range(WINDOW - waiting):
                transaction_id = FIRST_OF_OURS + asked % FIRST_OF_OURS
                requests += struct.pack(">HHH", transaction_id, 0, len(READ_OF_20)) + READ_OF_20
                asked += 1
            waiting = WINDOW
            driver.socket.sendall(requests)
        for ready in select.select([driver.socket, mock.socket, sys.stdin], [], [])[0]:
            if ready is sys.stdin:
                if not sys.stdin.readline():
                    return
                flooding = not flooding
                if not flooding:
                    print(answered, flush=True)
            elif ready is mock.socket:
                adus = mock.read()
                if adus is None:
                    return
                driver.socket.sendall(b"".join(adus))
            else:
                adus = driver.read()
                if adus is None:
                    return
                theirs = [adu for adu in adus if adu[7] == 0x41 or adu[0] < FIRST_OF_OURS >> 8]
                waiting -= len(adus) - len(theirs)
                answered += len(adus) - len(theirs)
                mock.socket.sendall(b"".join(theirs))


def main() -> None:
    server = socket.create_server(("127.0.0.1", 0))
    print(server.getsockname()[1], flush=True)
    sides = [server.accept()[0], socket.create_connection(("127.0.0.1", int(sys.argv[1])))]
    for side in sides:
        side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with contextlib.suppress(ConnectionError):  # the driver has ended
        serve(*map(Stream, sides))


if __name__ == "__main__":
    main()
