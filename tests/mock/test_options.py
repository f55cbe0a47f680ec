"""The mock's environment variables."""

import pytest
from fusioncharger.mock.options import MockOptions, MockOptionsError, MqttOptions, options_from

P = "FUSION_CHARGER_MOCK_"


def test_defaults() -> None:
    assert options_from({}) == MockOptions("veth0", 8502, send_hmac=True, verify_hmac=True, mqtt=None)


def test_every_variable() -> None:
    environment = {
        f"{P}ETH": "eth1",
        f"{P}PORT": "0",
        f"{P}DISABLE_SEND_HMAC": "true",
        f"{P}DISABLE_VERIFY_HMAC": "1",
        f"{P}MQTT_HOST": "broker",
        f"{P}MQTT_PORT": "1883",
        f"{P}MQTT_BASE_TOPIC": "psu",
    }
    assert options_from(environment) == MockOptions(
        "eth1", 0, send_hmac=False, verify_hmac=False, mqtt=MqttOptions("broker", 1883, "psu")
    )


@pytest.mark.parametrize(("text", "sends"), [("0", True), ("false", True), ("1", False), ("true", False)])
def test_flags(text: str, *, sends: bool) -> None:
    assert options_from({f"{P}DISABLE_SEND_HMAC": text}).send_hmac is sends


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({f"{P}DISABLE_SEND_HMAC": "yes"}, f"{P}DISABLE_SEND_HMAC: found 'yes'; allowed: 1, true, 0, false"),
        ({f"{P}DISABLE_VERIFY_HMAC": ""}, f"{P}DISABLE_VERIFY_HMAC: found ''; allowed: 1, true, 0, false"),
        ({f"{P}PORT": "65536"}, f"{P}PORT: found '65536'; allowed: 0 to 65535"),
        ({f"{P}PORT": "-1"}, f"{P}PORT: found '-1'; allowed: 0 to 65535"),
        ({f"{P}PORT": "²"}, f"{P}PORT: found '²'; allowed: 0 to 65535"),
        (
            {f"{P}MQTT_HOST": "h"},
            f"{P}MQTT_HOST and {P}MQTT_PORT: found 'h' and None; allowed: both or none",
        ),
        (
            {f"{P}MQTT_PORT": "1"},
            f"{P}MQTT_HOST and {P}MQTT_PORT: found None and '1'; allowed: both or none",
        ),
        (
            {f"{P}MQTT_HOST": "h", f"{P}MQTT_PORT": "0"},
            f"{P}MQTT_PORT: found '0'; allowed: 1 to 65535",
        ),
        (
            {f"{P}MQTT_HOST": "h", f"{P}MQTT_PORT": "1", f"{P}MQTT_BASE_TOPIC": "a/#"},
            f"{P}MQTT_BASE_TOPIC: found 'a/#'; allowed: an MQTT topic without + or #",
        ),
    ],
)
def test_errors_say_what_was_found_and_what_is_allowed(environment: dict[str, str], message: str) -> None:
    with pytest.raises(MockOptionsError) as caught:
        options_from(environment)
    assert str(caught.value) == message
