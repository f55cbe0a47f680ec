"""Figures: what was measured, beside its limit; as a table for people, and as JSON with the machine's facts."""

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec
from msgspec import Struct

LIBRARIES = ("msgspec", "pykka", "pymodbus", "scapy", "paho-mqtt", "mcap", "cryptography")


class Figure(Struct, kw_only=True):
    """One row of the table."""

    theme: str
    name: str
    unit: str
    values: dict[str, float]
    """"" for the only one; else "p50", "p95", "p99", "max"."""
    at_most: dict[str, float] = {}
    at_least: dict[str, float] = {}
    count: int = 1
    """So many were measured."""

    @property
    def holds(self) -> bool | None:
        """Whether every limit is kept; None: there is none."""
        if not self.at_most and not self.at_least:
            return None
        return all(self.values[name] <= limit for name, limit in self.at_most.items()) and all(
            self.values[name] >= limit for name, limit in self.at_least.items()
        )


def spread(
    theme: str, name: str, unit: str, measured: Sequence[float], at_most: dict[str, float] | None = None
) -> Figure:
    """How the values are spread."""
    cuts = statistics.quantiles(measured, n=100, method="inclusive")
    values = {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98], "max": max(measured)}
    return Figure(theme=theme, name=name, unit=unit, values=values, at_most=at_most or {}, count=len(measured))


def best_us(work: Callable[[], object], *, calls: int = 2000, rounds: int = 25) -> float:
    """What a call costs, us: of many rounds the fastest, since everything else on a machine only adds to it."""
    best_ns = float("inf")
    for _ in range(rounds):
        begin_ns = time.thread_time_ns()
        for _ in range(calls):
            work()
        best_ns = min(best_ns, (time.thread_time_ns() - begin_ns) / calls)
    return best_ns / 1000


# --- the table -----------------------------------------------------------------------------------------------


def table(figures: Sequence[Figure]) -> str:
    """Markdown."""
    lines = []
    theme = ""
    for figure in figures:
        if figure.theme != theme:
            theme = figure.theme
            lines += ["", f"| {theme} | measured | limit | |", "|---|---|---|---|"]
        mark = {True: "holds", False: "**exceeded**", None: ""}[figure.holds]
        count = f" (n = {figure.count})" if figure.count > 1 else ""
        lines.append(f"| {figure.name}{count} | {_measured(figure)} | {_limits(figure)} | {mark} |")
    return "\n".join(lines[1:])


def _measured(figure: Figure) -> str:
    shown = ", ".join(f"{name} {_number(value)}".strip() for name, value in figure.values.items())
    return f"{shown} {figure.unit}"


def _limits(figure: Figure) -> str:
    parts = [f"{name} ≤ {_number(limit)}".strip() for name, limit in figure.at_most.items()]
    parts += [f"{name} ≥ {_number(limit)}".strip() for name, limit in figure.at_least.items()]
    return f"{', '.join(parts)} {figure.unit}" if parts else ""


def _number(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.3g}"


# --- the file ------------------------------------------------------------------------------------------------


def machine() -> dict[str, object]:
    """What the figures depend on."""
    cpu = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    memory_kib = next(int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal"))
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": memory_kib // 1024,
        "load_before": os.getloadavg()[0],
        "kernel": platform.release(),
        "system": _system(),
        "python": f"Python {platform.python_version()} ({platform.python_compiler()})",
        "versions": {name: version(name) for name in LIBRARIES},
        "commit": _commit(),
    }


def write(path: Path, facts: dict[str, object], figures: Sequence[Figure]) -> None:
    """The file."""
    content = {"machine": facts, "figures": figures}
    path.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.system()


def _commit() -> str:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
