"""The demo's charging session, step by step, with what the power unit has to see of it (behaviour.md §1, §6).

Every expectation is a check of the power unit's own event log or of what EVerest hears: ✓, or ✗ and the end.
"""

from collections.abc import Callable

from rich.console import Console
from rich.markup import escape

from ..messages.types import BspEvent, ChargingPhase, Mode, RequirementType, WorkingStatus
from .demo_everest import TELEMETRY_PREFIX, Everest, from_supply
from .demo_processes import Event, PsuView

CONNECTORS = (1, 2)
TIMEOUT_S = 5.0
RATINGS_TIMEOUT_S = 15.0
EPO_ERROR = "MREC8EmergencyStop"


class ExpectationError(Exception):
    """Something did not hold; it has been shown."""


class Narrator:
    """Tells what happens, and counts what held."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.held = 0

    def chapter(self, title: str, explanation: str) -> None:
        """A new part of the story."""
        self._console.print()
        self._console.print(
            f"[bold cyan]{escape(title)}[/]", highlight=False, soft_wrap=not self._console.is_terminal
        )
        self._console.print(
            f"[dim]{escape(explanation)}[/]", highlight=False, soft_wrap=not self._console.is_terminal
        )

    def says(self, who: str, what: str) -> None:
        """Someone acts."""
        self._console.print(
            f"  [yellow]{who:>8}[/] {escape(what)}", highlight=False, soft_wrap=not self._console.is_terminal
        )

    def check(self, expectation: str, find: Callable[[], bool]) -> None:
        """Waits for what has to happen. ExpectationError if it does not."""
        with self._console.status(f"waiting: {escape(expectation)}"):
            holds = find()
        mark = "[bold green]✓[/]" if holds else "[bold red]✗[/]"
        self._console.print(
            f"         {mark} {escape(expectation)}", highlight=False, soft_wrap=not self._console.is_terminal
        )
        if not holds:
            raise ExpectationError(expectation)
        self.held += 1


class Session:
    """Plays EVerest and the boards, and checks."""

    def __init__(self, narrator: Narrator, everest: Everest, psu: PsuView) -> None:
        self._narrator = narrator
        self._everest = everest
        self._psu = psu
        self._mark = 0
        """What the power unit saw before the last action counts for nothing."""

    def play(self) -> None:
        """The whole session. ExpectationError."""
        self._connect()
        self._plug_in()
        self._learn_ratings()
        self._check_cables()
        self._precharge()
        self._charge()
        self._press_emergency_stops()
        self._end()

    def _connect(self) -> None:
        self._narrator.chapter(
            "1 The driver starts",
            "It connects to the power unit (Modbus TCP) and to EVerest's broker (MQTT).",
        )
        self._expect("the power unit has a connection from the driver", _is("connected"))
        self._expect("and reports every second what state the connectors are in", _is_report({}))
        self._hears(
            "the driver shows itself online", f"{TELEMETRY_PREFIX}/status", lambda value: value == "online"
        )
        self._everest.start_heartbeat()
        for connector in CONNECTORS:
            self._hears(
                f"EVerest hears that driver {connector} is alive",
                from_supply(connector, "communication_check"),
                lambda value: value is True,
            )

    def _plug_in(self) -> None:
        self._narrator.chapter(
            "2 Two cars plug in",
            "The power unit answers each plug-in with a key; every GOOSE frame is signed with it from now on.",
        )
        for connector in CONNECTORS:
            self._act("board", f"connector {connector}: car connected (event B)")
            self._everest.board_event(connector, BspEvent.B)
            self._expect(
                f"report: connector {connector} has a car",
                _is_report(
                    {f"{connector}/working_status": WorkingStatus.STANDBY_WITH_CONNECTOR_INSERTED.value}
                ),
            )
            self._expect(
                f"the power unit writes the key of connector {connector}",
                _is("key_written", connector=connector),
            )
            self._expect_power(connector, RequirementType.MODULE_PLACEHOLDER_REQUEST, 0, 0)
            self._expect(
                f"the power unit allocates modules to connector {connector}",
                _is("placeholder_reply", connector_no=connector),
            )

    def _learn_ratings(self) -> None:
        self._narrator.chapter(
            "3 What the power unit can do",
            "It says so 10 s after the connection stands, as the hardware does. EVerest's cars wait for it.",
        )
        for connector in CONNECTORS:
            self._hears(
                f"telemetry: connector {connector} is rated 1000 V, 100 A",
                f"{TELEMETRY_PREFIX}/connector/{connector}",
                lambda value: (
                    isinstance(value, dict)
                    and (value["max_rated_psu_voltage"], value["max_rated_psu_current"]) == (1000, 100)
                ),
                RATINGS_TIMEOUT_S,
            )

    def _check_cables(self) -> None:
        self._narrator.chapter(
            "4 Cable check", "Is the cable insulated? High voltage, next to no current; then off again."
        )
        for connector in CONNECTORS:
            self._request(connector, Mode.EXPORT, ChargingPhase.CABLE_CHECK, (500, 2))
            self._expect_power(connector, RequirementType.INSULATION_DETECTION_VOLTAGE_OUTPUT, 500, 2)
            self._request(connector, Mode.OFF, ChargingPhase.CABLE_CHECK)
            self._expect_power(connector, RequirementType.INSULATION_DETECTION_VOLTAGE_OUTPUT_STOPPAGE, 0, 0)

    def _precharge(self) -> None:
        self._narrator.chapter("5 Precharge", "The output is brought to the voltage of the car's battery.")
        for connector, voltage_v in zip(CONNECTORS, (380, 640), strict=True):
            self._request(connector, Mode.EXPORT, ChargingPhase.PRE_CHARGE, (voltage_v, 2))
            self._expect_power(connector, RequirementType.PRECHARGE_VOLTAGE_OUTPUT, voltage_v, 2)

    def _charge(self) -> None:
        self._narrator.chapter("6 Charging", "The contactors close, and the cars ask for what they need.")
        for connector, battery_v in zip(CONNECTORS, (380, 640), strict=True):
            self._act("board", f"connector {connector}: contactors closed (event PowerOn)")
            self._everest.board_event(connector, BspEvent.POWER_ON)
            self._expect(
                f"report: contactors of connector {connector} closed",
                _is_report({f"{connector}/contactor_status": 1}),
            )
            self._request(connector, Mode.EXPORT, ChargingPhase.CHARGING, (battery_v, 10))
            self._expect_power(connector, RequirementType.CHARGING, battery_v, 10)
        for current_a in (60.5, 95, 40):
            for connector, voltage_v in zip(CONNECTORS, (400, 650.5), strict=True):
                self._act("EVerest", f"connector {connector}: {voltage_v} V {current_a} A")
                self._everest.set_power(connector, voltage_v, current_a)
                self._expect_power(connector, RequirementType.CHARGING, voltage_v, current_a)

    def _press_emergency_stops(self) -> None:
        self._narrator.chapter(
            "7 Emergency stop",
            "Both boards report it. The power unit sees one alarm, until the last board has cleared it.",
        )
        self._act("board", f"connector 1: {EPO_ERROR} raised")
        self._everest.raise_error(1, EPO_ERROR)
        self._expect("report: EPO alarm", _is_report({"epo_alarm": 1}))
        pressed = self._psu.mark()
        self._act("board", f"connector 2: {EPO_ERROR} raised")
        self._everest.raise_error(2, EPO_ERROR)
        self._expect("report: still EPO alarm", _is_report({"epo_alarm": 1}))
        self._act("board", f"connector 1: {EPO_ERROR} cleared")
        self._everest.clear_error(1, EPO_ERROR)
        # Two periodic reports later the driver has certainly heard of it.
        for _ in range(2):
            self._expect("report: still EPO alarm", _is_report({"epo_alarm": 1}))
            self._mark = self._psu.mark()
        self._narrator.check(
            "and never cleared in between",
            lambda: not any(map(_is_report({"epo_alarm": 0}), self._psu.since(pressed))),
        )
        self._act("board", f"connector 2: {EPO_ERROR} cleared")
        self._everest.clear_error(2, EPO_ERROR)
        self._expect("report: EPO alarm is over", _is_report({"epo_alarm": 0}))

    def _end(self) -> None:
        self._narrator.chapter("8 The end", "EVerest stops both, the contactors open, the cars leave.")
        for connector in CONNECTORS:
            self._everest.forget(from_supply(connector, "mode"))
            self._request(connector, Mode.OFF, ChargingPhase.OTHER)
            self._expect(
                f"GOOSE: stop request for connector {connector}",
                _is("stop_request", connector_no=connector),
            )
            self._hears(
                f"EVerest hears: mode Off on {connector}",
                from_supply(connector, "mode"),
                lambda value: value == "Off",
            )
            self._act("board", f"connector {connector}: contactors open (event PowerOff), car leaves (event A)")
            self._everest.board_event(connector, BspEvent.POWER_OFF)
            self._everest.board_event(connector, BspEvent.A)
            self._expect(
                f"report: connector {connector} is free, its contactors open",
                _is_report(
                    {
                        f"{connector}/working_status": WorkingStatus.STANDBY.value,
                        f"{connector}/contactor_status": 0,
                    }
                ),
            )

    def _request(
        self, connector: int, mode: Mode, phase: ChargingPhase, power: tuple[float, float] | None = None
    ) -> None:
        wanted = f", {power[0]} V {power[1]} A" if power else ""
        self._act("EVerest", f"connector {connector}: {mode.value}/{phase.value}{wanted}")
        if power:
            self._everest.set_power(connector, *power)
        self._everest.request(connector, mode, phase)

    def _act(self, who: str, what: str) -> None:
        self._mark = self._psu.mark()
        self._narrator.says(who, what)

    def _expect(self, expectation: str, matches: Callable[[Event], bool]) -> None:
        self._narrator.check(
            expectation, lambda: self._psu.wait_for(matches, self._mark, TIMEOUT_S) is not None
        )

    def _expect_power(
        self, connector: int, requirement: RequirementType, voltage_v: float, current_a: float
    ) -> None:
        self._expect(
            f"GOOSE: {_title(requirement)}, {voltage_v} V {current_a} A, for {connector}",
            _is(
                "power_request",
                connector_no=connector,
                requirement_type=requirement.name,
                voltage=voltage_v,
                current=current_a,
            ),
        )

    def _hears(
        self,
        expectation: str,
        topic: str,
        fits: Callable[[object], bool],
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._narrator.check(expectation, lambda: self._everest.wait_until(topic, fits, timeout_s))


def _is(name: str, **fields: str | float) -> Callable[[Event], bool]:
    wanted = {"event": name, **fields}
    return lambda event: wanted.items() <= event.items()


def _is_report(registers: dict[str, int]) -> Callable[[Event], bool]:
    return lambda event: event["event"] == "report" and registers.items() <= event["registers"].items()


def _title(requirement: RequirementType) -> str:
    return requirement.name.replace("_", " ").capitalize()
