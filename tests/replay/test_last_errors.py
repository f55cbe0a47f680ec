"""What the boards had reported, out of real logs: whole, cut, altered, of killed processes, and foreign."""

import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path

import msgspec
import pytest
from fakes.recorded_session import CONFIG, INPUTS, UTC_NS, DrivenJournal, record_session
from fusioncharger.actors.dispenser_alarms import DispenserAlarmsState, with_error
from fusioncharger.actors.system import build, snapshot
from fusioncharger.messages.config import Config
from fusioncharger.messages.inputs import (
    ActiveErrorsReceived,
    BspError,
    BspErrorCleared,
    BspErrorRaised,
    HeartbeatReceived,
    Input,
    RegistersRead,
    Started,
)
from fusioncharger.messages.outputs import ReadAnswered
from fusioncharger.replay import skimming
from fusioncharger.replay.housekeeping import compress
from fusioncharger.replay.journal import boot_id
from fusioncharger.replay.last_errors import NOTHING, LastErrors, restore_errors
from fusioncharger.replay.log_format import PIPE_HEAD, SegmentHeader, seal
from fusioncharger.replay.reader import LogError, read_log
from fusioncharger.replay.recorder import SegmentWriter
from fusioncharger.replay.segment_file import SegmentFile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap.opcode import Opcode
from mcap.writer import MCAP0_MAGIC, CompressionType, Writer
from msgspec.structs import replace

STARTED = INPUTS[0]
HEARTBEAT = HeartbeatReceived(connector=1, heartbeat_id=7)
DOOR = BspError(1, "EnclosureOpen", "door")
EPO = BspError(2, "MREC8EmergencyStop")
TILT = BspError(2, "TiltDetected")


def raised(error: BspError) -> BspErrorRaised:
    return BspErrorRaised(connector=error.connector, error_type=error.error_type, sub_type=error.sub_type)


def cleared(error: BspError) -> BspErrorCleared:
    return BspErrorCleared(connector=error.connector, error_type=error.error_type, sub_type=error.sub_type)


SESSION: tuple[Input, ...] = (
    *INPUTS,
    raised(DOOR),
    HEARTBEAT,
    raised(EPO),
    raised(TILT),
    HEARTBEAT,
    cleared(TILT),
    HEARTBEAT,
)

# A driver that records such a session, says so, and then waits to be killed.
DRIVER = """
import sys
from pathlib import Path
from fakes.recorded_session import DrivenJournal
from test_last_errors import SESSION
driven = DrivenJournal(Path(sys.argv[1]))
driven.open()
driven.run(SESSION)
print(driven.journal._recorder.process.pid, flush=True)
sys.stdin.read()
"""


def record(directory: Path, inputs: Iterable[Input]) -> Path:
    """A log among others: the time in its name is a minute after that of the one before it."""
    inputs = tuple(inputs)
    scratch = directory / "scratch"
    log = record_session(scratch, inputs)
    return log.rename(
        directory / f"20261118T11{10 + len(list(directory.glob('*.mcap'))):02}40Z-01234567-0001.mcap"
    )


def by_the_reader(log: Path) -> LastErrors | None:
    """The same, by the reader that decodes and checks everything; None if the log tells nothing."""
    try:
        with read_log(log) as reader:
            state = DispenserAlarmsState()
            has_begun = False
            for turn in reader.turns():
                match turn.input:
                    case Started() | BspErrorRaised() | BspErrorCleared() | ActiveErrorsReceived():
                        has_begun = has_begun or isinstance(turn.input, Started)
                        state = with_error(state, turn.input)
    except LogError:
        return None
    return LastErrors(state.errors, log.name) if has_begun else None


# --- whole logs --------------------------------------------------------------------------------------------


def test_nothing_is_known_without_a_journal(tmp_path: Path) -> None:
    assert restore_errors(tmp_path / "missing", CONFIG) == NOTHING
    assert restore_errors(tmp_path, CONFIG) == NOTHING


def test_what_was_raised_and_not_cleared(tmp_path: Path) -> None:
    log = record(tmp_path, SESSION)
    assert restore_errors(tmp_path, CONFIG) == LastErrors((DOOR, EPO), log.name)
    assert by_the_reader(log) == LastErrors((DOOR, EPO), log.name)


def test_a_compressed_log_tells_the_same(tmp_path: Path) -> None:
    log = record(tmp_path, SESSION)
    assert compress(log)
    assert restore_errors(tmp_path, CONFIG) == LastErrors((DOOR, EPO), log.name)


def test_what_stood_before_the_machine_was_booted_is_named_and_not_restored(tmp_path: Path) -> None:
    log = record(tmp_path, SESSION)
    assert restore_errors(tmp_path, CONFIG, boot_id()) == LastErrors((DOOR, EPO), log.name)
    assert restore_errors(tmp_path, CONFIG, "another") == LastErrors((), log.name, outdated=(DOOR, EPO))


def test_what_error_history_said_replaces_it(tmp_path: Path) -> None:
    record(tmp_path, [*SESSION, ActiveErrorsReceived(errors=(TILT,)), raised(EPO)])
    assert restore_errors(tmp_path, CONFIG).errors == (TILT, EPO)


def test_what_was_restored_is_restored_again(tmp_path: Path) -> None:
    started = Started(utc_offset_ns=UTC_NS, goose_mac=bytes(6), restored_errors=(DOOR, EPO), restored_from="x")
    record(tmp_path, [started, cleared(DOOR)])
    assert restore_errors(tmp_path, CONFIG).errors == (EPO,)


def test_a_later_segment_begins_with_what_the_former_one_knew(tmp_path: Path) -> None:
    driven = DrivenJournal(tmp_path)
    driven.open()
    driven.await_report("ready")
    driven.run(SESSION)
    assert driven.journal.prepare_replacement(UTC_NS + 10**12)
    driven.await_report("ready")
    assert driven.begin_segment()
    driven.run([cleared(DOOR), raised(TILT)])
    assert driven.journal.close(10.0)
    last = driven.logs[-1]
    assert len(driven.logs) == 2
    assert restore_errors(tmp_path, CONFIG) == LastErrors((EPO, TILT), last.name)


def test_the_newest_counts(tmp_path: Path) -> None:
    record(tmp_path, SESSION)
    newest = record(tmp_path, [STARTED, raised(TILT)])
    assert restore_errors(tmp_path, CONFIG) == LastErrors((TILT,), newest.name)


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_logs_of_one_second_the_one_written_last_counts(tmp_path: Path, order: int) -> None:
    """A driver that is killed and started again at once; what follows in the name is random."""
    for run, (error, written_s) in zip(("0a0a0a0a", "f0f0f0f0")[::order], ((DOOR, 5), (TILT, 6)), strict=True):
        log = record(tmp_path, [STARTED, raised(error)]).rename(tmp_path / f"20261118T110640Z-{run}-0001.mcap")
        os.utime(log, (written_s, written_s))
    assert restore_errors(tmp_path, CONFIG).errors == (TILT,)


NOW_S = 1_800_000_000
DAY_S = 86_400


@pytest.mark.parametrize(
    ("logs", "counts"),
    [
        # A board without a battery: the last log begins in 1970, and ends when the time is known.
        ((("20261118T110640Z-0a0a0a0a-0001", -DAY_S), ("19700101T000007Z-f0f0f0f0-0001", -60)), 1),
        # The clock was years ahead, and has been set back since.
        ((("20310101T000000Z-0a0a0a0a-0001", 2000 * DAY_S), ("20261118T110640Z-f0f0f0f0-0001", -60)), 1),
        # The recorder of the first segment had still to write when that of the second one had done.
        ((("20261118T110640Z-0a0a0a0a-0001", -10), ("20261118T110641Z-0a0a0a0a-0002", -12)), 1),
        ((("20261118T110640Z-0a0a0a0a-0010", -12), ("20261118T110640Z-0a0a0a0a-0009", -10)), 0),
        ((("20261118T110640Z-0a0a0a0a-0001", -10), ("20261118T110640Z-f0f0f0f0-0002", -12)), 0),
    ],
)
def test_the_newest_counts_whatever_the_clock_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logs: tuple[tuple[str, int], ...], counts: int
) -> None:
    monkeypatch.setattr("fusioncharger.replay.last_errors.time.time_ns", lambda: NOW_S * 10**9)
    for number, (name, written_s) in enumerate(logs):
        log = record(tmp_path, [STARTED, raised((DOOR, TILT)[number])]).rename(tmp_path / f"{name}.mcap")
        os.utime(log, (NOW_S + written_s, NOW_S + written_s))
    assert restore_errors(tmp_path, CONFIG).errors == ((DOOR, TILT)[counts],)


def test_a_process_that_died_before_its_first_turn_knew_nothing(tmp_path: Path) -> None:
    log = record(tmp_path, SESSION)
    record(tmp_path, [])
    assert restore_errors(tmp_path, CONFIG) == LastErrors((DOOR, EPO), log.name)


def test_a_segment_that_was_prepared_and_not_begun(tmp_path: Path) -> None:
    log = record(tmp_path, SESSION)
    driven = DrivenJournal(tmp_path)
    driven.run([])
    assert driven.journal.prepare_replacement(UTC_NS + 10**12)
    driven.await_report("ready")
    restored = restore_errors(tmp_path, CONFIG)
    driven.journal.close(10.0)
    assert (restored.errors, restored.journal) == ((DOOR, EPO), log.name)


# --- another configuration ---------------------------------------------------------------------------------


def with_boards(*boards: str) -> Config:
    return Config(connectors=tuple(replace(CONFIG.connectors[0], evse_board_support=board) for board in boards))


def test_errors_follow_their_board(tmp_path: Path) -> None:
    record(tmp_path, SESSION)
    restored = restore_errors(tmp_path, with_boards("bsp_2", "new", "bsp_1"))
    assert restored.errors == (replace(DOOR, connector=3), replace(EPO, connector=1))
    assert restored.dropped == ()


def test_errors_of_a_board_that_is_gone_are_dropped_and_named(tmp_path: Path) -> None:
    record(tmp_path, SESSION)
    restored = restore_errors(tmp_path, with_boards("bsp_2", ""))
    assert restored.errors == (replace(EPO, connector=1),)
    assert restored.dropped == ("EnclosureOpen of bsp_1",)


def test_no_board_is_no_match(tmp_path: Path) -> None:
    driven = DrivenJournal(tmp_path, with_boards("", "bsp_2"))
    driven.open()
    driven.run(SESSION)
    driven.journal.close(10.0)
    restored = restore_errors(tmp_path, with_boards("", ""))
    assert restored.errors == ()
    assert restored.dropped == ("EnclosureOpen of connector 1, without a board", "MREC8EmergencyStop of bsp_2")


# --- processes that were killed ----------------------------------------------------------------------------


def await_that(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def kill_driver(directory: Path, *, with_recorder: bool) -> None:
    path = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
    ) as driver:
        assert driver.stdout is not None
        assert driver.stderr is not None
        recorder = int(driver.stdout.readline())
        if with_recorder:
            # The recorder says nothing when it has written something: the file has to be looked at.
            await_that(
                lambda: any(b'"BspErrorCleared"' in log.read_bytes() for log in directory.glob("*.mcap"))
            )
            os.kill(recorder, signal.SIGKILL)
        driver.kill()
        # The recorder inherits standard error: its end is the recorder's end.
        assert driver.stderr.read() == b""


def test_a_killed_driver_loses_nothing(tmp_path: Path) -> None:
    kill_driver(tmp_path, with_recorder=False)
    restored = restore_errors(tmp_path, CONFIG)
    assert (restored.errors, restored.problem) == ((DOOR, EPO), "")


def test_a_driver_and_a_recorder_that_were_killed(tmp_path: Path) -> None:
    kill_driver(tmp_path, with_recorder=True)
    restored = restore_errors(tmp_path, CONFIG)
    assert restored.errors == (DOOR, EPO)
    assert "the file was not closed" in restored.problem


# --- damage ------------------------------------------------------------------------------------------------


def test_a_log_cut_anywhere_tells_what_the_reader_reads_of_it(tmp_path: Path) -> None:
    whole = record(tmp_path, SESSION).read_bytes()
    (log,) = tmp_path.glob("*.mcap")
    known = set()
    step = 41  # every byte would take minutes
    for length in [*range(0, len(whole), step), len(whole)]:
        log.write_bytes(whole[:length])
        restored = restore_errors(tmp_path, CONFIG)
        expected = by_the_reader(log)
        assert restored.errors == (expected.errors if expected else ())
        assert restored.journal == (log.name if expected else "")
        known.add(restored.errors)
        if length < len(whole) // 2:
            assert restored.problem
    assert {(), (DOOR,), (DOOR, EPO), (DOOR, EPO, TILT)} <= known
    assert restore_errors(tmp_path, CONFIG).problem == ""


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_altered_byte_stops_the_driver(tmp_path: Path, data: st.DataObject) -> None:
    logs = list(tmp_path.glob("*.mcap"))
    log = logs[0] if logs else record(tmp_path, SESSION)
    original = tmp_path / "original"
    if not original.exists():
        original.write_bytes(log.read_bytes())
    altered = bytearray(original.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        altered[data.draw(st.integers(0, len(altered) - 1))] = data.draw(st.integers(0, 255))
    log.write_bytes(altered)
    restored = restore_errors(tmp_path, CONFIG)
    assert "Error:" not in restored.problem  # nothing that the code has not thought of
    assert all(1 <= error.connector <= 2 for error in restored.errors)


def test_an_input_whose_checksum_fails_ends_what_is_known(tmp_path: Path) -> None:
    log = record(tmp_path, SESSION)
    log.write_bytes(log.read_bytes().replace(b"MREC8EmergencyStop", b"MREC9EmergencyStop"))
    restored = restore_errors(tmp_path, CONFIG)
    assert restored.errors == (DOOR,)
    assert restored.problem == (f"{log.name}: the checksum of an input fails; what came after it is not known")


def test_an_altered_header_sends_to_the_log_before(tmp_path: Path) -> None:
    before = record(tmp_path, [STARTED, raised(TILT)])
    log = record(tmp_path, SESSION)
    log.write_bytes(log.read_bytes().replace(b'"evse_board_support":"bsp_1"', b'"evse_board_support":"bsp_3"'))
    restored = restore_errors(tmp_path, CONFIG)
    assert (restored.errors, restored.journal) == ((TILT,), before.name)
    assert restored.problem == f"{log.name}: the segment header is altered"


def mcap(profile: str, *payloads: tuple[str, bytes], chunked: bool = False) -> bytes:
    """A whole MCAP file with these messages."""
    file = BytesIO()
    writer = Writer(file, use_chunking=chunked, compression=CompressionType.NONE)
    writer.start(profile)
    for topic, payload in payloads:
        writer.add_message(writer.register_channel(topic, "json", 0), 1, payload, 1, 1)
    writer.finish()
    return file.getvalue()


HEADER = SegmentHeader(
    format=1,
    run_id="1",
    segment=1,
    first_turn=1,
    utc_ns=UTC_NS,
    versions={},
    config=msgspec.to_builtins(CONFIG),
    snapshot=snapshot(build(CONFIG)),
)
HEADER_TOPIC = "journal/SegmentHeader"
DATA_END = struct.pack("<BQ", Opcode.DATA_END.value, 4)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "empty or cut short"),
        (MCAP0_MAGIC, "empty or cut short"),
        (b"a text, not a log at all, of some length", "not a log of this driver"),
        (bytes(1000), "not a log of this driver"),
        (b"\xff" * 1000, "not a log of this driver"),
        (mcap("ros2"), "not a log of this driver"),
        (mcap("fusioncharger")[:9] + b"\xff" * 8 + mcap("fusioncharger")[17:], "not a log of this driver"),
        (mcap("fusioncharger", (HEADER_TOPIC, seal(replace(HEADER, format=3)))), "journal format 3"),
        (mcap("fusioncharger", (HEADER_TOPIC, seal(replace(HEADER, config={})))), "not understood"),
        (mcap("fusioncharger", (HEADER_TOPIC, seal(replace(HEADER, config={"connectors": 3})))), "understood"),
        (
            mcap("fusioncharger", (HEADER_TOPIC, seal(replace(HEADER, snapshot={"dispenser_alarms": 3})))),
            "not understood",
        ),
        (mcap("fusioncharger", (HEADER_TOPIC, b"")), "the segment header is altered"),
        (mcap("fusioncharger", ("in/driver/Started", seal(STARTED))), "the segment header is missing"),
        (
            mcap("fusioncharger", (HEADER_TOPIC, seal(HEADER)), chunked=True).replace(b"run_id", b"ran_id"),
            "the checksum of a chunk fails",
        ),
        (mcap("fusioncharger").partition(DATA_END)[0] + b"\x05" + b"\xff" * 200, "whole only up to byte"),
    ],
)
def test_what_is_no_log_is_named_and_passed_over(tmp_path: Path, content: bytes, problem: str) -> None:
    log = record(tmp_path, SESSION)
    foreign = tmp_path / "20991231T235959Z-foreign.mcap"
    foreign.write_bytes(content)
    os.utime(log, ns=(0, foreign.stat().st_mtime_ns - 10**9))
    restored = restore_errors(tmp_path, CONFIG)
    assert (restored.errors, restored.journal) == ((DOOR, EPO), log.name)
    assert restored.problem.startswith("20991231T235959Z-foreign.mcap: ")
    assert problem in restored.problem


def test_what_is_no_file_is_passed_over(tmp_path: Path) -> None:
    log = record(tmp_path, SESSION)
    os.utime(log, ns=(0, log.stat().st_mtime_ns - 10**9))  # the others are newer
    (tmp_path / "2099-directory.mcap").mkdir()
    os.mkfifo(tmp_path / "2099-fifo.mcap")
    (tmp_path / "2099-link.mcap").symlink_to(tmp_path / "nowhere")
    (tmp_path / "2099-notes.txt").write_text("not a log by its name")
    restored = restore_errors(tmp_path, CONFIG)
    assert (restored.errors, restored.journal) == ((DOOR, EPO), log.name)
    assert restored.problem.count("not a file") == 3
    assert restore_errors(log, CONFIG).problem == f"{log}: Not a directory"


def test_many_problems_are_counted(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.mcap").write_bytes(b"")
    assert restore_errors(tmp_path, CONFIG).problem.count("empty") == 3
    assert restore_errors(tmp_path, CONFIG).problem.endswith("; and 2 more")


def test_a_disk_that_cannot_be_read_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = record(tmp_path, SESSION)
    pread = os.pread
    bad_from = 0

    def fail(descriptor: int, size: int, at: int) -> bytes:
        if at + size > bad_from:
            raise OSError(5, "Input/output error")
        return pread(descriptor, size, at)

    monkeypatch.setattr(os, "pread", fail)
    said = f"{log.name}: cannot be read to its end: Input/output error"
    assert restore_errors(tmp_path, CONFIG) == LastErrors(problem=said)
    # What was read before the bad place counts.
    monkeypatch.setattr(skimming, "BLOCK_BYTES", 100)
    bad_from = log.read_bytes().index(b"MREC8EmergencyStop")
    assert restore_errors(tmp_path, CONFIG) == LastErrors((DOOR,), log.name, said)


@pytest.mark.parametrize("block_bytes", [100, 101, 128, 1000])
def test_where_a_block_ends_makes_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int
) -> None:
    log = record(tmp_path, SESSION)
    monkeypatch.setattr(skimming, "BLOCK_BYTES", block_bytes)
    assert restore_errors(tmp_path, CONFIG) == LastErrors((DOOR, EPO), log.name)


def test_a_file_that_shrinks_meanwhile_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = record(tmp_path, SESSION)
    kept = log.read_bytes().index(b'{"type":"BspErrorRaised"') - 5
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, at: pread(fd, max(0, min(size, kept - at)), at))
    restored = restore_errors(tmp_path, CONFIG)
    assert restored.errors == ()
    assert restored.problem


def test_constants_are_mcaps() -> None:
    assert skimming.MAGIC == MCAP0_MAGIC
    assert Opcode.MESSAGE.value == skimming._MESSAGE


# --- speed -------------------------------------------------------------------------------------------------


def framed(turn: int, message: msgspec.Struct) -> bytes:
    payload = seal(message)
    return PIPE_HEAD.pack(len(payload), turn, UTC_NS, turn) + payload


def test_a_log_of_64_mib_takes_a_fraction_of_a_second(tmp_path: Path) -> None:
    """The power unit has to be called within a second of the process's start, and Python takes its part."""
    read = RegistersRead(connection=1, transaction_id=1, unit_id=0, address=0x1107, count=9, adu=bytes(12))
    answer = ReadAnswered(connection=1, transaction_id=1, unit_id=0, words=(7,) * 9)
    batch = b"".join(framed(2, message) for message in (HEARTBEAT, read, answer)) * 1000
    path = tmp_path / "20261118T110640Z-01234567-0001.mcap"
    file = SegmentFile(path)
    writer = SegmentWriter(file)
    writer.feed(framed(1, HEADER) + framed(1, STARTED) + framed(2, raised(DOOR)))
    while file.tell() < 64 * 2**20:
        writer.feed(batch)
    writer.feed(framed(3, raised(EPO)))
    writer.finish()
    file.close()
    begin_s = time.perf_counter()
    assert restore_errors(tmp_path, CONFIG) == LastErrors((DOOR, EPO), path.name)
    assert time.perf_counter() - begin_s < 0.5
    assert compress(path)
    assert path.stat().st_size < 16 * 2**20
    begin_s = time.perf_counter()
    assert restore_errors(tmp_path, CONFIG) == LastErrors((DOOR, EPO), path.name)
    assert time.perf_counter() - begin_s < 1.0
