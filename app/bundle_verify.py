"""`fusioncharger bundle --verify case.zip`: is it what was packed, and does its log replay as it was recorded?

Exit codes: 0 yes, 1 its log replays otherwise under this version, 2 no bundle, 3 altered or damaged, 4 format
not supported.
"""

import hashlib
import lzma
import struct
import sys
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path, PurePosixPath

from msgspec import Struct

from .. import __version__
from ..replay.logs import Segment, missing_between, open_logs
from ..replay.reader import EndKind, LogError, UnsupportedFormatError
from ..replay.replayer import replay
from .log_files import DAMAGED, OK, UNSUPPORTED, USAGE
from .progress import Advance, progress

DIVERGED = 1
SUMS = "SHA256SUMS"
LIVE = b"it was being written"
"""Comment on a packed segment: that it ends without an end is right."""
_BLOCK_BYTES = 2**20
_MAX_SUMS_BYTES = 2**24
_MOST_DEFLATED = 1040
"""Deflate makes no more of a byte than 1032. Who wants more lets entries share their bytes: a zip bomb."""
_CANNOT_UNPACK = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OverflowError,
    RuntimeError,
    ValueError,
)
"""What zipfile raises for what is altered, or packed in a way that `bundle` does not: of a later version or
encrypted (RuntimeError), names that are no UTF-8, places before the file's beginning (ValueError)."""


class _Verdict(Struct):
    """What the log came to, segment by segment."""

    turns: int = 0
    outputs: int = 0
    code: int = OK


def verify_bundle(path: Path) -> int:
    """Check it, and say what came of it; the exit code."""
    if path.exists() and not path.is_file():  # opening a FIFO waits for whoever may write to it
        print(f"{path}: no bundle: not a file", file=sys.stderr)
        return USAGE
    try:
        try:
            bundle = zipfile.ZipFile(path)
        except _CANNOT_UNPACK:
            print(f"{path}: no bundle: not a zip file", file=sys.stderr)
            return USAGE
        with bundle, tempfile.TemporaryDirectory() as directory:
            return _verify(path, bundle, Path(directory))
    except OSError as error:
        print(f"{error.filename or path}: {error.strerror or error}", file=sys.stderr)
    return USAGE


def _verify(path: Path, bundle: zipfile.ZipFile, directory: Path) -> int:
    total_bytes = sum(entry.file_size for entry in bundle.infolist())
    if total_bytes > _MOST_DEFLATED * path.stat().st_size:
        print(
            f"{path}: no bundle: its entries want to be {total_bytes} bytes, which it cannot hold",
            file=sys.stderr,
        )
        return USAGE
    sums = _sums(bundle)
    if not sums:
        print(f"{path}: no bundle: there is no {SUMS} in it", file=sys.stderr)
        return USAGE
    with progress("checking", total_bytes) as advance:
        problems = list(_altered(bundle, sums, directory, advance))
    for problem in problems:
        print(f"{path}: {problem}", file=sys.stderr)
    if problems:
        return DAMAGED
    verdict = _Verdict()
    try:
        segments = open_logs([directory]).segments
        with progress("replaying", sum(segment.size_bytes for segment in segments)) as advance:
            ends = []
            for segment in segments:
                ends.append(_replay(bundle, segment, verdict))
                advance(segment.size_bytes)
        for (former, segment), last_turn in zip(pairwise(segments), ends, strict=False):
            missing = missing_between(former, last_turn, segment) if last_turn is not None else ""
            if missing:
                print(f"log: {missing}; so it was when it was packed")
    except LogError as error:
        print(str(error).replace(f"{directory}/", "log/"), file=sys.stderr)
        return UNSUPPORTED if isinstance(error, UnsupportedFormatError) else DAMAGED
    print(f"{path}: {len(sums)} files are as they were packed", end="")
    if verdict.code != DIVERGED and verdict.turns:
        print(f"; the log replays as identical: {verdict.turns} turns, {verdict.outputs} outputs", end="")
    print()
    return verdict.code


def _sums(bundle: zipfile.ZipFile) -> dict[str, str]:
    """SHA-256 by name; empty: there are none."""
    try:
        if bundle.getinfo(SUMS).file_size > _MAX_SUMS_BYTES:
            return {}
        lines = bundle.read(SUMS).decode().splitlines()
    except (KeyError, UnicodeDecodeError, *_CANNOT_UNPACK):
        return {}
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _altered(bundle: zipfile.ZipFile, sums: dict[str, str], directory: Path, advance: Advance) -> Iterator[str]:
    """What is not as it was packed. The segments are unpacked into the directory."""
    names = Counter(bundle.namelist())
    yield from (f"{name} is not of the bundle" for name in names if name not in sums and name != SUMS)
    yield from (f"{name} is there more than once" for name in sorted(names) if names[name] > 1)
    for name, digest in sums.items():
        if name not in names:
            yield f"{name} is missing"
        elif _digest(bundle, name, directory, advance) != digest:
            yield f"{name} is not what was packed: its checksum fails"


def _digest(bundle: zipfile.ZipFile, name: str, directory: Path, advance: Advance) -> str:
    """Of an entry; empty if it cannot be unpacked."""
    place = PurePosixPath(name)
    target = directory / place.name if place.parent == PurePosixPath("log") else Path("/dev/null")
    digest = hashlib.sha256()
    try:
        with bundle.open(name) as source, target.open("wb") as unpacked:
            while block := source.read(_BLOCK_BYTES):
                digest.update(block)
                unpacked.write(block)
                advance(len(block))
    except _CANNOT_UNPACK:
        return ""
    return digest.hexdigest()


def _replay(bundle: zipfile.ZipFile, segment: Segment, verdict: _Verdict) -> int | None:
    """Its last turn; None: it was not read to its end."""
    name = f"log/{segment.path.name}"
    with segment.read() as reader:
        found = replay(reader)
        ending = reader.ending
    verdict.turns += found.turns
    verdict.outputs += found.outputs
    if found.divergence is not None:
        version = segment.header.versions.get("fusioncharger", "?")
        print(
            f"{name}: turn {found.divergence.turn.number} replays otherwise under version {__version__} than "
            f"under {version}, which recorded it; unpack it, and `fusioncharger replay log` shows how",
            file=sys.stderr,
        )
        verdict.code = DIVERGED
        return None
    assert ending is not None  # noqa: S101 - all turns were read
    if found.skipped:
        print(f"{name}: {found.skipped}", file=sys.stderr)
        verdict.code = verdict.code or DAMAGED
    elif ending.kind is EndKind.DAMAGED:
        if bundle.getinfo(name).comment == LIVE:
            print(f"{name}: {LIVE.decode()} when it was packed: it ends after turn {ending.last_turn}")
        else:
            print(f"{name}: damaged after turn {ending.last_turn}: {ending.text}", file=sys.stderr)
            verdict.code = verdict.code or DAMAGED
    return ending.last_turn
