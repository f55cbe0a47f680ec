"""Another setting, and changed code: what differs, in which turns, and nothing that does not."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fakes.commands import replay_arguments
from fakes.other_version import publish_modes_with_a_field_more
from fakes.recorded_session import CONFIG, record_session
from fusioncharger.actors import connector, runtime
from fusioncharger.actors.psu_link_state import PsuLinkState
from fusioncharger.actors.system import build
from fusioncharger.app.replay_command import DAMAGED, DIVERGED, IDENTICAL, USAGE, replay_command
from fusioncharger.messages.config import ConfigError, of_table
from fusioncharger.messages.inputs import Input, RegistersRead, RegistersWritten, TimerFired
from fusioncharger.replay.changed_code import compare
from fusioncharger.replay.comparison import Kind
from fusioncharger.replay.logs import open_logs
from fusioncharger.replay.new_fields import lacking
from fusioncharger.replay.reader import Turn
from fusioncharger.replay.recorded_timers import NOT_RUNNING, RecordedTimers
from fusioncharger.replay.what_if import SettingError, changed_config, what_if
from msgspec import Struct, field
from msgspec.structs import replace

SESSIONS = Path(__file__).parents[1] / "sessions"
DEMO = SESSIONS / "format-2-demo.mcap"
LINK_LOSS = SESSIONS / "link-lost-in-mid-charge.mcap"
DRIVER_DIED = SESSIONS / "emergency-stop-driver-died.mcap"
IN_MID_RUN = SESSIONS / "after-a-gap-in-mid-charge.mcap"


@pytest.mark.parametrize("path", [DEMO, LINK_LOSS, DRIVER_DIED, IN_MID_RUN], ids=lambda path: path.stem)
@pytest.mark.parametrize("setting", ["psu_port=777", "modbus_timeout_s=60", 'mqtt.host="elsewhere"'])
def test_a_setting_that_changes_nothing_differs_nowhere(path: Path, setting: str) -> None:
    compared = what_if(open_logs([path]), [setting])
    assert compared.turns > 50
    assert (compared.differing, compared.kinds) == (0, {})


def test_a_lower_limit_shows_in_capabilities_and_requests_of_its_connector_alone() -> None:
    compared = what_if(open_logs([DEMO]), ["connectors[1].max_export_current_A=30"])
    assert 0 < compared.differing < compared.turns / 2
    kinds = {(kind.output, kind.connector) for kind in compared.kinds}
    assert ("CapabilitiesPublished", 1) in kinds
    assert ("PowerRequested", 1) in kinds
    assert not [kind for kind in kinds if kind[1] == 2]
    lowered = next(
        found
        for kind, found in compared.kinds.items()
        if kind.output == "PowerRequested" and kind.what == "current_a"
    )
    assert lowered.example.endswith("-> 30.0")
    assert compared.first is not None
    assert compared.first.turn.number == min(found.first_turn for found in compared.kinds.values())


def test_a_shorter_timeout_fires_on_virtual_time() -> None:
    """A link that may be silent for 1 s only fails where the power unit paused: a timer that never was."""
    compared = what_if(open_logs([DEMO]), ["modbus_timeout_s=1"])
    found = compared.kinds[Kind("TimerFired", 0, "LogWritten", "new")]
    assert "link to the PSU failed: nothing received for 1 s" in found.example
    kinds = {kind.output for kind in compared.kinds if kind.input == "TimerFired" and kind.what == "new"}
    assert {"PsuDisconnectRequested", "ErrorRaised"} <= kinds


def test_a_longer_timeout_does_not_fire_when_the_recorded_one_did() -> None:
    """EVerest's silence counts later: the turns of the recorded timer are missing, or come later."""
    short = what_if(open_logs([DEMO]), ["everest_timeout_s=30"])
    assert any(kind.input == "TimerFired" or kind.output == "StartTimer" for kind in short.kinds)


def test_a_timer_that_is_due_just_before_an_input_is_said_to_be_undecided(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The longest silence of the power unit, less 1 ms."""
    with open_logs([DEMO]).segments[0].read() as log:
        requests = [turn for turn in log.turns() if isinstance(turn.input, RegistersRead | RegistersWritten)]
    gap_ns = max(later.at_ns - former.at_ns for former, later in pairwise(requests))
    setting = f"modbus_timeout_s={(gap_ns - 1_000_000) / 1e9:.9f}"
    compared = what_if(open_logs([DEMO]), [setting])
    assert compared.undecided >= 1
    assert not any(kind.output == "PsuDisconnectRequested" for kind in compared.kinds)
    assert replay_command(replay_arguments(DEMO, "--set", setting)) == DIVERGED
    said = f"{compared.undecided} times a timer was due less than 2 ms before an input: the input went"
    assert said in capsys.readouterr().out
    assert what_if(open_logs([DEMO]), ["modbus_timeout_s=60"]).undecided == 0


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("esn", "write KEY=VALUE, as modbus_timeout_s=5"),
        ("=3", "write KEY=VALUE"),
        ("nothing.here=1", "there is no nothing"),
        ("connectors[9].esn=1", r"there is no connectors\[9\]"),
        ("connectors.esn=1", "there is no connectors"),
    ],
)
def test_what_is_no_setting(setting: str, said: str) -> None:
    (segment,) = open_logs([DEMO]).segments
    with pytest.raises(SettingError, match=said):
        changed_config(segment.header.config, [setting])


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("psu_prot=1", "did you mean psu_port"),
        ("psu_port=70000", "allowed: a TCP port"),
        ("psu_port=x", "found 'x'"),
    ],
)
def test_a_wrong_value_is_explained_as_in_a_file(
    setting: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (segment,) = open_logs([DEMO]).segments
    with pytest.raises(ConfigError, match=said):
        changed_config(segment.header.config, [setting])
    assert replay_command(replay_arguments(DEMO, "--set", setting)) == USAGE
    assert capsys.readouterr().err.startswith("--set: ")


def test_settings_are_toml_values() -> None:
    (segment,) = open_logs([DEMO]).segments
    settings = ["psu_port=777", 'esn="A1"', "software_version=2.0-b", "tls_enabled=false", "mqtt.port=1884"]
    config = changed_config(segment.header.config, settings)
    assert (config.psu_port, config.esn, config.software_version) == (777, "A1", "2.0-b")
    assert config.mqtt.port == 1884
    assert changed_config(segment.header.config, []) == of_table(dict(segment.header.config), "x")


# --- changed code ------------------------------------------------------------------------------------------


def test_changed_code_is_reported_by_kind_with_the_first_turn_in_full(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lower(voltage_v: float) -> float:
        return voltage_v - 1

    recorded = connector.Setpoint
    monkeypatch.setattr(
        connector, "Setpoint", lambda voltage_v, current_a: recorded(lower(voltage_v), current_a)
    )
    assert replay_command(replay_arguments(DEMO)) == DIVERGED
    out = capsys.readouterr().out
    assert out.startswith("diverged in turn ")
    assert "at SetpointRequested: PowerRequested of connector 1: other voltage_v (" in out
    assert " turns differ, in " in out
    assert "replay LOG --at TURN" in out
    assert replay_command(replay_arguments(DEMO, "--first")) == DIVERGED
    first = capsys.readouterr().out
    assert out.startswith(first.rstrip("\n"))
    assert " turns differ, in " not in first


def test_new_fields_are_accepted_if_that_is_wanted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after an upgrade whose outputs have a field more than the recorded ones."""
    log = record_session(tmp_path)
    publish_modes_with_a_field_more(monkeypatch)
    assert replay_command(replay_arguments(log)) == DIVERGED
    assert "other colour" in capsys.readouterr().out
    assert replay_command(replay_arguments(log, "--accept-new-fields")) == IDENTICAL
    assert "fields that the recorded version did not have were ignored" in capsys.readouterr().out
    assert replay_command(replay_arguments(log, "--accept-new-fields", "--first")) == IDENTICAL


def test_a_run_begins_as_the_other_setting_has_it() -> None:
    compared = what_if(open_logs([DEMO]), ["connectors[1].max_export_power_W=20000"])
    assert compared.first is not None
    assert compared.first.turn.number == 1
    assert compared.carried_over == 0


def test_of_a_log_that_begins_in_mid_run_it_is_said_what_stays(capsys: pytest.CaptureFixture[str]) -> None:
    assert replay_command(replay_arguments(IN_MID_RUN, "--set", "psu_port=777")) == IDENTICAL
    assert "what the recorded settings had led to stays" in capsys.readouterr().out


def test_a_cut_log_is_said_to_be_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(LINK_LOSS.read_bytes()[:-2000])
    assert replay_command(replay_arguments(cut, "--set", "psu_port=777")) == DAMAGED
    out = capsys.readouterr().out
    assert "no difference: " in out
    assert f"{cut}: damaged after turn " in out


@pytest.mark.parametrize("log", [DEMO, LINK_LOSS, DRIVER_DIED, IN_MID_RUN], ids=lambda path: path.stem)
def test_a_timer_more_changes_no_turn_but_its_own(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All later timers have other numbers than the recorded ones then, and fire all the same."""
    start = runtime.CoreActor.start_timer

    def start_with_one_more(self: runtime.CoreActor[Any], name: str, delay_ns: int) -> None:
        if "extra" not in self.state.timers:
            start(self, "extra", 3600 * runtime.SECOND_NS)
        start(self, name, delay_ns)

    monkeypatch.setattr(runtime.CoreActor, "start_timer", start_with_one_more)
    compared = compare(open_logs([log]), accept_new_fields=False, done=lambda *_: None)
    assert compared.turns > 50
    assert 1 <= compared.differing <= len(build(CONFIG).states())
    assert {(kind.output, kind.what) for kind in compared.kinds} == {("StartTimer", "new")}


def test_a_timer_that_did_not_count_in_the_recorded_run_does_not_count_here() -> None:
    timers = RecordedTimers({"psu_link": {"timers": {"second": 3}}})
    link = PsuLinkState(timers={"second": 5})
    stale = TimerFired(owner="psu_link", name="second", number=2)
    on_its_way = TimerFired(owner="psu_link", name="second", number=3)
    assert given(timers, stale, link) == stale
    assert given(timers, replace(stale, number=5), link) == replace(stale, number=NOT_RUNNING)
    assert given(timers, on_its_way, link) == replace(on_its_way, number=5)
    assert given(timers, on_its_way, link) == on_its_way, "it has fired already"


def given(timers: RecordedTimers, fired: TimerFired, link: PsuLinkState) -> Input:
    return timers.input(Turn(1, 0, 0, fired, (), complete=True), {"psu_link": link})


class Colour(Struct, frozen=True):
    name: str = "red"
    shade: int = 3


class Painted(Struct, frozen=True, tag=True):
    connector: int
    colours: tuple[Colour, ...] = (Colour(), Colour("blue"))
    by_name: dict[str, Colour] = field(default_factory=lambda: {"a": Colour()})
    raw: bytes = b"\x01"


@pytest.mark.parametrize(
    ("path", "value", "lacks"),
    [
        ((), None, 0),
        (("colours", 1, "shade"), None, 1),
        (("by_name", "a", "shade"), None, 1),
        (("by_name",), None, 1),
        (("by_name", "a"), None, None),
        (("colours", 1), None, None),
        (("colours", 0, "shade"), 4, None),
        (("colours", 0, "shade"), 3.0, None),
        (("colours", 0, "gone"), 1, None),
        (("raw",), "Ag==", None),
    ],
)
def test_fields_that_are_new_at_any_depth(
    path: tuple[str | int, ...], value: object, lacks: int | None
) -> None:
    recorded = msgspec.to_builtins(Painted(1))
    recorded["colours"] = list(recorded["colours"])
    place: Any = recorded
    for key in path[:-1]:
        place = place[key]
    if path and value is None:
        del place[path[-1]]
    elif path:
        place[path[-1]] = value
    assert lacking(recorded, Painted(1)) == lacks
