"""What the scenes of the demo act and check with.

Every expectation is a check of the power unit's own event log or of what EVerest hears: ✓, or ✗ and the end.
Only what came after the last action counts.
"""

from collections.abc import Callable
from datetime import datetime

from ..messages.types import ChargingPhase, Mode, RequirementType
from .demo_everest import TELEMETRY_PREFIX, Everest, Heard, from_supply
from .demo_narrator import Narrator
from .demo_processes import Event, PsuView

CONNECTORS = (1, 2)
START_ERRORS = (
    ("CommunicationFault", ""),
    ("HardwareFault", "psu_not_running"),
    ("HardwareFault", "capabilities_not_received"),
)
"""Type and sub_type of what stands while there is no link to the power unit (behaviour.md §3)."""
TIMEOUT_S = 5.0


class Stage:
    """The narrator, EVerest with the boards, and the power unit."""

    def __init__(
        self, narrator: Narrator, everest: Everest, psu: PsuView, command: Callable[..., None]
    ) -> None:
        """`command` tells the PSU mock what to do (docs/mock.md)."""
        self.narrator = narrator
        self.everest = everest
        self.psu = psu
        self.command = command
        self._psu_mark = 0
        self._everest_mark = 0

    def act(self, who: str, what: str) -> None:
        """Say what is done now; the caller does it."""
        self._psu_mark, self._everest_mark = self.psu.mark(), self.everest.mark()
        self.narrator.says(who, what)

    def tell_psu(self, what: str, **command: str | float) -> None:
        """The power unit does something of its own accord (docs/mock.md)."""
        self.act("PSU", what)
        self.command(**command)

    def request(
        self, connector: int, mode: Mode, phase: ChargingPhase, power: tuple[float, float] | None = None
    ) -> None:
        """EVerest requests a mode; the setpoint, if there is one, goes before it."""
        wanted = f", {power[0]} V {power[1]} A" if power else ""
        self.act("EVerest", f"connector {connector}: {mode.value}/{phase.value}{wanted}")
        if power:
            self.everest.set_power(connector, *power)
        self.everest.request(connector, mode, phase)

    # --- what the power unit has to see ----------------------------------------------------------------------

    def expect(self, expectation: str, matches: Callable[[Event], bool], after: Event | None = None) -> Event:
        """The power unit's first event that matches; `after` that one, if it is given."""

        def fits(event: Event) -> bool:
            return matches(event) and (after is None or event["t"] > after["t"])

        return self.narrator.check(expectation, lambda: self.psu.wait_for(fits, self._psu_mark, TIMEOUT_S))

    def expect_power(
        self,
        connector: int,
        requirement: RequirementType,
        voltage_v: float,
        current_a: float,
        after: Event | None = None,
    ) -> Event:
        """A GOOSE power request."""
        return self.expect(
            f"GOOSE: {_title(requirement)}, {voltage_v} V {current_a} A, for {connector}",
            happened(
                "power_request",
                connector_no=connector,
                requirement_type=requirement.name,
                voltage=voltage_v,
                current=current_a,
            ),
            after,
        )

    def expect_stop(self, connector: int, how: str = "", after: Event | None = None) -> Event:
        """A GOOSE stop request."""
        return self.expect(
            f"GOOSE: stop request for {connector}{how}",
            happened("stop_request", connector_no=connector),
            after,
        )

    # --- what EVerest has to hear ----------------------------------------------------------------------------

    def hears(self, expectation: str, topic: str, fits: Callable[[object], bool]) -> Heard:
        """The first message that fits."""
        return self.narrator.check(
            expectation, lambda: self.everest.wait_for(topic, fits, self._everest_mark, TIMEOUT_S)
        )

    def hears_error(self, connector: int, error: tuple[str, str], message: str = "") -> Heard:
        """An error is raised."""
        said = f" ({message})" if message else ""
        return self.hears(
            f"EVerest hears on {connector}: {_error(error)} raised{said}",
            from_supply(connector, "raise_error"),
            lambda value: is_error(value, error) and (not message or has(value, message=message)),
        )

    def hears_cleared(self, connector: int, error: tuple[str, str]) -> Heard:
        """An error is cleared."""
        return self.hears(
            f"EVerest hears on {connector}: {_error(error)} cleared",
            from_supply(connector, "clear_error"),
            lambda value: is_error(value, error),
        )

    def hears_telemetry(self, expectation: str, topic: str, **values: str | float | None) -> Heard:
        """These values stand in a telemetry topic."""
        return self.hears(
            f"telemetry: {expectation}", f"{TELEMETRY_PREFIX}/{topic}", lambda value: has(value, **values)
        )


def happened(name: str, **fields: str | float) -> Callable[[Event], bool]:
    """Whether an event is that one."""
    wanted = {"event": name, **fields}
    return lambda event: wanted.items() <= event.items()


def reported(registers: dict[str, int]) -> Callable[[Event], bool]:
    """Whether an event is a report that shows these registers."""
    return lambda event: event["event"] == "report" and registers.items() <= event["registers"].items()


def has(value: object, **items: str | float | None) -> bool:
    """Whether a JSON value is an object with these items."""
    return isinstance(value, dict) and items.items() <= value.items()


def is_error(value: object, error: tuple[str, str]) -> bool:
    """Whether a JSON value is that error."""
    return has(value, type=error[0], sub_type=error[1])


def utc_s(event: Event) -> float:
    """When the power unit saw it, in seconds since 1970."""
    return datetime.fromisoformat(event["utc"]).timestamp()


def _error(error: tuple[str, str]) -> str:
    return "/".join(part for part in error if part)


def _title(requirement: RequirementType) -> str:
    return requirement.name.replace("_", " ").capitalize()
