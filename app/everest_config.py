"""The driver's configuration made from EVerest's: the settings of the module that this driver replaces, and the
devices that it is connected to (docs/everest.md).

The settings have the same names there and here. What has no counterpart becomes a comment, and a note.
"""

import difflib
import json
import re
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct
from msgspec.structs import fields

from ..messages.config import Config, ConfigError, parse
from .check_everest_devices import (
    BOARD,
    KINDS,
    METER,
    OVER_VOLTAGE,
    Device,
    Devices,
    consumer_of,
    error_history_of,
    find_devices,
    managers_of,
)
from .check_everest_yaml import Mapping, Scalar, Value
from .check_toml import comment_text, quoted, toml_value

_SETTINGS: dict[str, type] = {
    field.name: type(field.default)
    for field in fields(Config)
    if isinstance(field.default, (bool, int, float, str))
    and field.name not in {"error_history", "everest_timeout_s", "goose_replay_protection"}
}
"""Names that the original has, too, and what they take."""
_CONNECTOR_SETTINGS: dict[str, type] = {
    "global_connector_number": int,
    "max_export_current_A": float,
    "max_export_power_W": float,
}
_MAX_CONNECTORS = 12
"""Of a power unit. A dispenser has fewer, which `parse` sees to."""
_SHOWN_DEFAULTS = ("ethernet_interface", "psu_ip", "psu_port", "esn", "tls_enabled")
_NULLS = ("", "~", "null", "Null", "NULL")
_BROKER_SETTINGS = {
    "mqtt_broker_host": "host",
    "mqtt_broker_port": "port",
    "mqtt_external_prefix": "topic_prefix",
}


class Migration(Struct, frozen=True):
    """The result."""

    toml: str
    notes: list[str]
    """What needs a look."""
    problems: list[str]
    """What keeps the driver from starting with it."""


def migrate(root: Mapping, module_id: str, file_name: str) -> Migration:
    """The configuration for the driver that replaces the module `module_id`, which is there."""
    modules = root.mapping("active_modules")
    module = modules.mapping(module_id)
    notes: list[str] = []
    implementations = _implementations(modules, module_id, notes)
    found = find_devices(modules, module_id, implementations, notes)
    supplies = _supplies(modules, implementations)
    error_history = error_history_of(modules)
    writer = _Writer(notes)
    hack = module.mapping("config_module").text("HACK_publish_requested_voltage_current")
    has_hack = hack.lower() in {"true", "yes", "on"}
    lines = [
        f"# From {comment_text(file_name)}, module {comment_text(module_id)}. Look through it, then:",
        "# fusioncharger check --config FILE",
        "",
        *_top_level(module.mapping("config_module"), writer),
    ]
    if any(_is_native(devices.found.get(BOARD.key), BOARD.api_module) for devices in found.values()):
        lines += _error_history_lines(error_history, notes)
    lines += ["", "[mqtt]", *_broker_lines(root.mapping("settings"), writer)]
    lines += ["", "[journal]", '# dir = "/var/lib/fusioncharger/sessions"    # default: ./sessions']
    for number, implementation in enumerate(implementations, 1):
        settings = module.mapping("config_implementation").mapping(implementation)
        lines += ["", f"[[connectors]]    # {comment_text(implementation)}"]
        lines += writer.settings(settings, _CONNECTOR_SETTINGS, implementation)
        lines.append(
            f"power_supply_DC = {quoted(supplies[implementation])}    # power_supply_DC_API, to be added to "
            "EVerest's configuration"
        )
        lines += _device_lines(modules, number, found[implementation], notes, has_hack=has_hack)
    toml = "\n".join(lines) + "\n"
    notes += [
        f"in EVerest's configuration: add {supply}, a power_supply_DC_API, and connect powersupply_DC of "
        f"{found[implementation].manager or f'the EvseManager of {implementation}'} to it"
        for implementation, supply in supplies.items()
    ]
    notes.append(f"in EVerest's configuration: then remove {module_id}")
    return Migration(toml, notes, _problems(toml, implementations, module_id))


def _problems(toml: str, implementations: list[str], module_id: str) -> list[str]:
    if not implementations:
        return [
            f"module {module_id} has no connector: neither config_implementation nor a powersupply_DC names one"
        ]
    try:
        config = parse(toml, "result")
    except ConfigError as problem:
        return [line.removeprefix("result: ") for line in str(problem).splitlines()]
    return [] if config.connectors else ["no connectors"]


def _implementations(modules: Mapping, module_id: str, notes: list[str]) -> list[str]:
    """The connectors' implementation ids, in the order of their numbers."""
    configured = modules.mapping(module_id).mapping("config_implementation")
    used = managers_of(modules, module_id)
    connectors = dict.fromkeys(used)
    for implementation in configured.entries:
        if (
            implementation in used
            or configured.mapping(implementation).entries.keys() & _CONNECTOR_SETTINGS.keys()
        ):
            connectors[implementation] = None
        else:
            notes.append(f"config_implementation.{implementation}: not known here, left out")
    ordered = sorted(connectors, key=lambda name: (_number(name), name))
    if len(ordered) > _MAX_CONNECTORS:  # each is looked up in all modules
        notes.append(f"{len(ordered)} connectors: those after number {_MAX_CONNECTORS} are left out")
        ordered = ordered[:_MAX_CONNECTORS]
    for place, implementation in enumerate(ordered, 1):
        if implementation not in used:
            notes.append(f"{implementation}: no EvseManager's powersupply_DC is connected to it; leave it out?")
        if _number(implementation) not in {0, place}:
            notes.append(
                f"{implementation} is number {place} here: the power unit addresses connectors by their place "
                "in the file. Is that how it is wired?"
            )
    return ordered


def _number(implementation: str) -> int:
    digits = re.search(r"([0-9]{1,9})$", implementation)
    return int(digits[1]) if digits else 0


class _Writer:
    """TOML lines of settings."""

    def __init__(self, notes: list[str]) -> None:
        self.notes = notes

    def settings(self, given: Mapping, known: dict[str, type], where: str) -> list[str]:
        """One line for each setting; what is not known as a comment."""
        lines = []
        for key, value in given.entries.items():
            if key not in known:
                lines.append(f"# not known here: {comment_text(key)} = {comment_text(_as_json(value))}")
                self.notes.append(f"{where}.{key} = {_as_json(value)}: not known here{_nearest(key, known)}")
            elif not isinstance(value, Scalar):
                lines.append(f"# not usable: {key} = {comment_text(_as_json(value))}")
                self.notes.append(f"{where}.{key}: a single value is needed, not {_as_json(value)}")
            elif value.is_plain and value.text in _NULLS:
                lines.append(f"# {key} has no value there; here the default is used")
                self.notes.append(f"{where}.{key} has no value: the default is used")
            else:
                lines.append(f"{key} = {toml_value(value, known[key])}")
        return lines


def _nearest(key: str, known: Iterable[str]) -> str:
    """A hint, where it looks like one of the known keys, misspelt."""
    near = difflib.get_close_matches(key, known, 1, cutoff=0.8)
    return f"; did you mean {near[0]}?" if near else ""


def _top_level(given: Mapping, writer: _Writer) -> list[str]:
    lines = writer.settings(given, _SETTINGS, "config_module")
    for key in _SHOWN_DEFAULTS:
        if key not in given.entries:
            default = next(field.default for field in fields(Config) if field.name == key)
            lines.append(f"# {key} is not set there; the default here: {json.dumps(default)}")
    for key in ("psu_ca_cert", "client_cert", "client_key"):
        path = given.text(key)
        if path and not Path(path).is_absolute():
            writer.notes.append(f"{key}: {path} is looked for where the driver is started; give the whole path")
    return lines


def _broker_lines(settings: Mapping, writer: _Writer) -> list[str]:
    """The broker, where EVerest's settings name it."""
    known: dict[str, type] = {"host": str, "port": int, "topic_prefix": str}
    given = {name: settings.entries[key] for key, name in _BROKER_SETTINGS.items() if key in settings.entries}
    lines = writer.settings(Mapping(settings.line, given, {}), known, "settings")
    return lines or ['# host = "localhost"    # the broker that EVerest uses', "# port = 1883"]


def _error_history_lines(error_history: str, notes: list[str]) -> list[str]:
    if error_history:
        return [f"error_history = {quoted(error_history)}"]
    notes.append(
        "in EVerest's configuration: add error_history_api, an error_history_consumer_API (docs/everest.md)"
    )
    return [
        "# For the alarms of a board that is built into EVerest. To be added to EVerest's configuration:",
        'error_history = "error_history_api"    # error_history_consumer_API',
    ]


def _device_lines(
    modules: Mapping, number: int, devices: Devices, notes: list[str], *, has_hack: bool
) -> list[str]:
    lines = []
    needs_manager = False
    for kind in KINDS:
        device = devices.found.get(kind.key)
        if device is None:
            lines.append(f"# {kind.key}: none found")
        elif not _is_native(device, kind.api_module):
            lines.append(f"{kind.key} = {quoted(device.module_id)}")
        elif kind is OVER_VOLTAGE:
            lines.append(f"# {kind.key}: {_built_in(device)}, and not to be had over MQTT")
            notes.append(
                f"connectors[{number}]: the over-voltage monitor is {_built_in(device)}; the driver cannot get "
                'its voltage. Is upstream_voltage_source = "IMD" possible?'
            )
        else:
            needs_manager = True
            if kind is METER and has_hack:
                notes.append(
                    f"connectors[{number}]: the power meter is built into EVerest: it is used only with "
                    "HACK_publish_requested_voltage_current = false"
                )
            if kind is BOARD:
                lines.append(f"evse_board_support = {quoted(device.module_id)}    # {_built_in(device)}")
            else:
                lines.append(f"# {kind.key}: {_built_in(device)}; by evse_manager")
    if needs_manager:
        lines += _manager_lines(modules, number, devices.manager, notes)
    return lines


def _manager_lines(modules: Mapping, number: int, manager: str, notes: list[str]) -> list[str]:
    consumer = consumer_of(modules, manager) if manager else ""
    if consumer:
        return [f"evse_manager = {quoted(consumer)}"]
    consumer = f"evse_manager_api_{number}"
    target = manager or f"the EvseManager of connector {number}"
    notes.append(
        f"in EVerest's configuration: add {consumer}, an evse_manager_consumer_API for {target}, with its imd, "
        "too (docs/everest.md)"
    )
    return [
        f"# Tells of devices that are built into EVerest. To be added there, for {comment_text(target)}:",
        f"evse_manager = {quoted(consumer)}    # evse_manager_consumer_API",
    ]


def _supplies(modules: Mapping, implementations: list[str]) -> dict[str, str]:
    """The id of each connector's power_supply_DC_API: one that is there already, or is still free."""
    supplies = {}
    for number, implementation in enumerate(implementations, 1):
        supply = f"psu_api_{number}"
        while supply in modules.entries and modules.mapping(supply).text("module") != "power_supply_DC_API":
            supply += "_new"
        supplies[implementation] = supply
    return supplies


def _is_native(device: Device | None, api_module: str) -> bool:
    """Whether there is a device that is built into EVerest: the driver hears of it only by other modules."""
    return device is not None and device.module != api_module


def _built_in(device: Device) -> str:
    module = f"a {device.module}" if device.module else "not in active_modules"
    return comment_text(f"{device.module_id} ({module}): built into EVerest")


def _as_json(value: Value) -> str:
    """Any value on one line; plain scalars as they are written."""
    if isinstance(value, Scalar):
        return value.text if value.is_plain else json.dumps(value.text, ensure_ascii=False)
    if isinstance(value, Mapping):
        inside = ", ".join(f"{key}: {_as_json(entry)}" for key, entry in value.entries.items())
        return f"{{{inside}}}"
    return f"[{', '.join(_as_json(entry) for entry in value)}]"
