"""How much of the journal is kept: what the driver tells the recorder, and that the housekeeping."""

from typing import Self

from msgspec import Struct


class Keep(Struct, frozen=True):
    """How much is kept; 0: all."""

    total_bytes: int = 0
    days: float = 0.0

    def arguments(self) -> list[str]:
        """For a command line."""
        return [str(self.total_bytes), str(self.days)]

    @classmethod
    def of_arguments(cls, arguments: list[str]) -> Self:
        """From a command line; without arguments, all is kept."""
        return cls(int(arguments[0]), float(arguments[1])) if arguments else cls()
