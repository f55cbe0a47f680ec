"""What the PSU is at the moment: the one place that commands change and that all dispensers are told from."""

import math
from collections.abc import Mapping
from enum import Enum

from msgspec import Struct, field

from ..messages.types import PsuRunningMode

RATINGS: dict[str, float] = {
    "max_rated_psu_voltage": 1000.0,
    "max_rated_psu_current": 100.0,
    "min_rated_psu_voltage": 100.0,
    "min_rated_psu_current": 1.0,
    "rated_output_power_psu": 60.0,
}
"""By register; V, A, V, A, kW."""

RATING_REGISTERS: dict[str, str] = {
    "max_voltage_v": "max_rated_psu_voltage",
    "max_current_a": "max_rated_psu_current",
    "min_voltage_v": "min_rated_psu_voltage",
    "min_current_a": "min_rated_psu_current",
    "power_kw": "rated_output_power_psu",
}
"""What users call the ratings."""

ROUND_NS = 5_000_000_000
FIRST_ROUND_WITH_RATINGS = 3
"""10 s after the connect, as the hardware does."""


class PlaceholderPolicy(Enum):
    """What becomes of a module placeholder request."""

    ANSWER = "answer"
    """A reply that says success."""
    REFUSE = "refuse"
    """A reply that says failure."""
    WITHHOLD = "withhold"
    """No reply."""


class PsuState(Struct):
    """Mutable; `connector` is a local number, `connector_no` a global one."""

    mac: bytes
    """What stands in 0x2111."""
    running_mode: PsuRunningMode = PsuRunningMode.RUNNING
    ratings: dict[str, float] = field(default_factory=lambda: dict(RATINGS))
    """By register."""
    ratings_of: dict[int, dict[str, float]] = field(default_factory=dict)
    """What differs from `ratings`, by connector."""
    first_round_with_ratings: int = FIRST_ROUND_WITH_RATINGS
    round_ns: int = ROUND_NS
    """From one round of writes to the next."""
    port_available: dict[int, bool] = field(default_factory=dict)
    """By connector; available where nothing is said."""
    alarms: dict[str, int] = field(default_factory=dict)
    """Those that are not 0."""
    placeholder: PlaceholderPolicy = PlaceholderPolicy.ANSWER
    placeholder_of: dict[int, PlaceholderPolicy] = field(default_factory=dict)
    """What differs from `placeholder`, by connector_no."""
    silent_until_ns: float = -math.inf
    """Up to then dispensers are asked nothing."""
    off_until_ns: float = -math.inf
    """Up to then it restarts: no GOOSE either."""

    def rate(self, values: Mapping[str, float], connector: int | None) -> None:
        """Change ratings (by register) of a connector, or of all."""
        if connector is not None:
            self.ratings_of.setdefault(connector, {}).update(values)
            return
        self.ratings |= values
        for own in self.ratings_of.values():
            for name in values:
                own.pop(name, None)

    def ratings_at(self, connector: int) -> dict[str, float]:
        """The ratings of a connector, by register, in the order of the captures."""
        return self.ratings | self.ratings_of.get(connector, {})

    def port_is_available(self, connector: int) -> bool:
        """Whether a connector's port is available."""
        return self.port_available.get(connector, True)

    def policy_for(self, connector_no: int) -> PlaceholderPolicy:
        """What becomes of a placeholder request of this connector."""
        return self.placeholder_of.get(connector_no, self.placeholder)
