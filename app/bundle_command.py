"""`fusioncharger bundle --since 2h -o case.zip`: what somebody elsewhere needs to find a fault, in a file.
`fusioncharger bundle --verify case.zip` checks one (bundle_verify.py).

    README.txt        what is in here, and the commands that replay it
    log/*.mcap        the segments of the journal in which something was recorded since then
    config.toml       the configuration, without what looks like a secret
    versions.txt      of package, Python, libraries
    host.txt          kernel, distribution, CPU, disks, interfaces, clock
    process.log       the last lines of the process log
    SHA256SUMS        of all these; `sha256sum -c SHA256SUMS` checks them

Exit codes of packing: 0 packed, 1 it could not be written, 2 usage, configuration or no log.
"""

import argparse
import hashlib
import os
import re
import sys
import time
import zipfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from .. import __version__
from ..messages.config import Config, ConfigError, parse
from ..replay.logs import Log, open_logs
from ..replay.reader import LogError
from ..replay.whole_file import whole_file
from .bundle_host import host_text, process_log, versions_text
from .bundle_secrets import known_secrets, redacted
from .bundle_slice import NS_PER_S, Piece, last_utc_ns, slice_since
from .bundle_verify import LIVE, SUMS, verify_bundle
from .progress import Advance, progress

OK = 0
FAILED = 1
USAGE = 2
BLOCK_BYTES = 2**20
_UNITS_S = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}


class _BundleError(Exception):
    """The text is for the user."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `bundle` takes."""
    parser.add_argument(
        "--since", type=duration_s, default="2h", metavar="TIME", help="how far back: 90m, 2h, 3d (default: 2h)"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="the file to make (.zip)")
    parser.add_argument(
        "--verify",
        type=Path,
        metavar="FILE",
        help="check a bundle instead: its checksums, and that its log replays",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="the driver's configuration (TOML)")
    parser.add_argument("--journal", type=Path, metavar="DIR", help="default: the configuration's journal.dir")
    parser.add_argument(
        "--process-log",
        type=Path,
        metavar="FILE",
        help="default: journalctl -u fusioncharger, where there is one",
    )


def duration_s(text: str) -> float:
    """`2h` in seconds. ValueError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d)", text.strip())
    if found is None:
        msg = f"{text!r} is no time; write it as 90m, 2h or 3d"
        raise argparse.ArgumentTypeError(msg)
    return float(found[1]) * _UNITS_S[found[2]]


def bundle_command(arguments: argparse.Namespace) -> int:
    """Pack, and say what was packed; the exit code."""
    if (arguments.output is None) == (arguments.verify is None):
        print("say which file to make, -o FILE, or which to check, --verify FILE", file=sys.stderr)
        return USAGE
    if arguments.verify is not None:
        return verify_bundle(arguments.verify)
    output: Path = arguments.output
    if output.exists():
        return _exists(output)
    try:
        config, config_text = _config(arguments.config)
        journal = _journal(arguments, config)
        log = open_logs([journal])
        pieces = _pieces(log, journal, arguments.since)
        secrets = known_secrets(config) if config is not None else ()
        texts = _texts(arguments, journal, log, pieces, redacted(config_text, secrets), secrets)
        _write(output, texts, pieces)
    except (ConfigError, LogError, _BundleError) as error:
        print(error, file=sys.stderr)
        return USAGE
    except FileExistsError as error:
        return _exists(error.filename)
    except OSError as error:
        print(f"{output}: cannot be written: {error.strerror or error}", file=sys.stderr)
        return FAILED
    segments = "1 segment" if len(pieces) == 1 else f"{len(pieces)} segments"
    size_kib = output.stat().st_size / 2**10
    size = f"{size_kib:.0f} KiB" if size_kib < 2**10 else f"{size_kib / 2**10:.1f} MiB"
    print(f"{output}: {segments} of the log, {size}; look into it before you send it")
    return OK


def _exists(path: Path | str) -> int:
    print(f"{path}: exists already, and is not overwritten; name another file with -o", file=sys.stderr)
    return USAGE


def _config(path: Path | None) -> tuple[Config | None, str]:
    if path is None:
        return None, ""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        msg = f"{path}: cannot be read: {reason}"
        raise ConfigError(msg) from None
    return parse(text, str(path)), text


def _journal(arguments: argparse.Namespace, config: Config | None) -> Path:
    if arguments.journal is not None:
        return Path(arguments.journal)
    if config is None:
        msg = "where the journal is has to be said: --config FILE, or --journal DIR"
        raise _BundleError(msg)
    journal = Path(config.journal.dir)
    if not journal.exists():
        msg = (
            f"{journal}: there is no such directory (journal.dir in {arguments.config}; it is looked for where "
            "the program was started); say --journal DIR"
        )
        raise _BundleError(msg)
    return journal


def _pieces(log: Log, journal: Path, since_s: float) -> tuple[Piece, ...]:
    since_utc_ns = time.time_ns() - round(since_s * NS_PER_S)
    pieces = slice_since(log, since_utc_ns)
    if not pieces:
        newest = max(last_utc_ns(segment) for segment in log.segments)
        msg = (
            f"{journal}: nothing was recorded since {_utc(since_utc_ns)}; the last was at {_utc(newest)}: "
            "go further back with --since"
        )
        raise _BundleError(msg)
    return pieces


def _texts(
    arguments: argparse.Namespace,
    journal: Path,
    log: Log,
    pieces: tuple[Piece, ...],
    config_text: str,
    secrets: tuple[str, ...],
) -> dict[str, str]:
    """The texts in the bundle, by name."""
    said, why_not = process_log(arguments.process_log)
    if why_not and arguments.process_log is not None:
        raise _BundleError(why_not)
    texts = {"versions.txt": versions_text(), "host.txt": host_text(journal)}
    texts["process.log"] = redacted(said, secrets) if said else f"(none: {why_not or 'it is empty'})\n"
    if config_text:
        texts["config.toml"] = config_text
    else:
        texts["config.toml"] = (
            "# No --config was given. Every segment of the log holds the configuration, too.\n"
        )
    unreadable = [f"{path.name}: {reason}" for path, reason in log.unreadable]
    texts["README.txt"] = _readme(pieces, unreadable, arguments.since)
    return texts


def _readme(pieces: tuple[Piece, ...], unreadable: list[str], since_s: float) -> str:
    live = [piece.path.name for piece in pieces if piece.is_live]
    lines = [
        f"Made by fusioncharger {__version__} at {_utc(time.time_ns())}, of the last {since_s / 3600:g} h.",
        "",
        "Check it:           fusioncharger bundle --verify FILE.zip; or, unpacked, sha256sum -c SHA256SUMS",
        f"Install:            the version in versions.txt (fusioncharger {__version__}), or a later one",
        "What is in the log: fusioncharger log info log",
        "Replay it:          fusioncharger replay log",
        "State at a moment:  fusioncharger replay log --at 10:00:05",
        "See it:             fusioncharger view log -o report.html",
        "",
        "Segments, each with the state of everything at its beginning:",
        *(f"  log/{piece.path.name}  {piece.size_bytes} bytes" for piece in pieces),
    ]
    if live:
        lines += [
            "",
            f"{', '.join(live)} was being written: it ends after the last record that was whole, and replay",
            "says that it is damaged after its last turn. That is the cut, no fault.",
        ]
    if unreadable:
        lines += ["", "Files of the journal that cannot be read, and are not in here:"]
        lines += [f"  {text}" for text in unreadable]
    lines += [
        "",
        "No passwords, keys or certificates are in here: the driver does not record them, and config.toml and",
        "process.log are without what looks like one: (left out).",
        "",
    ]
    return "\n".join(lines)


# --- writing ---------------------------------------------------------------------------------------------


def _write(output: Path, texts: dict[str, str], pieces: Iterable[Piece]) -> None:
    """The whole file, or none. FileExistsError, OSError."""
    with whole_file(output) as part:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w+b") as file:
            _fill(file, texts, pieces)
            file.flush()
            os.fsync(file.fileno())


def _fill(file: BinaryIO, texts: dict[str, str], pieces: Iterable[Piece]) -> None:
    pieces = tuple(pieces)
    sums: dict[str, str] = {}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bundle:
        with progress("packing", sum(piece.size_bytes for piece in pieces)) as advance:
            for piece in pieces:
                name = f"log/{piece.path.name}"
                sums[name] = _pack(bundle, name, piece, advance)
        for name, text in texts.items():
            data = text.encode()
            sums[name] = hashlib.sha256(data).hexdigest()
            bundle.writestr(name, data)
        bundle.writestr(SUMS, "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())))


def _pack(bundle: zipfile.ZipFile, name: str, piece: Piece, advance: Advance) -> str:
    """Pack a segment; its checksum."""
    digest = hashlib.sha256()
    left = piece.size_bytes
    entry = zipfile.ZipInfo(name, time.localtime(piece.path.stat().st_mtime)[:6])
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.comment = LIVE if piece.is_live else b""
    with piece.path.open("rb") as source, bundle.open(entry, "w", force_zip64=True) as target:
        while left and (block := source.read(min(left, BLOCK_BYTES))):
            digest.update(block)
            target.write(block)
            left -= len(block)
            advance(len(block))
    return digest.hexdigest()


def _utc(utc_ns: int) -> str:
    return f"{datetime.fromtimestamp(utc_ns // NS_PER_S, UTC):%Y-%m-%dT%H:%M:%SZ}"
