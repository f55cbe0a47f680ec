"""The demo's charging session, scene by scene, with what power unit and EVerest have to see of it.

What goes wrong on the way is in demo_incidents.py.
"""

from ..messages.types import BspEvent, ChargingPhase, Mode, RequirementType, WorkingStatus
from .demo_everest import TELEMETRY_PREFIX, from_supply
from .demo_incidents import (
    CURRENT_A,
    VOLTAGES_V,
    break_link,
    limit_power,
    press_emergency_stops,
    raise_psu_alarm,
)
from .demo_stage import CONNECTORS, START_ERRORS, Stage, happened, has, reported
from .demo_tls import expect_tls

BATTERIES_V = (380, 640)


def play_session(stage: Stage, *, is_encrypted: bool) -> None:
    """All of it, once the driver was started. ExpectationError."""
    _start(stage, is_encrypted=is_encrypted)
    _tell_capabilities(stage)
    _plug_in(stage)
    _check_cables(stage)
    _precharge(stage)
    _charge(stage)
    limit_power(stage)
    raise_psu_alarm(stage)
    press_emergency_stops(stage)
    break_link(stage)
    _end(stage)


def _start(stage: Stage, *, is_encrypted: bool) -> None:
    stage.narrator.chapter(
        "The driver starts",
        "A charge of a former driver may still run. To get keys with which to stop it, the driver shows the "
        "power unit a plug-in of each connector, though no car is there.",
    )
    connected = stage.expect("the driver connects to the power unit (Modbus TCP)", happened("connected"))
    if is_encrypted:
        expect_tls(stage)
    for connector in CONNECTORS:
        plugged = stage.expect(
            f"report: connector {connector} is plugged in",
            reported(
                {f"{connector}/working_status": WorkingStatus.STANDBY_WITH_CONNECTOR_INSERTED.value},
            ),
            connected,
        )
        written = stage.expect(
            f"the power unit writes a key for connector {connector}",
            happened("key_written", connector=connector),
            plugged,
        )
        stage.expect_stop(connector, ", signed with that key", written)
        stage.expect(
            f"report: connector {connector} is free again",
            reported({f"{connector}/working_status": WorkingStatus.STANDBY.value}),
            written,
        )
    stage.hears(
        "the driver connects to EVerest's broker (MQTT) and shows itself online",
        f"{TELEMETRY_PREFIX}/status",
        lambda value: value == "online",
    )


def _tell_capabilities(stage: Stage) -> None:
    stage.narrator.chapter(
        "What the power unit can do",
        "Here it says so at once; hardware takes 10 s. Until then EVerest's errors of the start stand.",
    )
    stage.act("EVerest", "starts its heartbeat, and hears everything that there is to know")
    stage.everest.start_heartbeat()
    for connector in CONNECTORS:
        stage.hears(
            f"EVerest hears that driver {connector} is alive",
            from_supply(connector, "communication_check"),
            lambda value: value is True,
        )
        stage.hears(
            f"EVerest hears on {connector}: 100 to 1000 V, 1 to 100 A, 60 kW",
            from_supply(connector, "capabilities"),
            lambda value: has(
                value,
                min_export_voltage_V=100,
                max_export_voltage_V=1000,
                min_export_current_A=1,
                max_export_current_A=100,
                max_export_power_W=60_000,
            ),
        )
        for error in START_ERRORS:
            stage.hears_cleared(connector, error)


def _plug_in(stage: Stage) -> None:
    stage.narrator.chapter(
        "Two cars plug in",
        "The power unit answers each plug-in with a key; every GOOSE frame is signed with it from now on.",
    )
    for connector in CONNECTORS:
        stage.act("board", f"connector {connector}: car connected (event B)")
        stage.everest.board_event(connector, BspEvent.B)
        stage.expect(
            f"report: connector {connector} has a car",
            reported({f"{connector}/working_status": WorkingStatus.STANDBY_WITH_CONNECTOR_INSERTED.value}),
        )
        written = stage.expect(
            f"the power unit writes the key of connector {connector}",
            happened("key_written", connector=connector),
        )
        stage.expect_power(connector, RequirementType.MODULE_PLACEHOLDER_REQUEST, 0, 0, written)
        stage.expect(
            f"the power unit allocates modules to connector {connector}",
            happened("placeholder_reply", connector_no=connector),
        )


def _check_cables(stage: Stage) -> None:
    stage.narrator.chapter(
        "Cable check", "Is the cable insulated? High voltage, next to no current; then off again."
    )
    for connector in CONNECTORS:
        stage.request(connector, Mode.EXPORT, ChargingPhase.CABLE_CHECK, (500, 2))
        stage.expect_power(connector, RequirementType.INSULATION_DETECTION_VOLTAGE_OUTPUT, 500, 2)
        _measure(stage, connector, 500, 0)
        stage.request(connector, Mode.OFF, ChargingPhase.CABLE_CHECK)
        stage.expect_power(connector, RequirementType.INSULATION_DETECTION_VOLTAGE_OUTPUT_STOPPAGE, 0, 0)
        _measure(stage, connector, 0, 0)


def _precharge(stage: Stage) -> None:
    stage.narrator.chapter("Precharge", "The output is brought to the voltage of the car's battery.")
    for connector, voltage_v in zip(CONNECTORS, BATTERIES_V, strict=True):
        stage.request(connector, Mode.EXPORT, ChargingPhase.PRE_CHARGE, (voltage_v, 2))
        stage.expect_power(connector, RequirementType.PRECHARGE_VOLTAGE_OUTPUT, voltage_v, 2)
        _measure(stage, connector, voltage_v, 0)


def _charge(stage: Stage) -> None:
    stage.narrator.chapter("Charging", "The contactors close, and the cars ask for what they need.")
    for connector, battery_v in zip(CONNECTORS, BATTERIES_V, strict=True):
        stage.act("board", f"connector {connector}: contactors closed (event PowerOn)")
        stage.everest.board_event(connector, BspEvent.POWER_ON)
        stage.expect(
            f"report: contactors of connector {connector} closed",
            reported({f"{connector}/contactor_status": 1}),
        )
        stage.request(connector, Mode.EXPORT, ChargingPhase.CHARGING, (battery_v, 10))
        stage.expect_power(connector, RequirementType.CHARGING, battery_v, 10)
    for current_a in (60.5, CURRENT_A):
        for connector, voltage_v in zip(CONNECTORS, VOLTAGES_V, strict=True):
            stage.act("EVerest", f"connector {connector}: {voltage_v} V {current_a} A")
            stage.everest.set_power(connector, voltage_v, current_a)
            stage.expect_power(connector, RequirementType.CHARGING, voltage_v, current_a)
            _measure(stage, connector, voltage_v - 0.5, current_a)
            stage.hears_telemetry(
                f"connector {connector}: the same, and {voltage_v - 0.5} V directly after the power unit",
                f"connector/{connector}/dispenser_to_psu",
                output_voltage=voltage_v - 0.5,
                output_current=current_a,
                upstream_voltage=voltage_v - 0.5,
            )


def _end(stage: Stage) -> None:
    stage.narrator.chapter("The end", "EVerest stops both, the contactors open, the cars leave.")
    for connector in CONNECTORS:
        stage.request(connector, Mode.OFF, ChargingPhase.OTHER)
        stage.expect_stop(connector)
        stage.hears(
            f"EVerest hears: mode Off on {connector}",
            from_supply(connector, "mode"),
            lambda value: value == "Off",
        )
        stage.act("board", f"connector {connector}: contactors open (event PowerOff), car leaves (event A)")
        stage.everest.board_event(connector, BspEvent.POWER_OFF)
        stage.everest.board_event(connector, BspEvent.A)
        stage.expect(
            f"report: connector {connector} is free, its contactors open",
            reported(
                {
                    f"{connector}/working_status": WorkingStatus.STANDBY.value,
                    f"{connector}/contactor_status": 0,
                }
            ),
        )
    stage.narrator.check(
        "no error stands at EVerest", lambda: not any(map(stage.everest.standing_errors, CONNECTORS))
    )


def _measure(stage: Stage, connector: int, voltage_v: float, current_a: float) -> None:
    """The power unit measures nothing itself: isolation monitor and power meter do."""
    stage.act("meters", f"connector {connector}: {voltage_v} V {current_a} A")
    stage.everest.measure(connector, voltage_v, current_a)
    stage.hears(
        f"EVerest hears on {connector}: {voltage_v} V {current_a} A",
        from_supply(connector, "voltage_current"),
        lambda value: has(value, voltage_V=voltage_v, current_A=current_a),
    )
