"""Receives GOOSE frames and hands accepted power request replies on (protocol.md §3.4).

    port ──► GooseAcceptance.decide ──► PowerRequestReplyReceived ──► sink
                                   └──► counted by reason, one GooseFramesDropped a second that had any ──► sink

Deciding is a class without sockets or clocks. It does the cheap checks first, so that a flood of garbage costs
a few microseconds a frame; what the kernel drops because even that is too slow is counted too. Whether a frame
is played again is asked last, of frames that are right in every other way (goose_replay_guard.py).
"""

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable

from msgspec import Struct

from ..messages.config import ReplayProtection
from ..messages.goose import PowerRequestReply
from ..messages.inputs import GooseFramesDropped, Input, PowerRequestReplyReceived
from .goose_codec import DecodedFrame, GooseError, Refusal, decode, verify
from .goose_port import GoosePort
from .goose_replay_guard import ReplayGuard, Suspicion
from .key_ring import KeyRing
from .pulse import Pulse

_KERNEL_QUEUE_FULL = "kernel_queue_full"
_REPORT_INTERVAL_S = 1.0
_ACCEPTED_PER_SECOND = 100
"""A PSU sends a few for each connector: a new reply comes up to five times in 16 ms, then once a second."""
_RETRY_S = 1.0
_JOIN_TIMEOUT_S = 1.0

_log = logging.getLogger("fusioncharger.goose")


class Accepted(Struct, frozen=True):
    """What an accepted frame brings."""

    reply: PowerRequestReplyReceived
    suspicion: Suspicion | None = None
    """Why the frame looks played again, where that is only observed."""


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
        replay_protection: ReplayProtection = "observe",
    ) -> None:
        """`connector_nos`: the global number of connector 1, 2, …"""
        self._own_mac = own_mac
        self._key_ring = key_ring
        self._verify_secure = verify_secure
        self._needs_signature = verify_secure or not allow_insecure
        self._connectors = {number: connector for connector, number in enumerate(connector_nos, 1)}
        self._guard = None if replay_protection == "off" else ReplayGuard()
        self._enforces = replay_protection == "enforce"

    def decide(self, frame: bytes, at_ns: int) -> Accepted:
        """What the frame brings, which came at `at_ns` (monotonic). GooseError if it is not accepted."""
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
        verified: dict[int, tuple[bytes, int]] = {}
        connection = 0
        suspicion = None
        if self._verify_secure:
            keys = self._key_ring.verifying_keys()
            verified = {owner: (key, came_on) for owner, key, came_on in keys if verify(decoded, key)}
            if not verified:
                raise GooseError(Refusal.BAD_HMAC)
            if connector not in verified:
                raise GooseError(Refusal.WRONG_CONNECTOR)
            key, connection = verified[connector]
            suspicion = self._suspicion(decoded, reply, key, connection, at_ns)
        received = PowerRequestReplyReceived(
            verified=tuple(verified),
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
            connection=connection,
        )
        return Accepted(received, suspicion)

    def _suspicion(
        self, decoded: DecodedFrame, reply: PowerRequestReply, key: bytes, connection: int, at_ns: int
    ) -> Suspicion | None:
        """Whether a verified frame looks played again. GooseError if that is enforced."""
        if self._guard is None:
            return None
        suspicion = self._guard.judge(
            reply.connector_no, key, decoded.header, connection=connection, at_ns=at_ns
        )
        if suspicion is not None and self._enforces:
            raise GooseError(suspicion.reason, suspicion.text)
        return suspicion


class GooseReceiver:
    """The thread that receives. `sink` is called in it."""

    def __init__(self, port: GoosePort, acceptance: GooseAcceptance, sink: Callable[[Input], None]) -> None:
        self._port = port
        self._acceptance = acceptance
        self._sink = sink
        self.pulse = Pulse()
        self._closing = threading.Event()
        self._dropped: Counter[str] = Counter()
        self._suspected: Counter[str] = Counter()
        """Accepted although they look played again."""
        self._example = ""
        """The first of the dropped and suspected ones that there is more to say about."""
        self._report_due_s = math.inf
        """When these are to be reported, monotonic; inf: there are none."""
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

    def nudge(self) -> None:
        """Let the thread turn once."""
        self._port.interrupt()

    def close(self) -> bool:
        """End the thread. The port stays open. False if the thread hangs."""
        self._closing.set()
        self._port.interrupt()
        if self._thread.is_alive():
            self._thread.join(_JOIN_TIMEOUT_S)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._closing.is_set():
            self.pulse.beats += 1
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
            accepted = self._acceptance.decide(frame, time.monotonic_ns())
            self._count_accepted()
        except GooseError as error:
            self._count(self._dropped, error.reason, error.text)
            return
        if accepted.suspicion is not None:
            self._count(self._suspected, accepted.suspicion.reason, accepted.suspicion.text)
        self._sink(accepted.reply)

    def _count(self, counts: Counter[str], reason: Refusal, text: str) -> None:
        if self._report_due_s == math.inf:
            self._report_due_s = time.monotonic() + _REPORT_INTERVAL_S
        counts[reason.value] += 1
        self._example = self._example or text

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
        self._sink(
            GooseFramesDropped(
                counts=dict(self._dropped), suspected=dict(self._suspected), example=self._example
            )
        )
        self._dropped.clear()
        self._suspected.clear()
        self._example = ""
        self._report_due_s = math.inf
