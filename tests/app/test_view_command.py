"""`fusioncharger view`: the file it writes, what it says, and its exit codes."""

import argparse
import base64
import hashlib
import re
from pathlib import Path

import msgspec
import pytest
from fakes.recorded_session import INPUTS, record_session
from fusioncharger.app.view_command import DAMAGED, UNSUPPORTED, USAGE, WRITTEN, add_arguments, view_command
from fusioncharger.messages.inputs import MqttMessageRejected
from fusioncharger.replay.log_format import SEAL_BYTES, seal
from fusioncharger.replay.view.page import SCRIPTS

ASSETS = Path(__file__).parents[2] / "replay" / "view" / "assets"
HOSTILE = (
    """</script><img src="http://evil.invalid/x" onerror="document.title='owned'">{{blocks}}<!--<script>"""
)


def command(*words: object) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return view_command(parser.parse_args([str(word) for word in words]))


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rejected = MqttMessageRejected(topic=HOSTILE, reason=HOSTILE, size_bytes=1)
    return record_session(tmp_path_factory.mktemp("session"), (*INPUTS, rejected))


@pytest.fixture(scope="module")
def text(log: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    hostile_name = log.rename(log.parent / "<img src=x onerror=alert(1)>&.mcap")
    output = tmp_path_factory.mktemp("view") / "report.html"
    assert command(hostile_name, "-o", output) == WRITTEN
    hostile_name.rename(log)
    return output.read_text("utf-8")


def test_it_says_what_it_wrote(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "report.html"
    assert command(log, "-o", output) == WRITTEN
    said = capsys.readouterr()
    wanted = rf"{re.escape(str(output))}: {len(INPUTS) + 1} turns, replayed as recorded; \d\.\d MB, \d+\.\d s\n"
    assert re.fullmatch(wanted, said.out)
    assert said.err == ""


def test_the_same_log_makes_the_same_file(log: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / "one.html", tmp_path / "two.html"]
    for output in outputs:
        assert command(log, "-o", output) == WRITTEN
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


def test_only_its_own_scripts_and_styles_may_run(text: str) -> None:
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy.startswith("default-src 'none'; ")
    for kind, tag in (("script-src", "script"), ("style-src", "style")):
        inline = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        hashes = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in inline]
        allowed = " ".join(f"'sha256-{one}'" for one in hashes)
        assert f"{kind} {allowed};" in policy
        assert len(inline) == 2
    assert "unsafe" not in policy


def test_it_names_no_address_to_load_from(text: str) -> None:
    assert not re.findall(r"""(?:src|href|action)\s*=\s*["']""", text)
    assert "@import" not in text
    assert "url(" not in text
    assert {url for url in re.findall(r"https?://[\w./-]+", text) if "leeoniya" not in url} == set()


def test_nothing_from_the_log_stands_in_the_file_as_markup(text: str) -> None:
    assert "evil.invalid" not in text  # the turns are packed, and so is the timeline
    assert "<img" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;&amp;.mcap" in text  # the title
    assert text.count("<script") == text.count("</script>")


def test_the_library_is_shipped_with_its_licence(text: str) -> None:
    licence = (ASSETS / "uplot.LICENSE.txt").read_text("utf-8")
    assert "MIT" in licence
    assert licence in text
    assert re.search(r"uPlot \(v1\.6\.\d+\)", text)


def test_every_script_is_written_into_the_file() -> None:
    own = {path.name for path in ASSETS.glob("*.js")} - {"uplot.min.js"}
    assert own == set(SCRIPTS)


def test_scripts_are_as_short_as_modules() -> None:
    for name in SCRIPTS:
        assert len((ASSETS / name).read_text("utf-8").splitlines()) <= 300, name


def test_scripts_never_insert_markup() -> None:
    for name in SCRIPTS:
        script = (ASSETS / name).read_text("utf-8")
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|eval\(|Function\(", script
        )


def test_a_part_is_drawn(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(log, "-o", tmp_path / "x.html", "--from", "3", "--until", "5") == WRITTEN
    assert ": 3 turns, replayed as recorded" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--from", "2020-01-01T00:00:00Z"), "before the log's begin"),
        (("--from", "+9999"), "there is no turn in this part; the log begins at "),
    ],
)
def test_a_moment_that_is_not_in_the_log(
    words: tuple[str, ...], said: str, log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(log, "-o", tmp_path / "x.html", *words) == USAGE
    assert said in capsys.readouterr().err
    assert not (tmp_path / "x.html").exists()


def test_a_moment_that_is_none(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command(log, "-o", "x.html", "--from", "yesterday")
    assert "'yesterday' is no place in a log" in capsys.readouterr().err


def test_no_such_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(tmp_path / "none.mcap", "-o", tmp_path / "x.html") == USAGE
    assert "none.mcap: cannot be read: No such file or directory" in capsys.readouterr().err


def test_a_place_that_cannot_be_written(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "none" / "x.html"
    assert command(log, "-o", output) == USAGE
    assert capsys.readouterr().err == f"{output}: there is no directory {output.parent}\n"


def test_neither_a_log_nor_another_file_is_written_over(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = log.read_bytes()
    assert command(log, "-o", log, "--force") == USAGE
    assert capsys.readouterr().err == f"{log}: is the log itself; write to another file\n"
    assert log.read_bytes() == recorded
    output = tmp_path / "x.html"
    output.write_text("mine")
    assert command(log, "-o", output) == USAGE
    assert capsys.readouterr().err == f"{output}: is there already; --force replaces it\n"
    assert output.read_text() == "mine"
    assert command(log, "-o", output, "--force") == WRITTEN
    assert output.read_text("utf-8").startswith("<!doctype html>")


def test_an_empty_file_is_no_log_to_draw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.mcap").touch()
    assert command(tmp_path / "empty.mcap", "-o", tmp_path / "x.html") == DAMAGED
    assert "empty.mcap: the file is empty: no turn of it is whole" in capsys.readouterr().err


def test_a_cut_log_is_drawn_and_said_to_be_cut(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(log.read_bytes()[:-2000])
    assert command(cut, "-o", tmp_path / "x.html") == DAMAGED
    said = capsys.readouterr().out
    assert said.startswith("The log ends early: cut.mcap: ")
    assert (tmp_path / "x.html").exists()


def test_a_format_that_is_not_known(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = log.read_bytes()
    start = data.index(b'{"type":"SegmentHeader"')
    end = data.index(b',"crc32":"', start)
    later = re.sub(rb'"format":\d', b'"format":9', data[start:end]) + b"}"
    other = tmp_path / "later.mcap"
    other.write_bytes(data[:start] + seal(msgspec.Raw(later)) + data[end + SEAL_BYTES :])
    assert command(other, "-o", tmp_path / "x.html") == UNSUPPORTED
    assert re.search(r"later\.mcap: journal format 9; .*: not supported", capsys.readouterr().err)
