"""Values of EVerest's configuration, and text, as TOML."""

import json
import math
import re

from .check_everest_yaml import Scalar

_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_MAX_COMMENT_CHARACTERS = 200


def toml_value(value: Scalar, wanted: type) -> str:
    """The value as TOML. What does not fit stays text in quotes, and `parse` says what is allowed."""
    text = value.text
    if wanted is str or not value.is_plain:
        return quoted(text)
    if wanted is bool:
        known = _BOOLEANS.get(text.lower())
        return quoted(text) if known is None else json.dumps(known)
    if re.fullmatch(r"[-+]?(0|[1-9][0-9]{0,17})", text):
        return str(int(text))
    if wanted is float and re.fullmatch(r"[-+]?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]{1,3})?|[-+]?\.[0-9]+", text):
        number = float(text)
        return quoted(text) if math.isinf(number) else repr(number)
    return quoted(text)


def quoted(text: str) -> str:
    """A TOML basic string: JSON's escapes, and those for the control characters that JSON lets through."""
    return _escaped(json.dumps(text, ensure_ascii=False))


def comment_text(text: str) -> str:
    """For a comment: one line, and nothing that steers a terminal."""
    shown = _escaped(json.dumps(text, ensure_ascii=False)[1:-1].replace('\\"', '"'))
    return shown if len(shown) <= _MAX_COMMENT_CHARACTERS else shown[: _MAX_COMMENT_CHARACTERS - 1] + "…"


def _escaped(text: str) -> str:
    return "".join(f"\\u{ord(char):04x}" if "\x7f" <= char <= "\x9f" else char for char in text)
