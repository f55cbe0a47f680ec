"""Clock and timers."""

import time

from fusioncharger.io.clock import Clock, Timers
from fusioncharger.messages.inputs import TimerFired
from fusioncharger.messages.outputs import CancelTimer, StartTimer
from hypothesis import given
from hypothesis import strategies as st


def start(name: str, number: int, delay_ns: int) -> StartTimer:
    return StartTimer(owner="a", name=name, number=number, delay_ns=delay_ns)


def fired(name: str, number: int) -> TimerFired:
    return TimerFired(owner="a", name=name, number=number)


def test_time_starts_at_zero_and_utc_is_an_offset_from_it() -> None:
    clock = Clock()
    assert 0 <= clock.now_ns() < 1_000_000_000
    assert abs(clock.now_ns() + clock.utc_offset_ns() - time.time_ns()) < 50_000_000


def test_timers_fire_in_the_order_in_which_they_are_due() -> None:
    timers = Timers()
    assert timers.next_due_ns() is None
    timers.start(start("late", 1, 20), 0)
    timers.start(start("early", 2, 10), 0)
    assert timers.next_due_ns() == 10
    assert timers.fire(9) is None
    assert timers.fire(25) == fired("early", 2)
    assert timers.fire(25) == fired("late", 1)
    assert timers.fire(25) is None


def test_a_restarted_or_cancelled_timer_does_not_fire() -> None:
    timers = Timers()
    timers.start(start("t", 1, 10), 0)
    timers.start(start("t", 2, 30), 0)
    assert timers.fire(20) is None
    assert timers.next_due_ns() == 30
    timers.cancel(CancelTimer(owner="a", name="t", number=2))
    timers.cancel(CancelTimer(owner="a", name="never", number=1))
    assert timers.next_due_ns() is None
    assert timers.fire(100) is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 50), st.booleans()), max_size=30))
def test_only_the_last_start_counts(steps: list[tuple[str, int, bool]]) -> None:
    timers, running = Timers(), {}
    for number, (name, delay_ns, is_start) in enumerate(steps):
        if is_start:
            timers.start(start(name, number, delay_ns), 0)
            running[name] = (delay_ns, number)
        else:
            timers.cancel(CancelTimer(owner="a", name=name, number=number))
            running.pop(name, None)
    came = []
    while (message := timers.fire(1000)) is not None:
        came.append((message.name, message.number))
    assert sorted(came) == sorted((name, number) for name, (_, number) in running.items())
    delays = [running[name][0] for name, _ in came]
    assert delays == sorted(delays)
