"""TOML text as a table, whatever the text is: every TOML file that a user gives goes through here.

`tomllib` alone is not enough for a file from anywhere: time and memory grow with the square of the length of a
dotted key (64 KiB of `a.a.a.… = 1` take a quarter of a minute), a number of more than 4300 digits is another
ValueError than its own, and a table that dotted keys nest deeply, or a number that long, cannot even be shown.

Rules:
- A table or TomlError, in time linear in the text; its size is bounded, too.
- No value is nested deeper than MAX_DEPTH, and every integer has 64 bits at most, as TOML wants it: so any
  value can be shown and compared without another thought.
"""

import tomllib
from typing import Any

MAX_BYTES = 2**20
MAX_DEPTH = 32
MAX_DOTS_IN_LINE = 100
"""A dotted key stands on one line."""
_INTEGER_LIMIT = 2**63


class TomlError(Exception):
    """The text is not usable TOML. The text of this says why, for the user."""


def table_of(text: str) -> dict[str, Any]:
    """The table that the text holds. TomlError."""
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        msg = f"larger than {MAX_BYTES} bytes"
        raise TomlError(msg)
    if text.count(".") > MAX_DOTS_IN_LINE:
        _check_lines(text)
    try:
        table = tomllib.loads(text)
    except RecursionError:
        msg = "nested too deeply"
        raise TomlError(msg) from None
    except ValueError as error:  # its own TOMLDecodeError, and int's for a number of too many digits
        raise TomlError(str(error)) from None
    _check_values(table)
    return table


def _check_lines(text: str) -> None:
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > MAX_DOTS_IN_LINE and not line.lstrip(" \t").startswith("#"):
            msg = f"line {number}: more than {MAX_DOTS_IN_LINE} dots"
            raise TomlError(msg)


def _check_values(table: dict[str, Any]) -> None:
    """Without recursion: dotted keys nest as deep as they are long."""
    waiting: list[tuple[str, object, int]] = [(key, value, 1) for key, value in table.items()]
    while waiting:
        key, value, depth = waiting.pop()
        if depth > MAX_DEPTH:
            msg = f"{key}: nested deeper than {MAX_DEPTH}"
            raise TomlError(msg)
        if isinstance(value, dict):
            waiting += [(name, entry, depth + 1) for name, entry in value.items()]
        elif isinstance(value, list):
            waiting += [(key, entry, depth + 1) for entry in value]
        elif isinstance(value, int) and not -_INTEGER_LIMIT <= value < _INTEGER_LIMIT:
            msg = f"{key}: an integer of more than 64 bits"
            raise TomlError(msg)
