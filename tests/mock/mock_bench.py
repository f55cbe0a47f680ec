"""The mock as a process, for the tests that are its dispensers."""

import json
import os
import queue
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from fusioncharger.io.goose_codec import encode
from fusioncharger.io.goose_port import GoosePort, open_port
from fusioncharger.io.modbus_codec import DispenserCodec, ReadRequest, Request, WriteRequest
from fusioncharger.messages.goose import GooseHeader, GooseMessage, PowerRequest
from fusioncharger.messages.outputs import ReadAnswered, ReportSent, Segment, WriteAnswered
from fusioncharger.messages.types import PowerRequestMode, RequirementType
from fusioncharger.mock.dispenser_session import KEY

TIMEOUT_S = 10.0
COMMAND = [sys.executable, "-c", "import sys; from fusioncharger.app.cli import main; sys.exit(main())", "mock"]
Event = dict[str, Any]


class Mock:
    """The process, and what it writes to its event log."""

    def __init__(self, environment: dict[str, str], *options: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "--interface", "udp:0", "--port", "0", "--events", "-", *options],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.events: queue.Queue[Event] = queue.Queue()
        self.seen: list[Event] = []
        threading.Thread(target=self._read, daemon=True).start()
        listening = self.wait("listening")
        self.port: int = listening["port"]
        self.goose_port = int.from_bytes(bytes.fromhex(listening["mac"].replace(":", ""))[4:], "big")

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.put(json.loads(line))

    def wait(self, name: str, matches: Callable[[Event], bool] = lambda _: True) -> Event:
        """The next event of that name that matches; those before it are in `seen`."""
        while True:
            event = self.events.get(timeout=TIMEOUT_S)
            self.seen.append(event)
            if event["event"] == name and matches(event):
                return event

    def wait_until_dropped(self, send: Callable[[], None]) -> str:
        """Why a frame is dropped, if it is sent again and again: the former key holds for a moment."""
        deadline_s = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline_s:
            send()
            event = self.events.get(timeout=TIMEOUT_S)
            if event["event"] == "goose_dropped":
                return str(event["reason"])
        raise AssertionError("no frame is dropped")

    def told(self, do: str, **arguments: object) -> Event:
        """Its step, once a command is carried out (with `--control -`)."""
        self.tell(json.dumps({"do": do, **arguments}))
        return self.wait("step", lambda event: event["do"] == do)

    def tell(self, line: str) -> None:
        """A line on its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def stop(self, number: int = signal.SIGTERM) -> str:
        """Standard error."""
        self.process.send_signal(number)
        self.process.wait(TIMEOUT_S)
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.stderr is not None
        assert self.process.stdout is not None
        text = self.process.stderr.read().decode()
        self.process.stderr.close()
        self.wait("stopped")
        self.process.stdout.close()
        assert self.process.returncode == 0, text
        assert "Traceback" not in text
        return text


class Dispenser:
    """A dispenser with one connector that answers whatever it is asked."""

    def __init__(self, mock: Mock, context: ssl.SSLContext | None = None) -> None:
        """`context` for TLS."""
        self.socket = socket.create_connection(("127.0.0.1", mock.port), TIMEOUT_S)
        if context is not None:
            self.socket = context.wrap_socket(self.socket)
        self.codec = DispenserCodec()
        self.values: dict[int, int] = {}
        """Words that are read; 1 where nothing is said."""

    def request(self) -> Request:
        """The next request, answered."""
        while (request := self.codec.next_event()) is None:
            data = self.socket.recv(65536)
            assert data, "the mock closed the connection"
            self.codec.receive(data)
        self.socket.sendall(self.codec.encode(_answer(request, self.values)))
        return request

    def requests_until(self, address: int) -> Request:
        while not isinstance(request := self.request(), WriteRequest) or request.address != address:
            pass
        return request

    def report(self, working_status: int) -> None:
        report = ReportSent(connection=1, transaction_id=0, segments=(Segment(0x110B, (working_status,)),))
        self.socket.sendall(self.codec.encode(report))


def _answer(request: Request, values: dict[int, int]) -> ReadAnswered | WriteAnswered:
    ids = {"connection": 1, "transaction_id": request.transaction_id, "unit_id": request.unit_id}
    if isinstance(request, ReadRequest):
        return ReadAnswered(
            words=tuple(values.get(request.address + n, 1) for n in range(request.count)), **ids
        )
    assert isinstance(request, WriteRequest)
    value = request.words[0] if request.function == 0x06 else len(request.words)
    return WriteAnswered(function=request.function, address=request.address, value=value, **ids)


class Ether:
    """A dispenser's GOOSE port."""

    def __init__(self, mock: Mock) -> None:
        self.port: GoosePort = open_port(f"udp:0:{mock.goose_port}")
        self.mac = self.port.mac

    def close(self) -> None:
        self.port.close()

    def send(self, message: GooseMessage, *, st_num: int = 1, sq_num: int = 0, key: bytes | None = KEY) -> None:
        header = GooseHeader(st_num=st_num, sq_num=sq_num, t_seconds=st_num, t_fraction=0)
        frame = encode(message, header, dst=bytes(6), src=self.mac, vlan_id=0, vlan_priority=5, key=key)
        self.port.send(frame)


PLACEHOLDER = PowerRequest(
    connector_no=3,
    requirement_type=RequirementType.MODULE_PLACEHOLDER_REQUEST,
    mode=PowerRequestMode.CONSTANT_CURRENT,
    voltage_v=0.0,
    current_a=0.0,
)
CHARGING = PowerRequest(
    connector_no=3,
    requirement_type=RequirementType.CHARGING,
    mode=PowerRequestMode.CONSTANT_CURRENT,
    voltage_v=400.0,
    current_a=20.0,
)
