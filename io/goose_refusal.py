"""Why a GOOSE frame is not accepted: the one vocabulary of codec, receiver and log (protocol.md §3.4)."""

from enum import Enum


class Refusal(Enum):
    """Of a frame."""

    UNDECODABLE = "undecodable"
    WRONG_ETHERTYPE = "wrong_ethertype"
    WRONG_APP_ID = "wrong_app_id"
    WRONG_GOID = "wrong_goid"
    WRONG_ENTRIES = "wrong_entries"
    UNKNOWN_VALUE = "unknown_value"
    """An enumeration of a power or stop request has a number that protocol.md §3.2 does not list."""
    BAD_CRC = "bad_crc"
    OWN_FRAME = "own_frame"
    UNSIGNED = "unsigned"
    BAD_HMAC = "bad_hmac"
    WRONG_CONNECTOR = "wrong_connector"
    DUPLICATE = "duplicate"
    """The newest frame of its connector once more: harmless to the PSU's message, but not sent by it."""
    REPLAYED = "replayed"
    """An older frame than the newest of its connector, or one that contradicts it (goose_replay_guard.py)."""
    TOO_MANY = "too_many"
    """More accepted replies in a second than a PSU sends: a captured one is being sent again and again."""


class GooseError(Exception):
    """A frame that is not accepted. `reason` says why; there is no other exception for any bytes."""

    def __init__(self, reason: Refusal, text: str = "") -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.text = text
        """More about it, for people; "": there is no more to say."""
