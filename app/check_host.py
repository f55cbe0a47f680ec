"""What the driver needs of the machine that it runs on: Ethernet interface, password file, certificates, room
for the journal. Nothing is changed: what is tried is undone at once.
"""

import fcntl
import os
import shutil
import socket
import struct
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from ..io.goose_port import GoosePortError, open_port
from ..io.mqtt_access import BROKER, BrokerAccessError, load_password
from ..io.mqtt_access import tls_files as broker_tls_files
from ..io.tls import TlsFiles, TlsFilesError, client_context, examine, mode_finding
from ..messages.config import Config, MqttConfig
from .check_table import Level, Row, error, ok, warning

_SIOCGIFFLAGS = 0x8913
_SIOCGIFHWADDR = 0x8927
_IFF_UP = 0x1
_IFF_RUNNING = 0x40
"""Up, and the cable is in."""
_ARPHRD_ETHER = 1

ROOM_BYTES = 2**30
"""What should be free for the journal: 16 segments of 64 MiB."""


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


def check_password(broker: MqttConfig) -> Row | None:
    """The row about the broker's password file, if there is one."""
    path = broker.password_file
    what = "password file"
    if not path:
        return None
    try:
        load_password(broker)
        mode = Path(path).stat().st_mode
    except BrokerAccessError as problem:
        return error(what, str(problem).removeprefix("mqtt.password_file: "))
    except OSError as problem:  # gone since
        return error(what, f"{path} cannot be read: {problem.strerror}")
    for finding in mode_finding(what, path, mode, "it"):
        return warning(what, f"{path}: {finding.text}")
    return ok(what, f"{path}: readable")


def check_certificates(config: Config) -> list[Row]:
    """The three PEM files for the power unit."""
    if not config.tls_enabled:
        return [ok("TLS", "off: the session keys cross the cable to the power unit unencrypted")]
    rows = _certificate_rows(tls_files(config), "TLS", config.psu_cert_hostname, "psu_cert_hostname")
    return _with_end(rows, tls_files(config), "certificates")


def check_broker_certificates(broker: MqttConfig) -> list[Row]:
    """The PEM files for the broker."""
    if not broker.tls_enabled:
        if broker.host == "localhost" or broker.host.startswith("127.") or broker.host == "::1":
            return [ok("MQTT TLS", "off; the broker is on this machine")]
        text = "off: whoever is on the way to the broker can read and change what is said, power requests too"
        return [warning("MQTT TLS", text)]
    rows = _certificate_rows(broker_tls_files(broker), "MQTT TLS", broker.host, BROKER.hostname)
    return _with_end(rows, broker_tls_files(broker), "MQTT certificates")


def _with_end(rows: list[Row], files: TlsFiles, what: str) -> list[Row]:
    """The rows, and until when the certificates are valid."""
    now = datetime.now(UTC)
    _, ends_at = examine(files, now)
    if ends_at is not None and ends_at > now:
        rows.append(ok(what, f"valid until {ends_at:%Y-%m-%d %H:%M} UTC, {(ends_at - now).days} days"))
    return rows


def _certificate_rows(files: TlsFiles, what: str, hostname: str, hostname_from: str) -> list[Row]:
    """One for each file, and one for everything that is wrong."""
    findings, _ = examine(files, datetime.now(UTC))
    rows = []
    for name, path in zip(files.names, (files.ca, files.certificate, files.key), strict=True):
        if path is None:
            continue
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
        if finding.name not in files.names
    ]
    if not any(row.level is Level.ERROR for row in rows):
        try:
            client_context(files, hostname=hostname, hostname_from=hostname_from)
        except TlsFilesError as problem:  # a host name that is none
            rows += [error(what, line) for line in str(problem).splitlines()]
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
