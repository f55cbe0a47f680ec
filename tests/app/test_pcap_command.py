"""`log pcap`, as tshark understands what it writes: another implementation of every layer in it."""

import argparse
import contextlib
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from fakes import recorded_session
from fakes.recorded_session import CONFIG, TURN_NS, UTC_NS, DrivenJournal
from fusioncharger.actors.runtime import SECOND_NS
from fusioncharger.app.pcap_command import add_arguments, pcap_command
from fusioncharger.app.pcap_file import Interface, PcapngFile
from fusioncharger.app.pcap_tcp import Endpoint, TcpConnection
from fusioncharger.io.modbus_codec import DispenserCodec
from fusioncharger.io.modbus_psu_codec import PsuCodec
from fusioncharger.messages.config import Config
from fusioncharger.messages.inputs import (
    BrokerConnected,
    BspEventReceived,
    HeartbeatReceived,
    HmacKeyReceived,
    Input,
    ModbusRequestRefused,
    PsuConnected,
    PsuConnectFailed,
    PsuDisconnected,
    RegistersRead,
    RegistersWritten,
    ShutdownRequested,
    Started,
)
from fusioncharger.messages.outputs import PowerRequested, ReportSent, Segment, StopRequested
from fusioncharger.messages.types import BspEvent
from fusioncharger.replay.reader import LogError, read_log
from msgspec.structs import replace
from requirements import require_program

LUA = Path(__file__).parents[2] / "docs" / "fusioncharge-modbus.lua"
MAC = bytes.fromhex("02000a0b0c0d")
CHECKED = ("-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE")
psu = PsuCodec()


def read(number: int, address: int, count: int) -> RegistersRead:
    adu = psu.read(number, 255, address, count)
    return RegistersRead(
        connection=1, transaction_id=number, unit_id=255, address=address, count=count, adu=adu
    )


def write(number: int, address: int, *words: int, function: int = 0x10) -> RegistersWritten:
    single = function == 0x06
    adu = psu.write_single(number, 255, address, words[0]) if single else psu.write(number, 255, address, words)
    return RegistersWritten(
        connection=1,
        transaction_id=number,
        unit_id=255,
        function=function,
        address=address,
        words=words,
        adu=adu,
    )


BEGIN: tuple[Input, ...] = (
    Started(utc_offset_ns=UTC_NS, goose_mac=MAC),
    BrokerConnected(session_present=False),
    PsuConnected(connection=1),
    read(1, 0x1015, 1),
    write(2, 0x2006, 1, function=0x06),
    write(3, 0x2111, 0x0200, 0x0102, 0x0304),
    write(4, 0x2115, *(0,) * 24),
    HmacKeyReceived(connection=1, connector=1),
)
"""Until connector 1 has a key, and so says stop: its first GOOSE message."""

PLUG_IN: tuple[Input, ...] = (
    BspEventReceived(connector=1, event=BspEvent.B),
    HmacKeyReceived(connection=1, connector=1),
)
"""A request for allocation follows: the second."""


def idle(turns: int) -> tuple[Input, ...]:
    return (HeartbeatReceived(connector=2, heartbeat_id=1),) * turns


def record(directory: Path, inputs: Iterable[Input], config: Config = CONFIG) -> Path:
    driven = DrivenJournal(directory, config)
    driven.open()
    driven.run(inputs)
    assert driven.journal.close(10.0)
    (log,) = driven.logs
    return log


def pcap(*words: str | Path) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return pcap_command(parser.parse_args([str(word) for word in words]))


def tshark(path: Path, condition: str, *fields: str, options: Iterable[str] = ()) -> list[list[str]]:
    """The fields of the packets that fulfil the condition."""
    command = [require_program("tshark"), "-r", str(path), "-n", *options, "-Y", condition, "-T", "fields"]
    for field in fields:
        command += ["-e", field]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return [line.split("\t") for line in done.stdout.splitlines()]


def made(directory: Path, inputs: Iterable[Input], config: Config = CONFIG) -> Path:
    output = directory / "x.pcapng"
    assert pcap(record(directory, inputs, config), "-o", output) == 0
    return output


def letters(flags: str) -> str:
    number = int(flags, 16)
    return "".join(letter for letter, bit in (("S", 2), ("F", 1), ("R", 4), ("A", 16)) if number & bit)


@pytest.mark.parametrize("psu_ip", ["192.168.11.1", "fe80::11", "psu.example"])
def test_modbus_shows_the_right_way_round(tmp_path: Path, psu_ip: str) -> None:
    output = made(tmp_path, BEGIN, replace(CONFIG, psu_ip=psu_ip))
    rows = tshark(output, "modbus && modbus.func_code != 65", "_ws.col.Info", "modbus.func_code")
    kinds = [(info.split(":")[0].strip(), function) for info, function in rows]
    assert kinds == [(kind, function) for function in ("3", "6", "16", "16") for kind in ("Query", "Response")]
    asked = tshark(
        output, "tcp.dstport == 502 && modbus", "modbus.reference_num", "modbus.word_cnt", "mbtcp.trans_id"
    )
    assert asked == [
        ["4117", "1", "1"],
        ["8198", "", "2"],
        ["8465", "3", "3"],
        ["8469", "24", "4"],
    ]
    # Wireshark finds each answer's request, so that it knows which registers were read.
    answered = tshark(
        output, "tcp.srcport == 502 && modbus.func_code == 3", "modbus.regnum16", "modbus.regval_uint16"
    )
    assert answered == [["4117", "2"]]
    troubles = '_ws.malformed || _ws.expert.severity >= "warning"'
    assert tshark(output, troubles, "_ws.expert.message", options=CHECKED) == []
    empty = tshark(output, "tcp.len == 0", "tcp.srcport", "tcp.flags")
    assert [f"{port} {letters(flags)}" for port, flags in empty] == [
        "502 S", "50001 SA", "502 A",
        "502 FA", "50001 FA", "502 A",
    ]  # fmt: skip


def test_reports_are_dissected_by_the_lua_script(tmp_path: Path) -> None:
    log = record(tmp_path, (*BEGIN, BspEventReceived(connector=2, event=BspEvent.B), *idle(3)))
    output = tmp_path / "x.pcapng"
    assert pcap(log, "-o", output) == 0
    with read_log(log) as reader:
        outputs = [recorded.message() for turn in reader.turns() for recorded in turn.outputs]
    reports = [message for message in outputs if isinstance(message, ReportSent)]
    assert len(reports) > 1
    rows = tshark(
        output,
        "fusioncharge",
        "mbtcp.trans_id",
        "fusioncharge.address",
        "fusioncharge.count",
        "fusioncharge.value",
        "fusioncharge.malformed",
        options=("-X", f"lua_script:{LUA}"),
    )
    assert rows == [
        [
            str(report.transaction_id),
            ",".join(f"0x{segment.address:04x}" for segment in report.segments),
            ",".join(str(len(segment.words)) for segment in report.segments),
            ",".join(str(word) for segment in report.segments for word in segment.words),
            "",
        ]
        for report in reports
    ]


def test_the_lua_script_takes_any_segmentation_and_any_bytes(tmp_path: Path) -> None:
    """Two reports in one packet, one over two packets, on the wire's own ports; and three that are wrong."""
    segments = Segment(0x110B, (3,)), Segment(0x1D54, (1, 0))
    report = ReportSent(connection=1, transaction_id=7, segments=segments)
    adu = DispenserCodec().encode(report)
    too_long = adu[:10] + b"\xff\xff" + adu[12:]
    cut_segment = adu[:-6] + b"\x00\x09" + adu[-4:]
    empty = struct.pack(">HHHBB", 1, 0, 3, 0, 0x41) + b"\x91"
    connection = TcpConnection(
        Endpoint(MAC, "10.0.0.1", 41234), Endpoint(bytes(6), "10.0.0.2", 502), initial_sequence=1
    )
    output = tmp_path / "x.pcapng"
    with output.open("wb") as file:
        pcapng = PcapngFile(file, "test", "", [Interface("a", "")])
        frames = connection.opened()
        for data in (adu + adu, adu[:20], adu[20:], too_long, cut_segment, empty):
            frames += connection.sent(data, by_client=True)
        for number, (_, frame) in enumerate(frames):
            pcapng.packet(0, UTC_NS + number, frame)
    rows = tshark(
        output,
        "tcp.len > 0",
        "fusioncharge.address",
        "fusioncharge.value",
        "_ws.expert.message",
        options=("-X", f"lua_script:{LUA}"),
    )
    assert rows == [
        ["0x110b,0x1d54,0x110b,0x1d54", "3,1,0,3,1,0", ""],
        ["", "", ""],
        ["0x110b,0x1d54", "3,1,0", ""],
        ["", "", "its length is not the PDU's"],
        ["0x110b,0x1d54", "3,1,0", "the report ends too early"],
        ["", "", "the report ends too early"],
    ]


def test_sent_goose_frames_have_their_repeats(tmp_path: Path) -> None:
    output = made(tmp_path, (*BEGIN, *idle(250), *PLUG_IN))
    rows = tshark(
        output,
        "goose",
        "frame.time_epoch",
        "goose.stNum",
        "goose.sqNum",
        "goose.goID",
        "eth.src",
        "eth.dst",
        "vlan.priority",
        "frame.interface_name",
    )
    first = [row for row in rows if row[1] == "1"]
    begin_ns = UTC_NS + len(BEGIN) * TURN_NS
    due_ms = [0, 2, 4, 8, 16, 1016, 2016]
    assert [row[0] for row in first] == [
        f"{(begin_ns + ms * 10**6) // 10**9}.{(begin_ns + ms * 10**6) % 10**9:09}" for ms in due_ms
    ]
    assert [row[2] for row in first] == [str(number) for number in range(len(due_ms))]
    for row in first:
        assert row[3:] == [
            "CC/0$GO$ShutdownRequest", "02:00:0a:0b:0c:0d", "02:00:01:02:03:04", "5", "goose",
        ]  # fmt: skip
    # Of the last message five are sent before the driver says goodbye.
    last = [row for row in rows if row[1] == "2"]
    assert [row[2] for row in last] == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("secure", [True, False])
def test_a_signature_is_zeros_and_a_plain_frame_has_none(tmp_path: Path, secure: bool) -> None:
    output = made(tmp_path, BEGIN, replace(CONFIG, send_secure_goose=secure))
    rows = tshark(output, "goose", "goose.reserve1", "frame.len", "goose.length")
    assert rows
    for reserved, size, length in rows:
        assert int(reserved, 16) == (0x23 if secure else 0)
        assert int(size) == 12 + 4 + 2 + int(length) + (35 if secure else 0)


def test_without_a_key_nothing_is_sent(tmp_path: Path) -> None:
    output = made(tmp_path, (*BEGIN[:-1], *idle(20)))
    assert tshark(output, "goose", "goose.stNum") == []


@pytest.mark.parametrize(
    ("reason", "flags"),
    [
        ("closed by the PSU", ["50001 FA", "502 FA", "50001 A"]),
        ("Connection reset by peer", ["50001 RA"]),
        ("Modbus protocol error: protocol id is not 0", ["502 FA", "50001 FA", "502 A"]),
    ],
)
def test_how_a_connection_ends(tmp_path: Path, reason: str, flags: list[str]) -> None:
    gone = PsuDisconnected(connection=1, reason=reason)
    failed = PsuConnectFailed(connection=2, reason="192.168.11.1:502: Connection refused")
    output = made(tmp_path, (*BEGIN, gone, failed, ShutdownRequested(reason="test")))
    rows = tshark(output, "tcp.stream == 0", "tcp.srcport", "tcp.flags", "frame.comment")
    ends = [(f"{port} {letters(flag)}", comment) for port, flag, comment in rows]
    assert [end for end, _ in ends[-len(flags) :]] == flags
    assert reason in ends[-len(flags)][1]
    refused = tshark(output, "tcp.stream == 1", "tcp.srcport", "tcp.flags", "frame.comment")
    assert [f"{port} {letters(flag)}" for port, flag, _ in refused] == ["502 S", "50002 RA"]
    assert "Connection refused" in refused[0][2]


def test_the_real_roles_are_told(tmp_path: Path) -> None:
    output = made(tmp_path, BEGIN, replace(CONFIG, psu_ip="192.168.11.1", psu_port=8502))
    comment = tshark(output, "frame.comment", "frame.comment")[0][0]
    assert "the dispenser (TCP client) connected to the PSU (TCP server) at 192.168.11.1:8502" in comment
    section = subprocess.run(
        [require_program("capinfos"), "-k", "-E", output], capture_output=True, text=True, check=True
    ).stdout
    assert "the dispenser's end has port 502" in section.replace("\n", " ")


def test_a_refused_request_is_shown_with_why(tmp_path: Path) -> None:
    refused = ModbusRequestRefused(
        connection=1,
        transaction_id=9,
        unit_id=255,
        function=0x2B,
        exception_code=1,
        reason="unknown function 0x2b",
        adu=struct.pack(">HHHBBBB", 9, 0, 4, 255, 0x2B, 0x0E, 0),
    )
    output = made(tmp_path, (*BEGIN, refused))
    (row,) = tshark(output, "tcp.dstport == 502 && modbus.func_code == 43", "frame.comment")
    assert "unknown function 0x2b" in row[0]
    (answer,) = tshark(output, "modbus.exception_code", "modbus.exception_code", "mbtcp.trans_id")
    assert answer == ["1", "9"]


def test_a_log_that_begins_in_mid_run(tmp_path: Path) -> None:
    """The first segment is missing: MAC, key and connection come from the snapshot."""
    driven = DrivenJournal(tmp_path)
    driven.open()
    driven.await_report("ready")
    driven.run((*BEGIN, *PLUG_IN))
    driven.replace_recorder()
    driven.run((BspEventReceived(connector=1, event=BspEvent.A), read(10, 0x1015, 1)))
    assert driven.journal.close(10.0)
    first, second = driven.logs
    output, both = tmp_path / "x.pcapng", tmp_path / "both.pcapng"
    assert pcap(second, "-o", output) == 0
    rows = tshark(output, "goose", "goose.stNum", "eth.src", "goose.reserve1")
    assert rows
    assert {tuple(row) for row in rows} == {("3", "02:00:0a:0b:0c:0d", "0x0023")}
    (query,) = tshark(output, "tcp.dstport == 502 && modbus", "mbtcp.trans_id", "frame.comment")
    assert query[0] == "10"
    assert tshark(output, "tcp.flags.syn == 1", "tcp.srcport") == []
    # Both together: one stream, and stNum goes on.
    assert pcap(first, second, "-o", both) == 0
    assert {row[0] for row in tshark(both, "tcp", "tcp.stream")} == {"0"}
    assert {row[0] for row in tshark(both, "goose", "goose.stNum")} == {"1", "2", "3"}


def test_the_connections_of_several_runs_are_streams_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run counts its connections from 1; with the same ports, the second would be a retransmission."""
    logs = []
    for number, run_id in enumerate(("0" * 32, "1" * 32)):
        monkeypatch.setattr(recorded_session, "RUN_ID", run_id)
        monkeypatch.setattr(recorded_session, "UTC_NS", UTC_NS + number * 60 * SECOND_NS)
        (tmp_path / run_id).mkdir()
        logs.append(record(tmp_path / run_id, BEGIN))
    output = tmp_path / "x.pcapng"
    assert pcap(*logs, "-o", output) == 0
    assert tshark(output, "tcp.analysis.flags", "frame.number") == []
    queries = tshark(output, "tcp.dstport == 502 && modbus", "tcp.stream", "tcp.srcport", "mbtcp.trans_id")
    assert [tuple(row) for row in queries] == [
        (stream, port, trans_id)
        for stream, port in (("0", "50001"), ("1", "50002"))
        for trans_id in ("1", "2", "3", "4")
    ]


def wait_for_turn(log: Path, turn: int) -> None:
    """Until the recorder, which says nothing of it, has written the turn."""
    deadline_s = time.monotonic() + 10
    while True:
        assert time.monotonic() < deadline_s
        with contextlib.suppress(LogError), read_log(log) as reader:
            if any(found.number == turn for found in reader.turns()):
                return


def test_in_a_gap_nothing_is_repeated(tmp_path: Path) -> None:
    driven = DrivenJournal(tmp_path)
    driven.open()
    driven.await_report("ready")
    driven.run((*BEGIN, *idle(2)))
    wait_for_turn(driven.logs[0], driven.turn)
    assert driven.journal._recorder is not None
    driven.journal._recorder.process.kill()
    driven.journal._recorder.process.wait(10)
    driven.run(idle(300))
    assert driven.journal.failure is not None
    driven.replace_recorder()
    driven.run((read(10, 0x1015, 1),))
    assert driven.journal.close(10.0)
    output = tmp_path / "x.pcapng"
    # The first segment was cut when its recorder was killed.
    assert pcap(tmp_path, "-o", output) == 3
    times = [float(row[0]) - UTC_NS / 1e9 for row in tshark(output, "goose", "frame.time_epoch")]
    assert times
    assert max(times) < len(BEGIN) * TURN_NS / 1e9 + 0.1, (
        "of three seconds that are not known, nothing is shown"
    )
    (after,) = tshark(output, "mbtcp.trans_id == 10 && tcp.dstport == 502", "frame.comment", "tcp.stream")
    assert "Before this, turns " in after[0]
    assert after[1] == "0", "the same connection goes on"


def test_a_cut_log_is_written_up_to_the_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = record(tmp_path, (*BEGIN, *idle(50)))
    whole, cut = tmp_path / "whole.pcapng", tmp_path / "cut.pcapng"
    assert pcap(log, "-o", whole) == 0
    log.write_bytes(log.read_bytes()[:-2000])
    capsys.readouterr()
    assert pcap(log, "-o", cut) == 3
    assert f"{log}: damaged after turn " in capsys.readouterr().err
    queries = [len(tshark(path, "tcp.dstport == 502 && modbus", "frame.number")) for path in (whole, cut)]
    assert queries == [4, 4]


def test_every_message_of_the_log_is_there_once_with_sq_num_0(tmp_path: Path) -> None:
    log = record(tmp_path, (*BEGIN, *PLUG_IN, *idle(5)))
    output = tmp_path / "x.pcapng"
    assert pcap(log, "-o", output) == 0
    with read_log(log) as reader:
        outputs = [recorded.message() for turn in reader.turns() for recorded in turn.outputs]
    issued = Counter(
        str(message.st_num) for message in outputs if isinstance(message, PowerRequested | StopRequested)
    )
    rows = tshark(output, "goose.sqNum == 0", "goose.stNum")
    assert Counter(number for (number,) in rows) == issued


def test_what_cannot_be_done_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "live").mkdir()
    content = record(tmp_path / "live", BEGIN).read_bytes()
    log = tmp_path / "log.mcap"  # which nobody compresses
    log.write_bytes(content)
    output = tmp_path / "x.pcapng"

    def said(*words: str | Path) -> str:
        assert pcap(*words) == 2
        return capsys.readouterr().err

    assert "no such file" in said(tmp_path / "none.mcap", "-o", output).lower()
    other = tmp_path / "other.txt"
    other.write_text("hello, this is no log")
    assert "not a log" in said(other, "-o", output)
    assert "is the log itself" in said(log, "-o", log, "--force")
    assert log.read_bytes() == content
    assert "is a directory" in said(log, "-o", tmp_path)
    assert "there is no directory" in said(log, "-o", tmp_path / "no" / "x.pcapng")
    assert not output.exists()
    output.write_text("mine")
    assert "--force" in said(log, "-o", output)
    assert output.read_text() == "mine"
    assert pcap(log, "-o", output, "--force") == 0
    assert output.read_bytes()[:4] == b"\x0a\x0d\x0d\x0a"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["live", "log.mcap", "other.txt", "x.pcapng"]
