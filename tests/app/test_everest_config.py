"""`check --everest`: from EVerest's configuration to ours; and YAML that means no good."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from fusioncharger.app.check_everest_yaml import EverestFileError, read_everest
from fusioncharger.app.everest_config import Migration, migrate
from fusioncharger.messages.config import Config, parse
from hypothesis import given
from hypothesis import strategies as st

ONE = """
active_modules:
  psu:
    module: SomeDriver
    config_module:
      ethernet_interface: eth1
      esn: 0021
    config_implementation:
      connector_1:
        global_connector_number: 7
        max_export_current_A: 250
        max_export_power_W: 1.2e+5
    connections:
      isolation_monitor: [{module_id: imd, implementation_id: main}]
      meters: [{module_id: meter, implementation_id: main}]
  imd: {module: isolation_monitor_API}
  meter: {module: powermeter_API}
  bsp: {module: evse_board_support_API}
  manager:
    module: EvseManager
    connections:
      bsp: [{module_id: bsp, implementation_id: main}]
      imd: [{module_id: imd, implementation_id: main}]
      powersupply_DC: [{module_id: psu, implementation_id: connector_1}]
"""


def of(text: str, module_id: str = "psu") -> Migration:
    return migrate(read_everest(text), module_id, "config.yaml")


def config_of(text: str) -> Config:
    migration = of(text)
    assert migration.problems == []
    return parse(migration.toml, "result")


def with_settings(*lines: str) -> str:
    return ONE.replace("      esn: 0021\n", "".join(f"      {line}\n" for line in lines))


def test_one_connector() -> None:
    config = config_of(ONE)
    (connector,) = config.connectors
    assert (config.ethernet_interface, config.esn) == ("eth1", "0021")
    assert (connector.global_connector_number, connector.max_export_current_A) == (7, 250)
    assert connector.max_export_power_W == 120_000
    assert connector.power_supply_DC == "psu_api_1"
    assert connector.evse_board_support == "bsp"
    assert (connector.isolation_monitor, connector.powermeter) == ("imd", "meter")
    assert (connector.over_voltage_monitor, connector.evse_manager, config.error_history) == ("", "", "")
    assert of(ONE).notes == [
        "in EVerest's configuration: add psu_api_1, a power_supply_DC_API, and connect powersupply_DC of "
        "manager to it",
        "in EVerest's configuration: then remove psu",
    ]


def test_every_setting_keeps_its_type() -> None:
    config = config_of(
        with_settings(
            r"psu_ca_cert: 'C:\certs\"ca\".pem'",
            "client_cert: /etc/ünï/cert.pem",
            'client_key: "/tab\\there\\x7f"',
            "psu_ip: 10.0.0.1",
            "psu_port: 8502",
            "tls_enabled: on",
            "module_placeholder_allocation_timeout_s: 7",
            "modbus_timeout_s: 30.5",
            "esn: 0123456789012345678901",
            "send_secure_goose: TRUE",
            "allow_insecure_goose: Off",
            "verify_secure_goose: yes",
            "goose_vlan_id: 200",
            "goose_vlan_priority: 3",
            'telemetry_topic_prefix: "charger/1"',
            "HACK_publish_requested_voltage_current: no",
            "upstream_voltage_source: IMD",
            "protocol_version: 2",
            "hardware_version: 3",
            "software_version: 1.10",
        )
    )
    assert config.psu_ca_cert == 'C:\\certs\\"ca\\".pem'
    assert (config.client_cert, config.client_key) == ("/etc/ünï/cert.pem", "/tab\there\x7f")
    assert (config.psu_ip, config.psu_port, config.tls_enabled) == ("10.0.0.1", 8502, True)
    assert (config.module_placeholder_allocation_timeout_s, config.modbus_timeout_s) == (7, 30.5)
    assert config.esn == "0123456789012345678901"
    assert (config.send_secure_goose, config.allow_insecure_goose, config.verify_secure_goose) == (
        True,
        False,
        True,
    )
    assert (config.goose_vlan_id, config.goose_vlan_priority) == (200, 3)
    assert config.telemetry_topic_prefix == "charger/1"
    assert (config.protocol_version, config.hardware_version, config.software_version) == (2, 3, "1.10")


@given(st.text(st.characters(codec="utf-8"), max_size=30))
def test_any_text_survives(text: str) -> None:
    document = yaml.safe_load(ONE)
    document["active_modules"]["psu"]["config_module"] = {"client_key": text, f"x{text}": text}
    migration = of(yaml.safe_dump(document))  # escapes what YAML would fold
    assert tomllib.loads(migration.toml)["client_key"] == text
    assert parse(migration.toml, "result").client_key == text


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("psu_port: 0x1F6", "psu_port: found '0x1F6'; allowed: a TCP port"),
        ("psu_port: 010", "psu_port: found '010'"),
        ('psu_port: "502"', "psu_port: found '502'"),
        ("modbus_timeout_s: .inf", "modbus_timeout_s: found '.inf'"),
        ("modbus_timeout_s: 1e999", "modbus_timeout_s: found '1e999'"),
        ("modbus_timeout_s: 300", "modbus_timeout_s: found 300; allowed: 1 to 120 s"),
        ("tls_enabled: 1", "tls_enabled: found '1'; allowed: true or false"),
        ("tls_enabled: true", "psu_ca_cert is missing"),
        ("HACK_use_ovm_while_cable_check: true", "over_voltage_monitor is missing"),
    ],
)
def test_values_that_cannot_be(line: str, said: str) -> None:
    assert any(said in problem for problem in of(with_settings(line)).problems), of(
        with_settings(line)
    ).problems


def test_what_has_no_counterpart_becomes_a_comment_and_a_note() -> None:
    migration = of(with_settings("poll_ms: 100", "names: [a, {b: 'c'}]", "psu_ip: {a: 1}", "esn: ~"))
    assert "# not known here: poll_ms = 100\n" in migration.toml
    assert '# not known here: names = [a, {b: "c"}]\n' in migration.toml
    assert "# not usable: psu_ip = {a: 1}\n" in migration.toml
    assert "# esn has no value there; here the default is used\n" in migration.toml
    assert "# psu_port is not set there; the default here: 502\n" in migration.toml
    for note in (
        "config_module.poll_ms = 100: not known here",
        "config_module.psu_ip: a single value is needed, not {a: 1}",
        "config_module.esn has no value: the default is used",
    ):
        assert note in migration.notes


def test_a_misspelt_key_gets_a_hint() -> None:
    notes = of(with_settings("ethernet_iface: eth1", "HACK_use_ovm_while_cablecheck: true")).notes
    assert "config_module.ethernet_iface = eth1: not known here; did you mean ethernet_interface?" in notes
    assert any(note.endswith("did you mean HACK_use_ovm_while_cable_check?") for note in notes)


def test_comments_cannot_be_left() -> None:
    migration = of(with_settings(r'"a\npsu_port": "b\nesn = \"evil\"\x1b[2J"'))
    assert "\x1b" not in migration.toml
    assert tomllib.loads(migration.toml).keys() == {"ethernet_interface", "mqtt", "journal", "connectors"}


def test_the_broker_from_everests_settings() -> None:
    text = (
        "settings:\n  mqtt_broker_host: broker\n  mqtt_broker_port: 1884\n  mqtt_external_prefix: site/\n" + ONE
    )
    mqtt = config_of(text).mqtt
    assert (mqtt.host, mqtt.port, mqtt.topic_prefix) == ("broker", 1884, "site/")


NATIVE = """
active_modules:
  psu:
    module: SomeDriver
    config_module: {HACK_publish_requested_voltage_current: true}
    config_implementation:
      connector_1: {global_connector_number: 1, max_export_current_A: 1, max_export_power_W: 2}
      connector_2: {global_connector_number: 2, max_export_current_A: 1, max_export_power_W: 2}
    connections:
      isolation_monitor: [{module_id: imd_1}, {module_id: imd_2}]
      over_voltage_monitor: [{module_id: ovm_1}, {module_id: ovm_2}]
      board_support: [{module_id: bsp_2}, {module_id: bsp_1}]
      powermeter: [{module_id: meter_1}]
  imd_1: {module: isolation_monitor_API}
  imd_2: {module: BuiltInImd}
  ovm_1: {module: BuiltInOvm}
  ovm_2: {module: over_voltage_monitor_API}
  bsp_1: {module: evse_board_support_API}
  bsp_2: {module: BuiltInBoard}
  meter_1: {module: BuiltInMeter}
  manager_1:
    module: EvseManager
    connections:
      powersupply_DC: [{module_id: psu, implementation_id: connector_1}]
      bsp: [{module_id: bsp_1, implementation_id: main}]
  manager_2:
    module: EvseManager
    connections:
      powersupply_DC: [{module_id: psu, implementation_id: connector_2}]
      bsp: [{module_id: bsp_2, implementation_id: main}]
      powermeter_car_side: [{module_id: meter_1, implementation_id: main}]
"""
CONSUMERS = """
  history: {module: error_history_consumer_API}
  consumer:
    module: evse_manager_consumer_API
    connections: {evse_manager: [{module_id: manager_2, implementation_id: evse}]}
"""


def test_devices_that_are_built_into_everest() -> None:
    migration = of(NATIVE)
    assert migration.problems == []
    config = parse(migration.toml, "result")
    first, second = config.connectors
    # The list's order is not the connectors'; the EvseManagers tell which board is whose.
    assert (first.evse_board_support, second.evse_board_support) == ("bsp_1", "bsp_2")
    assert (first.isolation_monitor, second.isolation_monitor) == ("imd_1", "")
    assert (first.over_voltage_monitor, second.over_voltage_monitor) == ("", "ovm_2")
    assert (first.evse_manager, second.evse_manager) == ("", "evse_manager_api_2")
    assert config.error_history == "error_history_api"
    said = "\n".join(migration.notes)
    for note in (
        "the over-voltage monitor is ovm_1 (a BuiltInOvm): built into EVerest; the driver cannot get its",
        "add evse_manager_api_2, an evse_manager_consumer_API for manager_2",
        "add error_history_api, an error_history_consumer_API",
        "connector_1: psu is connected to meter_1; which of these is this connector's power meter cannot be",
        "connectors[2]: the power meter is built into EVerest: it is used only with HACK_publish_requested",
    ):
        assert note in said


def test_consumers_that_are_there_already_are_used() -> None:
    migration = of(NATIVE + CONSUMERS)
    config = parse(migration.toml, "result")
    assert (config.error_history, config.connectors[1].evse_manager) == ("history", "consumer")
    assert not any("consumer_API" in note for note in migration.notes)


def test_a_module_id_that_is_taken_is_not_given_again() -> None:
    assert config_of(ONE + "  psu_api_1: {module: Other}\n").connectors[0].power_supply_DC == "psu_api_1_new"
    assert (
        config_of(ONE + "  psu_api_1: {module: power_supply_DC_API}\n").connectors[0].power_supply_DC
        == "psu_api_1"
    )


def test_connectors_in_the_order_of_their_numbers() -> None:
    text = ONE.replace("connector_1", "connector_10").replace(
        "    connections:\n      isolation",
        "      connector_9: {global_connector_number: 9, max_export_current_A: 1, max_export_power_W: 2}\n"
        "      other: {x: 1}\n"
        "    connections:\n      isolation",
        1,
    )
    migration = of(text)
    numbers = [
        connector["global_connector_number"] for connector in tomllib.loads(migration.toml)["connectors"]
    ]
    assert numbers == [9, 7]
    said = "\n".join(migration.notes)
    assert "connector_10 is number 2 here" in said
    assert "connector_9: no EvseManager's powersupply_DC is connected to it" in said
    assert "config_implementation.other: not known here" in said


def test_essentials_that_are_missing() -> None:
    migration = of(ONE.replace("        max_export_current_A: 250\n", ""))
    assert migration.problems == [
        "connectors[1].max_export_current_A is missing; needed: more than 0, up to 10000 A"
    ]
    assert of("active_modules: {psu: {module: X}}").problems == [
        "module psu has no connector: neither config_implementation nor a powersupply_DC names one"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "active_modules: {psu: {module: X, config_module: 3, config_implementation: [1], connections: [2]}}",
        "active_modules: {psu: {module: X, connections: {a: 1, b: [1, {c: 2}, {module_id: [3]}], c: "
        "[{module_id: x}]}}}",
        "active_modules: {psu: {}, m: {connections: {powersupply_DC: [{module_id: psu}]}}}",
        "settings: 3\nactive_modules: {psu: {config_implementation: {connector_1: 3}}, x: 4, m: {connections: "
        "{powersupply_DC: [{module_id: psu, implementation_id: connector_1}]}}}",
    ],
)
def test_shapes_that_nobody_expects(text: str) -> None:
    migration = of(text)
    assert migration.problems
    tomllib.loads(migration.toml)


LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1, 2", "line 1, column 9: not valid YAML: "),
        ("a: 1\n\tb: 2", "line 2, column 1: not valid YAML: "),
        ("a: 1\nb: \0", "line 2: not valid YAML: the character U+0000 is not allowed"),
        ("a: &x 1\nb: &x 2", "line 2, column 4: not valid YAML: found duplicate anchor 'x'"),
        ("a: *y", "line 1, column 4: not valid YAML: found undefined alias 'y'"),
        ("a: 1\na: 2", "line 2: the key 'a' is there twice"),
        ("a: &a [*a]", "line 1: contains itself, by an alias (*)"),
        ("a: &a {b: *a}", "line 1: contains itself, by an alias (*)"),
        ("a: &a {<<: *a}", "line 1: contains itself, by an alias (*)"),
        (LAUGHS, "more than 50000 values, aliases (*) counted as what they stand for"),
        ("a: " + "[" * 50 + "]" * 50, "line 1: nested deeper than 40"),
        ("a: " + "[" * 20_000, "nested too deep"),
        ("? [1, 2]\n: 3", "line 1: a key has to be text"),
        ("a: {<<: 3}", "line 1: << takes a mapping"),
        ('a: "\\ud800"', "line 1: half of a surrogate pair"),
        ("a: 1\n---\nb: 2", "but found another document"),
        ("- 1", "has no active_modules"),
        ("", "has no active_modules"),
        ("!!python/object/apply:os.system ['true']", "has no active_modules"),
    ],
)
def test_yaml_that_means_no_good(text: str, said: str) -> None:
    with pytest.raises(EverestFileError) as caught:
        read_everest(text)
    assert said in str(caught.value)


def test_anchors_and_merge_keys_are_yaml_too() -> None:
    text = ONE.replace("      connector_1:\n", "      connector_1: &one\n").replace(
        "    connections:\n      isolation",
        "      connector_2: {<<: *one, global_connector_number: 8}\n    connections:\n      isolation",
        1,
    )
    first, second = tomllib.loads(of(text).toml)["connectors"]
    assert (first["global_connector_number"], second["global_connector_number"]) == (7, 8)
    assert second["max_export_current_A"] == 250


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "fusioncharger", "check", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert "Traceback" not in done.stderr
    return done


def test_the_command(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(ONE)
    done = run("--everest", str(file), "--module", "psu")
    assert done.returncode == 0
    assert parse(done.stdout, "stdout").connectors
    assert done.stdout.startswith("# From config.yaml, module psu.")
    assert done.stderr.startswith("note: in EVerest's configuration: add psu_api_1")


@pytest.mark.parametrize(
    ("content", "module_id", "code", "said"),
    [
        (None, "psu", 2, "cannot be read: No such file or directory"),
        (b"\xff", "psu", 2, "not UTF-8 text: byte 0 is 0xff"),
        (b"# " + b"x" * 2**20, "psu", 2, "is larger than 1 MiB"),
        (b"a: [", "psu", 2, "line 1, column 5: not valid YAML"),
        (b"a: 1", "psu", 1, "has no active_modules: is it a configuration of EVerest?"),
        (ONE.encode(), "pus", 1, "active_modules has no module 'pus'; did you mean psu?"),
        (ONE.encode(), "x", 1, "active_modules has no module 'x'; there are: psu, imd, meter, bsp, manager"),
        (b"active_modules: {psu: 3}", "psu", 1, "active_modules.psu is no mapping"),
        (b"active_modules:\n  psu: {}\n  1: {}", "psu", 1, "line 3: the module id '1' is no text to YAML"),
        (
            b"active_modules:\n  on: {}",
            "on",
            1,
            "line 2: the module id 'on' is no text to YAML; put it in quotes",
        ),
        (b"active_modules: {psu: {}}", "psu", 1, "error: module psu has no connector"),
    ],
)
def test_the_command_refuses(
    tmp_path: Path, content: bytes | None, module_id: str, code: int, said: str
) -> None:
    file = tmp_path / "config.yaml"
    if content is not None:
        file.write_bytes(content)
    done = run("--everest", str(file), "--module", module_id)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
