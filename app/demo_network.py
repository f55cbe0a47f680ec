"""How GOOSE travels in the demo: over a veth pair in a network namespace of the demo's own, or over UDP.

A namespace is nothing of the machine's own network, and is gone with the demo. It takes root, or a system that
lets users have namespaces, and iproute2; whether it works is found out by trying.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

IN_NAMESPACE = "--in-namespace"
"""The option with which the demo starts itself again inside."""

_LAY_CABLE = (
    "sh",
    "-c",
    "ip link set lo up && ip link add veth0 type veth peer name veth1"
    " && ip link set veth0 up && ip link set veth1 up",
)


@dataclass(frozen=True)
class GooseNetwork:
    """What driver and mock get as their interface, and why, for the user."""

    driver_interface: str
    mock_interface: str
    explanation: str


def find_obstacle() -> str:
    """Why the demo cannot have a namespace; "" if it can."""
    for program in (*_unshare()[:1], "ip", "sh"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    attempt = _run([*_unshare(), *_LAY_CABLE])
    if attempt.returncode == 0:
        return ""
    complaint = attempt.stderr.strip().splitlines()
    return complaint[-1] if complaint else f"{' '.join(_unshare())} failed"


def enter_namespace(arguments: list[str]) -> NoReturn:
    """Replaces this process by `fusioncharger demo` in a new namespace."""
    demo = [sys.executable, "-P", "-m", "fusioncharger", "demo", IN_NAMESPACE, *arguments]
    command = [*_unshare(), *demo]
    os.execvp(command[0], command)  # noqa: S606 - our own command line


def veth_network() -> GooseNetwork:
    """Lays the cable, inside the namespace."""
    _run(_LAY_CABLE).check_returncode()
    return GooseNetwork(
        driver_interface="veth1",
        mock_interface="veth0",
        explanation="real Ethernet frames over a veth pair, in a network namespace of the demo's own",
    )


def udp_network(port: int, reason: str) -> GooseNetwork:
    """No namespace, hence no raw sockets: whole frames over UDP on 127.0.0.1."""
    return GooseNetwork(
        driver_interface=f"udp:0:{port}",
        mock_interface=f"udp:{port}",
        explanation=f"Ethernet frames over UDP port {port}, as a network namespace cannot be had: {reason}",
    )


def _unshare() -> list[str]:
    return ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-Urn"]


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own
