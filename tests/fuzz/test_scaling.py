"""Input that is made to be expensive: time grows no faster than its length, and what announces more than is
there gets no memory for it.

Work is counted, not timed: the calls of Python and C functions that an input of n, 2n and 4n parts takes.
"""

import struct
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from fusioncharger.actors.dispenser_alarms import MAX_INSTANCES, DispenserAlarmsState, with_error
from fusioncharger.app.bundle_verify import SUMS, verify_bundle
from fusioncharger.app.check_config import check_file
from fusioncharger.app.check_everest_yaml import EverestFileError, read_everest
from fusioncharger.app.everest_config import migrate
from fusioncharger.io.everest_codec import EverestCodec
from fusioncharger.io.modbus_adu import ModbusProtocolError
from fusioncharger.io.modbus_codec import DispenserCodec
from fusioncharger.io.modbus_psu_codec import PsuCodec
from fusioncharger.messages.config import ConfigError, parse
from fusioncharger.messages.inputs import BspErrorRaised, MqttMessageRejected
from fusioncharger.messages.toml_table import MAX_BYTES, TomlError, table_of
from fusioncharger.mock.commands import CommandError
from fusioncharger.mock.control import parse_line
from fusioncharger.mock.scenario import ScenarioError, read_scenario
from fusioncharger.replay.last_errors import restore_errors
from fusioncharger.replay.log_info import gather
from fusioncharger.replay.logs import open_logs
from fusioncharger.replay.reader import LogError, UnsupportedFormatError, read_log
from fusioncharger.replay.salvage import SEARCH_FACTOR, Salvage
from fuzz.target_journal import CONFIG as JOURNAL_CONFIG
from fuzz.target_journal import PLAIN, RECORDS, joined, sealed
from fuzz.target_mqtt import NATIVE
from mcap.opcode import Opcode
from mcap.writer import MCAP0_MAGIC

MEGABYTE = 2**20


def work(action: Callable[[], object]) -> int:
    """Function calls, of Python's and of C's functions, that it takes."""
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        action()
    finally:
        sys.setprofile(None)
    return calls


def assert_linear(action: Callable[[int], Callable[[], object]], parts: int) -> None:
    """`action(n)` prepares an input of n parts; what it gives takes it."""
    first, second, fourth = (work(action(parts * times)) for times in (1, 2, 4))
    assert second <= 2.2 * first + 100, (first, second, fourth)
    assert fourth <= 2.2 * second + 100, (first, second, fourth)


def peak_bytes(action: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# --- Modbus --------------------------------------------------------------------------------------------------


def take(pieces: list[bytes]) -> Callable[[], None]:
    def run() -> None:
        codec = DispenserCodec()
        for piece in pieces:
            codec.receive(piece)
            while codec.next_event() is not None:
                pass

    return run


def test_pipelined_and_crumbled_requests() -> None:
    request = PsuCodec().read(1, 0xFF, 0x1015, 1)
    assert_linear(lambda n: take([request * n]), 200)
    assert_linear(lambda n: take([bytes((byte,)) for byte in request * n]), 20)


def test_a_stream_that_never_makes_sense_is_given_up_at_once() -> None:
    codec = DispenserCodec()
    codec.receive(b"\xff" * MEGABYTE)
    with pytest.raises(ModbusProtocolError):
        codec.next_event()


# --- MQTT ----------------------------------------------------------------------------------------------------

EVEREST = EverestCodec(NATIVE, "me")
TOPIC = {topic.rpartition("/")[2]: topic for topic in EVEREST.subscriptions}


def decoded(name: str, payload: bytes) -> object:
    return EVEREST.decode(TOPIC[name], payload, retained=False, redelivered=False)


@pytest.mark.parametrize(
    "payload",
    [
        lambda n: b'{"mode":"Off","x":' + b"[" * n,
        lambda n: b'{"mode":"Off","x":' + b"[" * n + b"]" * n + b"}",
        lambda n: b'{"mode":"Off",' + b",".join(b'"k%d":[]' % number for number in range(n)) + b"}",
        lambda n: b'{"mode":"Off","x":"' + b"[\\" * n,
        lambda n: b'{"mode":"Off","x":"' + b'[\\"' * n + b'"}',
        lambda n: b'"' * n + b"[" * n,
        lambda n: b"[" * 40 + b"\\" * n,
    ],
)
def test_json_that_nests_or_hides_brackets(payload: Callable[[int], bytes]) -> None:
    assert_linear(lambda n: lambda: decoded("mode", payload(n)), 2000)


def test_a_list_of_errors() -> None:
    error = b'{"type":"evse_board_support/TiltDetected","sub_type":"%d","origin":{"module_id":"bsp_1"}}'
    assert_linear(
        lambda n: lambda: decoded("me", b'{"errors":[%b]}' % b",".join(error % number for number in range(n))),
        100,
    )


@pytest.mark.parametrize("number", [b"9" * 5000, b"-" + b"9" * 60_000, b"1" + b"0" * 400 + b".5", b"1e400"])
@pytest.mark.parametrize("name", ["heartbeat", "powermeter"])
def test_numbers_without_end_are_refused(name: str, number: bytes) -> None:
    payload = number if name == "heartbeat" else b'{"voltage_V":{"DC":%b}}' % number
    assert isinstance(decoded(name, payload), MqttMessageRejected)


def test_a_board_that_makes_up_instances_fills_no_state() -> None:
    state = DispenserAlarmsState()
    for number in range(3 * MAX_INSTANCES):
        state = with_error(state, BspErrorRaised(connector=1, error_type="TiltDetected", sub_type=f"{number}"))
    assert len(state.errors) == MAX_INSTANCES
    assert len(
        with_error(state, BspErrorRaised(connector=2, error_type="TiltDetected", sub_type="")).errors
    ) == (MAX_INSTANCES + 1)


# --- TOML ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        lambda n: "\n".join(f"k{number} = 1" for number in range(n)),
        lambda n: "connectors = [" + "{}," * n + "]",
        lambda n: "[[connectors]]\n" * n,
        lambda n: "\n".join(f"[[connectors]]\nx{number} = 1" for number in range(n)),
        lambda n: "mqtt = {" + ", ".join(f"k{number} = 1" for number in range(n)) + "}",
        lambda n: f'psu_ip = "{"x" * n}"\nmqtt.host = 7',
        lambda n: "x" * n + " = 1",
        lambda n: "[" + ".".join("a" * 30) + "]\n" + "\n".join(f"k{number} = 1" for number in range(n)),
    ],
)
def test_a_configuration_with_many_keys(tmp_path: Path, text: Callable[[int], str]) -> None:
    def action(n: int) -> Callable[[], object]:
        path = tmp_path / "config.toml"
        path.write_text(text(n))
        return lambda: check_file(path)

    assert_linear(action, 500)


def test_a_million_keys_are_too_many() -> None:
    with pytest.raises(ConfigError, match="larger than 1048576 bytes"):
        parse("\n".join(f"k{number} = 1" for number in range(10**6)), "config.toml")


def test_only_some_unknown_keys_are_named() -> None:
    with pytest.raises(ConfigError) as refused:
        parse("\n".join(f"k{number} = 1" for number in range(1000)), "config.toml")
    assert len(str(refused.value).splitlines()) == 20


TOML_BOMBS = [
    ".".join("a" * 30_000) + " = 1",
    "[" + ".".join("a" * 30_000) + "]",
    ".".join("a" * 60) + " = 1",
    "psu_ip = " + "[" * 5000 + "]" * 5000,
    "psu_ip = " + "{a = " * 5000 + "1" + "}" * 5000,
    "psu_port = " + "9" * 5000,
    "psu_port = 0x" + "f" * 5000,
    "psu_port = " + "9" * 20,
    "psu_ip = " + "[" * 20 + "{" + ".".join("a" * 20) + " = 1}" + "]" * 20,
    "x" * (MAX_BYTES + 1),
]


@pytest.mark.parametrize("text", TOML_BOMBS, ids=range(len(TOML_BOMBS)))
def test_toml_that_is_made_to_hurt_is_refused_everywhere(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file.toml"
    path.write_text(text)
    with pytest.raises(TomlError):
        table_of(text)
    with pytest.raises(ConfigError):
        parse(text, "config.toml")
    with pytest.raises(ScenarioError):
        read_scenario(str(path))
    assert check_file(path)[1] is None


def test_dots_in_comments_and_texts_are_no_keys() -> None:
    assert table_of("# " + "." * 500 + "\n \t#" + "." * 500 + f'\nx = "{"." * 90}"') == {"x": "." * 90}


# --- the mock's control --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 60_000,
        b'{"do":' * 5000,
        b'{"do":"\xff"}',
        b'{"do":"alarm","name":"x","value":%b}' % (b"9" * 5000),
    ],
)
def test_control_lines_that_are_made_to_hurt(line: bytes) -> None:
    with pytest.raises(CommandError):
        parse_line(line)


# --- YAML ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        lambda n: "active_modules:\n" + "\n".join(f"  m{number}: {{}}" for number in range(n)),
        lambda n: (
            "b: &b {" + ", ".join(f"k{number}: 1" for number in range(n)) + "}\n"
            "active_modules:\n  psu:\n    <<: *b\n" + "    <<: {}\n" * n
        ),
        lambda n: (
            "active_modules:\n  psu: {}\n  m: {connections: {powersupply_DC: ["
            + ", ".join(f"{{module_id: psu, implementation_id: c_{number}}}" for number in range(n))
            + "]}}"
        ),
        lambda n: (
            "active_modules:\n  psu:\n    config_implementation: {c: {max_export_current_A: 1}}\n"
            "    connections: {imd: [" + ", ".join(f"{{module_id: m{number}}}" for number in range(n)) + "]}"
        ),
        lambda n: "active_modules: {psu: [" + ", ".join(f"&a{number} 1" for number in range(n)) + "]}",
    ],
)
def test_a_configuration_of_everest_with_many_parts(text: Callable[[int], str]) -> None:
    assert_linear(lambda n: lambda: migrate(read_everest(text(n)), "psu", "config.yaml"), 100)


YAML_BOMBS = [
    "a: &a [x, x]\n"
    + "".join(
        f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}]\n" for a, b in zip("abcdefghijk", "bcdefghijkl", strict=True)
    ),
    "a: &a {b: *a}",
    "a: " + "[" * 5000,
    "a: " + "{b: " * 5000,
    "\n".join(" " * number + "a:" for number in range(100)),
]


@pytest.mark.parametrize("text", YAML_BOMBS, ids=range(len(YAML_BOMBS)))
def test_yaml_that_is_made_to_hurt_is_refused(text: str) -> None:
    with pytest.raises(EverestFileError):
        read_everest(text)


# --- log files -----------------------------------------------------------------------------------------------


def read_all(path: Path) -> str:
    """What is said of the file, by whichever means."""
    restore_errors(path.parent, JOURNAL_CONFIG)
    try:
        gather(open_logs([path]), lambda _: None)
        with read_log(path) as log:
            for _ in log.turns():
                pass
            assert log.ending is not None
            return log.ending.text
    except LogError as error:
        return str(error)


def log_of(tmp_path: Path, *records: tuple[int, bytes], after: int = 3) -> Path:
    """A log with these records after its header and channel."""
    path = tmp_path / "log.mcap"
    path.write_bytes(MCAP0_MAGIC + joined([*RECORDS[:after], *records]))
    return path


def test_a_log_with_many_records(tmp_path: Path) -> None:
    schema = (Opcode.SCHEMA, b"\1\0" + bytes(12))
    channel = (Opcode.CHANNEL, RECORDS[2][1])
    assert_linear(lambda n: lambda: read_all(log_of(tmp_path, *[schema, channel] * n)), 100)


def chunk_record(
    packed: bytes, uncompressed_bytes: int, crc: int = 0, stated: int | None = None
) -> tuple[int, bytes]:
    head = struct.pack("<QQQII", 0, 0, uncompressed_bytes, crc, 4) + b"zstd"
    return Opcode.CHUNK, head + struct.pack("<Q", len(packed) if stated is None else stated) + packed


def zstd_bomb(size_bytes: int, told_bytes: int | None = None) -> bytes:
    """A frame of so many zeros, which tells that it has `told_bytes`."""
    packed = zstandard.ZstdCompressor(level=19).compress(bytes(size_bytes))
    parameters = zstandard.get_frame_parameters(packed)
    assert parameters.content_size == size_bytes
    if told_bytes is None:
        return packed
    # Magic, descriptor with a size of 8 bytes and no window, size; then the blocks as they were.
    blocks_at = zstandard.frame_header_size(packed)
    return packed[:4] + b"\xe0" + told_bytes.to_bytes(8, "little") + packed[blocks_at:]


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(chunk_record(zstd_bomb(1000, 10 * 2**30), 1000), id="frame-tells-10-GiB"),
        pytest.param(chunk_record(zstd_bomb(1000, 2**40), 2**40), id="chunk-tells-a-terabyte"),
        pytest.param(chunk_record(zstd_bomb(50 * MEGABYTE), 1000), id="50-MiB-where-1000-bytes-are-said"),
        pytest.param(chunk_record(b"", 1000, stated=2**63), id="length-that-no-file-has"),
        pytest.param(chunk_record(b"", 1000, stated=2**64 - 1), id="longest-length"),
    ],
)
def test_a_chunk_that_lies_about_its_size(tmp_path: Path, record: tuple[int, bytes]) -> None:
    path = log_of(tmp_path, record)
    assert peak_bytes(lambda: read_all(path)) < 8 * MEGABYTE
    assert read_all(path)


@pytest.mark.parametrize("length", [2**30, 2**40, 2**63, 2**64 - 1])
@pytest.mark.parametrize("opcode", [Opcode.MESSAGE, Opcode.METADATA, Opcode.CHUNK, Opcode.DATA_END])
def test_a_record_that_announces_gigabytes(tmp_path: Path, opcode: int, length: int) -> None:
    path = log_of(tmp_path)
    with path.open("ab") as file:
        file.write(struct.pack("<BQ", opcode, length) + bytes(100))
    assert peak_bytes(lambda: read_all(path)) < 8 * MEGABYTE
    assert "a length of" in read_all(path) or "missing" in read_all(path)


def test_an_index_that_points_anywhere(tmp_path: Path) -> None:
    """The summary is found through the index at the file's end: places and lengths in it may be anything."""
    place = PLAIN.rindex(b"fusioncharger.summary") - 20
    for offset, length in ((2**63, 100), (2**64 - 1, 2**64 - 1), (0, 0), (1, 8), (5, 2**40)):
        log = bytearray(PLAIN)
        struct.pack_into("<QQ", log, place, offset, length)
        path = tmp_path / "log.mcap"
        path.write_bytes(log)
        assert open_logs([path]).segments[0].summary is None
        assert read_all(path) == ""


PAYLOADS = [
    b'{"type":"Started","x":' + b"[" * 100_000,
    b'{"type":"SegmentHeader","format":' + b"[" * 100_000,
    b'{"type":"SegmentHeader","format":2,"config":' + b'{"a":' * 100_000,
    b'{"type":"SegmentHeader","format":1' + b"0" * 4000,
    b'{"type":"SegmentHeader","format":-1' + b"0" * 30,
    b'{"type":"SegmentHeader","format":1,"run_id":"\xff"',
    b'{"type":"SegmentHeader"',
    b'{"type":"\xff"',
    b"no JSON at all",
    b"",
]


@pytest.mark.parametrize("place", [0, 1, 2], ids=["header", "note", "input"])
@pytest.mark.parametrize("covered", PAYLOADS, ids=range(len(PAYLOADS)))
def test_a_payload_that_is_sealed_and_still_no_message(tmp_path: Path, covered: bytes, place: int) -> None:
    """A checksum can be made right by whoever alters a log."""
    messages = [number for number, (opcode, _) in enumerate(RECORDS) if opcode == Opcode.MESSAGE]
    records = list(RECORDS)
    number = messages[place]
    records[number] = Opcode.MESSAGE, records[number][1][:22] + sealed(covered)
    path = tmp_path / "log.mcap"
    path.write_bytes(MCAP0_MAGIC + joined(records) + MCAP0_MAGIC)
    assert read_all(path)


def test_a_header_of_the_far_future_is_refused(tmp_path: Path) -> None:
    messages = [number for number, (opcode, _) in enumerate(RECORDS) if opcode == Opcode.MESSAGE]
    opcode, content = RECORDS[messages[0]]
    covered = content[22:].rpartition(b',"crc32"')[0]
    for name in (b"utc_ns", b"first_turn", b"segment"):
        start = covered.index(b'"%b":' % name) + len(name) + 3
        end = covered.index(b",", start)
        altered = (opcode, content[:22] + sealed(covered[:start] + b"9" * 30 + covered[end:]))
        path = tmp_path / "log.mcap"
        path.write_bytes(MCAP0_MAGIC + joined([*RECORDS[: messages[0]], altered]))
        with pytest.raises(UnsupportedFormatError), read_log(path):
            pass


def salvaged(rest: bytes, tmp_path: Path) -> tuple[int, int]:
    """How many messages are found in a file that is damaged from its beginning on; how many bytes the search
    looked at."""
    path = tmp_path / "damaged.mcap"
    path.write_bytes(MCAP0_MAGIC + b"\xff" * 50 + rest)
    with path.open("rb") as file:
        salvage = Salvage(file)
        found = sum(1 for _ in salvage.messages())
    return found, salvage._search_bytes


def test_records_that_begin_in_one_another_are_not_searched_through_again_and_again(tmp_path: Path) -> None:
    """Each of these announces all that follows it."""
    opening = struct.pack("<BQ", Opcode.MESSAGE, 0) + bytes(22) + b'{"type":"'
    for count in (500, 1000, 2000):
        rest = bytearray(opening * count)
        for number in range(count):
            at = number * len(opening)
            struct.pack_into("<Q", rest, at + 1, len(rest) - at - 9)
        found, looked_at = salvaged(bytes(rest), tmp_path)
        assert found == 0
        assert looked_at <= (SEARCH_FACTOR + 2) * len(rest)


def test_what_is_whole_is_found_behind_what_begins_like_a_record(tmp_path: Path) -> None:
    messages = [content for opcode, content in RECORDS if opcode == Opcode.MESSAGE]
    whole = joined([(Opcode.MESSAGE, content) for content in messages])
    garbage = b"\x05\xff\0\0\0\0\0\0\0" + bytes(22) + b'{"type":"'
    assert salvaged(garbage * 3 + whole, tmp_path)[0] == len(messages)


@pytest.mark.parametrize("covered", [b'{"type":"\xff"', b'{"type":"', b'{"type":"Later"'])
def test_a_message_of_no_known_type_is_not_salvaged(tmp_path: Path, covered: bytes) -> None:
    assert salvaged(joined([(Opcode.MESSAGE, bytes(22) + sealed(covered))]), tmp_path)[0] == 0


@pytest.mark.parametrize("stated", [2**63, 2**64 - 1, 10**6])
def test_a_chunk_that_lies_is_not_salvaged(tmp_path: Path, stated: int) -> None:
    record = chunk_record(zstd_bomb(1000, 10 * 2**30), 1000, stated=stated)
    assert peak_bytes(lambda: salvaged(joined([record]), tmp_path)) < 8 * MEGABYTE


# --- bundles -------------------------------------------------------------------------------------------------


def zipped(path: Path, entries: list[tuple[str, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in entries:
            made.writestr(name, content)
    return path


def test_a_bundle_with_many_entries(tmp_path: Path) -> None:
    def action(n: int) -> Callable[[], object]:
        names = [f"file-{number}" for number in range(n)]
        sums = "".join(f"0  {name}\n" for name in names)
        path = zipped(tmp_path / "case.zip", [(SUMS, sums.encode()), *((name, b"") for name in names)])
        return lambda: verify_bundle(path)

    assert_linear(action, 100)


def test_a_bundle_whose_entries_share_their_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each entry of the directory points to the same packed bytes: 40 KB that want to be 100 MB."""
    path = zipped(tmp_path / "case.zip", [("a", bytes(10**6))])
    data = bytearray(path.read_bytes())
    end = data.rindex(b"PK\5\6")
    begin = data.index(b"PK\1\2")
    entry = bytes(data[begin:end])
    count = 100
    head = bytes(data[:begin])
    directory = entry * count
    tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(directory), len(head), 0)
    path.write_bytes(head + directory + tail)
    assert verify_bundle(path) == 2
    assert "which it cannot hold" in capsys.readouterr().err


def test_sums_without_end_are_not_read(tmp_path: Path) -> None:
    path = zipped(tmp_path / "case.zip", [(SUMS, bytes(40 * MEGABYTE))])
    assert peak_bytes(lambda: verify_bundle(path)) < 8 * MEGABYTE


@pytest.mark.parametrize("altered", [{"version": 213}, {"flags": 0x800}, {"method": 99}, {"encrypted": 1}])
def test_a_zip_that_cannot_be_unpacked_is_no_bundle(tmp_path: Path, altered: dict[str, int]) -> None:
    path = zipped(tmp_path / "case.zip", [("\xe4", b"x"), (SUMS, b"x")])
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\1\2")
    if "version" in altered:
        struct.pack_into("<H", data, entry + 6, altered["version"])
    elif "flags" in altered:
        data[entry + 46] = 0xFF  # of a name that is said to be UTF-8
    elif "method" in altered:
        struct.pack_into("<H", data, data.rindex(b"PK\1\2") + 10, altered["method"])
    else:
        data[data.rindex(b"PK\1\2") + 8] |= altered["encrypted"]
    path.write_bytes(data)
    assert verify_bundle(path) in (2, 3)
