"""The configuration: what a TOML file may say, checked (docs/configuration.md).

`parse(text, name)` is pure. Every error names the file, the key, the value found and what is allowed.
"""

import difflib
import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from .registers import CONNECTOR_OFFSETS
from .toml_table import TomlError, table_of

AllocationTimeout = Annotated[float, Meta(ge=0.001, le=3600)]
Current = Annotated[float, Meta(gt=0, le=10_000)]
Power = Annotated[float, Meta(gt=0, le=10_000_000)]
ModuleId = Annotated[str, Meta(pattern=r"^[^/+#\x00-\x1f]+\Z", max_length=1000)]
OptionalModuleId = Annotated[str, Meta(pattern=r"^[^/+#\x00-\x1f]*\Z", max_length=1000)]
ReplayProtection = Literal["off", "observe", "enforce"]
Version = Annotated[int, Meta(ge=0, le=0xFFFF)]
Port = Annotated[int, Meta(ge=1, le=65535)]
TopicPart = Annotated[str, Meta(pattern=r"^[^+#\x00-\x1f]*\Z", max_length=1000)]
"""A topic has 65535 bytes at most; and `$` would let a line end pass, which `\\Z` does not."""


class ConfigError(Exception):
    """The configuration is not usable. The text is for the user, one problem a line."""


class MqttConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """[mqtt]: the broker that EVerest uses."""

    host: Annotated[str, Meta(min_length=1)] = "localhost"
    port: Port = 1883
    username: str = ""
    password_file: str = ""
    """File whose first line is the password; its content never enters a configuration or a log."""
    tls_enabled: bool = False
    ca_cert: str = ""
    """PEM file of the CA that the broker's certificate has to chain to; that has to be for `host`."""
    client_cert: str = ""
    client_key: str = ""
    """Our own, for a broker that asks for one; both or none."""
    topic_prefix: TopicPart = ""
    """Put before everest_api/1/…, as it is."""


class JournalConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """[journal]: where the recording goes."""

    dir: Annotated[str, Meta(min_length=1)] = "./sessions"
    segment_MiB: Annotated[int, Meta(ge=1, le=1024)] = 64  # noqa: N815 - unit as it is written
    """A new file is begun when the present one has this size, not compressed, …"""
    segment_hours: Annotated[float, Meta(gt=0, le=168)] = 24
    """… or this age."""
    keep_GiB: Annotated[float, Meta(ge=0, le=100_000)] = 4  # noqa: N815
    """The oldest files are deleted when all have more than this; 0: none is."""
    keep_days: Annotated[float, Meta(ge=0, le=100_000)] = 0
    """Files older than this are deleted; 0: none is."""


class ConnectorConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """[[connectors]]: one connector; its place in the list is its local number."""

    global_connector_number: Annotated[int, Meta(ge=1, le=12)]
    max_export_current_A: Current  # noqa: N815 - unit as EVerest writes it
    max_export_power_W: Power  # noqa: N815
    power_supply_DC: ModuleId  # noqa: N815 - the API's name
    evse_board_support: OptionalModuleId = ""
    isolation_monitor: OptionalModuleId = ""
    over_voltage_monitor: OptionalModuleId = ""
    powermeter: OptionalModuleId = ""
    evse_manager: OptionalModuleId = ""
    """An evse_manager_consumer_API, for devices that are built into EVerest (behaviour.md §8.3)."""

    @property
    def measures_isolation(self) -> bool:
        """Whether something tells the isolation monitor's voltage."""
        return bool(self.isolation_monitor or self.evse_manager)


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole configuration file."""

    connectors: Annotated[tuple[ConnectorConfig, ...], Meta(min_length=1, max_length=len(CONNECTOR_OFFSETS))]
    ethernet_interface: Annotated[str, Meta(min_length=1)] = "eth0"
    psu_ip: Annotated[str, Meta(min_length=1)] = "192.168.11.1"
    psu_port: Port = 502
    tls_enabled: bool = False
    psu_ca_cert: str = ""
    client_cert: str = ""
    client_key: str = ""
    psu_cert_hostname: str = ""
    """The host name that the PSU's certificate has to be for; "": not checked (protocol.md §2.3)."""
    module_placeholder_allocation_timeout_s: AllocationTimeout = 5.0
    modbus_timeout_s: Annotated[float, Meta(ge=1, le=120)] = 60.0
    esn: Annotated[str, Meta(max_length=22, pattern=r"^[\x20-\x7e]*\Z")] = "0000000000000000"
    send_secure_goose: bool = True
    allow_insecure_goose: bool = False
    verify_secure_goose: bool = True
    goose_replay_protection: ReplayProtection = "observe"
    """What becomes of received frames that look played again: nothing, counted, or dropped and counted."""
    goose_vlan_id: Annotated[int, Meta(ge=0, le=4094)] = 0
    goose_vlan_priority: Annotated[int, Meta(ge=0, le=7)] = 5
    telemetry_topic_prefix: Annotated[
        str, Meta(pattern=r"^([^+#\x00-\x1f]*[^+#/\x00-\x1f])?\Z", max_length=1000)
    ] = ""
    HACK_publish_requested_voltage_current: bool = False
    HACK_use_ovm_while_cable_check: bool = False
    upstream_voltage_source: Literal["IMD", "OVM"] = "IMD"
    protocol_version: Version = 1
    hardware_version: Version = 1
    software_version: Annotated[str, Meta(max_length=48, pattern=r"^[\x20-\x7e]*\Z")] = ""
    """"" stands for the package's version."""
    everest_timeout_s: Annotated[float, Meta(ge=1, le=30)] = 5.0
    error_history: OptionalModuleId = ""
    """An error_history_consumer_API: the errors of boards that are built into EVerest (behaviour.md §8.3)."""
    mqtt: MqttConfig = MqttConfig()
    journal: JournalConfig = JournalConfig()

    def has_meter(self, connector: ConnectorConfig) -> bool:
        """Whether a car-side power meter is taken for the connector. The one behind evse_manager is not, where
        HACK_publish_requested_voltage_current says that there is none."""
        by_manager = bool(connector.evse_manager) and not self.HACK_publish_requested_voltage_current
        return bool(connector.powermeter) or by_manager


_MAX_UNKNOWN_KEYS = 20
"""So many are named: a file with a million of them is no configuration, and finding the nearest takes time."""

# Said instead of a regular expression, or of one bound of a range.
_ALLOWED = {
    "psu_port": "a TCP port, 1 to 65535",
    "port": "a TCP port, 1 to 65535",
    "modbus_timeout_s": "1 to 120 s",
    "everest_timeout_s": "1 to 30 s",
    "module_placeholder_allocation_timeout_s": "0.001 to 3600 s",
    "goose_replay_protection": '"off", "observe" (count them) or "enforce" (drop them)',
    "goose_vlan_id": "0 to 4094",
    "goose_vlan_priority": "0 to 7",
    "protocol_version": "0 to 65535",
    "hardware_version": "0 to 65535",
    "global_connector_number": "1 to 12",
    "max_export_current_A": "more than 0, up to 10000 A",
    "max_export_power_W": "more than 0, up to 10000000 W",
    "esn": "text in quotes, at most 22 printable ASCII characters",
    "software_version": "at most 48 printable ASCII characters",
    "telemetry_topic_prefix": "an MQTT topic without a trailing slash, + or #",
    "topic_prefix": "the beginning of an MQTT topic, without + or #",
    "power_supply_DC": "an EVerest module id (not empty, no /, + or #)",
    "evse_board_support": "an EVerest module id (no /, + or #)",
    "evse_manager": "an EVerest module id (no /, + or #)",
    "error_history": "an EVerest module id (no /, + or #)",
    "upstream_voltage_source": '"IMD" (isolation monitor) or "OVM" (over-voltage monitor)',
    "isolation_monitor": "an EVerest module id (no /, + or #)",
    "over_voltage_monitor": "an EVerest module id (no /, + or #)",
    "powermeter": "an EVerest module id (no /, + or #)",
    "segment_MiB": "1 to 1024 MiB",
    "segment_hours": "more than 0, up to 168 h",
    "keep_GiB": "0 (all) to 100000 GiB",
    "keep_days": "0 (for ever) to 100000 days",
    "connectors": f"1 to {len(CONNECTOR_OFFSETS)} tables [[connectors]]",
}


# msgspec's words as a user's.
_KINDS = {
    "bool": "true or false",
    "str": 'text, in quotes: "…"',
    "str of length >= 1": "text that is not empty",
    "object": "a table",
    "int": "a whole number",
    "float": "a number",
}


def _as_toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def parse(text: str, name: str) -> Config:
    """The configuration that `text` (TOML) holds. `name` is the file's, for the errors. ConfigError."""
    try:
        table = table_of(text)
    except TomlError as error:
        msg = f"{name}: not valid TOML: {error}"
        raise ConfigError(msg) from None
    return of_table(table, name)


def of_table(table: dict[str, Any], name: str) -> Config:
    """The configuration that a table (as TOML gives it) holds. `name` is for the errors. ConfigError."""
    problems = _unknown_keys(table)
    if problems:
        raise ConfigError("\n".join(f"{name}: {problem}" for problem in problems))
    try:
        config = msgspec.convert(table, Config)
    except msgspec.ValidationError as error:
        msg = f"{name}: {_explain(str(error), table)}"
        raise ConfigError(msg) from None
    problems = _contradictions(config)
    if problems:
        raise ConfigError("\n".join(f"{name}: {problem}" for problem in problems))
    return config


def _unknown_keys(table: dict[str, Any]) -> list[str]:
    """Keys that no table has, each with the nearest one that there is."""
    places: list[tuple[str, object, type[Struct]]] = [("", table, Config)]
    places += [("mqtt.", table.get("mqtt"), MqttConfig), ("journal.", table.get("journal"), JournalConfig)]
    connectors = table.get("connectors")
    if isinstance(connectors, list):
        places += [(f"connectors[{n}].", entry, ConnectorConfig) for n, entry in enumerate(connectors, 1)]
    problems: list[str] = []
    for where, entry, struct in places:
        if not isinstance(entry, dict):
            continue
        known = struct.__struct_fields__
        for key in entry:
            if key not in known and len(problems) < _MAX_UNKNOWN_KEYS:
                near = difflib.get_close_matches(key, known, 1)
                hint = f"; did you mean {near[0]}?" if near else f"; known here: {', '.join(known)}"
                problems.append(f"unknown key {where}{key}{hint}")
    return problems


def _explain(error: str, table: dict[str, Any]) -> str:
    """msgspec's `Expected … - at `$.connectors[0].x`` as: key, value found, what is allowed."""
    wanted, _, path = error.partition(" - at `$")
    path = path.rstrip("`")
    missing = re.fullmatch(r"Object missing required field `(.+)`", wanted)
    found: object = table
    shown = ""
    for key, index in re.findall(r"\.(\w+)|\[(\d+)\]", path):
        if key:
            found = found.get(key) if isinstance(found, dict) else found
            shown += f".{key}"
        else:
            found = found[int(index)] if isinstance(found, list) else found
            shown += f"[{int(index) + 1}]"
    shown = shown.lstrip(".")
    if missing:
        key = f"{shown}.{missing[1]}" if shown else missing[1]
        allowed = _ALLOWED.get(missing[1])
        return f"{key} is missing" + (f"; needed: {allowed}" if allowed else "")
    return f"{shown}: {found_and_allowed(shown.rpartition('.')[2], found, wanted)}"


def found_and_allowed(key: str, found: object, error: str) -> str:
    """What is wrong with the value of a key, for the user; `error` is msgspec's text about it."""
    wanted = error.removeprefix("Expected ").replace("`", "").partition(",")[0]
    allowed = _ALLOWED.get(key) or _KINDS.get(wanted, wanted)
    return f"found {_as_toml(found)}; allowed: {allowed}"


_DEVICES = (
    "power_supply_DC",
    "evse_board_support",
    "isolation_monitor",
    "over_voltage_monitor",
    "powermeter",
    "evse_manager",
)


def _contradictions(config: Config) -> list[str]:
    """What is wrong although every single value is allowed."""
    return [*_used_twice(config), *_missing_devices(config), *_missing_certificates(config)]


def _used_twice(config: Config) -> list[str]:
    """Numbers and modules that two connectors claim."""
    problems: list[str] = []
    numbers: dict[int, int] = {}
    ids: dict[tuple[str, str], int] = {}
    for n, connector in enumerate(config.connectors, 1):
        number = connector.global_connector_number
        if number in numbers:
            problems.append(
                f"connectors[{n}].global_connector_number: found {number}, which connectors[{numbers[number]}] "
                "has already; allowed: 1 to 12, each once"
            )
        numbers.setdefault(number, n)
        for api in _DEVICES:
            module_id = getattr(connector, api)
            if module_id and (api, module_id) in ids:
                problems.append(
                    f"connectors[{n}].{api}: found {module_id!r}, which connectors[{ids[api, module_id]}] "
                    "has already; allowed: a module of its own for each connector"
                )
            ids.setdefault((api, module_id), n)
    return problems


def _missing_devices(config: Config) -> list[str]:
    """Measurements and events that a setting calls for and no device gives (behaviour.md §5, §8.3)."""
    problems: list[str] = []
    for n, connector in enumerate(config.connectors, 1):
        where = f"connectors[{n}]"
        if not connector.evse_board_support and not connector.evse_manager:
            problems.append(
                f"{where}: evse_board_support is missing (or evse_manager, for a board that is built into "
                "EVerest); without it no car is ever seen"
            )
        if config.error_history and not connector.evse_board_support:
            problems.append(
                f"{where}: evse_board_support is missing; needed to know which of error_history's errors are "
                "this connector's: the module id of its board"
            )
        if config.upstream_voltage_source == "IMD" and not connector.measures_isolation:
            problems.append(
                f'{where}: isolation_monitor is missing; upstream_voltage_source = "IMD" needs one (or an '
                "evse_manager) for every connector"
            )
        if config.upstream_voltage_source == "OVM" and not connector.over_voltage_monitor:
            problems.append(
                f'{where}: over_voltage_monitor is missing; upstream_voltage_source = "OVM" needs one for '
                "every connector"
            )
        if config.HACK_use_ovm_while_cable_check and not connector.over_voltage_monitor:
            problems.append(
                f"{where}: over_voltage_monitor is missing; HACK_use_ovm_while_cable_check needs one for every "
                "connector"
            )
    metered = [config.has_meter(connector) for connector in config.connectors]
    if any(metered) and not all(metered):
        without = ", ".join(f"connectors[{n}]" for n, has in enumerate(metered, 1) if not has)
        problems.append(f"powermeter is missing in {without}; allowed: for all connectors or for none")
    return problems


def _missing_certificates(config: Config) -> list[str]:
    problems = []
    if config.tls_enabled:
        problems = [
            f"{key} is missing; tls_enabled = true needs it (PEM file; `fusioncharger certs DIR` makes a set)"
            for key in ("psu_ca_cert", "client_cert", "client_key")
            if not getattr(config, key)
        ]
    if not config.mqtt.tls_enabled:
        return problems
    if not config.mqtt.ca_cert:
        problems.append(
            "mqtt.ca_cert is missing; mqtt.tls_enabled = true needs it (PEM file of the CA that signed the "
            "broker's certificate)"
        )
    own = {"client_cert": config.mqtt.client_cert, "client_key": config.mqtt.client_key}
    missing = [key for key, path in own.items() if not path]
    if len(missing) == 1:
        problems.append(f"mqtt.{missing[0]} is missing; allowed: mqtt.client_cert and mqtt.client_key, or none")
    return problems
