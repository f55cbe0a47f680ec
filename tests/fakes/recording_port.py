"""A GoosePort without a network: it keeps what is sent, with the time, and receives what a test puts in."""

import queue
import threading
import time
from collections.abc import Callable

from fusioncharger.io.goose_codec import DecodedFrame, decode


class RecordingPort:
    """`monotonic_ns` is the clock of the records. `error`, while set, is raised by `send`."""

    def __init__(self, monotonic_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.mac = bytes.fromhex("02aabbccddee")
        self.error: OSError | None = None
        self.on_send: Callable[[], None] = lambda: None
        self._monotonic_ns = monotonic_ns
        self._sent: list[tuple[int, bytes]] = []
        self._changed = threading.Condition()
        self._received: queue.Queue[bytes | None] = queue.Queue()

    def send(self, frame: bytes) -> None:
        if self.error is not None:
            raise self.error
        with self._changed:
            self._sent.append((self._monotonic_ns(), frame))
            self._changed.notify_all()
        self.on_send()

    def receive(self, timeout_s: float) -> bytes | None:
        try:
            return self._received.get(timeout=min(timeout_s, threading.TIMEOUT_MAX))
        except queue.Empty:
            return None

    def put(self, frame: bytes) -> None:
        self._received.put(frame)

    def interrupt(self) -> None:
        self._received.put(None)

    def take_drop_count(self) -> int:
        return 0

    def close(self) -> None:
        pass

    def times_ns(self) -> list[int]:
        return [at_ns for at_ns, _ in self._sent]

    def frames(self) -> list[bytes]:
        return [frame for _, frame in self._sent]

    def decoded(self) -> list[DecodedFrame]:
        return [decode(frame) for frame in self.frames()]

    def wait_for(self, condition: Callable[[list[DecodedFrame]], bool], timeout_s: float = 10) -> None:
        """Until what was sent fulfils the condition."""
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self.decoded()), timeout_s), self.decoded()

    def wait_for_count(self, count: int) -> None:
        self.wait_for(lambda frames: len(frames) >= count)
