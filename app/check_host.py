"""What the driver needs of the machine that it runs on: Ethernet interface, password file, certificates, room
for the journal. Nothing is changed: what is tried is undone at once.
"""

import fcntl
import os
import shutil
import socket
import stat
import struct
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from ..io.goose_port import GoosePortError, open_port
from ..io.tls import TlsFiles, TlsFilesError, client_context, examine
from ..messages.config import Config, ConfigError
from .check_table import Level, Row, error, ok, warning
from .run_command import load_password

_SIOCGIFFLAGS = 0x8913
_SIOCGIFHWADDR = 0x8927
_IFF_UP = 0x1
_IFF_RUNNING = 0x40
"""Up, and the cable is in."""
_ARPHRD_ETHER = 1

ROOM_BYTES = 2**30
"""What should be free for the journal: 16 segments of 64 MiB."""

CERTIFICATE_KEYS = ("psu_ca_cert", "client_cert", "client_key")


def check_interface(interface: str) -> list[Row]:
    """The GOOSE interface, and the permission to use it."""
    if interface.startswith("udp:"):
        return [_check_udp(interface)]
    row = _interface_row(interface)
    raw = _raw_frames_row()
    if Level.ERROR not in {row.level, raw.level}:
        try:
            open_port(interface).close()
        except GoosePortError as problem:
            raw = error(raw.what, str(problem))
    return [row, raw]


def _check_udp(interface: str) -> Row:
    what = "GOOSE over UDP"
    try:
        open_port(interface).close()
    except GoosePortError as problem:
        return error(what, str(problem))
    return warning(what, f"{interface}: for development only, no power unit hears it; the port is free")


def _interface_row(interface: str) -> Row:
    what = f"interface {interface}"
    names = [name for _, name in socket.if_nameindex()]
    if interface not in names:
        return error(what, f"there is no such interface; there are: {', '.join(sorted(names))}")
    hardware_type, mac = struct.unpack("H6s", _interface_request(_SIOCGIFHWADDR, interface)[:8])
    (flags,) = struct.unpack("H", _interface_request(_SIOCGIFFLAGS, interface)[:2])
    if hardware_type != _ARPHRD_ETHER:
        return error(what, "is no Ethernet interface")
    shown = f"MAC {mac.hex(':')}"
    if not flags & _IFF_UP:
        return error(what, f"is down ({shown}); bring it up: ip link set {interface} up")
    if not flags & _IFF_RUNNING:
        return warning(what, f"is up, but has no link ({shown}): is the cable to the power unit in?")
    return ok(what, f"up, link, {shown}")


def _interface_request(request: int, interface: str) -> bytes:
    """struct ifreq, answered by the kernel, without the name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        return fcntl.ioctl(any_socket, request, struct.pack("16s24x", interface.encode()))[16:]


def _raw_frames_row() -> Row:
    what = "raw Ethernet frames"
    try:
        # Protocol 0: receives nothing.
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
    except PermissionError:
        python = Path(sys.executable).resolve()
        return error(
            what,
            "not permitted: CAP_NET_RAW is missing. For the service: AmbientCapabilities=CAP_NET_RAW, as in "
            f"docs/fusioncharger.service; by hand: as root, or `setcap cap_net_raw+ep {python}` (which gives "
            "it to whatever this Python runs)",
        )
    except OSError as problem:
        return error(what, f"not possible here: {problem.strerror}")
    if os.geteuid() == 0:
        return ok(what, "permitted, as this is root; another user needs CAP_NET_RAW")
    return ok(what, "permitted")


def check_password(config: Config) -> tuple[Row | None, str | None]:
    """The row about the broker's password file, if there is one; and the password, if it can be used."""
    path = config.mqtt.password_file
    what = "password file"
    if not path:
        return None, None
    try:
        mode = Path(path).stat().st_mode
        if not stat.S_ISREG(mode):
            # Reading a FIFO would wait for its other end.
            return error(what, f"{path}: is no file"), None
        password = load_password(config, Path("configuration"))
    except OSError as problem:
        return error(what, f"{path}: cannot be read: {problem.strerror}"), None
    except ConfigError as problem:
        return error(what, str(problem).removeprefix("configuration: mqtt.password_file: ")), None
    except ValueError as problem:  # a NUL in the path
        return error(what, f"{path}: {problem}"), None
    if mode & 0o077:
        return warning(what, f"{path}: others may read it (mode {mode & 0o777:04o}); chmod 600 it"), password
    return ok(what, f"{path}: readable"), password


def check_certificates(config: Config) -> list[Row]:
    """The three PEM files."""
    if not config.tls_enabled:
        return [ok("TLS", "off: the session keys cross the cable to the power unit unencrypted")]
    files = tls_files(config)
    findings, ends_at = examine(files, datetime.now(UTC))
    rows = []
    for name, path in zip(CERTIFICATE_KEYS, (files.ca, files.certificate, files.key), strict=True):
        found = [finding for finding in findings if finding.name == name]
        rows += [
            (error if finding.severity == "error" else warning)(name, f"{finding.path}: {finding.text}")
            for finding in found
        ]
        if not found:
            rows.append(ok(name, path))
    # Whatever examine calls by another name must not get lost.
    rows += [
        (error if finding.severity == "error" else warning)(finding.name, f"{finding.path}: {finding.text}")
        for finding in findings
        if finding.name not in CERTIFICATE_KEYS
    ]
    if not any(row.level is Level.ERROR for row in rows):
        try:
            client_context(files, hostname=config.psu_cert_hostname)
        except TlsFilesError as problem:  # a psu_cert_hostname that is none
            rows += [error("TLS", line) for line in str(problem).splitlines()]
    if ends_at is not None and ends_at > datetime.now(UTC):
        days = (ends_at - datetime.now(UTC)).days
        rows.append(ok("certificates", f"valid until {ends_at:%Y-%m-%d %H:%M} UTC, {days} days"))
    return rows


def tls_files(config: Config) -> TlsFiles:
    """The certificate files that a configuration names."""
    return TlsFiles(ca=config.psu_ca_cert, certificate=config.client_cert, key=config.client_key)


def check_journal(directory: str) -> Row:
    """Whether the journal can be written, and for how long there is room."""
    what = "journal"
    try:
        wanted = Path(directory).absolute()
        # The recorder makes the directory, and those above it.
        existing = next(path for path in (wanted, *wanted.parents) if os.path.lexists(path))
        if not existing.is_dir():
            return error(what, f"{existing} is no directory")
        # Leaves nothing behind, and finds out what permissions do not tell: a read-only or full file system.
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"\0")
            file.flush()
        free = shutil.disk_usage(existing).free
    except (OSError, ValueError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else str(problem)
        return error(what, f"{directory} cannot be written: {reason}; charging goes on without it, unrecorded")
    shown = f"{wanted}: {'' if existing == wanted else 'will be made; '}{_size(free)} free"
    if free < ROOM_BYTES:
        return warning(what, f"{shown}; at least {_size(ROOM_BYTES)} should be")
    return ok(what, shown)


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
