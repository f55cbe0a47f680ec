"""Drives the PSU model over real sockets: Modbus on a listening TCP socket, GOOSE on a port of io/.

    dispensers ══ TCP ══► asyncio loop ─┐
    GOOSE port ══════════► GooseLink ───┼─► PsuModel ──► Actions ──► sockets, GOOSE port, MQTT, event log
    standard input ──────► control ─────┘

The model is only called in the loop's thread. TCP roles and Modbus roles are reversed (protocol.md §1): a
dispenser connects here, and on its connection the mock asks. TCP_NODELAY is what asyncio sets by itself.
"""

import asyncio
import logging
import random
import secrets
import ssl
import time
from collections.abc import Sequence
from typing import assert_never

from ..io.goose_codec import Refusal
from ..io.goose_port import GoosePort
from ..io.modbus_psu_codec import Answer
from ..messages.goose import GooseHeader, PowerRequest, StopRequest
from .actions import (
    Action,
    BytesAsked,
    DisconnectAsked,
    ListenAsked,
    Observed,
    PowerPublished,
    ReadAsked,
    ReplySent,
    WriteAsked,
)
from .commands import CommandError
from .control import parse_line, start_control
from .dispenser_link import DispenserLink
from .dispenser_session import KEY
from .event_log import EventLog
from .goose_link import GooseLink
from .listener import Listener
from .mqtt_power import MqttPower
from .options import MockOptions, MockOptionsError
from .psu_model import PsuModel

log = logging.getLogger(__name__)

UNIT_ID = 0xFF
"""As the original's mock has it (protocol.md §2)."""
NOISE_SEED = 1
"""The noise of two runs is the same."""


class MockServer:
    """`run` until the event that it is given."""

    def __init__(
        self,
        options: MockOptions,
        goose_port: GoosePort,
        events: EventLog,
        mqtt: MqttPower | None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._options = options
        self._mac = goose_port.mac
        self._events = events
        self._mqtt = mqtt
        self._tls = tls
        noise = random.Random(NOISE_SEED)  # noqa: S311 - measuring noise, no secret
        self._model = PsuModel(
            options.psu_state(goose_port.mac),
            noise=lambda: noise.uniform(-1.0, 1.0),
            new_key=(lambda: secrets.token_bytes(len(KEY))) if options.random_keys else None,
            scenario=options.scenario,
        )
        self._goose = GooseLink(goose_port, self, sign=options.send_hmac, verify=options.verify_hmac)
        self._listener = Listener(options.port, self._new_link, self._opened)
        self._links: dict[int, DispenserLink] = {}
        self._handshaking: set[DispenserLink] = set()
        self._connections = 0
        self._timer: asyncio.TimerHandle | None = None
        self._is_stopping = False

    async def run(self, stop: asyncio.Event, control_fd: int | None = None) -> None:
        """Serve until `stop` is set; commands come from the file `control_fd`.

        MockOptionsError if the Modbus port cannot be had.
        """
        try:
            await self._listener.open()
        except OSError as error:
            raise MockOptionsError(self._listener.reason(error)) from None
        self._goose.start()
        self._model.listening(time.monotonic_ns())
        self._set_timer()
        if control_fd is not None:
            start_control(control_fd, asyncio.get_running_loop(), self._told)
        await stop.wait()
        log.info("stopping")
        self._is_stopping = True
        self._listener.refuse()
        for link in [*self._links.values(), *self._handshaking]:
            link.close("the mock ends")
        self._goose.stop()
        await asyncio.sleep(0)  # lets the links' connection_lost run
        self._do([Observed("stopped", {})])

    # --- Modbus ----------------------------------------------------------------------------------------------

    def _opened(self, port: int) -> None:
        tls = self._tls is not None
        log.info(
            "listening on TCP port %d%s, GOOSE on %s", port, " with TLS" if tls else "", self._options.interface
        )
        self._do([Observed("listening", {"port": port, "mac": self._mac.hex(":"), "tls": tls})])

    def _new_link(self) -> DispenserLink:
        self._connections += 1
        link = DispenserLink(self, self._connections, self._tls)
        if self._tls is not None:
            self._handshaking.add(link)
        return link

    def connected(self, link: DispenserLink, peer: str) -> None:
        """A dispenser connected."""
        self._handshaking.discard(link)
        tls = link.tls_details()
        actions: list[Action] = []
        if tls is None:
            log.info("connected: %s", peer)
        else:
            log.info("connected: %s, %s, certificate of %r", peer, tls["version"], tls["subject"])
            actions.append(Observed("tls_established", {"peer": peer, **tls}))
        self._links[link.connection] = link
        self._do([*actions, *self._model.connected(link.connection, peer, time.monotonic_ns())])

    def received(self, link: DispenserLink, event: Answer) -> None:
        """A dispenser answered or reported."""
        self._do(self._model.received(link.connection, event, time.monotonic_ns()))

    def disconnected(self, link: DispenserLink, reason: str) -> None:
        """A dispenser's connection is gone."""
        log.info("disconnected: %s", reason)
        del self._links[link.connection]
        self._do(self._model.disconnected(link.connection, reason))

    def tls_refused(self, link: DispenserLink, peer: str, reason: str) -> None:
        """There will be no TLS connection with this peer."""
        self._handshaking.discard(link)
        if self._is_stopping:
            return
        log.warning("TLS refused: %s: %s", peer, reason)
        self._do([Observed("tls_refused", {"peer": peer, "reason": reason})])

    # --- GOOSE -----------------------------------------------------------------------------------------------

    def accepted_keys(self, src: bytes, connector_no: int, at_ns: int) -> tuple[bytes, ...]:
        """What a connector's frame may be signed with."""
        return self._model.accepted_keys(src, connector_no, at_ns)

    def goose_received(
        self, message: PowerRequest | StopRequest, header: GooseHeader, src: bytes, at_ns: int
    ) -> None:
        """A frame that is as it must be."""
        self._do(self._model.goose_received(message, header, src, at_ns), at_ns)

    def goose_dropped(self, reason: Refusal, at_ns: int) -> None:
        """A frame that is not."""
        self._do([Observed("goose_dropped", {"reason": reason.value})], at_ns)

    # --- control ---------------------------------------------------------------------------------------------

    def _told(self, line: bytes) -> None:
        """A line on standard input."""
        if self._is_stopping:
            return
        try:
            command = parse_line(line)
        except CommandError as error:
            log.warning("control: %s", error)
            self._do([Observed("control_error", {"error": str(error)})])
            return
        self._do(self._model.command(command, time.monotonic_ns()))

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
                case BytesAsked():
                    self._links[action.connection].send(action.data)
                case DisconnectAsked():
                    self._links[action.connection].close(action.reason, reset=action.reset)
                case ListenAsked(accept=True):
                    self._listener.accept()
                case ListenAsked():
                    self._listener.refuse()
                case ReplySent():
                    self._goose.send(action)
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
        if due_ns is not None and not self._is_stopping:
            delay_s = max(0.0, (due_ns - time.monotonic_ns()) / 1e9)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._timer_fired)

    def _timer_fired(self) -> None:
        self._do(self._model.timer(time.monotonic_ns()))
