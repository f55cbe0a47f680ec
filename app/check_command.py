"""`fusioncharger check`: everything that can be wrong before a start, as a table; and a configuration made from
EVerest's (docs/everest.md)."""

import argparse
import io
import os
import shutil
import sys
from pathlib import Path

from .check_table import Level, Row, not_checked, render

EXIT_OK = 0
EXIT_ERROR = 1
EXIT_USAGE = 2

MEND_FIRST = "its settings have to be mended first"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `check`."""
    parser.description = (
        "Check everything that can be wrong before a start: file, interface, certificates, broker, journal. "
        "Nothing is changed, published or subscribed to, and a running driver is not disturbed. Exit code 0: "
        "no error (there may be warnings); 1: an error; 2: wrong usage."
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--config", metavar="FILE", type=Path, help="check this configuration (TOML)")
    source.add_argument(
        "--everest",
        metavar="FILE",
        type=Path,
        help="print a configuration made from EVerest's (YAML); what needs a look is said on standard error",
    )
    parser.add_argument(
        "--probe-psu",
        action="store_true",
        help="with --config: also connect to the power unit and close at once (with TLS after the handshake). "
        "A live power unit may take that for a second dispenser: not while cars charge",
    )
    parser.add_argument(
        "--module",
        metavar="ID",
        help="with --everest: the module id of the driver that this one replaces",
    )
    parser.set_defaults(usage_error=parser.error)


def check_command(arguments: argparse.Namespace) -> int:
    """0: no error; 1: an error; 2: wrong usage, or an unreadable file of EVerest's."""
    if arguments.everest is not None:
        if arguments.module is None:
            arguments.usage_error("--everest needs --module ID")
        if arguments.probe_psu:
            arguments.usage_error("--probe-psu goes with --config")
        from .check_everest import print_migration  # noqa: PLC0415 - a YAML library, for this alone

        return print_migration(arguments.everest, arguments.module)
    if arguments.module is not None:
        arguments.usage_error("--module goes with --everest")
    rows = check(arguments.config, probe_psu=arguments.probe_psu)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # the table comes whatever the terminal can show
    is_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if is_terminal else None
    coloured = is_terminal and not os.environ.get("NO_COLOR")
    print(render(rows, width=width, coloured=coloured), end="")
    errors = sum(row.level is Level.ERROR for row in rows)
    warnings = sum(row.level is Level.WARNING for row in rows)
    print(f"\n{_count(errors, 'error')}, {_count(warnings, 'warning')}")
    return EXIT_ERROR if errors else EXIT_OK


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"


def check(path: Path, *, probe_psu: bool) -> list[Row]:
    """Every row. What the file does not let know is not checked, and says so."""
    # Only now: they take half a second to import, and --help needs none of them.
    from .check_config import check_file, check_intentions  # noqa: PLC0415
    from .check_host import (  # noqa: PLC0415
        check_broker_certificates,
        check_certificates,
        check_interface,
        check_journal,
        check_password,
    )
    from .check_network import check_broker, check_psu  # noqa: PLC0415

    rows, settings = check_file(path)
    if settings is None:
        what = "interface, certificates, broker, power unit, journal"
        return [*rows, not_checked(what, "known only when the file can be read")]
    config = settings.config
    rows += check_intentions(settings)
    if settings.has("ethernet_interface"):
        rows += check_interface(config.ethernet_interface)
    else:
        rows.append(not_checked("interface", MEND_FIRST))
    certificates = [not_checked("certificates", MEND_FIRST)]
    are_named = config.psu_ca_cert and config.client_cert and config.client_key
    if config.tls_enabled and not are_named:
        certificates = []  # that they are missing is said already
    elif settings.has("tls_enabled", "psu_ca_cert", "client_cert", "client_key", "psu_cert_hostname"):
        certificates = check_certificates(config)
    rows += certificates
    password_row = check_password(config.mqtt)
    rows += [password_row] if password_row else []
    keys = [f"mqtt.{key}" for key in config.mqtt.__struct_fields__ if key != "topic_prefix"]
    if settings.has("mqtt", *keys):
        # A CA that is missing is said already.
        if config.mqtt.ca_cert or not config.mqtt.tls_enabled:
            rows += check_broker_certificates(config.mqtt)
        rows.append(check_broker(config.mqtt))
    else:
        rows.append(not_checked("broker", MEND_FIRST))
    if not probe_psu:
        rows.append(not_checked("power unit", "not probed (--probe-psu)"))
    elif settings.has("psu_ip", "psu_port", "tls_enabled"):
        has_certificates = all(row.level in {Level.OK, Level.WARNING} for row in certificates)
        rows.append(check_psu(config, has_certificates=has_certificates))
    else:
        rows.append(not_checked("power unit", MEND_FIRST))
    if settings.has("journal", "journal.dir"):
        rows.append(check_journal(config.journal.dir))
    else:
        rows.append(not_checked("journal", MEND_FIRST))
    return rows
