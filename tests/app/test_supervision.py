"""When a thread is complained of, and when not."""

import threading

import pytest
from fusioncharger.app.supervision import BLOCKING_LOOKS, LOOKS, Watched, log_where_threads_are
from fusioncharger.io.pulse import Pulse


def test_a_dead_thread_is_complained_of_at_once():
    assert Watched("core", lambda: False).complaint() == "the core thread has died"


def test_a_thread_that_moves_is_left_alone():
    pulse = Pulse()
    nudges: list[int] = []
    watched = Watched("link", lambda: True, pulse, lambda: nudges.append(1))
    for _ in range(100):
        pulse.beats += 1
        assert watched.complaint() == ""
    assert nudges == []


def test_a_thread_that_only_has_nothing_to_do_turns_when_nudged():
    pulse = Pulse()

    def nudge() -> None:
        pulse.beats += 1

    watched = Watched("receiver", lambda: True, pulse, nudge)
    assert [watched.complaint() for _ in range(100)] == [""] * 100


def test_a_thread_that_hangs_is_complained_of_after_some_looks():
    watched = Watched("receiver", lambda: True, Pulse())
    complaints = [watched.complaint() for _ in range(LOOKS + 1)]
    assert complaints == [""] * LOOKS + ["the receiver thread hangs"]


def test_a_thread_that_asks_a_name_server_is_given_more_time():
    pulse = Pulse()
    watched = Watched("link", lambda: True, pulse)
    with pulse.blocking():
        complaints = [watched.complaint() for _ in range(BLOCKING_LOOKS + 1)]
    assert complaints == [""] * BLOCKING_LOOKS + ["the link thread hangs"]
    pulse.beats += 1
    assert watched.complaint() == ""


def test_how_long_it_was_given_is_not_held_against_what_comes_next():
    pulse = Pulse()
    watched = Watched("link", lambda: True, pulse)
    with pulse.blocking():
        assert [watched.complaint() for _ in range(LOOKS + 2)] == [""] * (LOOKS + 2)
    assert [watched.complaint() for _ in range(LOOKS + 1)] == [""] * LOOKS + ["the link thread hangs"]


def test_without_a_pulse_it_only_has_to_live():
    watched = Watched("process log", lambda: True)
    assert [watched.complaint() for _ in range(2 * BLOCKING_LOOKS)] == [""] * 2 * BLOCKING_LOOKS


def test_where_a_thread_hangs_is_logged(caplog: pytest.LogCaptureFixture):
    waiting = threading.Event()
    may_end = threading.Event()

    def hang_here() -> None:
        waiting.set()
        may_end.wait()

    thread = threading.Thread(target=hang_here, name="hanging")
    thread.start()
    waiting.wait()
    log_where_threads_are()
    may_end.set()
    thread.join()
    (line,) = [line for line in caplog.messages if line.startswith("thread hanging is in: ")]
    assert "hang_here (test_supervision.py:" in line
