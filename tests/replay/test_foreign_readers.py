"""The journal in other people's hands: read with Foxglove's own MCAP reader, in node, and each payload checked
against the schema that the file carries. Numbers and order have to be those that our reader finds.

The reader comes from npm, in the versions and with the hashes of tests/foreign/package-lock.json, once for each
virtual environment. It takes node and npm (Debian: nodejs, npm).
"""

import enum
import hashlib
import json
import shutil
import subprocess
import sys
import time
import types
import typing
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.recorded_session import INPUTS, TURN_NS, UTC_NS, DrivenJournal, record_session
from fusioncharger.messages.inputs import AnyInput
from fusioncharger.messages.outputs import AnyOutput
from fusioncharger.replay import housekeeping
from fusioncharger.replay.log_format import PROFILE, SUMMARY_METADATA, TYPES
from fusioncharger.replay.records import Message, RecordError, RecordReader, read_metadata
from msgspec import Struct
from msgspec.structs import replace
from requirements import require_program

FOREIGN = Path(__file__).parents[1] / "foreign"
FILES = ("package.json", "package-lock.json", ".npmrc", "read_mcap.mjs")
TIMEOUT_S = 120.0


@pytest.fixture(scope="module")
def reader_script() -> Path:
    """The reader, with its modules beside it."""
    for program in ("node", "npm"):
        require_program(program)
    contents = b"".join((FOREIGN / name).read_bytes() for name in FILES)
    place = Path(sys.prefix) / f"foreign-{hashlib.sha256(contents).hexdigest()[:12]}"
    if not place.is_dir():
        partial = place.with_suffix(".part")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        for name in FILES:
            shutil.copy(FOREIGN / name, partial)
        command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run(
            command, cwd=partial, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        assert done.returncode == 0, f"npm ci failed: {done.stderr}"
        partial.rename(place)
    return place / "read_mcap.mjs"


class Foreign:
    """What the foreign reader found in a file."""

    def __init__(self, script: Path, mode: str, path: Path) -> None:
        done = subprocess.run(
            ["node", str(script), mode, str(path)],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        self.found: dict[str, Any] = json.loads(done.stdout)

    def agrees_with(self, messages: list[Message]) -> None:
        assert self.found["error"] is None
        assert self.found["profile"] == PROFILE
        assert self.found["channels"] == Counter(topic for topic, *_ in messages)
        assert self.found["sequences"] == [turn for _, turn, *_ in messages]


def our_messages(path: Path) -> list[Message]:
    """As far as the file is whole."""
    found: list[Message] = []
    with path.open("rb", buffering=0) as file:
        reader = RecordReader(file)
        try:
            reader.read_profile()
            found.extend(reader.messages())
        except RecordError:
            pass
    return found


def our_whole_messages(path: Path) -> list[Message]:
    with path.open("rb", buffering=0) as file:
        reader = RecordReader(file)
        reader.read_profile()
        return list(reader.messages())


def test_a_closed_segment(reader_script: Path, tmp_path: Path) -> None:
    log = record_session(tmp_path)
    messages = our_whole_messages(log)
    assert len(messages) > 100
    foreign = Foreign(reader_script, "stream", log)
    foreign.agrees_with(messages)
    assert foreign.found["footer"]
    assert foreign.found["done"]


def test_a_segment_that_is_being_written(reader_script: Path, tmp_path: Path) -> None:
    driven = DrivenJournal(tmp_path)
    driven.open()
    driven.await_report("ready")
    driven.run()
    (log,) = driven.logs
    # The recorder says nothing when it has written: look until the last turn is there.
    deadline_s = time.monotonic() + 10
    while len(messages := our_messages(log)) < 100 or messages[-1][1] < len(INPUTS):
        assert time.monotonic() < deadline_s, f"{len(messages)} messages after 10 s"
    copy = tmp_path / "copy"
    copy.write_bytes(log.read_bytes())
    foreign = Foreign(reader_script, "stream", copy)
    foreign.agrees_with(our_messages(copy))
    assert not foreign.found["footer"]
    assert driven.journal.close(10.0)


def test_a_torn_segment_is_read_up_to_the_cut(reader_script: Path, tmp_path: Path) -> None:
    log = record_session(tmp_path)
    data = log.read_bytes()
    whole = len(our_messages(log))
    counts = []
    for part in (0.35, 0.6, 0.9):
        torn = tmp_path / "torn"
        torn.write_bytes(data[: int(len(data) * part)])
        messages = our_messages(torn)
        Foreign(reader_script, "stream", torn).agrees_with(messages)
        counts.append(len(messages))
    assert 0 < counts[0] < counts[1] < counts[2] < whole


@pytest.mark.parametrize("mode", ["stream", "indexed"])
def test_a_compressed_segment(
    reader_script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    log = record_session(tmp_path)
    messages = our_whole_messages(log)
    monkeypatch.setattr(housekeeping, "CHUNK_BYTES", 4096)
    assert housekeeping.compress(log)
    assert our_whole_messages(log) == messages
    foreign = Foreign(reader_script, mode, log)
    # The index is by time, which all messages of a turn share: they come in the file's order all the same.
    foreign.agrees_with(messages)
    assert foreign.found["chunks"] > 3
    if mode == "indexed":
        assert foreign.found["statistics"] == len(messages)
    with log.open("rb") as file:
        ours = read_metadata(file, SUMMARY_METADATA)
    assert ours is not None
    assert foreign.found["metadata"] == {SUMMARY_METADATA: ours}


def test_every_type_of_message_fits_the_schema_that_the_file_carries(
    reader_script: Path, tmp_path: Path
) -> None:
    driven = DrivenJournal(tmp_path)
    driven.open()
    inputs, outputs = examples(AnyInput), examples(AnyOutput)
    for turn, message in enumerate(inputs, 1):
        utc_ns = UTC_NS + turn * TURN_NS
        driven.journal.record_input(turn, utc_ns, replace(message, at_ns=turn * TURN_NS))
        driven.journal.record_outputs(turn, turn * TURN_NS, utc_ns, tuple(outputs))
    assert driven.journal.close(10.0)
    (log,) = driven.logs
    foreign = Foreign(reader_script, "stream", log)
    foreign.agrees_with(our_whole_messages(log))
    kinds = {topic.rpartition("/")[2] for topic in foreign.found["channels"]}
    assert kinds == set(TYPES) - {"Gap"}


def examples(union: Any) -> list[Any]:
    """One message of every type."""
    return [example(kind) for kind in typing.get_args(union)]


def example(kind: Any) -> Any:
    """A value of that type, as full as it can be."""
    arguments = typing.get_args(kind)
    match typing.get_origin(kind) or kind:
        case types.UnionType | typing.Union:
            return example(arguments[0])
        case origin if origin is tuple:
            return (example(arguments[0]),)
        case origin if origin is dict:
            return {example(arguments[0]): example(arguments[1])}
        case origin if issubclass(origin, enum.Enum):
            return next(iter(origin))
        case origin if issubclass(origin, Struct):
            return origin(**dict(_fields(origin)))
        case origin:
            return {int: 1, float: 1.5, str: "x", bytes: b"\x01\x02", bool: True}[origin]


def _fields(kind: type[Struct]) -> Iterator[tuple[str, Any]]:
    hints = typing.get_type_hints(kind)
    for name in kind.__struct_fields__:
        yield name, example(hints[name])
