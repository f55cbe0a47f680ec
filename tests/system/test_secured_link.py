"""Mutual TLS between driver and power unit, with real processes (protocol.md §2.3)."""

import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
from fakes.pki import NOW, make_pem
from rig import Rig, rig

LOAD_S = 60.0
SETPOINTS_PER_S = 4


def certificates(directory: Path) -> Path:
    """A set, made as a user does it."""
    subprocess.run(
        [sys.executable, "-m", "fusioncharger", "certs", str(directory)], capture_output=True, check=True
    )
    return directory


def driver_settings(directory: Path) -> str:
    return f"""
tls_enabled = true
psu_ca_cert = "{directory}/psu_ca.crt.pem"
client_cert = "{directory}/dispenser.crt.pem"
client_key = "{directory}/dispenser.key.pem"
"""


def failures(system: Rig) -> list[str]:
    return [line for line in system.driver.log.all() if "link to the PSU failed" in line]


def wait_refused(system: Rig, times: int, event: str = "tls_refused") -> str:
    """The mock refused so many connections; why it refused the last."""
    mark = 0
    found: dict[str, str] = {}
    for _ in range(times):
        found = system.mock.events.wait(lambda seen: seen["event"] == event, after=mark)
        mark = system.mock.events.all().index(found, mark) + 1
    return found["reason"]


def wait_up(system: Rig) -> None:
    """The link stands; its state is READY."""
    system.mock.events.wait(lambda event: event["event"] == "round_done")
    system.driver.log.wait(lambda line: "MAC for GOOSE is" in line)


@pytest.mark.parametrize(
    ("driver_tls", "mock_tls", "said_by_driver", "said_by_mock"),
    [
        (True, "wrong CA", "certificate is not accepted", "unknown ca"),
        (False, "right", "TLS", "TLS"),
        (True, "none", "TLS", "TLS"),
    ],
    ids=["wrong CA", "plain TCP on a TLS port", "TLS on a plain port"],
)
def test_what_does_not_fit_is_refused_on_both_sides_and_comes_up_when_it_is_mended(
    tmp_path: Path, *, driver_tls: bool, mock_tls: str, said_by_driver: str, said_by_mock: str
) -> None:
    right, mixed = certificates(tmp_path / "right"), certificates(tmp_path / "mixed")
    shutil.copy(right / "dispenser_ca.crt.pem", mixed)
    options = {"right": (str(right),), "wrong CA": (str(mixed),), "none": ()}[mock_tls]
    mended = (str(right),) if driver_tls else ()
    settings = driver_settings(right) if driver_tls else ""
    with rig(tmp_path, settings=settings, mock_options=("--ratings-at-once", *options)) as system:
        system.launch_driver()
        event = "disconnected" if mock_tls == "none" else "tls_refused"
        assert said_by_mock in wait_refused(system, 3, event)
        (line,) = failures(system)
        assert said_by_driver in line
        system.restart_mock("--ratings-at-once", *mended)
        wait_up(system)
        assert len(failures(system)) <= 2  # while the mock was away, the port refused connections


def test_an_expired_certificate_of_the_psu_is_refused(tmp_path: Path) -> None:
    right = certificates(tmp_path / "right")
    issuer = ((right / "psu_ca.crt.pem").read_bytes(), (right / "psu_ca.key.pem").read_bytes())
    expired = tmp_path / "expired.pem"
    expired.write_bytes(b"".join(make_pem(ends=NOW - timedelta(hours=1), issuer=issuer)))
    with rig(tmp_path, settings=driver_settings(right), mock_options=(str(right),)) as system:
        system.mock.kill()
        heard: list[str] = []
        with socket.create_server(("127.0.0.1", system.mock_port)) as listener:
            system.launch_driver()
            heard += [_refusal_by(_accept(listener), expired, right) for _ in range(3)]
        assert all("certificate" in text.lower() for text in heard), heard
        (line,) = [line for line in failures(system) if "refused" not in line]
        assert "expired" in line
        system.restart_mock(str(right), "--ratings-at-once")
        wait_up(system)


def _accept(listener: socket.socket) -> socket.socket:
    listener.settimeout(5)
    connection, _ = listener.accept()
    connection.settimeout(5)
    return connection


def _refusal_by(connection: socket.socket, certificate: Path, folder: Path) -> str:
    """What a peer hears that shows this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.load_verify_locations(folder / "dispenser_ca.crt.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    with connection, pytest.raises(OSError, match=r".") as caught:
        context.wrap_socket(connection, server_side=True).recv(1)
    return str(caught.value)


@pytest.mark.parametrize("which", ["none", "of another CA", "expired"])
def test_a_dispenser_without_a_valid_certificate_is_refused_by_the_mock(tmp_path: Path, which: str) -> None:
    right = certificates(tmp_path / "right")
    issuer = ((right / "dispenser_ca.crt.pem").read_bytes(), (right / "dispenser_ca.key.pem").read_bytes())
    shown = tmp_path / "shown.pem"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(right / "psu_ca.crt.pem")
    if which != "none":
        ends = NOW - timedelta(hours=1) if which == "expired" else NOW + timedelta(days=1)
        shown.write_bytes(b"".join(make_pem(ends=ends, issuer=issuer if which == "expired" else None)))
        context.load_cert_chain(shown)
    with rig(
        tmp_path, settings=driver_settings(right), mock_options=(str(right), "--ratings-at-once")
    ) as system:
        with pytest.raises(OSError, match=r"(?i)certificate|alert|reset|closed|EOF"):
            _read_one_byte(context, system.mock_port)
        reason = wait_refused(system, 1)
        wanted = {"none": "no client certificate", "of another CA": "CA", "expired": "expired"}[which]
        assert wanted in reason
        system.mock.log.wait(lambda line: reason in line)
        assert len([line for line in system.mock.log.all() if reason in line]) == 1
        system.launch_driver()  # one with a certificate is welcome all the same
        wait_up(system)


def _read_one_byte(context: ssl.SSLContext, port: int) -> None:
    """OSError if the peer refuses; with TLS 1.3 that shows only here. A silent end is a refusal, too."""
    with (
        socket.create_connection(("127.0.0.1", port), 5) as plain,
        context.wrap_socket(plain) as encrypted,
    ):
        if not encrypted.recv(1):
            msg = "closed"
            raise OSError(msg)


def test_four_connectors_charge_for_a_minute_with_setpoints_at_four_hertz(tmp_path: Path) -> None:
    right = certificates(tmp_path / "certificates")
    with rig(
        tmp_path,
        connectors=4,
        settings=driver_settings(right),
        mock_options=(str(right), "--ratings-at-once", "--random-keys"),
    ) as system:
        system.start_driver()
        system.everest.start_heartbeats(4)
        for connector in range(1, 5):
            system.everest.wait_error(
                connector, "VendorWarning", "PowerDistributionModule/PowerDistributionModule5", raised=False
            )
            system.charge(connector, 300 + connector, 10)
        charging = system.everest.messages.mark()
        wanted = _setpoints_until(system, time.monotonic() + LOAD_S)
        for connector, (voltage_v, current_a) in wanted.items():
            system.mock.events.wait(
                lambda event, connector=connector, voltage_v=voltage_v, current_a=current_a: (  # type: ignore[misc]
                    event["event"] == "power_request"
                    and event["connector_no"] == connector + 4
                    and (event["voltage"], event["current"]) == (voltage_v, current_a)
                ),
                what=f"the last setpoint of connector {connector}",
            )
            last = system.frames(connector)[-1]
            assert (last["voltage"], last["current"]) == (voltage_v, current_a)
            assert system.everest.raised(connector) == []
        raised = [
            topic for topic, _ in system.everest.messages.all()[charging:] if topic.endswith("raise_error")
        ]
        assert raised == []
        assert system.driver.terminate() == 0
        code, text = system.replay()
        assert code == 0, text
        assert "identical" in text


def _setpoints_until(system: Rig, end_s: float) -> dict[int, tuple[float, float]]:
    """Setpoints, and what meters say, for all connectors; the last setpoints."""
    pace = threading.Event()
    wanted: dict[int, tuple[float, float]] = {}
    n = 0
    next_s = time.monotonic()
    while next_s < end_s:
        n += 1
        for connector in range(1, 5):
            wanted[connector] = (300.0 + connector + n % 50, 10.0 + n % 7)
            system.everest.setpoint(connector, *wanted[connector])
            system.everest.imd(connector, 299.5 + n % 50)
            system.everest.meter(connector, 299.0 + n % 50, 9.5 + n % 7)
        next_s += 1 / SETPOINTS_PER_S
        pace.wait(max(0.0, next_s - time.monotonic()))
    return wanted
