"""Logs with a record whose checksum is right, and whose JSON is nested deeper than anyone reads: whoever alters
a log can make one. Every command says what it thinks of it, and none breaks off with an exception."""

from pathlib import Path

import pytest
from fusioncharger.app.cli import main
from fusioncharger.replay.log_format import type_name
from fuzz.target_journal import RECORDS, joined, sealed
from mcap.opcode import Opcode
from mcap.writer import MCAP0_MAGIC

HEAD_BYTES = 22
MESSAGES = [number for number, (opcode, _) in enumerate(RECORDS) if opcode == Opcode.MESSAGE]
COMMANDS = (
    ("replay",),
    ("replay", "--first"),
    ("replay", "--at", "3"),
    ("replay", "--from", "1"),
    ("replay", "--set", "connectors[1].max_export_current_A=20"),
    ("log", "info"),
    ("log", "cat"),
    ("log", "verify"),
    ("log", "recover", "-o", "out.mcap"),
    ("log", "pcap", "-o", "out.pcapng"),
    ("log", "export", "--csv", "out"),
    ("view", "-o", "out.html"),
    ("bundle", "-o", "out.zip", "--since", "100000d", "--journal"),
)
EXIT_CODES = range(6)


def log_with(nested: int, *, damaged: int | None, directory: Path) -> None:
    """One message nested, and perhaps one with a checksum that fails."""
    records = list(RECORDS)
    content = records[nested][1]
    name = type_name(content[HEAD_BYTES:]).encode()
    payload = sealed(b'{"type":"' + name + b'","x":' + b"[" * 5000)
    records[nested] = Opcode.MESSAGE, content[:HEAD_BYTES] + payload
    if damaged is not None:
        opcode, content = records[damaged]
        records[damaged] = opcode, content[:-4] + b"0000"
    log = directory / "20261118T110640Z-01234567-0001.mcap"
    log.write_bytes(MCAP0_MAGIC + joined(records) + MCAP0_MAGIC)


@pytest.mark.parametrize("has_damage", [False, True], ids=["whole", "damaged before"])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_bears_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], *, has_damage: bool
) -> None:
    for number in range(4 if has_damage else 0, len(MESSAGES)):
        directory = tmp_path / str(number)
        directory.mkdir()
        monkeypatch.chdir(directory)
        log_with(MESSAGES[number], damaged=MESSAGES[number - 2] if has_damage else None, directory=directory)
        assert main([*command, str(directory)]) in EXIT_CODES, number
