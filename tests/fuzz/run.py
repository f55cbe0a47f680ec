"""Runs one fuzz target (docs/fuzzing.md): `make fuzz TARGET=… SECONDS=…`.

    run.py TARGET --seconds N      atheris, or hypothesis where that cannot be installed
    run.py TARGET FILE …           runs the target on these inputs: to see a finding again
    run.py TARGET --minimise       atheris: what was kept and reaches something of its own goes into the corpus

Inputs that reach something new are kept in .fuzz/TARGET/corpus, a finding in .fuzz/TARGET/.
"""

import argparse
import importlib
import logging
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

TESTS = Path(__file__).resolve().parents[1]
CORPUS = TESTS / "corpus"
WORK = TESTS.parent / ".fuzz"
MAX_INPUT_BYTES = 4096
MAX_INPUT_S = 10
MAX_CORPUS_FILE_BYTES = 700
MAX_MEMORY_MB = 2048

TARGETS = (
    "bundle",
    "config",
    "core",
    "everest",
    "goose",
    "journal",
    "modbus",
    "mqtt",
    "psu_mock",
    "scenario",
    "tls",
)
_INSTRUMENTED = ["fusioncharger", "mcap", "pymodbus", "tomllib", "yaml", "zipfile"]


def load(target: str) -> Callable[[bytes], None]:
    """The function that takes a target's inputs. It raises on a finding."""
    check: Callable[[bytes], None] = importlib.import_module(f"fuzz.target_{target}").check
    return check


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("inputs", nargs="*", type=Path)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--minimise", action="store_true")
    # libFuzzer's merge runs this program again, with options of its own.
    arguments, options = parser.parse_known_args()
    if arguments.seconds < 1:  # libFuzzer takes 0 for: without end
        parser.error("--seconds: 1 or more")
    if unknown := [option for option in options if option.startswith("--")]:
        parser.error(f"unknown: {' '.join(unknown)}")
    sys.path.insert(0, str(TESTS))
    logging.disable()  # pymodbus tells of every PDU that it does not know
    if arguments.inputs:
        return run_inputs(arguments.target, arguments.inputs)
    try:
        import atheris  # noqa: PLC0415
    except ImportError:
        if arguments.minimise:
            parser.error("--minimise needs atheris")
        print("atheris is not installed here: hypothesis instead, which sees no coverage")
        return run_hypothesis(arguments.target, arguments.seconds)
    if not options:
        options = libfuzzer_options(arguments.target, arguments.seconds, minimise=arguments.minimise)
    return run_atheris(atheris, arguments.target, options)


def run_inputs(target: str, paths: list[Path]) -> int:
    check = load(target)
    for path in paths:
        try:
            check(path.read_bytes())
        except Exception as error:
            error.add_note(f"with {path}")
            raise
    print(f"{len(paths)} inputs without a finding")
    return 0


def run_atheris(atheris: ModuleType, target: str, options: list[str]) -> int:
    with atheris.instrument_imports(include=_INSTRUMENTED):
        check = load(target)
    atheris.Setup([f"{sys.executable} {__file__} {target}", *options], check)
    atheris.Fuzz()
    return 0


def libfuzzer_options(target: str, seconds: int, *, minimise: bool) -> list[str]:
    work = WORK / target
    found, seeds = work / "corpus", CORPUS / target
    found.mkdir(parents=True, exist_ok=True)
    seeds.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_len={MAX_INPUT_BYTES}",
        f"-timeout={MAX_INPUT_S}",
        f"-rss_limit_mb={MAX_MEMORY_MB}",
        f"-artifact_prefix={work}/",
        "-print_final_stats=1",
        "-len_control=0",  # what is short says little to most targets
    ]
    if not minimise:
        return [*options, f"-max_total_time={seconds}", str(found), str(seeds)]
    small = work / "small"
    shutil.rmtree(small, ignore_errors=True)
    small.mkdir()
    for path in found.iterdir():
        if path.stat().st_size <= MAX_CORPUS_FILE_BYTES:
            shutil.copy(path, small)
    return [*options, "-set_cover_merge=1", str(seeds), str(small)]


def run_hypothesis(target: str, seconds: int) -> int:
    """The corpus, then any bytes until the time is over."""
    from hypothesis import HealthCheck, given, settings  # noqa: PLC0415
    from hypothesis import strategies as st  # noqa: PLC0415

    check = load(target)
    run_inputs(target, sorted((CORPUS / target).glob("*")))
    ends_s = time.monotonic() + seconds
    executions = 0

    @settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.binary(max_size=MAX_INPUT_BYTES))
    def any_bytes(data: bytes) -> None:
        nonlocal executions
        if time.monotonic() < ends_s:
            executions += 1
            check(data)

    while time.monotonic() < ends_s:
        any_bytes()
    print(f"{executions} inputs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
