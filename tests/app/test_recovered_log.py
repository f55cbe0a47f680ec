"""What `log recover` makes of a damaged log, in the tools that replay a log or go on from its states: two
files, of which the second is from behind the damage, and has no snapshot."""

import csv
import re
import zipfile
from pathlib import Path

import pytest
from fakes.recorded_session import INPUTS, record_session
from fusioncharger.app.cli import main
from fusioncharger.messages.inputs import BspEventReceived, HeartbeatReceived, HmacKeyReceived, RegistersWritten
from fusioncharger.messages.types import BspEvent
from fusioncharger.replay.logs import open_logs
from fusioncharger.replay.view.drawing import draw

KEY = HmacKeyReceived(connection=1, connector=1)
MODE = RegistersWritten(
    connection=1, transaction_id=3, unit_id=0, function=6, address=0x2006, words=(1,), adu=bytes(12)
)
ALTERED = HeartbeatReceived(connector=1, heartbeat_id=77)
PLUG_IN = INPUTS.index(BspEventReceived(connector=1, event=BspEvent.B))
SESSION = (*INPUTS[:PLUG_IN], MODE, KEY, ALTERED, INPUTS[PLUG_IN], KEY, *INPUTS[PLUG_IN + 1 :])
"""With power requests before the altered turn, and behind it."""
LOST = SESSION.index(ALTERED) + 1


@pytest.fixture(scope="module")
def recovered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    log = record_session(tmp_path_factory.mktemp("session"), SESSION)
    data = bytearray(log.read_bytes())
    data[data.index(b'"heartbeat_id":77') + 15] ^= 1
    log.write_bytes(data)
    directory = tmp_path_factory.mktemp("recovered")
    assert main(["log", "recover", str(log), "-o", str(directory / "out.mcap")]) == 3
    assert len(open_logs([directory]).segments) == 2
    return directory


def test_the_picture_says_what_was_not_replayed(
    recovered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["view", str(recovered), "-o", str(tmp_path / "x.html")]) == 0
    said = capsys.readouterr().out
    assert f"out-from-turn-{LOST + 1}.mcap: its turns cannot be replayed here (they were recovered from" in said
    assert f"{len(SESSION) - 1} turns, {LOST - 1} of them replayed, as recorded; " in said
    (gap,) = draw(open_logs([recovered])).collector.timeline.gaps
    assert gap.text.startswith(f"turns {LOST} to {LOST} are missing: damaged: ")


def test_exports_have_the_messages_of_all_and_the_states_of_what_replays(
    recovered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["log", "export", str(recovered), "--csv", str(tmp_path)]) == 3
    assert (
        f"out-from-turn-{LOST + 1}.mcap: no rows of states of its turns: they were" in capsys.readouterr().err
    )
    turns = {
        name: {int(row["turn"]) for row in csv.DictReader((tmp_path / f"{name}.csv").read_text().splitlines())}
        for name in ("states", "messages")
    }
    assert turns["messages"] == set(range(1, len(SESSION) + 1)) - {LOST}
    assert turns["states"] <= set(range(1, LOST))
    assert main(["log", "export", str(recovered), "--csv", str(tmp_path / "m.csv"), "--table", "messages"]) == 0


def test_packets_go_on_behind_the_damage(
    recovered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The keys that connectors had before count: without them no GOOSE frame would be there."""
    assert main(["log", "pcap", str(recovered), "-o", str(tmp_path / "x.pcapng")]) == 0
    before = str(recovered / "out.mcap")
    assert main(["log", "pcap", before, "-o", str(tmp_path / "before.pcapng")]) == 0
    frames = [int(number) for number in re.findall(r": (\d+) GOOSE frames", capsys.readouterr().out)]
    assert frames[0] > frames[1] > 0
    data = (tmp_path / "x.pcapng").read_bytes()
    assert f"Before this, turns {LOST} to {LOST} are missing".encode() in data
    assert data.count(b"connected to the PSU") == 1  # one stream


def test_a_bundle_of_it_is_not_taken_for_replayed(
    recovered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "case.zip"
    assert main(["bundle", "--journal", str(recovered), "--since", "1000d", "-o", str(output)]) == 0
    assert zipfile.is_zipfile(output)
    capsys.readouterr()
    assert main(["bundle", "--verify", str(output)]) == 3
    said = capsys.readouterr()
    assert f"turns {LOST + 1} to {len(SESSION)} are not replayed: they were recovered" in said.err
    assert f"log: turns {LOST} to {LOST} of run 01234567 are missing; so it was when it was packed" in said.out
    assert f"the log replays as identical: {LOST - 1} turns" in said.out
