"""Modbus requests one after another over loopback: the whole driver answers, journal on. This process is the
power unit: it waits for each answer before it asks again. Beside it a bare echo of as many bytes, by a Python
process that does nothing else."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from figures import Figure, spread

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from rig import rig

THEME = "Modbus over loopback"
REQUESTS = 10_000
WORDS = 20
ADDRESS = 0x1000
ANSWER_BYTES = 9 + 2 * WORDS
RATE_LIMIT = 4000.0

_ECHO = f"""
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
peer, _ = server.accept()
peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
while peer.recv(12):
    peer.sendall(bytes({ANSWER_BYTES}))
"""


def measure(directory: Path, *, quick: bool) -> list[Figure]:
    """The figures."""
    count = REQUESTS // 10 if quick else REQUESTS
    with _driver(directory) as peer:
        driver_us = _ask(peer, count)
    with _echo() as peer:
        echo_us = _ask(peer, count)
    return [
        Figure(
            theme=THEME,
            name=f"reads of {WORDS} registers, one after another (the driver takes 5 000/s at most)",
            unit="requests/s",
            values={"": count / sum(driver_us) * 1e6},
            at_least={"": RATE_LIMIT},
        ),
        spread(THEME, "request → answer", "us", driver_us),
        spread(THEME, "a bare echo", "us", echo_us),
    ]


def _ask(peer: socket.socket, count: int) -> list[float]:
    taken_us = []
    for number in range(count):
        request = (
            (number % 65536).to_bytes(2, "big") + bytes((0, 0, 0, 6, 1, 3)) + _word(ADDRESS) + _word(WORDS)
        )
        begin_ns = time.perf_counter_ns()
        peer.sendall(request)
        answer = b""
        while len(answer) < ANSWER_BYTES:  # a report, which the driver sends each second, is read over
            more = peer.recv(4096)
            assert more, "the connection is gone"
            answer = _answers(answer + more)
        taken_us.append((time.perf_counter_ns() - begin_ns) / 1000)
    return taken_us


def _answers(data: bytes) -> bytes:
    """What was received, without reports."""
    while len(data) >= 8 and data[7] == 0x41:
        data = data[6 + int.from_bytes(data[4:6], "big") :]
    return data


def _word(value: int) -> bytes:
    return value.to_bytes(2, "big")


@contextmanager
def _driver(directory: Path) -> Iterator[socket.socket]:
    with rig(directory) as system, socket.create_server(("127.0.0.1", 0)) as server:
        text = system.config.read_text()
        port = server.getsockname()[1]
        system.config.write_text(text.replace(f"psu_port = {system.mock_port}", f"psu_port = {port}"))
        system.launch_driver()
        server.settimeout(10)
        peer, _ = server.accept()
        system.driver.log.wait(lambda line: "recording" in line)
        with peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer.settimeout(10)
            yield peer


@contextmanager
def _echo() -> Iterator[socket.socket]:
    with subprocess.Popen([sys.executable, "-c", _ECHO], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with socket.create_connection(("127.0.0.1", port)) as peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield peer
