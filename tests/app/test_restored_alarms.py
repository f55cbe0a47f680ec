"""The boards' errors over a restart of the driver alone (behaviour.md §6): real processes, a real broker."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from broker import Mosquitto, free_port
from fakes.site_toml import CONNECTOR
from fusioncharger.messages.inputs import BspError, Started
from fusioncharger.replay.reader import read_log
from paho.mqtt.enums import CallbackAPIVersion

BOARD = "everest_api/1/evse_board_support/bsp_1/m2e"
CONFIG = (
    """
ethernet_interface = "udp:0"
psu_ip = "127.0.0.1"
psu_port = {psu_port}
[mqtt]
host = "127.0.0.1"
port = {broker_port}
[journal]
dir = "{journal}"
"""
    + CONNECTOR
)


class Site:
    """A broker, a configuration, and what is needed of one driver after another."""

    def __init__(self, directory: Path, broker: Mosquitto) -> None:
        self.broker = broker
        self.journal = directory / "sessions"
        self.config = directory / "site.toml"
        self.config.write_text(
            CONFIG.format(psu_port=free_port(), broker_port=broker.port, journal=self.journal)
        )

    @contextmanager
    def driver(self, *options: str) -> Iterator["subprocess.Popen[str]"]:
        """A driver that has reached the broker; killed in the end, if it has not ended before."""
        with subprocess.Popen(
            [sys.executable, "-m", "fusioncharger", "run", "--config", str(self.config), *options],
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                await_line(process, "MQTT: connected")
                yield process
            finally:
                process.kill()
                assert process.stderr is not None
                process.stderr.read()  # the recorder inherits standard error: its end is the recorder's end

    def say(self, name: str, payload: str) -> None:
        """As the board support."""
        client = paho.Client(CallbackAPIVersion.VERSION2)
        client.connect("127.0.0.1", self.broker.port)
        client.loop_start()
        client.publish(f"{BOARD}/{name}", payload, qos=1).wait_for_publish(10)
        client.disconnect()
        client.loop_stop()

    def first_input(self) -> Started:
        """Of the newest log."""
        with read_log(max(self.journal.glob("*.mcap"), key=lambda log: log.stat().st_mtime_ns)) as log:
            started = next(log.turns()).input
        assert isinstance(started, Started)
        return started


def await_line(process: "subprocess.Popen[str]", text: str) -> str:
    """The next line of the process log that holds the text."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        if text in line:
            return line
        lines.append(line)
    raise AssertionError(f"the driver has ended without {text!r}: {lines}")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Mosquitto(tmp_path) as broker:
        yield Site(tmp_path, broker)


def test_alarms_outlive_a_driver_that_was_killed(site: Site) -> None:
    with site.driver() as driver:
        site.say("raise_error", '{"type": "EnclosureOpen", "sub_type": "door"}')
        await_line(driver, "door_status_alarm")
    assert site.first_input().restored_errors == ()
    (former,) = site.journal.glob("*.mcap")

    with site.driver() as driver:
        site.say("clear_error", '{"type": "EnclosureOpen", "sub_type": "door"}')
        await_line(driver, "door_status_alarm cleared")
    started = site.first_input()
    assert started.restored_errors == (BspError(1, "EnclosureOpen", "door"),)
    assert started.restored_from == former.name

    with site.driver():
        pass
    assert site.first_input().restored_errors == ()


def test_alarms_are_forgotten_where_that_is_wanted(site: Site) -> None:
    with site.driver() as driver:
        site.say("raise_error", '{"type": "TiltDetected"}')
        await_line(driver, "tilt_alarm")
    with site.driver("--forget-alarms"):
        pass
    started = site.first_input()
    assert (started.restored_errors, started.restored_from) == ((), "")


def test_a_journal_that_cannot_be_read_is_said_and_stops_nothing(site: Site) -> None:
    site.journal.mkdir()
    (site.journal / "20991231T235959Z-11111111-0001.mcap").write_bytes(b"nonsense")
    with subprocess.Popen(
        [sys.executable, "-m", "fusioncharger", "run", "--config", str(site.config)],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert "20991231T235959Z-11111111-0001.mcap" in await_line(process, "alarms of the former run")
        await_line(process, "MQTT: connected")
        process.terminate()
        assert process.stderr is not None
        process.stderr.read()
    assert process.returncode == 0
