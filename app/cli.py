"""The command line: `fusioncharger COMMAND`.

A command's module is imported only when it is asked for: the driver has to be up in under a second, and the
demo's and the mock's libraries are none of its business.
"""

import argparse
import errno
import os
import sys
from collections.abc import Callable, Sequence

from .. import __version__

DESCRIPTION = "Dispenser-side driver for Huawei FusionCharge DC power units, with recording and replay."
COMMANDS = {
    "run": "run the driver",
    "check": "check everything that can be wrong before a start; make a configuration from EVerest's",
    "mock": "run the PSU mock: a power unit without hardware",
    "demo": "a whole charging session: driver against mock, recorded, replayed, compared",
    "certs": "make certificates for TLS between dispenser and power unit",
    "log": "read a log: info, cat, verify, recover, pcap, export",
    "replay": "replay a log and compare every output with what was recorded; look at any moment of it",
    "view": "the picture of a log, as one HTML file",
    "simulate": "run the core through made-up worlds full of faults, and check every turn",
    "bundle": "pack log, configuration and host facts of the last hours for whoever has to find a fault",
}


EXIT_BROKEN_PIPE = 141
"""As a shell shows a process that SIGPIPE ended."""

EXIT_INTERRUPTED = 130
"""As a shell shows a process that SIGINT ended."""

EXIT_NOT_PRINTED = 1
_CANNOT_PRINT = (errno.ENOSPC, errno.EDQUOT, errno.EIO)

Command = tuple[Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int]]
"""What adds a command's options, and what carries it out."""


def _load(name: str) -> Command:
    # ruff: noqa: PLC0415 - imported only when asked for, see above
    match name:
        case "run":
            from . import run_command as run

            return run.add_arguments, run.run_command
        case "check":
            from . import check_command as check

            return check.add_arguments, check.check_command
        case "mock":
            from . import mock_command as mock

            return mock.add_arguments, mock.mock_command
        case "demo":
            from . import demo

            return demo.add_arguments, demo.demo_command
        case "certs":
            from . import certs_command as certs

            return certs.add_arguments, certs.certs_command
        case "log":
            from . import log_command as log

            return log.add_arguments, log.log_command
        case "view":
            from . import view_command as view

            return view.add_arguments, view.view_command
        case "simulate":
            from . import simulate_command as simulate

            return simulate.add_arguments, simulate.simulate_command
        case "bundle":
            from . import bundle_command as bundle

            return bundle.add_arguments, bundle.bundle_command
        case _:
            from . import replay_command as replay

            return replay.add_arguments, replay.replay_command


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and carry out what it says; the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="fusioncharger", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"fusioncharger {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = next((word for word in words if not word.startswith("-")), None)
    carry_out = None
    for name, help_text in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=help_text, description=help_text)
        if name == chosen:
            add_arguments, carry_out = _load(name)
            add_arguments(subparser)
    arguments = parser.parse_args(words)
    if carry_out is None:  # --help and --version have ended the process; argparse refuses everything else
        return 2
    try:
        code = carry_out(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output has had enough, as `head` has
        _print_no_more()
        return EXIT_BROKEN_PIPE
    except KeyboardInterrupt:  # run, mock and --follow end by it in order, and do not come here
        return EXIT_INTERRUPTED
    except OSError as error:
        # Commands say themselves which file they cannot write; this is standard output, on a disk that is full.
        if arguments.command == "run" or error.errno not in _CANNOT_PRINT:
            raise
        _print_no_more()
        print(f"standard output: cannot be written: {error.strerror}", file=sys.stderr)
        return EXIT_NOT_PRINTED
    return code


def _print_no_more() -> None:
    """What is still in the buffer would fail again as the process ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
