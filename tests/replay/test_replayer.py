"""Replay: identical, diverged, damaged, not supported; in process and by the command's exit code."""

import argparse
import re
import zlib
from pathlib import Path

import pytest
from fakes.commands import replay_arguments
from fakes.recorded_session import INPUTS, DrivenJournal, record_segments, record_session
from fusioncharger.actors.runtime import Runtime
from fusioncharger.app.replay_command import (
    DAMAGED,
    DIVERGED,
    IDENTICAL,
    UNSUPPORTED,
    USAGE,
    add_arguments,
    replay_command,
)
from fusioncharger.messages.inputs import HeartbeatReceived
from fusioncharger.messages.outputs import CommunicationChecked, ModePublished
from fusioncharger.messages.types import Mode
from fusioncharger.replay.reader import read_log
from fusioncharger.replay.replayer import replay

TURNS = len(INPUTS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A whole log."""
    return record_session(tmp_path_factory.mktemp("session")).read_bytes()


def command(path: Path, data: bytes) -> int:
    path.write_bytes(data)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return replay_command(parser.parse_args([str(path)]))


def resealed(whole: bytes, old: bytes, new: bytes) -> bytes:
    """The log with part of its first payload that holds it replaced, sealed again; same length."""
    assert len(old) == len(new)
    position = whole.index(old)
    start = whole.rindex(b'{"type":"', 0, position)
    end = whole.index(b',"crc32":"', position)
    covered = whole[start:position] + new + whole[position + len(old) : end]
    seal = b',"crc32":"%08x"}' % zlib.crc32(covered)
    return whole[:start] + covered + seal + whole[end + len(seal) :]


def test_a_log_replays_as_identical(whole: bytes, tmp_path: Path, capsys) -> None:
    assert command(tmp_path / "log.mcap", whole) == IDENTICAL
    assert re.fullmatch(rf"identical: {TURNS} turns, \d+ outputs\n", capsys.readouterr().out)


def test_replay_starts_at_any_segment(tmp_path: Path) -> None:
    """The state that the former segment left comes from the snapshot alone."""
    logs = record_segments(tmp_path, INPUTS[:8], INPUTS[8:])
    for path, turns in zip(logs, (8, TURNS - 8), strict=True):
        with read_log(path) as log:
            found = replay(log)
        assert found.divergence is None
        assert found.turns == turns


def test_a_changed_output_is_reported_with_turn_and_field(whole: bytes, tmp_path: Path, capsys) -> None:
    changed = resealed(whole, b'"owner":"psu_link","name":', b'"owner":"psu_lynk","name":')
    assert command(tmp_path / "log.mcap", changed) == DIVERGED
    out = capsys.readouterr().out
    assert out.startswith("diverged in turn 1, output 3: StartTimer.owner\n")
    assert re.search(r'^!   owner +"psu_lynk" +"psu_link"$', out, re.MULTILINE)
    assert "checksum" not in out
    assert max(map(len, out.splitlines())) <= 100


def test_every_changed_byte_of_a_recorded_output_names_turn_and_field(
    whole: bytes, tmp_path: Path, capsys
) -> None:
    start = whole.index(b'{"type":"ReadAnswered","connection"')
    end = whole.index(b',"crc32":"', start)
    fields = {"type", "connection", "transaction_id", "unit_id", "words"}
    for position in range(start, end):
        for value in (0x00, 0x21, 0x31, 0xFF):
            if whole[position] == value:
                continue
            changed = whole[:position] + bytes([value]) + whole[position + 1 :]
            assert command(tmp_path / "log.mcap", changed) == DIVERGED
            out = capsys.readouterr().out
            found = re.match(r"diverged in turn 4, output 1: ReadAnswered\.(.+)\n.*checksum fails", out)
            assert found, out
            # A changed key is a field too many and one too few.
            name = re.split(r"[.\[]", found[1])[0]
            assert name in fields or re.search(rf"^!   {re.escape(name)} ", out, re.MULTILINE), out


def test_a_changed_checksum_of_an_output_is_damage_if_the_output_is_as_replayed(
    whole: bytes, tmp_path: Path, capsys
) -> None:
    position = whole.index(b'"crc32":"', whole.index(b'{"type":"ReadAnswered","connection"')) + 9
    changed = whole[:position] + b"~" + whole[position + 1 :]
    assert command(tmp_path / "log.mcap", changed) == DAMAGED
    out = capsys.readouterr().out
    assert "the checksum of output 1 of turn 4 fails, though it is as replayed" in out
    assert f"identical: {TURNS} turns" in out


def test_a_log_cut_before_its_last_outputs_is_identical_up_to_there(
    whole: bytes, tmp_path: Path, capsys
) -> None:
    cut = whole[: whole.index(b'{"type":"ModePublished","connector":2')]
    assert command(tmp_path / "log.mcap", cut) == DAMAGED
    out = capsys.readouterr().out
    assert "the log ends in turn 1 before all its outputs were handed over: 1 of 13 are recorded" in out
    assert re.search(
        r"^damaged after turn 1: .*; replayed up to there: identical: 1 turns, 1 outputs$", out, re.MULTILINE
    )


def test_a_divergence_before_the_cut_counts_more_than_the_cut(whole: bytes, tmp_path: Path) -> None:
    changed = resealed(whole, b'"owner":"psu_link","name":', b'"owner":"psu_lynk","name":')
    assert command(tmp_path / "log.mcap", changed[:-100]) == DIVERGED


def record_with(directory: Path, outputs: tuple[ModePublished | CommunicationChecked, ...]) -> bytes:
    """A log of one turn whose recorded outputs are these, whatever the core says."""
    driven = DrivenJournal(directory)
    driven.open()
    driven.journal.record_input(1, 0, HeartbeatReceived(connector=1, heartbeat_id=1))
    driven.journal.record_outputs(1, 0, 0, outputs)
    assert driven.journal.close(10.0)
    return driven.logs[0].read_bytes()


def test_missing_and_other_outputs_are_told_apart(tmp_path: Path, capsys) -> None:
    assert command(tmp_path / "few", record_with(tmp_path / "1", ())) == DIVERGED
    assert capsys.readouterr().out.startswith("diverged in turn 1, output 1: StartTimer.type\n")
    other = record_with(tmp_path / "2", (CommunicationChecked(connector=1),) * 100)
    assert command(tmp_path / "other", other) == DIVERGED
    out = capsys.readouterr().out
    assert re.search(r'^!   type +"CommunicationChecked" +"StartTimer"$', out, re.MULTILINE)
    assert re.search(r'^!   type +"CommunicationChecked" +-$', out, re.MULTILINE)


def test_what_the_core_raises_is_reported(whole: bytes, tmp_path: Path, capsys, monkeypatch) -> None:
    def broken(_runtime: object, _message: object) -> tuple[()]:
        msg = "boom"
        raise RuntimeError(msg)

    monkeypatch.setattr(Runtime, "turn", broken)
    assert command(tmp_path / "log.mcap", whole) == DIVERGED
    assert "the core raised RuntimeError: boom (broken, line " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new"),
    [(b'"format":2', b'"format":3'), (b'"run_id":"', b'"ran_id":"'), (b'"psu_link":{', b'"psu_lynk":{')],
)
def test_what_this_version_does_not_know_is_not_supported(
    whole: bytes, tmp_path: Path, capsys, old: bytes, new: bytes
) -> None:
    assert command(tmp_path / "log.mcap", resealed(whole, old, new)) == UNSUPPORTED
    assert "not supported: " in capsys.readouterr().err


@pytest.mark.parametrize(("data", "code"), [(b"", DAMAGED), (b"\x89MC", DAMAGED), (b"something", USAGE)])
def test_files_that_hold_no_turn(tmp_path: Path, capsys, data: bytes, code: int) -> None:
    assert command(tmp_path / "log.mcap", data) == code
    captured = capsys.readouterr()
    assert (captured.out + captured.err).count("\n") == 1


def test_no_such_log_is_a_usage_error(tmp_path: Path, capsys) -> None:
    assert replay_command(replay_arguments(tmp_path / "missing.mcap")) == USAGE
    assert replay_command(replay_arguments(tmp_path)) == USAGE
    assert "No such file" in capsys.readouterr().err


def test_a_gap_is_named(tmp_path: Path, capsys) -> None:
    driven = DrivenJournal(tmp_path)
    driven.open()
    driven.journal.failure = "the disk was full"
    driven.run()
    assert driven.journal.prepare_replacement(2_000_000_000 * 10**9)
    assert driven.begin_segment()
    driven.run()
    assert driven.journal.close(10.0)
    assert replay_command(replay_arguments(driven.logs[1])) == IDENTICAL
    assert capsys.readouterr().out.startswith(f"gap: turns 1 to {TURNS} are missing: the disk was full\n")


def test_modes_are_shown_as_the_api_writes_them(tmp_path: Path, capsys) -> None:
    recorded = record_with(tmp_path / "1", (ModePublished(connector=1, mode=Mode.FAULT),) * 5)
    assert command(tmp_path / "log.mcap", recorded) == DIVERGED
    assert '"Fault"' in capsys.readouterr().out
