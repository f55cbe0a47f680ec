"""The mock's options and environment variables."""

from pathlib import Path

import pytest
from fusioncharger.app.cli import main
from fusioncharger.messages.types import PsuRunningMode
from fusioncharger.mock.commands import Alarm
from fusioncharger.mock.options import OPTIONS, MockOptions, MockOptionsError, MqttOptions, options_from
from fusioncharger.mock.psu_state import PlaceholderPolicy
from fusioncharger.mock.scenario import Scenario, Step

P = "FUSION_CHARGER_MOCK_"


def test_defaults() -> None:
    options = options_from({})
    assert options == MockOptions()
    state = options.psu_state(bytes(6))
    assert (options.interface, options.port, options.send_hmac, options.verify_hmac) == (
        "veth0",
        8502,
        True,
        True,
    )
    assert state.ratings_at(4) == {
        "max_rated_psu_voltage": 1000.0,
        "max_rated_psu_current": 100.0,
        "min_rated_psu_voltage": 100.0,
        "min_rated_psu_current": 1.0,
        "rated_output_power_psu": 60.0,
    }
    assert state.first_round_with_ratings == 3


@pytest.fixture
def scenario(tmp_path: Path) -> str:
    path = tmp_path / "scenario.toml"
    path.write_text('[[step]]\nat = 1\ndo = "alarm"\nname = "PowerUnit/Water"\n')
    return str(path)


def every(scenario: str) -> tuple[dict[str, str], MockOptions]:
    """Each option with a value, and what comes of it."""
    texts = {
        "CERT_DIR": "certs",
        "--interface": "eth1",
        "--port": "0",
        "--events": "-",
        "--disable-send-hmac": "true",
        "--disable-verify-hmac": "1",
        "--random-keys": "1",
        "--placeholder": "refuse",
        "--running-mode": "FAULTY",
        "--rating": "power_kw=120",
        "--ratings-at-once": "1",
        "--alarm": "AcBranch/AcBranch1=0x80",
        "--scenario": scenario,
        "--control": "-",
        "--mqtt-host": "broker",
        "--mqtt-port": "1883",
        "--mqtt-base-topic": "psu",
    }
    options = MockOptions(
        interface="eth1",
        port=0,
        cert_dir="certs",
        events="-",
        control=True,
        send_hmac=False,
        verify_hmac=False,
        random_keys=True,
        placeholder=PlaceholderPolicy.REFUSE,
        running_mode=PsuRunningMode.FAULTY,
        ratings={"rated_output_power_psu": 120.0},
        ratings_at_once=True,
        alarms={"AcBranch/AcBranch1": 0x80},
        scenario=Scenario("connected", (Step(1, 1.0, Alarm("PowerUnit/Water")),)),
        mqtt=MqttOptions("broker", 1883, "psu"),
    )
    return texts, options


def test_every_option(scenario: str) -> None:
    texts, options = every(scenario)
    assert list(texts) == [option.flag for option in OPTIONS]
    assert options_from({}, texts) == options


def test_every_variable(scenario: str) -> None:
    texts, options = every(scenario)
    environment = {P + option.variable: texts[option.flag] for option in OPTIONS}
    assert options_from(environment) == MockOptions(
        **{name: getattr(options, name) for name in options.__struct_fields__ if name != "interface_from"},
        interface_from=f"{P}ETH",
    )


def test_option_wins() -> None:
    environment = {f"{P}PORT": "1", f"{P}RANDOM_KEYS": "1", f"{P}ALARM": "PowerUnit/Water, PowerUnit/Epo"}
    options = options_from(environment, {"--port": "2", "--random-keys": "0", "--alarm": ["PowerUnit/Smoke"]})
    assert (options.port, options.random_keys, options.alarms) == (2, False, {"PowerUnit/Smoke": 1})
    assert options_from(environment).alarms == {"PowerUnit/Water": 1, "PowerUnit/Epo": 1}


def test_alarm_of_value_0_is_none() -> None:
    assert options_from({}, {"--alarm": ["PowerUnit/Water=0"]}).alarms == {}


@pytest.mark.parametrize(("text", "sends"), [("0", True), ("false", True), ("1", False), ("true", False)])
def test_switches(text: str, *, sends: bool) -> None:
    assert options_from({f"{P}DISABLE_SEND_HMAC": text}).send_hmac is sends


MQTT = f"--mqtt-host and --mqtt-port ({P}MQTT_HOST and {P}MQTT_PORT)"
RATINGS = "max_voltage_v, max_current_a, min_voltage_v, min_current_a, power_kw"


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"DISABLE_SEND_HMAC": "yes"}, f"{P}DISABLE_SEND_HMAC: found 'yes'; allowed: 1, true, 0, false"),
        ({"DISABLE_VERIFY_HMAC": ""}, f"{P}DISABLE_VERIFY_HMAC: found ''; allowed: 1, true, 0, false"),
        ({"PORT": "65536"}, f"{P}PORT: found '65536'; allowed: 0 to 65535"),
        ({"PORT": "-1"}, f"{P}PORT: found '-1'; allowed: 0 to 65535"),
        ({"PORT": "²"}, f"{P}PORT: found '²'; allowed: 0 to 65535"),
        ({"MQTT_HOST": "h"}, f"{MQTT}: found 'h' and None; allowed: both or none"),
        ({"MQTT_PORT": "1"}, f"{MQTT}: found None and '1'; allowed: both or none"),
        ({"MQTT_HOST": "h", "MQTT_PORT": "0"}, f"{P}MQTT_PORT: found '0'; allowed: 1 to 65535"),
        (
            {"MQTT_HOST": "h", "MQTT_PORT": "1", "MQTT_BASE_TOPIC": "a/#"},
            f"{P}MQTT_BASE_TOPIC: found 'a/#'; allowed: an MQTT topic without + or #",
        ),
        ({"PLACEHOLDER": "refused"}, f"{P}PLACEHOLDER: found 'refused'; did you mean 'refuse'?; "),
        ({"RUNNING_MODE": "1"}, f"{P}RUNNING_MODE: found '1'; allowed: STARTING_UP, RUNNING, FAULTY, "),
        ({"CONTROL": "tcp:1"}, f"{P}CONTROL: found 'tcp:1'; allowed: -"),
        (
            {"ALARM": "PowerUnit/water2"},
            f"{P}ALARM: name: found 'PowerUnit/water2'; did you mean 'PowerUnit/Water'?; allowed: ",
        ),
        (
            {"ALARM": "PowerUnit/Water=65536"},
            f"{P}ALARM: value: found 65536; allowed for PowerUnit/Water: 0 to 0xffff",
        ),
        ({"ALARM": "PowerUnit/Water=on"}, f"{P}ALARM: found 'PowerUnit/Water=on'; allowed: NAME or NAME=VALUE"),
        ({"RATING": "power=60"}, f"{P}RATING: found 'power'; did you mean 'power_kw'?; allowed: {RATINGS}"),
        ({"RATING": "power_kw"}, f"{P}RATING: found 'power_kw'; allowed: NAME=VALUE with a number, NAME of "),
        (
            {"RATING": "power_kw=1e39"},
            f"{P}RATING: power_kw: found 1e+39; allowed: what a 32-bit float holds",
        ),
        ({"SCENARIO": "/nosuch.toml"}, f"{P}SCENARIO: /nosuch.toml: cannot be read: No such file"),
        (
            {"RANDOM_KEY": "1"},
            f"{P}RANDOM_KEY: there is no such variable; did you mean '{P}RANDOM_KEYS'?; allowed: ",
        ),
    ],
)
def test_errors_say_what_was_found_and_what_is_allowed(environment: dict[str, str], message: str) -> None:
    with pytest.raises(MockOptionsError) as caught:
        options_from({P + name: text for name, text in environment.items()})
    assert str(caught.value).startswith(message)


def test_errors_name_the_option_if_it_was_one() -> None:
    with pytest.raises(MockOptionsError, match="--port: found 'x'; allowed: 0 to 65535"):
        options_from({f"{P}PORT": "1"}, {"--port": "x"})


def test_help_names_every_option_and_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["mock", "--help"])
    text = capsys.readouterr().out
    for option in OPTIONS:
        assert option.flag in text
        assert f"[{option.variable}]" in text
