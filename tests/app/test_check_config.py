"""What `check` says of the configuration file itself, and the table that it prints."""

from pathlib import Path

import pytest
from fakes import site_toml
from fusioncharger.app.check_config import check_file, check_intentions
from fusioncharger.app.check_table import Level, Row, error, ok, render, warning

CONNECTOR = site_toml.CONNECTOR + 'powermeter = "meter_1"\n'


def rows_of(tmp_path: Path, text: str | bytes) -> list[Row]:
    file = tmp_path / "site.toml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    rows, settings = check_file(file)
    return rows + (check_intentions(settings) if settings else [])


def problems(rows: list[Row], level: Level = Level.ERROR) -> list[str]:
    return [f"{row.what}: {row.detail}" for row in rows if row.level is level]


def test_a_good_file(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, 'esn = "1"' + CONNECTOR)
    assert {row.level for row in rows} == {Level.OK}
    assert [row.what for row in rows] == ["file", "TOML", "settings", "connectors", "connector 1"]
    assert (
        "board: bsp_1, isolation monitor: imd_1, over-voltage monitor: none, power meter: meter_1"
        in rows[-1].detail
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"\xff", "file: {file}: not UTF-8 text: byte 0 is 0xff"),
        ("esn = 'a'\nx = = 1", "TOML: Invalid value (at line 2, column 5)"),
        ("a = " + "[" * 5000, "TOML: "),
        ("psu_prot = 1" + CONNECTOR, "setting: unknown key psu_prot; did you mean psu_port?"),
        ("psu_port = 0" + CONNECTOR, "setting: psu_port: found 0; allowed: a TCP port, 1 to 65535"),
        (
            CONNECTOR.replace("= 1\n", "= 13\n"),
            "setting: connectors[1].global_connector_number: found 13; allowed",
        ),
        (CONNECTOR * 2, "has already; allowed: 1 to 12, each once"),
        (CONNECTOR.replace("isolation_monitor", "#"), "isolation_monitor is missing; upstream_voltage_source"),
        ("tls_enabled = true" + CONNECTOR, "psu_ca_cert is missing"),
        ("mqtt = 1" + CONNECTOR, "mqtt: found 1; allowed: a table"),
        ("connectors = 3", "connectors: found 3; allowed: 1 to 4 tables"),
        ("", "connectors is missing"),
    ],
)
def test_each_problem_is_a_row(tmp_path: Path, text: str | bytes, said: str) -> None:
    found = problems(rows_of(tmp_path, text))
    assert any(said.format(file=tmp_path / "site.toml") in line for line in found), found
    assert all(len(line.splitlines()) == 1 for line in found)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    rows, settings = check_file(tmp_path / "none.toml")
    assert settings is None
    assert problems(rows) == [f"file: {tmp_path / 'none.toml'}: cannot be read: No such file or directory"]


def test_every_wrong_value_is_named_and_the_others_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text(
        'psu_port = 0\ngoose_vlan_id = "x"\npsu_ip = "10.1.1.1"\n[mqtt]\nhost = "broker"\nport = -1\n'
        + CONNECTOR.replace("60000", '"much"')
    )
    rows, settings = check_file(file)
    said = "\n".join(problems(rows))
    for key in ("psu_port", "goose_vlan_id", "mqtt.port", "connectors[1].max_export_power_W"):
        assert said.count(key) == 1, said
    assert settings is not None
    assert settings.has("psu_ip", "mqtt.host")
    assert not settings.has("psu_port")
    assert not settings.has("mqtt.port")
    assert (settings.config.psu_ip, settings.config.mqtt.host) == ("10.1.1.1", "broker")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("send_secure_goose = false" + CONNECTOR, "send_secure_goose: false: power requests are sent unsigned"),
        ("verify_secure_goose = false" + CONNECTOR, "verify_secure_goose: false: answers are taken without"),
        (
            "verify_secure_goose = false\nallow_insecure_goose = true" + CONNECTOR,
            "(and allow_insecure_goose: unsigned ones, too)",
        ),
        ("allow_insecure_goose = true" + CONNECTOR, "allow_insecure_goose: true has no effect"),
        (
            'verify_secure_goose = false\ngoose_replay_protection = "enforce"' + CONNECTOR,
            'goose_replay_protection: "enforce" has no effect while verify_secure_goose is false',
        ),
        ("HACK_publish_requested_voltage_current = true" + CONNECTOR, "see what was requested"),
        (CONNECTOR.replace("powermeter", "#"), "powermeter: none, and HACK_publish"),
        ("everest_timeout_s = 1.9" + CONNECTOR, "everest_timeout_s: 1.9: one heartbeat that comes late"),
        (CONNECTOR, "esn: is the default"),
        (CONNECTOR + '[mqtt]\npassword_file = "x"', "mqtt.password_file: has no effect without mqtt.username"),
        (
            CONNECTOR + '[mqtt]\nca_cert = "x"\nclient_key = "y"',
            "mqtt.tls_enabled: false: mqtt.ca_cert, mqtt.client_key without effect",
        ),
        (
            'client_key = "x"\npsu_cert_hostname = "y"' + CONNECTOR,
            "client_key, psu_cert_hostname without effect",
        ),
        (
            CONNECTOR + 'evse_manager = "manager_1"',
            "by manager_1: the contactor's status: the power unit reads OFF; an over-voltage monitor's "
            "voltage; the board's alarms (door, water, emergency stop, tilt, contactor): set error_history",
        ),
    ],
)
def test_what_is_allowed_but_worth_a_warning(tmp_path: Path, text: str, said: str) -> None:
    rows = rows_of(tmp_path, text)
    assert not problems(rows)
    assert any(said in line for line in problems(rows, Level.WARNING)), rows


def test_with_error_history_the_alarms_are_not_missing(tmp_path: Path) -> None:
    text = 'error_history = "history"' + CONNECTOR + 'evse_manager = "m"\nover_voltage_monitor = "ovm"'
    (said,) = (
        line for line in problems(rows_of(tmp_path, text), Level.WARNING) if line.startswith("connector")
    )
    assert said.endswith("the power unit reads OFF")


def test_the_table() -> None:
    rows = [
        ok("interface eth1", "up"),
        warning("esn", "x" * 30 + " " + "y" * 30),
        error("a", "bad\x1b[2J\nthing"),
    ]
    assert render(rows, width=None, coloured=False).splitlines() == [
        "what            result   detail",
        "interface eth1  ok       up",
        f"esn             warning  {'x' * 30} {'y' * 30}",
        r"a               error    bad\x1b[2J\nthing",
    ]
    wrapped = render(rows, width=60, coloured=False).splitlines()
    assert wrapped[2:4] == [f"esn             warning  {'x' * 30}", " " * 25 + "y" * 30]
    coloured = render(rows, width=None, coloured=True)
    assert "\x1b[31merror\x1b[0m    bad" in coloured
    assert "\x1b[2J" not in coloured


def test_a_wrong_value_is_not_hidden_by_a_list_of_known_keys(tmp_path):
    """`unknown key qqqq; known here: …, psu_port, …` says nothing of psu_port."""
    path = tmp_path / "site.toml"
    path.write_text(f"qqqq = 1\nmodbus_timeout_s = 500\npsu_port = 70000\n{CONNECTOR}")
    said = [row.detail for row in check_file(path)[0] if row.level is Level.ERROR]
    for key in ("unknown key qqqq", "modbus_timeout_s: ", "psu_port: "):
        assert len([text for text in said if text.startswith(key)]) == 1, said
