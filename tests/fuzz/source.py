"""Fuzz bytes as choices: what a target needs besides the bytes themselves.

Bytes are taken from the front, and zeros come when there are none left, so that any input means something, and
a small change of the input is a small change of what it means.
"""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Source:
    """The bytes that a fuzzer made, to be taken piece by piece."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """How many bytes are left."""
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        """The next bytes; fewer, if there are fewer."""
        taken = self._data[self._at : self._at + count]
        self._at += len(taken)
        return taken

    def rest(self) -> bytes:
        return self.take(self.left)

    def number(self, size: int = 1) -> int:
        """A number of so many bytes."""
        return int.from_bytes(self.take(size).ljust(size, b"\0"), "big")

    def below(self, limit: int) -> int:
        """A number from 0 to limit - 1; one byte if that is enough, else two."""
        return self.number(1 if limit <= 256 else 2) % limit

    def choice(self, values: Sequence[T]) -> T:
        return values[self.below(len(values))]

    def chunk(self) -> bytes:
        """Up to 255 bytes, behind their length."""
        return self.take(self.number())


def cut(stream: bytes, source: Source) -> list[bytes]:
    """The stream in up to eight pieces, cut where the source says; a piece may be empty."""
    places = sorted(source.below(len(stream) + 1) for _ in range(source.below(8)))
    return [stream[begin:end] for begin, end in zip([0, *places], [*places, len(stream)], strict=True)]
