"""What the configuration file itself says: readable, TOML, keys, values, connectors, devices; and what is
allowed but worth a warning. No network, no other file.

If `parse` refuses the file, the settings that are usable one by one are still handed on, so that broker and
interface can be looked at, too.
"""

from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import fields

from ..messages.config import (
    Config,
    ConfigError,
    ConnectorConfig,
    JournalConfig,
    MqttConfig,
    found_and_allowed,
    of_table,
)
from ..messages.registers import CONNECTOR_OFFSETS
from ..messages.toml_table import TomlError, table_of
from .check_table import Row, error, ok, warning

EVEREST_HEARTBEAT_S = 1.0
DEFAULT_ESN = "0000000000000000"
_MAX_ENTRIES = 2 * len(CONNECTOR_OFFSETS)


class Settings(Struct, frozen=True):
    """What is known of the configuration."""

    config: Config
    """Not checked as a whole if `wrong` is not empty: then it may have no connectors, and the default in the
    place of what is wrong."""
    wrong: frozenset[str] = frozenset()
    """Keys (`psu_port`, `mqtt.host`) whose value in the file cannot be used."""

    def has(self, *keys: str) -> bool:
        """Whether these are as the file (or the default) says."""
        return not self.wrong.intersection(keys)


def check_file(path: Path) -> tuple[list[Row], Settings | None]:
    """The rows about the file's text, and what is known then; None: nothing."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as problem:
        return [error("file", f"{path}: cannot be read: {problem.strerror}")], None
    except UnicodeDecodeError as problem:
        byte = problem.object[problem.start]
        return [error("file", f"{path}: not UTF-8 text: byte {problem.start} is 0x{byte:02x}")], None
    rows = [ok("file", f"{path}: {len(text.encode())} bytes")]
    try:
        table = table_of(text)
    except TomlError as problem:
        return [*rows, error("TOML", str(problem))], None
    rows.append(ok("TOML", "syntax is right"))
    try:
        config = of_table(table, str(path))
    except ConfigError as problem:
        said = [line.removeprefix(f"{path}: ") for line in str(problem).splitlines()]
        settings, wrong = _usable_part(table)
        rows += [error("setting", line) for line in said]
        # parse stops at the first value that it cannot take.
        rows += [
            error("setting", f"{key}: {why}")
            for key, why in wrong.items()
            if not any(line.startswith((f"{key}:", f"{key} is missing")) for line in said)
        ]
        return rows, settings
    rows.append(ok("settings", "every key is known, every value allowed"))
    return rows + _connector_rows(config), Settings(config)


def _usable_part(table: dict[str, object]) -> tuple[Settings, dict[str, str]]:
    """The settings that are allowed by themselves; and those that are not, with the reason."""
    values, wrong = _usable_fields(Config, table, "", skip=("connectors", "mqtt", "journal"))
    tables: list[tuple[str, type[Struct]]] = [("mqtt", MqttConfig), ("journal", JournalConfig)]
    for name, struct in tables:
        part, wrong_here = _usable_fields(struct, table.get(name, {}), f"{name}.")
        values[name] = struct(**part)
        wrong |= wrong_here
    connectors = []
    entries = table.get("connectors")
    # What is wrong with more connectors than there can be need not be told one by one.
    for number, entry in enumerate(entries[:_MAX_ENTRIES] if isinstance(entries, list) else [], 1):
        part, wrong_here = _usable_fields(ConnectorConfig, entry, f"connectors[{number}].")
        wrong |= wrong_here
        if not wrong_here:
            connectors.append(ConnectorConfig(**part))  # type: ignore[arg-type]
    # Not one of them may be missing: what is said of all connectors would be of too few.
    whole = isinstance(entries, list) and len(connectors) == len(entries)
    config = Config(connectors=tuple(connectors) if whole else (), **values)  # type: ignore[arg-type]
    return Settings(config, frozenset(wrong) or frozenset({"connectors"})), wrong


def _usable_fields(
    struct: type[Struct], table: object, where: str, skip: tuple[str, ...] = ()
) -> tuple[dict[str, object], dict[str, str]]:
    values: dict[str, object] = {}
    wrong: dict[str, str] = {}
    if not isinstance(table, dict):
        return {}, {where.rstrip("."): f"found {table!r}; allowed: a table"}
    for field in fields(struct):
        if field.name in skip:
            continue
        if field.name not in table:
            if field.required:
                wrong[where + field.name] = "is missing"
            continue
        try:
            values[field.name] = msgspec.convert(table[field.name], field.type)
        except msgspec.ValidationError as problem:
            wrong[where + field.name] = found_and_allowed(field.name, table[field.name], str(problem))
    return values, wrong


def _connector_rows(config: Config) -> list[Row]:
    numbers = ", ".join(str(connector.global_connector_number) for connector in config.connectors)
    rows = [ok("connectors", f"{len(config.connectors)}; global numbers: {numbers}")]
    for number, connector in enumerate(config.connectors, 1):
        what = f"connector {number}"
        rows.append(ok(what, _devices(connector, takes_meter=config.has_meter(connector))))
        if connector.evse_manager:
            rows.append(warning(what, _missing_by_manager(config, connector)))
    return rows


def _devices(connector: ConnectorConfig, *, takes_meter: bool) -> str:
    manager = f"by {connector.evse_manager}" if connector.evse_manager else "none"
    board = connector.evse_board_support or manager
    isolation = connector.isolation_monitor or manager
    meter = connector.powermeter or (manager if takes_meter else "none")
    return (
        f"power supply: {connector.power_supply_DC}, board: {board}, isolation monitor: {isolation}, "
        f"over-voltage monitor: {connector.over_voltage_monitor or 'none'}, power meter: {meter}"
    )


def _missing_by_manager(config: Config, connector: ConnectorConfig) -> str:
    """What a device that is built into EVerest does not tell (behaviour.md §8.3)."""
    lacks = ["the contactor's status: the power unit reads OFF"]
    if not connector.over_voltage_monitor:
        lacks.append("an over-voltage monitor's voltage")
    if not config.error_history or not connector.evse_board_support:
        lacks.append(
            "the board's alarms (door, water, emergency stop, tilt, contactor): set error_history, and "
            "evse_board_support to the board's module id"
        )
    return f"a board that is built into EVerest does not tell, by {connector.evse_manager}: {'; '.join(lacks)}"


def check_intentions(settings: Settings) -> list[Row]:
    """Settings that are allowed, but not for a dispenser with cars, or without effect."""
    config = settings.config
    said = [*_of_goose(config), *_of_everest(config), *unused_secrets(config)]
    return [warning(key, text) for key, text in said if settings.has(key)]


def _of_goose(config: Config) -> Iterator[tuple[str, str]]:
    if not config.send_secure_goose:
        yield "send_secure_goose", "false: power requests are sent unsigned; for the bench only"
    if not config.verify_secure_goose:
        text = "false: answers are taken without verification; for the bench only"
        if config.allow_insecure_goose:
            text += " (and allow_insecure_goose: unsigned ones, too)"
        yield "verify_secure_goose", text
        if config.goose_replay_protection == "enforce":
            yield "goose_replay_protection", '"enforce" has no effect while verify_secure_goose is false'
    elif config.allow_insecure_goose:
        yield "allow_insecure_goose", "true has no effect while verify_secure_goose is true"


def _of_everest(config: Config) -> Iterator[tuple[str, str]]:
    if config.HACK_publish_requested_voltage_current:
        yield (
            "HACK_publish_requested_voltage_current",
            "true: without a power meter EVerest and the car see what was requested, not what is there",
        )
    elif config.connectors and not any(config.has_meter(connector) for connector in config.connectors):
        yield (
            "powermeter",
            "none, and HACK_publish_requested_voltage_current is false: EVerest gets no voltage and no "
            "current, so that no car can charge",
        )
    if config.everest_timeout_s < 2 * EVEREST_HEARTBEAT_S:
        yield (
            "everest_timeout_s",
            f"{config.everest_timeout_s:g}: one heartbeat that comes late (EVerest sends one a second, if "
            "cfg_heartbeat_interval_ms is not set) switches the power off",
        )
    if config.esn == DEFAULT_ESN:
        yield "esn", "is the default; the power unit shows it as this dispenser's serial number"


def unused_secrets(config: Config) -> Iterator[tuple[str, str]]:
    """Passwords and certificates that are given and not used: the connection is less safe than it looks."""
    if config.mqtt.password_file and not config.mqtt.username:
        yield "mqtt.password_file", "has no effect without mqtt.username"
    if not config.mqtt.tls_enabled:
        files = ("ca_cert", "client_cert", "client_key")
        if unused := [f"mqtt.{key}" for key in files if getattr(config.mqtt, key)]:
            yield "mqtt.tls_enabled", f"false: {', '.join(unused)} without effect"
    if not config.tls_enabled:
        keys = ("psu_ca_cert", "client_cert", "client_key", "psu_cert_hostname")
        if unused := [key for key in keys if getattr(config, key)]:
            yield "tls_enabled", f"false: {', '.join(unused)} without effect"
