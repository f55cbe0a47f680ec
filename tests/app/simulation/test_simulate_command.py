"""`fusioncharger simulate`: its report of a failure, the smaller plan, and what it says to wrong arguments."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from fusioncharger.actors import connector_state
from fusioncharger.app.cli import main
from fusioncharger.app.simulation.plan import read_plan, to_json
from fusioncharger.app.simulation.swarm import plan_of


@pytest.fixture
def unclamped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug: setpoints are applied as they come."""
    monkeypatch.setattr(connector_state, "clamped", lambda setpoint, _: setpoint)


def test_seeds_that_go_well_are_summed_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--seeds", "0..2", "--minutes", "2", "--jobs", "1"]) == 0
    text = capsys.readouterr().out
    assert "3 runs" in text
    assert re.search(r"\d+ charges begun", text)
    assert "session" in text


def test_several_processes_run_them_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--seeds", "0..3", "--minutes", "1", "--jobs", "2"]) == 0
    assert "4 runs" in capsys.readouterr().out


@pytest.mark.usefixtures("unclamped")
def test_a_failure_is_reported_with_what_reproduces_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["simulate", "--seeds", "0..40", "--minutes", "3", "--jobs", "1", "--out", str(tmp_path)]
    assert main([*arguments, "--shrink-seconds", "6"]) == 1
    text = capsys.readouterr().out
    failed = re.search(r"FAILED seed (\d+): (\S+)\n  at [\d.]+ s, turn (\d+) of process (\d+)", text)
    assert failed, text
    seed, invariant, turn = failed[1], failed[2], failed[3]

    commands = [shlex.split(found)[1:] for found in re.findall(r"again: +(fusioncharger simulate .+)", text)]
    assert commands[0] == ["simulate", "--seeds", seed, "--minutes", "3"]
    for command in commands:
        assert main([*command, "--out", str(tmp_path / "again"), "--shrink-seconds", "0"]) == 1
        again = capsys.readouterr().out
        assert f": {invariant}\n" in again
    assert turn in text

    directory = tmp_path / f"seed-{seed}"
    small, whole = read_plan(directory / "small-plan.json"), read_plan(directory / "plan.json")
    assert len(small.events) < len(whole.events)
    assert small.seconds < whole.seconds
    for log in re.findall(r"log: +(\S+)", text):
        assert main(["replay", log]) == 0  # it replays as it was, the bug included
        picture = tmp_path / f"{Path(log).parent.name}.html"
        assert main(["view", log, "-o", str(picture)]) == 3  # it ends early, with the failure
        assert picture.stat().st_size > 10_000


@pytest.mark.usefixtures("unclamped")
def test_all_seeds_are_run_if_that_is_wanted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["simulate", "--seeds", "0..20", "--minutes", "3", "--jobs", "1", "--out", str(tmp_path)]
    assert main([*arguments, "--keep-going", "--shrink-seconds", "0"]) == 1
    text = capsys.readouterr().out
    assert "21 runs" in text
    assert text.count("FAILED") > 1


def test_a_plan_is_run_as_it_was_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(to_json(plan_of(7, 2)))
    assert read_plan(path) == plan_of(7, 2)
    assert main(["simulate", "--plan", str(path)]) == 0
    by_plan = capsys.readouterr().out
    assert main(["simulate", "--seeds", "7", "--minutes", "2", "--out", str(tmp_path / "log")]) == 0
    assert by_plan.split("sha256 ")[1][:64] == capsys.readouterr().out.split("sha256 ")[1][:64]
    assert list((tmp_path / "log").rglob("*.mcap"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"events": [{"do": "explode", "at_s": 1}]}, "explode"),
        ({"events": [{"do": "unplug", "at_s": 1}]}, "connector"),
        (
            {"events": [{"do": "unplug", "at_s": 1, "connector": 4}]},
            "event 1 (at 1 s): connector: found 4; the",
        ),
        ({"events": [{"do": "psu", "at_s": 1, "command": {"do": "alarn"}}]}, "did you mean 'alarm'?"),
        ({"seconds": 0}, "seconds"),
        ({"config": {"connectors": []}}, "connectors"),
        ({"site": {"hearbeat_s": 1}}, "hearbeat_s"),
        ({"seeds": 1}, "seeds"),
    ],
)
def test_a_wrong_plan_is_refused_with_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], said: str
) -> None:
    table = json.loads(to_json(plan_of(7, 1)))
    table["config"]["connectors"] = table["config"]["connectors"][:1]
    table["events"] = []
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(table | change))
    assert main(["simulate", "--plan", str(path)]) == 2
    text = capsys.readouterr().err
    assert text.startswith(f"{path}: ")
    assert said in text


def test_a_plan_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--plan", str(tmp_path / "none.json")]) == 2
    assert "No such file" in capsys.readouterr().err
    (tmp_path / "text.json").write_text("no plan")
    assert main(["simulate", "--plan", str(tmp_path / "text.json")]) == 2
    assert "not a plan" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "one of the arguments"),
        (["--seeds", "5..3"], "allowed: a number, or two"),
        (["--seeds", "x"], "found 'x'"),
        (["--seeds", "1", "--minutes", "0"], "allowed: more than 0"),
        (["--seeds", "1", "--jobs", "0"], "allowed: 1 to 1024"),
        (["--seeds", "1", "--plan", "x"], "not allowed with"),
        (["--seeds", "1", "--shrink-seconds", "-1"], "0 or more"),
    ],
)
def test_wrong_arguments_are_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["simulate", *arguments])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_a_plan_has_its_own_length(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--plan", "x.json", "--minutes", "1"]) == 2
    assert "has its own length" in capsys.readouterr().err
