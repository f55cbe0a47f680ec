"""Stands in until the oracle is there."""

from collections.abc import Mapping, Sequence

from ...actors.runtime import ActorState
from ...messages.config import Config
from ...messages.inputs import Input
from ...messages.outputs import AnyOutput


class InvariantViolated(Exception):  # noqa: N818
    """What must hold does not."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name
        self.text = text


class Invariants:
    """Checks nothing yet."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def turn(self, message: Input, outputs: Sequence[AnyOutput], states: Mapping[str, ActorState]) -> None:
        """After every turn."""

    def settled(self, now_ns: int) -> None:
        """30 s after the last fault."""
