"""The configuration file: `run` takes it or refuses it in words, `check` says the same; what is taken works.

input   the file
"""

import math
import tempfile
from pathlib import Path

import msgspec
from fusioncharger.actors.system import build
from fusioncharger.app.check_config import check_file, check_intentions
from fusioncharger.app.check_table import Level
from fusioncharger.app.run_command import load_config
from fusioncharger.io.everest_codec import EverestCodec
from fusioncharger.messages.config import Config, ConfigError, of_table
from fusioncharger.messages.inputs import Started
from fusioncharger.messages.outputs import TurnFailed

_folder = tempfile.TemporaryDirectory(
    prefix="fuzz-config-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None
)
_file = Path(_folder.name) / "config.toml"
_MAX_TOPIC_BYTES = 65_535


def check(data: bytes) -> None:
    _file.write_bytes(data)
    rows, settings = check_file(_file)
    if settings is not None:
        rows += check_intentions(settings)
    is_refused = any(row.level is Level.ERROR for row in rows)
    assert all(row.detail for row in rows)
    try:
        config = load_config(_file)
    except ConfigError:
        config = None
    assert is_refused == (config is None), "`check` and `run` do not agree"
    if config is not None:
        check_usable(config)


def check_usable(config: Config) -> None:
    table = msgspec.to_builtins(config)
    assert of_table(msgspec.json.decode(msgspec.json.encode(table)), "again") == config
    assert all(map(math.isfinite, numbers(table)))
    for topic in EverestCodec(config, "me").subscriptions:
        assert len(topic.encode()) <= _MAX_TOPIC_BYTES
        assert not set(topic) & set("+#\0")
    outputs = build(config).turn(Started(utc_offset_ns=0, goose_mac=bytes(6)))
    assert not any(isinstance(output, TurnFailed) for output in outputs)


def numbers(value: object) -> list[float]:
    if isinstance(value, dict):
        return [number for entry in value.values() for number in numbers(entry)]
    if isinstance(value, list | tuple):
        return [number for entry in value for number in numbers(entry)]
    return [value] if isinstance(value, float) else []
