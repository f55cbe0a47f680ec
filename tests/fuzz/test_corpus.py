"""The fuzz targets over their corpora, and over what hypothesis makes up (docs/fuzzing.md)."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz.run import CORPUS, TARGETS, load
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

MAX_FILES = 200
MAX_FILE_BYTES = 1024
MAX_CORPUS_BYTES = 2**20
EXAMPLES = {"core": 20, "journal": 20, "tls": 20}
"""Where one input takes milliseconds; elsewhere 200."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """pymodbus tells of every PDU that it does not know."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def inputs(target: str) -> list[Path]:
    return sorted((CORPUS / target).iterdir())


def test_every_target_has_a_small_corpus() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
    assert {path.stem for path in Path(__file__).parent.glob("target_*.py")} == {f"target_{t}" for t in TARGETS}
    sizes = {target: [path.stat().st_size for path in inputs(target)] for target in TARGETS}
    assert all(0 < len(found) <= MAX_FILES for found in sizes.values())
    assert max(map(max, sizes.values())) <= MAX_FILE_BYTES
    assert sum(map(sum, sizes.values())) <= MAX_CORPUS_BYTES


@pytest.mark.parametrize("options", [["--seconds", "0"], ["--second", "-1"], ["--secnds", "5"]])
def test_the_runner_never_runs_without_end(options: list[str]) -> None:
    """As libFuzzer would with 0 seconds, and with options that it does not know."""
    command = [sys.executable, str(Path(__file__).with_name("run.py")), "mqtt", *options]
    assert subprocess.run(command, capture_output=True, timeout=20, check=False).returncode == 2


@pytest.mark.parametrize("target", TARGETS)
def test_corpus(target: str) -> None:
    """Nothing that was ever found, and nothing that reaches a place of its own, makes trouble (again)."""
    check = load(target)
    for path in inputs(target):
        try:
            check(path.read_bytes())
        except Exception as error:
            error.add_note(f"with {path.relative_to(CORPUS.parent)}")
            raise


@pytest.mark.parametrize("target", TARGETS)
def test_any_bytes(target: str) -> None:
    check = load(target)

    @settings(
        max_examples=EXAMPLES.get(target, 200), deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    @given(st.binary(max_size=300))
    def any_bytes(data: bytes) -> None:
        check(data)

    any_bytes()


@pytest.mark.parametrize("target", TARGETS)
def test_a_corpus_input_with_altered_bytes(target: str) -> None:
    check = load(target)
    seeds = [path.read_bytes() for path in inputs(target)]

    @settings(
        max_examples=EXAMPLES.get(target, 200), deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    @given(st.sampled_from(seeds), st.lists(st.tuples(st.integers(0, 1023), st.integers(0, 255)), max_size=4))
    def altered(seed: bytes, patches: list[tuple[int, int]]) -> None:
        data = bytearray(seed)
        for place, value in patches:
            if data:
                data[place % len(data)] = value
        check(bytes(data))

    altered()
