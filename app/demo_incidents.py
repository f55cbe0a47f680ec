"""What goes wrong while the demo's cars charge, and what the driver makes of it (behaviour.md §1 to §6)."""

from ..messages.types import RequirementType
from .demo_everest import from_supply
from .demo_processes import Event
from .demo_stage import CONNECTORS, START_ERRORS, Stage, happened, has, reported, utc_s

EPO_ERROR = "MREC8EmergencyStop"
PSU_ALARM = "PowerUnit/Smoke"
COMMUNICATION_FAULT = START_ERRORS[0]
AT_ONCE_S = 0.5
VOLTAGES_V = (400, 650.5)
CURRENT_A = 40
"""What both cars ask for while they charge."""


def limit_power(stage: Stage) -> None:
    """A setpoint beyond what the power unit can give, and a power unit that can give less."""
    stage.narrator.chapter(
        "Limits",
        "What EVerest asks for is clamped into what the power unit can give, anew whenever either changes.",
    )
    _ask(stage, 1, 120, applied_a=100)
    stage.hears_telemetry(
        "400 V 100 A applied on 1", "connector/1/dispenser_to_psu", export_voltage=400, export_current=100
    )
    for limit_a in (80, 100):
        stage.tell_psu(f"can give {limit_a} A now", do="ratings", max_current_a=limit_a)
        stage.expect_power(1, RequirementType.CHARGING, VOLTAGES_V[0], limit_a)
        for connector in CONNECTORS:
            _hears_limit(stage, connector, limit_a)
    _ask(stage, 1, CURRENT_A, applied_a=CURRENT_A)


def raise_psu_alarm(stage: Stage) -> None:
    """An alarm register of the power unit becomes an error at EVerest."""
    error = ("VendorWarning", PSU_ALARM)
    stage.narrator.chapter(
        "An alarm of the power unit", "Each connector's driver tells EVerest, as a warning: charging goes on."
    )
    stage.tell_psu(f"raises {PSU_ALARM}", do="alarm", name=PSU_ALARM)
    for connector in CONNECTORS:
        stage.hears_error(connector, error, "Category: PowerUnit; Subcategory: Smoke; AlarmState: ALARM")
    stage.tell_psu(f"clears {PSU_ALARM}", do="clear_alarm", name=PSU_ALARM)
    for connector in CONNECTORS:
        stage.hears_cleared(connector, error)


def press_emergency_stops(stage: Stage) -> None:
    """Two boards have the same error: one alarm."""
    stage.narrator.chapter(
        "Emergency stop",
        "Both boards report it. The power unit sees one alarm, until the last board has cleared it. Whether "
        "cars stop is up to EVerest, which here lets them charge on.",
    )
    stage.act("board", f"connector 1: {EPO_ERROR} raised")
    stage.everest.raise_error(1, EPO_ERROR)
    stage.expect("report: EPO alarm", reported({"epo_alarm": 1}))
    pressed = stage.psu.mark()
    stage.act("board", f"connector 2: {EPO_ERROR} raised")
    stage.everest.raise_error(2, EPO_ERROR)
    last = stage.expect("report: still EPO alarm", reported({"epo_alarm": 1}))
    stage.act("board", f"connector 1: {EPO_ERROR} cleared")
    stage.everest.clear_error(1, EPO_ERROR)
    # Two periodic reports later the driver has certainly heard of it.
    for _ in range(2):
        last = stage.expect("report: still EPO alarm", reported({"epo_alarm": 1}), last)
    stage.narrator.check(
        "and never cleared in between",
        lambda: not any(map(reported({"epo_alarm": 0}), stage.psu.since(pressed))),
    )
    stage.act("board", f"connector 2: {EPO_ERROR} cleared")
    stage.everest.clear_error(2, EPO_ERROR)
    stage.expect("report: EPO alarm is over", reported({"epo_alarm": 0}))


def break_link(stage: Stage) -> None:
    """Modbus is cut in mid-charge, and comes back within 10 s."""
    stage.narrator.chapter(
        "The link to the power unit breaks",
        "When in doubt, no power: stop requests go out at once. Once the link is back, each connector needs a "
        "key and modules again; then what EVerest still asks for applies again.",
    )
    stage.tell_psu("breaks the connection, and accepts no other", do="refuse")
    stage.command(do="reset")
    broken = stage.expect("the connection is gone", happened("disconnected"))
    stops = [_stops(stage, connector, broken) for connector in CONNECTORS]
    stage.tell_psu("accepts connections again", do="listen")
    connected = stage.expect("the driver has connected anew", happened("connected"))
    for connector, stopped in zip(CONNECTORS, stops, strict=True):
        _goes_on(stage, connector, stopped, connected)


def _ask(stage: Stage, connector: int, current_a: float, *, applied_a: float) -> None:
    voltage_v = VOLTAGES_V[connector - 1]
    stage.act("EVerest", f"connector {connector}: {voltage_v} V {current_a} A")
    stage.everest.set_power(connector, voltage_v, current_a)
    stage.expect_power(connector, RequirementType.CHARGING, voltage_v, applied_a)


def _hears_limit(stage: Stage, connector: int, limit_a: float) -> None:
    stage.hears(
        f"EVerest hears on {connector}: at most {limit_a} A",
        from_supply(connector, "capabilities"),
        lambda value: has(value, max_export_current_A=limit_a),
    )


def _stops(stage: Stage, connector: int, broken: Event) -> Event:
    """The stop request that the link's end has led to."""
    is_stop = happened("stop_request", connector_no=connector)
    stopped = stage.expect(
        f"GOOSE: stop request for {connector}, signed with the old key, within {AT_ONCE_S} s",
        lambda event: is_stop(event) and event["t"] - broken["t"] < AT_ONCE_S,
    )
    stage.hears_error(connector, COMMUNICATION_FAULT)
    _hears_limit(stage, connector, 0)
    return stopped


def _goes_on(stage: Stage, connector: int, stopped: Event, connected: Event) -> None:
    """Key, modules, power, and CommunicationFault is cleared no sooner than that."""
    written = stage.expect(
        f"the power unit writes a key for connector {connector}",
        happened("key_written", connector=connector),
        connected,
    )
    stage.expect_power(connector, RequirementType.MODULE_PLACEHOLDER_REQUEST, 0, 0, written)
    allocated = stage.expect(
        f"the power unit allocates modules to connector {connector}",
        happened("placeholder_reply", connector_no=connector),
        written,
    )
    is_request = happened("power_request", connector_no=connector)
    stage.narrator.check(
        "until then no power was asked for",
        lambda: (
            not any(
                is_request(event) and event["current"] > 0 and stopped["t"] < event["t"] < allocated["t"]
                for event in stage.psu.since(0)
            )
        ),
    )
    stage.expect_power(connector, RequirementType.CHARGING, VOLTAGES_V[connector - 1], CURRENT_A, allocated)
    cleared = stage.hears_cleared(connector, COMMUNICATION_FAULT)
    stage.narrator.check("and not before the modules were allocated", lambda: cleared.utc_s > utc_s(allocated))
