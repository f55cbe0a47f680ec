"""`fusioncharger bundle`: what is packed, how much of a log that is being written, and what is refused."""

import hashlib
import os
import re
import time
import zipfile
from pathlib import Path

import pytest
from fakes.recorded_session import INPUTS, record_segments, record_session
from fakes.site_toml import CONNECTOR
from fusioncharger.app.cli import main
from fusioncharger.replay.reader import EndKind, read_log
from fusioncharger.replay.replayer import replay
from fusioncharger.replay.segment_file import SegmentFile

SITE = (
    """
psu_ip = "192.168.11.1"
# password: hunter2
[journal]
dir = "{journal}"
"""
    + CONNECTOR
)


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record_session(tmp_path_factory.mktemp("journal")).parent


def bundle(directory: Path, journal: Path, *options: str, since: str = "1000d") -> tuple[int, Path]:
    output = directory / "case.zip"
    log = directory / "driver.log"
    log.write_text("first\nsecond\n")
    arguments = ["bundle", "--since", since, "--journal", str(journal), "-o", str(output)]
    return main([*arguments, "--process-log", str(log), *options]), output


def test_a_bundle_holds_what_its_readme_says_and_replays(tmp_path: Path, journal: Path) -> None:
    config = tmp_path / "site.toml"
    config.write_text(SITE.format(journal=journal))
    code, output = bundle(tmp_path, journal, "--config", str(config))
    assert code == 0
    with zipfile.ZipFile(output) as packed:
        names = set(packed.namelist())
        sums = dict(reversed(line.split("  ")) for line in packed.read("SHA256SUMS").decode().splitlines())
        assert set(sums) == names - {"SHA256SUMS"}
        assert all(hashlib.sha256(packed.read(name)).hexdigest() == digest for name, digest in sums.items())
        assert packed.read("process.log").decode() == "first\nsecond\n"
        text = packed.read("config.toml").decode()
        readme = packed.read("README.txt").decode()
        packed.extractall(tmp_path / "out")
    assert "192.168.11.1" in text
    assert "hunter2" not in text
    (segment,) = sorted((tmp_path / "out" / "log").iterdir())
    assert f"log/{segment.name}" in readme
    assert segment.read_bytes() == (journal / segment.name).read_bytes()
    assert output.stat().st_mode & 0o077 == 0


def test_an_older_segment_stays_out(tmp_path: Path, journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "journal"
    mine.mkdir()
    (source,) = journal.glob("*.mcap")
    data = source.read_bytes()[:-2000]  # without its end: when it was written last is what counts
    for name, age_s in (("old.mcap", 7200), ("new.mcap", 60)):
        (mine / name).write_bytes(data)
        os.utime(mine / name, times=(time.time() - age_s,) * 2)
    code, output = bundle(tmp_path, mine, since="1h")
    assert code == 0
    with zipfile.ZipFile(output) as packed:
        assert [name for name in packed.namelist() if name.startswith("log/")] == ["log/new.mcap"]
    (mine / "new.mcap").unlink()
    output.unlink()
    code, output = bundle(tmp_path, mine, since="1h")
    assert code == 2
    assert "nothing was recorded since" in capsys.readouterr().err
    assert not output.exists()


def test_of_a_log_that_is_being_written_the_whole_records_are_packed(
    tmp_path: Path, journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source,) = journal.glob("*.mcap")
    whole = source.read_bytes()
    mine = tmp_path / "journal"
    mine.mkdir()
    file = SegmentFile(mine / source.name)
    cut = len(whole) * 2 // 3
    file.write(whole[:cut])
    file.flush()
    try:
        code, output = bundle(tmp_path, mine)
    finally:
        file.close()
    assert code == 0
    with zipfile.ZipFile(output) as packed:
        data = packed.read(f"log/{source.name}")
        assert "was being written" in packed.read("README.txt").decode()
    assert whole.startswith(data)
    assert cut - 2000 < len(data) <= cut
    again = tmp_path / "again.mcap"
    again.write_bytes(data)
    with read_log(again) as log:
        found = replay(log)
        assert log.ending is not None
        assert log.ending.kind is EndKind.DAMAGED
        assert "not closed" in log.ending.text
    assert found.divergence is None
    assert found.turns > 0
    assert main(["bundle", "--verify", str(output)]) == 0
    said = capsys.readouterr().out
    assert f"it was being written when it was packed: it ends after turn {found.turns}\n" in said
    assert said.endswith(f"; the log replays as identical: {found.turns} turns, {found.outputs} outputs\n")


def test_a_file_that_is_there_is_never_overwritten(
    tmp_path: Path, journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "case.zip"
    output.write_text("mine")
    assert bundle(tmp_path, journal)[0] == 2
    assert "exists already" in capsys.readouterr().err
    assert output.read_text() == "mine"
    output.rename(tmp_path / "case.zip.part")
    assert bundle(tmp_path, journal)[0] == 2
    assert "case.zip.part: exists already" in capsys.readouterr().err


def test_mistakes_are_told(
    tmp_path: Path, journal: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where there are no ./sessions, as `make demo` leaves them
    assert bundle(tmp_path, tmp_path / "nowhere")[0] == 2
    assert "nowhere" in capsys.readouterr().err
    assert main(["bundle", "-o", str(tmp_path / "a.zip")]) == 2
    assert "--journal" in capsys.readouterr().err
    code, _ = bundle(tmp_path / "..", journal, "--config", str(tmp_path / "none.toml"))
    assert code == 2
    assert "none.toml: cannot be read" in capsys.readouterr().err
    (tmp_path / "site.toml").write_text(SITE.format(journal="sessions"))
    assert main(["bundle", "-o", str(tmp_path / "a.zip"), "--config", str(tmp_path / "site.toml")]) == 2
    assert "sessions: there is no such directory (journal.dir in " in capsys.readouterr().err
    assert bundle(tmp_path, journal, "--process-log", str(tmp_path / "none.log"))[0] == 2
    assert "none.log: cannot be read: No such file or directory" in capsys.readouterr().err
    for words in ([], ["-o", "a.zip", "--verify", "a.zip"]):
        assert main(["bundle", *words]) == 2
        assert capsys.readouterr().err.startswith("say which file to make, -o FILE, or which to check")
    assert (
        main(["bundle", "-o", str(tmp_path / "none" / "a.zip"), "--journal", str(journal), "--since", "999d"])
        == 1
    )
    assert "a.zip: cannot be written: No such file or directory" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        bundle(tmp_path, journal, since="yesterday")
    assert "write it as 90m" in capsys.readouterr().err


def test_a_long_process_log_is_packed_from_its_end(tmp_path: Path, journal: Path) -> None:
    long = tmp_path / "long.log"
    long.write_text("".join(f"{'. ' * 46}{number:7}\n" for number in range(60_000)))
    code, output = bundle(tmp_path, journal, "--process-log", str(long))
    assert code == 0
    with zipfile.ZipFile(output) as packed:
        lines = packed.read("process.log").decode().splitlines()
    assert lines == [f"{'. ' * 46}{number:7}" for number in range(55_000, 60_000)]


# --- checking ----------------------------------------------------------------------------------------------


def repacked(bundle: Path, **changes: bytes | None) -> Path:
    """With other contents, or without an entry (None); names have _ for / and .; sums stay as they are."""
    changed = bundle.with_name("changed.zip")
    with zipfile.ZipFile(bundle) as source, zipfile.ZipFile(changed, "w") as target:
        for name in source.namelist():
            key = re.sub(r"[/.-]", "_", name)
            data = changes[key] if key in changes else source.read(name)
            if data is not None:
                target.writestr(name, data)
    return changed


def test_a_bundle_as_it_was_packed_is_verified(
    tmp_path: Path, journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = bundle(tmp_path, journal)[1]
    capsys.readouterr()
    assert main(["bundle", "--verify", str(output)]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"{output}: 6 files are as they were packed; the log replays as identical: ")
    assert said.err == ""


def test_what_was_altered_is_found(tmp_path: Path, journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = bundle(tmp_path, journal)[1]
    changed = repacked(output, host_txt=b"another host\n", versions_txt=None)
    with zipfile.ZipFile(changed, "a") as packed:
        packed.writestr("extra.txt", "x")
    capsys.readouterr()
    assert main(["bundle", "--verify", str(changed)]) == 3
    assert capsys.readouterr().err.splitlines() == [
        f"{changed}: extra.txt is not of the bundle",
        f"{changed}: host.txt is not what was packed: its checksum fails",
        f"{changed}: versions.txt is missing",
    ]
    data = bytearray(output.read_bytes())
    data[data.index(b".mcap") + 500] ^= 1  # in the packed log
    changed.write_bytes(data)
    assert main(["bundle", "--verify", str(changed)]) == 3
    assert ".mcap is not what was packed: its checksum fails" in capsys.readouterr().err


def test_a_log_that_replays_otherwise_or_is_damaged_is_told(
    tmp_path: Path, journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "journal"
    mine.mkdir()
    case = Path(__file__).parents[1] / "sessions" / "setpoint-kept-after-off.mcap"
    (mine / case.name).write_bytes(case.read_bytes())
    output = bundle(tmp_path, mine)[1]
    assert main(["bundle", "--verify", str(output)]) == 1
    said = capsys.readouterr()
    assert "setpoint-kept-after-off.mcap: turn 33 replays otherwise under version" in said.err
    assert said.out.endswith("files are as they were packed\n")
    output.unlink()
    (source,) = journal.glob("*.mcap")
    (mine / case.name).write_bytes(source.read_bytes()[:-2000])
    output = bundle(tmp_path, mine)[1]
    assert main(["bundle", "--verify", str(output)]) == 3
    assert "setpoint-kept-after-off.mcap: damaged after turn " in capsys.readouterr().err


def test_what_is_no_bundle_is_told(tmp_path: Path, journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text.zip"
    text.write_text("text")
    assert main(["bundle", "--verify", str(text)]) == 2
    assert capsys.readouterr().err == f"{text}: no bundle: not a zip file\n"
    fifo = tmp_path / "fifo.zip"
    os.mkfifo(fifo)
    assert main(["bundle", "--verify", str(fifo)]) == 2
    assert capsys.readouterr().err == f"{fifo}: no bundle: not a file\n"
    assert main(["bundle", "--verify", str(tmp_path / "none.zip")]) == 2
    assert "none.zip: No such file or directory" in capsys.readouterr().err
    changed = repacked(bundle(tmp_path, journal)[1], SHA256SUMS=None)
    assert main(["bundle", "--verify", str(changed)]) == 2
    assert f"{changed}: no bundle: there is no SHA256SUMS in it" in capsys.readouterr().err


def test_a_segment_that_was_not_there_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, second, _ = record_segments(tmp_path / "journal", INPUTS[:4], INPUTS[4:6], INPUTS[6:])
    second.unlink()
    output = bundle(tmp_path, tmp_path / "journal")[1]
    assert main(["bundle", "--verify", str(output)]) == 0
    assert (
        "log: turns 5 to 6 of run 01234567 are missing; so it was when it was packed" in capsys.readouterr().out
    )
