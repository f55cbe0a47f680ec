"""The pytest plugin, in a pytest of its own: what is collected, what passes, what a failure prints."""

import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from fakes.recorded_session import INPUTS, record_session

TURNS = len(INPUTS)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record_session(tmp_path_factory.mktemp("session"))


class Project:
    """Another project, with its own pytest.ini."""

    def __init__(self, directory: Path, log: Path) -> None:
        self.directory = directory
        self._log = log
        (directory / "pytest.ini").write_text("[pytest]\n")

    def put(self, place: str, expected: str | None = None) -> Path:
        path = self.directory / place
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self._log, path)
        if expected is not None:
            path.with_name(path.stem + ".expect.toml").write_text(expected)
        return path

    def run(self, *arguments: str) -> tuple[int, str]:
        # -p: once, whether or not the entry point is installed here.
        plugin = ("-p", "fusioncharger.replay.pytest_plugin")
        command = [sys.executable, "-P", "-m", "pytest", "-p", "no:cacheprovider", *plugin, *arguments]
        done = subprocess.run(
            command,
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        )
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def project(tmp_path: Path, log: Path) -> Project:
    return Project(tmp_path, log)


def altered(path: Path, old: bytes, new: bytes) -> None:
    """Change a payload of the file, and seal it again."""
    data = path.read_bytes()
    assert len(old) == len(new)
    at = data.index(old)
    start, end = data.rindex(b'{"type":"', 0, at), data.index(b',"crc32":"', at)
    covered = data[start:at] + new + data[at + len(old) : end]
    seal = b',"crc32":"%08x"}' % zlib.crc32(covered)
    path.write_bytes(data[:start] + covered + seal + data[end + len(seal) :])


def test_logs_are_collected_where_the_option_says_and_where_they_are_named(project: Project) -> None:
    project.put("tests/sessions/one.mcap")
    other = project.put("elsewhere/two.mcap")
    code, text = project.run("--collect-only", "-q")
    assert code == 0
    assert "tests/sessions/one.mcap::replay" in text
    assert "two.mcap" not in text
    code, text = project.run("-q", str(other))
    assert (code, "1 passed" in text) == (0, True)
    code, text = project.run("--collect-only", "-q", "-o", "fusioncharger_sessions=elsewhere")
    assert "two.mcap::replay" in text
    assert "one.mcap" not in text


def test_everything_that_can_be_expected_is_compared(project: Project) -> None:
    project.put(
        "tests/sessions/one.mcap",
        f"""
        verdict = "identical"
        turns = {TURNS}
        gap = false
        ending = "goodbye"
        [[at]]
        turn = {TURNS}
        state = {{ "connector/1.bsp_event" = "A", "connector/2.bsp_event" = "Nothing" }}
        [[output]]
        type = "PsuConnectRequested"
        where = {{ connection = 1 }}
        count = 2
        [[output]]
        type = "TurnFailed"
        count = 0
        [[output]]
        type = "StopRequested"
        where = {{ connector = 99 }}
        """,
    )
    code, text = project.run()
    assert code == 1
    assert "replay of one.mcap" in text
    assert "one.mcap: not as expected" in text
    assert 'connector/2.bsp_event: expected "Nothing", found null' in text
    assert 'PsuConnectRequested with {"connection":1}: expected 2, found 1' in text
    assert 'StopRequested with {"connector":99}: expected at least one, found 0' in text
    assert "TurnFailed" not in text
    assert "connector/1" not in text
    assert "Traceback" not in text
    assert "pytest_plugin.py" not in text


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        ("verdit = 1", "unknown key verdit; did you mean verdict?"),
        ("[[at]]\nturn = 1\nstate = {}\nturns = 2", "unknown key at[1].turns; did you mean turn?"),
        ('[[output]]\ntype = "ErorRaised"', "there is no output 'ErorRaised'; did you mean ErrorRaised?"),
        ('verdict = "fine"', "verdict"),
        ("verdict =", "cannot be read"),
        ('[[at]]\nturn = 3\nstate = { "conector/1.mode" = 1 }', "there is no actor 'conector/1'"),
        ('[[at]]\nturn = 3\nstate = { "connector/1.mod" = 1 }', "there is no 'mod'; did you mean mode?"),
        ("[[at]]\nturn = 1000\nstate = {}", f"at turn 1000: the replay ended before it, after turn {TURNS}"),
        ("[[at]]\nturn = 0\nstate = {}", "at turn 0: the log begins with turn 1"),
        (
            '[[at]]\nturn = 3\nstate = { "connector/1.phase" = 1 }\n[[at]]\nturn = 3\nstate = {}',
            "at turn 3: connector/1.phase: expected 1, found",
        ),
        (
            '[[output]]\ntype = "ErrorRaised"\nwhere = { conector = 1 }\ncount = 0',
            "output[1].where: there is no 'conector'; did you mean connector?",
        ),
    ],
)
def test_what_the_file_cannot_say_is_told(project: Project, expected: str, said: str) -> None:
    """In this process: a pytest for each would take long."""
    from fusioncharger.replay.expectations import ExpectationFileError, judge, load  # noqa: PLC0415

    path = project.put("one.mcap", expected)
    try:
        text = judge(path, load(path))
    except ExpectationFileError as error:
        text = str(error)
        assert "one.expect.toml" in text
    assert said in text


def test_a_divergence_is_reported_as_replay_reports_it_or_expected(project: Project) -> None:
    plain = project.put("tests/sessions/plain.mcap")
    expected = project.put("tests/sessions/expected.mcap", 'verdict = "diverged"')
    for path in (plain, expected):
        altered(path, b'"PsuConnectRequested","connection":1', b'"PsuConnectRequested","connection":2')
    code, text = project.run()
    assert code == 1
    assert "1 failed, 1 passed" in text
    assert "diverged in turn" in text
    assert "PsuConnectRequested.connection" in text
    assert "Traceback" not in text


def test_a_cut_log_is_damaged(project: Project) -> None:
    for name, expected in (("plain", None), ("expected", 'verdict = "damaged"\nending = "damaged"')):
        path = project.put(f"tests/sessions/{name}.mcap", expected)
        path.write_bytes(path.read_bytes()[:-3000])
    code, text = project.run()
    assert code == 1
    assert "1 failed, 1 passed" in text
    assert "expected: identical; found: damaged" in text


def test_a_file_that_is_no_log_fails(project: Project) -> None:
    path = project.put("tests/sessions/one.mcap")
    path.write_bytes(b"something else")
    code, text = project.run()
    assert code == 1
    assert "one.mcap: not a log" in text
    assert "Traceback" not in text


def test_an_expectation_without_its_log_fails(project: Project) -> None:
    """As when the log was renamed: what is expected of it would never be looked at again."""
    project.put("tests/sessions/one.mcap", "turns = 1").unlink()
    code, text = project.run()
    assert code == 1
    assert "one.expect.toml: there is no one.mcap beside it" in text
    assert "Traceback" not in text
