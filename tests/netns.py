"""A network of one's own for a test: real Ethernet interfaces, nothing of the machine's own touched.

    with network_namespace():
        open_port("veth0"), open_port("veth1")      # two ends of one cable

The namespace belongs to the calling thread and to the threads and processes that it starts inside the block.
Nothing has a name outside, so it is gone when the last of these and the last socket are, whatever happens.
"""

import ctypes
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from requirements import require_program, unavailable

_CLONE_NEWNET = 0x40000000

# os.unshare and os.setns came with Python 3.12.
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def network_namespace() -> Iterator[None]:
    """Enter a new namespace in which lo is up and a veth pair, veth0 and veth1."""
    require_program("ip")
    with Path("/proc/thread-self/ns/net").open("rb") as outside:
        # Into where we are: in a user namespace that could be refused, and then there would be no way back.
        if _libc.setns(outside.fileno(), _CLONE_NEWNET) != 0 or _libc.unshare(_CLONE_NEWNET) != 0:
            why = os.strerror(ctypes.get_errno())
            unavailable(
                f"no network namespace ({why}): run as root, or in `unshare -Urn` after `ip link set lo up`"
            )
        try:
            ip("link", "set", "lo", "up")
            ip("link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
            ip("link", "set", "veth0", "up")
            ip("link", "set", "veth1", "up")
            await_up("veth0")
            await_up("veth1")
            yield
        finally:
            if _libc.setns(outside.fileno(), _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "cannot leave the network namespace")


def ip(*arguments: str) -> None:
    """Run iproute2's `ip` in the thread's namespace."""
    subprocess.run(["ip", *arguments], check=True)


def await_up(interface: str) -> None:
    """Wait until the kernel has noticed that the cable's other end is up; until then it drops what is sent.

    It says nothing of that: `send` succeeds.
    """
    deadline = time.monotonic() + 10
    shown = ""
    while "state UP" not in shown:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{interface} is not up: {shown}")
        command = ["ip", "link", "show", interface]
        shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
