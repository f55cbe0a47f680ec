"""A core restored from a segment's snapshot, which replays turns one by one and shows the states around them.

For what looks at every turn: time travel, comparison, pictures. Whether a log replays as identical is answered
faster by replayer.py.
"""

import traceback
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from ..actors.runtime import ActorState, Runtime
from ..actors.system import build, restore
from ..messages.config import Config
from ..messages.outputs import AnyOutput
from .divergence import Divergence, differs
from .log_format import SegmentHeader
from .new_fields import lacking
from .reader import Turn, UnsupportedFormatError
from .recorded_timers import RecordedTimers

NO_SNAPSHOT = "they were recovered from behind damage, and the state before them is not known"


class Step(Struct, frozen=True):
    """One turn, replayed."""

    turn: Turn
    outputs: tuple[AnyOutput, ...]
    """The replayed ones; `turn.outputs` are the recorded ones."""
    before: Mapping[str, ActorState]
    """Every actor's state before the turn, by name."""
    after: Mapping[str, ActorState]
    error: str = ""
    """What came out of the core instead of Outputs, if it raised."""
    run_id: str = ""
    """The run of the driver that it is of: turns are numbered by run."""

    @property
    def differs(self) -> bool:
        """Whether the replayed Outputs are not, byte for byte, the recorded ones. Outputs that are missing at
        the end of a torn log's last turn are no difference."""
        missing = len(self.outputs) - len(self.turn.outputs)
        return (
            bool(self.error)
            or missing < 0
            or (missing > 0 and self.turn.complete)
            or any(map(differs, self.turn.outputs, self.outputs))
        )

    def divergence(self) -> Divergence:
        """For the report of a turn that differs."""
        return Divergence(self.turn, self.outputs, self.before, self.after, self.error)


class Stepper:
    """The core as it stood when a segment began; `step` replays the next turn."""

    def __init__(self, header: SegmentHeader, config: Config | None = None) -> None:
        """`config`: another configuration than the recorded one; timers are the caller's business then.
        UnsupportedFormatError if the snapshot or the configuration does not fit this version."""
        self.config = recorded_config(header) if config is None else config
        self.runtime = restored(header, self.config)
        self._run_id = header.run_id
        self._timers = RecordedTimers(header.snapshot) if config is None else None

    def go_on(self, header: SegmentHeader) -> None:
        """The run goes on in this segment: with the states that the turns before it led to here."""
        if self._timers is not None:
            self._timers.restart(header.snapshot)

    def step(self, turn: Turn) -> Step:
        """Replay one turn. An exception out of the core, which must not happen, is the step's `error`.
        UnsupportedFormatError."""
        before = self.runtime.states()
        outputs: tuple[AnyOutput, ...] = ()
        error = ""
        if self._timers is not None:
            message = self._timers.input(turn, before)
            self._timers.take(turn.outputs)
            turn = turn if message is turn.input else replace(turn, input=message)
        try:
            outputs = self.runtime.turn(turn.input)
        except Exception as raised:  # noqa: BLE001 - whatever the core raises is what the replay found
            error = described(raised)
        return Step(turn, outputs, before, self.runtime.states(), error, self._run_id)


def recorded_config(header: SegmentHeader) -> Config:
    """The configuration that the log was recorded with. UnsupportedFormatError."""
    try:
        return msgspec.convert(header.config, Config)
    except msgspec.ValidationError as error:
        raise _unfit(header, error) from None


def restored(header: SegmentHeader, config: Config) -> Runtime:
    """The core as it stood when the segment began. UnsupportedFormatError."""
    if not header.snapshot:
        msg = f"turn {header.first_turn} and those after it cannot be replayed: {NO_SNAPSHOT}"
        raise UnsupportedFormatError(msg)
    try:
        return build(config, restore(header.snapshot))
    except (msgspec.ValidationError, LookupError) as error:
        raise _unfit(header, error) from None


def restored_states(header: SegmentHeader) -> dict[str, ActorState]:
    """Every actor's state when the segment began. UnsupportedFormatError."""
    try:
        return restore(header.snapshot)
    except (msgspec.ValidationError, LookupError) as error:
        raise _unfit(header, error) from None


def snapshot_differs(
    header: SegmentHeader, states: Mapping[str, ActorState], path: Path, *, accept_new_fields: bool = False
) -> str:
    """Says so if a segment's snapshot is not what the turns before it led to: these states. "" if it is.
    `accept_new_fields`: what the snapshot lacks because its version did not have it is no difference.
    UnsupportedFormatError."""
    recorded = restored_states(header)
    differing = [
        name
        for name, state in states.items()
        if recorded.get(name) != state
        and not (accept_new_fields and lacking(header.snapshot.get(name), state) is not None)
    ]
    if not differing:
        return ""
    return (
        f"diverged before turn {header.first_turn}: the snapshot in {path.name} "
        f"is not what the turns before it lead to: {', '.join(differing)}"
    )


def described(error: Exception) -> str:
    """An exception that came out of the core."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({place.name}, line {place.lineno})"


def _unfit(header: SegmentHeader, error: Exception) -> UnsupportedFormatError:
    writer = header.versions.get("fusioncharger", "?")
    return UnsupportedFormatError(
        f"the configuration or snapshot, written by version {writer}, does not fit this one: {error}"
    )
