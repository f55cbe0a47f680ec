"""One connection to the MQTT broker, from connect to loss: paho-mqtt, driven by the caller's thread.

    connect ─ CONNACK ─ SUBSCRIBE ─ SUBACK ─► on_online ─ messages ─► on_message        loss: serve() returns

A paho client of its own for every connection, so that no message outlives it (paho would send an unacknowledged
one again: an old mode could go out late). Everything happens inside `serve`, also what paho does for `publish`
and `finish`, which may be called from other threads.

What a message brings is handed on when nothing else is left to do but to wait: whoever is woken by it needs the
GIL, and would take it away from here.
"""

import math
import selectors
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from ..messages.config import MqttConfig
from .mqtt_access import BrokerAccess, BrokerSocket
from .pulse import Pulse
from .waker import Waker

KEEPALIVE_S = 5
"""A broker that falls silent is given up after at most twice this."""
CONNECT_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 2.0
"""For CONNACK, and then for SUBACK."""
CLOSED = "connection closed"
QUEUE_LIMIT = 1000
"""Of messages that wait for the thread, and of QoS 1 messages that wait for their PUBACK; what comes on top is
dropped. paho has no such limit for QoS 0: those come at a few per second and go with their connection, so
KEEPALIVE_S bounds them."""
RECEIVED_LIMIT = 16
"""When so many messages have been received, they are handed on though more come: after a millisecond or two."""
MAX_PACKET_BYTES = 1 << 20
"""What the broker may send in one packet (MQTT 5): far above what the API accepts, far below what hurts."""


@dataclass(frozen=True)
class Session:
    """What the client wants of the broker."""

    topics: tuple[str, ...]
    """To subscribe to, with QoS 1."""
    expiry_s: float
    """How long the broker keeps the session after a loss."""
    status_topic: str = ""
    """Shows `online` or `offline`, retained; "" for none."""


class MqttConnection:
    """One connection from connect to loss. Once lost, it is not used again."""

    def __init__(
        self,
        broker: MqttConfig,
        access: BrokerAccess,
        session: Session,
        client_id: str,
        version: MQTTProtocolVersion,
        *,
        clean_start: bool,
        on_online: Callable[[MQTTProtocolVersion, bool], None],
        on_message: Callable[[paho.MQTTMessage], None],
        pulse: Pulse,
        waker: Waker,
        on_denied: Callable[[str], None],
    ) -> None:
        """`on_denied`: the broker takes a message of ours, but lets nobody have it (MQTT 5, QoS 1)."""
        self.is_online = False
        """The subscriptions were acknowledged. Stays True after the loss."""
        self.loss = CLOSED
        self.version_refused = False
        self._broker = broker
        self._on_denied = on_denied
        self._session = session
        self._version = version
        self._clean_start = clean_start
        self._on_online = on_online
        self._on_message = on_message
        self._pulse = pulse
        self._waker = waker
        self._to_publish: deque[tuple[str, bytes, int, bool]] = deque()
        """Topic, payload, QoS, retain."""
        self._received: list[paho.MQTTMessage] = []
        """To be handed on."""
        self._socket: socket.socket | None = None
        self._answered = False
        self._answer_due_s = math.inf
        """Until when the broker has to answer, monotonic; of no more use when it is online."""
        self._finish_by_s = math.inf
        """Monotonic; finite from `finish` on."""
        self._said_goodbye = False
        self._session_present = False
        self._last_qos_1: paho.MQTTMessageInfo | None = None
        client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id, protocol=version, reconnect_on_failure=False
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.max_queued_messages_set(QUEUE_LIMIT)
        if broker.username:
            client.username_pw_set(broker.username, access.password)
        if access.tls is not None:
            client.tls_set_context(access.tls)
        if session.status_topic:
            client.will_set(session.status_topic, b"offline", qos=1, retain=True)
        client.on_socket_open = self._socket_opened
        # With this callback set, paho's publish() never writes to the socket itself: loop_write() does.
        client.on_socket_register_write = lambda _client, _userdata, _socket: None
        client.on_connect = self._connack_received
        client.on_subscribe = self._suback_received
        client.on_disconnect = self._disconnected
        client.on_message = lambda _client, _userdata, message: self._received.append(message)
        self._client = client

    def serve(self) -> None:
        """Connects and returns when the connection is lost. OSError: there was none."""
        try:
            with self._pulse.blocking():
                self._connect()
            self._serve()
        finally:
            # They and the client hold one another: all of it would be left to the garbage collector.
            client = self._client
            client.on_socket_open = client.on_connect = client.on_subscribe = client.on_disconnect = None
            client.on_message = None

    def _serve(self) -> None:
        self._answer_due_s = time.monotonic() + ANSWER_TIMEOUT_S
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._waker, selectors.EVENT_READ)
                while self._turn(selector):
                    self._pulse.beats += 1
                    if not self.is_online and time.monotonic() > self._answer_due_s:
                        self.loss = "the broker does not answer"
                        return
        finally:
            self._hand_on()
            if self._tls_failure:
                self.loss = self._tls_failure
            elif isinstance(self._socket, BrokerSocket) and not self._answered and self.loss == CLOSED:
                self.loss = f"{CLOSED} right after the TLS handshake; the broker may not accept our certificate"
            sock = self._client.socket()
            if sock is not None:
                sock.close()

    def _turn(self, selector: selectors.BaseSelector) -> bool:
        """Wait until there is something to do, and do it. False: the connection has ended."""
        client = self._client
        sock = client.socket()
        if sock is None:
            return False
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.want_write() else 0)
        if sock not in selector.get_map():
            selector.register(sock, events)
        elif selector.get_key(sock).events != events:
            selector.modify(sock, events)
        is_readable = isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
        for key, mask in selector.select(0 if is_readable or self._received else self._timeout_s()):
            if key.fileobj is self._waker:
                self._waker.clear()
            elif mask & selectors.EVENT_READ:
                is_readable = True
        count = len(self._received)
        if is_readable and not self._read():
            return False
        # Not before what follows closely, but the rest of a large one is not waited for.
        if len(self._received) == count or len(self._received) >= RECEIVED_LIMIT:
            self._hand_on()
        self._publish_waiting()
        if not self._part():
            return False
        if client.want_write() and client.loop_write() is not MQTTErrorCode.MQTT_ERR_SUCCESS:
            return False
        return client.loop_misc() is MQTTErrorCode.MQTT_ERR_SUCCESS

    def _read(self) -> bool:
        # For PUBACKs, which are read, and not for QoS 0, which is written: paho would make a reason code and
        # properties for each message, which takes longer than all the rest of sending it.
        self._client.on_publish = self._puback_received
        try:
            return self._client.loop_read() is MQTTErrorCode.MQTT_ERR_SUCCESS
        finally:
            self._client.on_publish = None

    def _puback_received(
        self,
        _client: paho.Client,
        _userdata: object,
        _mid: int,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            self._on_denied(str(reason))

    def _timeout_s(self) -> float:
        timeout_s = 1.0 if self.is_online else 0.1
        return max(0.0, min(timeout_s, self._finish_by_s - time.monotonic()))

    def _hand_on(self) -> None:
        received, self._received = self._received, []
        for message in received:
            self._on_message(message)

    def _publish_waiting(self) -> None:
        # Those that are here now: what comes meanwhile has a wake-up of its own.
        for _ in range(len(self._to_publish)):
            topic, payload, qos, retain = self._to_publish.popleft()
            self._publish(topic, payload, qos, retain=retain)

    def _publish(self, topic: str, payload: bytes, qos: int, *, retain: bool) -> bool:
        info = self._client.publish(topic, payload, qos, retain)
        is_taken = info.rc is MQTTErrorCode.MQTT_ERR_SUCCESS
        if qos and is_taken:
            self._last_qos_1 = info
        return is_taken

    def _part(self) -> bool:
        """What `finish` asked for, as far as it can be done now. False: end without DISCONNECT, so that the
        broker, which has not heard that we are offline, says it for us."""
        if self._finish_by_s == math.inf or self._to_publish:
            return True
        has_to_say = self.is_online and bool(self._session.status_topic)
        if has_to_say and not self._said_goodbye:
            self._said_goodbye = self._publish(self._session.status_topic, b"offline", 1, retain=True)
        is_said = self._said_goodbye or not has_to_say
        is_acknowledged = self._last_qos_1 is None or self._last_qos_1.is_published()
        is_late = time.monotonic() >= self._finish_by_s
        if (is_said and is_acknowledged) or (is_late and not has_to_say):
            self._finish_by_s = math.inf
            self._client.disconnect()
            return True
        return not is_late

    def _connect(self) -> None:
        if self._version is MQTTProtocolVersion.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call] # paho's
            properties.SessionExpiryInterval = math.ceil(self._session.expiry_s)
            properties.MaximumPacketSize = MAX_PACKET_BYTES
            self._client.connect(
                self._broker.host,
                self._broker.port,
                KEEPALIVE_S,
                clean_start=self._clean_start,
                properties=properties,
            )
        else:
            self._client.connect(self._broker.host, self._broker.port, KEEPALIVE_S)

    @property
    def is_unanswered(self) -> bool:
        """The broker took the connection, but hung up on CONNECT or never answered it, and did not say why."""
        return self._socket is not None and not self._answered and not self._tls_failure

    @property
    def _tls_failure(self) -> str:
        return self._socket.failure if isinstance(self._socket, BrokerSocket) else ""

    def publish(self, topic: str, payload: bytes, qos: int, *, retain: bool) -> bool:
        """Hand a message to the thread, from any. False: dropped."""
        if not self.is_online or len(self._to_publish) >= QUEUE_LIMIT:
            return False
        self._to_publish.append((topic, payload, qos, retain))
        self._waker.set()
        return True

    def finish(self, timeout_s: float) -> None:
        """Let the thread say offline, wait for the last PUBACK and disconnect. From any thread."""
        self._finish_by_s = time.monotonic() + timeout_s
        self._waker.set()

    def _socket_opened(self, _client: paho.Client, _userdata: object, sock: object) -> None:
        # Without it, Nagle and delayed ACKs cost 44..88 ms per QoS 1 message (architecture.md §6).
        assert isinstance(sock, socket.socket)  # noqa: S101 - paho's type also allows websockets
        self._socket = sock
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _connack_received(
        self,
        client: paho.Client,
        _userdata: object,
        flags: paho.ConnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        self._answered = True
        self._answer_due_s = time.monotonic() + ANSWER_TIMEOUT_S
        if reason.is_failure:
            self.version_refused = reason == "Unsupported protocol version"
            self.loss = f"login refused: {reason}"
            return
        self._session_present = flags.session_present
        client.subscribe([(topic, 1) for topic in self._session.topics])

    def _suback_received(
        self,
        client: paho.Client,
        _userdata: object,
        _mid: int,
        reasons: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        refused = [
            f"{topic} ({reason})"
            for topic, reason in zip(self._session.topics, reasons, strict=True)
            if reason.is_failure
        ]
        if refused:
            self.loss = f"subscription refused: {', '.join(refused)}"
            client.disconnect()
            return
        self.is_online = True
        if self._session.status_topic:
            self._publish(self._session.status_topic, b"online", 1, retain=True)
        self._hand_on()  # what came before it
        self._on_online(self._version, self._session_present)

    def _disconnected(
        self,
        _client: paho.Client,
        _userdata: object,
        flags: paho.DisconnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            self.loss = f"the broker ended it: {reason}"
        elif reason == "Keep alive timeout":
            self.loss = "the broker does not answer"
