"""The process log: standard error, one line per event, plain or JSON.

Lines are written by a thread of their own: a standard error that nobody reads must not stop the core. If it is
stuck for 10 000 lines, further ones are dropped, and how many is said when it moves again.
"""

import contextlib
import json
import logging
import logging.handlers
import queue
import sys
import threading
from datetime import UTC, datetime

from ..messages.outputs import LogWritten
from ..messages.types import Level

QUEUE_LINES = 10_000
CLOSE_TIMEOUT_S = 1.0
ROOT = logging.getLogger("fusioncharger")
LEVELS = {Level.INFO: logging.INFO, Level.WARNING: logging.WARNING, Level.ERROR: logging.ERROR}


_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
"""What a board or a broker says may hold line ends: it must not be able to make a line of its own."""


class _PlainFormatter(logging.Formatter):
    """`2026-11-23T20:04:01.123Z WARNING connector 1: text`"""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC)
        connector = getattr(record, "connector", 0)
        subject = f"connector {connector}: " if connector else ""
        line = f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z {record.levelname} {subject}"
        line += record.getMessage().translate(_CONTROLS)
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class _JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, connector (if any), text, exception (if any)."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
        }
        if connector := getattr(record, "connector", 0):
            entry["connector"] = connector
        entry["text"] = record.getMessage()
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


class _DroppingQueueHandler(logging.handlers.QueueHandler):
    """Never waits: a line for which there is no room is counted instead."""

    def __init__(self, lines: "queue.Queue[logging.LogRecord | None]") -> None:
        super().__init__(lines)
        self._dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record  # same process: nothing has to be made picklable

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            if self._dropped:
                text = f"{self._dropped} log lines dropped: standard error was stuck"
                self.queue.put_nowait(logging.makeLogRecord({"msg": text, "levelname": "WARNING"}))
                self._dropped = 0
            self.queue.put_nowait(record)
        except queue.Full:
            self._dropped += 1


class ProcessLog:
    """Takes over the package's and the libraries' logging until `close`."""

    def __init__(self, level: str, *, as_json: bool) -> None:
        self._lines: queue.Queue[logging.LogRecord | None] = queue.Queue(QUEUE_LINES)
        self._stream = logging.StreamHandler(sys.stderr)
        self._stream.setFormatter(_JsonFormatter() if as_json else _PlainFormatter())
        self._handler = _DroppingQueueHandler(self._lines)
        root = logging.getLogger()
        root.addHandler(self._handler)
        root.setLevel(logging.WARNING)
        ROOT.setLevel(level.upper())
        self._thread = threading.Thread(target=self._run, name="process-log", daemon=True)
        self._thread.start()

    def is_alive(self) -> bool:
        """Whether the thread lives."""
        return self._thread.is_alive()

    def write(self, output: LogWritten) -> None:
        """A line that the core wrote."""
        ROOT.log(LEVELS[output.level], output.text, extra={"connector": output.connector})

    def close(self) -> bool:
        """Write what is left. False if standard error takes no more: the process must then end by os._exit,
        for the interpreter would wait for it, too."""
        logging.getLogger().removeHandler(self._handler)
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(None)
        self._thread.join(CLOSE_TIMEOUT_S)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (record := self._lines.get()) is not None:
            self._stream.handle(record)
