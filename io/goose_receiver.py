"""Receives GOOSE frames and hands accepted power request replies on (protocol.md §3.4).

    port ──► GooseAcceptance.decide ──► PowerRequestReplyReceived ──► sink
                                   └──► counted by reason, one GooseFramesDropped a second that had any ──► sink

Deciding is a class without sockets or clocks. It does the cheap checks first, so that a flood of garbage costs
a few microseconds a frame; what the kernel drops because even that is too slow is counted too.
"""

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable

from ..messages.goose import PowerRequestReply
from ..messages.inputs import GooseFramesDropped, Input, PowerRequestReplyReceived
from .goose_codec import GooseError, Refusal, decode, verify
from .goose_port import GoosePort
from .key_ring import KeyRing

_KERNEL_QUEUE_FULL = "kernel_queue_full"
_REPORT_INTERVAL_S = 1.0
_ACCEPTED_PER_SECOND = 100
"""A PSU sends a few for each connector: a new reply comes up to five times in 16 ms, then once a second."""
_RETRY_S = 1.0

_log = logging.getLogger("fusioncharger.goose")


class GooseAcceptance:
    """Decides which frames are accepted."""

    def __init__(
        self,
        own_mac: bytes,
        key_ring: KeyRing,
        *,
        verify_secure: bool,
        allow_insecure: bool,
        connector_nos: tuple[int, ...],
    ) -> None:
        """`connector_nos`: the global number of connector 1, 2, …"""
        self._own_mac = own_mac
        self._key_ring = key_ring
        self._verify_secure = verify_secure
        self._needs_signature = verify_secure or not allow_insecure
        self._connectors = {number: connector for connector, number in enumerate(connector_nos, 1)}

    def decide(self, frame: bytes) -> PowerRequestReplyReceived:
        """The reply that the frame brings. GooseError if it is not accepted."""
        if frame[6:12] == self._own_mac:
            raise GooseError(Refusal.OWN_FRAME)
        decoded = decode(frame)
        reply = decoded.message
        if not isinstance(reply, PowerRequestReply):
            raise GooseError(Refusal.WRONG_GOID)
        connector = self._connectors.get(reply.connector_no)
        if connector is None:
            raise GooseError(Refusal.WRONG_CONNECTOR)
        if decoded.signature is None and self._needs_signature:
            raise GooseError(Refusal.UNSIGNED)
        verified: tuple[int, ...] = ()
        if self._verify_secure:
            keys = self._key_ring.verifying_keys()
            verified = tuple(owner for owner, key in keys if verify(decoded, key))
            if not verified:
                raise GooseError(Refusal.BAD_HMAC)
            if connector not in verified:
                raise GooseError(Refusal.WRONG_CONNECTOR)
        return PowerRequestReplyReceived(
            verified=verified,
            connector_no=reply.connector_no,
            charging_sn=reply.charging_sn,
            requirement_type=reply.requirement_type,
            result=reply.result,
            mode=reply.mode,
            voltage_bits=reply.voltage_bits,
            current_bits=reply.current_bits,
            st_num=decoded.header.st_num,
            sq_num=decoded.header.sq_num,
            frame=frame,
        )


class GooseReceiver:
    """The thread that receives. `sink` is called in it."""

    def __init__(self, port: GoosePort, acceptance: GooseAcceptance, sink: Callable[[Input], None]) -> None:
        self._port = port
        self._acceptance = acceptance
        self._sink = sink
        self._closing = threading.Event()
        self._dropped: Counter[str] = Counter()
        self._report_due_s = math.inf
        """When the drops are to be reported, monotonic; inf: there are none."""
        self._second = 0
        self._accepted = 0
        """Frames accepted in that second."""
        self._thread = threading.Thread(target=self._run, name="goose-receive", daemon=True)

    def start(self) -> None:
        """Start the thread, once."""
        self._thread.start()

    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def close(self) -> None:
        """End the thread. The port stays open."""
        self._closing.set()
        self._port.interrupt()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                frame = self._port.receive(max(0.0, self._report_due_s - time.monotonic()))
            except OSError as error:
                # An interface that went down says so once and is silent until it is up again. Waiting keeps an
                # error that does not go away from taking a whole CPU.
                _log.warning("GOOSE frames cannot be received: %s", error)
                self._closing.wait(_RETRY_S)
                continue
            if frame is not None:
                self._take(frame)
            if time.monotonic() >= self._report_due_s:
                self._report_drops()

    def _take(self, frame: bytes) -> None:
        try:
            reply = self._acceptance.decide(frame)
            self._count_accepted()
        except GooseError as error:
            if not self._dropped:
                self._report_due_s = time.monotonic() + _REPORT_INTERVAL_S
            self._dropped[error.reason.value] += 1
        else:
            self._sink(reply)

    def _count_accepted(self) -> None:
        """GooseError if there were too many in this second: every one of them becomes an Input."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._accepted = second, 0
        self._accepted += 1
        if self._accepted > _ACCEPTED_PER_SECOND:
            raise GooseError(Refusal.TOO_MANY)

    def _report_drops(self) -> None:
        lost = self._port.take_drop_count()
        if lost:
            self._dropped[_KERNEL_QUEUE_FULL] = lost
        self._sink(GooseFramesDropped(counts=dict(self._dropped)))
        self._dropped.clear()
        self._report_due_s = math.inf
