"""The table that `fusioncharger check` prints: one row for each thing looked at.

what             result   detail
interface eth1   ok       up, MAC 02:00:00:00:00:01
broker           error    localhost:1883: Connection refused; is it running?
"""

import textwrap
from collections.abc import Iterable
from enum import StrEnum

from msgspec import Struct

_HEADINGS = ("what", "result", "detail")
_LEAST_DETAIL_WIDTH = 40
_COLOURS = {"ok": "\x1b[32m", "warning": "\x1b[33m", "error": "\x1b[31m"}
_COLOUR_OFF = "\x1b[0m"


class Level(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"
    NOT_CHECKED = "-"


class Row(Struct, frozen=True):
    """One check."""

    what: str
    level: Level
    detail: str


def ok(what: str, detail: str) -> Row:
    """Nothing to do."""
    return Row(what, Level.OK, detail)


def warning(what: str, detail: str) -> Row:
    """The driver starts, but its owner should know."""
    return Row(what, Level.WARNING, detail)


def error(what: str, detail: str) -> Row:
    """The driver does not start, or cannot do its work."""
    return Row(what, Level.ERROR, detail)


def not_checked(what: str, why: str) -> Row:
    """Not looked at."""
    return Row(what, Level.NOT_CHECKED, why)


def render(rows: Iterable[Row], *, width: int | None, coloured: bool) -> str:
    """The table as text, each line with its end. Details longer than `width` allows are wrapped; None: never,
    so that a row stays a line that grep finds."""
    cells = [(printable(row.what), row.level.value, printable(row.detail)) for row in rows]
    what_width = max(len(what) for what, _, _ in (_HEADINGS, *cells))
    level_width = max(len(level) for _, level, _ in (_HEADINGS, *cells))
    indent = what_width + level_width + 4
    lines = [_line(_HEADINGS, what_width, level_width)]
    for what, level, detail in cells:
        parts = [detail]
        if width is not None:
            parts = textwrap.wrap(detail, max(width - indent, _LEAST_DETAIL_WIDTH)) or [""]
        line = _line((what, level, parts[0]), what_width, level_width)
        if coloured and level in _COLOURS:
            at = what_width + 2
            line = f"{line[:at]}{_COLOURS[level]}{level}{_COLOUR_OFF}{line[at + len(level) :]}"
        lines += [line, *(" " * indent + part for part in parts[1:])]
    return "".join(line.rstrip() + "\n" for line in lines)


def _line(cells: tuple[str, str, str], what_width: int, level_width: int) -> str:
    return f"{cells[0]:<{what_width}}  {cells[1]:<{level_width}}  {cells[2]}"


def printable(text: str) -> str:
    """What a file holds must not steer the terminal."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
