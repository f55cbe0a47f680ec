"""`fusioncharger run`: the driver."""

import argparse
import os
import sys
from pathlib import Path

from msgspec.structs import replace

from .. import __version__
from ..io.goose_port import GoosePortError
from ..messages.config import Config, ConfigError, parse
from .driver import EXIT_FAILED, Driver
from .process_log import ProcessLog

EXIT_CONFIGURATION = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `run`."""
    parser.add_argument("--config", metavar="FILE", required=True, type=Path, help="configuration (TOML)")
    parser.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default="info", help="default: info"
    )
    parser.add_argument("--log-json", action="store_true", help="log as JSON, one object a line")


def run_command(arguments: argparse.Namespace) -> int:
    """Run until SIGTERM or SIGINT. 0: ended as told; 1: a part failed, or the GOOSE interface cannot be used;
    2: configuration."""
    try:
        config = load_config(arguments.config)
        password = load_password(config, arguments.config)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIGURATION
    process_log = ProcessLog(arguments.log_level, as_json=arguments.log_json)
    try:
        driver = Driver(config, password, process_log)
        driver.start()
        driver.supervise()
        return driver.stop()
    except GoosePortError as error:
        # Not EXIT_CONFIGURATION: an interface may come up later, so it is worth starting again.
        print(f"{arguments.config}: ethernet_interface: {error}", file=sys.stderr)
        return EXIT_FAILED
    finally:
        if not process_log.close():
            os._exit(EXIT_FAILED)


def load_config(path: Path) -> Config:
    """The configuration in the file. ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        msg = f"{path}: cannot be read: {error.strerror}"
        raise ConfigError(msg) from None
    except UnicodeDecodeError as error:
        msg = f"{path}: not UTF-8 text: byte {error.start} is 0x{error.object[error.start]:02x}"
        raise ConfigError(msg) from None
    config = parse(text, str(path))
    # The version is part of what the PSU can read, so a recording has to hold it, not a placeholder.
    return config if config.software_version else replace(config, software_version=__version__)


def load_password(config: Config, name: Path) -> str | None:
    """The broker's password: the first line of its file. `name` is the configuration's. ConfigError."""
    path = config.mqtt.password_file
    if not path:
        return None
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        msg = f"{name}: mqtt.password_file: {path} cannot be read: {reason}"
        raise ConfigError(msg) from None
    if not lines:
        msg = f"{name}: mqtt.password_file: {path} is empty; its first line has to be the password"
        raise ConfigError(msg)
    return lines[0]
