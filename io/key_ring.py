"""The only holder of the HMAC keys, in memory only (architecture.md §3, protocol.md §2.2).

    PSU writes 0x2115 ──► absorb_write ──► words with the key zeroed, and "this is a key for connector n"
    publisher  ◄── signing_key(n)                                  receiver ◄── verifying_keys()

A key belongs to the connection on which it came. When the core retires a connection its keys verify nothing any
more but still sign (the last stop request, behaviour.md §2); when it forgets the connection they are gone. What
is written on a connection after either is masked and changes nothing.

No method shows a key in a repr, an exception or a log line.
"""

import struct
import threading

from ..messages.registers import CONNECTOR_OFFSETS, RegisterMap

# hmac_key of every connector that the address space has room for: masked even where there is no such connector.
_KEY_REGISTERS = tuple(
    RegisterMap(len(CONNECTOR_OFFSETS)).by_key[f"{connector}/hmac_key"]
    for connector in range(1, len(CONNECTOR_OFFSETS) + 1)
)
_KEY_WORDS = _KEY_REGISTERS[0].words
_NO_WORDS = (0,) * _KEY_WORDS

_FUNCTION_AT = 7
"""MBAP header: transaction 2, protocol 2, length 2, unit 1; then the function."""
_WRITE_SINGLE = 0x06
_SINGLE_VALUE_AT = 10
_MULTIPLE_VALUES_AT = 13


def _key_parts(address: int, word_count: int) -> list[tuple[int, int, int, int]]:
    """Where a range of registers meets the keys: (connector, first word of the key, where in the range that
    word stands, number of words)."""
    parts = []
    for connector, register in enumerate(_KEY_REGISTERS, 1):
        first = max(address, register.address)
        end = min(address + word_count, register.address + _KEY_WORDS)
        if first < end:
            parts.append((connector, first - register.address, first - address, end - first))
    return parts


class _Slot:
    """The key of one connector."""

    __slots__ = ("connection", "key", "words")

    def __init__(self) -> None:
        self.words = _NO_WORDS
        """hmac_key as written so far on the present connection."""
        self.key: bytes | None = None
        self.connection = 0
        """The connection that `key` came on."""


class KeyRing:
    """Keys of the connectors 1..connector_count. All methods may be called from any thread."""

    def __init__(self, connector_count: int) -> None:
        self._slots = tuple(_Slot() for _ in range(connector_count))
        self._lock = threading.Lock()
        self._connection = 0
        """The newest connection that a key was written on."""
        self._retired = 0
        """Keys of this connection and former ones verify nothing."""

    def absorb_write(
        self, connection: int, address: int, words: tuple[int, ...]
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Keep what a write says of keys. The words without it, and the connectors that got a key by it.

        A partial write changes only those words of what this connection has written so far. An all-zero result
        is no key: no connector got one, and the key that there was stays, because a stop request has to be
        signed whatever the PSU writes.
        """
        parts = _key_parts(address, len(words))
        if not parts:
            return words, ()
        masked = list(words)
        connectors = []
        with self._lock:
            if connection > self._connection:
                self._connection = connection
                for slot in self._slots:
                    slot.words = _NO_WORDS
            is_stale = connection < self._connection or connection <= self._retired
            for connector, first, position, count in parts:
                masked[position : position + count] = (0,) * count
                if connector > len(self._slots) or is_stale:
                    continue
                slot = self._slots[connector - 1]
                written = words[position : position + count]
                slot.words = slot.words[:first] + written + slot.words[first + count :]
                if any(slot.words):
                    slot.key = struct.pack(f">{_KEY_WORDS}H", *slot.words)
                    slot.connection = connection
                    connectors.append(connector)
        return tuple(masked), tuple(connectors)

    def mask_adu(self, adu: bytes, address: int, word_count: int) -> bytes:
        """The ADU of a write (0x06 or 0x10) as received, with the words of keys zeroed.

        It may be shorter than `word_count` says.
        """
        parts = _key_parts(address, word_count)
        if not parts:
            return adu
        is_single = adu[_FUNCTION_AT : _FUNCTION_AT + 1] == bytes((_WRITE_SINGLE,))
        values_at = _SINGLE_VALUE_AT if is_single else _MULTIPLE_VALUES_AT
        masked = bytearray(adu)
        for _, _, position, count in parts:
            start = values_at + 2 * position
            end = min(start + 2 * count, len(adu))
            masked[start:end] = bytes(max(0, end - start))
        return bytes(masked)

    def signing_key(self, connector: int) -> bytes | None:
        """The key that the connector's messages are signed with; None if there is none."""
        with self._lock:
            return self._slots[connector - 1].key

    def verifying_keys(self) -> tuple[tuple[int, bytes, int], ...]:
        """(connector, key, connection that it came on) of every connector whose key may verify a received
        frame."""
        with self._lock:
            return tuple(
                (connector, slot.key, slot.connection)
                for connector, slot in enumerate(self._slots, 1)
                if slot.key is not None and slot.connection > self._retired
            )

    def retire(self, connection: int) -> None:
        """Keys of this connection and former ones verify nothing any more; they still sign."""
        with self._lock:
            self._retired = max(self._retired, connection)

    def forget(self, connection: int) -> None:
        """Keys of this connection and former ones are gone."""
        with self._lock:
            self._retired = max(self._retired, connection)
            for slot in self._slots:
                if slot.connection <= connection:
                    slot.key = None
                    slot.words = _NO_WORDS
