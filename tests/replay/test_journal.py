"""The journal and its recorder: a real process at the end of a real pipe."""

import os
import resource
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import msgspec
from fakes.recorded_session import INPUTS, RUN_ID, DrivenJournal, record_session
from fusioncharger.messages.inputs import HeartbeatReceived, MqttMessageRejected
from fusioncharger.messages.outputs import LogWritten
from fusioncharger.messages.types import Level
from fusioncharger.replay.log_format import TYPES, json_schema
from fusioncharger.replay.reader import EndKind, read_log
from fusioncharger.replay.replayer import replay
from mcap.reader import make_reader

HEARTBEAT = HeartbeatReceived(connector=1, heartbeat_id=7)

# A driver that records a session, says so, and then waits to be killed.
DRIVER = """
import sys
from pathlib import Path
from fakes.recorded_session import DrivenJournal
driven = DrivenJournal(Path(sys.argv[1]))
driven.open()
driven.run()
print(driven.turn, flush=True)
sys.stdin.read()
"""


def recorder_pid(driven: DrivenJournal) -> int:
    assert driven.journal._recorder is not None
    return driven.journal._recorder.process.pid


def test_a_session_is_recorded_whole_and_closed(tmp_path: Path) -> None:
    with read_log(record_session(tmp_path)) as log:
        turns = list(log.turns())
    assert [type(turn.input) for turn in turns] == [type(message) for message in INPUTS]
    assert [turn.number for turn in turns] == list(range(1, len(INPUTS) + 1))
    assert log.header.run_id == RUN_ID
    assert log.ending is not None
    assert log.ending.kind is EndKind.GOODBYE


def test_file_name_holds_utc_run_and_segment(tmp_path: Path) -> None:
    assert record_session(tmp_path).name == "20261118T110640Z-01234567-0001.mcap"


def test_the_log_is_plain_valid_mcap(tmp_path: Path) -> None:
    """By mcap's own indexed reader, and every payload fits its channel's JSON schema."""
    with record_session(tmp_path).open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        summary = reader.get_summary()
        messages = list(reader.iter_messages(log_time_order=False))
    assert summary is not None
    assert summary.statistics is not None
    assert summary.statistics.message_count == len(messages)
    for schema, channel, message in messages:
        assert schema is not None
        assert channel.message_encoding == "json"
        assert schema.encoding == "jsonschema"
        assert channel.topic.endswith(f"/{schema.name}")
        jsonschema.validate(msgspec.json.decode(message.data), msgspec.json.decode(schema.data))
    inputs = [message for _, channel, message in messages if channel.topic.startswith("in/")]
    assert [message.sequence for message in inputs] == list(range(1, len(INPUTS) + 1))
    assert [message.publish_time for message in inputs] == [n * 10_000_000 for n in range(1, len(INPUTS) + 1)]


def test_every_schema_is_one_that_the_viewers_take() -> None:
    def check(node: dict[str, object]) -> None:
        assert "type" in node
        if node["type"] == "object":
            assert isinstance(node["properties"], dict)
            for child in node["properties"].values():
                check(child)
        if isinstance(node.get("items"), dict):
            check(node["items"])

    for message_type in TYPES.values():
        check(msgspec.json.decode(json_schema(message_type)))


def test_a_killed_driver_loses_nothing_it_had_handed_over(tmp_path: Path) -> None:
    # The recorder inherits standard error: its end is the recorder's end.
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    ) as driver:
        assert driver.stdout is not None
        assert driver.stderr is not None
        assert int(driver.stdout.readline()) == len(INPUTS)
        driver.kill()
        assert driver.stderr.read() == b""
    (path,) = tmp_path.glob("*.mcap")
    with read_log(path) as log:
        found = replay(log)
    assert found.turns == len(INPUTS)
    assert found.divergence is None
    assert log.ending is not None
    assert log.ending.kind is EndKind.DRIVER_DIED


def test_signals_that_stop_a_driver_do_not_stop_the_recorder(tmp_path: Path) -> None:
    driven = DrivenJournal(tmp_path)
    driven.open()
    driven.await_report("ready")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(recorder_pid(driven), number)
    driven.run()
    assert driven.journal.close(10.0)


def test_a_stalled_recorder_delays_no_call_and_loses_nothing(tmp_path: Path) -> None:
    driven = DrivenJournal(tmp_path)
    driven.open()
    driven.await_report("ready")
    pid = recorder_pid(driven)
    os.kill(pid, signal.SIGSTOP)
    costs_s = []
    for turn in range(1, 20_001):  # some 4 MB: four times what the pipe holds
        begin_s = time.perf_counter()
        driven.journal.record_input(turn, turn, HEARTBEAT)
        costs_s.append(time.perf_counter() - begin_s)
    assert driven.journal._backlog
    os.kill(pid, signal.SIGCONT)
    assert driven.journal.close(30.0)
    assert statistics.quantiles(costs_s, n=100)[-1] < 0.005  # the rest is the machine
    with read_log(driven.logs[0]) as log:
        assert sum(1 for _ in log.turns()) == 20_000


def test_a_full_backlog_is_a_failure_and_makes_a_named_gap(tmp_path: Path) -> None:
    driven = DrivenJournal(tmp_path, backlog_bytes=100_000)
    driven.open()
    driven.await_report("ready")
    pid = recorder_pid(driven)
    os.kill(pid, signal.SIGSTOP)
    long = MqttMessageRejected(topic="t" * 1000, reason="r", size_bytes=1)
    driven.run([long] * 2000)
    assert driven.journal.failure is not None
    assert "does not keep up" in driven.journal.failure
    assert driven.journal.prepare_replacement(0)
    driven.await_report("ready")
    assert driven.begin_segment()
    assert driven.journal.failure is None
    driven.run()
    os.kill(pid, signal.SIGCONT)
    assert driven.journal.close(10.0)

    second, first = driven.logs  # the second one's name says 1970
    with read_log(first) as log:
        kept = sum(1 for _ in log.turns())
    assert log.ending is not None
    assert log.ending.kind is EndKind.DRIVER_DIED
    with read_log(second) as log:
        found = replay(log)
        assert log.gap is not None
        assert log.header.segment == 2
        assert log.gap.first_turn == kept + 1
        assert log.gap.last_turn == 2000
        assert log.header.first_turn == 2001
    assert found.divergence is None
    assert found.turns == len(INPUTS)


def test_a_killed_recorder_is_noticed_and_replaced(tmp_path: Path) -> None:
    driven = DrivenJournal(tmp_path)
    driven.open()
    driven.run()
    driven.await_report("ready")
    assert driven.journal._recorder is not None
    driven.journal._recorder.process.kill()
    driven.journal._recorder.process.wait()
    driven.run([HEARTBEAT])
    assert driven.journal.failure == "the recorder is gone: Broken pipe"
    driven.run([HEARTBEAT])

    assert driven.journal.prepare_replacement(2_000_000_000 * 10**9)
    assert driven.await_report("ready").segment == 2
    assert driven.begin_segment()
    driven.run()
    assert driven.journal.close(10.0)
    with read_log(driven.logs[1]) as log:
        found = replay(log)
    assert found.divergence is None
    assert found.turns == len(INPUTS)
    assert log.gap is not None
    assert (log.gap.first_turn, log.gap.last_turn) == (len(INPUTS) + 1, len(INPUTS) + 2)
    assert log.gap.reason == "the recorder is gone: Broken pipe"


def test_a_write_error_is_reported_with_its_reason(tmp_path: Path) -> None:
    driven = DrivenJournal(tmp_path)
    driven.open()
    driven.await_report("ready")
    resource.prlimit(recorder_pid(driven), resource.RLIMIT_FSIZE, (2**16, 2**16))
    driven.run(INPUTS * 50)
    report = driven.await_report("unavailable")
    assert report.reason == f"{tmp_path}: File too large"
    assert driven.journal.failure is not None
    assert not driven.journal.close(10.0)
    with read_log(driven.logs[0]) as log:
        list(log.turns())
    assert log.ending is not None
    assert log.ending.kind is EndKind.DAMAGED


def test_a_directory_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    driven = DrivenJournal(tmp_path / "file" / "sessions")
    driven.open()
    assert driven.await_report("unavailable").reason == f"{tmp_path}/file/sessions: Not a directory"
    assert driven.journal.failure is not None
    driven.run()
    assert not driven.journal.close(10.0)


def test_a_recorder_that_cannot_be_started_is_a_failure(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    driven = DrivenJournal(tmp_path)
    driven.open()
    driven.run()
    assert driven.journal.failure == "the recorder cannot be started: No such file or directory"
    assert not driven.begin_segment()
    assert not driven.journal.close(10.0)


def test_a_replacement_that_was_not_needed_leaves_no_file(tmp_path: Path) -> None:
    driven = DrivenJournal(tmp_path)
    driven.open()
    assert driven.journal.prepare_replacement(0)
    driven.run()
    assert driven.journal.close(10.0)
    assert len(driven.logs) == 1


def test_a_message_that_cannot_be_encoded_is_a_failure_and_no_exception(tmp_path: Path) -> None:
    driven = DrivenJournal(tmp_path)
    driven.open()
    lone_surrogate = LogWritten(level=Level.INFO, connector=0, text="\udc80")
    driven.journal.record_outputs(1, 0, 0, (lone_surrogate,))
    assert driven.journal.failure is not None
    assert driven.journal.failure.startswith("LogWritten cannot be recorded: ")
    assert not driven.journal.close(10.0)


def test_a_turn_without_outputs_writes_none(tmp_path: Path) -> None:
    driven = DrivenJournal(tmp_path)
    driven.open()
    driven.journal.record_input(1, 0, HEARTBEAT)
    driven.journal.record_outputs(1, 0, 0, ())
    assert driven.journal.close(10.0)
    with read_log(driven.logs[0]) as log:
        (turn,) = log.turns()
    assert turn.outputs == ()


def test_close_gives_a_stalled_recorder_up_in_time(tmp_path: Path) -> None:
    driven = DrivenJournal(tmp_path)
    driven.open()
    driven.await_report("ready")
    assert driven.journal._recorder is not None
    process = driven.journal._recorder.process
    os.kill(process.pid, signal.SIGSTOP)
    driven.run()
    assert not driven.journal.close(0.05)
    os.kill(process.pid, signal.SIGCONT)
    assert process.wait(10.0) == 0
    with read_log(driven.logs[0]) as log:
        assert sum(1 for _ in log.turns()) == len(INPUTS)
