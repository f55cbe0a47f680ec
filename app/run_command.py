"""`fusioncharger run`: the driver."""

import argparse
import logging
import os
import ssl
import sys
from datetime import UTC, datetime
from pathlib import Path

from msgspec.structs import replace

from .. import __version__
from ..io.goose_port import GoosePortError
from ..io.mqtt_access import BrokerAccessError, load_access
from ..io.mqtt_access import findings as broker_findings
from ..io.tls import TlsFiles, TlsFilesError, client_context, examine
from ..messages.config import Config, ConfigError, parse
from ..replay.directory_lock import DirectoryInUseError, DirectoryLock
from ..replay.journal import boot_id
from ..replay.last_errors import NOTHING, LastErrors, restore_errors
from .check_config import unused_secrets
from .driver import EXIT_FAILED, Driver
from .process_log import ProcessLog

EXIT_CONFIGURATION = 2

log = logging.getLogger("fusioncharger.driver")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `run`."""
    parser.add_argument("--config", metavar="FILE", required=True, type=Path, help="configuration (TOML)")
    parser.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default="info", help="default: info"
    )
    parser.add_argument("--log-json", action="store_true", help="log as JSON, one object a line")
    parser.add_argument(
        "--forget-alarms",
        action="store_true",
        help="start without the boards' errors that the journal knows of",
    )


def run_command(arguments: argparse.Namespace) -> int:
    """Run until SIGTERM, SIGINT or SIGHUP. 0: ended as told; 1: a part failed, or the GOOSE interface cannot
    be used; 2: configuration."""
    try:
        config = load_config(arguments.config)
        check_broker_files(config, arguments.config)
        tls = load_tls(config, arguments.config)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIGURATION
    lock = DirectoryLock(Path(config.journal.dir))
    try:
        lock.take()
    except DirectoryInUseError as error:
        # Not EXIT_CONFIGURATION: a former driver that is about to end may have it still.
        print(f"{arguments.config}: journal.dir: {error}", file=sys.stderr)
        return EXIT_FAILED
    process_log = ProcessLog(arguments.log_level, as_json=arguments.log_json)
    try:
        restored = NOTHING if arguments.forget_alarms else restore_alarms(config)
        _warn_of_files(config)
        driver = Driver(config, process_log, tls, lock)
        driver.start(restored)
        driver.supervise()
        return driver.stop()
    except GoosePortError as error:
        # Not EXIT_CONFIGURATION: an interface may come up later, so it is worth starting again.
        print(f"{arguments.config}: ethernet_interface: {error}", file=sys.stderr)
        return EXIT_FAILED
    finally:
        lock.release()
        if not process_log.close():
            os._exit(EXIT_FAILED)


def restore_alarms(config: Config) -> LastErrors:
    """What the boards had reported when the former process ended (behaviour.md §6). What was restored is the
    core's to say; what could not be is said here."""
    restored = restore_errors(Path(config.journal.dir), config, boot_id())
    if restored.problem:
        log.warning("alarms of the former run: %s", restored.problem)
    for outdated in restored.outdated:
        log.warning(
            "alarms of the former run: not restored, as the machine has been booted since: %s of connector %d",
            outdated.error_type,
            outdated.connector,
        )
    for error in restored.dropped:
        log.warning("alarms of the former run: not restored, as the configuration has no such board: %s", error)
    return restored


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


def check_broker_files(config: Config, name: Path) -> None:
    """Password and certificates for the broker, as far as they can be used. `name` is the configuration's.
    ConfigError. The MQTT client reads them for each connection."""
    try:
        load_access(config.mqtt)
    except BrokerAccessError as error:
        raise ConfigError("\n".join(f"{name}: {line}" for line in str(error).splitlines())) from None


def load_tls(config: Config, name: Path) -> ssl.SSLContext | None:
    """What the link to the PSU is encrypted with; None: it is not. `name` is the configuration's. ConfigError.

    A renewed certificate takes effect with a restart.
    """
    if not config.tls_enabled:
        return None
    try:
        return client_context(_tls_files(config), hostname=config.psu_cert_hostname)
    except TlsFilesError as error:
        raise ConfigError("\n".join(f"{name}: {line}" for line in str(error).splitlines())) from None


def _warn_of_files(config: Config) -> None:
    """What does not keep TLS and the login at the broker from working today, or keeps them from being used."""
    for name, text in unused_secrets(config):
        log.warning("%s: %s", name, text)
    found = examine(_tls_files(config), datetime.now(UTC))[0] if config.tls_enabled else []
    for finding in found + broker_findings(config.mqtt):
        log.warning("%s: %s: %s", finding.name, finding.path, finding.text)


def _tls_files(config: Config) -> TlsFiles:
    return TlsFiles(ca=config.psu_ca_cert, certificate=config.client_cert, key=config.client_key)
