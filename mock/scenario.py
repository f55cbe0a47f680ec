"""A scenario: what the mock does by itself, and when (docs/mock.md).

    clock = "connected"         # seconds count from the first dispenser's connect; "start": from the listening
    [[step]]
    at = 12.5
    do = "alarm"                # a command (commands.py), with its keys
    name = "PowerUnit/Water"

The file is checked as a whole before the mock starts. `ScenarioRun` is pure: it is told the time.
"""

from collections import deque
from pathlib import Path
from typing import Literal, cast

from msgspec import Struct

from ..messages.toml_table import TomlError, table_of
from .commands import Command, CommandError, command_from, nearest

Clock = Literal["connected", "start"]
SECOND_NS = 1_000_000_000
MAX_AT_S = 1_000_000


class ScenarioError(Exception):
    """The file is not usable. The text is for the user: file, step, key, value found, what is allowed."""


class Step(Struct, frozen=True):
    """A command and its time."""

    number: int
    """In the file, from 1."""
    at_s: float
    command: Command


class Scenario(Struct, frozen=True):
    """The steps by time; those of the same time in the order of the file."""

    clock: Clock = "connected"
    steps: tuple[Step, ...] = ()


def read_scenario(path: str) -> Scenario:
    """The scenario in a file. ScenarioError."""
    try:
        document = table_of(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"{path}: cannot be read: {error.strerror}"
        raise ScenarioError(msg) from None
    except (TomlError, UnicodeDecodeError) as error:
        msg = f"{path}: is no TOML: {error}"
        raise ScenarioError(msg) from None
    for key in document:
        if key not in ("clock", "step"):
            msg = f"{path}: {key}: there is no such key{nearest(key, ('clock', 'step'))}; allowed: clock, step"
            raise ScenarioError(msg)
    clock = document.get("clock", "connected")
    if clock not in ("connected", "start"):
        msg = f"{path}: clock: found {clock!r}; allowed: connected, start"
        raise ScenarioError(msg)
    tables = document.get("step", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        msg = f"{path}: step: found {tables!r}; allowed: [[step]] tables"
        raise ScenarioError(msg)
    steps = [_step(path, number, table) for number, table in enumerate(tables, 1)]
    return Scenario(cast("Clock", clock), tuple(sorted(steps, key=lambda step: step.at_s)))


def _step(path: str, number: int, table: dict[str, object]) -> Step:
    do = table.get("do")
    where = f"{path}: step {number}" + (f" ({do})" if isinstance(do, str) else "")
    at_s = table.pop("at", None)
    is_number = isinstance(at_s, int | float) and not isinstance(at_s, bool)
    if not is_number or not 0 <= cast("float", at_s) <= MAX_AT_S:
        found = "missing" if at_s is None else f"found {at_s!r}"
        msg = f"{where}: at: {found}; allowed: seconds, 0 to 1000000"
        raise ScenarioError(msg)
    try:
        return Step(number, float(cast("float", at_s)), command_from(table))
    except CommandError as error:
        msg = f"{where}: {error}"
        raise ScenarioError(msg) from None


class ScenarioRun:
    """Which steps are due."""

    def __init__(self, scenario: Scenario) -> None:
        self._clock = scenario.clock
        self._steps = deque(scenario.steps)
        self._began_ns: int | None = None

    def happened(self, clock: Clock, now_ns: int) -> None:
        """The mock listens ("start"), or a dispenser connected."""
        if clock == self._clock and self._began_ns is None:
            self._began_ns = now_ns

    @property
    def due_ns(self) -> int | None:
        """When the next step is due; None for never, as it stands."""
        if self._began_ns is None or not self._steps:
            return None
        return self._began_ns + round(self._steps[0].at_s * SECOND_NS)

    def take_due(self, now_ns: int) -> Step | None:
        """The next step, if it is due."""
        due_ns = self.due_ns
        return self._steps.popleft() if due_ns is not None and due_ns <= now_ns else None
