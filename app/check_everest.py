"""`fusioncharger check --everest`: prints a configuration made from EVerest's (docs/everest.md)."""

import difflib
import sys
from pathlib import Path

from .check_everest_yaml import EverestFileError, Mapping, read_everest
from .check_table import printable
from .everest_config import migrate

EXIT_OK = 0
EXIT_INCOMPLETE = 1
EXIT_UNREADABLE = 2

_MAX_FILE_BYTES = 2**20


def print_migration(path: Path, module_id: str) -> int:
    """Print the TOML for the module to standard output, notes to standard error; the exit code."""
    try:
        root = read_everest(_read(path))
    except EverestFileError as problem:
        print(printable(f"{path}: {problem}"), file=sys.stderr)
        return EXIT_UNREADABLE
    modules = root.mapping("active_modules")
    why = _why_not_there(modules, module_id)
    if why:
        print(printable(f"{path}: {why}"), file=sys.stderr)
        return EXIT_INCOMPLETE
    migration = migrate(root, module_id, path.name)
    print(migration.toml, end="")
    sys.stdout.flush()
    for note in migration.notes:
        print(f"note: {printable(note)}", file=sys.stderr)
    for missing in migration.problems:
        print(f"error: {printable(missing)}", file=sys.stderr)
    return EXIT_INCOMPLETE if migration.problems else EXIT_OK


def _why_not_there(modules: Mapping, module_id: str) -> str | None:
    if not modules.entries:
        return "has no active_modules: is it a configuration of EVerest?"
    if modules.odd_keys:
        key, line = next(iter(modules.odd_keys.items()))
        return f"line {line}: the module id {key!r} is no text to YAML; put it in quotes"
    if module_id not in modules.entries:
        near = difflib.get_close_matches(module_id, modules.entries, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(modules.entries)}"
        return f"active_modules has no module {module_id!r}; {hint}"
    if not isinstance(modules.entries[module_id], Mapping):
        return f"active_modules.{module_id} is no mapping"
    return None


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        msg = f"cannot be read: {error.strerror}"
        raise EverestFileError(msg) from None
    if len(data) > _MAX_FILE_BYTES:
        msg = "is larger than 1 MiB: is it a configuration of EVerest?"
        raise EverestFileError(msg)
    return _decoded(data)


def _decoded(data: bytes) -> str:
    """The file's text. EverestFileError."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        msg = f"not UTF-8 text: byte {error.start} is 0x{data[error.start]:02x}"
        raise EverestFileError(msg) from None
