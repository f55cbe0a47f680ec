"""Writes turns into segments as journal and recorder do, with the recorder's own writer, in this process.

A segment goes to a file (`InDirectory`) or stays in memory (`InMemory`).
"""

import platform
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from ... import __version__
from ...messages.config import Config
from ...messages.inputs import Input
from ...messages.outputs import AnyOutput
from ...replay.housekeeping import compress
from ...replay.log_format import (
    FORMAT,
    PIPE_HEAD,
    TURN_MODULUS,
    Gap,
    SegmentEnd,
    SegmentHeader,
    seal,
)
from ...replay.recorder import SegmentWriter, Sink
from ...replay.segment_file import SegmentFile

FEED_BYTES = 2**20
"""So much is handed to the writer at once, as out of a pipe."""

BOOT_ID = "simulation"
"""All of it happens between two boots of the machine."""
VERSIONS = {
    "fusioncharger": __version__,
    "python": platform.python_version(),
    **{name: version(name) for name in ("msgspec", "pykka", "mcap")},
}


class Target(Protocol):
    """Where segments go."""

    def begin(self, name: str) -> Sink:
        """A new segment."""

    def end(self) -> None:
        """The segment is complete."""


class InDirectory:
    """Segments as files."""

    def __init__(self, directory: Path, *, is_compressed: bool = False) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._is_compressed = is_compressed
        self._file: SegmentFile | None = None
        self.paths: list[Path] = []

    def begin(self, name: str) -> Sink:
        """A new file."""
        self.paths.append(self._directory / name)
        self._file = SegmentFile(self.paths[-1])
        return self._file

    def end(self) -> None:
        """Close it."""
        if self._file is not None:
            self._file.sync()
            self._file.close()
            self._file = None
            if self._is_compressed:
                compress(self.paths[-1])


class _Buffer:
    """A Sink in memory."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes, /) -> int:
        self.data += data
        return len(data)

    def tell(self) -> int:
        return len(self.data)

    def flush(self) -> None:
        """Nothing waits."""

    def end_record(self) -> None:
        """Nothing is ever taken back."""


class InMemory:
    """Segments as bytes."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._buffers: list[_Buffer] = []

    def begin(self, name: str) -> Sink:
        """A new segment."""
        self.names.append(name)
        self._buffers.append(_Buffer())
        return self._buffers[-1]

    def end(self) -> None:
        """Nothing is to be done."""

    @property
    def segments(self) -> list[bytes]:
        """All segments, in their order."""
        return [bytes(buffer.data) for buffer in self._buffers]

    def write_to(self, directory: Path, *, last_only: bool = False) -> list[Path]:
        """Write all of them as files, or only the last one."""
        directory.mkdir(parents=True, exist_ok=True)
        chosen = list(zip(self.names, self._buffers, strict=True))[-1 if last_only else 0 :]
        for name, buffer in chosen:
            (directory / name).write_bytes(buffer.data)
        return [directory / name for name, _ in chosen]


class Recording:
    """The segments of one process."""

    def __init__(
        self, target: Target, run_id: str, config: Config, *, segment_bytes: int | None = None
    ) -> None:
        """`segment_bytes`: one that has so many is followed by the next; None: only `rotate` does that."""
        self._target = target
        self._run_id = run_id
        self._config: dict[str, Any] = msgspec.to_builtins(config)
        self._segment_bytes = segment_bytes
        self._segments = 0
        self._pending: list[tuple[int, bytes]] = []
        """Turn and record, as they go through the pipe."""
        self._pending_bytes = 0
        self._handed_over_bytes = 0
        self._last = 0, 0, 0
        """turn, at_ns, utc_offset_ns"""
        self._writer: SegmentWriter | None = None
        """None while nothing can be written."""
        self._lost: tuple[str, int] | None = None
        """Why it was lost, and the first turn that is missing."""

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be written."""
        return self._lost is not None

    def begin(self, first_turn: int, at_ns: int, utc_offset_ns: int, snapshot: Mapping[str, object]) -> None:
        """Begin a segment."""
        utc_ns = at_ns + utc_offset_ns
        begin = datetime.fromtimestamp(utc_ns // 10**9, UTC)
        self._segments += 1
        name = f"{begin:%Y%m%dT%H%M%SZ}-{self._run_id[:8]}-{self._segments:04}.mcap"
        self._writer = SegmentWriter(self._target.begin(name))
        self._handed_over_bytes = 0
        header = SegmentHeader(
            format=FORMAT,
            run_id=self._run_id,
            segment=self._segments,
            first_turn=first_turn,
            utc_ns=utc_ns,
            versions=VERSIONS,
            config=self._config,
            snapshot=dict(snapshot),
            boot_id=BOOT_ID,
        )
        self._record(first_turn, at_ns, utc_offset_ns, header)

    def turn(
        self, number: int, at_ns: int, utc_offset_ns: int, message: Input, outputs: tuple[AnyOutput, ...]
    ) -> None:
        """Record a turn."""
        if self._writer is not None:
            self._record(number, at_ns, utc_offset_ns, message)
            for output in outputs:
                self._record(number, at_ns, utc_offset_ns, output)

    def make_room(
        self,
        first_turn: int,
        at_ns: int,
        utc_offset_ns: int,
        take_snapshot: Callable[[], Mapping[str, object]],
    ) -> None:
        """Between two turns: begin another segment, if this one is full."""
        if self._segment_bytes is not None and self._handed_over_bytes >= self._segment_bytes:
            self.rotate(first_turn, at_ns, utc_offset_ns, take_snapshot())

    def rotate(self, first_turn: int, at_ns: int, utc_offset_ns: int, snapshot: Mapping[str, object]) -> None:
        """Between two turns: begin another segment."""
        if self._writer is not None:
            self._record(*self._last, SegmentEnd(goodbye=False, continues=True))
            self._finish()
            self.begin(first_turn, at_ns, utc_offset_ns, snapshot)

    def lose(self, reason: str, lost_turns: int) -> bool:
        """Nothing can be written any more, and the last turns are lost. False if it was so already."""
        if self._writer is None:
            return False
        last_turn = self._last[0]
        kept = max(last_turn - lost_turns, self._pending[0][0] if self._pending else last_turn)
        while self._pending and self._pending[-1][0] > kept:
            self._pending.pop()
        self._lost = reason, kept + 1
        self._finish(reason)
        return True

    def resume(
        self,
        first_turn: int,
        at_ns: int,
        utc_offset_ns: int,
        take_snapshot: Callable[[], Mapping[str, object]],
    ) -> bool:
        """Write again, in a new segment that says what is missing. False if nothing was lost."""
        if self._lost is None:
            return False
        (reason, first_lost), self._lost = self._lost, None
        self.begin(first_turn, at_ns, utc_offset_ns, take_snapshot())
        gap = Gap(reason=reason, first_turn=first_lost, last_turn=first_turn - 1)
        self._record(first_turn, at_ns, utc_offset_ns, gap)
        return True

    def close(self, *, goodbye: bool, cut_bytes: int = 0) -> None:
        """The process ends: with goodbye, or in the middle of handing over a turn's outputs."""
        if self._writer is None:
            return
        if goodbye:
            self._record(*self._last, SegmentEnd(goodbye=True))
        elif cut_bytes and len(self._pending) > 1 and self._pending[-1][0] == self._pending[-2][0]:
            turn, data = self._pending.pop()
            self._pending.append((turn, data[: max(1, len(data) - cut_bytes)]))
        self._finish()

    def _finish(self, reason: str = "") -> None:
        self._flush()
        assert self._writer is not None  # noqa: S101 - narrows the type
        self._writer.finish(reason)
        self._writer = None
        self._target.end()

    def _record(self, turn: int, at_ns: int, utc_offset_ns: int, message: Struct) -> None:
        payload = seal(message)
        framed = PIPE_HEAD.pack(len(payload), turn % TURN_MODULUS, at_ns + utc_offset_ns, at_ns) + payload
        self._last = turn, at_ns, utc_offset_ns
        self._pending.append((turn, framed))
        self._pending_bytes += len(framed)
        self._handed_over_bytes += len(framed)
        if self._pending_bytes >= FEED_BYTES:
            self._flush()

    def _flush(self) -> None:
        assert self._writer is not None  # noqa: S101 - narrows the type
        self._writer.feed(b"".join(data for _, data in self._pending))
        self._pending.clear()
        self._pending_bytes = 0
