"""Field logs as tests, for pytest: every `tests/sessions/*.mcap` has to replay as identical, or as the
`.expect.toml` beside it says (expectations.py, docs/testing.md).

Rules:
- Works in any project that has the package installed: pytest finds it through the entry point `pytest11`.
- Where the logs are is set by the ini option `fusioncharger_sessions`; a log that is named on pytest's command
  line is taken wherever it is.
- An expectation without its log fails: else a log that was renamed would lose what is expected of it.
- A failure prints what `fusioncharger replay` would print, no traceback.
- Nothing of the package is imported before there is a log to replay: coverage is measured from then on.
"""

from collections.abc import Iterable
from pathlib import Path

import pytest

INI_OPTION = "fusioncharger_sessions"
DEFAULT_SESSIONS = "tests/sessions"
SUFFIX = ".mcap"
EXPECTATION_SUFFIX = ".expect.toml"
"""As in expectations.py."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the ini option."""
    parser.addini(
        INI_OPTION,
        f"directories whose {SUFFIX} files are logs to be replayed (default: {DEFAULT_SESSIONS})",
        type="args",
        default=[DEFAULT_SESSIONS],
    )


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> "SessionLog | None":
    """Take the logs among the files, and expectations whose log is not there."""
    is_orphan = file_path.name.endswith(EXPECTATION_SUFFIX) and not _log_of(file_path).exists()
    if file_path.suffix != SUFFIX and not is_orphan:
        return None
    directories = [parent.config.rootpath / name for name in parent.config.getini(INI_OPTION)]
    if file_path.parent in directories or parent.session.isinitpath(file_path):
        return SessionLog.from_parent(parent, path=file_path)
    return None


def _log_of(expectation: Path) -> Path:
    return expectation.with_name(expectation.name.removesuffix(EXPECTATION_SUFFIX) + SUFFIX)


class SessionLog(pytest.File):
    """A log."""

    def collect(self) -> Iterable[pytest.Item]:
        """One test: its replay."""
        yield ReplayItem.from_parent(self, name="replay")


class ReplayItem(pytest.Item):
    """The replay of a log."""

    def runtest(self) -> None:
        """Replay, and compare with what is expected. _NotAsExpectedError."""
        if self.path.suffix != SUFFIX:
            missing = _log_of(self.path).name
            msg = f"{self.path}: there is no {missing} beside it: nothing is compared with what it says"
            raise _NotAsExpectedError(msg)
        from .expectations import ExpectationFileError, judge, load  # noqa: PLC0415 - see the rules above
        from .reader import LogError  # noqa: PLC0415

        try:
            complaint = judge(self.path, load(self.path))
        except ExpectationFileError as error:
            complaint = str(error)
        except LogError as error:
            complaint = f"{self.path}: {error}"
        if complaint:
            raise _NotAsExpectedError(complaint)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None) -> str:
        """The report alone; a traceback only of what is no failed replay."""
        if isinstance(excinfo.value, _NotAsExpectedError):
            return str(excinfo.value)
        return str(super().repr_failure(excinfo, style))  # type: ignore[arg-type]  # pytest's own literal type

    def reportinfo(self) -> tuple[Path, None, str]:
        """The headline of a failure."""
        return self.path, None, f"replay of {self.path.name}"


class _NotAsExpectedError(Exception):
    """The text is the report."""
