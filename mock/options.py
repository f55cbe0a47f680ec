"""What the mock can be told: the environment variables of behaviour.md §9, checked."""

from collections.abc import Mapping

from msgspec import Struct

PREFIX = "FUSION_CHARGER_MOCK_"


class MockOptionsError(Exception):
    """An option is not usable. The text is for the user: name, value found, what is allowed."""


class MqttOptions(Struct, frozen=True):
    """Where the requested power is published."""

    host: str
    port: int
    base_topic: str


class MockOptions(Struct, frozen=True):
    """The mock's options."""

    interface: str = "veth0"
    """For io/goose_port.py."""
    port: int = 8502
    """Modbus; 0 for any free one."""
    send_hmac: bool = True
    """False: replies are plain frames."""
    verify_hmac: bool = True
    """False: wrongly signed and plain frames are taken too."""
    mqtt: MqttOptions | None = None


def options_from(environment: Mapping[str, str]) -> MockOptions:
    """The options that the environment sets. MockOptionsError."""
    defaults = MockOptions()
    return MockOptions(
        interface=environment.get(f"{PREFIX}ETH", defaults.interface),
        port=port_number(f"{PREFIX}PORT", environment.get(f"{PREFIX}PORT", str(defaults.port)), lowest=0),
        send_hmac=not _flag(environment, f"{PREFIX}DISABLE_SEND_HMAC"),
        verify_hmac=not _flag(environment, f"{PREFIX}DISABLE_VERIFY_HMAC"),
        mqtt=_mqtt(environment),
    )


def port_number(name: str, text: str, *, lowest: int) -> int:
    """The number of a TCP port. MockOptionsError that names `name`."""
    number = int(text) if text.isascii() and text.isdigit() else -1
    if not lowest <= number <= 65535:
        msg = f"{name}: found {text!r}; allowed: {lowest} to 65535"
        raise MockOptionsError(msg)
    return number


def _flag(environment: Mapping[str, str], name: str) -> bool:
    match environment.get(name, "0"):
        case "1" | "true":
            return True
        case "0" | "false":
            return False
        case other:
            msg = f"{name}: found {other!r}; allowed: 1, true, 0, false"
            raise MockOptionsError(msg)


def _mqtt(environment: Mapping[str, str]) -> MqttOptions | None:
    host = environment.get(f"{PREFIX}MQTT_HOST")
    port = environment.get(f"{PREFIX}MQTT_PORT")
    if host is None and port is None:
        return None
    if not host or port is None:
        msg = f"{PREFIX}MQTT_HOST and {PREFIX}MQTT_PORT: found {host!r} and {port!r}; allowed: both or none"
        raise MockOptionsError(msg)
    base_topic = environment.get(f"{PREFIX}MQTT_BASE_TOPIC", "fusion_charger_mock/")
    if any(character in base_topic for character in "+#\0"):
        msg = f"{PREFIX}MQTT_BASE_TOPIC: found {base_topic!r}; allowed: an MQTT topic without + or #"
        raise MockOptionsError(msg)
    return MqttOptions(host, port_number(f"{PREFIX}MQTT_PORT", port, lowest=1), base_topic)
