"""Drives the PSU model over real sockets: Modbus on a listening TCP socket, GOOSE on a port of io/.

    dispensers ══ TCP ══► asyncio loop ──► PsuModel ──► Actions ──► sockets, GOOSE port, MQTT, event log
    GOOSE port ──► thread "goose": decode, verify ──► loop

The model is only called in the loop's thread. TCP roles and Modbus roles are reversed (protocol.md §1): a
dispenser connects here, and on its connection the mock asks. TCP_NODELAY is what asyncio sets by itself.
"""

import asyncio
import logging
import math
import random
import threading
import time
from collections.abc import Sequence
from typing import assert_never

from ..io.goose_codec import DecodedFrame, GooseError, Refusal, decode, encode, verify
from ..io.goose_port import GoosePort
from ..io.modbus_adu import ModbusProtocolError
from ..io.modbus_psu_codec import Answer, PsuCodec
from ..messages.goose import GooseHeader, PowerRequest, PowerRequestReply, StopRequest, t_of_utc_ns
from .actions import Action, DisconnectAsked, Observed, PowerPublished, ReadAsked, ReplySent, WriteAsked
from .event_log import EventLog
from .mqtt_power import MqttPower
from .options import MockOptions, MockOptionsError
from .psu_model import KEY, PsuModel

log = logging.getLogger(__name__)

UNIT_ID = 0xFF
"""As the original's mock has it (protocol.md §2)."""
VLAN_PRIORITY = 5
NOISE_SEED = 1
"""The noise of two runs is the same."""
MAX_FRAMES_WAITING = 1000
"""GOOSE frames on their way into the loop; then the thread waits, and the kernel drops what comes."""
GOOSE_RETRY_S = 1.0


class DispenserLink(asyncio.Protocol):
    """One dispenser's TCP connection."""

    def __init__(self, server: "MockServer", connection: int) -> None:
        self._server = server
        self.connection = connection
        self.codec = PsuCodec()
        self._transport: asyncio.Transport | None = None
        self._reason = "closed by the dispenser"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the dispenser connected."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - asyncio's own promise for TCP
        self._transport = transport
        host, port = transport.get_extra_info("peername")[:2]
        self._server.connected(self, f"{host}:{port}")

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes came."""
        self.codec.receive(data)
        try:
            while (event := self.codec.next_event()) is not None:
                self._server.received(self, event)
        except ModbusProtocolError as error:
            self.close(f"Modbus protocol error: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the connection is gone."""
        self._server.disconnected(self, str(exc) if exc else self._reason)

    def send(self, adu: bytes) -> None:
        """Send a request."""
        if self._transport is not None:
            self._transport.write(adu)

    def close(self, reason: str) -> None:
        """Close the connection; `connection_lost` follows."""
        self._reason = reason
        if self._transport is not None:
            self._transport.abort()  # waits for no peer that does not read


class MockServer:
    """`run` until the event that it is given."""

    def __init__(
        self, options: MockOptions, goose_port: GoosePort, events: EventLog, mqtt: MqttPower | None
    ) -> None:
        self._options = options
        self._goose_port = goose_port
        self._events = events
        self._mqtt = mqtt
        noise = random.Random(NOISE_SEED)  # noqa: S311 - measuring noise, no secret
        self._model = PsuModel(mac=goose_port.mac, noise=lambda: noise.uniform(-1.0, 1.0))
        self._links: dict[int, DispenserLink] = {}
        self._connections = 0
        self._timer: asyncio.TimerHandle | None = None
        self._goose_stopping = threading.Event()
        self._goose_slots = threading.Semaphore(MAX_FRAMES_WAITING)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set. MockOptionsError if the Modbus port cannot be had."""
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(self._new_link, "0.0.0.0", self._options.port)
        except OSError as error:
            reason = error.strerror or str(error)
            msg = f"cannot listen on TCP port {self._options.port}: {reason}; choose another with --port"
            raise MockOptionsError(msg) from None
        thread = threading.Thread(target=self._receive_goose, args=(loop,), name="goose", daemon=True)
        thread.start()
        port = server.sockets[0].getsockname()[1]
        log.info("listening on TCP port %d, GOOSE on %s", port, self._options.interface)
        self._do([Observed("listening", {"port": port, "mac": self._goose_port.mac.hex(":")})])
        await stop.wait()
        log.info("stopping")
        server.close()
        for link in list(self._links.values()):
            link.close("the mock ends")
        self._goose_stopping.set()
        self._goose_port.interrupt()
        self._goose_slots.release()  # the thread may be waiting for room
        thread.join()
        await asyncio.sleep(0)  # lets the links' connection_lost run
        self._do([Observed("stopped", {})])

    # --- Modbus ----------------------------------------------------------------------------------------------

    def _new_link(self) -> DispenserLink:
        self._connections += 1
        return DispenserLink(self, self._connections)

    def connected(self, link: DispenserLink, peer: str) -> None:
        """A dispenser connected."""
        log.info("connected: %s", peer)
        self._links[link.connection] = link
        self._do(self._model.connected(link.connection, peer, time.monotonic_ns()))

    def received(self, link: DispenserLink, event: Answer) -> None:
        """A dispenser answered or reported."""
        self._do(self._model.received(link.connection, event, time.monotonic_ns()))

    def disconnected(self, link: DispenserLink, reason: str) -> None:
        """A dispenser's connection is gone."""
        log.info("disconnected: %s", reason)
        del self._links[link.connection]
        self._do(self._model.disconnected(link.connection, reason))

    # --- GOOSE -----------------------------------------------------------------------------------------------

    def _receive_goose(self, loop: asyncio.AbstractEventLoop) -> None:
        """The thread: frames into the loop, each with the time at which it came."""
        while not self._goose_stopping.is_set():
            try:
                frame = self._goose_port.receive(math.inf)
            except OSError as error:
                log.warning("GOOSE: %s", error.strerror)
                self._goose_stopping.wait(GOOSE_RETRY_S)
                continue
            at_ns = time.monotonic_ns()
            if frame is None:
                continue
            self._goose_slots.acquire()
            if not self._goose_stopping.is_set():
                loop.call_soon_threadsafe(self._goose_received, frame, at_ns)

    def _goose_received(self, frame: bytes, at_ns: int) -> None:
        self._goose_slots.release()
        try:
            decoded = decode(frame)
            message = self._accepted(decoded)
        except GooseError as error:
            self._do([Observed("goose_dropped", {"reason": error.reason.value})], at_ns)
            return
        self._do(self._model.goose_received(message, decoded.header, decoded.src, at_ns), at_ns)

    def _accepted(self, decoded: DecodedFrame) -> PowerRequest | StopRequest:
        """The frame's message, if it is for a PSU and signed as it must be. GooseError."""
        if decoded.src == self._goose_port.mac:
            raise GooseError(Refusal.OWN_FRAME)
        if isinstance(decoded.message, PowerRequestReply):
            raise GooseError(Refusal.WRONG_APP_ID)
        if self._options.verify_hmac and not verify(decoded, KEY):
            raise GooseError(Refusal.UNSIGNED if decoded.signature is None else Refusal.BAD_HMAC)
        return decoded.message

    def _send_reply(self, reply: ReplySent) -> None:
        t_seconds, t_fraction = t_of_utc_ns(time.time_ns())
        header = GooseHeader(
            st_num=reply.st_num, sq_num=reply.sq_num, t_seconds=t_seconds, t_fraction=t_fraction
        )
        frame = encode(
            reply.message,
            header,
            dst=reply.dst,
            src=self._goose_port.mac,
            vlan_id=0,
            vlan_priority=VLAN_PRIORITY,
            key=KEY if self._options.send_hmac else None,
        )
        try:
            self._goose_port.send(frame)
        except OSError as error:
            log.warning("GOOSE reply not sent: %s", error.strerror)

    # --- what the model wants --------------------------------------------------------------------------------

    def _do(self, actions: Sequence[Action], at_ns: int | None = None) -> None:
        """Carry the actions out, and call the model again when it is due.

        `at_ns` (monotonic) is when that happened which they follow from; now, if it is not given.
        """
        for action in actions:
            match action:
                case ReadAsked():
                    link = self._links[action.connection]
                    link.send(link.codec.read(action.transaction_id, UNIT_ID, action.address, action.count))
                case WriteAsked(function=0x06):
                    link = self._links[action.connection]
                    link.send(
                        link.codec.write_single(action.transaction_id, UNIT_ID, action.address, action.words[0])
                    )
                case WriteAsked():
                    link = self._links[action.connection]
                    link.send(link.codec.write(action.transaction_id, UNIT_ID, action.address, action.words))
                case DisconnectAsked():
                    self._links[action.connection].close(action.reason)
                case ReplySent():
                    self._send_reply(action)
                case PowerPublished():
                    if self._mqtt is not None:
                        self._mqtt.publish(action)
                case Observed():
                    self._events.write(action, time.monotonic_ns() if at_ns is None else at_ns)
                case _:
                    assert_never(action)
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due_ns = self._model.due_ns
        if due_ns is not None:
            delay_s = max(0.0, (due_ns - time.monotonic_ns()) / 1e9)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._timer_fired)

    def _timer_fired(self) -> None:
        self._do(self._model.timer(time.monotonic_ns()))
