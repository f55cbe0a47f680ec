"""The driver's end of the journal (architecture.md §4): hands every turn to the recorder process.

    core thread ──write(2)──► pipe, 1 MiB ──► recorder process ──► <UTC>-<run>-<segment>.mcap
         └── backlog in memory, 64 MiB ──┘          │
    main thread ◄──────────── reports ──────────────┘

Rules:
- No call of the core thread waits, for the disk or for the recorder, and none raises. A record is one write(2)
  while the pipe has room; else it goes to the backlog, which later calls empty first (tried once in 2 ms: a
  full pipe stays so until the recorder's next read).
- What cannot be handed over (backlog full, recorder gone) is a `failure`: from then on records are dropped,
  whole turns being missing rather than parts of them, until the driver begins a new segment.
- The recorder is in a session of its own: neither Ctrl-C nor the driver's death takes it along.
- A segment that is full or old enough `is_due`: the next one is prepared by then, and begun between two turns.
  Nothing is lost at that, and no turn waits: what the former recorder has not taken yet is handed over first.

Who calls what: `open` before the core thread starts, `close` after it ended; `record_input`, `record_outputs`
and `begin_segment` are the core thread's, the rest the main thread's; but `prepare_replacement`, which a disk
may hold up, is one thread's at a time, whose ever.
"""

import contextlib
import fcntl
import os
import platform
import select
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from .. import __version__
from ..messages.config import Config
from ..messages.inputs import Input
from ..messages.outputs import AnyOutput
from .directory_lock import DirectoryInUseError, DirectoryLock
from .keep import Keep
from .log_format import FORMAT, PIPE_HEAD, TURN_MODULUS, Gap, Report, SegmentEnd, SegmentHeader, seal

PIPE_BYTES = 2**20
BACKLOG_BYTES = 64 * 2**20

MIB = 2**20
GIB = 2**30
NS_PER_HOUR = 3_600_000_000_000

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

PUMP_INTERVAL_NS = 2_000_000
WRITEV_COUNT = 1024
"""Buffers that one writev(2) takes at most (IOV_MAX)."""


class _Recorder:
    """A recorder process, the pipe to it, and the segment that it writes. OSError if it cannot be started."""

    def __init__(self, path: Path, segment: int, report_fd: int, keep: Keep) -> None:
        self.segment = segment
        self.is_ready = False
        """Whether it has reported so."""
        read_end, self.pipe = os.pipe()
        try:
            # An unprivileged process may be refused more than the default 64 KiB: the backlog makes up for it.
            with contextlib.suppress(OSError):
                fcntl.fcntl(self.pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            os.set_blocking(self.pipe, False)
            # -P: the current directory is no place to import from.
            command = [sys.executable, "-P", "-m", "fusioncharger.replay.recorder", str(path), str(segment)]
            command += keep.arguments()
            self.process = subprocess.Popen(  # noqa: S603 - our own program
                command, stdin=read_end, stdout=report_fd, start_new_session=True
            )
        except OSError:
            os.close(self.pipe)
            raise
        finally:
            # Only the recorder holds the read end: its death has to show as a broken pipe.
            os.close(read_end)

    def hang_up(self) -> None:
        """Close the pipe: the recorder writes what is in it, and ends."""
        os.close(self.pipe)


class Journal:
    """Records the turns of one run of the driver."""

    def __init__(
        self,
        directory: Path,
        run_id: str,
        config: Config,
        *,
        lock: DirectoryLock | None = None,
        backlog_bytes: int = BACKLOG_BYTES,
        segment_bytes: int | None = None,
    ) -> None:
        """`lock`: the directory's, to be renewed where that was made anew. `segment_bytes`: instead of the
        configuration's."""
        self.failure: str | None = None
        """Why records are dropped at present; None while all is handed over."""
        self._directory = directory
        self._lock = lock
        self._keep = Keep(round(config.journal.keep_GiB * GIB), config.journal.keep_days)
        self._segment_bytes = segment_bytes or config.journal.segment_MiB * MIB
        self._segment_ns = round(config.journal.segment_hours * NS_PER_HOUR)
        self._boot_id = boot_id()
        self._run_id = run_id
        self._config: dict[str, Any] = msgspec.to_builtins(config)
        self._versions = {
            "fusioncharger": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("msgspec", "pykka", "mcap")},
        }
        self._backlog_limit_bytes = backlog_bytes
        self._backlog: deque[tuple[int, bytes]] = deque()
        """(turn, what is still to be written of it)"""
        self._backlog_bytes = 0
        self._pump_due_ns = 0
        self._first_dropped_turn: int | None = None
        self._segment_first_turn = 1
        self._last_kept_turn: int | None = None
        """What the former recorder said that it has kept, if it could not go on."""
        self._handed_over_bytes = 0
        """In this segment."""
        self._began_at_ns = 0
        """The present segment, monotonic."""
        self._last = 0, 0, 0
        """turn, at_ns, utc_ns of the last record"""
        self._segments = 0
        self._switching = threading.Lock()
        """Guards the three below: a pipe must not be closed while another thread is about to write to it."""
        self._recorder: _Recorder | None = None
        self._replacement: _Recorder | None = None
        self._retired: list[_Recorder] = []
        """Recorders that were hung up and may still be writing."""
        self.report_fd, self._report_write_fd = os.pipe()
        """Readable when a recorder has reported something."""
        os.set_blocking(self.report_fd, False)
        os.set_blocking(self._report_write_fd, False)
        self._report_rest = b""

    # --- main thread ---------------------------------------------------------------------------------------

    def open(self, snapshot: Mapping[str, object], first_turn: int, at_ns: int, utc_ns: int) -> None:
        """Start the recorder and begin the first segment. What fails is a `failure`, or will be reported."""
        if self.prepare_replacement(utc_ns):
            self.begin_segment(snapshot, first_turn, at_ns, utc_ns)

    def prepare_replacement(self, utc_ns: int) -> bool:
        """Start a recorder for the next segment: the slow part. Its report `ready` says that the segment can
        be begun. False if it could not be started; `failure` says why."""
        self._segments += 1
        begin = datetime.fromtimestamp(utc_ns // 10**9, UTC)
        path = self._directory / f"{begin:%Y%m%dT%H%M%SZ}-{self._run_id[:8]}-{self._segments:04}.mcap"
        try:
            if self._lock is not None:
                self._lock.renew()
            recorder = _Recorder(path, self._segments, self._report_write_fd, self._keep)
        except (DirectoryInUseError, OSError) as error:
            if self._recorder is None or self.failure is not None:
                reason = (error.strerror if isinstance(error, OSError) else "") or str(error)
                self.failure = f"the recorder cannot be started: {reason}"
            return False  # else the present segment goes on, and it is tried again
        with self._switching:
            self._retire(self._replacement)
            self._replacement = recorder
        return True

    def is_due(self, at_ns: int) -> bool:
        """Whether the present segment is large or old enough, `at_ns` being now, monotonic."""
        return self.failure is None and (
            self._handed_over_bytes >= self._segment_bytes or at_ns - self._began_at_ns >= self._segment_ns
        )

    @property
    def is_prepared(self) -> bool:
        """Whether a recorder for the next segment has been started."""
        with self._switching:
            return self._replacement is not None

    @property
    def is_ready(self) -> bool:
        """Whether that recorder can write: the next segment can be begun."""
        with self._switching:
            return self._replacement is not None and self._replacement.is_ready

    def read_reports(self) -> tuple[Report, ...]:
        """What recorders have reported since the last call; call it when `report_fd` is readable. That the
        present recorder cannot write is a `failure`, too."""
        with contextlib.suppress(BlockingIOError):
            self._report_rest += os.read(self.report_fd, 2**16)
        *lines, self._report_rest = self._report_rest.split(b"\n")
        reports = tuple(msgspec.json.decode(line, type=Report) for line in lines)
        with self._switching:
            for report in reports:
                if report.event == "ready":
                    for recorder in (self._recorder, self._replacement):
                        if recorder and recorder.segment == report.segment:
                            recorder.is_ready = True
                elif report.event == "unavailable":
                    self._is_unavailable(report)
            self._retired = [recorder for recorder in self._retired if recorder.process.poll() is None]
        return reports

    def _is_unavailable(self, report: Report) -> None:
        """A recorder has ended because it could not write. `_switching` is held."""
        if self._recorder and self._recorder.segment == report.segment:
            self._last_kept_turn = report.last_turn
            self.failure = report.reason
        elif self._replacement and self._replacement.segment == report.segment:
            self._retire(self._replacement)  # prepared in vain: another one is, in time
            self._replacement = None

    def close(self, timeout_s: float) -> bool:
        """Say goodbye and wait until the file is complete. False if something is missing from it, or if it was
        not done in time: the recorder goes on by itself then."""
        deadline_s = time.monotonic() + timeout_s
        if self._recorder is not None:
            self._hand_over(*self._last, (SegmentEnd(goodbye=True),))
            while self._backlog and self.failure is None and time.monotonic() < deadline_s:
                select.select([], [self._recorder.pipe], [], max(0.0, deadline_s - time.monotonic()))
                self.pump()
        complete = self._recorder is not None and self.failure is None and not self._backlog
        last = self._recorder
        self._retire(self._recorder)
        self._retire(self._replacement)
        self._recorder = self._replacement = None
        for recorder in self._retired:
            with contextlib.suppress(subprocess.TimeoutExpired):
                recorder.process.wait(max(0.0, deadline_s - time.monotonic()))
        os.close(self.report_fd)
        os.close(self._report_write_fd)
        return complete and last is not None and last.process.returncode == 0

    # --- core thread ---------------------------------------------------------------------------------------

    def record_input(self, turn: int, utc_ns: int, message: Input) -> None:
        """Record a turn's Input, before it is delivered."""
        self._hand_over(turn, message.at_ns, utc_ns, (message,))

    def record_outputs(self, turn: int, at_ns: int, utc_ns: int, outputs: tuple[AnyOutput, ...]) -> None:
        """Record a turn's Outputs, before io/ gets them. `at_ns` is the turn's."""
        if outputs:
            self._hand_over(turn, at_ns, utc_ns, outputs)

    def begin_segment(self, snapshot: Mapping[str, object], first_turn: int, at_ns: int, utc_ns: int) -> bool:
        """Between two turns: go on with the recorder that was prepared. `snapshot` is the state of every actor
        before `first_turn`. A recorder that works is let have all that waits for it; what one that failed did
        not take is given up, and recorded as a gap. False if none is prepared, or if something still waits: to
        be tried again."""
        with self._switching:
            if self._replacement is None:
                return False
            if self._recorder is not None and self.failure is None and not self._say_continued():
                return False
            self._retire(self._recorder)
            self._recorder, self._replacement = self._replacement, None
        reason, self.failure = self.failure, None
        first_dropped = self._begin_of_gap(first_turn)
        self._backlog.clear()
        self._backlog_bytes = self._handed_over_bytes = 0
        self._began_at_ns = at_ns
        self._segment_first_turn = first_turn
        header = SegmentHeader(
            format=FORMAT,
            run_id=self._run_id,
            segment=self._recorder.segment,
            first_turn=first_turn,
            utc_ns=utc_ns,
            versions=self._versions,
            config=self._config,
            snapshot=dict(snapshot),
            boot_id=self._boot_id,
        )
        notes: tuple[Struct, ...] = (header,)
        if reason is not None:
            notes += (Gap(reason=reason, first_turn=first_dropped, last_turn=first_turn - 1),)
        self._hand_over(first_turn, at_ns, utc_ns, notes)
        return True

    def _say_continued(self) -> bool:
        """The last record of a segment that is full. False, and nothing said, if the pipe is."""
        self.pump()
        if self._backlog or self.failure is not None:
            return self.failure is not None
        end = _framed(*self._last, SegmentEnd(goodbye=False, continues=True))
        # Less than PIPE_BUF bytes: the pipe takes all of it or nothing.
        return self._write([end]) == len(end) or self.failure is not None

    def _begin_of_gap(self, first_turn: int) -> int:
        """The first turn that is missing before this one."""
        missing = [first_turn]
        if self._backlog:
            missing.append(self._backlog[0][0])
        if self._first_dropped_turn is not None:
            missing.append(self._first_dropped_turn)
        if self._last_kept_turn is not None:
            # The recorder counts modulo 2^32, and what it kept is not far back.
            behind = (first_turn - 1 - self._last_kept_turn) % TURN_MODULUS
            missing.append(max(self._segment_first_turn, first_turn - behind))
        self._first_dropped_turn = self._last_kept_turn = None
        return min(missing)

    @property
    def waiting_bytes(self) -> int:
        """What the pipe has not taken yet: a killed driver would lose it."""
        return self._backlog_bytes

    def pump(self) -> None:
        """Hand over as much of the backlog as the pipe takes."""
        while self._backlog and self.failure is None:
            written = self._write([data for _, data in islice(self._backlog, WRITEV_COUNT)])
            if not written:
                return
            self._backlog_bytes -= written
            while written:
                turn, data = self._backlog.popleft()
                if len(data) > written:
                    self._backlog.appendleft((turn, data[written:]))
                written -= min(written, len(data))

    def _hand_over(self, turn: int, at_ns: int, utc_ns: int, messages: tuple[Struct, ...]) -> None:
        self._last = turn, at_ns, utc_ns
        if self.failure is None:
            try:
                data = b"".join([_framed(turn, at_ns, utc_ns, message) for message in messages])
            except (TypeError, ValueError, OverflowError, struct.error) as error:
                self.failure = f"{messages[0].__class__.__name__} cannot be recorded: {error}"
            else:
                self._handed_over_bytes += len(data)
                self._append(turn, at_ns, data)
        if self.failure is not None and self._first_dropped_turn is None:
            self._first_dropped_turn = self._backlog[0][0] if self._backlog else turn

    def _append(self, turn: int, at_ns: int, data: bytes) -> None:
        written = 0 if self._backlog else self._write([data])
        if written == len(data):
            return
        self._backlog.append((turn, data[written:]))
        self._backlog_bytes += len(data) - written
        if at_ns >= self._pump_due_ns:
            self.pump()
            self._pump_due_ns = at_ns + PUMP_INTERVAL_NS
        if self._backlog_bytes > self._backlog_limit_bytes and self.failure is None:
            self.failure = f"the recorder does not keep up: {self._backlog_bytes} bytes are waiting"

    def _write(self, buffers: list[bytes]) -> int:
        """One writev(2). How much of it the pipe took."""
        if self._recorder is None:
            self.failure = "there is no recorder"
            return 0
        try:
            return os.writev(self._recorder.pipe, buffers)
        except BlockingIOError:
            return 0
        except OSError as error:
            self.failure = f"the recorder is gone: {error.strerror}"
            return 0

    def _retire(self, recorder: _Recorder | None) -> None:
        if recorder is not None:
            recorder.hang_up()
            self._retired.append(recorder)


def boot_id() -> str:
    """Of this machine; "" if it does not tell. It changes with every boot."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def _framed(turn: int, at_ns: int, utc_ns: int, message: Struct) -> bytes:
    payload = seal(message)
    return PIPE_HEAD.pack(len(payload), turn % TURN_MODULUS, utc_ns, at_ns) + payload
