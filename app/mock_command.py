"""`fusioncharger mock`: the PSU mock (behaviour.md §9)."""

import argparse
import asyncio
import os
import signal
import sys

from msgspec.structs import replace

from ..io.goose_port import GoosePortError, open_port
from ..mock.event_log import EventLog
from ..mock.mqtt_power import MqttPower
from ..mock.options import PREFIX, MockOptions, MockOptionsError, options_from, port_number
from ..mock.server import MockServer
from .process_log import ProcessLog

EXIT_USAGE = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `mock`; each has an environment variable as its default."""
    defaults = MockOptions()
    parser.add_argument(
        "cert_dir", metavar="CERT_DIR", nargs="?", help="certificates for TLS (a later version)"
    )
    parser.add_argument(
        "--interface",
        help=f"GOOSE interface, or udp:LOCAL for UDP on 127.0.0.1 ({PREFIX}ETH, {defaults.interface})",
    )
    parser.add_argument("--port", help=f"Modbus port, 0 for any ({PREFIX}PORT, {defaults.port})")
    parser.add_argument(
        "--events", metavar="FILE", default="", help="write one JSON object per event to FILE, - for stdout"
    )


def mock_command(arguments: argparse.Namespace) -> int:
    """Run until SIGTERM or SIGINT. 0: ended as told; 2: something is not usable as it was given."""
    try:
        options = _options(arguments)
        events = EventLog(arguments.events)
    except MockOptionsError as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    except OSError as error:
        print(f"--events: {arguments.events} cannot be written: {error.strerror}", file=sys.stderr)
        return EXIT_USAGE
    process_log = ProcessLog("info", as_json=False)
    try:
        asyncio.run(_serve(options, events))
    except MockOptionsError as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    except GoosePortError as error:
        print(f"--interface: {error}", file=sys.stderr)
        return EXIT_USAGE
    finally:
        process_log.close()
        events.close()
    return 0


def _options(arguments: argparse.Namespace) -> MockOptions:
    """What the environment says, and the command line before it. MockOptionsError."""
    if arguments.cert_dir is not None:
        msg = f"CERT_DIR: found {arguments.cert_dir!r}; this version has no TLS, run the mock without it"
        raise MockOptionsError(msg)
    options = options_from(os.environ)
    if arguments.interface is not None:
        options = replace(options, interface=arguments.interface)
    if arguments.port is not None:
        options = replace(options, port=port_number("--port", arguments.port, lowest=0))
    return options


async def _serve(options: MockOptions, events: EventLog) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in signal.SIGTERM, signal.SIGINT:
        loop.add_signal_handler(number, stop.set)
    goose_port = open_port(options.interface)
    mqtt = None if options.mqtt is None else MqttPower(options.mqtt)
    try:
        await MockServer(options, goose_port, events, mqtt).run(stop)
    finally:
        if mqtt is not None:
            mqtt.close()
        goose_port.close()
