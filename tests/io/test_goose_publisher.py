"""The publisher: its schedule, signatures, dead man and errors."""

import errno
import itertools
import logging
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fakes.goose_frames import KEY, OTHER_KEY, PSU_MAC, key_ring, power, stop, words_of
from fakes.recording_port import RecordingPort
from fusioncharger.io.goose_codec import verify
from fusioncharger.io.goose_port import open_port
from fusioncharger.io.goose_publisher import GoosePublisher
from fusioncharger.io.key_ring import KeyRing
from fusioncharger.messages.goose import GooseHeader, PowerRequest, StopRequest, t_of_utc_ns
from fusioncharger.messages.types import PowerRequestMode, RequirementType, StopReason

MS = 1_000_000
T = t_of_utc_ns(1_700_000_000_500_000_000)


def ignore(_reason: str) -> None:
    """For tests in which the core does not stall."""


class Clock:
    """The monotonic clock, and what a test adds to it."""

    def __init__(self) -> None:
        self.ahead_ns = 0

    def __call__(self) -> int:
        return time.monotonic_ns() + self.ahead_ns


@contextmanager
def publishing(port: Any, ring: KeyRing, **settings: Any) -> Iterator[GoosePublisher]:
    settings = {
        "send_secure": True,
        "vlan_id": 0,
        "vlan_priority": 5,
        "on_failure": ignore,
    } | settings
    publisher = GoosePublisher(port, ring, **settings)
    publisher.start()
    try:
        yield publisher
    finally:
        publisher.close()
        assert not publisher.is_alive()


def test_the_first_transmission_is_done_when_issue_returns():
    port = RecordingPort()
    publisher = GoosePublisher(
        port, key_ring(KEY), send_secure=True, vlan_id=200, vlan_priority=4, on_failure=ignore
    )
    publisher.issue(power(st_num=7))

    (frame,) = port.decoded()
    assert (frame.dst, frame.src, frame.tci) == (PSU_MAC, port.mac, 4 << 13 | 200)
    assert frame.message == PowerRequest(
        connector_no=5,
        requirement_type=RequirementType.CHARGING,
        mode=PowerRequestMode.CONSTANT_CURRENT,
        voltage_v=400.0,
        current_a=20.0,
    )
    assert frame.header == GooseHeader(st_num=7, sq_num=0, t_seconds=T[0], t_fraction=T[1])
    assert verify(frame, KEY)
    publisher.close()


def test_repeats_come_after_2_2_4_8_ms_and_then_each_second():
    port = RecordingPort()
    with publishing(port, key_ring(KEY)) as publisher:
        port.on_send = publisher.core_turned
        before_ns = time.monotonic_ns()
        publisher.issue(power())
        port.wait_for_count(7)

    for at_ns, due_ms in zip(port.times_ns(), (0, 2, 4, 8, 16, 1016, 2016), strict=False):
        # Never early; how late depends on the machine.
        assert due_ms <= (at_ns - before_ns) / MS < due_ms + 500
    frames = port.decoded()
    assert [frame.header.sq_num for frame in frames[:7]] == list(range(7))
    assert {(frame.header.t_seconds, frame.header.t_fraction) for frame in frames} == {T}
    assert all(verify(frame, KEY) for frame in frames)
    assert len({frame.signature for frame in frames}) == len(frames)


def test_a_late_thread_sends_no_burst():
    clock = Clock()
    port = RecordingPort(clock)
    with publishing(port, key_ring(KEY), monotonic_ns=clock) as publisher:
        # Sending the second one takes 100 ms.
        delays_ms = itertools.chain((0, 100), itertools.repeat(0))
        port.on_send = lambda: setattr(clock, "ahead_ns", clock.ahead_ns + next(delays_ms) * MS)
        publisher.issue(stop())
        port.wait_for_count(5)

    _, late_ns, *after_ns = port.times_ns()
    for at_ns, due_ms in zip(after_ns, (2, 6, 14), strict=False):
        assert (at_ns - late_ns) / MS >= 100 + due_ms


def test_a_new_message_replaces_the_former():
    port = RecordingPort()
    with publishing(port, key_ring(KEY)) as publisher:
        publisher.issue(power(st_num=1))
        publisher.issue(stop(st_num=2))
        assert publisher.send_out(5, 5)

    kinds = [(type(frame.message), frame.header.st_num) for frame in port.decoded()]
    last_power = max(i for i, kind in enumerate(kinds) if kind == (PowerRequest, 1))
    assert kinds[last_power + 1 :] == [(StopRequest, 2)] * (len(kinds) - last_power - 1)
    assert len(kinds) - last_power - 1 >= 5


def test_each_connector_has_its_own_message_and_key():
    port = RecordingPort()
    with publishing(port, key_ring(KEY, OTHER_KEY)) as publisher:
        publisher.issue(power(1))
        publisher.issue(stop(2))
        assert publisher.send_out(5, 5)

    for frame in port.decoded():
        assert verify(frame, KEY if frame.message.connector_no == 5 else OTHER_KEY)


def test_send_out_says_when_it_takes_too_long():
    port = RecordingPort()
    with publishing(port, key_ring(KEY)) as publisher:
        assert publisher.send_out(5, 0)  # no connector has a message
        publisher.issue(stop())
        assert not publisher.send_out(1000, 0.05)


def test_without_a_key_nothing_is_sent():
    port = RecordingPort()
    ring = KeyRing(1)
    with publishing(port, ring) as publisher:
        publisher.issue(power())
        assert port.frames() == []
        ring.absorb_write(1, 0x2115, words_of(KEY))
        publisher.issue(power(st_num=2))
        port.wait_for_count(2)
        # A key that is gone ends the repeats, and a new message that cannot be signed ends the former one.
        ring.forget(1)
        publisher.issue(stop(st_num=3))
        assert publisher.send_out(1000, 0)
    assert {frame.header.st_num for frame in port.decoded()} == {2}


def test_repeats_end_when_the_key_is_forgotten():
    port = RecordingPort()
    ring = key_ring(KEY)
    with publishing(port, ring) as publisher:
        port.on_send = lambda: ring.forget(1)
        publisher.issue(stop())
        # No message is left to wait for.
        assert publisher.send_out(1000, 5)
    assert len(port.frames()) == 1


def test_plain_frames_need_no_key():
    port = RecordingPort()
    with publishing(port, KeyRing(1), send_secure=False) as publisher:
        publisher.issue(stop())
        port.wait_for_count(2)
    assert all(frame.signature is None for frame in port.decoded())


def test_silence_ends_the_repeats_and_nothing_wakes_the_thread():
    clock_reads = itertools.count()
    port = RecordingPort()

    def clock() -> int:
        next(clock_reads)
        return time.monotonic_ns()

    with publishing(port, key_ring(KEY), monotonic_ns=clock) as publisher:
        publisher.issue(power())
        publisher.silence(1)
        sent = len(port.frames())
        threading.Event().wait(0.1)
        before = next(clock_reads)
        threading.Event().wait(1.2)
        assert next(clock_reads) == before + 1
        assert len(port.frames()) == sent


def test_sq_num_wraps_to_1():
    port = RecordingPort()
    with publishing(port, key_ring(KEY)) as publisher:
        publisher.issue(stop())
        with publisher._condition:
            current = publisher._current[1]
            current.header = GooseHeader(st_num=1, sq_num=0xFFFFFFFF, t_seconds=0, t_fraction=0)
        port.wait_for(lambda frames: any(frame.header.sq_num == 0xFFFFFFFF for frame in frames))
        port.wait_for(lambda frames: frames[-1].header.sq_num == 1)


def test_power_ends_2_s_after_the_last_turn():
    port = RecordingPort()
    stalls: list[str] = []
    with publishing(port, key_ring(KEY), on_failure=stalls.append) as publisher:
        before_ns = time.monotonic_ns()
        publisher.issue(power())
        port.wait_for(lambda frames: isinstance(frames[-1].message, StopRequest))

    for at_ns, frame in zip(port.times_ns(), port.decoded(), strict=True):
        if isinstance(frame.message, PowerRequest):
            assert at_ns - before_ns < 2100 * MS
        else:
            assert at_ns - before_ns >= 2000 * MS
    assert stalls == ["the core has not finished a turn for 2 s"]


def test_a_stalled_core_is_replaced_by_stop_requests_and_gets_no_power_again():
    clock = Clock()
    port = RecordingPort(clock)
    stalled = threading.Event()
    stalls: list[str] = []

    def on_failure(reason: str) -> None:
        stalls.append(reason)
        stalled.set()

    ring = key_ring(KEY, OTHER_KEY, KEY)
    with publishing(port, ring, monotonic_ns=clock, on_failure=on_failure) as publisher:
        publisher.issue(power(1, st_num=0xFFFFFFFF))
        publisher.issue(power(2, st_num=9))
        publisher.issue(power(3, st_num=5, voltage_v=0.0, current_a=0.0))
        clock.ahead_ns += 2000 * MS
        publisher.silence(4)  # wakes the thread, whose sleep was reckoned by the clock before the leap
        assert stalled.wait(5)
        assert publisher.send_out(5, 5)

        newest = {frame.message.connector_no: frame for frame in port.decoded()}
        assert newest[5].message == StopRequest(connector_no=5, reason=StopReason.OTHER_CHARGER_FAULT)
        assert newest[6].message == StopRequest(connector_no=6, reason=StopReason.OTHER_CHARGER_FAULT)
        assert (newest[5].header.st_num, newest[6].header.st_num) == (1, 10)
        assert abs(newest[5].header.t_seconds - time.time()) < 60
        assert newest[7].message.requirement_type == RequirementType.CHARGING
        assert newest[7].header.st_num == 5

        sent = len(port.frames())
        publisher.issue(power(1, st_num=2))
        publisher.issue(power(3, st_num=6))
        publisher.issue(stop(2, st_num=10))
        late = [frame.message for frame in port.decoded()[sent:]]
        assert not any(isinstance(message, PowerRequest) and message.voltage_v > 0 for message in late)
        # The core does not know of the stNum that our stop request took.
        port.wait_for(lambda frames: any(frame.header.st_num == 11 for frame in frames))
    assert len(stalls) == 1


def test_a_core_that_turns_keeps_its_power():
    clock = Clock()
    port = RecordingPort(clock)
    stalls: list[str] = []
    with publishing(port, key_ring(KEY), monotonic_ns=clock, on_failure=stalls.append) as publisher:
        publisher.issue(power())
        for count in range(6, 12):
            with publisher._condition:  # the thread must not see the leap without the turn
                clock.ahead_ns += 1900 * MS
                publisher.core_turned()
            publisher.silence(4)
            port.wait_for_count(count)
    assert stalls == []
    assert all(isinstance(frame.message, PowerRequest) for frame in port.decoded())


def test_send_errors_are_counted_logged_once_and_end(caplog):
    caplog.set_level(logging.INFO, "fusioncharger.goose")
    port = RecordingPort()
    port.error = OSError(errno.ENETDOWN, "Network is down")
    with publishing(port, key_ring(KEY)) as publisher:
        publisher.issue(stop(st_num=1))
        publisher.issue(stop(st_num=2))
        assert publisher.send_errors >= 2
        assert not publisher.send_out(1, 0.05)
        port.error = None
        publisher.issue(stop(st_num=3))
        assert publisher.send_out(5, 5)
        assert publisher.is_alive()
    levels = [record.levelname for record in caplog.records]
    assert levels == ["WARNING", "INFO"]
    assert "Network is down" in caplog.text


def test_once_the_power_was_stopped_none_leaves_any_more():
    port = RecordingPort()
    with publishing(port, key_ring(KEY)) as publisher:
        publisher.issue(stop(st_num=1))
        publisher.stop_power()
        publisher.issue(power(st_num=2))
        publisher.issue(stop(st_num=3))
        assert publisher.send_out(5, 5)
    assert all(isinstance(frame.message, StopRequest) for frame in port.decoded())


def test_an_interface_that_is_gone_is_a_failure():
    failures: queue.SimpleQueue[str] = queue.SimpleQueue()
    port = RecordingPort()
    port.error = OSError(errno.ENXIO, "No such device or address")
    with publishing(port, key_ring(KEY), on_failure=failures.put) as publisher:
        publisher.issue(stop(st_num=1))
        assert "no GOOSE frame could be sent for 2 s" in failures.get(timeout=5)
        assert publisher.is_alive()
    assert failures.empty()


def test_after_close_nothing_is_sent():
    port = RecordingPort()
    with publishing(port, key_ring(KEY)) as publisher:
        publisher.close()
        publisher.issue(power())
    assert port.frames() == []


def test_it_publishes_over_a_real_socket():
    receiving = open_port("udp:0")
    sending = open_port(f"udp:0:{receiving.local_port}")
    with publishing(sending, key_ring(KEY)) as publisher:
        publisher.issue(stop())
        frames = [receiving.receive(5) for _ in range(5)]
    sending.close()
    receiving.close()
    assert None not in frames


def test_whoever_hangs_with_the_lock_cannot_keep_the_power_on():
    port = RecordingPort()
    publisher = GoosePublisher(
        port, key_ring(KEY), send_secure=True, vlan_id=0, vlan_priority=5, on_failure=ignore
    )
    publisher.issue(power())
    held, may_end = threading.Event(), threading.Event()

    def hang() -> None:
        with publisher._condition:
            held.set()
            may_end.wait()

    thread = threading.Thread(target=hang)
    thread.start()
    held.wait()
    publisher.nudge()  # does not wait
    publisher.stop_power()
    assert publisher.send_out(5, 5)
    assert publisher.close()
    may_end.set()
    thread.join()
    kinds = [type(frame.message) for frame in port.decoded()]
    assert kinds == [PowerRequest] + [StopRequest] * 5


def test_without_its_thread_everything_is_sent_all_the_same():
    port = RecordingPort()
    publisher = GoosePublisher(
        port, key_ring(KEY), send_secure=True, vlan_id=0, vlan_priority=5, on_failure=ignore
    )
    publisher.issue(stop())
    assert publisher.send_out(5, 5)
    assert [frame.header.sq_num for frame in port.decoded()] == [0, 1, 2, 3, 4]


def test_a_nudged_thread_turns():
    with publishing(RecordingPort(), key_ring(KEY)) as publisher:
        for beats in range(2, 5):
            deadline_s = time.monotonic() + 5
            while publisher.pulse.beats < beats and time.monotonic() < deadline_s:
                publisher.nudge()
            assert publisher.pulse.beats >= beats
