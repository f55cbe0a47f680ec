"""What a log that is a test has to come to: the file `NAME.expect.toml` beside `NAME.mcap` (docs/testing.md).

    verdict = "identical"               # or "diverged", "damaged"; this is the default, as without a file
    turns = 243                         # how many replay as recorded
    outputs = 630                       # how many outputs are compared and are the same
    diverged_turn = 17                  # for verdict "diverged": the first turn that differs
    gap = true                          # turns before this segment are missing
    ending = "driver died"              # how the log ends, as reader.EndKind names it
    last_error = "HardwareFault/x"      # type, and sub_type if it has one, of the last ErrorRaised

    [[at]]                              # the state after a turn
    turn = 120
    state = { "connector/1.phase" = "Running", "psu_link.phase" = "READY" }

    [[output]]                          # outputs that have to be there, or must not
    type = "ErrorRaised"
    where = { connector = 1 }           # fields that it has, if only such ones count
    count = 0                           # exactly so many; without it: at least one

A key that is left out is not compared.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from ..messages.outputs import AnyOutput, ErrorRaised
from ..messages.toml_table import TomlError, table_of
from .divergence import Divergence, report
from .log_format import TOPICS, TYPES, Gap
from .reader import DamagedLogError, Ending, EndKind, Turn, read_log
from .stepping import Step, Stepper

EXPECTATION_SUFFIX = ".expect.toml"

Verdict = Literal["identical", "diverged", "damaged"]


class ExpectationFileError(Exception):
    """The file says something that cannot be. The text is for the user."""


class At(Struct, frozen=True, forbid_unknown_fields=True):
    """State after a turn."""

    turn: int
    state: dict[str, Any]
    """By actor and field: `connector/1.setpoint.voltage_v`."""


class Emitted(Struct, frozen=True, forbid_unknown_fields=True):
    """Outputs of a kind."""

    type: str
    where: dict[str, Any] = {}
    count: int | None = None


class Expectation(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    verdict: Verdict = "identical"
    turns: int | None = None
    outputs: int | None = None
    diverged_turn: int | None = None
    gap: bool | None = None
    ending: EndKind | None = None
    last_error: str | None = None
    at: tuple[At, ...] = ()
    output: tuple[Emitted, ...] = ()


class _Found(Struct):
    """What the replay came to."""

    turns: int = 0
    outputs: int = 0
    divergence: Divergence | None = None
    damage: str = ""
    gap: Gap | None = None
    ending: Ending | None = None
    last_error: str = ""
    counts: dict[int, int] = {}
    """By place in `Expectation.output`."""
    first_turn: int = 0
    last_turn: int = 0
    complaints: list[str] = []
    """About states."""

    @property
    def verdict(self) -> Verdict:
        if self.divergence is not None:
            return "diverged"
        return "damaged" if self.damage else "identical"


def expectation_path(log: Path) -> Path:
    """Where a log's expectation is, if it has one."""
    return log.with_name(log.stem + EXPECTATION_SUFFIX)


def load(log: Path) -> Expectation:
    """What is expected of a log. ExpectationFileError."""
    path = expectation_path(log)
    try:
        table = table_of(path.read_text("utf-8"))
    except FileNotFoundError:
        return Expectation()
    except (OSError, UnicodeDecodeError, TomlError) as error:
        msg = f"{path}: cannot be read: {error}"
        raise ExpectationFileError(msg) from None
    problems = [*_unknown_keys(table)]
    if problems:
        raise ExpectationFileError("\n".join(f"{path}: {problem}" for problem in problems))
    try:
        expected = msgspec.convert(table, Expectation)
    except msgspec.ValidationError as error:
        msg = f"{path}: {error}"
        raise ExpectationFileError(msg) from None
    for number, emitted in enumerate(expected.output, 1):
        if not TOPICS.get(emitted.type, "").startswith("out/"):
            what = f"there is no output {emitted.type!r}{_hint(emitted.type, TOPICS)}"
            msg = f"{path}: output[{number}].type: {what}"
            raise ExpectationFileError(msg)
        known = TYPES[emitted.type].__struct_fields__
        for name in emitted.where:
            if name not in known:
                msg = f"{path}: output[{number}].where: there is no {name!r}{_hint(name, known)}"
                raise ExpectationFileError(msg)
    return expected


def judge(log: Path, expected: Expectation) -> str:
    """Replay a log; in what it is not as expected, "" if it is. LogError."""
    found = _replay(log, expected)
    complaints: list[str] = []
    if found.verdict != expected.verdict:
        complaints.append(f"expected: {expected.verdict}; found: {found.verdict}")
    for name, wanted, actual in (
        ("turns replayed as recorded", expected.turns, found.turns),
        ("outputs compared", expected.outputs, found.outputs),
        ("diverged_turn", expected.diverged_turn, found.divergence and found.divergence.turn.number),
        ("gap", expected.gap, found.gap is not None),
        ("ending", expected.ending and expected.ending.value, found.ending and found.ending.kind.value),
        ("last_error", expected.last_error, found.last_error),
    ):
        if wanted is not None and wanted != actual:
            complaints.append(f"{name}: expected {_shown(wanted)}, found {_shown(actual)}")
    complaints += found.complaints
    for at in expected.at:
        if at.turn > found.last_turn:
            complaints.append(f"at turn {at.turn}: the replay ended before it, after turn {found.last_turn}")
        elif at.turn < found.first_turn:
            complaints.append(f"at turn {at.turn}: the log begins with turn {found.first_turn}")
    for place, emitted in enumerate(expected.output):
        count = found.counts.get(place, 0)
        if count != emitted.count if emitted.count is not None else not count:
            wanted_text = "at least one" if emitted.count is None else str(emitted.count)
            which = f" with {_shown(emitted.where)}" if emitted.where else ""
            complaints.append(f"{emitted.type}{which}: expected {wanted_text}, found {count}")
    if not complaints:
        return ""
    lines = [f"{log}: not as expected", *(f"  {complaint}" for complaint in complaints)]
    if found.divergence is not None and expected.verdict != "diverged":
        lines += ["", report(found.divergence)]
    elif found.damage:
        lines.append(f"  the log is damaged: {found.damage}")
    return "\n".join(lines)


def _replay(path: Path, expected: Expectation) -> _Found:
    found = _Found()
    try:
        with read_log(path) as log:
            found.first_turn = log.header.first_turn
            _replay_turns(Stepper(log.header), log.turns(), expected, found)
            found.gap, found.ending = log.gap, log.ending
    except DamagedLogError as error:
        found.damage = str(error)
    if found.ending is not None and found.ending.kind is EndKind.DAMAGED:
        found.damage = found.ending.text
    return found


def _replay_turns(stepper: Stepper, turns: Iterable[Turn], expected: Expectation, found: _Found) -> None:
    """Up to the end, or to the first turn that differs."""
    at: dict[int, list[At]] = {}
    for expectation in expected.at:
        at.setdefault(expectation.turn, []).append(expectation)
    for turn in turns:
        step = stepper.step(turn)
        if step.differs:
            found.divergence = step.divergence()
            return
        found.turns += 1
        found.outputs += len(turn.outputs)
        found.last_turn = turn.number
        if turn.altered():
            found.damage = f"{turn.altered()}, though it is as replayed"
        for output in step.outputs:
            _count(output, expected, found)
        for expectation in at.get(turn.number, ()):
            found.complaints += _state_complaints(expectation, step)


def _count(output: AnyOutput, expected: Expectation, found: _Found) -> None:
    if isinstance(output, ErrorRaised):
        found.last_error = "/".join(part for part in (output.error_type, output.sub_type) if part)
    for place, emitted in enumerate(expected.output):
        if emitted.type != type(output).__name__:
            continue
        fields = msgspec.to_builtins(output)
        if all(fields.get(name) == value for name, value in emitted.where.items()):
            found.counts[place] = found.counts.get(place, 0) + 1


def _state_complaints(at: At, step: Step) -> Iterator[str]:
    for place, wanted in at.state.items():
        actor, *names = place.split(".")
        if actor not in step.after:
            yield f"at turn {at.turn}: there is no actor {actor!r}; there are: {', '.join(step.after)}"
            continue
        value: Any = msgspec.to_builtins(step.after[actor])
        for name in names:
            if not isinstance(value, dict) or name not in value:
                known = value if isinstance(value, dict) else ()
                yield f"at turn {at.turn}: {place}: there is no {name!r}{_hint(name, known)}"
                break
            value = value[name]
        else:
            if value != wanted:
                yield f"at turn {at.turn}: {place}: expected {_shown(wanted)}, found {_shown(value)}"


# --- words -----------------------------------------------------------------------------------------------


def _unknown_keys(table: Mapping[str, Any]) -> Iterator[str]:
    places: list[tuple[str, Any, type[Struct]]] = [("", table, Expectation)]
    tables: tuple[tuple[str, type[Struct]], ...] = (("at", At), ("output", Emitted))
    for name, struct in tables:
        entries = table.get(name)
        if isinstance(entries, list):
            places += [(f"{name}[{number}].", entry, struct) for number, entry in enumerate(entries, 1)]
    for where, entry, struct in places:
        known = struct.__struct_fields__
        for key in entry if isinstance(entry, dict) else ():
            if key not in known:
                yield f"unknown key {where}{key}{_hint(key, known) or '; known here: ' + ', '.join(known)}"


def _hint(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {near[0]}?" if near else ""


def _shown(value: object) -> str:
    return msgspec.json.encode(value).decode()
