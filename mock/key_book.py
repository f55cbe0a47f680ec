"""Which session key signs the GOOSE frames of which connector (protocol.md §2.2, §3.1).

    key written ──► newest, and the one before it still accepted ──acknowledged──► newest only

Rules:
- A connector is known by what its frames show: the dispenser's MAC (0x114D) and its global number (0x110E).
- One that was given no key by name has the default key, if there is one: a mock that hands out one and the same
  key need not know who is who.
- Frames that were on their way when the acknowledgement came still count with the former key.
"""

from msgspec import Struct

GRACE_NS = 20_000_000
"""The thread that stamps a frame may get its turn late."""


class _Keys(Struct):
    newest: bytes
    former: bytes | None
    former_until_ns: int | None = None
    """None: the newest is not acknowledged yet."""


class KeyBook:
    """The keys of all connectors. They outlive a connection: a stop request may come after it."""

    def __init__(self, default: bytes | None) -> None:
        self._default = default
        self._keys: dict[tuple[bytes, int], _Keys] = {}

    def written(self, mac: bytes, connector_no: int, key: bytes) -> None:
        """The write of a key went out."""
        former = self.newest(mac, connector_no)
        self._keys[mac, connector_no] = _Keys(key, former)

    def acknowledged(self, mac: bytes, connector_no: int, now_ns: int) -> None:
        """The dispenser has its newest key."""
        keys = self._keys.get((mac, connector_no))
        if keys is not None:
            keys.former_until_ns = now_ns + GRACE_NS

    def newest(self, mac: bytes, connector_no: int) -> bytes | None:
        """What replies are signed with; None if there is no key."""
        keys = self._keys.get((mac, connector_no))
        return self._default if keys is None else keys.newest

    def accepted(self, mac: bytes, connector_no: int, at_ns: int) -> tuple[bytes, ...]:
        """What a frame that came at `at_ns` may be signed with."""
        keys = self._keys.get((mac, connector_no))
        if keys is None:
            return () if self._default is None else (self._default,)
        if keys.former is None or (keys.former_until_ns is not None and at_ns > keys.former_until_ns):
            return (keys.newest,)
        return (keys.newest, keys.former)

    def forget(self) -> None:
        """As after a restart."""
        self._keys.clear()
