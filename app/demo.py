"""`fusioncharger demo`: a whole charging session on this machine, recorded, replayed, compared.

    demo ── EVerest and boards ──► broker ──► driver ══ Modbus TCP, GOOSE ══► PSU mock ──► event log ──► checks
    (this process)                (amqtt)    (fusioncharger run)     (fusioncharger mock)

Here: whether it can be played, and over which network. The session itself is in demo_session.py.
"""

import argparse
import importlib.util
import io
import signal
import sys
from datetime import datetime
from pathlib import Path
from types import FrameType

from .demo_network import IN_NAMESPACE, enter_namespace, find_obstacle, udp_network, veth_network
from .demo_processes import CERTIFICATES, free_port

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `demo`."""
    parser.add_argument(
        "--output",
        metavar="DIR",
        type=Path,
        help="where recording and logs go (default: ./sessions/demo-<time>)",
    )
    parser.add_argument("--tls", action="store_true", help="with TLS between driver and power unit")
    parser.add_argument(IN_NAMESPACE, action="store_true", help=argparse.SUPPRESS)


def demo_command(arguments: argparse.Namespace) -> int:
    """Play the session. 0: everything held; 1: something did not; 2: it cannot be played here."""
    missing = [name for name in ("amqtt", "rich") if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"The demo needs {' and '.join(missing)}. Use `make demo`, or pip install -e '.[demo]' in the "
            "repository.",
            file=sys.stderr,
        )
        return EXIT_USAGE
    output: Path = arguments.output or Path("sessions", f"demo-{datetime.now().astimezone():%Y%m%d-%H%M%S}")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"--output: {output} cannot be written: {error.strerror}", file=sys.stderr)
        return EXIT_USAGE
    if any(output.glob("*.mcap")) or (output / CERTIFICATES).exists():
        print(f"--output: {output} holds another demo's files already; name another folder", file=sys.stderr)
        return EXIT_USAGE
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that has no check mark shows a question mark
    if arguments.in_namespace:
        network = veth_network()
    else:
        obstacle = find_obstacle()
        if not obstacle:
            enter_namespace(["--output", str(output), *(["--tls"] if arguments.tls else [])])
        network = udp_network(free_port(), obstacle)
    from .demo_session import play  # noqa: PLC0415 - needs what was looked for above

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    try:
        return play(output, network, is_encrypted=arguments.tls)
    except _Interrupted:
        print("\ninterrupted; everything that was started has ended", file=sys.stderr)
        return EXIT_INTERRUPTED


class _Interrupted(BaseException):
    """SIGTERM or Ctrl-C. Not KeyboardInterrupt: Python may remember one that was caught, and then ends the
    process with SIGINT instead of its exit code."""


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """The demo ends with everything that it started."""
    raise _Interrupted
