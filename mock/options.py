"""What the mock can be told at its start: options and environment variables, checked (docs/mock.md).

    --port 0  ─┐
               ├─► Given("--port", "0") ──► checked value ──► MockOptions
    …_PORT=0  ─┘   the option wins

Rules:
- Each option has a variable. A variable with the prefix that is none of them is an error: it would be a typo.
- Errors say the name that the user wrote (option or variable), the value found and what is allowed.
- Everything is checked before anything starts; files too, but for the certificates, which io/tls.py examines.
"""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from ..messages.types import PsuRunningMode
from .commands import CommandError, alarm_value, nearest, rating_value
from .psu_state import FIRST_ROUND_WITH_RATINGS, RATING_REGISTERS, RATINGS, PlaceholderPolicy, PsuState
from .scenario import Scenario, ScenarioError, read_scenario

PREFIX = "FUSION_CHARGER_MOCK_"


class Option(Struct, frozen=True):
    """A row of the table from which command line and environment are read."""

    flag: str
    """On the command line; CERT_DIR is positional."""
    variable: str
    """Without the prefix."""
    help: str
    metavar: str = ""
    """Empty for a switch."""
    repeatable: bool = False
    """Several values; in the variable separated by commas."""


OPTIONS: tuple[Option, ...] = (
    Option("CERT_DIR", "CERT_DIR", "TLS with dispenser_ca.crt.pem, psu.crt.pem, psu.key.pem from here", "DIR"),
    Option("--interface", "ETH", "GOOSE interface, or udp:LOCAL for UDP on 127.0.0.1 (veth0)", "NAME"),
    Option("--port", "PORT", "Modbus port, 0 for any (8502)", "PORT"),
    Option("--events", "EVENTS", "write one JSON object per event to FILE, - for standard output", "FILE"),
    Option("--disable-send-hmac", "DISABLE_SEND_HMAC", "send plain GOOSE"),
    Option("--disable-verify-hmac", "DISABLE_VERIFY_HMAC", "accept wrongly signed and plain GOOSE"),
    Option("--random-keys", "RANDOM_KEYS", "a new random key for each plug-in, as a real PSU"),
    Option("--placeholder", "PLACEHOLDER", "module placeholder requests: answer, refuse, withhold", "WHAT"),
    Option("--running-mode", "RUNNING_MODE", "running mode at start (RUNNING)", "MODE"),
    Option(
        "--rating",
        "RATING",
        f"a rating: {', '.join(RATING_REGISTERS)} (V, A, kW); repeatable",
        "NAME=VALUE",
        repeatable=True,
    ),
    Option("--ratings-at-once", "RATINGS_AT_ONCE", "ratings in the first round, not 10 s after the connect"),
    Option(
        "--alarm",
        "ALARM",
        "an alarm that is raised from the start, as PowerUnit/Water; repeatable",
        "NAME[=VALUE]",
        repeatable=True,
    ),
    Option("--scenario", "SCENARIO", "what to do when, as a TOML file", "FILE"),
    Option("--control", "CONTROL", "-: commands on standard input, one JSON object a line", "-"),
    Option("--mqtt-host", "MQTT_HOST", "publish the power requests: broker (with --mqtt-port)", "HOST"),
    Option("--mqtt-port", "MQTT_PORT", "publish the power requests: port of the broker", "PORT"),
    Option(
        "--mqtt-base-topic",
        "MQTT_BASE_TOPIC",
        "publish the power requests under (fusion_charger_mock/)",
        "TOPIC",
    ),
)


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
    interface_from: str = "--interface"
    """What the user calls it."""
    port: int = 8502
    """Modbus; 0 for any free one."""
    cert_dir: str | None = None
    """With TLS."""
    events: str = ""
    """For event_log.py."""
    control: bool = False
    """Commands come on standard input."""
    send_hmac: bool = True
    """False: replies are plain frames."""
    verify_hmac: bool = True
    """False: wrongly signed and plain frames are taken too."""
    random_keys: bool = False
    placeholder: PlaceholderPolicy = PlaceholderPolicy.ANSWER
    running_mode: PsuRunningMode = PsuRunningMode.RUNNING
    ratings: dict[str, float] = {}
    """By register: what differs from psu_state.RATINGS."""
    ratings_at_once: bool = False
    alarms: dict[str, int] = {}
    """By name."""
    scenario: Scenario = Scenario()
    mqtt: MqttOptions | None = None

    def psu_state(self, mac: bytes) -> PsuState:
        """What the PSU is at the start; `mac` is its own on the GOOSE interface."""
        return PsuState(
            mac=mac,
            running_mode=self.running_mode,
            ratings=RATINGS | self.ratings,
            first_round_with_ratings=1 if self.ratings_at_once else FIRST_ROUND_WITH_RATINGS,
            alarms=dict(self.alarms),
            placeholder=self.placeholder,
        )


class _Given(Struct, frozen=True):
    name: str
    """The option or the variable, as the user wrote it."""
    text: str


class _Sources:
    """Options and variables, one question."""

    def __init__(self, environment: Mapping[str, str], arguments: Mapping[str, str | Sequence[str]]) -> None:
        self._environment = environment
        self._arguments = arguments
        known = [PREFIX + option.variable for option in OPTIONS]
        for name in sorted(environment):
            if name.startswith(PREFIX) and name not in known:
                msg = f"{name}: there is no such variable{nearest(name, known)}; allowed: {', '.join(known)}"
                raise MockOptionsError(msg)

    def all(self, flag: str) -> list[_Given]:
        """Each value that was given."""
        option = next(option for option in OPTIONS if option.flag == flag)
        argument = self._arguments.get(flag)
        if argument is not None:
            texts = [argument] if isinstance(argument, str) else argument
            return [_Given(flag, text) for text in texts]
        text = self._environment.get(PREFIX + option.variable)
        if text is None:
            return []
        texts = [part.strip() for part in text.split(",") if part.strip()] if option.repeatable else [text]
        return [_Given(PREFIX + option.variable, part) for part in texts]

    def one(self, flag: str) -> _Given | None:
        """The value, if one was given."""
        return next(iter(self.all(flag)), None)

    def text(self, flag: str, default: str) -> str:
        """The value as it is."""
        given = self.one(flag)
        return default if given is None else given.text

    def switch(self, flag: str) -> bool:
        """Whether it is on."""
        match self.one(flag):
            case None | _Given(text="0" | "false"):
                return False
            case _Given(text="1" | "true"):
                return True
            case given:
                raise _refused(given, "1, true, 0, false")

    def choice(self, flag: str, allowed: Sequence[str]) -> str | None:
        """One of several names."""
        given = self.one(flag)
        if given is not None and given.text not in allowed:
            raise _refused(given, ", ".join(allowed), nearest(given.text, allowed))
        return None if given is None else given.text


def options_from(
    environment: Mapping[str, str], arguments: Mapping[str, str | Sequence[str]] | None = None
) -> MockOptions:
    """The options that the command line and the environment set. MockOptionsError.

    `arguments` is by flag, with switches as "1" and "0".
    """
    given = _Sources(environment, arguments or {})
    defaults = MockOptions()
    interface = given.one("--interface")
    port = given.one("--port")
    control = given.choice("--control", ["-"])
    placeholder = given.choice("--placeholder", [policy.value for policy in PlaceholderPolicy])
    running_mode = given.choice("--running-mode", [mode.name for mode in PsuRunningMode])
    return MockOptions(
        interface=defaults.interface if interface is None else interface.text,
        interface_from=defaults.interface_from if interface is None else interface.name,
        port=defaults.port if port is None else _port_number(port, lowest=0),
        cert_dir=given.text("CERT_DIR", "") or None,
        events=given.text("--events", defaults.events),
        control=control is not None,
        send_hmac=not given.switch("--disable-send-hmac"),
        verify_hmac=not given.switch("--disable-verify-hmac"),
        random_keys=given.switch("--random-keys"),
        placeholder=defaults.placeholder if placeholder is None else PlaceholderPolicy(placeholder),
        running_mode=defaults.running_mode if running_mode is None else PsuRunningMode[running_mode],
        ratings=dict(map(_rating, given.all("--rating"))),
        ratings_at_once=given.switch("--ratings-at-once"),
        alarms={name: value for name, value in map(_alarm, given.all("--alarm")) if value},
        scenario=_scenario(given.one("--scenario")),
        mqtt=_mqtt(given),
    )


def _refused(given: _Given, allowed: str, hint: str = "") -> MockOptionsError:
    return MockOptionsError(f"{given.name}: found {given.text!r}{hint}; allowed: {allowed}")


def _port_number(given: _Given, *, lowest: int) -> int:
    number = int(given.text) if given.text.isascii() and given.text.isdigit() else -1
    if not lowest <= number <= 65535:
        raise _refused(given, f"{lowest} to 65535")
    return number


def _rating(given: _Given) -> tuple[str, float]:
    """Its register and value."""
    name, _, text = given.text.partition("=")
    try:
        value = float(text)
    except ValueError:
        raise _refused(given, f"NAME=VALUE with a number, NAME of {', '.join(RATING_REGISTERS)}") from None
    try:
        rating_value(name, value)
    except CommandError as error:
        raise MockOptionsError(f"{given.name}: {error}") from None  # noqa: EM102, TRY003
    return RATING_REGISTERS[name], value


def _alarm(given: _Given) -> tuple[str, int]:
    name, has_value, text = given.text.partition("=")
    try:
        value = int(text, 0) if has_value else 1
    except ValueError:
        raise _refused(given, "NAME or NAME=VALUE, with an integer as 1 or 0x80") from None
    try:
        alarm_value(name, value)
    except CommandError as error:
        raise MockOptionsError(f"{given.name}: {error}") from None  # noqa: EM102, TRY003
    return name, value


def _scenario(given: _Given | None) -> Scenario:
    if given is None:
        return Scenario()
    try:
        return read_scenario(given.text)
    except ScenarioError as error:
        raise MockOptionsError(f"{given.name}: {error}") from None  # noqa: EM102, TRY003


def _mqtt(given: _Sources) -> MqttOptions | None:
    host, port = given.one("--mqtt-host"), given.one("--mqtt-port")
    if host is None and port is None:
        return None
    if host is None or port is None or not host.text:
        found = [None if one is None else one.text for one in (host, port)]
        names = f"--mqtt-host and --mqtt-port ({PREFIX}MQTT_HOST and {PREFIX}MQTT_PORT)"
        msg = f"{names}: found {found[0]!r} and {found[1]!r}; allowed: both or none"
        raise MockOptionsError(msg)
    base_topic = given.one("--mqtt-base-topic")
    if base_topic is not None and any(character in base_topic.text for character in "+#\0"):
        raise _refused(base_topic, "an MQTT topic without + or #")
    topic = "fusion_charger_mock/" if base_topic is None else base_topic.text
    return MqttOptions(host.text, _port_number(port, lowest=1), topic)
