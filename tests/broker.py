"""A real mosquitto for tests: on a free port, with a given configuration; killed, stopped, restarted."""

import contextlib
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

from requirements import require_program

START_TIMEOUT_S = 5.0


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait_until_accepting(
    port: int, process: "subprocess.Popen[bytes]", timeout_s: float = START_TIMEOUT_S
) -> None:
    """Until `process` accepts connections on `port`. A listening socket tells no one: it has to be tried."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except ConnectionRefusedError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
        time.sleep(0.005)


class Mosquitto:
    """mosquitto on `port`. `settings` are further lines of mosquitto.conf."""

    def __init__(self, directory: Path, settings: str = "allow_anonymous true") -> None:
        self.port = free_port()
        self._program = require_program("mosquitto")
        self._process: subprocess.Popen[bytes] | None = None
        self._config = directory / "mosquitto.conf"
        # user root: started by root it would become another user, who cannot read the test's files.
        self._config.write_text(
            f"listener {self.port} 127.0.0.1\nset_tcp_nodelay true\nuser root\n{settings}\n"
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.kill()

    def start(self) -> None:
        """Returns when it accepts. After kill() it is a new broker on the same port, which knows no session."""
        self._process = subprocess.Popen(
            [self._program, "-c", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until_accepting(self.port, self._process)

    def kill(self) -> None:
        """SIGKILL; its sockets close."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @contextlib.contextmanager
    def stopped(self):
        """SIGSTOP while in the block: its sockets stay open, and it answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)
