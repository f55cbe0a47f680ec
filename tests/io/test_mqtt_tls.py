"""TLS, client certificates, passwords and access lists between the MQTT client and a real broker: what is right
works as it does without TLS, what is wrong is said once and clearly, what is mended works without a restart.
"""

import contextlib
import gc
import queue
import re
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from broker import Mosquitto
from fakes.guarded_broker import PASSWORD, Site
from fakes.mqtt_driver import TOPIC, Driver
from fakes.pki import NOW, make_pem, put
from fakes.tcp_proxy import TcpProxy
from fusioncharger.io.mqtt_access import BROKER, BrokerAccess, BrokerAccessError, findings, load_access
from fusioncharger.messages.config import MqttConfig
from requirements import require_program

DAY = timedelta(days=1)


@pytest.fixture
def site(tmp_path):
    guarded = Site(tmp_path)
    with guarded.mosquitto:
        yield guarded


@contextlib.contextmanager
def said_once(log, *words):
    """A warning with these words, and only one, however often it is tried."""
    log.wait_for(words[0])
    yield
    for word in words:
        assert log.count(word) == 1, log.lines
    assert log.count(PASSWORD) == 0


def test_messages_and_session_are_as_without_tls(site, start, log):
    with TcpProxy(site.mosquitto.port) as proxy:
        driver = start(proxy.port, **site.access)
        driver.expect(("connected", False))
        login = {"username": "other", "password_file": put(site.directory / "other", b"x")}
        other = Driver(site.mosquitto.port, topics=("from/us",), **(site.access | login))
        try:
            other.expect(("connected", False))
            assert other.client.publish(TOPIC, b"hello", 1, retain=False)
            driver.expect(("message", b"hello"))
            assert driver.publish(b"answer")
            other.expect(("message", b"answer"))
            # An Off that is sent while we are cut off arrives: clean start was only at the first connection.
            proxy.cut()
            driver.expect_loss()
            assert other.client.publish(TOPIC, b"Off", 1, retain=False)
            proxy.restore()
            assert sorted([driver.get(), driver.get()]) == [("connected", True), ("message", b"Off")]
            # Many messages in one TLS record: none waits for the next packet to arrive.
            for number in range(200):
                assert other.client.publish(TOPIC, b"%d" % number, 0, retain=False)
            driver.expect(*(("message", b"%d" % number) for number in range(200)))
        finally:
            other.client.close(2.0)
    assert log.count("3.1.1") == 0


def test_a_certificate_of_another_ca(site, start, log):
    put(site.directory / "driver-ca.pem", make_pem(is_ca=True, name="other CA")[0])
    driver = start(site.mosquitto.port, **site.access)
    with said_once(
        log, "the broker's certificate is not accepted", "mqtt.ca_cert has to be the CA that signed it"
    ):
        put(site.directory / "driver-ca.pem", site.ca[0])
        driver.expect(("connected", False))


def test_a_broker_whose_certificate_has_expired(tmp_path, start, log):
    site = Site(tmp_path)
    site.certify("broker", hosts=("localhost",), begins=NOW - 10 * DAY, ends=NOW - DAY)
    with site.mosquitto:
        driver = start(site.mosquitto.port, **site.access)
        with said_once(log, "the broker's certificate is not accepted: certificate has expired; renew it"):
            site.certify("broker", hosts=("localhost",))
            site.change("", "")
            driver.expect(("connected", False))


def test_a_certificate_for_another_host(site, start, log):
    driver = start(site.mosquitto.port, **(site.access | {"host": "127.0.0.1"}))
    with said_once(log, "mqtt.host has to be an address in it"), pytest.raises(queue.Empty):
        driver.events.get(timeout=1)


def test_no_client_certificate(site, start, log):
    driver = start(site.mosquitto.port, **(site.access | {"client_cert": "", "client_key": ""}))
    with said_once(
        log, "the broker refused our certificate: certificate required (it has seen none); trying on"
    ):
        site.change("require_certificate true", "require_certificate false")
        driver.expect(("connected", False))
    assert log.count("3.1.1") == 0


def test_a_client_certificate_that_the_broker_does_not_accept(site, start, log):
    site.certify("driver", ca=make_pem(is_ca=True, name="other CA"))
    driver = start(site.mosquitto.port, **site.access)
    with said_once(log, "the broker refused our certificate: unknown ca (the broker needs the CA that signed"):
        site.certify("driver")
        driver.expect(("connected", False))


def test_a_client_certificate_that_expires_meanwhile(site, start, log):
    with TcpProxy(site.mosquitto.port) as proxy:
        driver = start(proxy.port, **site.access)
        driver.expect(("connected", False))
        site.certify("driver", begins=NOW - 10 * DAY, ends=NOW - DAY)
        proxy.cut()
        driver.expect_loss()
        proxy.restore()
        with said_once(log, f"mqtt.client_cert: {site.directory}/driver.pem: has expired on "):
            site.certify("driver")
            driver.expect(("connected", True))


def test_a_wrong_password(site, start, log):
    put(site.directory / "password", b"wrong-" + PASSWORD.encode())
    driver = start(site.mosquitto.port, **site.access)
    with said_once(log, "login refused: Not authorized; trying on"):
        put(site.directory / "password", PASSWORD.encode())
        driver.expect(("connected", False))


def test_a_password_file_that_is_gone_meanwhile(site, start, log):
    with TcpProxy(site.mosquitto.port) as proxy:
        driver = start(proxy.port, **site.access)
        driver.expect(("connected", False))
        (site.directory / "password").rename(site.directory / "elsewhere")
        proxy.cut()
        driver.expect_loss()
        proxy.restore()
        with said_once(log, f"mqtt.password_file: {site.password} cannot be read: No such file"):
            (site.directory / "elsewhere").rename(site.directory / "password")
            driver.expect(("connected", True))


def test_a_broker_without_tls(tmp_path, start, log):
    site = Site(tmp_path)
    with Mosquitto(tmp_path) as plain:
        start(plain.port, **site.access)
        with said_once(log, "mqtt.tls_enabled = true"):
            log.wait_for("trying on")


def test_files_are_examined_before_the_first_connection(tmp_path):
    site = Site(tmp_path)
    put(tmp_path / "blank", f"\n{PASSWORD}\n".encode())
    access = load_access(MqttConfig(**site.access))
    assert access.password == PASSWORD
    assert access.tls is not None
    assert PASSWORD not in repr(access)
    assert load_access(MqttConfig()) == BrokerAccess(None, None)
    for broken, said in (
        ({"ca_cert": "none.pem"}, f"{BROKER.ca}: none.pem: there is no such file"),
        ({"client_key": f"{tmp_path}/broker.key"}, "mqtt.client_key: "),
        ({"client_cert": f"{tmp_path}/ca.pem"}, "the key does not belong to the certificate"),
        ({"host": "a" * 300}, "mqtt.host: "),
        ({"password_file": f"{tmp_path}/blank"}, "begins with an empty line; its first line has to be"),
        ({"password_file": "none"}, "mqtt.password_file: none cannot be read: No such file"),
    ):
        with pytest.raises(BrokerAccessError) as caught:
            load_access(MqttConfig(**(site.access | broken)))
        assert said in str(caught.value)
        assert PASSWORD not in str(caught.value)


def test_the_documented_certificates_fit_together(tmp_path, start):
    """The commands of security.md, and a broker that has what they make."""
    text = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    (commands,) = re.findall(r"^```sh\n(new=.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert "DNS:broker.local" in commands
    require_program("openssl")
    site = Site(tmp_path)
    for path in (*tmp_path.glob("*.pem"), *tmp_path.glob("*.key")):
        path.unlink()
    script = commands.replace("broker.local", "localhost")
    subprocess.run(["/bin/sh", "-ec", script], cwd=tmp_path, check=True, capture_output=True)
    with site.mosquitto as mosquitto:
        driver = start(mosquitto.port, **(site.access | {"ca_cert": f"{tmp_path}/ca.pem"}))
        driver.expect(("connected", False))
    assert findings(MqttConfig(**(site.access | {"ca_cert": f"{tmp_path}/ca.pem"}))) == []


def open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_lost_and_refused_connections_leave_no_descriptors(site, start, log):
    with TcpProxy(site.mosquitto.port) as proxy:
        driver = start(proxy.port, **site.access)
        driver.expect(("connected", False))
        gc.disable()  # nothing must be left to it
        try:
            before = open_descriptors()
            for _ in range(5):
                proxy.cut()
                driver.expect_loss()
                put(site.directory / "driver-ca.pem", make_pem(is_ca=True, name="other CA")[0])
                refusals = log.count("is not accepted")
                proxy.restore()
                log.wait_for("the broker's certificate is not accepted", count=refusals + 1)
                put(site.directory / "driver-ca.pem", site.ca[0])
                driver.expect(("connected", True))
            left = open_descriptors() - before
        finally:
            gc.enable()
    assert left == 0
