"""What the boards had reported when the former process ended (behaviour.md §6): read from its journal at start.

    newest *.mcap ─► heads of its records ─► the few that matter ─► the actor's own fold ─► errors, renumbered
                                         └► all the others: not decoded, not checked

Rules:
- It must not keep the driver from starting: no file, however damaged or foreign, raises. What could not be
  read is said in `problem`.
- It must be fast: the power unit is to be called within a second, and a log has 64 MiB (skimming.py).
- Reading stops at the first record that is broken; what came before it counts.
"""

import os
import re
import time
from pathlib import Path

import msgspec
from msgspec import Struct

from ..actors.dispenser_alarms import DispenserAlarmsState, with_error
from ..actors.names import DISPENSER_ALARMS
from ..messages.config import Config
from ..messages.inputs import ActiveErrorsReceived, BspError, BspErrorCleared, BspErrorRaised, Started
from .lifts import Lifter, can_lift
from .log_format import FORMAT, NOT_UNDERSTOOD, TOPICS, SegmentHeader, is_intact
from .skimming import DamagedLogError, UnusableLogError, skim

PROBLEMS_SHOWN = 3
CLOCK_TOLERANCE_NS = 60_000_000_000

_NAME = re.compile(r"[0-9]{8}T[0-9]{6}Z-([0-9a-f]{8})-([0-9]{4,})\.mcap")

_HEADER_TOPIC = TOPICS[SegmentHeader.__name__]
_TOPICS = frozenset(
    TOPICS[kind.__name__]
    for kind in (SegmentHeader, Started, BspErrorRaised, BspErrorCleared, ActiveErrorsReceived)
)
_message_decoder = msgspec.json.Decoder(Started | BspErrorRaised | BspErrorCleared | ActiveErrorsReceived)


class LastErrors(Struct, frozen=True):
    """What was restored."""

    errors: tuple[BspError, ...] = ()
    """In the order in which they were raised; connectors are those of the present configuration."""
    journal: str = ""
    """Name of the log that they are from; "" if there is none."""
    problem: str = ""
    """What could not be read, for the user."""
    dropped: tuple[str, ...] = ()
    """Errors of boards that the configuration does not name any more."""
    outdated: tuple[BspError, ...] = ()
    """Errors from before the machine was booted: the boards began anew, too, and report what still stands."""


NOTHING = LastErrors()


class _Found(Struct):
    """What a log tells."""

    boards: tuple[str, ...]
    """Module id of each connector's board support."""
    state: DispenserAlarmsState
    boot_id: str
    """Of the machine when it was written; "" if it does not tell."""
    has_begun: bool
    """Whether the core had taken its first Input: until then it knows nothing, nor what was restored."""


def restore_errors(directory: Path, config: Config, boot_id: str = "") -> LastErrors:
    """The boards' errors as they stood at the end of the newest log in `directory` whose process had begun.
    `boot_id`: the machine's; what was recorded before another boot does not count. Never raises."""
    problems: list[str] = []
    try:
        logs = _newest_first(directory, time.time_ns())
    except OSError as error:
        is_first_start = isinstance(error, FileNotFoundError)
        return NOTHING if is_first_start else LastErrors(problem=f"{directory}: {error.strerror or error}")
    for path in logs:
        try:
            found, problem = _read(path)
        except UnusableLogError as error:
            if str(error):
                problems.append(f"{path.name}: {error}")
        except OSError as error:
            problems.append(f"{path.name}: cannot be read: {error.strerror or error}")
        except Exception as error:  # noqa: BLE001 - whatever a file holds, the driver has to start
            problems.append(f"{path.name}: {type(error).__name__}: {error}")
        else:
            if problem:
                problems.append(f"{path.name}: {problem}")
            errors, dropped = _renumbered(found, config)
            if found.boot_id and boot_id and found.boot_id != boot_id:
                return LastErrors((), path.name, _shown(problems), outdated=errors)
            return LastErrors(errors, path.name, _shown(problems), dropped)
    return LastErrors(problem=_shown(problems))


def _newest_first(directory: Path, now_ns: int) -> list[Path]:
    """The logs, by when their runs were written last; a run's segments by their number. Not by the times in
    their names: a board without a battery begins its log before it hears of the time. What is from the future
    was written before the clock was set back, and comes last. OSError."""
    found = [(path, _written_ns(path)) for path in directory.iterdir() if path.suffix == ".mcap"]
    run_written_ns: dict[str, int] = {}
    for path, written_ns in found:
        run = _run_and_segment(path)[0]
        run_written_ns[run] = max(written_ns, run_written_ns.get(run, 0))

    def age(log: tuple[Path, int]) -> tuple[bool, int, int, int, str]:
        path, written_ns = log
        run, segment = _run_and_segment(path)
        last_ns = run_written_ns[run]
        return last_ns <= now_ns + CLOCK_TOLERANCE_NS, last_ns, segment, written_ns, path.name

    return [path for path, _ in sorted(found, key=age, reverse=True)]


def _run_and_segment(log: Path) -> tuple[str, int]:
    match = _NAME.fullmatch(log.name)
    return (match[1], int(match[2])) if match else (log.name, 0)


def _written_ns(log: Path) -> int:
    try:
        return log.lstat().st_mtime_ns
    except OSError:
        return 0


def _shown(problems: list[str]) -> str:
    more = len(problems) - PROBLEMS_SHOWN
    return "; ".join(problems[:PROBLEMS_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _renumbered(found: _Found, config: Config) -> tuple[tuple[BspError, ...], tuple[str, ...]]:
    """The errors with the connectors that their boards have now, and those whose board is gone."""
    numbers = {
        connector.evse_board_support: number
        for number, connector in enumerate(config.connectors, 1)
        if connector.evse_board_support
    }
    errors: list[BspError] = []
    dropped: list[str] = []
    for error in found.state.errors:
        board = found.boards[error.connector - 1] if 1 <= error.connector <= len(found.boards) else ""
        number = numbers.get(board)
        if number is None:
            dropped.append(f"{error.error_type} of {board or f'connector {error.connector}, without a board'}")
        else:
            errors.append(BspError(number, error.error_type, error.sub_type))
    return tuple(errors), tuple(dropped)


def _read(path: Path) -> tuple[_Found, str]:
    """What the log tells, and what is wrong with it ("": nothing). UnusableLogError, OSError."""
    if not path.is_file():
        msg = "not a file"
        raise UnusableLogError(msg)
    found, problem = None, ""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for topic, payload in skim(descriptor, _TOPICS):
            found = _beginning(payload) if topic == _HEADER_TOPIC else _after(found, payload)
    except DamagedLogError as error:
        problem = str(error)
    except OSError as error:
        problem = f"cannot be read to its end: {error.strerror or error}"
    finally:
        os.close(descriptor)
    if found is None or not found.has_begun:
        raise UnusableLogError(problem)
    return found, problem


def _beginning(payload: bytes) -> _Found:
    """What the segment's header tells. UnusableLogError, DamagedLogError."""
    if not is_intact(payload):
        msg = "the segment header is altered"
        raise DamagedLogError(msg)
    try:
        number = msgspec.json.decode(payload, type=_FormatNumber).format
        if not can_lift(number):
            msg = f"journal format {number}; this version reads formats up to {FORMAT}"
            raise UnusableLogError(msg)
        header = msgspec.json.decode(Lifter(number)(payload), type=SegmentHeader)
        boards = tuple(entry.evse_board_support for entry in msgspec.convert(header.config, _Boards).connectors)
        state = msgspec.convert(header.snapshot.get(DISPENSER_ALARMS, {}), DispenserAlarmsState)
    except NOT_UNDERSTOOD as error:
        msg = f"the segment header is not understood: {error}"
        raise UnusableLogError(msg) from None
    return _Found(boards, state, header.boot_id, has_begun=header.first_turn > 1)


def _after(found: _Found | None, payload: bytes) -> _Found:
    """What is known after an Input. DamagedLogError."""
    if found is None:
        msg = "the segment header is missing"
        raise DamagedLogError(msg)
    if not is_intact(payload):
        msg = "the checksum of an input fails; what came after it is not known"
        raise DamagedLogError(msg)
    try:
        message = _message_decoder.decode(payload)
    except NOT_UNDERSTOOD as error:
        msg = f"an input is not understood, and what came after it is not known: {error}"
        raise DamagedLogError(msg) from None
    has_begun = found.has_begun or isinstance(message, Started)
    return _Found(found.boards, with_error(found.state, message), found.boot_id, has_begun)


class _FormatNumber(Struct):
    """What is read of a header before anything else."""

    format: int


class _Board(Struct):
    """What counts of a connector in a configuration of any version."""

    evse_board_support: str = ""


class _Boards(Struct):
    """What counts of such a configuration."""

    connectors: tuple[_Board, ...]
