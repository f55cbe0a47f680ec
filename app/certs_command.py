"""`fusioncharger certs DIR`: certificates for TLS between dispenser and PSU (protocol.md §2.3)."""

import argparse
import json
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path

from ..io.certificates import (
    DEFAULT_HOSTNAME,
    FILES,
    MAX_DAYS,
    CertificatesExistError,
    host_name,
    make_set,
    write_set,
)

EXIT_USAGE = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `certs`."""
    parser.add_argument("dir", metavar="DIR", type=Path, help="where to write them; made if it is not there")
    parser.add_argument(
        "--algorithm", choices=("ec", "rsa"), default="ec", help="EC P-256 or RSA 2048 (default: ec)"
    )
    parser.add_argument(
        "--days", type=_days, default=3650, metavar="N", help=f"valid for, 1 to {MAX_DAYS} (default: 3650)"
    )
    parser.add_argument(
        "--hostname",
        type=_host_name,
        default=DEFAULT_HOSTNAME,
        metavar="NAME",
        help=f"what the PSU's certificate is for; checked only with psu_cert_hostname ({DEFAULT_HOSTNAME})",
    )


def certs_command(arguments: argparse.Namespace) -> int:
    """Make a set and say how to use it. 0: done; 2: nothing was written."""
    directory: Path = arguments.dir
    content = make_set(
        datetime.now(UTC), algorithm=arguments.algorithm, days=arguments.days, hostname=arguments.hostname
    )
    try:
        write_set(directory, content)
    except CertificatesExistError as error:
        names = ", ".join(path.name for path in error.paths)
        print(f"{directory}: nothing written, there is already: {names}; give another folder", file=sys.stderr)
        return EXIT_USAGE
    except OSError as error:
        print(f"{error.filename or directory}: nothing written: {error.strerror}", file=sys.stderr)
        return EXIT_USAGE
    print(_instructions(directory.absolute(), arguments.days, arguments.hostname))
    return 0


def _instructions(directory: Path, days: int, hostname: str) -> str:
    lines = [f"Written to {directory}, valid for {days} days:", ""]
    lines += [f"  {name:<22}{purpose}" for name, purpose in FILES.items()]
    lines += ["", "The driver's configuration, above the first [table]:", "", "  tls_enabled = true"]
    for key, name in (
        ("psu_ca_cert", "psu_ca.crt.pem"),
        ("client_cert", "dispenser.crt.pem"),
        ("client_key", "dispenser.key.pem"),
    ):
        # What JSON writes of a path is a TOML string too.
        lines.append(f"  {key} = {json.dumps(str(directory / name), ensure_ascii=False)}")
    lines += [
        f'  # psu_cert_hostname = "{hostname}"  # to accept only a PSU certificate with this name',
        "",
        "The PSU gets dispenser_ca.crt.pem, psu.crt.pem and psu.key.pem. As the mock does with:",
        "",
        f"  fusioncharger mock {shlex.quote(str(directory))}",
    ]
    return "\n".join(lines)


def _days(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 9 and 1 <= int(text) <= MAX_DAYS:
        return int(text)
    msg = f"found {text!r}; allowed: 1 to {MAX_DAYS}"
    raise argparse.ArgumentTypeError(msg)


def _host_name(text: str) -> str:
    try:
        return host_name(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
