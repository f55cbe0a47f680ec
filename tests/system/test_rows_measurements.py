"""Voltage measurements (behaviour.md §5): which device counts for what, and for how long."""

import json
import time
from pathlib import Path

import pytest
from psu_by_hand import PsuByHand
from rig import Rig, rig

TO_PSU = "telemetry/connector/5/dispenser_to_psu"
VOLTAGE_CURRENT = "power_supply_DC/psu_1/m2e/voltage_current"


def shown(system: Rig, wanted: dict[str, object], *, after: int = 0, timeout_s: float = 10) -> None:
    """Telemetry shows these values."""
    system.everest.wait_object(TO_PSU, wanted, after=after, timeout_s=timeout_s)


def told(system: Rig, *, after: int) -> list[tuple[float, float]]:
    """What EVerest got as voltage_current."""
    values = [
        json.loads(payload)
        for topic, payload in system.everest.messages.all()[after:]
        if topic.endswith(VOLTAGE_CURRENT)
    ]
    return [(value["voltage_V"], value["current_A"]) for value in values]


def wait_told(system: Rig, voltage_v: float, current_a: float, *, after: int) -> None:
    system.everest.wait_object(
        VOLTAGE_CURRENT, {"voltage_V": voltage_v, "current_A": current_a}, after=after, timeout_s=3
    )


def without_devices(system: Rig, *devices: str) -> None:
    """Take devices of every connector out of the configuration."""
    lines = system.config.read_text().splitlines()
    kept = [line for line in lines if not line.startswith(tuple(f"{device} =" for device in devices))]
    system.config.write_text("\n".join(kept))


@pytest.mark.parametrize("source", ["IMD", "OVM"])
def test_registers_and_voltage_current(tmp_path: Path, source: str) -> None:
    settings = f'upstream_voltage_source = "{source}"\n'
    with rig(tmp_path, settings=settings) as system, PsuByHand(system) as psu:
        system.launch_driver()
        psu.accept()
        system.everest.wait("telemetry/status", "online")
        shown(system, {"upstream_voltage": None, "output_voltage": None, "output_current": None})
        mark = system.everest.messages.mark()
        system.everest.imd(1, 401.1)
        system.everest.ovm(1, 402.2)
        system.everest.meter(1, 403.3, 20.1)
        upstream_v = {"IMD": 401.1, "OVM": 402.2}[source]
        shown(system, {"upstream_voltage": upstream_v, "output_voltage": 403.3, "output_current": 20.1})
        assert psu.f32(0x1113) == pytest.approx(upstream_v, rel=1e-6)
        assert psu.f32(0x1107) == pytest.approx(403.3, rel=1e-6)
        assert psu.f32(0x1109) == pytest.approx(20.1, rel=1e-6)
        wait_told(system, 403.3, 20.1, after=mark)
        # What a device leaves out counts as 0.
        mark = system.everest.messages.mark()
        system.everest.publish("isolation_monitor/imd_1/m2e/isolation_measurement", {"resistance_F_Ohm": 1e6})
        if source == "IMD":
            shown(system, {"upstream_voltage": 0}, after=mark)
            assert psu.f32(0x1113) == 0
        topic = "powermeter/meter_1/m2e/powermeter_values"
        meter = {"timestamp": "2026-01-01T00:00:00.000Z", "energy_Wh_import": {"total": 0}}
        system.everest.publish(topic, meter | {"voltage_V": {"L1": 230}, "current_A": {"DC": 7}})
        wait_told(system, 0, 7, after=mark)
        system.everest.publish(topic, meter)
        wait_told(system, 0, 0, after=mark)
        shown(system, {"output_voltage": 0, "output_current": 0}, after=mark)
        assert (psu.f32(0x1107), psu.f32(0x1109)) == (0, 0)
        assert {upstream for upstream, _ in told(system, after=0)} <= {403.3, 0}  # only the meter's


def test_the_ovm_stands_in_for_the_meter_while_cable_check(tmp_path: Path) -> None:
    settings = "HACK_use_ovm_while_cable_check = true\n"
    with rig(tmp_path, settings=settings) as system:
        system.start_driver()
        everest = system.everest
        system.charge(1, 500, 2)
        begin = everest.messages.mark()

        def measure(ovm_v: float, meter_v: float) -> None:
            everest.ovm(1, ovm_v)
            everest.meter(1, meter_v, 1.5)

        measure(11, 12)  # Charging
        wait_told(system, 12, 1.5, after=begin)
        assert set(told(system, after=begin)) == {(12, 1.5)}
        everest.mode(1, "Export", "CableCheck")
        measure(21, 22)
        shown(system, {"output_voltage": 22}, after=begin)  # registers and telemetry still take the meter
        everest.mode(1, "Off", "Other")  # counts as CableCheck
        measure(31, 32)
        shown(system, {"output_voltage": 32}, after=begin)
        wait_told(system, 31, 0, after=begin)
        everest.mode(1, "Export", "PreCharge")
        measure(41, 42)
        wait_told(system, 42, 1.5, after=begin)
        # The rest is what was said last, repeated once a second: by whoever counted then.
        assert set(told(system, after=begin)) - {(11, 0), (32, 1.5)} == {(12, 1.5), (21, 0), (31, 0), (42, 1.5)}


def test_requested_values_are_published_where_there_is_no_meter(tmp_path: Path) -> None:
    settings = "HACK_publish_requested_voltage_current = true\n"
    with rig(tmp_path, settings=settings) as system:
        without_devices(system, "powermeter")
        system.start_driver()
        system.charge(1, 400, 20)
        system.everest.setpoint(1, 1200, 20)
        system.wait_power(1, "CHARGING", 1000)
        mark = system.everest.messages.mark()
        wait_told(system, 1000, 20, after=mark)  # as applied
        system.everest.mode(1, "Off", "Other")
        system.settle()
        mark = system.everest.messages.mark()
        wait_told(system, 0, 0, after=mark)
        assert (1200, 20) not in told(system, after=0)


def test_a_meter_goes_before_requested_values(tmp_path: Path) -> None:
    settings = "HACK_publish_requested_voltage_current = true\n"
    with rig(tmp_path, settings=settings) as system:
        system.start_driver()
        system.charge(1, 400, 20)
        mark = system.everest.messages.mark()
        system.everest.wait("psu_1/m2e/communication_check", after=mark)  # a second's turn
        system.everest.meter(1, 398, 19)
        wait_told(system, 398, 19, after=mark)
        assert set(told(system, after=0)) == {(398, 19)}


def test_a_silent_source_is_named_and_looks_not_new(tmp_path: Path) -> None:
    with rig(tmp_path) as system:
        system.start_driver()
        system.charge(1)
        everest = system.everest
        mark = everest.messages.mark()
        begin_s = time.monotonic()
        everest.imd(1, 401)
        everest.meter(1, 402, 20)
        shown(system, {"upstream_voltage": 401, "output_voltage": 402, "output_current": 20}, after=mark)
        for source in ("isolation monitor", "power meter"):
            text = f"the {source} has been silent for 5 s"
            system.driver.log.wait(lambda line, text=text: text in line and "WARNING" in line, what=text)
        assert 4.9 < time.monotonic() - begin_s < 6.5
        nothing = {"upstream_voltage": None, "output_voltage": None, "output_current": None}
        shown(system, nothing, after=mark)
        # Once a second while it was younger than 5 s, and no more.
        assert 5 <= told(system, after=mark).count((402, 20)) <= 6
        mark = everest.messages.mark()
        everest.wait("psu_1/m2e/communication_check", after=mark)  # the next second's turn
        # It speaks again.
        everest.imd(1, 403)
        everest.meter(1, 404, 21)
        shown(system, {"upstream_voltage": 403, "output_voltage": 404, "output_current": 21}, after=mark)
        wait_told(system, 404, 21, after=mark)
        assert set(told(system, after=mark)) == {(404, 21)}
        silent = [line for line in system.driver.log.all() if "has been silent" in line]
        assert len(silent) == 2


def test_missing_devices_are_configuration_errors(tmp_path: Path) -> None:
    with rig(tmp_path, connectors=2) as system:
        text = system.config.read_text()
        for setting, device, complaint in (
            ('upstream_voltage_source = "IMD"', 'isolation_monitor = "imd_2"', "isolation_monitor is missing"),
            (
                'upstream_voltage_source = "OVM"',
                'over_voltage_monitor = "ovm_2"',
                "over_voltage_monitor is missing",
            ),
            (
                "HACK_use_ovm_while_cable_check = true",
                'over_voltage_monitor = "ovm_1"',
                "over_voltage_monitor is missing",
            ),
            ("", 'powermeter = "meter_2"', "powermeter is missing in connectors[2]"),
        ):
            assert device in text
            system.config.write_text(f"{setting}\n{text.replace(device, '')}")
            driver = system.launch_driver()
            assert driver.wait() == 2
            assert any(complaint in line for line in driver.log.all()), driver.log.all()
