"""Older formats: the golden files replay, and a synthetic one is lifted through the same mechanism."""

import re
from pathlib import Path

import msgspec
import pytest
from fakes.commands import replay_arguments
from fakes.recorded_session import INPUTS, record_session
from fusioncharger.app.replay_command import UNSUPPORTED, replay_command
from fusioncharger.messages.inputs import SetpointRequested
from fusioncharger.replay.lifts import LIFTS, Fields, Lift, can_lift
from fusioncharger.replay.log_format import FORMAT, SEAL_BYTES, seal
from fusioncharger.replay.logs import open_logs
from fusioncharger.replay.reader import EndKind, read_log
from fusioncharger.replay.replayer import replay

GOLDEN = Path(__file__).parents[1] / "sessions"


def test_every_format_that_ever_landed_replays() -> None:
    found: dict[int, int] = {}
    for path in GOLDEN.glob("format-*.mcap"):
        number = int(path.name.split("-")[1])
        with read_log(path) as log:
            result = replay(log)
            assert log.header.format == FORMAT
        assert result.divergence is None
        assert log.ending is not None
        assert log.ending.kind is EndKind.GOODBYE
        found[number] = result.turns
    assert set(found) == set(range(1, FORMAT + 1))
    assert all(turns > 100 for turns in found.values())


def as_format_0(data: bytes) -> bytes:
    """A log as a format 0 would have been: the setpoint's voltage in dV, under another name."""
    setpoint = rb'("type":"SetpointRequested","connector":1,)"voltage_v":400.0,'
    assert len(re.findall(setpoint, data)) == data.count(b'"format":2') == 1
    return resealed(re.sub(setpoint, rb'\1"decivolt":  4000,', data.replace(b'"format":2', b'"format":0')))


def resealed(data: bytes) -> bytes:
    """All payloads with a checksum that holds."""
    start = 0
    while (at := data.find(b',"crc32":"', start)) != -1:
        begin = data.rfind(b'{"type":"', 0, at)
        sealed = seal(msgspec.Raw(data[begin:at] + b"}"))
        data = data[:begin] + sealed + data[at + SEAL_BYTES :]
        start = at + SEAL_BYTES
    return data


def to_volt(fields: Fields) -> Fields:
    assert "voltage_v" not in fields
    return {
        "type": fields["type"],
        "at_ns": fields["at_ns"],
        "connector": fields["connector"],
        "voltage_v": fields["decivolt"] / 10,
        "current_a": fields["current_a"],
    }


SYNTHETIC = {0: Lift({"SetpointRequested": to_volt}), **LIFTS}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = record_session(tmp_path / "new")
    lines = path.read_bytes()
    old = tmp_path / "old.mcap"
    old.write_bytes(as_format_0(lines))
    return old


def test_a_synthetic_older_format_is_lifted_over_several_steps(old: Path) -> None:
    with read_log(old, SYNTHETIC) as log:
        turns = list(log.turns())
    assert log.ending is not None
    assert log.ending.kind is EndKind.GOODBYE
    assert len(turns) == len(INPUTS)
    (setpoint,) = (turn.input for turn in turns if isinstance(turn.input, SetpointRequested))
    assert setpoint.voltage_v == 400.0
    with read_log(old, SYNTHETIC) as log:
        result = replay(log)
    assert (result.turns, result.divergence) == (len(INPUTS), None)
    (segment,) = open_logs([old], SYNTHETIC).segments
    assert segment.header.format == FORMAT


def test_without_its_lift_it_is_refused_by_number(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay_command(replay_arguments(old)) == UNSUPPORTED
    assert f"journal format 0; this version reads formats 1 to {FORMAT}" in capsys.readouterr().err


def test_what_can_be_lifted() -> None:
    assert [number for number in range(-1, FORMAT + 3) if can_lift(number)] == list(range(1, FORMAT + 1))
