"""GOOSE frames between a port of io/ and the loop.

GoosePort ──► thread "goose" ──► loop: decode ──► is it signed as it must be? ──► received, or dropped
"""

import asyncio
import logging
import math
import threading
import time
from typing import Protocol

from ..io.goose_codec import DecodedFrame, GooseError, Refusal, decode, encode, verify
from ..io.goose_port import GoosePort
from ..messages.goose import GooseHeader, PowerRequest, PowerRequestReply, StopRequest, t_of_utc_ns
from .actions import ReplySent

log = logging.getLogger(__name__)

VLAN_PRIORITY = 5
MAX_FRAMES_WAITING = 1000
"""Frames on their way into the loop; then the thread waits, and the kernel drops what comes."""
RETRY_S = 1.0


class GooseOwner(Protocol):
    """Who gets the frames, in the loop's thread; `at_ns` is when they came."""

    def accepted_keys(self, src: bytes, connector_no: int, at_ns: int) -> tuple[bytes, ...]:
        """What a connector's frame may be signed with."""

    def goose_received(
        self, message: PowerRequest | StopRequest, header: GooseHeader, src: bytes, at_ns: int
    ) -> None:
        """A frame that is as it must be."""

    def goose_dropped(self, reason: Refusal, at_ns: int) -> None:
        """A frame that is not."""


class GooseLink:
    """Sends at once; receives from `start` to `stop`."""

    def __init__(self, port: GoosePort, owner: GooseOwner, *, sign: bool, verify: bool) -> None:
        self._port = port
        self._owner = owner
        self._sign = sign
        self._verify = verify
        self._stopping = threading.Event()
        self._slots = threading.Semaphore(MAX_FRAMES_WAITING)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Receive from now on."""
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._receive, args=(loop,), name="goose", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """No frame comes after this."""
        self._stopping.set()
        self._port.interrupt()
        self._slots.release()  # the thread may be waiting for room
        if self._thread is not None:
            self._thread.join()

    def send(self, reply: ReplySent) -> None:
        """Send a reply, if that can be."""
        t_seconds, t_fraction = t_of_utc_ns(time.time_ns())
        header = GooseHeader(
            st_num=reply.st_num, sq_num=reply.sq_num, t_seconds=t_seconds, t_fraction=t_fraction
        )
        frame = encode(
            reply.message,
            header,
            dst=reply.dst,
            src=self._port.mac,
            vlan_id=0,
            vlan_priority=VLAN_PRIORITY,
            key=reply.key if self._sign else None,
        )
        try:
            self._port.send(frame)
        except OSError as error:
            log.warning("GOOSE reply not sent: %s", error.strerror)

    def _receive(self, loop: asyncio.AbstractEventLoop) -> None:
        """The thread: frames into the loop, each with the time at which it came."""
        while not self._stopping.is_set():
            try:
                frame = self._port.receive(math.inf)
            except OSError as error:
                log.warning("GOOSE: %s", error.strerror)
                self._stopping.wait(RETRY_S)
                continue
            at_ns = time.monotonic_ns()
            if frame is None:
                continue
            self._slots.acquire()
            if not self._stopping.is_set():
                loop.call_soon_threadsafe(self._received, frame, at_ns)

    def _received(self, frame: bytes, at_ns: int) -> None:
        self._slots.release()
        if self._stopping.is_set():
            return
        try:
            decoded = decode(frame)
            message = self._accepted(decoded, at_ns)
        except GooseError as error:
            self._owner.goose_dropped(error.reason, at_ns)
            return
        self._owner.goose_received(message, decoded.header, decoded.src, at_ns)

    def _accepted(self, decoded: DecodedFrame, at_ns: int) -> PowerRequest | StopRequest:
        """The frame's message, if it is for a PSU and signed as it must be. GooseError."""
        message = decoded.message
        if decoded.src == self._port.mac:
            raise GooseError(Refusal.OWN_FRAME)
        if isinstance(message, PowerRequestReply):
            raise GooseError(Refusal.WRONG_APP_ID)
        keys = self._owner.accepted_keys(decoded.src, message.connector_no, at_ns)
        if self._verify and not any(verify(decoded, key) for key in keys):
            raise GooseError(Refusal.UNSIGNED if decoded.signature is None else Refusal.BAD_HMAC)
        return message
