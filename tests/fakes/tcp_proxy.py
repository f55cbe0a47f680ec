"""A TCP proxy that can cut what goes through it, as a pulled cable with a reset would."""

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Self


class TcpProxy:
    """Listens on `port` and passes everything on to `target_port`, both on 127.0.0.1.

    `refuses` sees the first bytes of each connection; True closes it at once, without an answer.
    """

    def __init__(self, target_port: int, refuses: Callable[[bytes], bool] = lambda _first: False) -> None:
        self._target_port = target_port
        self._refuses = refuses
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.connections = 0
        """Accepted so far."""
        self._open = threading.Event()
        self._open.set()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """Closes all connections, and every new one too until restore()."""
        self._open.clear()
        with self._lock:
            for pair in self._pairs:
                for side in pair:
                    with contextlib.suppress(OSError):
                        side.shutdown(socket.SHUT_RDWR)
            self._pairs.clear()

    def restore(self) -> None:
        """New connections pass again."""
        self._open.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            self.connections += 1
            if not self._open.is_set():
                client.close()
                continue
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            first = client.recv(65536)
            if self._refuses(first):
                return
            with socket.create_connection(("127.0.0.1", self._target_port)) as target:
                for side in (client, target):
                    side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._lock:
                    self._pairs.append((client, target))
                target.sendall(first)
                back = threading.Thread(target=_pump, args=(target, client), daemon=True)
                back.start()
                _pump(client, target)
                back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
