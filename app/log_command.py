"""`fusioncharger log info|cat|verify|recover|pcap|export`: read a log (docs/log.md).

Each has a module of its own, imported when it is asked for.
"""

import argparse
from collections.abc import Callable

AddArguments = Callable[[argparse.ArgumentParser], None]
Run = Callable[[argparse.Namespace], int]

SUBCOMMANDS = {
    "info": "what is in a log: time span, charging sessions, alarms, errors, gaps, segments",
    "cat": "the messages of a log as JSON lines",
    "verify": "check that a log is whole",
    "recover": "make a readable log of a damaged one",
    "pcap": "the GOOSE and Modbus traffic, for Wireshark",
    "export": "states and measurements as CSV or Parquet",
}


class _LazyParser(argparse.ArgumentParser):
    """A subcommand's parser, which asks for its arguments when it is used."""

    name = ""

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        """As argparse's, with the arguments declared first."""
        if self.name:
            name, self.name = self.name, ""
            _load(name)[0](self)
        return super().parse_known_args(args, namespace)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `log` takes."""
    subparsers = parser.add_subparsers(
        dest="subcommand", required=True, metavar="SUBCOMMAND", parser_class=_LazyParser
    )
    for name, help_text in SUBCOMMANDS.items():
        subparsers.add_parser(name, help=help_text, description=help_text).name = name


def log_command(arguments: argparse.Namespace) -> int:
    """Run the subcommand; the exit code."""
    return _load(arguments.subcommand)[1](arguments)


def _load(name: str) -> tuple[AddArguments, Run]:
    # ruff: noqa: PLC0415 - imported only when asked for, see above
    match name:
        case "info":
            from . import log_info_command as info

            return info.add_arguments, info.log_info_command
        case "cat":
            from . import log_cat_command as cat

            return cat.add_arguments, cat.log_cat_command
        case "verify":
            from . import log_verify_command as verify

            return verify.add_arguments, verify.log_verify_command
        case "recover":
            from . import log_recover_command as recover

            return recover.add_arguments, recover.log_recover_command
        case "pcap":
            from . import pcap_command as pcap

            return pcap.add_arguments, pcap.pcap_command
        case _:
            from . import export_command as export

            return export.add_arguments, export.export_command
