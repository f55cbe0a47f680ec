"""Writes turns into segments as journal and recorder do, with the recorder's own writer, in this process."""

import platform
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
from fusioncharger import __version__
from fusioncharger.messages.config import Config
from fusioncharger.messages.inputs import Input
from fusioncharger.messages.outputs import AnyOutput
from fusioncharger.replay.housekeeping import compress
from fusioncharger.replay.log_format import FORMAT, PIPE_HEAD, TURN_MODULUS, SegmentEnd, SegmentHeader, seal
from fusioncharger.replay.recorder import SegmentWriter
from fusioncharger.replay.segment_file import SegmentFile
from msgspec import Struct

from .power_unit import UTC_OFFSET_NS

FEED_BYTES = 2**20
"""So much is handed to the writer at once, as out of a pipe."""


class Recording:
    """The segments of one run, in a directory."""

    def __init__(
        self, directory: Path, run_id: str, config: Config, *, segment_bytes: int, is_compressed: bool
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._run_id = run_id
        self._config: dict[str, Any] = msgspec.to_builtins(config)
        self._versions = {
            "fusioncharger": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("msgspec", "pykka", "mcap")},
        }
        self._segment_bytes = segment_bytes
        self._is_compressed = is_compressed
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._handed_over_bytes = 0
        self._last = 0, 0
        """turn, at_ns"""
        self._file: SegmentFile | None = None
        self._writer: SegmentWriter | None = None
        self.paths: list[Path] = []

    def begin(self, first_turn: int, at_ns: int, snapshot: Mapping[str, object]) -> None:
        """Begin a segment."""
        utc_ns = at_ns + UTC_OFFSET_NS
        begin = datetime.fromtimestamp(utc_ns // 10**9, UTC)
        number = len(self.paths) + 1
        path = self._directory / f"{begin:%Y%m%dT%H%M%SZ}-{self._run_id[:8]}-{number:04}.mcap"
        self.paths.append(path)
        self._file = SegmentFile(path)
        self._writer = SegmentWriter(self._file)
        self._handed_over_bytes = 0
        header = SegmentHeader(
            format=FORMAT,
            run_id=self._run_id,
            segment=number,
            first_turn=first_turn,
            utc_ns=utc_ns,
            versions=self._versions,
            config=self._config,
            snapshot=dict(snapshot),
        )
        self._record(first_turn, at_ns, header)

    def turn(self, number: int, at_ns: int, message: Input, outputs: tuple[AnyOutput, ...]) -> None:
        """Record a turn."""
        self._record(number, at_ns, message)
        for output in outputs:
            self._record(number, at_ns, output)

    def make_room(self, first_turn: int, at_ns: int, take_snapshot: Callable[[], Mapping[str, object]]) -> None:
        """Between two turns: begin another segment, if this one is full."""
        if self._handed_over_bytes >= self._segment_bytes:
            self._end(SegmentEnd(goodbye=False, continues=True))
            self.begin(first_turn, at_ns, take_snapshot())

    def close(self) -> None:
        """Say goodbye."""
        self._end(SegmentEnd(goodbye=True))

    def _end(self, end: SegmentEnd) -> None:
        assert self._file is not None
        assert self._writer is not None
        self._record(*self._last, end)
        self._flush()
        self._writer.finish()
        self._file.sync()
        self._file.close()
        if self._is_compressed:
            compress(self.paths[-1])

    def _record(self, turn: int, at_ns: int, message: Struct) -> None:
        payload = seal(message)
        framed = PIPE_HEAD.pack(len(payload), turn % TURN_MODULUS, at_ns + UTC_OFFSET_NS, at_ns) + payload
        self._last = turn, at_ns
        self._pending.append(framed)
        self._pending_bytes += len(framed)
        self._handed_over_bytes += len(framed)
        if self._pending_bytes >= FEED_BYTES:
            self._flush()

    def _flush(self) -> None:
        assert self._writer is not None
        self._writer.feed(b"".join(self._pending))
        self._pending.clear()
        self._pending_bytes = 0
