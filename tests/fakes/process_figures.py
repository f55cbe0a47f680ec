"""What processes of this machine use, from /proc."""

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Figures:
    rss_mib: float
    descriptors: int
    threads: int
    cpu_s: float


def figures(pid: int) -> Figures:
    """OSError if there is no such process any more."""
    directory = Path(f"/proc/{pid}")
    fields = (directory / "stat").read_text().rpartition(")")[2].split()
    return Figures(
        rss_mib=int(fields[21]) * _PAGE_BYTES / 2**20,
        descriptors=len(os.listdir(directory / "fd")),  # noqa: PTH208 - names alone are counted
        threads=int(fields[17]),
        cpu_s=(int(fields[11]) + int(fields[12])) / _TICKS_PER_S,
    )


def thirds(values: list[float]) -> tuple[float, float]:
    """Means of the first and of the last third."""
    count = max(1, len(values) // 3)
    return sum(values[:count]) / count, sum(values[-count:]) / count
