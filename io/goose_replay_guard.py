"""Tells a captured GOOSE frame that is sent again from a new one (docs/security.md, "Frames played again").

    stNum ahead of the newest one          new state
    same stNum and t, sqNum ahead          repeat of the newest state
    same stNum, t and sqNum                DUPLICATE: the newest frame once more
    stNum begins anew, t newer than all    restart of the PSU, if it can have restarted; from then on every t
                                           that is not newer than its last one before is of the past
    everything else                        REPLAYED

Rules:
- No clock, no socket: time is an argument. It is asked about frames whose HMAC was right, and about no others,
  so that nothing else can change what it remembers. A frame that it suspects changes nothing either.
- A publisher is a connector under a key: both are under the HMAC. The source MAC is not, so it counts for
  nothing here: whoever plays a frame again can give it any.
- What it remembers belongs to the key. A frame does not verify under another key, so a new one begins with
  nothing; one that comes back (a PSU with a fixed key) finds what it left. A new connection, a new MAC or
  silence forget nothing: whoever can play frames again can cause these, too.
"""

import hashlib
from datetime import UTC, datetime

from msgspec import Struct

from ..messages.goose import GooseHeader
from .goose_codec import Refusal

MAX_PUBLISHERS = 256
"""Remembered; then the one that was silent for longest is forgotten."""

_COUNTER_STEPS = 2**32 - 1
"""stNum and sqNum are 32-bit counters: after 4294967295 comes 1 (protocol.md §3.3)."""
_AHEAD_MAX = 2**31
_ROLL_OVER_MAX = 2**16
"""A lower number is ahead only if the counter rolled over, and not long ago."""

_Time = tuple[int, int]
"""A frame's t: seconds, fraction."""


class Suspicion(Struct, frozen=True):
    """A frame that looks played again."""

    reason: Refusal
    """DUPLICATE or REPLAYED."""
    text: str
    """What it says, and what the newest one said."""


class _Publisher(Struct):
    """What is remembered of a connector's frames under one key."""

    st_num: int
    sq_num: int
    t: _Time
    newest_t: _Time
    """Of all frames; t of the newest state may be older, as a PSU's clock may be set back."""
    valid_until_ns: int
    """timeAllowedToLive after the last frame: a publisher that is silent for longer may have restarted."""
    connection: int
    """To the PSU, on which the last frame's key had come."""
    past_t: _Time = (-1, 0)
    """Frames up to this t are from before the PSU's last restart."""


class ReplayGuard:
    """Remembers the newest frame of each publisher."""

    def __init__(self) -> None:
        self._publishers: dict[tuple[int, bytes], _Publisher] = {}

    def judge(
        self, connector_no: int, key: bytes, header: GooseHeader, *, connection: int, at_ns: int
    ) -> Suspicion | None:
        """About a frame that `key` verified; None: there is nothing against it, and it is the newest now.

        `connection`: to the PSU, on which the key came; `at_ns`: monotonic.
        """
        publisher = connector_no, hashlib.sha256(key).digest()
        former = self._publishers.get(publisher)
        t = header.t_seconds, header.t_fraction
        newest_t, past_t = t, (-1, 0)
        if former is not None:
            newest_t, past_t = max(t, former.newest_t), former.past_t
            if _is_restart(former, header, t, connection, at_ns):
                past_t = former.newest_t
            elif reason := _suspected(former, header, t):
                return Suspicion(reason, _shown(connector_no, header, t, former))
            del self._publishers[publisher]
        elif len(self._publishers) >= MAX_PUBLISHERS:
            del self._publishers[next(iter(self._publishers))]
        self._publishers[publisher] = _Publisher(
            st_num=header.st_num,
            sq_num=header.sq_num,
            t=t,
            newest_t=newest_t,
            valid_until_ns=at_ns + header.time_allowed_to_live_ms * 1_000_000,
            connection=connection,
            past_t=past_t,
        )
        return None


def _is_restart(former: _Publisher, header: GooseHeader, t: _Time, connection: int, at_ns: int) -> bool:
    """Counters begin anew with a PSU that was away, and no frame that was ever accepted has such a t."""
    was_away = at_ns > former.valid_until_ns or connection != former.connection
    return was_away and t > former.newest_t and not _is_ahead(former.st_num, header.st_num)


def _suspected(former: _Publisher, header: GooseHeader, t: _Time) -> Refusal | None:
    if t <= former.past_t:
        return Refusal.REPLAYED
    if _is_ahead(former.st_num, header.st_num):
        return None
    if (header.st_num, t) != (former.st_num, former.t):
        return Refusal.REPLAYED
    if header.sq_num == former.sq_num:
        return Refusal.DUPLICATE
    return None if _is_ahead(former.sq_num, header.sq_num) else Refusal.REPLAYED


def _is_ahead(former: int, later: int) -> bool:
    steps = (later - former) % _COUNTER_STEPS
    return 0 < steps < (_AHEAD_MAX if later > former else _ROLL_OVER_MAX)


def _shown(connector_no: int, header: GooseHeader, t: _Time, former: _Publisher) -> str:
    return (
        f"connector {connector_no}: stNum {header.st_num}, sqNum {header.sq_num}, t {_utc(t)} after "
        f"stNum {former.st_num}, sqNum {former.sq_num}, t {_utc(former.t)}"
    )


def _utc(t: _Time) -> str:
    seconds, fraction = t
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction * 1000 >> 24:03d}Z"
