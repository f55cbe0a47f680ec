"""Facts about the machine and the installation that whoever reads a field log asks for. Nothing here fails:
what cannot be found out is said so.
"""

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from re import match

from .. import __version__

LINES = 5_000
"""So many lines of the process log are packed, at most."""
LOG_BYTES = 4 * 2**20
"""And no more than that."""
UNIT = "fusioncharger"
COMMAND_TIMEOUT_S = 20.0
UNKNOWN = "not known"


def versions_text() -> str:
    """Versions of package, Python and libraries."""
    lines = [f"fusioncharger {__version__}", f"python {platform.python_version()}"]
    names = sorted(
        {
            found[0]
            for one in requires("fusioncharger") or ()
            if " extra == " not in one and (found := match(r"[\w.-]+", one))
        }
    )
    for name in names:
        try:
            lines.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue  # of an extra that is not installed
    return "\n".join(lines) + "\n"


def host_text(journal: Path) -> str:
    """Kernel, distribution, CPU, memory, disks, interfaces, clock."""
    rows = [*_system(), *_disks(journal), *_interfaces(), ("clock", _time_sync())]
    return "".join(f"{name:<24}{value}\n" for name, value in rows)


def process_log(path: Path | None) -> tuple[str, str]:
    """The last lines of the process log, and "" or why there are none. `path`: its file; None: journalctl."""
    if path is not None:
        try:
            with path.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_BYTES))
                return _last_lines(file.read().decode("utf-8", "replace")), ""
        except OSError as error:
            return "", f"{path}: cannot be read: {error.strerror or error}"
    if shutil.which("journalctl") is None:
        return "", "there is no journalctl here; name the file that holds it: --process-log FILE"
    text = _output("journalctl", "--unit", UNIT, "--no-pager", "--lines", str(LINES), "--output", "short-iso")
    if not text or text.startswith("-- No entries"):
        return "", f"systemd's journal has nothing of the unit {UNIT}, or may not be read by this user"
    return _last_lines(text), ""


def _last_lines(text: str) -> str:
    return "".join(text.splitlines(keepends=True)[-LINES:])


def _system() -> Iterator[tuple[str, str]]:
    uname = platform.uname()
    yield "kernel", f"{uname.system} {uname.release} {uname.version} {uname.machine}"
    release = _fields(Path("/etc/os-release"), "=")
    yield "distribution", release.get("PRETTY_NAME", UNKNOWN).strip('"')
    yield "python", f"{platform.python_implementation()} {platform.python_version()}"
    cpu = _fields(Path("/proc/cpuinfo"), ":")
    model = cpu.get("model name") or cpu.get("Model") or cpu.get("Hardware") or UNKNOWN
    yield "cpu", f"{os.cpu_count()} x {model}"
    yield "memory", _fields(Path("/proc/meminfo"), ":").get("MemTotal", UNKNOWN)
    yield "uptime", f"{_text(Path('/proc/uptime')).partition('.')[0] or UNKNOWN} s"
    yield "load", _text(Path("/proc/loadavg")) or UNKNOWN
    yield "boot id", _text(Path("/proc/sys/kernel/random/boot_id")) or UNKNOWN


def _disks(journal: Path) -> Iterator[tuple[str, str]]:
    for name, path in (("disk of /", Path("/")), ("disk of the journal", journal)):
        try:
            usage = shutil.disk_usage(path)
        except OSError as error:
            yield name, f"{path}: {error.strerror or error}"
        else:
            yield name, f"{path}: {usage.free / 2**30:.1f} GiB free of {usage.total / 2**30:.1f}"


def _interfaces() -> Iterator[tuple[str, str]]:
    directory = Path("/sys/class/net")
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        state, mac = _text(path / "operstate") or UNKNOWN, _text(path / "address") or "none"
        yield f"interface {path.name}", f"{state}, MAC {mac}, MTU {_text(path / 'mtu') or UNKNOWN}"


def _time_sync() -> str:
    if shutil.which("timedatectl") is None:
        return f"synchronised: {UNKNOWN} (no timedatectl)"
    found = dict(line.split("=", 1) for line in _output("timedatectl", "show").splitlines() if "=" in line)
    return f"synchronised: {found.get('NTPSynchronized', UNKNOWN)}, NTP: {found.get('NTP', UNKNOWN)}"


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""


def _fields(path: Path, separator: str) -> dict[str, str]:
    """`name = value` lines; of a name that comes again, the first."""
    found: dict[str, str] = {}
    for line in _text(path).splitlines():
        name, _, value = line.partition(separator)
        found.setdefault(name.strip(), value.strip())
    return found


def _output(*command: str) -> str:
    """What a command says; "" if it fails."""
    try:
        done = subprocess.run(  # noqa: S603 - fixed commands, found in PATH
            command, capture_output=True, text=True, errors="replace", timeout=COMMAND_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout
