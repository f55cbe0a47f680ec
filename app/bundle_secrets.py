"""What must not leave the machine in a bundle, and how it is taken out of a text.

Rules:
- Password and private key are in files that the configuration names: those files are only read here to know
  what to look for, and never packed.
- A configuration has no place for a secret, so one that stands in it does by mistake, or in a comment. What
  looks like one is taken out as well, rather once too often.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from ..messages.config import Config

LEFT_OUT = "(left out)"
_SHORTEST = 4
"""A password that is shorter cannot be told from other text."""
_KEY_LINE_CHARACTERS = 32

_PEM = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_NAMED = re.compile(
    r"""(?ix) (?P<name>
            [\w.-]* (?: password | passwd | passphrase | secret | token | hmac[\w-]*key | credential )
            (?! _file\b ) [\w-]* ["']? \s* [=:] \s*
        ) (?P<value> [^\n]+ )"""
)
_URL_PASSWORD = re.compile(r"(?P<user>://[^/\s:@\"']*:)[^/\s@\"']+(?=@)")
_LONG_HEX = re.compile(r"(?i)\b(?:0x)?[0-9a-f]{64,}\b")
_LONG_BASE64 = re.compile(r"(?<![\w+/])[A-Za-z0-9+/]{60,}={0,2}(?![\w+/])")


def known_secrets(config: Config) -> tuple[str, ...]:
    """Password and lines of the private keys, as far as they can be read here."""
    found: list[str] = []
    if config.mqtt.password_file:
        found += _lines(Path(config.mqtt.password_file))[:1]
    for path in filter(None, (config.client_key, config.mqtt.client_key)):
        found += [
            line for line in _lines(Path(path)) if "-----" not in line and len(line) >= _KEY_LINE_CHARACTERS
        ]
    return tuple(secret for secret in found if len(secret) >= _SHORTEST)


def redacted(text: str, secrets: Iterable[str]) -> str:
    """The text without these secrets, and without what looks like one."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, LEFT_OUT)
    text = _PEM.sub(LEFT_OUT, text)
    text = _NAMED.sub(_without_value, text)
    text = _URL_PASSWORD.sub(rf"\g<user>{LEFT_OUT}", text)
    text = _LONG_HEX.sub(LEFT_OUT, text)
    return _LONG_BASE64.sub(LEFT_OUT, text)


def _without_value(match: re.Match[str]) -> str:
    return match["name"] + f'"{LEFT_OUT}"'


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").splitlines()
    except (OSError, ValueError):
        return []
