"""The simulation itself: each kind of fault comes about, a seed is one run and no other, and what a run is
checked for is found."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from core_harness import make_config
from fusioncharger.actors import connector_state, measurements, psu_link, psu_link_state
from fusioncharger.actors.connector_psu import ConnectorAtPsu
from fusioncharger.actors.connector_supervision import SupervisedConnector
from fusioncharger.actors.runtime import Runtime
from fusioncharger.actors.telemetry_publisher import TelemetryPublisher
from fusioncharger.app.simulation import recording
from fusioncharger.app.simulation.kinds import KINDS, Draw
from fusioncharger.app.simulation.plan import (
    BrokerLost,
    DriverRestarts,
    HandlerRaises,
    JournalRotates,
    LinkCut,
    Plan,
    Psu,
    Session,
    Settles,
    Site,
    ThreadHeld,
    kind_of,
)
from fusioncharger.app.simulation.run import CORE_RAISES, Result, run
from fusioncharger.app.simulation.swarm import plan_of
from fusioncharger.io.key_ring import KeyRing
from fusioncharger.messages.config import Config
from fusioncharger.messages.inputs import Input, PsuConnected
from fusioncharger.messages.outputs import AnyOutput
from fusioncharger.messages.types import Level
from msgspec.structs import replace


def session(at_s: float = 1.0, connector: int = 1, charge_s: float = 20.0) -> Session:
    return Session(at_s=at_s, connector=connector, seed=5, charge_s=charge_s)


def plan(*events: Any, seconds: float = 120.0, config: Config | None = None, **site: Any) -> Plan:
    """A world in which only this happens."""
    ordered = tuple(sorted(events, key=lambda event: event.at_s))
    config = config or make_config(2, 'telemetry_topic_prefix = "d"')
    return Plan(seed=1, seconds=seconds, config=config, site=Site(**site), events=ordered)


def first_failure(seeds: range, minutes: float) -> tuple[int, Result] | None:
    for seed in seeds:
        result = run(plan_of(seed, minutes))
        if result.failure is not None:
            return seed, result
    return None


# --- the world -----------------------------------------------------------------------------------------------


def test_cars_are_charged_and_all_is_well_afterwards() -> None:
    result = run(plan(session(), session(connector=2), Settles(at_s=60.0)))
    assert result.failure is None
    assert (result.charges_begun, result.charges_done, result.settled) == (2, 2, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_fault_can_be_borne(kind: str) -> None:
    """In the middle of two charges, and three times."""
    draw = Draw(Random(3), make_config(2))
    faults = [event for at_s in (12.0, 30.0, 37.0) for event in KINDS[kind](draw, at_s)]
    events = [session(charge_s=60.0), session(connector=2, charge_s=60.0), *faults, Settles(at_s=75.0)]
    result = run(plan(*events))
    assert result.failure is None
    planned = [kind_of(event) for event in faults if event.at_s < 120]
    assert {name: result.happened[name] for name in planned} == {name: planned.count(name) for name in planned}


def test_a_handler_raises_where_it_is_told_to_and_the_log_replays_all_the_same() -> None:
    raising = HandlerRaises(at_s=20.0, on="SetpointRequested", call=1, after=True)
    result = run(plan(session(charge_s=60.0), raising, JournalRotates(at_s=40.0)))
    assert (result.failure, result.handlers_raised, result.segments) == (None, 1, 2)


def test_a_refusal_that_the_power_unit_cannot_read_ends_the_connection() -> None:
    """Function 0 is answered with 0x80, which is no answer of Modbus."""
    command = {"do": "send", "hex": "000100000002ff00"}
    result = run(plan(session(charge_s=60.0), Psu(at_s=30.0, command=command), Settles(at_s=60.0)))
    assert (result.failure, result.settled) == (None, 1)


def test_a_seed_is_the_same_run_in_every_process(tmp_path: Path) -> None:
    """Byte for byte, whatever Python's hashes are."""
    seeds = ("2", "15")
    logs: list[dict[str, bytes]] = []
    for hash_seed in ("1", "2"):
        logs.append({})
        for seed in seeds:
            out = tmp_path / hash_seed / seed
            command = [sys.executable, "-m", "fusioncharger", "simulate", "--seeds", seed, "--minutes", "4"]
            environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
            done = subprocess.run(
                [*command, "--out", str(out)], env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr
            logs[-1] |= {
                str(path.relative_to(tmp_path / hash_seed)): path.read_bytes() for path in out.rglob("*.mcap")
            }
    assert len(logs[0]) >= len(seeds)
    assert logs[0] == logs[1]


def test_seeds_differ() -> None:
    assert run(plan_of(1, 1)).log_sha256 != run(plan_of(2, 1)).log_sha256


# --- bugs that are put in ------------------------------------------------------------------------------------


def unclamped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Setpoints are applied as they come, whatever the power unit can give."""
    monkeypatch.setattr(connector_state, "clamped", lambda setpoint, _: setpoint)


def goes_on_without_everest(monkeypatch: pytest.MonkeyPatch) -> None:
    """EVerest's silence is noticed, and power goes on."""
    original = SupervisedConnector._everest_lost

    def lost(self: SupervisedConnector, why: str) -> None:
        monkeypatch.setattr(type(self), "_switch_off", lambda *_: None)
        original(self, why)
        monkeypatch.undo()
        goes_on_without_everest(monkeypatch)

    monkeypatch.setattr(SupervisedConnector, "_everest_lost", lost)


def signs_with_the_first_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """All messages are signed with connector 1's key."""
    original = KeyRing.signing_key
    monkeypatch.setattr(
        KeyRing, "signing_key", lambda self, connector: original(self, 1) or original(self, connector)
    )


def repeats_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A topic is published again although nothing has changed."""
    original = TelemetryPublisher.timer_fired

    def fired(self: TelemetryPublisher, name: str) -> None:
        original(self, name)
        published = self.state.published
        self.change(published=dict(list(published.items())[1:]))

    monkeypatch.setattr(TelemetryPublisher, "timer_fired", fired)


def remembers_the_power_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Something that is no state influences what the core does: no replay can know it."""
    original = SupervisedConnector._publish_mode
    calls = 0

    def published(self: SupervisedConnector) -> None:
        nonlocal calls
        calls += 1
        self.log(Level.INFO, f"call {calls}", self._number)
        original(self)

    monkeypatch.setattr(SupervisedConnector, "_publish_mode", published)


def waits_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backoff grows beyond 1 s."""
    monkeypatch.setattr(psu_link, "BACKOFF_MAX_NS", 4_000_000_000)


def takes_what_is_old_for_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device may be silent for 10 s."""
    monkeypatch.setattr(measurements, "FRESH_NS", 10_000_000_000)


def shows_the_lost_power_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Telemetry keeps the values of a power unit that is gone."""
    monkeypatch.setattr(psu_link, "psu_values_unknown", lambda _: {})


def starts_without_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A register has not its start value: that is found in the first turn, with which the world begins."""
    monkeypatch.setattr(psu_link_state, "MODEL", 0)


@pytest.mark.parametrize(
    ("bug", "found"),
    [
        (unclamped, None),
        (goes_on_without_everest, None),
        (signs_with_the_first_key, "a message is signed with its connector's key"),
        (repeats_telemetry, "telemetry is published when it changes"),
        (remembers_the_power_unit, "the journal replays as identical"),
        (waits_too_long, "backoff"),
        (takes_what_is_old_for_new, "voltage_current"),
        (shows_the_lost_power_unit, None),
        (starts_without_registers, "register"),
    ],
)
def test_a_bug_is_found(
    bug: Callable[[pytest.MonkeyPatch], None], found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    bug(monkeypatch)
    failed = first_failure(range(60), 4)
    assert failed is not None
    _, result = failed
    assert result.failure is not None
    assert found in (None, result.failure.invariant), result.failure


def test_a_bug_of_the_first_turn_is_found_without_a_second_one(monkeypatch: pytest.MonkeyPatch) -> None:
    starts_without_registers(monkeypatch)
    result = run(plan(DriverRestarts(at_s=0.0, for_s=60.0, killed=True), seconds=1.0))
    assert result.failure is not None
    assert (result.turns, result.failure.invariant) == (1, "register")


def takes_late_replies(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply counts whichever connection's key verified it."""
    original = ConnectorAtPsu._reply
    monkeypatch.setattr(
        ConnectorAtPsu, "_reply", lambda self, message: original(self, replace(message, connection=0))
    )


def takes_late_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key counts whichever connection it came on."""
    original = ConnectorAtPsu._key
    monkeypatch.setattr(
        ConnectorAtPsu,
        "_key",
        lambda self, connection: original(self, max(connection, self.state.dead_connection + 1)),
    )


def trusts_an_everest_without_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker's loss counts only where there were heartbeats."""
    original = SupervisedConnector._broker_disconnected

    def disconnected(self: SupervisedConnector) -> None:
        if self.state.heartbeat_seen:
            original(self)

    monkeypatch.setattr(SupervisedConnector, "_broker_disconnected", disconnected)


SILENT_S = 30.0
LATE_REPLY = plan(
    session(charge_s=60.0),
    LinkCut(at_s=30.0),
    ThreadHeld(at_s=30.0, on="PowerRequestReplyReceived", for_s=3.0, cut_after_s=0.1),
    Settles(at_s=60.0),
)
LATE_KEY = plan(
    session(charge_s=60.0),
    Psu(at_s=20.0, command={"do": "key", "connector": 1, "key": "again"}),
    Psu(at_s=20.1, command={"do": "silence", "for_s": SILENT_S - 1}),
    Psu(at_s=20.2, command={"do": "key", "connector": 1, "key": "again"}),
    ThreadHeld(at_s=49.0, on="RegistersWritten", for_s=1.5),
    Settles(at_s=60.0),
    config=make_config(2, f"modbus_timeout_s = {SILENT_S}"),
    psu_round_s=24.0,
)
NO_HEARTBEATS = plan(
    session(charge_s=60.0), BrokerLost(at_s=30.0, for_s=10.0, keeps=True), Settles(at_s=60.0), heartbeats=False
)


@pytest.mark.parametrize(
    ("bug", "world", "found"),
    [
        (takes_late_replies, LATE_REPLY, "fsm"),
        (takes_late_keys, LATE_KEY, "fsm"),
        (trusts_an_everest_without_heartbeats, NO_HEARTBEATS, "everest_lost_ignored"),
    ],
)
def test_a_bug_is_found_in_the_world_that_shows_it(
    bug: Callable[[pytest.MonkeyPatch], None], world: Plan, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = run(world)
    assert (sound.failure, sound.settled) == (None, 1)
    bug(monkeypatch)
    failure = run(world).failure
    assert failure is not None
    assert failure.invariant == found


def test_a_request_whose_connection_is_gone_may_fail_as_well() -> None:
    raising = HandlerRaises(at_s=49.05, on="RegistersWritten", call=1, after=True)
    events = tuple(sorted((*LATE_KEY.events, raising), key=lambda event: event.at_s))
    result = run(replace(LATE_KEY, events=events))
    assert (result.failure, result.handlers_raised) == (None, 1)


def test_an_exception_out_of_the_core_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Runtime.turn

    def turn(self: Runtime, message: Input) -> tuple[AnyOutput, ...]:
        if isinstance(message, PsuConnected):
            raise ZeroDivisionError("a bug")
        return original(self, message)

    monkeypatch.setattr(Runtime, "turn", turn)
    failure = run(plan(session())).failure
    assert failure is not None
    assert (failure.invariant, "ZeroDivisionError: a bug" in failure.text) == (CORE_RAISES, True)


def test_a_handler_that_raises_on_its_own_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def resumed(_self: SupervisedConnector) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(SupervisedConnector, "_resumed", resumed)
    failure = run(plan(session())).failure
    assert failure is not None
    assert (failure.invariant, "RuntimeError: a bug" in failure.text) == ("no handler fails", True)


def test_a_segment_that_is_damaged_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    segments = recording.InMemory.segments.fget  # type: ignore[attr-defined]

    def damaged(self: recording.InMemory) -> list[bytes]:
        return [data.replace(b'"connector":1', b'"connector":2', 1) for data in segments(self)]

    monkeypatch.setattr(recording.InMemory, "segments", property(damaged))
    failure = run(plan(session())).failure
    assert failure is not None
    assert failure.invariant == "the journal replays as identical"
