"""Several log files, or a directory of them, as one continuous log.

A run of the driver (one start of the process) is recorded in segments, each a file (log_format.py). Here they
are put in order: runs by when they began, and a run's segments by their number. When a run began is what the
clock said: one that was wrong may put a run before its predecessor. Everything here has that same order, and
`log info` tells where the clock was set or wrong (log_info.py).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import msgspec
from msgspec import Struct

from .lifts import LIFTS, Lift
from .log_format import NOT_UNDERSTOOD, SUMMARY_KEY, SUMMARY_METADATA, SegmentHeader
from .reader import DamagedLogError, LogError, LogReader, NotALogError, UnsupportedFormatError, read_log
from .records import read_metadata
from .summary import Summary

SUFFIX = ".mcap"


class Segment(Struct, frozen=True):
    """One file of a log."""

    path: Path
    header: SegmentHeader
    summary: Summary | None
    """None: the segment was not closed, or by a version that wrote none."""
    size_bytes: int
    at_ns: int = 0
    """When it begins, monotonic."""
    lifts: Mapping[int, Lift] = LIFTS

    def read(self) -> LogReader:
        """Open it: a context manager. LogError."""
        return read_log(self.path, self.lifts)

    def follows(self, former: "Segment") -> bool:
        """Whether it is the segment after that one in the same run."""
        return self.header.run_id == former.header.run_id and self.header.segment == former.header.segment + 1


class Log(Struct, frozen=True):
    """Segments in their order."""

    segments: tuple[Segment, ...]
    """At least one."""
    unreadable: tuple[tuple[Path, str], ...] = ()
    """Files that were named, or lay in the directory, and are no segments or have no whole header; and why."""

    def runs(self) -> Iterator[tuple[Segment, ...]]:
        """The segments of each run of the driver."""
        run = [self.segments[0]]
        for former, segment in pairwise(self.segments):
            if segment.header.run_id != former.header.run_id:
                yield tuple(run)
                run = []
            run.append(segment)
        yield tuple(run)


def missing_between(former: Segment, last_turn: int, segment: Segment) -> str:
    """What is missing between two segments that come after one another in a log, in words; "" if nothing is.
    `last_turn`: the former one's."""
    run = segment.header.run_id
    if run != former.header.run_id:
        return ""
    first_turn = segment.header.first_turn
    if segment.header.segment == former.header.segment and first_turn == last_turn + 1:
        return f"a part of turn {last_turn} of run {run[:8]} is missing"
    if first_turn > last_turn + 1:
        return f"turns {last_turn + 1} to {first_turn - 1} of run {run[:8]} are missing"
    if first_turn <= last_turn:
        return f"turn {first_turn} of run {run[:8]} comes twice"
    if not segment.follows(former):
        return f"segment {segment.header.segment - 1} of run {run[:8]} is missing"
    return ""


def open_logs(paths: Sequence[Path], lifts: Mapping[int, Lift] = LIFTS) -> Log:
    """The log that these files and directories make up. Files that are none are `unreadable`; if no other is
    there, LogError says why, with the path."""
    segments: list[Segment] = []
    unreadable: list[tuple[Path, str]] = []
    worst: LogError | None = None
    for path in _files(paths):
        try:
            segments.append(_segment(path, lifts))
        except LogError as error:
            unreadable.append((path, str(error)))
            worst = error if worst is None or _rank(error) > _rank(worst) else worst
    if not segments:
        if worst is None:
            msg = f"{', '.join(map(str, paths))}: no log in here: there is no file whose name ends in {SUFFIX}"
            below = sorted({str(file.parent) for path in paths for file in path.glob(f"*/*{SUFFIX}")})
            raise NotALogError(f"{msg}, but there is in {', '.join(below)}" if below else msg)
        raise type(worst)("\n".join(f"{path}: {why}" for path, why in unreadable)) from None
    return Log(_ordered(segments), tuple(unreadable))


def _rank(error: LogError) -> int:
    """Which of several reasons decides what kind of error it is in all."""
    return (NotALogError, DamagedLogError, UnsupportedFormatError).index(type(error))


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    """The files, in the directories too, each once."""
    seen: set[Path] = set()
    for path in paths:
        try:
            # Not glob, which passes over a directory that may not be read.
            found: Iterable[Path] = sorted(path.iterdir()) if path.is_dir() else (path,)
        except OSError as error:
            msg = f"{path}: cannot be read: {error.strerror}"
            raise NotALogError(msg) from None
        for file in found:
            if file.suffix != SUFFIX and file is not path:
                continue
            if (resolved := file.resolve()) not in seen:
                seen.add(resolved)
                yield file


def _segment(path: Path, lifts: Mapping[int, Lift]) -> Segment:
    with read_log(path, lifts) as log:
        header, at_ns = log.header, log.begin_at_ns
    try:
        with path.open("rb") as file:
            size_bytes = file.seek(0, 2)
            metadata = read_metadata(file, SUMMARY_METADATA) or {}
    except OSError as error:
        msg = f"cannot be read: {error.strerror}"
        raise NotALogError(msg) from None
    try:
        summary = msgspec.json.decode(metadata[SUMMARY_KEY], type=Summary)
    except NOT_UNDERSTOOD:
        summary = None  # it is read whole then
    return Segment(path, header, summary, size_bytes, at_ns, lifts)


def _ordered(segments: list[Segment]) -> tuple[Segment, ...]:
    """A run that is there twice (a file and its copy) counts once: the larger file of a segment."""
    begin_ns: dict[str, int] = {}
    unique: dict[tuple[str, int, int], Segment] = {}
    for segment in segments:
        header = segment.header
        begin_ns[header.run_id] = min(header.utc_ns, begin_ns.get(header.run_id, header.utc_ns))
        # Recovered from behind damage, a segment has several parts (recover.py).
        key = header.run_id, header.segment, header.first_turn
        other = unique.setdefault(key, segment)
        if segment.size_bytes > other.size_bytes:
            unique[key] = segment
    return tuple(
        sorted(
            unique.values(),
            key=lambda segment: (
                begin_ns[segment.header.run_id],
                segment.header.run_id,
                segment.header.segment,
                segment.header.first_turn,
            ),
        )
    )
