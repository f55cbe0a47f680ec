"""The mock's event log: one JSON object a line, for tests, the demo and whoever else watches (behaviour.md §9).

    {"t": 3.217541, "utc": "2026-11-23T20:04:01.123456Z", "event": "key_written", "peer": "…", "connector": 1}

`t` is seconds since the mock started, from the monotonic clock. A line is written at once and in one piece.
"""

import logging
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import msgspec

from .actions import Observed

log = logging.getLogger(__name__)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class EventLog:
    """`target` is a file (written anew), "-" for standard output or "" for no log at all."""

    def __init__(self, target: str) -> None:
        """OSError if the file cannot be written."""
        self._started_ns = time.monotonic_ns()
        self._utc_offset_ns = time.time_ns() - self._started_ns
        self._stream: BinaryIO | None = None
        match target:
            case "":
                pass
            case "-":
                self._stream = sys.stdout.buffer
            case path:
                self._stream = Path(path).open("wb")  # noqa: SIM115 - open until `close`

    def write(self, observed: Observed, at_ns: int) -> None:
        """Write a line about what happened at `at_ns` (monotonic)."""
        if self._stream is None:
            return
        utc = _EPOCH + timedelta(microseconds=(at_ns + self._utc_offset_ns) // 1000)
        line = {
            "t": (at_ns - self._started_ns) / 1e9,
            "utc": utc.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "event": observed.event,
            **observed.details,
        }
        try:
            self._stream.write(msgspec.json.encode(line) + b"\n")
            self._stream.flush()
        except OSError as error:
            # Whoever watched is gone, or the disk is full: no reason to leave the dispensers.
            log.warning("the event log ends: %s", error.strerror)
            self._stream = None

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None and self._stream is not sys.stdout.buffer:
            self._stream.close()
        self._stream = None
