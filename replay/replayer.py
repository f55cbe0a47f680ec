"""Feeds a log's Inputs through the actors again and compares every Output of every turn (architecture.md §1).

The replayed core is the live one (actors.system.build), started from the snapshot in the log's header; its time
is the recorded one, since time comes with the Inputs. Replay stops at the first turn that differs: what follows
would only be its consequences.
"""

from collections.abc import Mapping

from msgspec import Struct

from ..actors.runtime import ActorState
from ..messages.outputs import AnyOutput
from .divergence import Divergence, differs, is_whole_and_same
from .reader import LogReader, RecordedOutput
from .stepping import NO_SNAPSHOT, described, recorded_config, restored


class Replay(Struct, frozen=True):
    """What a replay found."""

    turns: int
    """How many were replayed as recorded."""
    outputs: int
    """How many were compared and are the same."""
    divergence: Divergence | None = None
    altered: str = ""
    """The first output that is as replayed although its checksum fails, in words."""
    unfinished: str = ""
    """What the last turn lacks, if the log ends in the middle of it."""
    states: Mapping[str, ActorState] = {}
    """Every actor's state after the last turn, if nothing differs: what the next segment begins with."""
    skipped: str = ""
    """The turns that cannot be replayed, in words."""


def replay(log: LogReader) -> Replay:
    """Replay a log up to its end, its damage, or the first divergence. What was recovered from behind damage is
    only read. UnsupportedFormatError."""
    if not log.header.snapshot:
        return Replay(0, 0, skipped=_skipped(log))
    runtime = restored(log.header, recorded_config(log.header))
    turns = outputs = 0
    altered = unfinished = ""
    for turn in log.turns():
        try:
            actual = runtime.turn(turn.input)
        except Exception as error:  # noqa: BLE001 - whatever the core raises is what the replay found
            divergence = Divergence(turn, (), runtime.states_before(), runtime.states(), described(error))
            return Replay(turns, outputs, divergence, altered)
        if not _is_as_recorded(actual, turn.outputs):
            expected = turn.outputs
            missing = len(actual) - len(expected)
            if missing < 0 or (missing and turn.complete) or any(map(differs, expected, actual)):
                divergence = Divergence(turn, actual, runtime.states_before(), runtime.states())
                return Replay(turns, outputs, divergence, altered)
            if missing:
                unfinished = (
                    f"the log ends in turn {turn.number} before all its outputs were handed over: "
                    f"{len(expected)} of {len(actual)} are recorded"
                )
            if not altered and (text := turn.altered()):
                altered = f"{text}, though it is as replayed"
        turns += 1
        outputs += len(turn.outputs)
    return Replay(turns, outputs, None, altered, unfinished, runtime.states())


def _is_as_recorded(actual: tuple[AnyOutput, ...], recorded: tuple[RecordedOutput, ...]) -> bool:
    """Whether all Outputs are there, whole and the same: as it mostly is, and then there is no more to say."""
    if len(actual) != len(recorded):
        return False
    return all(map(is_whole_and_same, recorded, actual))


def _skipped(log: LogReader) -> str:
    last_turn = log.header.first_turn
    for turn in log.turns():
        last_turn = turn.number
    return f"turns {log.header.first_turn} to {last_turn} are not replayed: {NO_SNAPSHOT}"
