"""Whom the driver has to reach: the broker, with a real MQTT login, and the power unit, only when asked to.

No check lasts longer than TIMEOUT_S. At the broker nothing is subscribed to and nothing published, and the
client id is of its own: a second client with the driver's would throw the driver out.
"""

import socket
import ssl
import threading
import time
import uuid
from collections.abc import Callable

import paho.mqtt.client as paho
from msgspec import Struct
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from ..io.mqtt_access import BrokerAccess, BrokerAccessError, BrokerSocket, load_access
from ..io.tls import TlsFilesError, client_context
from ..io.tls_handshake import established_text, handshake_text
from ..messages.config import Config, MqttConfig
from .check_host import tls_files
from .check_table import Row, error, not_checked, ok, warning

TIMEOUT_S = 3.0
_ATTEMPT_S = 1.3
"""Two attempts (MQTT 5, then 3.1.1) have to fit into TIMEOUT_S."""
_REFUSAL_WAIT_S = 0.5
"""With TLS 1.3 the power unit refuses our certificate only after the handshake."""


class _Answer(Struct):
    """What came of an attempt to log in."""

    is_answered: bool = False
    refusal: str = ""
    is_version_refused: bool = False
    tls_version: str = ""
    tls_failure: str = ""


def check_broker(broker: MqttConfig) -> Row:
    """Connect and log in. Without usable password and certificates only the TCP connection."""
    return _within_timeout("broker", f"{broker.host}:{broker.port}", lambda: _check_broker(broker))


def _within_timeout(what: str, where: str, check: Callable[[], Row]) -> Row:
    """In a thread of its own: the look-up of a name has no timeout."""
    rows: list[Row] = []

    def run() -> None:
        try:
            rows.append(check())
        except OSError as problem:
            rows.append(error(what, f"{where}: {problem.strerror or problem}"))
        except Exception as problem:  # noqa: BLE001 - a table is to be printed whatever happens
            rows.append(error(what, f"{where}: {type(problem).__name__}: {problem}"))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(TIMEOUT_S)
    # A copy, as the thread may still come to its end.
    return next(iter(tuple(rows)), error(what, f"{where}: no answer in {TIMEOUT_S:g} s"))


def _check_broker_port(broker: MqttConfig) -> Row:
    socket.create_connection((broker.host, broker.port), TIMEOUT_S).close()
    where = f"{broker.host}:{broker.port}"
    return not_checked(
        "broker", f"{where}: reachable; login not tried without usable password and certificates"
    )


def _check_broker(broker: MqttConfig) -> Row:
    try:
        access = load_access(broker)
    except BrokerAccessError:  # which has a row of its own
        return _check_broker_port(broker)
    where = f"{broker.host}:{broker.port}"
    user = f"as {broker.username!r}" if broker.username else "without a user name"
    answer = _log_in(broker, access, MQTTProtocolVersion.MQTTv5)
    if answer.tls_failure:
        return error("broker", f"{where}: {answer.tls_failure}")
    if answer.is_answered and not answer.refusal:
        tls = f", {answer.tls_version}" if answer.tls_version else ""
        return ok("broker", f"{where}: MQTT 5{tls}, login accepted {user}")
    if answer.is_answered and not answer.is_version_refused:
        return error("broker", f"{where}: login refused {user}: {answer.refusal}")
    answer = _log_in(broker, access, MQTTProtocolVersion.MQTTv311)
    if not answer.is_answered:
        hint = "" if broker.tls_enabled else "; does it want TLS (mqtt.tls_enabled = false)?"
        return error("broker", f"{where}: reachable, but does not answer as an MQTT broker does{hint}")
    if answer.refusal:
        return error("broker", f"{where}: login refused {user}: {answer.refusal}")
    return warning(
        "broker",
        f"{where}: only MQTT 3.1.1, login accepted {user}; what EVerest sends during a short loss of the "
        "connection will not arrive",
    )


def _log_in(broker: MqttConfig, access: BrokerAccess, version: MQTTProtocolVersion) -> _Answer:
    """CONNECT, CONNACK, DISCONNECT. OSError: not reachable."""
    answer = _Answer()

    def connack_received(
        _client: paho.Client,
        _userdata: object,
        _flags: paho.ConnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        answer.is_answered = True
        answer.refusal = str(reason) if reason.is_failure else ""
        answer.is_version_refused = reason == "Unsupported protocol version"

    client = paho.Client(
        CallbackAPIVersion.VERSION2,
        f"fusioncharger-check-{uuid.uuid4().hex}",
        protocol=version,
        reconnect_on_failure=False,
    )
    client.connect_timeout = _ATTEMPT_S
    if broker.username:
        client.username_pw_set(broker.username, access.password)
    if access.tls is not None:
        client.tls_set_context(access.tls)
    secured: list[BrokerSocket] = []

    def socket_opened(_client: paho.Client, _userdata: object, opened: object) -> None:
        if isinstance(opened, BrokerSocket):
            secured.append(opened)
            answer.tls_version = opened.version() or ""

    client.on_connect = connack_received
    client.on_socket_open = socket_opened
    deadline = time.monotonic() + _ATTEMPT_S
    # No session of its own stays behind: with MQTT 5 its expiry is 0, with 3.1.1 it is a clean one.
    client.connect(broker.host, broker.port)
    try:
        while (
            not answer.is_answered
            and time.monotonic() < deadline
            and client.loop(timeout=0.05) is MQTTErrorCode.MQTT_ERR_SUCCESS
        ):
            pass
        if not answer.refusal:
            client.disconnect()
    finally:
        answer.tls_failure = secured[0].failure if secured else ""
        sock = client.socket()
        if sock is not None:
            sock.close()
    return answer


def check_psu(config: Config, *, has_certificates: bool) -> Row:
    """Connect to the power unit and close at once; with TLS, after the handshake."""
    where = f"{config.psu_ip}:{config.psu_port}"
    if config.tls_enabled and not has_certificates:
        return not_checked("power unit", f"{where}: not probed: needs usable certificates first")
    return _within_timeout("power unit", where, lambda: _check_psu(config, where))


def _check_psu(config: Config, where: str) -> Row:
    what = "power unit"
    with socket.create_connection((config.psu_ip, config.psu_port), TIMEOUT_S - _REFUSAL_WAIT_S - 1) as plain:
        if not config.tls_enabled:
            return ok(what, f"{where}: takes connections")
        try:
            context = client_context(tls_files(config), hostname=config.psu_cert_hostname)
            plain.settimeout(1.0)
            with context.wrap_socket(plain, server_hostname=config.psu_cert_hostname or None) as secured:
                return _await_refusal(secured, where)
        except TlsFilesError as problem:
            return error(what, f"{where}: {problem}")
        except TimeoutError:
            return error(what, f"{where}: no TLS handshake in 1 s; does it speak TLS?")
        except (ssl.SSLEOFError, ConnectionError):
            return error(
                what, f"{where}: it ended the TLS handshake; does it speak TLS, and take our certificate?"
            )
        except ssl.SSLError as problem:
            return error(what, f"{where}: {handshake_text(problem, heard=True)}")


def _await_refusal(secured: ssl.SSLSocket, where: str) -> Row:
    """What the power unit says of our certificate: with TLS 1.3 only after our handshake is done."""
    what = "power unit"
    secured.settimeout(_REFUSAL_WAIT_S)
    try:
        if not secured.recv(1):
            return warning(what, f"{where}: TLS handshake done, but then it closed the connection")
    except TimeoutError:
        pass  # says nothing, so it has nothing against us
    except (ssl.SSLError, ConnectionError) as problem:
        return error(what, f"{where}: {established_text(problem)}")
    return ok(what, f"{where}: TLS handshake done ({secured.version()}), both certificates accepted")
