"""The MQTT client against a real broker: losses, sessions, refusals (behaviour.md §8.2)."""

import base64
import contextlib
import gc
import hashlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from broker import Mosquitto, free_port, wait_until_accepting
from fakes.mqtt_driver import STATUS, TIMEOUT_S, TOPIC
from fakes.tcp_proxy import TcpProxy
from fusioncharger.app.supervision import LOOK_INTERVAL_S, Watched
from fusioncharger.io.mqtt_connection import QUEUE_LIMIT


class Peer:
    """Another client of the same broker, MQTT 3.1.1, with everything it receives in a queue."""

    def __init__(self, port, *topics):
        self.received = queue.Queue()
        self._acknowledged = threading.Event()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self._client.on_subscribe = lambda *_: self._acknowledged.set()
        self._client.on_message = lambda _c, _u, m: self.received.put((m.topic, m.payload, m.retain))
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        if topics:
            self._client.subscribe([(topic, 1) for topic in topics])
            assert self._acknowledged.wait(TIMEOUT_S)

    def publish(self, topic, payload, *, retain=False):
        self._client.publish(topic, payload, 1, retain).wait_for_publish(TIMEOUT_S)

    def get(self):
        return self.received.get(timeout=TIMEOUT_S)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def broker(tmp_path):
    with Mosquitto(tmp_path) as mosquitto:
        yield mosquitto


def test_receives_and_publishes(broker, start):
    with Peer(broker.port, "from/us") as peer:
        driver = start(broker.port)
        driver.expect(("connected", False))
        peer.publish(TOPIC, b"hello")
        driver.expect(("message", b"hello"))
        assert driver.publish(b"answer")
        assert peer.get() == ("from/us", b"answer", False)
        assert driver.client.is_alive()


def test_a_publish_is_not_held_back_by_nagle(broker, start):
    with Peer(broker.port, "from/us") as peer:
        driver = start(broker.port)
        driver.expect(("connected", False))
        started_at = time.perf_counter()
        for number in range(20):
            assert driver.publish(b"%d" % number)
            assert peer.get()[1] == b"%d" % number
        assert (time.perf_counter() - started_at) / 20 < 0.02  # with Nagle: 0.04 and more


def test_off_sent_while_we_are_cut_off_arrives(broker, start):
    with TcpProxy(broker.port) as proxy, Peer(broker.port) as peer:
        driver = start(proxy.port)
        driver.expect(("connected", False))
        proxy.cut()
        driver.expect_loss()
        peer.publish(TOPIC, b"Off")
        proxy.restore()
        assert sorted([driver.get(), driver.get()]) == [("connected", True), ("message", b"Off")]


def test_the_session_ends_after_its_expiry(broker, start):
    with TcpProxy(broker.port) as proxy, Peer(broker.port) as peer:
        driver = start(proxy.port, expiry_s=0.5)  # rounded up to 1 s
        driver.expect(("connected", False))
        proxy.cut()
        driver.expect_loss()
        peer.publish(TOPIC, b"Export")
        with pytest.raises(queue.Empty):
            driver.events.get(timeout=2.5)
        proxy.restore()
        driver.expect(("connected", False))
        peer.publish(TOPIC, b"later")
        driver.expect(("message", b"later"))


def test_a_loss_is_reported_once_and_nothing_is_queued_meanwhile(broker, start):
    driver = start(broker.port)
    driver.expect(("connected", False))
    with broker.stopped():
        assert driver.publish(b"unacknowledged")
    broker.kill()
    driver.expect_loss()
    assert not driver.publish(b"while away")
    broker.start()
    driver.expect(("connected", False))
    with Peer(broker.port, "from/us") as peer:
        assert driver.publish(b"after")
        assert peer.get() == ("from/us", b"after", False)
    assert driver.events.empty()


def test_a_broker_that_does_not_answer_is_given_up_and_found_again(broker, start, monkeypatch):
    monkeypatch.setattr("fusioncharger.io.mqtt_connection.KEEPALIVE_S", 1)
    driver = start(broker.port)
    driver.expect(("connected", False))
    with broker.stopped():
        assert driver.expect_loss() == "the broker does not answer"
    driver.expect(("connected", True))


def test_the_broker_may_come_later_and_is_not_awaited_in_a_hot_loop(tmp_path, start, log):
    mosquitto = Mosquitto(tmp_path)
    driver = start(mosquitto.port)
    log.wait_for("Connection refused; trying on")
    cpu_before = time.process_time()
    with pytest.raises(queue.Empty):
        driver.events.get(timeout=1.5)
    assert time.process_time() - cpu_before < 0.1
    assert log.count("trying on") == 1
    with mosquitto:
        driver.expect(("connected", False))
        assert driver.client.is_alive()


def test_a_broker_that_is_out_of_reach_is_tried_on_and_nothing_hangs(start, log, monkeypatch):
    """Its machine is off: no answer to any SYN. Everything is five times as fast as it is in the driver."""
    monkeypatch.setattr("fusioncharger.io.mqtt_connection.CONNECT_TIMEOUT_S", 0.4)
    monkeypatch.setattr("fusioncharger.io.mqtt_client.LAST_RETRY_S", 0.2)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, contextlib.ExitStack() as stack:
        for _ in range(2):  # its queue is full: the kernel drops what comes then
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(server.getsockname())
        client = start(server.getsockname()[1]).client
        log.wait_for("timed out; trying on")
        watched = Watched("MQTT client", client.is_alive, client.pulse)
        complaints = []
        for _ in range(15):
            time.sleep(LOOK_INTERVAL_S / 5)  # supervision looks, whatever the thread does
            complaints.append(watched.complaint())
        assert complaints == [""] * 15


def test_a_failing_callback_is_logged_and_kills_nothing(broker, start, log):
    def fail(message):
        raise ValueError(message.payload)

    driver = start(broker.port, on_message=fail)
    driver.expect(("connected", False))
    with Peer(broker.port, "from/us") as peer:
        peer.publish(TOPIC, b"1")
        peer.publish(TOPIC, b"2")
        log.wait_for("a callback failed", count=2)
        assert driver.publish(b"alive")
        assert peer.get() == ("from/us", b"alive", False)
    assert driver.client.is_alive()
    assert driver.events.empty()


def test_a_broker_that_talks_nonsense_kills_nothing(start, log):
    connack_and_nonsense = b"\x20\x03\x00\x00\x00" + b"\xf0\xff\xff\xff\xff\xff" + bytes(100)
    with socket.create_server(("127.0.0.1", 0)) as server:
        driver = start(server.getsockname()[1])
        for _ in range(3):
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(connack_and_nonsense)
        log.wait_for("trying on")
        assert driver.client.is_alive()
    assert driver.events.empty()


def serve_by_hand(server: socket.socket, *answers: bytes) -> None:
    """A broker that says this, each after something came, and then nothing until the other end hangs up."""
    connection, _ = server.accept()
    with connection:
        connection.settimeout(TIMEOUT_S)
        for answer in answers:
            connection.recv(1000)
            connection.sendall(answer)
        while connection.recv(1000):
            pass


def test_a_broker_that_never_acknowledges_the_subscription_is_given_up(start, log, monkeypatch):
    monkeypatch.setattr("fusioncharger.io.mqtt_connection.ANSWER_TIMEOUT_S", 0.3)
    connack = b"\x20\x03\x00\x00\x00"
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(TIMEOUT_S)
        driver = start(server.getsockname()[1])
        for _ in range(2):
            serve_by_hand(server, connack)
        log.wait_for("the broker does not answer; trying on")
    assert driver.events.empty()


def test_a_suback_that_answers_something_else_is_said_once(start, log):
    connack, suback_of_nothing = b"\x20\x03\x00\x00\x00", b"\x90\x03\x00\x01\x00"
    with socket.create_server(("127.0.0.1", 0)) as server:
        driver = start(server.getsockname()[1])
        for _ in range(3):
            serve_by_hand(server, connack, suback_of_nothing)
        log.wait_for("trying on")
        assert driver.client.is_alive()
    assert log.count("the connection failed") == 1
    assert driver.events.empty()


def test_status_shows_online_and_offline(broker, start):
    with Peer(broker.port, STATUS) as peer:
        driver = start(broker.port)
        assert peer.get() == (STATUS, b"online", False)
        driver.expect(("connected", False))
        driver.client.close(2.0)
        assert not driver.client.is_alive()
        assert peer.get() == (STATUS, b"offline", False)
    with Peer(broker.port, STATUS) as newcomer:
        assert newcomer.get() == (STATUS, b"offline", True)
    assert driver.events.empty()


def test_a_broker_that_was_frozen_at_close_says_offline(broker, start):
    driver = start(broker.port)
    driver.expect(("connected", False))
    with Peer(broker.port, STATUS) as peer:
        assert peer.get() == (STATUS, b"online", True)
        with broker.stopped():
            for number in range(100):  # more than may be on their way: "offline" has to stay behind
                assert driver.publish(b"%d" % number)
            driver.client.close(0.5)
            assert not driver.client.is_alive()
        assert peer.get() == (STATUS, b"offline", False)


def test_what_was_published_before_close_arrives(broker, start):
    with Peer(broker.port, "from/us") as peer:
        driver = start(broker.port)
        driver.expect(("connected", False))
        for number in range(100):
            assert driver.publish(b"%d" % number)
        driver.client.close(2.0)
        assert [peer.get()[1] for _ in range(100)] == [b"%d" % number for number in range(100)]


def test_close_is_in_time_when_the_broker_does_not_answer(broker, start):
    driver = start(broker.port)
    driver.expect(("connected", False))
    with broker.stopped():
        started_at = time.monotonic()
        driver.client.close(0.5)
        assert time.monotonic() - started_at < 1.0


def test_unacknowledged_messages_are_bounded(broker, start):
    driver = start(broker.port)
    driver.expect(("connected", False))
    with Peer(broker.port, "from/us") as peer:
        with broker.stopped():
            for number in range(QUEUE_LIMIT + 100):
                driver.publish(b"%d" % number)
        for number in range(QUEUE_LIMIT - 1):
            assert peer.get()[1] == b"%d" % number
        assert driver.publish(b"end")
        assert b"end" in (peer.get()[1], peer.get()[1])


def test_the_last_will_says_offline_when_the_process_is_killed(broker):
    program = (
        "from fusioncharger.io.mqtt_client import MqttClient\n"
        "from fusioncharger.io.mqtt_connection import Session\n"
        "from fusioncharger.messages.config import MqttConfig\n"
        f"client = MqttClient(MqttConfig(host='127.0.0.1', port={broker.port}),"
        f" Session(('a',), 5.0, '{STATUS}'), on_connected=print, on_disconnected=print, on_message=print)\n"
        "client.start()\n"
        "input()\n"
    )
    with Peer(broker.port, STATUS) as peer:
        process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE)
        try:
            assert peer.get() == (STATUS, b"online", False)
        finally:
            process.kill()
            process.communicate()
        assert peer.get() == (STATUS, b"offline", False)


def test_a_refused_login_is_said_without_the_password_and_tried_again(tmp_path, start, log):
    passwords, password = tmp_path / "passwords", tmp_path / "password"
    passwords.touch(mode=0o600)
    password.write_text("secret-word\n")
    with Mosquitto(tmp_path, f"allow_anonymous false\npassword_file {passwords}") as mosquitto:
        driver = start(mosquitto.port, username="driver", password_file=str(password))
        log.wait_for("login refused: Not authorized; trying on")
        mosquitto.kill()
        log.wait_for("Connection refused; trying on")
        mosquitto._config.write_text(mosquitto._config.read_text().replace("false", "true"))
        passwords.write_text(password_line("driver", "secret-word"))
        mosquitto.start()
        driver.expect(("connected", False))
    assert log.count("secret-word") == 0


def password_line(username, password):
    """A line of mosquitto's password file (PBKDF2-HMAC-SHA512)."""
    salt = os.urandom(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, 101)
    encoded = [base64.b64encode(part).decode() for part in (salt, digest)]
    return f"{username}:$7$101${encoded[0]}${encoded[1]}\n"


def test_a_refused_subscription_is_said_and_tried_again(start, log):
    connack = b"\x20\x03\x00\x00\x00"
    suback_not_authorized = b"\x90\x04\x00\x01\x00\x87"
    with socket.create_server(("127.0.0.1", 0)) as server:
        driver = start(server.getsockname()[1])
        for _ in range(2):
            serve_by_hand(server, connack, suback_not_authorized)
        log.wait_for(f"subscription refused: {TOPIC} (Not authorized); trying on")
    assert log.count("subscription refused") == 1
    assert driver.events.empty()


@contextlib.contextmanager
def amqtt_broker():
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "fusioncharger.app.demo_broker", str(port)])
    try:
        wait_until_accepting(port, process)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(TIMEOUT_S)


def test_a_broker_of_mqtt_3_1_1_only_is_said_once(start, log, monkeypatch):
    # amqtt reads on past a CONNECT that has MQTT 5 properties, and never answers.
    monkeypatch.setattr("fusioncharger.io.mqtt_connection.ANSWER_TIMEOUT_S", 0.3)
    with amqtt_broker() as port, TcpProxy(port) as proxy, Peer(port, "from/us") as peer:
        driver = start(proxy.port)
        for _ in range(2):
            driver.expect(("connected", False))
            peer.publish(TOPIC, b"hello")
            driver.expect(("message", b"hello"))
            assert driver.publish(b"answer")
            assert peer.get() == ("from/us", b"answer", False)
            proxy.cut()
            driver.expect_loss()
            proxy.restore()
    assert log.count("only speaks 3.1.1") == 1


def test_a_broker_that_hangs_up_on_mqtt_5_gets_3_1_1(broker, start, log):
    with TcpProxy(broker.port, refuses=lambda first: b"MQTT\x05" in first) as proxy:
        driver = start(proxy.port)
        driver.expect(("connected", False))
    assert log.count("only speaks 3.1.1") == 1


def test_a_broker_that_spoke_mqtt_5_is_never_taken_for_an_old_one(broker, start, log):
    with TcpProxy(broker.port) as proxy:
        driver = start(proxy.port)
        driver.expect(("connected", False))
        proxy.cut()
        driver.expect_loss()
        attempts = proxy.connections
        log.wait_for("connection closed; trying on")
        proxy.restore()
        driver.expect(("connected", True))
        assert proxy.connections > attempts
    assert log.count("only speaks 3.1.1") == 0


def test_lost_connections_leave_no_descriptors(broker, start):
    with TcpProxy(broker.port) as proxy:
        driver = start(proxy.port)
        driver.expect(("connected", False))
        gc.disable()  # nothing must be left to it
        try:
            before = len(list(Path("/proc/self/fd").iterdir()))
            for _ in range(10):
                proxy.cut()
                driver.expect_loss()
                proxy.restore()
                driver.expect(("connected", True))
            left = len(list(Path("/proc/self/fd").iterdir())) - before
        finally:
            gc.enable()
    assert left < 3, "each connection had two of its own"
