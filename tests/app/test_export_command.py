"""`log export`: the tables say what a replay of the log says, in CSV and in Parquet alike."""

import argparse
import csv
import json
import sys
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from fakes.recorded_session import INPUTS, TURN_NS, UTC_NS, DrivenJournal, record_session
from fusioncharger.actors.connector_state import ConnectorState
from fusioncharger.app import export_writers
from fusioncharger.app.export_command import add_arguments, export_command
from fusioncharger.app.export_tables import STATES, TABLES
from fusioncharger.messages.inputs import IsolationMeasured, PowermeterMeasured
from fusioncharger.replay.reader import read_log
from fusioncharger.replay.stepping import Stepper
from msgspec.structs import replace

SESSION = (
    *INPUTS[:-4],
    IsolationMeasured(connector=1, voltage_v=399.5),
    PowermeterMeasured(connector=1, voltage_v=400.25, current_a=19.5),
    *INPUTS[-4:],
)


def export(*words: str | Path) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return export_command(parser.parse_args([str(word) for word in words]))


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_states_are_those_of_the_replay(tmp_path: Path) -> None:
    log = record_session(tmp_path, SESSION)
    assert export(log, "--csv", tmp_path / "tables") == 0
    rows = rows_of(tmp_path / "tables" / "states.csv")
    assert len(rows) > 10
    written = {(int(row["connector"]), int(row["turn"])): row for row in rows}
    last: dict[int, dict[str, str]] = {}
    with read_log(log) as reader:
        stepper = Stepper(reader.header)
        for turn in reader.turns():
            step = stepper.step(turn)
            for connector in (1, 2):
                row = written.get((connector, turn.number))
                if row is not None:
                    changed = {name for name in row if name not in ("utc", "at_s", "turn")}
                    assert connector not in last or any(row[name] != last[connector][name] for name in changed)
                    assert float(row["at_s"]) * 1e9 == pytest.approx(turn.at_ns)
                    assert row["utc"].endswith(f".{turn.utc_ns % 10**9:09}Z")
                    last[connector] = row
                state = step.after[f"connector/{connector}"]
                assert isinstance(state, ConnectorState)
                assert shown(last[connector]) == shown_state(state)
    first = rows[0]
    assert (first["turn"], first["connector"], first["connector_no"]) == ("1", "1", "1")
    assert first["setpoint_v"] == "", "what is not known is empty"
    assert {row["as_recorded"] for row in rows} == {"true"}
    assert {"399.5", ""} == {row["upstream_v"] for row in rows if row["connector"] == "1"}
    assert {row["upstream_v"] for row in rows if row["connector"] == "2"} == {""}


def shown(row: dict[str, str]) -> tuple[object, ...]:
    setpoint = (float(row["setpoint_v"]), float(row["setpoint_a"])) if row["setpoint_v"] else None
    return row["state"], row["mode_phase"], row["mode"], row["bsp_event"], setpoint, int(row["st_num"])


def shown_state(state: ConnectorState) -> tuple[object, ...]:
    event = state.bsp_event.value if state.bsp_event else ""
    setpoint = (state.setpoint.voltage_v, state.setpoint.current_a) if state.setpoint else None
    return state.phase.value, state.mode_phase.value, state.mode.value, event, setpoint, state.st_num


def test_the_messages_are_all_there(tmp_path: Path) -> None:
    log = record_session(tmp_path, SESSION)
    assert export(log, "--csv", tmp_path / "messages.csv", "--table", "messages") == 0
    rows = rows_of(tmp_path / "messages.csv")
    expected: list[tuple[str, str, str]] = []
    with read_log(log) as reader:
        for turn in reader.turns():
            expected.append((str(turn.number), "0", type(turn.input).__name__))
            expected += [
                (str(turn.number), str(place), type(output.message()).__name__)
                for place, output in enumerate(turn.outputs, 1)
            ]
    assert [(row["turn"], row["place"], row["type"]) for row in rows] == expected
    for row in rows:
        message = json.loads(row["message"])
        assert message["type"] == row["type"]
        assert "crc32" not in message
        assert row["connector"] == str(message.get("connector", ""))
        assert row["channel"].split("/")[0] == ("in" if row["place"] == "0" else "out")
    assert Counter(row["intact"] for row in rows) == {"true": len(rows)}


def test_parquet_holds_the_same_with_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_writers, "ROWS_PER_GROUP", 8)
    log = record_session(tmp_path, SESSION)
    assert export(log, "--csv", tmp_path, "--parquet", tmp_path) == 0
    for table in TABLES:
        parquet = pq.ParquetFile(tmp_path / f"{table.name}.parquet")
        found: list[dict[str, Any]] = parquet.read().to_pylist()
        rows = rows_of(tmp_path / f"{table.name}.csv")
        assert parquet.num_row_groups == -(-len(rows) // 8) > 1, "memory is bounded by blocks of rows"
        assert [field.name for field in parquet.schema_arrow] == [column.name for column in table.columns]
        assert str(parquet.schema_arrow.field("utc").type) == "timestamp[ns, tz=UTC]"
        assert len(found) == len(rows)
        for typed, texts in zip(found, rows, strict=True):
            for name, value in typed.items():
                assert as_text(value) == texts[name]


def as_text(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case datetime():
            return f"{value:%Y-%m-%dT%H:%M:%S.%f}000Z"
        case _:
            return str(value)


def test_a_log_that_does_not_replay_is_exported_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    driven = DrivenJournal(tmp_path)
    driven.open()
    for number, message in enumerate(SESSION, 1):
        at_ns = number * TURN_NS
        stamped = replace(message, at_ns=at_ns)
        driven.journal.record_input(number, UTC_NS + at_ns, stamped)
        outputs = driven.runtime.turn(stamped)
        lost = outputs[:1] if number == 5 else outputs
        driven.journal.record_outputs(number, at_ns, UTC_NS + at_ns, lost)
    assert driven.journal.close(10.0)
    assert export(tmp_path, "--csv", tmp_path / "states.csv") == 1
    assert "from turn 5 on it does not replay as it was recorded" in capsys.readouterr().err
    for row in rows_of(tmp_path / "states.csv"):
        assert row["as_recorded"] == ("true" if int(row["turn"]) < 5 else "false")


def test_a_cut_log_is_exported_up_to_the_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = record_session(tmp_path, SESSION)
    log.write_bytes(log.read_bytes()[:-3000])
    assert export(log, "--csv", tmp_path / "tables") == 3
    assert f"{log}: damaged after turn " in capsys.readouterr().err
    assert rows_of(tmp_path / "tables" / "states.csv")


def test_without_pyarrow_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = record_session(tmp_path, SESSION)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert export(log, "--parquet", tmp_path / "states.parquet") == 2
    assert "pip install pyarrow" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == [log], "nothing is left behind"
    assert export(log, "--csv", tmp_path / "states.csv") == 0


def test_what_cannot_be_done_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = record_session(tmp_path, SESSION)

    def said(*words: str | Path) -> str:
        assert export(*words) == 2
        return capsys.readouterr().err

    assert "--csv PATH or --parquet PATH" in said(log)
    assert "neither a directory nor a file whose name ends in .csv" in said(
        log, "--csv", tmp_path / "x.parquet"
    )
    assert "neither a directory" in said(log, "--csv", log)
    assert "neither a directory" in said(log, "--csv", tmp_path / "states.txt")
    assert not (tmp_path / "states.txt").exists()
    there = tmp_path / "states.csv"
    there.write_text("mine")
    assert "--force" in said(log, "--csv", there)
    assert "--force" in said(log, "--csv", tmp_path)
    assert there.read_text() == "mine"
    assert "no such file" in said(tmp_path / "none.mcap", "--csv", tmp_path / "y.csv").lower()
    assert export(log, "--csv", there, "--force") == 0
    assert there.read_text().startswith(",".join(column.name for column in STATES.columns))


def test_every_column_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
    for table in TABLES:
        for column in table.columns:
            assert f"`{column.name}`" in text, column.name
