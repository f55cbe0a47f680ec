"""The processes of the demo, and what the power unit's event log says (`fusioncharger mock --events`)."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Event = dict[str, Any]
"""A line of the event log, as mock/event_log.py writes it."""

CERTIFICATES = "certificates"
"""Folder in the demo's output folder, with TLS."""
POLL_S = 0.01
TERMINATE_TIMEOUT_S = 5.0
_TAIL_LINES = 15


class Processes:
    """Python processes of this package; what they write to standard error goes to a file each."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *arguments: str) -> None:
        """Starts `python -m <arguments>`; `tell` writes to its standard input."""
        # Interrupted half-way, a process would run that nobody knows of, and so nobody ends.
        with uninterrupted(), self._log(name).open("wb") as log:
            self._running[name] = subprocess.Popen(  # noqa: S603 - our own programs
                [sys.executable, "-P", "-m", *arguments],
                stdin=subprocess.PIPE,
                bufsize=0,
                stdout=log,
                stderr=log,
                # A group of their own, so that Ctrl-C ends the demo, and the demo ends them in order.
                process_group=0,
            )

    def tell(self, name: str, line: str) -> None:
        """Writes a line to the process. If it has ended, what is expected of it will tell."""
        pipe = self._running[name].stdin
        if pipe is not None and not pipe.closed:
            with contextlib.suppress(BrokenPipeError):
                pipe.write(f"{line}\n".encode())

    def is_running(self, name: str) -> bool:
        """Whether it has not ended."""
        return self._running[name].poll() is None

    def terminate(self, name: str) -> int | None:
        """SIGTERM; the exit code, None if it had to be killed."""
        process = self._running[name]
        process.terminate()
        if process.stdin is not None:
            process.stdin.close()
        try:
            return process.wait(TERMINATE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return None

    def end_all(self) -> None:
        """Ends what still runs, the last started first."""
        for name in reversed(self._running):
            self.terminate(name)

    def log_tails(self) -> Iterator[tuple[Path, list[str]]]:
        """The last lines of every log file."""
        for name in self._running:
            path = self._log(name)
            yield path, path.read_text(errors="replace").splitlines()[-_TAIL_LINES:]

    def _log(self, name: str) -> Path:
        return self._directory / f"{name}.log"


class PsuView:
    """What the power unit saw. A line counts from `mark` on, so that nothing old fulfils an expectation."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._events: list[Event] = []

    def mark(self) -> int:
        """Now."""
        self._read()
        return len(self._events)

    def since(self, mark: int) -> list[Event]:
        """What happened after `mark`."""
        self._read()
        return self._events[mark:]

    def wait_for(self, matches: Callable[[Event], bool], mark: int, timeout_s: float) -> Event | None:
        """The first event after `mark` that matches; None if there was none in time."""
        deadline = time.monotonic() + timeout_s
        while True:
            found = next((event for event in self.since(mark) if matches(event)), None)
            if found is not None or time.monotonic() > deadline:
                return found
            time.sleep(POLL_S)

    def _read(self) -> None:
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self._offset)
            *lines, _unfinished = file.read().split(b"\n")
            self._offset += sum(len(line) + 1 for line in lines)
            self._events += [json.loads(line) for line in lines]


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """SIGINT and SIGTERM wait until the end of the block."""
    came: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, _frame: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for late in came:
            signal.raise_signal(late)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait_until_accepting(port: int, timeout_s: float) -> bool:
    """Whether someone accepts connections on the port in time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=timeout_s):
            return True
        time.sleep(POLL_S)
    return False
