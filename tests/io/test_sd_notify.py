"""What systemd hears, over a real datagram socket."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from fusioncharger.io.sd_notify import SystemdNotifier


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path):
    """Address, and what has come so far."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@fusioncharger-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(address.replace("@", "\0", 1))
        notified.settimeout(0)

        def heard() -> list[str]:
            messages = []
            try:
                while True:
                    messages.append(notified.recv(1000).decode())
            except BlockingIOError:
                return messages

        yield address, heard


def test_ready_watchdog_and_stopping(systemd: tuple[str, Callable[[], list[str]]]):
    address, heard = systemd
    clock = Clock()
    notifier = SystemdNotifier(address, watchdog_s=10.0, monotonic_s=clock)
    assert heard() == [], "nothing before the first turn"
    notifier.turned()
    assert heard() == ["READY=1", "WATCHDOG=1"]
    for _ in range(1000):
        notifier.turned()
    assert heard() == [], "turns are many, messages few"
    clock.now_s += 2.5
    notifier.turned()
    assert heard() == ["WATCHDOG=1"]
    clock.now_s += 100
    assert heard() == [], "without turns nothing is said"
    notifier.stopping("a part\nhas failed")
    assert heard() == ["STOPPING=1\nSTATUS=stopping: a part has failed"]
    notifier.turned()
    assert heard() == []
    notifier.close()
    notifier.turned()
    assert heard() == []


def test_a_reason_that_is_no_text_keeps_nobody_from_ending(systemd: tuple[str, Callable[[], list[str]]]):
    """A path that is not UTF-8, as Python shows it in an error."""
    address, heard = systemd
    notifier = SystemdNotifier(address)
    notifier.stopping("no such file: /x\udcff")
    assert heard() == ["STOPPING=1\nSTATUS=stopping: no such file: /x?"]
    notifier.close()


def test_turns_without_supervision_do_not_count(systemd: tuple[str, Callable[[], list[str]]]):
    address, heard = systemd
    clock = Clock()
    notifier = SystemdNotifier(address, watchdog_s=10.0, monotonic_s=clock)
    notifier.turned()
    heard()
    clock.now_s += 31
    notifier.turned()
    assert heard() == []
    notifier.supervised()
    notifier.turned()
    assert heard() == ["WATCHDOG=1"]
    notifier.close()


def test_without_a_watchdog_only_ready_is_said(systemd: tuple[str, Callable[[], list[str]]]):
    address, heard = systemd
    clock = Clock()
    notifier = SystemdNotifier.of_environment({"NOTIFY_SOCKET": address})
    for _ in range(3):
        notifier.turned()
        clock.now_s += 1000
    assert heard() == ["READY=1"]
    notifier.close()


def test_without_systemd_nothing_is_sent():
    notifier = SystemdNotifier.of_environment({})
    assert notifier._socket is None
    notifier.turned()
    notifier.supervised()
    notifier.stopping("whatever")
    notifier.close()


def test_the_environment_is_not_for_our_children(systemd: tuple[str, Callable[[], list[str]]]):
    address, heard = systemd
    environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": str(os.getpid())}
    notifier = SystemdNotifier.of_environment(environment)
    assert environment == {}
    notifier.turned()
    assert heard() == ["READY=1", "WATCHDOG=1"]
    notifier.close()


@pytest.mark.parametrize("watchdog", [("0", ""), ("x", ""), ("1000000", "1")])
def test_a_watchdog_that_is_not_for_us_is_not_fed(systemd, watchdog):
    address, heard = systemd
    usec, process = watchdog
    environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": usec, "WATCHDOG_PID": process}
    notifier = SystemdNotifier.of_environment(environment)
    notifier.turned()
    assert heard() == ["READY=1"]
    notifier.close()


def test_a_socket_that_is_full_or_gone_holds_nothing_up(tmp_path: Path):
    clock = Clock()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(tmp_path / "notify"))
        notifier = SystemdNotifier(str(tmp_path / "notify"), watchdog_s=4.0, monotonic_s=clock)
        for _ in range(5000):  # more than any socket takes
            notifier.turned()
            clock.now_s += 1
            notifier.supervised()
    notifier.turned()
    notifier.close()
