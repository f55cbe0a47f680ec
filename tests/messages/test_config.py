"""The configuration: what it accepts, and what it says about what it does not."""

import pytest
from fusioncharger.messages.config import ConfigError, parse

CONNECTOR = """
[[connectors]]
global_connector_number = 1
max_export_current_A = 100
max_export_power_W = 60000.0
power_supply_DC = "psu_1"
evse_board_support = "bsp_1"
isolation_monitor = "imd_1"
"""
SECOND = CONNECTOR.replace("= 1\n", "= 2\n").replace("_1", "_2")


def problem(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text, "site.toml")
    return str(caught.value)


def test_defaults() -> None:
    config = parse(CONNECTOR, "site.toml")
    assert config.ethernet_interface == "eth0"
    assert (config.psu_ip, config.psu_port) == ("192.168.11.1", 502)
    assert config.module_placeholder_allocation_timeout_s == 5
    assert config.modbus_timeout_s == 60
    assert config.esn == "0" * 16
    assert (config.send_secure_goose, config.allow_insecure_goose, config.verify_secure_goose) == (
        True,
        False,
        True,
    )
    assert (config.goose_vlan_id, config.goose_vlan_priority) == (0, 5)
    assert config.telemetry_topic_prefix == ""
    assert config.everest_timeout_s == 5
    assert (config.mqtt.host, config.mqtt.port, config.mqtt.topic_prefix) == ("localhost", 1883, "")
    assert config.journal.dir == "./sessions"
    assert len(parse(CONNECTOR + SECOND, "site.toml").connectors) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("psu_ip = 'x", "site.toml: not valid TOML: "),
        ("a = " + "[" * 50_000, "site.toml: not valid TOML: nested too deeply"),
        ("", "site.toml: connectors is missing; needed: 1 to 4 tables [[connectors]]"),
        ("connectors = []", "site.toml: connectors: found []; allowed: 1 to 4 tables [[connectors]]"),
        ("connectors = 3", "site.toml: connectors: found 3; allowed: 1 to 4 tables [[connectors]]"),
        (CONNECTOR * 5, "allowed: 1 to 4 tables [[connectors]]"),
        ("psu_prot = 1" + CONNECTOR, "site.toml: unknown key psu_prot; did you mean psu_port?"),
        ("zzz = 1" + CONNECTOR, "site.toml: unknown key zzz; known here: connectors, ethernet_interface"),
        (CONNECTOR + "powermetre = 'x'", "unknown key connectors[1].powermetre; did you mean powermeter?"),
        (CONNECTOR + "[mqtt]\nhots = 'x'", "unknown key mqtt.hots; did you mean host?"),
        (CONNECTOR + "[journal]\nmqtt = 3", "unknown key journal.mqtt; known here: dir"),
        ("journal = 3" + CONNECTOR, "site.toml: journal: found 3; allowed: a table"),
        ("psu_port = 70000" + CONNECTOR, "site.toml: psu_port: found 70000; allowed: a TCP port, 1 to 65535"),
        ("psu_port = '502'" + CONNECTOR, "site.toml: psu_port: found '502'; allowed: a TCP port"),
        ("modbus_timeout_s = 0.5" + CONNECTOR, "modbus_timeout_s: found 0.5; allowed: 1 to 120 s"),
        ("modbus_timeout_s = nan" + CONNECTOR, "modbus_timeout_s: found nan; allowed: 1 to 120 s"),
        (
            "module_placeholder_allocation_timeout_s = inf" + CONNECTOR,
            "module_placeholder_allocation_timeout_s: found inf; allowed: 0.001 to 3600 s",
        ),
        ("everest_timeout_s = 31" + CONNECTOR, "everest_timeout_s: found 31; allowed: 1 to 30 s"),
        ("send_secure_goose = 1" + CONNECTOR, "send_secure_goose: found 1; allowed: true or false"),
        ("psu_ip = ''" + CONNECTOR, "psu_ip: found ''; allowed: text that is not empty"),
        (
            "goose_replay_protection = true" + CONNECTOR,
            'goose_replay_protection: found true; allowed: "off", "observe" (count them) or "enforce" (drop',
        ),
        ("goose_vlan_id = 4095" + CONNECTOR, "goose_vlan_id: found 4095; allowed: 0 to 4094"),
        ("goose_vlan_priority = 8" + CONNECTOR, "goose_vlan_priority: found 8; allowed: 0 to 7"),
        (
            "esn = 'ä'" + CONNECTOR,
            "esn: found 'ä'; allowed: text in quotes, at most 22 printable ASCII characters",
        ),
        (f"esn = '{'0' * 23}'" + CONNECTOR, "at most 22 printable ASCII characters"),
        ("telemetry_topic_prefix = 'a/'" + CONNECTOR, "an MQTT topic without a trailing slash, + or #"),
        ("telemetry_topic_prefix = 'a/#'" + CONNECTOR, "an MQTT topic without a trailing slash, + or #"),
        (CONNECTOR.replace("psu_1", "a/b"), "connectors[1].power_supply_DC: found 'a/b'; allowed: an EVerest"),
        (
            CONNECTOR.replace("100", "0"),
            "connectors[1].max_export_current_A: found 0; allowed: more than 0, up to 10000 A",
        ),
        (CONNECTOR.replace("100", "nan"), "connectors[1].max_export_current_A: found nan; allowed: "),
        (
            CONNECTOR.replace("100", "inf"),
            "connectors[1].max_export_current_A: found inf; allowed: more than 0",
        ),
        (
            CONNECTOR.replace('power_supply_DC = "psu_1"', ""),
            "site.toml: connectors[1].power_supply_DC is missing; needed: an EVerest module id",
        ),
        (
            CONNECTOR + SECOND.replace("= 2", "= 1"),
            "connectors[2].global_connector_number: found 1, which connectors[1] has already",
        ),
        (CONNECTOR + SECOND.replace("psu_2", "psu_1"), "connectors[2].power_supply_DC: found 'psu_1', which"),
        ("tls_enabled = true" + CONNECTOR, "client_key is missing; tls_enabled = true needs it"),
        (
            "upstream_voltage_source = 'OVM'" + CONNECTOR,
            "connectors[1]: over_voltage_monitor is missing; upstream_voltage_source",
        ),
        ("upstream_voltage_source = 'ovm'" + CONNECTOR, "found 'ovm'; allowed: \"IMD\" (isolation monitor) or"),
        (
            "HACK_use_ovm_while_cable_check = true" + CONNECTOR,
            "connectors[1]: over_voltage_monitor is missing; HACK_use_ovm_while_cable_check",
        ),
        (
            CONNECTOR.replace('isolation_monitor = "imd_1"', ""),
            "connectors[1]: isolation_monitor is missing; upstream_voltage_source",
        ),
        (
            CONNECTOR.replace("evse_board_support", "evse_manager") + "[mqtt]\nport = 0",
            "mqtt.port: found 0",
        ),
        (
            CONNECTOR.replace('evse_board_support = "bsp_1"', ""),
            "connectors[1]: evse_board_support is missing (or evse_manager",
        ),
        (
            'error_history = "errors"' + CONNECTOR.replace("evse_board_support", "evse_manager"),
            "connectors[1]: evse_board_support is missing; needed to know which of error_history's errors",
        ),
        (
            CONNECTOR + 'powermeter = "meter_1"\n' + SECOND,
            "powermeter is missing in connectors[2]; allowed: for all connectors or for none",
        ),
        (CONNECTOR + "[mqtt]\ntls_enabled = true", "mqtt.ca_cert is missing; mqtt.tls_enabled = true needs it"),
        (
            CONNECTOR + "[mqtt]\ntls_enabled = true\nca_cert = 'x'\nclient_cert = 'y'",
            "mqtt.client_key is missing; allowed: mqtt.client_cert and mqtt.client_key, or none",
        ),
        (CONNECTOR + "[mqtt]\ntls_enabled = 'yes'", "mqtt.tls_enabled: found 'yes'; allowed: true or false"),
        (CONNECTOR + SECOND.replace("imd_2", "imd_1"), "connectors[2].isolation_monitor: found 'imd_1', which"),
    ],
    ids=str,
)
def test_what_is_wrong_is_said_with_file_key_value_and_what_is_allowed(text: str, said: str) -> None:
    assert said in problem(text)


def test_several_problems_are_all_said() -> None:
    text = problem("a = 1\nb = 2" + CONNECTOR)
    assert len(text.splitlines()) == 2
    assert all(line.startswith("site.toml: ") for line in text.splitlines())


@pytest.mark.parametrize(
    "line",
    [
        'esn = "0123\\n"',
        'software_version = "1\\n"',
        'telemetry_topic_prefix = "fc\\n"',
        'error_history = "history\\n"',
        'error_history = "a\\tb"',
        f'error_history = "{"x" * 1001}"',
        f'telemetry_topic_prefix = "{"x" * 1001}"',
        f'mqtt.topic_prefix = "{"x" * 1001}"',
    ],
)
def test_no_line_end_and_no_endless_topic(line: str) -> None:
    """Python's `$` lets a line end pass; and a topic has 65535 bytes at most."""
    with pytest.raises(ConfigError, match=line.partition(" ")[0].replace(".", r"\.")):
        parse(line + "\n" + CONNECTOR, "config.toml")
