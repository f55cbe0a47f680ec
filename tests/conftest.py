"""For all tests: `--fail-on-skip`, because a test that CI skips proves nothing. And how hypothesis runs, and
what signals do."""

import signal

import hypothesis
import pytest

# A machine that pauses for 0.2 s has found no fault.
hypothesis.settings.register_profile("fusioncharger", deadline=None)
hypothesis.settings.load_profile("fusioncharger")

# Under nohup, or behind a shell's &, these are ignored: every process that a test starts would inherit that.
# And whoever ends a run, with whatever signal, ends the processes that it has started as well.
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fail-on-skip", action="store_true", help="fail if any test was skipped")


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = len(reporter.stats.get("skipped", ())) if reporter else 0
    if skipped and session.config.getoption("--fail-on-skip"):
        reporter.write_line(f"\n{skipped} skipped: a failure, as --fail-on-skip says", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
