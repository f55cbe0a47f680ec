"""`fusioncharger mock`: the PSU mock (behaviour.md §9)."""

import argparse
import asyncio
import os
import signal
import ssl
import sys
from datetime import UTC, datetime
from pathlib import Path

from ..io.goose_port import GoosePortError, open_port
from ..io.tls import TlsFiles, TlsFilesError, examine, server_context
from ..mock.event_log import EventLog
from ..mock.mqtt_power import MqttPower
from ..mock.options import OPTIONS, PREFIX, MockOptions, MockOptionsError, options_from
from ..mock.server import MockServer
from .process_log import ProcessLog

EXIT_USAGE = 2
CERTIFICATES = ("dispenser_ca.crt.pem", "psu.crt.pem", "psu.key.pem")
_VETH_HINT = (
    "make a pair with: ip link add veth0 type veth peer name veth1 && ip link set veth0 up && "
    "ip link set veth1 up (as root); or without root and Ethernet: --interface udp:15000"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `mock`; each has an environment variable as its default."""
    parser.epilog = f"The name in brackets is the environment variable, after {PREFIX}; the option wins."
    for option in OPTIONS:
        text = f"{option.help} [{option.variable}]"
        if not option.flag.startswith("-"):
            parser.add_argument(option.flag, metavar=option.flag, nargs="?", help=text)
        elif not option.metavar:
            parser.add_argument(
                option.flag, dest=option.flag, action=argparse.BooleanOptionalAction, default=None, help=text
            )
        else:
            parser.add_argument(
                option.flag,
                dest=option.flag,
                metavar=option.metavar,
                action="append" if option.repeatable else "store",
                help=text,
            )


STDIN_FD = 0


def mock_command(arguments: argparse.Namespace) -> int:
    """Run until SIGTERM or SIGINT. 0: ended as told; 2: something is not usable as it was given."""
    given = _given(arguments)
    try:
        options = options_from(os.environ, given)
        _check_control(options)
        tls, warnings = _tls(options)
        events = EventLog(options.events)
    except (MockOptionsError, TlsFilesError) as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    except OSError as error:
        name = "--events" if "--events" in given else f"{PREFIX}EVENTS"
        print(f"{name}: {error.filename} cannot be written: {error.strerror}", file=sys.stderr)
        return EXIT_USAGE
    for warning in warnings:
        print(warning, file=sys.stderr)
    process_log = ProcessLog("info", as_json=False)
    try:
        asyncio.run(_serve(options, events, tls))
    except MockOptionsError as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    except GoosePortError as error:
        hint = f"; {_VETH_HINT}" if str(error).startswith("no Ethernet interface") else ""
        print(f"{options.interface_from}: {error}{hint}", file=sys.stderr)
        return EXIT_USAGE
    finally:
        process_log.close()
        events.close()
    return 0


def _given(arguments: argparse.Namespace) -> dict[str, str | list[str]]:
    """What the command line says, by option."""
    given: dict[str, str | list[str]] = {}
    for option in OPTIONS:
        match vars(arguments)[option.flag]:
            case None:
                pass
            case bool() as is_on:
                given[option.flag] = "1" if is_on else "0"
            case value:
                given[option.flag] = value
    return given


def _check_control(options: MockOptions) -> None:
    """MockOptionsError if commands are to come from a standard input that is closed."""
    if options.control:
        try:
            os.fstat(STDIN_FD)
        except OSError:
            msg = "--control: standard input is closed; connect a pipe, a terminal or a file to it"
            raise MockOptionsError(msg) from None


def _tls(options: MockOptions) -> tuple[ssl.SSLContext | None, list[str]]:
    """What makes the connections TLS, and what is odd about the files. TlsFilesError."""
    if options.cert_dir is None:
        return None, []
    ca, certificate, key = (str(Path(options.cert_dir) / name) for name in CERTIFICATES)
    files = TlsFiles(ca=ca, certificate=certificate, key=key, names=CERTIFICATES)
    context = server_context(files)
    findings, _ = examine(files, datetime.now(UTC))
    return context, [f"{finding.name}: {finding.path}: {finding.text}" for finding in findings]


async def _serve(options: MockOptions, events: EventLog, tls: ssl.SSLContext | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in signal.SIGTERM, signal.SIGINT:
        loop.add_signal_handler(number, stop.set)
    goose_port = open_port(options.interface)
    mqtt = None if options.mqtt is None else MqttPower(options.mqtt)
    # Not sys.stdin, which is None where standard input is closed.
    control_fd = STDIN_FD if options.control else None
    try:
        await MockServer(options, goose_port, events, mqtt, tls).run(stop, control_fd)
    finally:
        if mqtt is not None:
            mqtt.close()
        goose_port.close()
