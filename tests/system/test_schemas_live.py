"""A whole session with alarms and a loss of the link: all that EVerest is told fits its schemas."""

from pathlib import Path

from m2e_schemas import APIS, document, misfits, said_to_everest
from rig import rig

SETTINGS = 'error_history = "history"\nmodule_placeholder_allocation_timeout_s = 0.1\n'


def test_a_whole_session(tmp_path: Path) -> None:
    with rig(tmp_path, connectors=2, settings=SETTINGS) as system:
        everest = system.everest
        system.psu("placeholder", reply="withhold", connector_no=5)
        system.start_driver(fault="raise")
        everest.start_heartbeats(2)
        everest.wait("psu_1/m2e/communication_check")
        mark = system.mock.events.mark()
        everest.bsp(1, "B")
        system.wait_key(1, after=mark)
        everest.setpoint(1, 500, 2)
        everest.mode(1, "Export", "CableCheck")
        system.wait_power(1, "INSULATION_DETECTION_VOLTAGE_OUTPUT", 500, after=mark)
        everest.mode(1, "Off", "CableCheck")
        everest.setpoint(1, 390, 2)
        everest.mode(1, "Export", "PreCharge")
        system.wait_power(1, "PRECHARGE_VOLTAGE_OUTPUT", 390, after=mark)
        everest.mode(1, "Export", "Charging")
        everest.setpoint(1, 400, 20.1)
        system.wait_power(1, "CHARGING", 400, after=mark)
        for voltage_v in (399.9, 400, 0.1):
            everest.meter(1, voltage_v, 20.1)
            everest.imd(1, voltage_v)
        for connector in (1, 2):
            for error in ("MREC8EmergencyStop", "MREC17EVSEContactorFault"):
                everest.bsp_error(connector, error, raised=True)
                everest.bsp_error(connector, error, raised=False)
        for name, value in (("PowerUnit/Epo", 1), ("AcBranch/AcBranch1", 0xFFFFFFFF)):
            system.psu("alarm", name=name, value=value)
            everest.wait_error(1, "VendorWarning", name)
            system.psu("clear_alarm", name=name)
        system.psu("running_mode", mode="FAULTY")
        everest.wait_error(1, "HardwareFault", "psu_not_running")
        system.psu("ratings", max_voltage_v=0.1)
        # The loss of the link, and of a part of the driver.
        lost = everest.messages.mark()
        system.psu("running_mode", mode="RUNNING")
        system.psu("ratings", max_voltage_v=1000)
        system.psu("drop")
        everest.wait_error(1, "CommunicationFault", after=lost)
        everest.wait_error(1, "CommunicationFault", raised=False, after=lost)
        everest.setpoint(1, 666, 20)
        everest.wait_error(1, "VendorError", "internal_error")
        everest.mode(1, "Off", "Other")
        everest.bsp(1, "A")
        system.settle()
        assert system.driver.terminate() == 0
        messages = everest.messages.all()
        raised = {text for _, name, text in said_to_everest(messages) if name == "raise_error"}
        assert any("module_placeholder_allocation_failed" in text for text in raised)
        # Every kind of message that there is was said.
        said = {(api, name) for api, name, _ in said_to_everest(messages)}
        known = {
            (api, channel["address"].removeprefix("m2e/"))
            for api in APIS
            for channel in document(api)["channels"].values()
            if (channel["address"] or "").startswith("m2e/")
        }
        assert said <= known
        assert said == {
            *(("power_supply_DC", name) for name in ("mode", "voltage_current", "capabilities")),
            *(("power_supply_DC", name) for name in ("raise_error", "clear_error", "communication_check")),
            ("error_history_consumer", "active_errors"),
        }
        assert misfits(messages) == []


def test_what_does_not_fit_is_found() -> None:
    topic = "everest_api/1/power_supply_DC/psu_1/m2e"
    assert misfits([(f"{topic}/mode", '"Off"'), (f"{topic}/communication_check", "true")]) == []
    for name, payload in (
        ("mode", "false"),
        ("mode", '"Sideways"'),
        ("raise_error", '{"type": "Nonsense"}'),
        ("capabilities", "{}"),
        ("voltage_current", '{"voltage_V": 1}'),
        ("communication_check", '"true"'),
    ):
        assert len(misfits([(f"{topic}/{name}", payload)])) > 0, (name, payload)
