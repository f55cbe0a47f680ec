"""The oracle finds nothing to say against the driver, whatever comes: logs, and any sequence of Inputs.
(The simulation checks it in a made-up world, for hours.)

That it can find something is shown in test_invariants_find.py.
"""

from pathlib import Path
from typing import Any

import pytest
from core_harness import make_config
from fusioncharger.actors.connector import Connector
from fusioncharger.actors.dispenser_alarms import DispenserAlarms
from fusioncharger.actors.psu_link import PsuLink
from fusioncharger.actors.telemetry_publisher import TelemetryPublisher
from fusioncharger.app.simulation.invariants import Invariants
from fusioncharger.messages import inputs
from fusioncharger.replay import Session
from fusioncharger.replay.stepping import recorded_config
from hypothesis import given, settings
from hypothesis import strategies as st
from watched_core import CONFIGS, STEPS, WatchedCore

LOGS = sorted((Path(__file__).parents[2] / "sessions").glob("*.mcap"))
FROM_THE_START = [path for path in LOGS if "gap" not in path.name]
"""A log that goes on after a gap begins in mid-charge: the oracle has to see a process from its start on."""


@pytest.mark.parametrize("path", FROM_THE_START, ids=lambda path: path.stem)
def test_golden_logs(path: Path) -> None:
    with Session.open(path) as session:
        with session.log.segments[0].read() as reader:
            config = recorded_config(reader.header)
        oracle = Invariants(config)
        turns = 0
        for step in session:
            oracle.turn(step.turn.input, step.outputs, step.after)
            turns += 1
    assert turns > 40


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(CONFIGS), st.lists(STEPS, max_size=60))
def test_any_sequence(config: Any, steps: list[tuple[Any, ...]]) -> None:
    core = WatchedCore(config)
    core.start()
    for step in steps:
        core.perform(step)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(CONFIGS), st.lists(STEPS, min_size=5, max_size=40), st.integers(10, 500))
def test_any_sequence_with_a_handler_that_raises(
    config: Any, steps: list[tuple[Any, ...]], moment: int
) -> None:
    left = moment
    with pytest.MonkeyPatch.context() as patch:
        for actor in (Connector, PsuLink, DispenserAlarms, TelemetryPublisher):

            def handle(self: Any, message: Any, original: Any = actor.handle) -> None:
                nonlocal left
                left -= 1
                if left == 0:
                    raise RuntimeError("injected")
                original(self, message)

            patch.setattr(actor, "handle", handle)
        core = WatchedCore(config)
        core.start()
        core.connect()
        for step in steps:
            core.perform(step)


def test_one_outage_of_two_losses() -> None:
    """Found by the simulation: the oracle began to count anew with the second loss."""
    core = WatchedCore(make_config(2))
    core.ready().to_charging()
    core.lose_link_twice()
    core.advance(1)


def test_a_restarted_process_knows_nothing() -> None:
    core = WatchedCore(make_config(2))
    core.ready().to_charging()
    again = WatchedCore(core.config)
    again.oracle, again.at_ns = core.oracle, core.at_ns
    again.ready().to_charging()
    again.advance(5)
    again.key(2)
    again.oracle.settled(again.at_ns)


def test_a_shutdown_stops_in_every_state() -> None:
    for prepare in (WatchedCore.plug_in, WatchedCore.key, WatchedCore.reply, WatchedCore.off):
        core = WatchedCore(make_config(2))
        core.ready().to_charging(connector=2)
        for step in (WatchedCore.plug_in, WatchedCore.key, WatchedCore.reply, WatchedCore.off):
            step(core)
            if step is prepare:
                break
        core.feed(inputs.ShutdownRequested(reason="SIGTERM"))


def test_settled_after_a_charge() -> None:
    core = WatchedCore(make_config(1))
    core.ready().to_charging()
    core.advance(30)
    core.oracle.settled(core.at_ns)
    core.off()
    core.oracle.settled(core.at_ns)
    core.plug_out()
    core.oracle.settled(core.at_ns)
