"""A bundle from the field (zip), as `bundle --verify` takes it.

input   0, file                             any bytes
        1.., steps: operation, arguments    a true bundle with entries and bytes altered, its sums right again
"""

import contextlib
import hashlib
import io
import tempfile
import warnings
import zipfile
from pathlib import Path

from fusioncharger.app.bundle_verify import SUMS, verify_bundle
from fuzz.source import Source
from fuzz.target_journal import COMPRESSED, PLAIN, patched

_folder = tempfile.TemporaryDirectory(
    prefix="fuzz-bundle-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None
)
_file = Path(_folder.name) / "case.zip"
_LOG = "log/20261118T110640Z-01234567-0001.mcap"
_NAMES = (
    "configuration.toml",
    "host.json",
    _LOG,
    "log/..",
    "log/",
    "../x",
    "/etc/passwd",
    "log/a/b",
    "log/x.mcap",
    SUMS,
)
_EXIT_CODES = range(5)
_MAX_ENTRIES = 12


def check(data: bytes) -> None:
    source = Source(data)
    _file.write_bytes(source.rest() if source.below(4) == 0 else bundle(source))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        code = verify_bundle(_file)
    assert code in _EXIT_CODES
    assert code == 0 or said.getvalue(), "refused without a word"


def bundle(source: Source) -> bytes:
    entries = [("configuration.toml", b"x"), (_LOG, PLAIN), ("host.json", b"{}")]
    for _ in range(source.below(4)):
        name, content = source.choice(_NAMES), source.choice((PLAIN, COMPRESSED, b"", source.chunk()))
        entries.insert(source.below(len(entries) + 1), (name, patched(content, source, source.below(3))))
    if source.below(2) == 0:
        sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in entries)
        entries.append((SUMS, sums.encode()))
    packed = io.BytesIO()
    method = source.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED))
    with warnings.catch_warnings(), zipfile.ZipFile(packed, "w", method) as made:
        warnings.simplefilter("ignore")  # names that are there twice are meant
        for name, content in entries[:_MAX_ENTRIES]:
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            with made.open(info, "w") as entry:
                entry.write(content)
    return patched_at_end(packed.getvalue(), source)


def patched_at_end(data: bytes, source: Source) -> bytes:
    """Altered in the last kilobyte, where the directory is, or anywhere."""
    altered = bytearray(data)
    for _ in range(source.below(5)):
        place = source.number(2)
        at = len(altered) - 1 - place % 1024 if place & 0x8000 else place % len(altered)
        altered[at] ^= source.number()
    return bytes(altered)
