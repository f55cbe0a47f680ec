"""Commands on standard input, one JSON object a line (docs/mock.md): `--control -`.

A thread reads, because standard input may be a pipe, a terminal or a file. When it ends, the mock goes on.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Callable

import msgspec

from .commands import Command, CommandError, command_from

log = logging.getLogger(__name__)
MAX_LINE_BYTES = 65536


def parse_line(line: bytes) -> Command:
    """The command in a line. CommandError."""
    try:
        table = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"is no JSON: {'nested too deeply' if isinstance(error, RecursionError) else error}"
        raise CommandError(msg) from None
    if not isinstance(table, dict):
        msg = 'is no JSON object; write {"do": …}'
        raise CommandError(msg)
    return command_from(table)


class LineReader:
    """Cuts lines out of what comes."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete now, without blank ones; an overlong one is cut."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            lines.append(self._rest)
            self._rest = b""
        return [line for line in lines if line.strip()]


def start_control(descriptor: int, loop: asyncio.AbstractEventLoop, take: Callable[[bytes], None]) -> None:
    """Call `take` in the loop with each line, until the input ends."""

    def run() -> None:
        reader = LineReader()
        try:
            # Not sys.stdin: its lock would be held when the process ends.
            while data := os.read(descriptor, 65536):
                for line in reader.feed(data):
                    loop.call_soon_threadsafe(take, line)
            for line in reader.feed(b"\n"):
                loop.call_soon_threadsafe(take, line)
        except (OSError, RuntimeError) as error:  # RuntimeError: the loop is closed, the mock ends
            log.debug("control ends: %s", error)

    threading.Thread(target=run, name="control", daemon=True).start()
